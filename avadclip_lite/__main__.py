"""``python -m avadclip_lite COMMAND``: the command line. A command's module is imported only when
it is called, so that ``doctor`` works where torch does not."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from pathlib import Path

COMMANDS = {  # name: (module with add_arguments and main, what it does)
    "run": ("tools.run", "run all notebooks in order, gather their numbers, write a report"),
    "import": (".features.import_release", "make a feature store from released feature files"),
    "import-checkpoint": (".compare.release", "make a run's folder of one of the authors' models"),
    "check-features": (".compare.features", "are a store's features those of the paper's numbers?"),
    "extract": (".video.folder", "make a feature store from a folder of videos"),
    "train": (".experiments.train_command", "train a detector on a feature store"),
    "study": (".experiments.study", "train the variants of the ablation studies over seeds"),
    "evaluate": (".experiments.score_files", "score a trained detector, or anybody's score files"),
    "score": (".video.timeline", "find anomalies in videos with a trained detector"),
    "thresholds": (".video.thresholds", "false alarms per hour against recall; thresholds to use"),
    "bench": ("tools.bench", "time training steps at the size of XD-Violence"),
    "doctor": ("tools.doctor", "what of this machine is ready, and how to mend the rest"),
}
_LISTED = "\n".join(f"  {name:18s}{text}" for name, (_, text) in COMMANDS.items())
USAGE = f"usage: python -m avadclip_lite COMMAND [options]\n\n{_LISTED}\n\nmore: COMMAND --help"


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

    if name not in COMMANDS:
        return complain(f"avadclip_lite: no command {name!r}; use one of {', '.join(COMMANDS)}", 2)
    try:
        if name in ("train", "study", "evaluate", "score", "thresholds"):
            importlib.import_module("avadclip_lite.baselines")  # registers the earlier systems
        if COMMANDS[name][0].startswith("tools."):  # a clone's, before another's package tools
            sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        module = importlib.import_module(COMMANDS[name][0], "avadclip_lite")
    except ImportError as error:
        return complain(f"avadclip_lite {name}: {error}; in a clone try: make doctor", 1)
    parser = argparse.ArgumentParser(prog=f"python -m avadclip_lite {name}")
    parser.error = lambda text: parser.exit(complain(f"{parser.prog}: {text}; see --help", 2))
    module.add_arguments(parser)
    args = parser.parse_args(words[1:])
    out = str(vars(args).get("out"))
    if name != "score" and re.search("[\ud800-\udfff]", out):  # libraries refuse it, after hours
        return complain(f"avadclip_lite {name}: --out {out!a} is not in UTF-8; rename it", 2)
    try:
        status = module.main(args) or 0
        print(end="", flush=True)
        return status
    except BrokenPipeError:  # whoever read the output has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may exit's flush fail
        return 1
    except (ValueError, OSError) as error:
        told = str(error)
        if getattr(error, "strerror", None):  # the system's words, not ours
            where = error.filename or "the disk"
            told = f"{where} cannot be used ({error.strerror}); mend that or choose another path"
        return complain(f"avadclip_lite {name}: {told}", 2)
    except KeyboardInterrupt:
        return complain("\ninterrupted; run again to go on", 130)


if __name__ == "__main__":
    sys.exit(main())
