"""For authors of notebooks: make the executed NN_name.ipynb from its percent script NN_name.py.

    make notebooks                # all
    make notebooks NB="00 06"     # these; a lab note by its name, NB=late_audio
    python tools/authoring.py --check        # only say what breaks the rules

Edit the script, run this, commit both. Trained models come from and go to runs/authoring, so a
second execution is quick; delete that folder for a fresh one. The rules that a notebook keeps, and
how to write one, are in CONTRIBUTING.md; tests/notebook_rules.py holds them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jupytext  # noqa: E402
import nbformat  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from nbclient.exceptions import CellExecutionError  # noqa: E402

from tools.run import QUIET_KERNEL, environment, kernel_environment  # noqa: E402

# of a cell's metadata, what jupytext keeps in both halves: tags, folded solutions, and the blank
# lines that a formatter wants before a function
CARRIED = ("tags", "jupyter", "lines_to_next_cell")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# JupyterLab writes the filters of the pair into what it saves; there from the start, saving a
# notebook that nobody changed changes nothing
_PAIR = tomllib.loads((ROOT / "notebooks" / "jupytext.toml").read_text(encoding="utf-8"))
METADATA = {"kernelspec": KERNEL, "jupytext": {k: v for k, v in _PAIR.items() if k != "formats"}}
SOLUTION = re.compile(r"^([ \t]*)# BEGIN SOLUTION\n.*?^[ \t]*# END SOLUTION\n?", re.M | re.S)


def blank(source: str) -> str:
    """The learner's copy of an exercise: what stands between ``# BEGIN SOLUTION`` and
    ``# END SOLUTION`` is cut, and the cell says so when it is run.

    Raises ``ValueError`` if there is nothing to cut.
    """
    cut, times = SOLUTION.subn(
        r'\1raise NotImplementedError("your turn: replace this line")\n', source + "\n"
    )
    if not times:
        raise ValueError("the exercise has no # BEGIN SOLUTION ... # END SOLUTION")
    return cut.rstrip("\n")


def from_script(script: Path) -> nbformat.NotebookNode:
    """The notebook that a percent script describes, not executed, in the one form we commit: ids
    that follow from place and source, no metadata but what ``CARRIED`` names."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        carried = {key: cell.metadata[key] for key in CARRIED if key in cell.metadata}
        cell.metadata = nbformat.from_dict(carried)
        cell.id = f"{number:02d}-{hashlib.sha256(cell.source.encode()).hexdigest()[:8]}"
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path, name: str) -> None:
    """Run all cells in a fresh kernel in ``folder``; leaves no machine's traces in the notebook."""
    work = ROOT / "runs" / "authoring"
    work.mkdir(parents=True, exist_ok=True)
    records = work / f"{name}.jsonl"
    records.unlink(missing_ok=True)
    variables = kernel_environment(notebook=name, records=records, cache=work / "checkpoints")
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=QUIET_KERNEL,
        resources={"metadata": {"path": str(folder)}},
    )
    client.record_timing = False
    with environment(variables):
        client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = merge_streams(cell.outputs)


def merge_streams(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Printing arrives in pieces whose number depends on timing; one piece is the same always."""
    merged: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if (
            last is not None
            and output.output_type == last.output_type == "stream"
            and output.name == last.name
        ):
            last.text += output.text
        else:
            merged.append(output)
    return merged


def build(script: Path) -> None:
    """Execute ``script`` and put the notebook beside it, whole or not at all."""
    notebook = from_script(script)
    execute(notebook, script.parent, script.stem)
    part = script.with_suffix(".ipynb.part")
    nbformat.write(notebook, part)
    os.replace(part, script.with_suffix(".ipynb"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the executed notebooks from their scripts.")
    parser.add_argument("names", nargs="*", help="which ones, e.g. 00 late_audio (default: all)")
    parser.add_argument("--check", action="store_true", help="execute nothing, report broken rules")
    args = parser.parse_args()
    folder = ROOT / "notebooks"
    scripts = sorted(folder.glob("[0-9][0-9]_*.py")) + sorted(folder.glob("studies/*.py"))
    chosen = [s for s in scripts if not args.names or s.name.startswith(tuple(args.names))]
    if not chosen:
        print(f"no notebook script matches {args.names or 'NN_name.py'}", file=sys.stderr)
        return 2
    from notebook_rules import broken_rules

    status = 0
    for script in chosen:
        started = time.perf_counter()
        if not args.check:
            try:
                build(script)
            except CellExecutionError as error:
                print(f"{script.stem}: {error}", file=sys.stderr)
                status = 1
                continue
        problems = broken_rules(script.with_suffix(".ipynb"))
        print(f"{script.stem:24s}{time.perf_counter() - started:7.1f} s  {len(problems)} problems")
        for problem in problems:
            print(f"    {problem}")
        status = status or bool(problems)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
