"""The runner: parameters, what is up to date, numbers, interruptions, failures, the report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import authoring
import jsonschema
import pytest
from example_notebook import SCRIPT, write_script

from avadclip_lite import __main__ as command_line
from avadclip_lite.experiments import metrics, parameters
from tools import notebook_files, report, run

ROOT = Path(__file__).resolve().parents[1]


def write_notebook(folder: Path, name: str, text: str = SCRIPT) -> Path:
    """The pair, not executed: the runner does not care."""
    import nbformat

    script = write_script(folder, name, text)
    nbformat.write(authoring.from_script(script), script.with_suffix(".ipynb"))
    return script.with_suffix(".ipynb")


# --- parameters ----------------------------------------------------------------------------------


def parameters_of(folder: Path, cell: str) -> dict[str, str]:
    """What is read of a notebook with this parameters cell."""
    a, b = SCRIPT.index("epochs: int"), SCRIPT.index('# %% tags=["setup"]')
    return notebook_files.read_parameters(
        write_notebook(folder, "01_x", SCRIPT[:a] + cell + "\n\n" + SCRIPT[b:])
    )


def test_parameters_are_read_with_their_types(tmp_path: Path) -> None:
    found = parameters_of(
        tmp_path,
        'epochs: int = 3  # passes\nname: str = "a b"\nrates: list[float] = [0.1]  # tried',
    )
    assert found == {"epochs": "int", "name": "str", "rates": "list[float]"}
    assert list(found) == ["epochs", "name", "rates"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("x: dict = {}", "01_x.ipynb: parameter x has type dict; use int"),
        ("x: int = 1 + y", "01_x.ipynb: the default of x is no plain literal"),
    ],
)
def test_parameters_that_no_command_line_can_give(tmp_path: Path, cell: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameters_of(tmp_path, cell)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "3", 3),
        ("float", "1e-3", 0.001),
        ("float", "2", 2.0),
        ("bool", "True", True),
        ("bool", "false", False),
        ("str", "3", "3"),
        ("list[int]", "0,1,2", [0, 1, 2]),
        ("list[int]", "[0, 1]", [0, 1]),
        ("list[str]", "add, concat", ["add", "concat"]),
        ("list[float]", "", []),
    ],
)
def test_words_become_values(kind: str, text: str, value: object) -> None:
    found = parameters.convert("x", kind, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("int", "3.5"), ("int", ""), ("float", "nan"), ("float", "x"), ("bool", "maybe")]
    + [("list[int]", "0,x")],
)
def test_words_of_another_type_are_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"parameter x wants {kind}, got {text!r}")):
        parameters.convert("x", kind, text)


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two notebooks; only the first has ``factor``, only the second has form and scale."""
    first = write_notebook(tmp_path / "notebooks", "01_first")
    text = SCRIPT.replace(
        "factor: float = 1.5  # of the line\n",
        'form: str = "paper"  # form\nscale: str = "soundstage"  # scale\n',
    )
    second = write_notebook(tmp_path / "notebooks", "02_second", text.replace("factor", "1"))
    return [first, second]


def test_a_notebook_gets_what_it_declares(two: list[Path]) -> None:
    words = [("factor", "2"), ("seed", "5"), ("form", "released")]
    given = notebook_files.settle_parameters(two, words)
    assert given == {
        "01_first": {"factor": 2.0, "seed": 5},
        "02_second": {"form": "released", "seed": 5},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([("epoch", "3")], r"'epoch'; known: data, epochs, factor, form, scale, seed"),
        ([("epochs", "three")], "epochs wants int, got 'three'"),
        ([("epochs", "0")], "TrainConfig.epochs must be at least 1, got 0"),
        ([("epochs", "1"), ("epochs", "2")], "epochs was given twice"),
        ([("form", "mine")], "Config.form must be one of 'paper', 'released', got 'mine'"),
        ([("scale", "huge")], "scale must be one of .*, got 'huge'"),
        ([("data", "nowhere")], "no feature store at nowhere"),
    ],
)
def test_bad_parameters_are_refused(two: list[Path], words: list, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        notebook_files.settle_parameters(two, words)


def test_a_store_must_have_the_width_of_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny import tiny_store

    path = write_notebook(
        tmp_path / "notebooks",
        "01_first",
        SCRIPT.replace(
            "seed: int = 0", "dim: int = 64  # D\nscale: str = 'xd'  # scale\nseed: int = 0"
        ),
    )
    store = tmp_path / "store"
    tiny_store(store)
    with pytest.raises(ValueError, match="are 8 wide, but --scale xd expects 512"):
        notebook_files.settle_parameters([path], [("data", str(store)), ("scale", "xd")])
    words = [("data", str(store)), ("dim", "8")]
    given = notebook_files.settle_parameters([path], words)
    assert given == {"01_first": {"data": str(store), "dim": 8}}
    monkeypatch.chdir(tmp_path)  # notebooks run in a folder of their own
    assert notebook_files.settle_parameters([path], [("data", "store"), ("dim", "8")]) == given
    (store / "manifest.csv").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match="store"):
        notebook_files.settle_parameters([path], words)


