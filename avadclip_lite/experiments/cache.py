"""What was trained before is found again: ``fit`` with a cache in front of it.

result = train_or_load(make_config(seed=0), store)   # from the cache, or trained into it
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import cache as once
from pathlib import Path

from filelock import FileLock

from avadclip_lite import train
from avadclip_lite.config import Config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.encoders import TextTower, WordPrompts
from avadclip_lite.experiments.metrics import CACHE_FOLDER
from avadclip_lite.model import Detector

PACKAGE = Path(__file__).resolve().parents[1]
CACHE = PACKAGE.parent / "runs" / "cache"  # where AVADCLIP_CACHE names none


def train_or_load(
    settings: Config,
    store: FeatureStore,
    *,
    text: TextTower | str | None = None,
    prompts: WordPrompts | None = None,
    teacher: Detector | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
    watch: Callable[[Detector], Mapping[str, float]] | None = None,
) -> train.FitResult:
    """``train.fit``, or the result of the same ``fit`` from the cache.

    The same means: equal settings, sources of the method, data, text tower and teacher's weights.
    The cache is ``cache``, or the folder that the environment variable ``AVADCLIP_CACHE`` names, or
    ``runs/cache`` of the repository. A second process that asks for the same training waits for
    the first and takes its result; what was interrupted is continued. ``watch`` is called by the
    epochs that are trained now; what is in the cache was watched by whoever trained it.

    Raises what ``fit`` raises, and ``ValueError`` for a cache that cannot be written.
    """
    root = Path(cache or os.environ.get(CACHE_FOLDER) or CACHE)
    given = {"text": text, "prompts": prompts, "teacher": teacher}
    identity = train.run_identity(settings, store, **given)
    del identity["store"]["path"]  # the same data may lie elsewhere
    same = json.dumps([identity, source_digest()], sort_keys=True)
    key = hashlib.sha256(same.encode()).hexdigest()[:16]
    folder = root / f"{settings.detector}-{settings.form}-{settings.model.role}-{key}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        held = FileLock(root / f"{folder.name}.lock").acquire()
    except OSError as error:
        remedy = f"name another folder in the environment variable {CACHE_FOLDER}"
        raise ValueError(
            f"the cache {root} cannot be written ({error.strerror}); {remedy}"
        ) from None
    with held:
        return train.fit(settings, store, **given, out=folder, progress=progress, watch=watch)


@once
def source_digest() -> str:
    """Twelve hexadecimal digits over the sources that decide what a training gives: the method's
    modules, which are the package's top level, and the earlier systems'."""
    digest = hashlib.sha256()
    for path in sorted([*PACKAGE.glob("[!_]*.py"), *PACKAGE.glob("baselines/*.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
