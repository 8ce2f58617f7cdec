"""Independent calls, spread over this machine's cores by joblib."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed


def add_worker_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """The option ``--jobs``; ``what`` names the pieces of work."""
    parser.add_argument("--jobs", type=int, default=1, help=f"{what} at a time (%(default)s)")


def parallel_map(
    call: Callable[[Any], Any], tasks: Sequence[Any], *, jobs: int = 1
) -> Iterator[Any]:
    """``call`` of every task, results in the tasks' order as they become available. ``call`` and
    the tasks travel to other processes, so both must pickle."""
    if jobs == 1:
        return map(call, tasks)
    return Parallel(jobs, batch_size=1, return_as="generator")(delayed(call)(t) for t in tasks)
