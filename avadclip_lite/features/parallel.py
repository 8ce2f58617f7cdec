"""Independent calls spread over the cores of this machine, or over a cluster that is running.

    for result in each(task_function, tasks, jobs=4): ...
    for result in each(task_function, tasks, backend="dask", address="tcp://10.0.0.7:8786"): ...

joblib does the work; ``loky`` are processes here, ``dask`` and ``ray`` optional extras.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

__all__ = ["BACKENDS", "add_worker_arguments", "each"]

BACKENDS = ("loky", "dask", "ray")

Task = TypeVar("Task")
Result = TypeVar("Result")


def add_worker_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """The options ``--jobs``, ``--backend``, ``--address``; ``what`` names the pieces of work."""
    parser.add_argument("--jobs", type=int, default=1, help=f"{what} at a time (%(default)s)")
    parser.add_argument("--backend", choices=BACKENDS, default="loky", help="(%(default)s)")
    parser.add_argument("--address", help="of a running Dask or Ray cluster")


def each(
    call: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    backend: str = "loky",
    address: str | None = None,
) -> Iterator[Result]:
    """``call`` of every task, results in the tasks' order as they become available.

    ``call`` and the tasks travel to other processes, so both must pickle. ``jobs`` counts processes
    of ``loky``; a cluster has as many workers as it has. Raises ``ValueError`` saying what to
    install, or that nothing answers at the address.
    """
    if backend == "loky" and jobs == 1:
        yield from map(call, tasks)
        return
    from joblib import Parallel, delayed, effective_n_jobs

    calls = [delayed(call)(task) for task in tasks]
    with _connected(backend, address):
        if backend == "ray":  # its joblib backend hands over whole lists only: go in rounds
            size = 4 * effective_n_jobs(-1)
            for start in range(0, len(calls), size):
                yield from Parallel(n_jobs=-1, batch_size=1)(calls[start : start + size])
            return
        jobs = jobs if backend == "loky" else -1
        yield from Parallel(n_jobs=jobs, return_as="generator", batch_size=1)(calls)


@contextmanager
def _connected(backend: str, address: str | None) -> Iterator[None]:
    """joblib's choice of workers; for a cluster the connection to it."""
    from joblib import parallel_config

    if backend == "loky":
        yield
        return
    if address is None:
        raise ValueError(f"the {backend} backend needs --address, that of the running cluster")
    try:
        cluster = importlib.import_module({"dask": "distributed", "ray": "ray"}[backend])
        if backend == "ray":
            importlib.import_module("ray.util.joblib").register_ray()
    except ImportError:
        raise ValueError(
            f"the {backend} backend is not installed; install it with: "
            f'pip install "avadclip-lite[{backend}]"'
        ) from None
    try:
        if backend == "dask":
            connection = cluster.Client(address, timeout=20)
        else:
            connection = nullcontext(cluster.init(address, ignore_reinit_error=True))
    except (OSError, ConnectionError, TimeoutError) as error:
        raise ValueError(f"no {backend} cluster answers at {address} ({error})") from None
    with connection, parallel_config(backend=backend):
        yield