def declared(**values: object) -> dict[str, object]:
    """Names of a notebook after its parameters cell and papermill's."""
    names: dict[str, object] = {}
    cell = "seeds: list[int] = [0]\nrate: float = 0.5\nname: str = 'a'\nfast: bool = True"
    exec(compile(cell, "cell", "exec", dont_inherit=True), names)  # annotations are types there
    return names | values


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"seeds": "0,1"}, [0, 1]),  # papermill -p seeds 0,1
        ({"seeds": "[0, 1]"}, [0, 1]),
        ({"seeds": 3}, [3]),
        ({"seeds": [2, 3]}, [2, 3]),
        ({"rate": 2}, 2.0),
        ({"name": 2024}, "2024"),
        ({"name": "a, b"}, "a, b"),
        ({"fast": False}, False),
    ],
)
def test_what_plain_papermill_gave_becomes_what_is_declared(given: dict, value: object) -> None:
    names = declared(**given)
    parameters.check_parameters(names)
    (name,) = given
    assert names[name] == value and type(names[name]) is type(value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": "two"}, r"seeds wants list\[int\], got 'two'"),
        ({"seeds": [1.5]}, r"seeds wants list\[int\], got '1.5'"),
        ({"rate": "fast"}, "rate wants float, got 'fast'"),
        ({"fast": 7}, "fast wants bool, got '7'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameters.check_parameters(declared(**given))


def test_papermill_itself_may_give_lists_as_text(two: list[Path], tmp_path: Path) -> None:
    """`papermill -p seeds 4,5`: the notebook has a list, or says in its setup that it must be."""
    import papermill

    def execute(seeds: str) -> object:
        with run.environment(run.kernel_environment(records=tmp_path / "r.jsonl")):
            return papermill.execute_notebook(
                str(two[0]), str(tmp_path / "o.ipynb"), {"seeds": seeds}, progress_bar=False
            )

    execute("4,5")
    with pytest.raises(papermill.PapermillExecutionError, match="seeds wants list") as failure:
        execute("four")
    assert failure.value.exec_count == 3  # parameters, papermill's own, setup


def test_an_option_that_no_chosen_notebook_reads_is_refused(two: list[Path]) -> None:
    with pytest.raises(ValueError, match="no chosen notebook has a parameter 'form'"):
        run.run(
            out=two[0].parents[1] / "out",
            folder=two[0].parent,
            only=["01"],
            words=[("form", "paper")],
        )
    twice = [("form", "paper")] * 2
    with pytest.raises(ValueError, match="form was given twice, with -p or as --form"):
        run.run(out=two[0].parents[1] / "out", folder=two[0].parent, words=twice)


def test_nothing_starts_when_a_parameter_is_bad(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epoch"):
        run.run(out=tmp_path / "out", folder=two[0].parent, words=[("epoch", "3")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", [{"seeds": 1}, {"jobs": 0}, {"studies": ["parts"]}])
def test_studies_need_seeds_and_jobs(two: list[Path], tmp_path: Path, how: dict) -> None:
    """Studies that were named without --seeds were passed over."""
    with pytest.raises(ValueError, match="--seeds must be at least 2, --jobs at least 1, got"):
        run.run(out=tmp_path / "out", folder=two[0].parent, **how)


def test_only_must_name_a_notebook(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'07'; there are 01_first, 02_second"):
        run.run(out=tmp_path / "out", folder=two[0].parent, only=["07"])


def test_a_folder_without_notebooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no notebooks in"):
        run.notebooks(tmp_path)


def test_what_is_no_notebook_is_refused(tmp_path: Path) -> None:
    (tmp_path / "01_x.ipynb").write_text("{}")
    with pytest.raises(ValueError, match="01_x.ipynb is not a notebook"):
        notebook_files.read_parameters(tmp_path / "01_x.ipynb")


# --- what is up to date --------------------------------------------------------------------------


def test_the_key_covers_source_tags_parameters_and_surroundings(two: list[Path]) -> None:
    path = two[0]
    key = run.notebook_key(path, {"seed": 0}, "package", "data")
    notebook = json.loads(path.read_text())
    notebook["cells"][4]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "3"}]
    path.write_text(json.dumps(notebook))
    assert run.notebook_key(path, {"seed": 0}, "package", "data") == key
    others = [
        run.notebook_key(path, {"seed": 1}, "package", "data"),
        run.notebook_key(path, {"seed": 0}, "package!", "data"),
        run.notebook_key(path, {"seed": 0}, "package", "data!"),
    ]
    notebook["cells"][4]["metadata"]["tags"] = ["nbval-ignore-output"]
    path.write_text(json.dumps(notebook))
    others.append(run.notebook_key(path, {"seed": 0}, "package", "data"))
    notebook["cells"][4]["source"] = ["1"]
    path.write_text(json.dumps(notebook))
    others.append(run.notebook_key(path, {"seed": 0}, "package", "data"))
    assert len({key, *others}) == 6


def test_digests_follow_the_files(tmp_path: Path) -> None:
    seen = set()
    for name, text in (("a.py", "1"), ("a.py", "2"), ("b.py", "1"), ("c.txt", "1"), ("d.pyc", "")):
        (tmp_path / name).write_text(text)
        seen.add((run.folder_digest(tmp_path, run.SOURCES), run.folder_digest(tmp_path)))
    assert len({package for package, _ in seen}) == 4  # a .pyc is no source
    assert len({folder for _, folder in seen}) == 5


def test_a_large_file_counts_by_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "HASHED_WHOLE", 3)
    large = tmp_path / "large"
    large.write_bytes(b"abcd")
    os.utime(large, (1, 1))
    before = run.folder_digest(tmp_path)
    os.utime(large, (2, 2))
    assert run.folder_digest(tmp_path) != before


# --- running -------------------------------------------------------------------------------------

# waits when told to, so that a test can kill the run meanwhile
WAITING = SCRIPT.replace(
    "total = sum", "import os, time\ntime.sleep(float(os.environ.get('WAIT', 0)))\ntotal = sum"
)


def stamps(out: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in out.glob("*.ipynb")}


def test_a_run_from_first_to_last(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress, results and report; nothing to do; only what changed; failure and recovery."""
    folder, out = tmp_path / "my notebooks", tmp_path / "my out"
    for name in ("01_one", "02_two"):
        write_notebook(folder, name)

    # all of it
    run.run(out=out, folder=folder, words=[("epochs", "4")])
    said = capfd.readouterr()
    assert [line.split()[:3] for line in said.out.splitlines()[:2]] == [
        ["[", "1/2]", "01_one"],
        ["[", "2/2]", "02_two"],
    ]
    assert said.out.splitlines()[0].endswith(" s  done") and said.err == ""
    metrics = json.loads((out / "metrics.json").read_text())
    assert [(n["notebook"], n["current"], n["parameters"]) for n in metrics["notebooks"]] == [
        ("01_one", True, {"epochs": 4}),
        ("02_two", True, {"epochs": 4}),
    ]
    assert [(m["notebook"], m["value"], m["dataset"]) for m in metrics["metrics"]] == [
        ("01_one", 4, "ones"),
        ("02_two", 4, "ones"),
    ]
    page = (out / "report.html").read_text()
    assert page.count('<img alt="A line that rises') == 2
    assert 'href="report/02_two.html"' in page and "What does a notebook look like?" in page

    # a second time
    before = stamps(out)
    run.run(out=out, folder=folder, words=[("epochs", "4")])
    assert "nothing to do: 2 notebooks are up to date" in capfd.readouterr().out
    assert stamps(out) == before

    # the second changed, and breaks: the first stays done, its numbers stay
    broken = SCRIPT.replace("total = sum([1] * epochs)", "total = epochs / (epochs - 4)")
    write_notebook(folder, "02_two", broken)
    with pytest.raises(run.NotebookFailed) as failure:
        run.run(out=out, folder=folder, words=[("epochs", "4")])
    message = str(failure.value)
    assert message.startswith("02_two: cell [4] raised ZeroDivisionError: division by zero")
    assert "total = epochs / (epochs - 4)" in message and len(message.splitlines()) < 8
    assert capfd.readouterr().out.splitlines()[0].endswith("FAILED")
    assert stamps(out)["01_one.ipynb"] == before["01_one.ipynb"]
    names = [n["notebook"] for n in json.loads((out / "metrics.json").read_text())["notebooks"]]
    assert names == ["01_one"]

    # mended: only that one runs
    write_notebook(folder, "02_two")
    run.run(out=out, folder=folder, words=[("epochs", "4")])
    assert stamps(out)["01_one.ipynb"] == before["01_one.ipynb"]
    assert stamps(out)["02_two.ipynb"] != before["02_two.ipynb"]

    # one alone with other parameters: the other is said to be as it was
    run.run(out=out, folder=folder, only=["02"], words=[("epochs", "5")])
    metrics = json.loads((out / "metrics.json").read_text())
    assert [(m["notebook"], m["value"]) for m in metrics["metrics"]] == [
        ("01_one", 4),
        ("02_two", 5),
    ]
    monkeypatch.setattr(run, "PACKAGE", folder)
    run.run(out=out, folder=folder, only=["02"], words=[("epochs", "5")])
    metrics = json.loads((out / "metrics.json").read_text())
    assert [n["current"] for n in metrics["notebooks"]] == [False, True]
    assert "of an earlier version" in (out / "report.html").read_text()


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    write_notebook(folder, "01_one")
    write_notebook(folder, "02_two", WAITING)
    code = (
        "import sys; from pathlib import Path; from tools.run import run\n"
        "run(out=Path(sys.argv[1]), folder=Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(out), str(folder)]
    slow = subprocess.Popen(command, env={**os.environ, "WAIT": "600"}, start_new_session=True)
    try:
        give_up = time.monotonic() + 400
        while not (out / ".unfinished" / "02_two.ipynb").is_file():
            assert slow.poll() is None and time.monotonic() < give_up
            time.sleep(0.1)
        refused = subprocess.run(command, capture_output=True, text=True, timeout=400)
        assert "another run is writing to" in refused.stderr
    finally:
        os.killpg(slow.pid, signal.SIGKILL)
        slow.wait()
    before = stamps(out)
    assert set(before) == {"01_one.ipynb"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=True)
    assert "02_two" in done.stdout and "01_one" not in done.stdout
    after = stamps(out)
    assert set(after) == {"01_one.ipynb", "02_two.ipynb"}
    assert after["01_one.ipynb"] == before["01_one.ipynb"]
    assert len(json.loads((out / "metrics.json").read_text())["metrics"]) == 2
    assert (out / "report.html").is_file()


def test_a_dead_kernel_is_reported(tmp_path: Path) -> None:
    text = SCRIPT.replace("total = sum", "import os\nos._exit(9)\ntotal = sum")
    write_notebook(tmp_path / "notebooks", "01_one", text)
    with pytest.raises(run.NotebookFailed, match="01_one: the kernel died"):
        run.run(out=tmp_path / "out", folder=tmp_path / "notebooks")


def test_a_damaged_copy_of_another_lesson_hides_no_error(tmp_path: Path) -> None:
    out, folder = tmp_path / "out", tmp_path / "notebooks"
    write_notebook(folder, "01_one", SCRIPT.replace("factor])", "facto])"))
    write_notebook(folder, "02_two")
    out.mkdir()
    (out / ".lock").touch()  # of a run before
    (out / "02_two.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(run.NotebookFailed, match="01_one"):
        run.run(out=out, folder=folder, only=["01"])


@pytest.mark.parametrize("what", ["template", "page"])
def test_a_report_that_cannot_be_written_hides_no_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
) -> None:
    """A notebook that fails shows its own error, where nbconvert's templates are missing, too."""
    if what == "template":
        from nbconvert.exporters import templateexporter

        monkeypatch.setattr(
            templateexporter.TemplateExporter, "get_prefix_root_dirs", lambda self: []
        )
    else:
        monkeypatch.setattr(report, "_page", lambda *args: 1 / 0)
    good = write_notebook(tmp_path / "notebooks", "01_one")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert command_line.main(["run", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "no report: " in said.err and "Traceback" not in said.err
    assert len(json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]) == 1
    write_notebook(good.parent, "02_two", SCRIPT.replace("factor])", "facto])"))
    assert command_line.main(["run", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "02_two: cell [4] raised NameError: name 'facto' is not defined" in said.err
    assert "no report: " in said.err and "01_one" not in said.out


def test_a_folder_that_cannot_be_written_is_told_with_the_option(
    two: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A checkout that is shared read-only: without --out there is no place, with it all is well."""
    monkeypatch.setattr(run, "ROOT", tmp_path)
    (tmp_path / "runs").touch()  # no folder can be made below a file
    assert command_line.main(["run", "--only", "01"]) == 2
    said = capsys.readouterr().err
    assert "cannot be written" in said and "choose another folder with --out" in said


def test_a_run_does_not_write_over_its_notebooks(two: list[Path]) -> None:
    """It deleted each one before it was to be run."""
    before = {path: path.read_bytes() for path in two[0].parent.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="holds other things .* choose a new folder"):
        run.run(out=two[0].parent, folder=two[0].parent)
    after = {path: path.read_bytes() for path in two[0].parent.rglob("*") if path.is_file()}
    assert after == before


def test_what_a_run_writes_fits_the_schema(two: list[Path], tmp_path: Path) -> None:
    run.run(out=tmp_path / "out", folder=two[0].parent, only=["01"])
    jsonschema.validate(json.loads((tmp_path / "out" / "metrics.json").read_text()), metrics.SCHEMA)


def test_force_runs_again(two: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for force in (False, True):
        run.run(out=out, folder=two[0].parent, only=["01"], force=force)
        seen = stamps(out) if not force else seen  # noqa: F821
    assert stamps(out) != seen


def test_the_kernel_is_this_python_whatever_a_user_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel called python3 in the user's folder would run another Python."""
    from jupyter_client.kernelspec import KernelSpecManager

    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/elsewhere/python", "-m", "ipykernel_launcher"], "display_name": "x"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == "/elsewhere/python"
    with run.environment(run.kernel_environment()):
        assert KernelSpecManager().get_kernel_spec("python3").argv[0] != "/elsewhere/python"
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "jupyter")


# --- the report ----------------------------------------------------------------------------------


def line(value: float, seed: int | None, **others: object) -> dict:
    same = {"notebook": "06_teacher", "measure": "frame_ap", "dataset": "Soundstage"}
    same |= {"detector": "paper", "branch": "alignment", "split": "test", "config": "abc"}
    return {**same, "device": "cpu", "protocol": "", "value": value, "seed": seed, **others}


def test_seeds_become_mean_and_standard_deviation() -> None:
    rows = report.results_table(
        [
            line(0.80, 0, config="a"),
            line(0.82, 1, config="b"),
            line(0.84, 2),
            line(12, None, measure="events"),
        ]
    )
    keys = ("measure", "seeds", "config", "shown")
    assert [[row[k] for k in keys] for row in rows] == [
        ["frame_ap", [0, 1, 2], "", "82.00 ± 2.00 %"],  # deviations -2, 0, 2: sqrt(8 / 2)
        ["events", [], "abc", "12"],
    ]


@pytest.mark.parametrize(
    "what", ["device", "protocol", "dataset", "notebook", "detector", "branch", "split"]
)
def test_numbers_of_different_origin_stay_apart(what: str) -> None:
    assert len(report.results_table([line(0.1, 0), line(0.2, 1, **{what: "other"})])) == 2


def test_title_and_question_of_a_header() -> None:
    text = "# 01 · Eyes\n\n**Question:** What is seen,\nand what is heard?\n\n**Minutes:** 3\n"
    notebook = {"cells": [{"cell_type": "markdown", "source": text}]}
    asked = "What is seen, and what is heard?"
    assert report.title_and_question(notebook) == ("01 · Eyes", asked)
    assert report.title_and_question({"cells": []}) == ("untitled", "")


def test_formulas_become_mathml_and_links_stay_in_the_report() -> None:
    page = report.markdown("$a_i$ and [next](02_temporal_mil.ipynb#recap)\n\n$$\\frac{1}{2}$$\n")
    assert "<msub>" in page and "<mfrac>" in page and "$" not in page
    assert 'href="02_temporal_mil.html#recap"' in page
    assert "<mtable" in report.formula("\\begin{aligned}a&=b\\\\c&=d\\end{aligned}", "block")


def test_a_formula_beyond_us_is_shown_as_it_is_written() -> None:
    assert "<code>\\left(</code>" == report.formula("\\left(", "inline")


def test_pages_need_no_network(tmp_path: Path) -> None:
    write_notebook(tmp_path / "notebooks", "01_one")
    run.run(out=tmp_path / "out", folder=tmp_path / "notebooks")
    for path in (tmp_path / "out" / "report.html", tmp_path / "out" / "report" / "01_one.html"):
        page = path.read_text()
        assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//[^"'>]*""", page), path.name
        assert "<script" not in page and "@import" not in page
    assert '<details class="solution">' in page and "<math" in page


# --- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "usage:"),
        (["--help"], 0, "usage:"),
        (["fly"], 2, "no command 'fly'; use one of run, import"),
        (["run", "-p", "no_such_thing", "1"], 2, "no_such_thing"),
        (["run", "--only", "99"], 2, "'99'"),
    ],
)
def test_exit_status_and_one_sentence(
    words: list[str],
    status: int,
    said: str,
    two: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run, "ROOT", two[0].parents[1])
    assert command_line.main(words) == status
    printed = capsys.readouterr()
    assert said in printed.out + printed.err and "Traceback" not in printed.err


def test_a_failed_notebook_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_notebook(tmp_path / "notebooks", "01_one", SCRIPT.replace("factor])", "facto])"))
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert command_line.main(["run"]) == 1
    assert "NameError" in capsys.readouterr().err
    assert (tmp_path / "runs" / "soundstage" / "metrics.json").is_file()


def test_every_command_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in command_line.COMMANDS:
        with pytest.raises(SystemExit) as done:
            command_line.main([name, "--help"])
        assert done.value.code == 0
        assert f"python -m avadclip_lite {name}" in capsys.readouterr().out


def test_the_module_is_a_command() -> None:
    words = [sys.executable, "-m", "avadclip_lite", "train", "--data", "nowhere", "--out", "x"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 2 and "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_package_called_tools_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("raise SystemExit('a stranger')\n")
    words = [sys.executable, "-m", "avadclip_lite", "run", "--only", "99"]
    around = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=around, capture_output=True, text=True)
    assert done.returncode == 2 and "no notebook starts with '99'" in done.stderr


# --- seeds ---------------------------------------------------------------------------------------


def test_seeds_are_studied_first_and_the_notebooks_see_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avadclip_lite.experiments import study

    asked = []

    def fake(out: Path, **how: object) -> Path:
        asked.append((out, how))
        out.write_text("variant,seed\npaper,0\n")
        return out

    monkeypatch.setattr(study, "run_study", fake)
    text = SCRIPT.replace(
        "total = sum([1] * epochs)",
        "import os\nfrom pathlib import Path\n"
        'assert Path(os.environ["AVADCLIP_STUDY"]).read_text().startswith("variant")\n'
        "assert seeds == [0, 1, 2, 3]\n"
        "total = sum([1] * epochs)",
    )
    write_notebook(tmp_path / "nb", "42_example", text)
    choices = {"folder": tmp_path / "nb", "out": tmp_path / "out", "words": [("epochs", "2")]}
    run.run(**choices, seeds=4, studies=["parts"], jobs=3)
    ((out, how),) = asked
    assert out == (tmp_path / "out" / "study.csv")
    assert list(how["seeds"]) == [0, 1, 2, 3] and how["studies"] == ["parts"]
    assert how["jobs"] == 3
    assert how["overrides"] == {"epochs": 2}  # the seed belongs to the study
    assert "AVADCLIP_STUDY" not in os.environ


def test_other_results_are_a_reason_to_run_again(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    results = tmp_path / "results.csv"
    monkeypatch.setenv("AVADCLIP_STUDY", str(results))
    results.write_text("1")
    choices = {"folder": two[0].parent, "out": tmp_path / "out", "only": [two[0].stem]}
    run.run(**choices)
    run.run(**choices)
    assert "nothing to do" in capsys.readouterr().out
    results.write_text("2")
    run.run(**choices)
    assert "done" in capsys.readouterr().out


def test_threads_follow_the_scale_unless_they_were_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert run.kernel_environment()["OMP_NUM_THREADS"] == "1"
    assert run.kernel_environment(scale="xd")["OMP_NUM_THREADS"] == "12"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run.kernel_environment(scale="xd")["OMP_NUM_THREADS"] == "3"
