"""A learner's copy of every notebook: with the solutions cut, each check says no, and everything
else still runs. That the checks say yes to the solutions is what nbval shows, which runs the
notebooks as they are.
"""

from __future__ import annotations

from pathlib import Path

import authoring
import nbformat
import pytest
from example_notebook import SCRIPT, write_script
from nbclient import NotebookClient

from tools.notebook_files import cell_tags
from tools.run import QUIET_KERNEL

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def learners_problems(path: Path) -> list[str]:
    """Run the notebook with blank exercises; complaints about checks that say yes to a blank and
    about other cells that cannot do without a solution."""
    notebook = nbformat.read(path, as_version=4)
    last = max((i for i, c in enumerate(notebook.cells) if "check" in cell_tags(c)), default=0)
    del notebook.cells[last + 2 :]  # one step further shows that the last is not needed either
    for cell in notebook.cells:
        if "exercise" in cell_tags(cell):
            cell.source = authoring.blank(cell.source)
    NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        allow_errors=True,
        extra_arguments=QUIET_KERNEL,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    problems = []
    for number, cell in enumerate(notebook.cells):
        errors = [o for o in cell.get("outputs", []) if o.output_type == "error"]
        tags = cell_tags(cell)
        if "check" in tags:
            if not errors:
                problems.append(f"cell {number}: the check says yes to the blank")
            elif errors[0].ename == "NameError":
                # a cell that names a missing variable confuses; the exercise must define a name
                problems.append(f"cell {number}: the check stumbles: {errors[0].evalue}")
        elif errors and not ("exercise" in tags and errors[0].ename == "NotImplementedError"):
            problems.append(f"cell {number} needs a solution: {errors[0].ename} {errors[0].evalue}")
    return problems


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_blank_is_refused_and_not_needed(path: Path) -> None:
    assert learners_problems(path) == []


def write(folder: Path, text: str) -> Path:
    script = write_script(folder, text=text)
    nbformat.write(authoring.from_script(script), script.with_suffix(".ipynb"))
    return script.with_suffix(".ipynb")


def test_the_example_has_no_problem(tmp_path: Path) -> None:
    assert learners_problems(write(tmp_path, SCRIPT)) == []


def test_a_check_that_accepts_the_blank_is_found(tmp_path: Path) -> None:
    text = SCRIPT.replace("assert double(2) == 4", "assert callable(double)")
    assert learners_problems(write(tmp_path, text)) == [
        "cell 9: the check says yes to the blank",
    ]


def test_a_cell_that_needs_a_solution_is_found(tmp_path: Path) -> None:
    text = SCRIPT.replace(
        "# ### Exercise 2",
        "# We go on.\n\n# %%\nprint(double(3))\n\n# %% [markdown]\n# ### Exercise 2",
    )
    assert learners_problems(write(tmp_path, text)) == [
        "cell 11 needs a solution: NotImplementedError your turn: replace this line",
    ]
