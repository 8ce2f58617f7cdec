"""The lab notes of ``notebooks/studies``: their form and stored outputs. ``make test`` does not
execute them; ``make run ARGS="--studies"`` does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import authoring
import nbformat
import pytest
from example_notebook import SCRIPT, write_script
from notebook_rules import NOTE_RULES, Page, broken_rules, cell_source

from avadclip_lite import __main__ as command_line
from tools import report, run
from tools.notebook_files import read_parameters

ROOT = Path(__file__).resolve().parents[1]
NOTES = sorted((ROOT / "notebooks" / "studies").glob("*.ipynb"))
each_note = pytest.mark.parametrize("path", NOTES, ids=lambda path: path.stem)


def test_there_are_five_or_six_and_each_is_a_pair() -> None:
    scripts = sorted((ROOT / "notebooks" / "studies").glob("*.py"))
    assert [path.with_suffix(".py") for path in NOTES] == scripts and len(NOTES) in (5, 6)


@each_note
def test_a_lab_note_keeps_the_rules(path: Path) -> None:
    assert broken_rules(path) == []


@each_note
def test_its_parameters_are_those_of_the_lessons(path: Path) -> None:
    known: dict[str, str] = {}
    for lesson in run.notebooks():
        known |= read_parameters(lesson)
    assert read_parameters(path).items() <= known.items()


@each_note
def test_the_links_of_a_lab_note_lead_somewhere(path: Path) -> None:
    for _, cell in Page(path).markdown:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", cell_source(cell)):
            assert (path.parent / target).is_file(), target


# --- who executes them ----------------------------------------------------------------------------


def collected(*what: str) -> str:
    """What pytest would run with nbval."""
    words = ["-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", "--nbval", *what]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tests_execute_lessons_and_no_lab_note() -> None:
    found = collected("notebooks")
    assert "00_orientation.ipynb::Cell 0" in found and "studies" not in found
    assert f"{NOTES[0].name}::Cell 0" in collected(str(NOTES[0])), "one that is named is taken"


def test_a_run_takes_lab_notes_when_asked(tmp_path: Path, monkeypatch, capsys) -> None:
    """Lessons alone; with ``--studies`` the notes after them; what was run stays in the report."""
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    for name, place in (("01_one", folder), ("a_note", folder / "studies")):
        text = SCRIPT.replace("# # 42 ·", "# # Lab note ·") if name == "a_note" else SCRIPT
        script = write_script(place, name, text)
        nbformat.write(authoring.from_script(script), script.with_suffix(".ipynb"))

    def names() -> list[str]:
        return [n["notebook"] for n in json.loads((out / "metrics.json").read_text())["notebooks"]]

    run.run(out=out, folder=folder)
    assert names() == ["01_one"] and not (out / "a_note.ipynb").exists()
    run.run(out=out, folder=folder, notes=True)
    assert names() == ["01_one", "a_note"] and "Lab note" in (out / "report.html").read_text()
    with pytest.raises(ValueError, match="no notebook starts with 'a_note'; there are 01_one"):
        run.run(out=out, folder=folder, only=["a_note"])
    run.run(out=out, folder=folder, only=["a_note"], notes=True, force=True)
    run.run(out=out, folder=folder)
    assert names() == ["01_one", "a_note"]
    assert "nothing to do: 1 notebooks" in capsys.readouterr().out

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(run, "run", lambda **given: asked.append(given) or out)
    for words in ([], ["--studies"], ["--studies", "parts", "main"]):
        assert command_line.main(["run", *words]) == 0
    assert [(one["notes"], list(one["studies"])) for one in asked] == [
        (False, []),
        (True, []),
        (False, ["parts", "main"]),
    ]


def test_links_between_lessons_and_lab_notes_become_links_between_pages() -> None:
    page = report.markdown("[there](studies/late_audio.ipynb), [back](../06_teacher.ipynb#recap)")
    assert 'href="late_audio.html"' in page and 'href="06_teacher.html#recap"' in page


# --- with a fault planted -------------------------------------------------------------------------

Cells = list[dict[str, Any]]


def _swap(old: str, new: str) -> Callable[[Cells], None]:
    def change(cells: Cells) -> None:
        source = cell_source(cells[0])
        assert old in source
        cells[0]["source"] = source.replace(old, new, 1)

    return change


def _longer(cell: int, text: str) -> Callable[[Cells], None]:
    return lambda cells: cells[cell].update(source=cell_source(cells[cell]) + text)


FAULTS: list[tuple[str, str, Callable[[Cells], object]]] = [
    ("note_header", "does not open with", _swap("# Lab note ·", "# 42 ·")),
    ("note_header", "labels are Question, Minutes", _swap("**Prerequisites:**", "Read before:")),
    ("note_header", "question mark", _swap("?", ".")),
    ("note_header", "does not state", _swap(" to read;", " to teach;")),
    ("note_header", "to read are less than", _longer(-1, " word" * 2_000)),
    ("note_size", "words: ", _longer(-1, " word" * 1_200)),
    ("note_size", "code lines: ", _longer(1, "\n" * 160)),
    ("note_size", "longest cell: ", _longer(1, "\n" * 41)),
    ("note_size", "sections: ", _longer(-1, "\n\n## More" * 8)),
    (
        "note_size",
        "figures: 0",
        lambda cells: [c.update(outputs=[]) for c in cells if "outputs" in c],
    ),
    ("note_answer", "the last cell", lambda cells: cells.pop()),
]


@pytest.mark.parametrize(("name", "complaint", "change"), FAULTS)
def test_a_planted_fault_is_caught(
    tmp_path: Path, name: str, complaint: str, change: Callable[[Cells], object]
) -> None:
    notebook = json.loads(NOTES[0].read_text(encoding="utf-8"))
    change(notebook["cells"])
    path = tmp_path / NOTES[0].name
    path.write_text(json.dumps(notebook), encoding="utf-8")
    complaints = list(NOTE_RULES[name](Page(path)))
    assert any(complaint in line for line in complaints), complaints


def test_every_rule_of_its_own_has_been_broken() -> None:
    assert {name for name, *_ in FAULTS} == set(NOTE_RULES)
