"""``python -m avadclip_lite COMMAND``: the command line.

A command's module is imported only when the command is called, so that ``doctor`` works on a
machine where torch does not.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

COMMANDS = {  # name: (module with add_arguments and main, what it does)
    "run": ("experiments.run", "run all notebooks in order, gather their numbers, write a report"),
    "import": ("features.import_release", "make a feature store from released feature files"),
    "import-checkpoint": ("compare.release", "make a run's folder of one of the authors' models"),
    "check-features": ("compare.features", "are a store's features those of the paper's numbers?"),
    "extract": ("video.folder", "make a feature store from a folder of videos"),
    "train": ("experiments.train_command", "train a detector on a feature store"),
    "study": ("experiments.study", "train the variants of the ablation studies over several seeds"),
    "evaluate": ("experiments.score_files", "score a trained detector, or anybody's score files"),
    "score": ("video.timeline", "find anomalies in videos with a trained detector"),
    "thresholds": ("video.thresholds", "false alarms per hour against recall; thresholds to use"),
    "bench": ("tools/bench.py", "time training steps at the size of XD-Violence"),
    "doctor": ("tools/doctor.py", "what of this machine is ready, and how to mend the rest"),
}
RENAMED = {"alarms": "thresholds", "assess": "evaluate --run RUN --data STORE"}
OF_DETECTORS = ("train", "study", "evaluate", "score", "thresholds")
USAGE = "usage: python -m avadclip_lite COMMAND [options]\n\n{}\n\n{}".format(
    "\n".join(f"  {name:18s}{text}" for name, (_, text) in COMMANDS.items()),
    "python -m avadclip_lite COMMAND --help says more about one.",
)


def _module(name: str) -> ModuleType:
    """A command's module: of the package, or a file of the clone (``tools/`` is not installed)."""
    if not name.endswith(".py"):
        return importlib.import_module(f"avadclip_lite.{name}")
    path = Path(__file__).resolve().parents[1] / name
    if not path.is_file():
        raise ImportError(f"{name} is part of a clone of the repository, not of the package")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if words else 2
    name = words[0]

    def complain(text: str, status: int) -> int:
        print(text, file=sys.stderr)
        return status

    if name in RENAMED:
        return complain(f"avadclip_lite {name} is now: avadclip_lite {RENAMED[name]}", 2)
    if name not in COMMANDS:
        return complain(f"avadclip_lite: no command {name!r}\n\n{USAGE}", 2)
    try:
        if name in OF_DETECTORS:
            importlib.import_module("avadclip_lite.baselines")  # registers the earlier systems
        module = _module(COMMANDS[name][0])
    except ImportError as error:
        help_ = "see what is missing with: python -m avadclip_lite doctor"
        return complain(f"avadclip_lite {name}: {error}; {help_}", 1)
    parser = argparse.ArgumentParser(prog=f"python -m avadclip_lite {name}")
    module.add_arguments(parser)
    args = parser.parse_args(words[1:])
    try:
        return module.main(args) or 0
    except (ValueError, FileNotFoundError) as error:
        return complain(f"avadclip_lite {name}: {error}", 2)
    except KeyboardInterrupt:
        return complain("\ninterrupted; run again to go on", 130)


if __name__ == "__main__":
    sys.exit(main())
