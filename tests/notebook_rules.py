"""What every notebook keeps, each rule a function from a notebook to a list of complaints.

A rule takes the notebook (``Page``) and yields one line for each place that breaks it. How to
write a notebook that keeps them is told in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext
from authoring import CARRIED

from tools.notebook_files import cell_tags, read_notebook
from tools.report import markdown, title_and_question

SIZE_LIMIT = 3 * 2**20  # bytes of a committed notebook
TAGS = {
    "core",  # of the short path through a lesson; the rest deepens
    "parameters",  # the typed defaults
    "setup",  # imports, right after the parameters
    "exercise",  # a code cell the learner writes
    "solution",  # ... with the solution in it, folded
    "check",  # asserts that the exercise was solved
    "main-figure",  # goes to the report's front page; opens with a comment, its caption
    "nbval-ignore-output",  # what training, timing or the machine decides
}
TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool}  # of a parameter
PARTS = ("type", "source", "tags")  # of a cell, what the two halves share
LABELS = (
    "Question",
    "You will be able to",
    "Prerequisites",
    "Minutes",
    "Reads",
    "Writes",
)
ABSOLUTE = re.compile(r"(?<![\w.~/:])(/(home|Users|root|tmp|work|mnt|opt|usr|var)/\w|[A-Z]:\\\w)")


def cell_source(cell: Mapping[str, Any]) -> str:
    """A notebook file stores source as a string or as a list of lines."""
    return "".join(cell["source"])


@dataclass(frozen=True)
class Page:
    """A notebook and its script, as they lie on disk."""

    path: Path

    @cached_property
    def cells(self) -> list[dict[str, Any]]:
        return read_notebook(self.path)["cells"]

    def of_type(self, kind: str) -> list[tuple[int, dict[str, Any]]]:
        return [(i, c) for i, c in enumerate(self.cells) if c["cell_type"] == kind]

    @property
    def code(self) -> list[tuple[int, dict[str, Any]]]:
        return self.of_type("code")

    @property
    def markdown(self) -> list[tuple[int, dict[str, Any]]]:
        return self.of_type("markdown")


Rule = Callable[[Page], Iterator[str]]


class Rules(dict[str, Rule]):
    """Rules by their names, and the decorator that adds one."""

    def __call__(self, function: Rule) -> Rule:
        self[function.__name__] = function
        return function


rule = RULES = Rules()
LESSON_ONLY = ("header", "recap", "exercises")  # what a lab note does not keep


def note_rules() -> Rules:
    """What a lab note keeps: the rules of lessons but for ``LESSON_ONLY``, and its own."""
    shared = {name: check for name, check in RULES.items() if name not in LESSON_ONLY}
    return Rules(shared | NOTE_RULES)


def broken_rules(path: Path) -> list[str]:
    """Every complaint about one notebook, each with the rule's name before it."""
    if not path.is_file():
        return [f"pair: {path.name} is missing; run `make notebooks`"]
    rules = note_rules() if path.parent.name == "studies" else RULES
    return [f"{name}: {line}" for name, check in rules.items() for line in check(Page(path))]


# --- sizes ----------------------------------------------------------------------------------------


def counts(page: Page) -> dict[str, int]:
    """All markdown counts as words, all lines of code cells as code, solutions included."""
    text = [cell_source(cell) for _, cell in page.markdown]
    lines = [len(cell_source(cell).splitlines()) for _, cell in page.code]
    outputs = [output for _, cell in page.code for output in cell["outputs"]]
    return {
        "words": sum(len(one.split()) for one in text),
        "code lines": sum(lines),
        "sections": sum(len(re.findall(r"^## ", one, re.M)) for one in text),
        "longest cell": max(lines),
        "figures": sum(bool({"image/png", "image/jpeg"} & set(o.get("data", {}))) for o in outputs),
    }


def reading_minutes(page: Page) -> float:
    """The least that is honest, from ``counts``."""
    found = counts(page)
    return found["words"] / 200 + found["code lines"] / 25


# --- any notebook ---------------------------------------------------------------------------------


