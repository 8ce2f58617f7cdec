"""Every notebook keeps every rule of ``notebook_rules``, and every rule can be broken.

A rule that never fires is worth nothing, so each one meets a notebook that breaks it: the example,
executed once, with one thing changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import authoring
import jupytext.cli
import pytest
from example_notebook import SCRIPT, write_script
from jupyter_server.services.contents.largefilemanager import LargeFileManager
from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class
from notebook_rules import RULES, SIZE_LIMIT, Page, broken_rules

from avadclip_lite.config import SAMPLE_RATE
from avadclip_lite.video.reader import read_clip
from avadclip_lite.viz.lesson import EXAMPLES, FPS, clip_path, open_stage, row_of

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
NOTES = sorted((ROOT / "notebooks" / "studies").glob("*.py"))  # the lab notes
SANITIZER = ROOT / "tests" / "nbval_sanitize.cfg"


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_keeps(script: Path, name: str) -> None:
    notebook = script.with_suffix(".ipynb")
    assert notebook.is_file(), f"{notebook.name} is missing; run `make notebooks`"
    assert list(RULES[name](Page(notebook))) == []


def test_every_notebook_has_its_script() -> None:
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert [n.with_suffix(".py") for n in notebooks] == SCRIPTS


def test_parameters_have_one_type_everywhere() -> None:
    from tools.notebook_files import read_parameters

    types: dict[str, set[str]] = {}
    for script in SCRIPTS:
        for name, kind in read_parameters(script.with_suffix(".ipynb")).items():
            types.setdefault(name, set()).add(kind)
    assert {name: found for name, found in types.items() if len(found) > 1} == {}


@pytest.mark.parametrize("saved", [".py", ".ipynb", "JupyterLab"])
@pytest.mark.parametrize("script", SCRIPTS + NOTES, ids=lambda path: path.stem)
def test_sync_and_saving_change_nothing(script: Path, saved: str, tmp_path: Path) -> None:
    """``jupytext --sync`` on a fresh clone, whichever half it takes to be the newer one; and
    JupyterLab, where an unchanged notebook is opened and saved."""
    halves = [script, script.with_suffix(".ipynb")]
    copies = [tmp_path / path.relative_to(ROOT / "notebooks") for path in halves]
    copies[0].parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / "notebooks" / "jupytext.toml", tmp_path)
    for path, copy_ in zip(halves, copies, strict=True):
        shutil.copy(path, copy_)
    for path in copies:
        now = path.stat().st_mtime + (10 if path.suffix == saved else 0)
        os.utime(path, (now, now))
    if saved == "JupyterLab":
        server = build_sync_jupytext_contents_manager_class(LargeFileManager)()
        server.root_dir, name = str(tmp_path), copies[1].relative_to(tmp_path).as_posix()
        opened = server.get(name)["content"]
        server.save({"type": "notebook", "format": "json", "content": opened}, name)
    else:
        jupytext.cli.jupytext(["--sync", "--quiet", str(copies[0])])
    for path, copy_ in zip(halves, copies, strict=True):
        assert copy_.read_text() == path.read_text(), f"jupytext rewrites {path.name}"


def test_the_running_examples_ship_as_clips() -> None:
    """Their clips hold the videos that the store was made of, whole."""
    store = open_stage()
    for name in EXAMPLES.values():
        frames, rate, wave = read_clip(clip_path(name))
        assert (len(frames), rate) == (store.frames[row_of(store, name)], FPS)
        assert abs(len(wave) / SAMPLE_RATE - len(frames) / FPS) < 0.01
    assert clip_path("no such video") is None


# --- each rule fires -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executed example; not to be changed, see ``copy``."""
    script = write_script(tmp_path_factory.mktemp("example") / "notebooks")
    authoring.build(script)
    return script.with_suffix(".ipynb")


@pytest.fixture
def copy(example: Path, tmp_path: Path) -> Path:
    for path in (example, example.with_suffix(".py")):
        shutil.copy(path, tmp_path)
    return tmp_path / example.name


def test_the_example_breaks_no_rule(example: Path) -> None:
    assert broken_rules(example) == []


Cells = list[dict[str, Any]]
CODE = [1, 2, 4, 6, 8, 9, 11, 12]  # the example's code cells


def _set(cell: int, **changes: Any) -> Callable[[Cells], None]:
    return lambda cells: cells[cell].update(changes)


def _replace(cell: int, old: str, new: str) -> Callable[[Cells], None]:
    def change(cells: Cells) -> None:
        source = "".join(cells[cell]["source"])
        assert old in source
        cells[cell]["source"] = source.replace(old, new)

    return change


def _swap(cell: int, one: str, other: str) -> Callable[[Cells], None]:
    def change(cells: Cells) -> None:
        parts = "".join(cells[cell]["source"]).replace(one, "\0").replace(other, one)
        cells[cell]["source"] = parts.replace("\0", other)

    return change


def _tag(cell: int, *tags: str) -> Callable[[Cells], None]:
    return lambda cells: cells[cell]["metadata"].update(tags=list(tags))


