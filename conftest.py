"""What every test run shares, the notebooks' under nbval included: this Python's own kernel, one
thread a process, and an empty cache of trained models, so that no old checkpoint can hide a change
in the package."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "tools"))  # tests import the authors' tool
# lab notes are executed by `make run ARGS="--studies"` only; nbval still takes one that is named
collect_ignore = ["notebooks/studies"]

from tools.run import kernel_environment  # noqa: E402

# xdist's workers are children of this process and inherit what it has set
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = Path(tempfile.mkdtemp(prefix="avadclip_tests_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(kernel_environment(cache=folder / "cache", records=folder / "metrics.jsonl"))
