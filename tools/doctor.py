"""Say in plain words what of this machine is ready, and what to do about the rest.

    python -m avadclip_lite doctor

Nothing is imported before it is tried, so the doctor also speaks where torch does not load. Its
exit status is 0 if the offline default (all notebooks on Soundstage) can run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from avadclip_lite.config import soundstage_path

__all__ = ["Finding", "add_arguments", "examine", "main"]

ROOT = Path(__file__).resolve().parents[1]
DISK_NEEDED = 2 * 2**30  # bytes, for a run on Soundstage with its checkpoints and pages


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``ready``, or not, and then whether the offline run ``needs`` it."""

    what: str
    ready: bool
    remedy: str = ""
    needed: bool = True

    def __str__(self) -> str:
        mark = "ok     " if self.ready else ("MISSING" if self.needed else "absent ")
        return f"{mark}  {self.what}" + (f"\n         -> {self.remedy}" if self.remedy else "")


def examine() -> Iterator[Finding]:
    """Look at everything, one finding after the other; a look that fails is a finding too."""
    looks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _torch,
        _libraries,
        _kernel,
        _data,
        _weights,
        _video,
        _disk,
    ]
    for look in looks:
        try:
            yield from look()
        except Exception as error:  # the doctor reports what breaks, whatever it is
            name = look.__name__.strip("_")
            yield Finding(f"{name}: {_first_line(error)}", False, "see the message above")


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] < (3, 13)
    remedy = "" if fits else "use Python 3.11 or 3.12: make PYTHON=/path/to/python3.12 run"
    yield Finding(f"Python {version} at {sys.executable}", fits, remedy)


def _torch() -> Iterator[Finding]:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken CUDA library raises OSError, others what they like
        yield Finding(
            f"torch does not load ({_first_line(error)})",
            False,
            "remove the folder .venv and install again: make run",
        )
        return
    if torch.cuda.is_available():
        device = f"device {torch.cuda.get_device_name(0)} (CUDA {torch.version.cuda})"
    else:
        device = f"device CPU with {torch.get_num_threads()} threads; no CUDA GPU, none is needed"
    yield Finding(f"torch {torch.__version__}, {device}", True)


def dependencies() -> list[str]:
    """What must be installed: the distributions that ``pyproject.toml`` names, torch aside, which
    is looked at on its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = (re.split(r"[=<>~!;\[ ]", text)[0] for text in project["dependencies"])
    return [name for name in names if name != "torch"]


def _libraries() -> Iterator[Finding]:
    wanted, missing = dependencies(), []
    for name in wanted:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        remedy = "remove .venv/.installed and install again: make run"
        yield Finding(f"missing: {', '.join(missing)}", False, remedy)
    else:
        yield Finding(f"all {len(wanted)} libraries are installed", True)


def _kernel() -> Iterator[Finding]:
    """The kernel called python3 must be this Python; one that a user installed elsewhere with the
    same name would run the notebooks in another environment."""
    from jupyter_client.kernelspec import KernelSpecManager

    from tools.run import environment, kernel_environment

    with environment(kernel_environment()):
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    ours = command in ("python", "python3") or Path(command).absolute() == Path(sys.executable)
    yield Finding(
        "notebooks run in this Python" if ours else f"the kernel python3 is {command}",
        ours,
        "" if ours else "install this one's: python -m ipykernel install --sys-prefix",
    )


def _data() -> Iterator[Finding]:
    from tools.run import notebooks

    try:
        yield Finding(f"{len(notebooks())} notebooks", True)
    except FileNotFoundError as error:
        yield Finding("notebooks: none", False, str(error))
    path = soundstage_path()
    try:
        from avadclip_lite.dataset import FeatureStore

        store = FeatureStore.open(path)
        train, test = (len(store.indices(split)) for split in ("train", "test"))
        yield Finding(f"Soundstage: {train} training and {test} test videos", True)
    except (ImportError, OSError, ValueError, KeyError) as error:
        yield Finding(
            f"Soundstage's features at {path} ({_first_line(error)})",
            False,
            "they ship with the repository: git checkout -- data",
        )
    yield Finding(
        "XD-Violence: its features are not shipped; notebook 09 and --data use a store of them",
        False,
        "fetch them as README.md says, then: python -m avadclip_lite import --help",
        needed=False,
    )


def _weights() -> Iterator[Finding]:
    from avadclip_lite import encoders

    tiny = soundstage_path() / encoders.SOUNDSTAGE_FILE
    if tiny.is_file():
        yield Finding("Soundstage's tiny encoders", True)
    else:
        yield Finding(
            f"Soundstage's tiny encoders are not at {tiny}",
            False,
            "they ship with the repository: git checkout -- data",
        )
    folder = encoders.weights_folder()
    wanted = (
        ("CLIP", encoders.CLIP_FILE, encoders.CLIP_URL),
        ("Wav2CLIP", encoders.WAV2CLIP_FILE, encoders.WAV2CLIP_URL),
    )
    for name, file, url in wanted:
        if (folder / file).is_file():
            yield Finding(f"{name}'s weights in {folder}", True)
        else:
            yield Finding(
                f"{name}'s weights, for real videos only (notebook 10)",
                False,
                f"downloaded on first use; without a network fetch {url} to {folder / file}",
                needed=False,
            )


def _video() -> Iterator[Finding]:
    try:
        av = importlib.import_module("av")
        yield Finding(f"PyAV {av.__version__} decodes video and sound; ffmpeg is not needed", True)
    except Exception as error:  # as for torch: what a broken library raises is its own affair
        yield Finding(
            f"PyAV does not load ({_first_line(error)}), notebook 10 needs it",
            False,
            "remove .venv/.installed and install again: make run",
        )


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(ROOT).free
    writable = os.access(ROOT, os.W_OK)
    yield Finding(
        f"{free / 2**30:.0f} GB free" if writable else f"{ROOT} cannot be written to",
        free > DISK_NEEDED and writable,
        "" if free > DISK_NEEDED and writable else "make room, or write elsewhere with --out",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Say what of this machine is ready, and what to do about the rest."
    parser.add_argument("--json", action="store_true", help="the findings as JSON lines")


def main(args: argparse.Namespace) -> int:
    findings = []
    for finding in examine():
        findings.append(finding)
        print(json.dumps(finding.__dict__) if args.json else finding, flush=True)
    stops = [f for f in findings if f.needed and not f.ready]
    if not args.json:
        verdict = "Ready: `make run` runs all notebooks offline."
        print("\n" + (f"Not ready: {len(stops)} to mend, see MISSING." if stops else verdict))
    return int(bool(stops))