def _output(cell: int, **output: Any) -> Callable[[Cells], None]:
    return lambda cells: cells[cell]["outputs"].append(output)


BREAKS: list[tuple[str, str, Callable[[Cells], None]]] = [
    ("pair", "cells in the .ipynb", lambda cells: cells.pop(3)),
    ("pair", "source differs", _replace(4, "total", "whole")),
    ("pair", "tags differs", _tag(4, "nbval-ignore-output")),
    ("pair", "type differs", _set(3, cell_type="raw")),
    ("executed_in_order", "execution counts", _set(4, execution_count=None)),
    ("executed_in_order", "execution counts", _set(4, execution_count=7)),
    (
        "no_errors",
        "ZeroDivisionError",
        _output(4, output_type="error", ename="ZeroDivisionError", evalue="", traceback=[]),
    ),
    ("no_stderr", "to stderr", _output(4, output_type="stream", name="stderr", text="Warning")),
    ("known_tags", "nbval-ignore-outputs", _tag(4, "nbval-ignore-outputs")),
    ("known_tags", "nbval-skip", _tag(4, "nbval-skip")),
    ("only_python", "plain Python", _replace(4, "total", "%timeit total")),
    ("header", "does not open with", _replace(0, "# 42 ·", "# 41 ·")),
    ("header", "no line **Reads:**", _replace(0, "**Reads:**", "**Input:**")),
    ("header", "order", _swap(0, "**Question:**", "**Reads:**")),
    ("header", "question mark", _replace(0, "look like?", "look like.")),
    ("header", "minutes", _replace(0, "1 on two CPU cores; 2 to teach", "few")),
    ("header", "promises 1 things", _replace(0, "- draw a line\n", "")),
    ("recap", "last cell", lambda cells: cells.pop()),
    ("recap", "redeems 1", _replace(13, "- draw a line: it rose from zero to the factor", "")),
    ("recap", "where the header promised", _replace(13, "- add two", "- subtract two")),
    ("recap", "without saying", _replace(13, ": three ones made three, as they should", "")),
    ("parameters", "0 cells are tagged", _tag(1)),
    ("parameters", "2 cells are tagged", _tag(2, "parameters")),
    ("parameters", "stands before", lambda cells: cells.insert(1, cells[4])),
    ("parameters", "only hold lines", _replace(1, "seed: int = 0", "seed = 0")),
    ("parameters", "only hold lines", _replace(1, "seed: int = 0", "print(0)")),
    ("parameters", "no plain literal", _replace(1, "seed: int = 0", "seed: int = epochs")),
    ("parameters", "has type", _replace(1, "seed: int = 0", "seed: dict = {}")),
    ("parameters", "no comment", _replace(1, "  # summands", "")),
    ("parameters", "is no int", _replace(1, "seed: int = 0", "seed: int = 0.5")),
    ("prose_before_code", "without a paragraph", lambda cells: cells.pop(3)),
    ("prose_before_code", "without a paragraph", _set(3, source="## Adding")),
    ("exercises", "0 exercises", lambda cells: [_tag(i)(cells) for i in (8, 9, 11, 12)]),
    ("exercises", "1 exercises", lambda cells: [_tag(i)(cells) for i in (11, 12)]),
    ("exercises", "prompt", _replace(10, "### Exercise 2", "### Another")),
    ("exercises", "`exercise` and `solution`", _tag(8, "exercise")),
    ("exercises", "folded", _set(8, metadata={"tags": ["exercise", "solution"]})),
    ("exercises", "BEGIN SOLUTION", _replace(8, "# END SOLUTION", "")),
    ("exercises", "no `check`", _tag(9)),
    ("exercises", "no `check`", _replace(9, "assert ", "")),
    ("exercises", "follows its exercise", _tag(4, "check")),
    ("exercises", "is an `exercise` too", _tag(4, "solution")),
    ("figures_have_captions", "no cell is tagged", _tag(6)),
    ("figures_have_captions", "its caption", _replace(6, "# A line that rises, as", "x = 1  #")),
    ("figures_have_captions", "no PNG", _set(6, outputs=[])),
    ("formulas", "wrong", _replace(3, "$1 + 1 = 2$", "$\\wrong$")),
    ("formulas", "left", _replace(3, "$1 + 1 = 2$", "$\\left($")),
    ("small", "MB", _output(4, output_type="stream", name="stdout", text="x" * SIZE_LIMIT)),
    ("no_absolute_paths", "absolute", _replace(3, "We add", "We add /home/ada/data")),
    (
        "no_absolute_paths",
        "absolute",
        _output(4, output_type="stream", name="stdout", text="saved to /tmp/x.npy"),
    ),
    ("only_our_metadata", "carries", _set(4, metadata={"execution": {}})),
]


@pytest.mark.parametrize(("name", "complaint", "change"), BREAKS)
def test_rule_fires(copy: Path, name: str, complaint: str, change: Callable[[Cells], None]) -> None:
    notebook = json.loads(copy.read_text())
    change(notebook["cells"])
    copy.write_text(json.dumps(notebook))
    complaints = list(RULES[name](Page(copy)))
    assert any(complaint in line for line in complaints), complaints


