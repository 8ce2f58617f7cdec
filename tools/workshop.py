"""For teachers: the learner's copies of the notebooks, and a page for whoever leads the workshop.

    make workshop                 # into runs/workshop
    make workshop NB="03 05"      # these notebooks only

A learner's copy is the executed notebook with the body of every exercise cut and its check kept,
so that it can be read without running anything and worked through offline. ``facilitator.html``
holds what learners do not get: minutes, where people stumble, and the answers. Where people stumble
is the comment in a solution that opens with ``# Stumbles:``.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import nbformat  # noqa: E402
from authoring import blank  # noqa: E402

from avadclip_lite.experiments.files import write_atomically  # noqa: E402
from tools.notebook_files import cell_tags  # noqa: E402
from tools.report import markdown  # noqa: E402

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
STUMBLES = "# Stumbles:"
EFFORT = re.compile(r"\*(\d+) minutes, (easy|medium|hard)\.\*")
PAGE = "facilitator.html"


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise as its author wrote it."""

    title: str  # "Exercise 1"
    prompt: str  # Markdown, without the title
    minutes: int
    difficulty: str
    stumbles: str
    answer: str  # the solution cell, without markers and stumbling blocks
    check: str


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One notebook as a facilitator sees it."""

    name: str
    title: str
    question: str
    minutes: str  # the header's line: on a CPU, and to teach
    teach: int  # minutes, exercises not included
    exercises: tuple[Exercise, ...]


def exercise_of(prompt: str, source: str, check: str) -> Exercise:
    """Parse the three cells of an exercise.

    Raises ``ValueError`` if minutes and difficulty, or the stumbling blocks, are missing.
    """
    title, _, text = prompt.partition("\n")
    title = title.removeprefix("### ").strip()
    effort = EFFORT.search(text)
    if not effort:
        raise ValueError(f"{title} does not say `*N minutes, easy.*` (or medium, or hard)")
    lines, stumbles, inside, taking = [], [], False, False
    for line in source.splitlines():
        bare = line.strip()
        if bare in (BEGIN, END):
            inside, taking = bare == BEGIN, False
        elif inside and bare.startswith(STUMBLES):
            stumbles.append(bare.removeprefix(STUMBLES).strip())
            taking = True
        elif taking and bare.startswith("#"):
            stumbles.append(bare.removeprefix("#").strip())
        else:
            taking = False
            lines.append(line)
    if not stumbles:
        raise ValueError(f"{title}: its solution does not say `{STUMBLES} ...`")
    return Exercise(
        title=title,
        prompt=text.replace(effort[0], "").strip(),
        minutes=int(effort[1]),
        difficulty=effort[2],
        stumbles=" ".join(stumbles),
        answer="\n".join(lines).strip("\n"),
        check=check,
    )


def read_lesson(path: Path) -> Lesson:
    """What the facilitator's page says of a notebook; ``ValueError`` names what it lacks."""
    cells = nbformat.read(path, as_version=4).cells
    header = cells[0].source

    def line(label: str) -> str:
        found = re.search(rf"^\*\*{label}:\*\* (.*?)(?=\n\n|\Z)", header, flags=re.M | re.S)
        if not found:
            raise ValueError(f"{path.name}: its header has no line **{label}:**")
        return " ".join(found[1].split())

    exercises = []
    for number, cell in enumerate(cells):
        if "exercise" in cell_tags(cell):
            try:
                parts = (cells[k].source for k in (number - 1, number, number + 1))
                exercises.append(exercise_of(*parts))
            except ValueError as error:
                raise ValueError(f"{path.name}: {error}") from None
    minutes = line("Minutes")
    teach = re.search(r"(\d+) to (?:teach|read)", minutes)
    if not teach:
        raise ValueError(f"{path.name}: its **Minutes:** do not say how many it takes `to teach`")
    return Lesson(
        name=path.name,
        title=header.splitlines()[0].removeprefix("# "),
        question=line("Question"),
        minutes=minutes,
        teach=int(teach[1]),
        exercises=tuple(exercises),
    )


