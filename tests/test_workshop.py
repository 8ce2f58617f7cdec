"""Learner's copies give nothing away, and the facilitator's page gives everything."""

from __future__ import annotations

import re
from pathlib import Path

import authoring
import nbformat
import pytest
import workshop
from example_notebook import SCRIPT, write_script

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def write(folder: Path, text: str = SCRIPT) -> Path:
    script = write_script(folder, text=text)
    notebook = authoring.from_script(script)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":  # as if it had been run
            cell.execution_count = number
            cell.outputs = [nbformat.v4.new_output("stream", text=f"said by {number}\n")]
    nbformat.write(notebook, script.with_suffix(".ipynb"))
    return script.with_suffix(".ipynb")


def test_an_exercise_is_cut_and_everything_else_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = nbformat.read(path, as_version=4).cells
    after = workshop.learners_copy(path, tmp_path / "copies").cells
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        tags = old.metadata.get("tags", [])
        if "exercise" in tags:
            assert "NotImplementedError" in new.source and "def " in new.source
            assert "Stumbles" not in new.source and "return" not in new.source
            assert not new.metadata.get("jupyter", {}).get("source_hidden")
        else:
            assert new.source == old.source
        if "exercise" in tags or "check" in tags:
            assert new.outputs == [] and new.execution_count is None
        elif old.cell_type == "code":
            assert new.outputs == old.outputs != []


def test_the_page_has_minutes_stumbling_blocks_answers_and_sums(tmp_path: Path) -> None:
    path = write(tmp_path)
    workshop.build([path, path], tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "42_example.ipynb",
        "facilitator.html",
    ]
    page = (tmp_path / "out" / "facilitator.html").read_text()
    words = re.sub(r"<[^>]+>", "", page)
    assert "2 minutes, easy" in words and "3 minutes, hard" in words
    assert "the square, which is the same at two and at zero." in words
    assert "return 2 * x" in words and "twice two is four" in words
    assert "# Stumbles" not in words and "BEGIN SOLUTION" not in words
    assert "0 h 14 min" in words  # twice 2 to teach and 2 + 3 of practice


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ("*2 minutes, easy.* ", "Exercise 1 does not say `\\*N minutes, easy"),
        ("# Stumbles: a whole-number", "Exercise 2: its solution does not say `# Stumbles"),
        ("; 2 to teach", "do not say how many it takes `to teach`"),
    ],
)
def test_what_a_facilitator_needs_is_asked_of_the_author(tmp_path, cut: str, message: str) -> None:
    path = write(tmp_path, SCRIPT.replace(cut, ""))
    with pytest.raises(ValueError, match=f"42_example.ipynb: .*{message}"):
        workshop.build([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_can_be_taught(path: Path) -> None:
    lesson = workshop.read_lesson(path)
    assert 15 <= lesson.teach <= 45
    answers = [line.strip() for e in lesson.exercises for line in e.answer.splitlines()]
    out = workshop.ROOT / "runs" / "workshop"
    copy = workshop.learners_copy(path, out)
    for cell in copy.cells:  # lab notes are not copied
        for link in re.findall(r"\]\(([^)]*(?:studies|docs)/[^)#]*)", cell.source):
            assert (out / link).resolve().is_file(), link
    exercises = [c.source for c in copy.cells if "exercise" in c.metadata.get("tags", [])]
    assert len(exercises) == len(lesson.exercises)
    told = [a for a in answers if a.startswith("return ") and any(a in e for e in exercises)]
    assert told == []