@rule
def pair(page: Page) -> Iterator[str]:
    """The .py and the .ipynb half hold the same cells: types, sources, tags, in order."""
    script = page.path.with_suffix(".py")
    if not script.is_file():
        yield f"{script.name} is missing"
        return
    halves = [
        [(c["cell_type"], cell_source(c).rstrip("\n"), sorted(cell_tags(c))) for c in side]
        for side in (page.cells, jupytext.read(script, fmt="py:percent").cells)
    ]
    if len(halves[0]) != len(halves[1]):
        yield f"{len(halves[0])} cells in the .ipynb, {len(halves[1])} in the .py"
    for number, (left, right) in enumerate(zip(*halves, strict=False)):
        differing = [what for what, a, b in zip(PARTS, left, right, strict=True) if a != b]
        if differing:  # the first is enough: one cell more or less makes all that follow differ
            yield f"cell {number}: {', '.join(differing)} differs between .ipynb and .py"
            return


@rule
def executed_in_order(page: Page) -> Iterator[str]:
    """Every code cell has been run, once, from the first to the last."""
    counts = [cell["execution_count"] for _, cell in page.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, not 1..{len(counts)}"


@rule
def no_errors(page: Page) -> Iterator[str]:
    """No cell shows an error."""
    for number, cell in page.code:
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                yield f"cell {number} raised {output['ename']}: {output['evalue']}"


@rule
def no_stderr(page: Page) -> Iterator[str]:
    """No cell wrote to stderr: no warnings, no progress bars."""
    for number, cell in page.code:
        for output in cell["outputs"]:
            if output["output_type"] == "stream" and output["name"] == "stderr":
                yield f"cell {number} wrote to stderr: {''.join(output['text'])[:80]!r}"


@rule
def known_tags(page: Page) -> Iterator[str]:
    """Only tags that mean something here; a misspelt one would silently do nothing."""
    for number, cell in enumerate(page.cells):
        for tag in cell_tags(cell):
            if tag not in TAGS:
                yield f"cell {number} has the unknown tag {tag!r}"


@rule
def only_python(page: Page) -> Iterator[str]:
    """Cells are plain Python: no magics, no shell lines."""
    for number, cell in page.code:
        try:
            ast.parse(cell_source(cell))
        except SyntaxError as error:
            yield f"cell {number} is no plain Python: {error}"


@rule
def header(page: Page) -> Iterator[str]:
    """The first cell is the header: a title with the notebook's number, then every label."""
    text = cell_source(page.cells[0]) if page.cells else ""
    if not re.match(rf"# {page.path.name[:2]} · \S", text):
        yield f"the first cell does not open with `# {page.path.name[:2]} · Title`"
    places = [text.find(f"\n**{label}:**") for label in LABELS]
    for label, place in zip(LABELS, places, strict=True):
        if place < 0:
            yield f"the header has no line **{label}:**"
    if -1 not in places and places != sorted(places):
        yield f"the header's labels are not in the order {', '.join(LABELS)}"
    _, question = title_and_question({"cells": page.cells})
    if question and not question.endswith("?"):
        yield "the question does not end in a question mark"
    if "\n**Minutes:**" in text and not re.search(r"^\*\*Minutes:\*\* .*\d", text, re.M):
        yield "the minutes are no number"
    if not 2 <= len(promises(text)) <= 6:
        yield f"the header promises {len(promises(text))} things; 2 to 6 is a notebook"


def promises(text: str) -> list[str]:
    """The bullets under **You will be able to:**."""
    part = re.search(r"^\*\*You will be able to:\*\*\n+((?:- .*\n(?:  .*\n)*)+)", text + "\n", re.M)
    return bullets(part[1]) if part else []


def bullets(text: str) -> list[str]:
    """Markdown bullets as plain words: wrapped lines joined, markup and end punctuation gone."""
    found = re.findall(r"^- (.*(?:\n  .*)*)", text, re.M)
    return [re.sub(r"\s+", " ", re.sub(r"[*_`]", "", b)).strip(" .;,").lower() for b in found]


@rule
def recap(page: Page) -> Iterator[str]:
    """The last cell is the recap; each of its bullets opens with the promise that it redeems."""
    last = page.cells[-1] if page.cells else None
    text = cell_source(last) if last and last["cell_type"] == "markdown" else ""
    if not text.startswith("## Recap"):
        yield "the last cell is not a markdown cell that opens with `## Recap`"
        return
    said, kept = promises(cell_source(page.cells[0])), bullets(text)
    if len(said) != len(kept):
        yield f"the header promises {len(said)} things, the recap redeems {len(kept)}"
    for promise, answer in zip(said, kept, strict=False):
        if not answer.startswith(promise):
            yield f"the recap says {answer[:50]!r} where the header promised {promise!r}"
        elif len(answer) < len(promise) + 20:
            yield f"the recap repeats {promise!r} without saying what was found"


@rule
def parameters(page: Page) -> Iterator[str]:
    """One parameters cell, the first code cell; each line typed, with a plain default and a
    comment that explains it; nothing derived."""
    tagged = [(i, c) for i, c in enumerate(page.cells) if "parameters" in cell_tags(c)]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells are tagged `parameters`; one is needed"
        return
    number, cell = tagged[0]
    if page.code and page.code[0][0] != number:
        yield "a code cell stands before the parameters"
    lines = cell_source(cell).splitlines()
    for node in ast.parse("\n".join(lines)).body:
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            yield (
                "the parameters cell may only hold lines `name: type = value  # comment`, found: "
                f"{ast.unparse(node)}"
            )
            continue
        name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
        if kind not in TYPES and not re.fullmatch(r"list\[(int|float|str)\]", kind):
            yield f"parameter {name} has type {kind}; use int, float, str, bool or a list of these"
            continue
        try:
            default = ast.literal_eval(node.value)
        except ValueError:
            yield f"the default of {name} is no plain literal"
            continue
        if "#" not in lines[node.end_lineno - 1][node.end_col_offset :]:
            yield f"parameter {name} has no comment on its line"
        wanted = TYPES.get(kind, list)
        if not isinstance(default, wanted) or (wanted is int and isinstance(default, bool)):
            yield f"parameter {name}: the default {default!r} is no {kind}"


@rule
def prose_before_code(page: Page) -> Iterator[str]:
    """Before each step a paragraph says why: only setup and check cells may follow code."""
    before = None
    for number, cell in enumerate(page.cells):
        if cell["cell_type"] == "code" and not {"setup", "check"} & set(cell_tags(cell)):
            prose = cell_source(before) if before and before["cell_type"] == "markdown" else ""
            words = re.sub(r"^#.*$", "", prose, flags=re.M).split()
            if "parameters" not in cell_tags(cell) and len(words) < 8:
                yield f"cell {number} is code without a paragraph before it"
        before = cell


@rule
def exercises(page: Page) -> Iterator[str]:
    """Two or three exercises: a prompt headed `### Exercise n`, a code cell tagged `exercise` and
    `solution` with the marker lines, and a cell tagged `check` that asserts."""
    cells = page.cells
    found = [i for i, c in enumerate(cells) if "exercise" in cell_tags(c)]
    if not 2 <= len(found) <= 3:
        yield f"{len(found)} exercises; a notebook has two or three"
    for count, number in enumerate(found, start=1):
        cell, tags = cells[number], cell_tags(cells[number])
        prompt = cells[number - 1] if number else None
        if not prompt or not cell_source(prompt).startswith(f"### Exercise {count}"):
            yield f"cell {number}: the prompt before it does not open with `### Exercise {count}`"
        if cell["cell_type"] != "code" or "solution" not in tags:
            yield f"cell {number}: an exercise is a code cell tagged `exercise` and `solution`"
        if not cell["metadata"].get("jupyter", {}).get("source_hidden"):
            yield f'cell {number}: a solution is folded: jupyter={{"source_hidden": true}}'
        lines = [line.strip() for line in cell_source(cell).splitlines()]
        marks = [line for line in lines if line in ("# BEGIN SOLUTION", "# END SOLUTION")]
        if marks != ["# BEGIN SOLUTION", "# END SOLUTION"]:
            yield f"cell {number}: one # BEGIN SOLUTION and then one # END SOLUTION are needed"
        check = cells[number + 1] if number + 1 < len(cells) else None
        if not check or "check" not in cell_tags(check) or "assert" not in cell_source(check):
            yield f"cell {number}: the cell after it is no `check` that asserts"
    for number, cell in enumerate(cells):
        after = number and "exercise" in cell_tags(cells[number - 1])
        if "check" in cell_tags(cell) and not after:
            yield f"cell {number}: a `check` follows its exercise at once"
        if "solution" in cell_tags(cell) and "exercise" not in cell_tags(cell):
            yield f"cell {number}: a `solution` is an `exercise` too"


@rule
def figures_have_captions(page: Page) -> Iterator[str]:
    """At least one main figure; each opens with a comment, its caption, and shows a picture."""
    tagged = [(i, c) for i, c in page.code if "main-figure" in cell_tags(c)]
    if not tagged:
        yield "no cell is tagged `main-figure`"
    for number, cell in tagged:
        if not re.match(r"# \S.{15,}", cell_source(cell)):
            yield f"cell {number}: a main figure opens with a comment, its caption"
        if not any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            yield f"cell {number}: a main figure shows no PNG"


@rule
def formulas(page: Page) -> Iterator[str]:
    """The report can show every formula; a command that it does not know would be shown as is."""
    for number, cell in page.markdown:
        shown = markdown(cell_source(cell))
        for found in re.findall(r"<mi>(\\\w*|&)</mi>|<code>(\\.*?)</code>", shown):
            yield f"cell {number}: the report cannot show {''.join(found)!r} in a formula"


@rule
def small(page: Page) -> Iterator[str]:
    """Under three megabytes, so that the pages that host it still show it."""
    size = page.path.stat().st_size
    if size >= SIZE_LIMIT:
        yield f"{size / 2**20:.1f} MB; {SIZE_LIMIT // 2**20} MB is the limit"


@rule
def no_absolute_paths(page: Page) -> Iterator[str]:
    """No path of the machine that executed it, in source, text or output."""
    for number, cell in enumerate(page.cells):
        texts = [cell_source(cell)]
        for output in cell.get("outputs", []):
            texts.append("".join(output.get("text", "")))
            data = output.get("data", {})
            texts += ["".join(v) for k, v in data.items() if k.startswith("text/plain")]
        for text in texts:
            if found := ABSOLUTE.search(text):
                yield f"cell {number} holds an absolute path: {text[found.start() :][:40]!r}"
                break


@rule
def only_our_metadata(page: Page) -> Iterator[str]:
    """Nothing of the author's machine or editor: the kernel is `python3`, cells carry what both
    halves can say. JupyterLab's own notes when it saves a notebook are no harm."""
    notebook = read_notebook(page.path)
    odd = set(notebook["metadata"]) - {"kernelspec", "language_info", "jupytext"}
    if odd or "kernelspec" not in notebook["metadata"]:
        yield f"notebook metadata holds {', '.join(sorted(notebook['metadata']))}"
    elif notebook["metadata"]["kernelspec"]["name"] != "python3":
        yield f"the kernel is {notebook['metadata']['kernelspec']['name']!r}, not 'python3'"
    for number, cell in enumerate(notebook["cells"]):
        odd = set(cell["metadata"]) - set(CARRIED)
        if odd:
            yield f"cell {number} carries metadata {', '.join(sorted(odd))}"


# --- lab notes ------------------------------------------------------------------------------------

note_rule = NOTE_RULES = Rules()
NOTE_LABELS = ("Question", "Prerequisites", "Minutes", "Reads", "Writes")
NOTE_SIZES = {"words": (0, 1_200), "code lines": (0, 160), "longest cell": (0, 40)}
NOTE_SIZES |= {"sections": (3, 7), "figures": (2, 3)}


@note_rule
def note_header(page: Page) -> Iterator[str]:
    """The first cell: a title, then every label in order, one question, honest minutes."""
    text = cell_source(page.cells[0])
    if not re.match(r"# Lab note · \S", text):
        yield "the first cell does not open with `# Lab note · Title`"
    found = [name for name in re.findall(r"^\*\*(.+?):\*\*", text, re.M) if name in NOTE_LABELS]
    if found != list(NOTE_LABELS):
        yield f"the header's labels are {', '.join(found)}, not {', '.join(NOTE_LABELS)}"
    _, question = title_and_question({"cells": page.cells})
    if not question.endswith("?"):
        yield "the question does not end in a question mark"
    stated = re.search(r"^\*\*Minutes:\*\* (\d+) to read; \d+ on two CPU cores$", text, re.M)
    if stated is None:
        yield "the header does not state `N to read; N on two CPU cores`"
    elif int(stated[1]) < reading_minutes(page):
        yield f"{stated[1]} to read are less than {reading_minutes(page):.0f}"


@note_rule
def note_size(page: Page) -> Iterator[str]:
    """One question's worth of words, code and figures."""
    for name, found in counts(page).items():
        low, high = NOTE_SIZES[name]
        if not low <= found <= high:
            yield f"{name}: {found}, limits {low} and {high}"


@note_rule
def note_answer(page: Page) -> Iterator[str]:
    """The last cell answers the question."""
    last = page.cells[-1]
    if last["cell_type"] != "markdown" or not cell_source(last).startswith("## Answer"):
        yield "the last cell is not a markdown cell that opens with `## Answer`"
