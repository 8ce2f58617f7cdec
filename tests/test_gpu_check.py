"""The GPU check, where there is no GPU: both parts dry on the CPU at small size, and how it deals
with checks that fail, crash or take too long."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "benchmarks" / "gpu_check.sh"
CHECKS = {
    "one": {
        "losses",
        "NaN",
        "captured",
        "independence",
        "determinism",
        "evaluation",
        "step",
        "profile",
    }
    | {"attention", "text prompt", "fit", "compile"},
    "two": {"encoders", "lesson"},
}


@pytest.fixture(scope="module")
def gpu_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT.with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def call(out: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    folders = {"OUT": out / "out", "WHEELS": out / "wheels", "SITE": out / "site"}
    return subprocess.run(
        ["bash", str(SCRIPT), *words],
        env=os.environ
        | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        | {name: str(folder) for name, folder in folders.items()}
        | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("part", ["one", "two"])
def test_a_dry_run_reaches_every_check_and_ends_with_its_table(tmp_path: Path, part: str) -> None:
    done = call(tmp_path, part, "--device", "cpu", "--small")
    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads((tmp_path / "out" / f"part_{part}.json").read_text())
    assert kept["machine"]["device"] == "CPU"
    assert {row["check"] for row in kept["rows"]} == CHECKS[part]
    assert not [row for row in kept["rows"] if row["ok"] is False]
    table = done.stdout.splitlines()
    assert len(table) == len(kept["rows"]) + 2 and table[-1].startswith(f"part {part}: ")
    assert done.stdout in (tmp_path / "out" / f"part_{part}.txt").read_text()
    assert len(list((tmp_path / "out").iterdir())) == 2  # few files, so that all come back


def test_it_says_how_it_is_called_and_refuses_a_device_that_is_not_there(tmp_path: Path) -> None:
    asked = call(tmp_path, "three")
    assert asked.returncode == 2 and "gpu_check.sh wheels" in asked.stdout
    if not torch.cuda.is_available():
        refused = call(tmp_path, "one")
        assert refused.returncode == 1 and "--device cuda cannot be used here" in refused.stderr


def _fine(at) -> Iterator:
    yield at.row(check="fine", what="a number", value=1.0, unit="ms")


def _fails_late(at) -> Iterator:
    yield at.row(check="late", what="held", value="yes", ok=True)
    raise RuntimeError("device-side assert\nand more")


def _crashes(at) -> Iterator:
    yield at.row(check="crash", what="held", value="yes", ok=True)
    os.kill(os.getpid(), signal.SIGABRT)


def _hangs(at) -> Iterator:
    yield at.row(check="hang", what="held", value="yes", ok=True)
    time.sleep(600)


def _never(at) -> Iterator:
    yield at.row(check="never", what="reached", value="yes", ok=True)


def test_what_fails_crashes_or_hangs_loses_nothing_and_stops_nothing(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    checks = [_fine, _fails_late, _crashes, _hangs, _never]
    monkeypatch.setitem(gpu_check.CHECKS, "one", checks)

    class At(gpu_check.Setting):
        row = gpu_check.Row

    at = At(
        device=torch.device("cpu"),
        small=True,
        out=tmp_path,
        folder=tmp_path,
        until=time.monotonic() + 8,
    )
    assert gpu_check.run_part("one", at, {"device": "none"}) == 1
    rows = json.loads((tmp_path / "part_one.json").read_text())["rows"]
    assert [(row["check"], row["ok"]) for row in rows] == [
        ("fine", None),
        ("late", True),
        ("_fails_late", False),
        ("crash", True),
        ("_crashes", False),
        ("hang", True),
        ("_hangs", False),
        ("_never", False),
    ]
    said = capsys.readouterr().out
    assert "RuntimeError: device-side assert" in said and "status -6" in said
    assert "stopped: the seconds were spent" in said and "not reached" in said
    assert "3 held, 4 failed" in said.splitlines()[-1]
    assert "Traceback" in (tmp_path / "part_one.txt").read_text()


def test_a_lesson_that_fails_shows_its_own_error(gpu_check: ModuleType, tmp_path: Path) -> None:
    at = gpu_check.Setting(
        device=torch.device("cpu"),
        small=True,
        out=tmp_path,
        folder=tmp_path,
        until=time.monotonic() + 100,
    )
    script = gpu_check._tiny_lesson(tmp_path)
    notebook = script.with_suffix(".ipynb")
    notebook.write_text(notebook.read_text().replace("torch.ones", "torch.no_such_thing"))
    row, said = gpu_check._lesson(at, script)
    assert row.ok is False and "no_such_thing" in said and "AttributeError" in said


def test_wheels_hold_what_a_bare_gpu_machine_lacks(gpu_check: ModuleType) -> None:
    there = gpu_check.closure(gpu_check.THERE)
    assert {"torch", "numpy", "sympy", "pillow"} <= there
    lacking = gpu_check.closure(["papermill", "av", "open_clip_torch", "ipykernel"]) - there
    assert {"papermill", "av", "open-clip-torch", "ipykernel", "nbclient", "timm"} <= lacking
    assert not lacking & {"torch", "numba", "jupyterlab", "debugpy"}


def test_only_wheels_of_what_is_missing_are_unpacked(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(gpu_check.subprocess, "run", lambda words, **_: calls.append(words))
    for name in ("numpy-1.0-py3-none-any.whl", "no_such_thing-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    gpu_check.unpack_wheels(tmp_path, tmp_path / "site")
    (words,) = calls
    assert words[-1].endswith("no_such_thing-1.0-py3-none-any.whl") and "--no-index" in words
    assert not any("numpy" in word for word in words)
