"""Independent calls, spread over this machine's cores (``loky``) or a running Dask cluster (an
optional extra) by joblib."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from joblib import Parallel, delayed, parallel_config

BACKENDS = ("loky", "dask")


def add_worker_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """The options ``--jobs``, ``--backend``, ``--address``; ``what`` names the pieces of work."""
    parser.add_argument("--jobs", type=int, default=1, help=f"{what} at a time (%(default)s)")
    parser.add_argument("--backend", choices=BACKENDS, default="loky", help="(%(default)s)")
    parser.add_argument("--address", help="of a running Dask cluster")


def parallel_map(
    call: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    jobs: int = 1,
    backend: str = "loky",
    address: str | None = None,
) -> Iterator[Any]:
    """``call`` of every task, results in the tasks' order as they become available. ``call`` and
    the tasks travel to other processes, so both must pickle. ``jobs`` counts processes of ``loky``;
    a cluster has as many workers as it has. Raises ``ValueError`` saying what to install, or that
    nothing answers at the address."""
    if backend == "loky" and jobs == 1:
        yield from map(call, tasks)
        return
    connection, options = _connect(backend, address)
    with connection, parallel_config(backend, n_jobs=jobs if backend == "loky" else -1, **options):
        parallel = Parallel(return_as="generator", batch_size=1)
        yield from parallel(delayed(call)(task) for task in tasks)


def _connect(backend: str, address: str | None) -> tuple[Any, dict[str, Any]]:
    """The connection to a running cluster, and what joblib must know of it."""
    if backend == "loky":
        return nullcontext(), {}
    if address is None:
        raise ValueError(f"the {backend} backend needs --address, that of the running cluster")
    try:
        client = importlib.import_module("distributed").Client(address, timeout=20)
        return client, {"client": client}
    except ImportError:
        remedy = f'install it with: pip install "avadclip-lite[{backend}]"'
        raise ValueError(f"the {backend} backend is not installed; {remedy}") from None
    except OSError as error:  # ConnectionError and TimeoutError among them
        raise ValueError(f"no {backend} cluster answers at {address} ({error})") from None
