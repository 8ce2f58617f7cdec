"""The doctor: right about this machine, and still on its feet where things are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest

from tools import doctor
from tools.doctor import Finding, examine

ROOT = Path(__file__).resolve().parents[1]


def call(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "avadclip_lite", "doctor", *words],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def find(words: str) -> Finding:
    found = [f for f in examine() if words in f.what]
    assert len(found) == 1, [f.what for f in examine()]
    return found[0]


def test_a_reader_that_stops_is_no_fault_of_the_disk() -> None:
    words = [sys.executable, "-m", "avadclip_lite", "doctor"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=ROOT, **pipes) as doctor_:
        doctor_.stdout.close()  # as `doctor | head -1` does
        assert (doctor_.wait(120), doctor_.stderr.read()) == (1, b"")


def test_a_clone_that_is_set_up_is_ready() -> None:
    done = call()
    assert done.returncode == 0, done.stdout
    assert "Ready: `make run`" in done.stdout and "MISSING" not in done.stdout
    for word in ("Python 3.1", "torch 2.11", "notebooks", "Soundstage: ", "CLIP", "PyAV", "free"):
        assert word in done.stdout


def test_every_gap_has_a_remedy() -> None:
    for line in call("--json", AVADCLIP_DATA="nowhere").stdout.splitlines():
        finding = json.loads(line)
        assert finding["ready"] or finding["remedy"], finding


def test_a_torch_that_does_not_load_is_reported(tmp_path: Path) -> None:
    """As where a library of CUDA is missing: the import raises, and not ImportError."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    done = call(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert "MISSING  torch does not load (OSError: libcudart.so.13: cannot open)" in done.stdout
    assert "Python 3.1" in done.stdout and "GB free" in done.stdout  # and it went on


def test_missing_data_stops_the_offline_run(tmp_path: Path) -> None:
    done = call(AVADCLIP_DATA=str(tmp_path))
    assert done.returncode == 1
    assert "MISSING  Soundstage's features" in done.stdout
    assert "MISSING  Soundstage's tiny encoders" in done.stdout
    assert "git checkout -- data" in done.stdout


def test_real_weights_are_not_needed_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avadclip_lite.encoders import CLIP_FILE, WAV2CLIP_FILE

    monkeypatch.setenv("AVADCLIP_WEIGHTS", str(tmp_path))
    absent = [f for f in examine() if "'s weights, for real videos" in f.what]
    assert [(f.ready, f.needed) for f in absent] == [(False, False)] * 2
    assert all(str(tmp_path) in f.remedy and "https://" in f.remedy for f in absent)
    for name in (CLIP_FILE, WAV2CLIP_FILE):
        (tmp_path / name).touch()
    assert [f.ready for f in examine() if "'s weights in" in f.what] == [True, True]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "dependencies", lambda: ["numpy", "no_such_library"])
    finding = find("missing: no_such_library")
    assert not finding.ready and finding.needed and "make run" in finding.remedy


def test_every_dependency_is_looked_for() -> None:
    """Names as ``pyproject.toml`` has them, whatever version or extra stands behind."""
    found = doctor.dependencies()
    assert {"torchvision", "open_clip_torch", "scikit-learn", "av", "papermill"} <= set(found)
    assert "torch" not in found and all(
        name.replace("_", "").replace("-", "").isalnum() for name in found
    )
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert len(found) == len(wanted) - 1


def test_another_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    finding = find("Python 3.10.1")
    assert not finding.ready and "3.11 or 3.12" in finding.remedy


def test_a_foreign_kernel_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = tmp_path / "share" / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/elsewhere/python", "-m", "ipykernel_launcher"], "display_name": "x"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    finding = find("the kernel python3 is /elsewhere/python")
    assert not finding.ready and "ipykernel install" in finding.remedy


def test_a_full_disk_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(2**40, 2**40, 2**30))
    finding = find("1 GB free")
    assert not finding.ready and "--out" in finding.remedy


def test_a_look_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def _disk() -> None:
        raise PermissionError("no look at the disk")

    monkeypatch.setattr(doctor, "_disk", _disk)
    assert not find("disk: PermissionError: no look at the disk").ready


def test_quick() -> None:
    """It is the first thing that a workshop's participants run, together. Generous: tests share
    the machine."""
    import time

    started = time.perf_counter()
    call()
    assert time.perf_counter() - started < 30
