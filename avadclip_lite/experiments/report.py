"""The pages that a run leaves to be read: one index, and every executed notebook as HTML.

Everything is in the files themselves (pictures, sound, style; formulas as MathML), so a report
opens from disk, without a network, and can be sent to someone as it is.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avadclip_lite.experiments.run import cell_source, cell_tags, read_notebook, write_atomically

__all__ = [
    "formula",
    "main_figures",
    "markdown",
    "results_table",
    "title_and_question",
    "write_report",
]

STYLE = """
:root { color-scheme: light; --ink: #24292f; --soft: #6a737d; --line: #dde2e7; --tint: #f6f8fa;
        --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 5rem; max-width: 60rem; color: var(--ink);
       font: 16px/1.6 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2.2rem 0 .8rem; }
h1 { font-size: 1.9rem; margin-top: .5rem; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
a.anchor-link { visibility: hidden; margin-left: .3em; }
h1:hover .anchor-link, h2:hover .anchor-link, h3:hover .anchor-link { visibility: visible; }
nav { font-size: .9rem; color: var(--soft); border-bottom: 1px solid var(--line);
      padding-bottom: .6rem; display: flex; justify-content: space-between; gap: 1rem; }
pre, code { font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
:not(pre) > code { background: var(--tint); padding: .1em .3em; border-radius: 3px; }
.input pre { background: var(--tint); border-left: 3px solid var(--line); padding: .7rem 1rem;
             overflow-x: auto; margin: .8rem 0 .4rem; }
.output_area pre { padding: .2rem 1rem; margin: .2rem 0; overflow-x: auto; color: #444; }
.output_stderr pre { background: #fff5e6; }
.output_error pre { background: #fdecea; }
.output img, figure img { max-width: 100%; height: auto; }
details.solution > summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .8rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
         vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1.5rem 0; padding: 1rem; border: 1px solid var(--line); border-radius: 6px; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; }
.soft { color: var(--soft); } .old { color: #9a6700; }
"""

# solutions stay folded, as in the notebooks
TEMPLATE = """
{%- extends 'basic/index.html.j2' -%}
{%- block input_group -%}
{%- if 'solution' in cell.metadata.get('tags', []) -%}
<details class="solution"><summary>solution</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock input_group -%}
"""


def write_report(out: Path, metrics: Mapping[str, Any]) -> Path:
    """Write ``report.html`` and ``report/NN_name.html`` for the executed notebooks in ``out``.

    ``metrics`` is the content of ``metrics.json``: ``notebooks`` (name, seconds, current, ...) and
    ``metrics``. Returns the index.
    """
    pages, figures = [], []
    entries = metrics["notebooks"]
    names = [entry["notebook"] for entry in entries]
    for number, (entry, name) in enumerate(zip(entries, names, strict=True)):
        notebook = read_notebook(out / f"{name}.ipynb")
        title, question = title_and_question(notebook)
        before = names[number - 1] if number else None
        after = names[number + 1] if number + 1 < len(names) else None
        target = out / "report" / f"{name}.html"
        write_atomically(
            target, _page(title, _navigation(before, after) + _body(out / f"{name}.ipynb"))
        )
        pages.append((entry, title, question))
        figures += [(name, title, *figure) for figure in main_figures(notebook)]
    index = out / "report.html"
    write_atomically(
        index, _page("AVadCLIP in notebooks: a run", _index(pages, figures, metrics["metrics"]))
    )
    return index


def title_and_question(notebook: Mapping[str, Any]) -> tuple[str, str]:
    """The first heading of a notebook, and the question its header asks (or nothing)."""
    text = next((cell_source(c) for c in notebook["cells"] if c["cell_type"] == "markdown"), "")
    title = re.search(r"^# +(.+)$", text, re.M)
    question = re.search(r"^\*\*Question:\*\*(.+?)(?:\n\n|\Z)", text, re.M | re.S)
    return (title[1] if title else "untitled"), (" ".join(question[1].split()) if question else "")


def main_figures(notebook: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Caption and PNG (base64) of each cell tagged ``main-figure``; the caption is the comment
    that opens the cell."""
    found = []
    for cell in notebook["cells"]:
        if "main-figure" not in cell_tags(cell):
            continue
        caption = re.match(r"((?:#.*\n)+)", cell_source(cell) + "\n")
        words = " ".join(re.findall(r"# *(.*)", caption[1])) if caption else ""
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).get("image/png")
            if picture:
                found.append((words, "".join(picture).replace("\n", "")))
                break
    return found


def results_table(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each quantity: records that differ only in value and seed become the mean and
    the standard deviation (of the sample, ``None`` for a single seed) over their seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    same = ("notebook", "name", "dataset", "config", "device", "protocol")
    # the digest covers the seed, so over seeds it differs: a row with several shows none
    for line in lines:
        key = tuple(line[k] for k in same if k != "config")
        groups.setdefault(key, []).append(line)
    rows = []
    for members in groups.values():
        values = [float(m["value"]) for m in members]
        mean = sum(values) / len(values)
        spread = None
        if len(values) > 1:
            spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        configs = {m["config"] for m in members if m["config"]}
        rows.append(
            {k: members[0][k] for k in same}
            | {
                "config": configs.pop() if len(configs) == 1 else "",
                "mean": mean,
                "spread": spread,
                "seeds": [m["seed"] for m in members if m["seed"] is not None],
            }
        )
    return rows


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _index(
    pages: Sequence[tuple[Mapping[str, Any], str, str]],
    figures: Sequence[tuple[str, str, str, str]],
    numbers: Sequence[Mapping[str, Any]],
) -> str:
    e = html.escape
    parts = ["<h1>AVadCLIP in notebooks: a run</h1>"]
    if any("soundstage" in line["dataset"].lower() for line in numbers):
        parts.append(
            '<p class="soft">Soundstage is a synthetic stage. Its numbers compare methods on that '
            "stage; they are not to be set beside the paper's.</p>"
        )
    parts.append("<h2>Notebooks</h2>")
    rows = []
    for entry, title, question in pages:
        given = ", ".join(f"{k}={v}" for k, v in entry["parameters"].items())
        old = "" if entry["current"] else '<br><span class="old">of an earlier version</span>'
        rows.append(
            f'<tr><td><a href="report/{entry["notebook"]}.html">{e(title)}</a>{old}</td>'
            f"<td>{_inline(question)}</td><td>{e(given)}</td>"
            f'<td class="number">{entry["seconds"]:.0f} s</td></tr>'
        )
    heads = "<tr><th>notebook</th><th>question</th><th>parameters</th><th>time</th></tr>"
    parts.append(f'<div class="scroll"><table>{heads}{"".join(rows)}</table></div>')
    if figures:
        parts.append("<h2>Main figures</h2>")
    for name, title, caption, picture in figures:
        parts.append(
            f'<figure><img alt="{e(caption)}" src="data:image/png;base64,{picture}">'
            f'<figcaption>{e(caption)} · <a href="report/{name}.html">{e(title)}</a></figcaption>'
            "</figure>"
        )
    parts.append("<h2>Results</h2>")
    rows = []
    for row in results_table(numbers):
        spread = "" if row["spread"] is None else f" ± {_number(row['spread'])}"
        seeds = ", ".join(map(str, row["seeds"]))
        rows.append(
            f'<tr><td>{e(row["name"])}</td><td class="number">{_number(row["mean"])}{spread}</td>'
            f"<td>{e(row['dataset'])}</td><td>{e(row['protocol'])}</td><td>{e(seeds)}</td>"
            f"<td><code>{e(row['config'] or '')}</code></td><td>{e(row['device'])}</td>"
            f'<td><a href="report/{row["notebook"]}.html">{e(row["notebook"][:2])}</a></td></tr>'
        )
    if rows:
        names = ("quantity", "value", "data", "protocol", "seed", "configuration", "device", "in")
        heads = "<tr>" + "".join(f"<th>{n}</th>" for n in names) + "</tr>"
        parts.append(f'<div class="scroll"><table>{heads}{"".join(rows)}</table></div>')
        parts.append(
            '<p class="soft">Several seeds: mean ± standard deviation of the sample. The raw lines '
            "are in <code>metrics.json</code>.</p>"
        )
    else:
        parts.append('<p class="soft">No notebook recorded a number.</p>')
    return "\n".join(parts)


def _navigation(before: str | None, after: str | None) -> str:
    def link(name: str | None, text: str) -> str:
        return f'<a href="{name}.html">{text}</a>' if name else "<span></span>"

    middle = '<a href="../report.html">overview</a>'
    return f"<nav>{link(before, '← before')}{middle}{link(after, 'next →')}</nav>"


def _body(path: Path) -> str:
    """A notebook's cells as HTML, without the page around them."""
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(raw_template=TEMPLATE, exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    exporter.register_filter("markdown2html", markdown)
    body, _ = exporter.from_notebook_node(nbformat.read(path, as_version=4))
    return body


def markdown(source: str) -> str:
    """Markdown to HTML; formulas to MathML, links among notebooks to links among pages."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return formula(body, "inline")

        def block_math(self, body: str) -> str:
            return formula(body, "block")

        def latex_environment(self, name: str, body: str) -> str:
            return formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

    text = MarkdownWithMath(renderer=Renderer(escape=False)).render(source)
    return re.sub(r'href="(\d\d_\w+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', text)


def formula(latex: str, display: str) -> str:
    import latex2mathml.converter

    latex = re.sub(r"{(aligned|gathered)}", "{align}", latex)  # the one of them it knows
    try:
        return latex2mathml.converter.convert(latex, display=display)
    except Exception:  # it raises a family of its own; the source is better than no page
        return f"<code>{html.escape(latex)}</code>"


def _inline(text: str) -> str:
    """One line of Markdown without the paragraph around it."""
    return re.sub(r"^<p>|</p>\s*$", "", markdown(text).strip()) if text else ""


def _page(title: str, body: str) -> str:
    from pygments.formatters import HtmlFormatter

    colours = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    plain = re.sub(r"[*`$]", "", title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(plain)}'
        '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}{colours}\n.highlight {{ background: none; }}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )
