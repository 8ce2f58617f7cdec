"""What was trained before is found again: ``fit`` with a cache in front of it.

result = train_or_load(make_config(seed=0), store)   # from the cache, or trained into it
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache as once
from pathlib import Path
from typing import Any

from filelock import FileLock

from avadclip_lite import train
from avadclip_lite.config import Config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.experiments import graphs
from avadclip_lite.experiments.metrics import CACHE_FOLDER

PACKAGE = Path(__file__).resolve().parents[1]
CACHE = PACKAGE.parent / "runs" / "cache"  # where AVADCLIP_CACHE names none


def train_or_load(
    settings: Config,
    store: FeatureStore,
    *,
    cache: str | Path | None = None,
    progress: bool = True,
    watch: train.Watch | None = None,
    **given: Any,
) -> train.FitResult:
    """``train.fit``, or the result of the same ``fit`` from the cache: of equal settings, sources
    of the method, data, text tower and teacher's weights. ``cache``: the folder (of the environment
    variable ``AVADCLIP_CACHE``, or ``runs/cache``). ``given``: text, prompts, teacher of ``fit``. A
    second process that asks for the same training waits for the first; what was interrupted is
    continued. ``watch`` sees the epochs that are trained now. ``ValueError``: cannot write."""
    root = Path(cache or os.environ.get(CACHE_FOLDER) or CACHE)
    identity = train.run_identity(settings, store, **given)
    del identity["store"]["path"]  # the same data may lie elsewhere
    same = json.dumps([identity, source_digest()], sort_keys=True)
    key = hashlib.sha256(same.encode()).hexdigest()[:16]
    folder = root / f"{settings.detector}-{settings.form}-{settings.model.role}-{key}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        held = FileLock(root / f"{folder.name}.lock").acquire()
    except OSError as error:
        what = f"the cache {root} cannot be written ({error.strerror})"
        raise ValueError(f"{what}; name another in the variable {CACHE_FOLDER}") from None
    with held:
        given |= {"progress": progress, "watch": watch, "steps": graphs.steps}
        return train.fit(settings, store, out=folder, **given)


@once
def source_digest() -> str:
    """Twelve hexadecimal digits over the sources that decide what a training gives."""
    digest = hashlib.sha256()
    for path in sorted([*PACKAGE.glob("[!_]*.py"), *PACKAGE.glob("baselines/*.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
