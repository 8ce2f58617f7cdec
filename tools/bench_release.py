"""The second column of ``bench``: the authors' own training step, from their checkout.

    python -m avadclip_lite bench --only released --release /path/to/AVadCLIP

Their models and losses are imported from the checkout's ``src`` and run on the bags that ours are
timed on, always 256 snippets long; CLIP has random weights of their type, which cost what CLIP's
do. Their loading is timed apart: they read and resample every feature file anew in every epoch.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from avadclip_lite.config import XD_CLASSES
from avadclip_lite.dataset import Batch, FeatureStore, TrainingSet
from avadclip_lite.losses import text_contrast

CLIP_SIZES = (512, 224, 12, 768, 16, 77, 49_408, 512, 8, 12)  # of ViT-B/16, in CLIP's own order
CONTRAST, UNCERTAINTY = 1e-4, 1e-8  # weights of two losses, literals in their loop


@dataclass(frozen=True, kw_only=True)
class ReleaseTiming:
    """What a step of the authors' code costs, in milliseconds."""

    role: str
    step_ms: float  # median, from a batch on the device to updated weights
    loading_ms: float  # of one batch, from the feature files to padded arrays


@contextlib.contextmanager
def checkout(folder: Path) -> Iterator[SimpleNamespace]:
    """The release's modules while this is open; afterwards names such as ``utils`` are free again.
    Raises ``ValueError`` for a folder that is no checkout."""
    source, known = Path(folder) / "src", set(sys.modules)
    if not (source / "model_t.py").is_file():
        remedy = "give the folder that holds the authors' src/model_t.py"
        raise ValueError(f"{folder} is no checkout of the authors' code; {remedy}")
    sys.path.insert(0, str(source))
    try:
        names = ("model_t", "model_s", "xd_option", "xd_train_t", "xd_train_s", "utils.dataset")
        yield SimpleNamespace(**{n.rpartition(".")[2]: importlib.import_module(n) for n in names})
    except ImportError as error:
        raise ValueError(f"{source} cannot be imported: {error}; install what it needs") from None
    finally:
        sys.path.remove(str(source))
        for name in set(sys.modules) - known:
            if Path(getattr(sys.modules[name], "__file__", None) or "").is_relative_to(source):
                del sys.modules[name]


def _random_clip(kind: nn.Module, device: torch.device) -> Callable:
    """Stands for ``clip.load``: half precision on a GPU and single on a CPU, as there."""

    def load(*_: object, **__: object) -> tuple[nn.Module, None]:
        model = kind.CLIP(*CLIP_SIZES).eval()
        kind.convert_weights(model)
        return (model.float() if device.type == "cpu" else model).to(device), None

    return load


def _step(code: SimpleNamespace, role: str, device: torch.device) -> Callable[[Batch], None]:
    """One training step as their loop takes it."""
    args = code.xd_option.parser.parse_args([])
    sizes = [args.classes_num, args.embed_dim, args.visual_length, args.visual_width]
    sizes.append(args.visual_head)
    prompt = [args.prompt_prefix, args.prompt_postfix, device]
    around = [args.visual_layers, args.audio_length, args.audio_width, args.attn_window]
    load = _random_clip(importlib.import_module("clip.model"), device)
    with mock.patch.object(code.model_t.clip, "load", load):
        model = teacher = code.model_t.AVADCLIP(*sizes, *around, *prompt).to(device)
        if role != "audio_visual":
            own = [args.visual_layers_1, args.attn_window_1]
            model = code.model_s.AVADCLIP_MODEL(*sizes, *own, *prompt).to(device)
    model.train()
    losses = code.xd_train_t if role == "audio_visual" else code.xd_train_s
    teacher.requires_grad_(role == "audio_visual")
    teacher.clipmodel.requires_grad_(False)
    optimizer, words = torch.optim.AdamW(model.parameters(), lr=args.lr), list(XD_CLASSES.words)

    def step(batch: Batch) -> None:
        heard = batch.video, batch.audio, None, None, words, batch.lengths
        if role == "audio_visual":
            _, text, anomaly, classes, alpha = model(*heard)
        else:
            theirs = teacher.eval()(*heard)[0]
            found = model(batch.video, None, words, batch.lengths)
            features, text, anomaly, classes, theta, alpha = found
        labels = batch.labels, batch.lengths, batch.video.device
        parts = [losses.CLAS2(anomaly, *labels), losses.CLASM(classes, *labels, alpha)]
        for part in parts:
            part.item()  # their log waits for the device
        total = sum(parts) + CONTRAST * text_contrast(text)
        if role != "audio_visual":
            total = total + UNCERTAINTY * losses.UC_Loss(theirs, features, theta)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return step


def _loading(code: SimpleNamespace, store: FeatureStore, rows: np.ndarray) -> float:
    """Milliseconds of reading these rows as one batch, by their data set and one process."""
    with tempfile.TemporaryDirectory() as folder:
        table = []
        for row in rows:
            paths = [str(Path(folder, f"{row}_{kind}.npy")) for kind in ("video", "audio")]
            for path, features in zip(paths, store.uncut(row), strict=True):
                np.save(path, np.asarray(features, np.float32))
            table.append((*paths, store.videos[row].label))
        listed = Path(folder, "list.csv")
        pd.DataFrame(table, columns=["path", "audio_path", "label"]).to_csv(listed, index=False)
        files = code.dataset.XDDataset(256, 256, str(listed), False, {})
        reader = torch.utils.data.DataLoader(files, batch_size=len(rows))
        next(iter(reader))  # the files are in the system's memory afterwards
        began = time.perf_counter()
        next(iter(reader))
        return 1e3 * (time.perf_counter() - began)


def measure_release(
    folder: Path, role: str, store: FeatureStore, bags: TrainingSet, queue: list[Tensor]
) -> ReleaseTiming:
    """Time the authors' step on ``queue``, the positions of each batch in ``bags`` of form
    ``released``; the first is a warm-up. Raises what ``checkout`` does."""
    device, took = bags.device, []
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    torch.manual_seed(0)
    with checkout(folder) as code:
        step = _step(code, role, device)
        for index in queue:
            batch = bags.batch(index)
            wait()
            began = time.perf_counter()
            step(batch)
            wait()
            took.append(time.perf_counter() - began)
        loading = _loading(code, store, bags.rows[queue[0].numpy()])
    median = 1e3 * float(np.median(took[1:] or took))
    return ReleaseTiming(role=role, step_ms=median, loading_ms=loading)