def test_rules_on_the_whole_notebook_fire(copy: Path) -> None:
    notebook = json.loads(copy.read_text())
    notebook["metadata"] |= {"language_info": {"version": "3.11.7"}}  # saved in JupyterLab
    copy.write_text(json.dumps(notebook))
    assert not list(RULES["only_our_metadata"](Page(copy)))
    notebook["metadata"]["papermill"] = {"duration": 3.0}
    copy.write_text(json.dumps(notebook))
    assert "papermill" in next(RULES["only_our_metadata"](Page(copy)))
    notebook["metadata"] = {"kernelspec": {"name": "my-env"}}
    copy.write_text(json.dumps(notebook))
    assert "my-env" in next(RULES["only_our_metadata"](Page(copy)))
    copy.with_suffix(".py").unlink()
    assert list(RULES["pair"](Page(copy))) == ["42_example.py is missing"]
    assert "make notebooks" in broken_rules(copy.with_name("43_other.ipynb"))[0]


def test_every_rule_has_been_broken() -> None:
    assert {name for name, _, _ in BREAKS} == set(RULES)


# --- making notebooks ----------------------------------------------------------------------------


def test_building_twice_gives_the_same_bytes(example: Path, tmp_path: Path) -> None:
    script = write_script(tmp_path)
    authoring.build(script)
    assert script.with_suffix(".ipynb").read_bytes() == example.read_bytes()


def test_a_failing_script_leaves_the_old_notebook(copy: Path) -> None:
    before = copy.read_bytes()
    copy.with_suffix(".py").write_text(SCRIPT.replace("[1] * epochs", "[1] / epochs"))
    with pytest.raises(Exception, match="TypeError"):
        authoring.build(copy.with_suffix(".py"))
    assert copy.read_bytes() == before
    assert sorted(p.name for p in copy.parent.iterdir()) == ["42_example.ipynb", "42_example.py"]


def test_printing_in_pieces_is_one_output() -> None:
    from nbformat.v4 import new_output

    said = [("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n"), ("stdout", "d\n")]
    pieces = [new_output("stream", name=name, text=text) for name, text in said]
    assert [(o.name, o.text) for o in authoring.merge_streams(pieces)] == [
        ("stdout", "a\nb\n"),
        ("stderr", "c\n"),
        ("stdout", "d\n"),
    ]


def test_blank_cuts_the_solution_and_nothing_else() -> None:
    source = (
        "def f(x):\n    y = x\n    # BEGIN SOLUTION\n    z = y\n\n    return z\n    # END SOLUTION"
    )
    assert authoring.blank(source) == (
        'def f(x):\n    y = x\n    raise NotImplementedError("your turn: replace this line")'
    )
    with pytest.raises(ValueError, match="BEGIN SOLUTION"):
        authoring.blank("x = 1")


# --- comparing outputs ---------------------------------------------------------------------------

VARYING = {  # section of the sanitizer's file: a cell whose output differs in every process
    "object-address": "print(object())",
    "styled-table-id": (
        "import pandas as pd, uuid\n"
        "style = pd.DataFrame({'a': [1]}).style.set_uuid(uuid.uuid4().hex[:5])\n"
        "print('T_' in style.to_html(), style.to_html()[-300:])"
    ),
}


def _nbval(notebook: Path, config: Path) -> list[str]:
    """Outcome of each cell, in order: PASSED or FAILED."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-v"]
    options = ["--nbval", "--nbval-sanitize-with", str(config), "--rootdir", str(notebook.parent)]
    done = subprocess.run(
        [*command, *options, notebook.name],
        cwd=notebook.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if "::Cell" in line and "%]" in line]
    return [line.split()[2] for line in lines]


def test_sanitizer_rules_fire(tmp_path: Path) -> None:
    """With all rules every varying cell passes; without one of them exactly its cell fails. And
    a cell that prints something else than it says always fails."""
    import nbformat
    from nbclient import NotebookClient

    cells = [nbformat.v4.new_code_cell(source) for source in [*VARYING.values(), "print(1 + 1)"]]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = nbformat.from_dict(authoring.KERNEL)
    NotebookClient(notebook, kernel_name="python3").execute()
    notebook.cells[-1].outputs[0].text = "3\n"
    path = tmp_path / "varying.ipynb"
    nbformat.write(notebook, path)

    sections = dict(
        re.findall(r"^\[(.+)\]\n(regex: .+\nreplace: \S.*)$", SANITIZER.read_text(), re.M)
    )
    assert set(sections) == set(VARYING)
    passed = ["PASSED"] * len(VARYING)
    assert _nbval(path, SANITIZER) == [*passed, "FAILED"]
    for number, left_out in enumerate(VARYING):
        config = tmp_path / "fewer.cfg"
        config.write_text(
            "".join(f"[{k}]\n{text}\n" for k, text in sections.items() if k != left_out)
        )
        expected = [*passed, "FAILED"]
        expected[number] = "FAILED"
        assert _nbval(path, config) == expected, left_out