def learners_copy(path: Path, out: Path) -> nbformat.NotebookNode:
    """The notebook with blank exercises, for the folder ``out``; outputs of exercises and checks
    are gone with them, and links to what is not copied lead back to it."""
    there = os.path.relpath(path.parent, out)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        tags = cell_tags(cell)
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((?=studies/|\.\./)", f"]({there}/", cell.source)
        if "exercise" in tags:
            cell.source = blank(cell.source)
            cell.metadata.get("jupyter", {}).pop("source_hidden", None)
            cell.metadata["tags"] = [tag for tag in tags if tag != "solution"]
        if {"exercise", "check"} & set(tags):
            cell.outputs, cell.execution_count = [], None
    return notebook


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
table { border-collapse: collapse; } td, th { padding: .25rem .8rem; text-align: left;
       border-bottom: 1px solid #ddd; vertical-align: top; }
pre { background: #f6f6f4; padding: .8rem; overflow-x: auto; font-size: 14px; }
.effort { color: #666; } .stumbles { border-left: 4px solid #e09f3e; padding-left: .8rem; }
h2 { margin-top: 3rem; border-top: 2px solid #222; padding-top: 1rem; }
@media print { h2 { page-break-before: always; } }
"""


def facilitators_page(lessons: Sequence[Lesson]) -> str:
    """One HTML page: the plan, then the exercises of each notebook with their answers."""
    practice = [sum(e.minutes for e in lesson.exercises) for lesson in lessons]
    total = sum(lesson.teach for lesson in lessons) + sum(practice)
    out = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>For the facilitator</title>",
        f"<style>{STYLE}</style><h1>For the facilitator</h1>",
        "<p>Learners open the notebooks in this folder; each holds its outputs, so nobody needs to "
        "run what they only read, and no network or GPU is used. Exercises stop with "
        "<code>NotImplementedError</code> until they are solved; the check in the next cell says "
        "yes or what is wrong. Nothing after an exercise depends on it, so skipping one is fine. "
        "Minutes are the authors' estimates.</p>",
        "<table><tr><th>notebook</th><th>question</th><th>to teach</th><th>exercises</th></tr>",
    ]
    for lesson, minutes in zip(lessons, practice, strict=True):
        anchor = html.escape(lesson.name)
        out.append(
            f"<tr><td><a href='#{anchor}'>{html.escape(lesson.title)}</a></td>"
            f"<td>{html.escape(lesson.question)}</td><td>{lesson.teach} min</td>"
            f"<td>{minutes} min</td></tr>"
        )
    out.append(
        f"<tr><td></td><td>all of it</td><td colspan='2'>{total // 60} h {total % 60} min</td></tr>"
        "</table>"
    )
    for lesson in lessons:
        out.append(
            f"<h2 id='{html.escape(lesson.name)}'>{html.escape(lesson.title)}</h2>"
            f"<p>{html.escape(lesson.question)}</p>"
            f"<p class='effort'>Minutes: {html.escape(lesson.minutes)}</p>"
        )
        for exercise in lesson.exercises:
            out.append(
                f"<h3>{html.escape(exercise.title)} <span class='effort'>{exercise.minutes} "
                f"minutes, {exercise.difficulty}</span></h3>{markdown(exercise.prompt)}"
                f"<div class='stumbles'><b>Where people stumble.</b> "
                f"{markdown(exercise.stumbles)}</div>"
                f"<p>An answer:</p><pre>{html.escape(exercise.answer)}</pre>"
                f"<details><summary>the check</summary><pre>{html.escape(exercise.check)}</pre>"
                "</details>"
            )
    return "\n".join(out) + "</html>\n"


def build(notebooks: Sequence[Path], out: Path) -> list[Lesson]:
    """Write the copies and the page into ``out``, all of it or nothing."""
    lessons = [read_lesson(path) for path in notebooks]
    copies = [learners_copy(path, out) for path in notebooks]
    draft = out.with_name(out.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for path, copy in zip(notebooks, copies, strict=True):
        nbformat.write(copy, draft / path.name)
    write_atomically(draft / PAGE, facilitators_page(lessons))
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)
    return lessons


def main() -> int:
    parser = argparse.ArgumentParser(description="Make learner's copies and facilitator's page.")
    parser.add_argument("numbers", nargs="*", help="which notebooks, e.g. 03 05 (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "workshop")
    args = parser.parse_args()
    found = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    chosen = [p for p in found if not args.numbers or p.name.startswith(tuple(args.numbers))]
    if not chosen:
        print(f"no notebook matches {' '.join(args.numbers)}", file=sys.stderr)
        return 2
    try:
        lessons = build(chosen, args.out)
    except ValueError as error:
        print(f"workshop: {error}", file=sys.stderr)
        return 1
    exercises = sum(len(lesson.exercises) for lesson in lessons)
    print(f"{len(lessons)} notebooks, {exercises} exercises, and {PAGE} in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
