"""The pages that a run leaves to be read: one index, and every executed notebook as HTML.

Everything is in the files themselves (pictures, sound, style; formulas as MathML), so a report
opens from disk, without a network, and can be sent to someone as it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from avadclip_lite.experiments.files import write_atomically
from avadclip_lite.experiments.metrics import MEASURES
from tools.notebook_files import cell_tags, read_notebook

PAGES = Path(__file__).parent / "pages"
VARYING = ("value", "seed", "config")  # among records of one quantity; a digest covers its seed
_PAGES = jinja2.Environment(loader=jinja2.FileSystemLoader(PAGES), autoescape=True)


def write_report(out: Path, metrics: Mapping[str, Any]) -> Path:
    """Write ``report.html``, which is returned, and ``report/NN_name.html`` for the executed
    notebooks in ``out``; ``metrics`` is the content of ``metrics.json``."""
    pages, figures = [], []
    around = [None, *(entry["notebook"] for entry in metrics["notebooks"]), None]
    for entry, before, after in zip(metrics["notebooks"], around, around[2:], strict=False):
        name = entry["notebook"]
        notebook = read_notebook(out / f"{name}.ipynb")
        title, question = title_and_question(notebook)
        template, cells = _PAGES.get_template("notebook.html.j2"), _cells(notebook)
        body = template.render(before=before, after=after, cells=cells)
        write_atomically(out / "report" / f"{name}.html", _page(title, body))
        # one line of Markdown without the paragraph around it
        asked = re.sub(r"^<p>|</p>\s*$", "", markdown(question).strip()) if question else ""
        pages.append(entry | {"title": title, "question": asked})
        same = {"notebook": name, "title": title}
        figures += [same | {"caption": c, "picture": p} for c, p in main_figures(notebook)]
    lines = metrics["metrics"]
    synthetic = any("soundstage" in line["dataset"].lower() for line in lines)
    shown = {"pages": pages, "figures": figures, "rows": results_table(lines)}
    body = _PAGES.get_template("index.html.j2").render(synthetic=synthetic, **shown)
    index = out / "report.html"
    write_atomically(index, _page("AVadCLIP in notebooks: a run", body))
    return index


def title_and_question(notebook: Mapping[str, Any]) -> tuple[str, str]:
    """The first heading of a notebook, and the question its header asks (or nothing)."""
    text = next((c["source"] for c in notebook["cells"] if c["cell_type"] == "markdown"), "")
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
        caption = re.match(r"((?:#.*\n)+)", cell["source"] + "\n")
        words = " ".join(re.findall(r"# *(.*)", caption[1])) if caption else ""
        pictures = (o.get("data", {}).get("image/png") for o in cell.get("outputs", []))
        found += [(words, picture.replace("\n", "")) for picture in pictures if picture][:1]
    return found


def results_table(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each quantity: of records that differ only in what is ``VARYING``, ``shown`` is
    the mean and, of several, the standard deviation; fractions in percent."""
    rows, same = [], [name for name in (lines[0] if lines else ()) if name not in VARYING]
    groups = pd.DataFrame(lines).groupby(same, dropna=False, sort=False) if lines else ()
    for _, members in groups:
        first, configs = lines[members.index[0]], members["config"].dropna().unique()
        share = MEASURES[first["measure"]] in ("fraction", "signed")
        numbers = members["value"].agg(["mean", "std"]).dropna()
        shown = " ± ".join(f"{100 * n:.2f}" if share else f"{n:,.4g}" for n in numbers)
        row = {**first, "shown": shown + " %" * share}
        row["config"] = configs[0] if len(configs) == 1 else ""
        row["seeds"] = members["seed"].dropna().astype(int).tolist()
        rows.append(row)
    return rows


def _cells(notebook: Any) -> str:
    """A notebook's cells as HTML, without the page around them."""
    from nbconvert import HTMLExporter

    template = (PAGES / "cells.html.j2").read_text(encoding="utf-8")
    exporter = HTMLExporter(raw_template=template, exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    exporter.register_filter("markdown2html", markdown)
    return exporter.from_notebook_node(notebook)[0]


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
    link = r'href="(?:\.\./|studies/)?(\w+)\.ipynb(#[^"]*)?"'
    return re.sub(link, r'href="\1.html\2"', text)


def formula(latex: str, display: str) -> str:
    """LaTeX as MathML, ``display`` "inline" or "block"."""
    import latex2mathml.converter

    latex = re.sub(r"{(aligned|gathered)}", "{align}", latex)  # the one of them it knows
    try:
        return latex2mathml.converter.convert(latex, display=display)
    except Exception:  # it raises a family of its own; the source is better than no page
        return f"<code>{html.escape(latex)}</code>"


def _page(title: str, body: str) -> str:
    from pygments.formatters import HtmlFormatter

    return _PAGES.get_template("page.html.j2").render(
        title=re.sub(r"[*`$]", "", title),
        colours=HtmlFormatter(style="friendly").get_style_defs(".highlight"),
        style=(PAGES / "report.css").read_text(encoding="utf-8"),
        body=body,
    )
