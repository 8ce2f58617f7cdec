"""Training: fit any detector of the seam, distil a student, resume after a crash.

Which epoch is kept (``settings.train.selection``): "holdout", the best by ``video_level`` on a
seeded share of the *training films* that is never trained on, the later one of equals; "last";
"test", the release's protocol, the best by *test* AP of the alignment branch: optimistic, because
the test set chose it, so never compare such a number with an honest one.

A run's folder (``out``) holds ``config.json`` (settings, data, teacher), ``state.safetensors``
(the best epoch's weights, without frozen ones, and all that going on needs), and a copy of these
weights that can do without it, ``weights.safetensors``. Each is replaced in one step, the state
last, and where there is one it alone counts: an interrupted run gives the same weights as an
uninterrupted one (bit for bit on a CPU).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from avadclip_lite.config import ClassSet, Config, arithmetic, find_device, resolved
from avadclip_lite.dataset import Batch, FeatureStore, TrainingSet, check_place, holdout_split
from avadclip_lite.encoders import TextTower, WordPrompts, load_text
from avadclip_lite.evaluate import average_precision, evaluate, predict
from avadclip_lite.losses import topk_mean
from avadclip_lite.model import Detector, build, registered

log = logging.getLogger(__name__)

CONFIG, WEIGHTS, STATE = "config.json", "weights.safetensors", "state.safetensors"
TEXT = "text.safetensors"  # a text tower that came with the weights, as the release's does
FORMAT = 2  # of a run's folder; 1 had other names of weights
SCALARS = ("epoch", "step", "history", "best_value", "chosen_epoch")  # of a training's state
# test metrics in the log and on the command line
SHOWN = ("frame_ap_classification", "frame_ap_alignment", "map_anomaly", "map_with_normal")
RESIDENT_SHARE = 0.6  # training data moves to the GPU when it takes at most this share of it
Watch = Callable[[Detector], Mapping[str, float]]


@dataclass(frozen=True)
class FitResult:
    """A finished training."""

    model: Detector  # in eval mode, with the chosen epoch's weights
    settings: Config
    history: list[dict[str, float]]  # one entry an epoch: mean losses, selection measures, seconds
    chosen_epoch: int  # counted from 1
    seconds: float  # of training, selection included, over all interrupted parts
    out: Path | None  # the run's folder


def fit(
    settings: Config,
    store: FeatureStore,
    *,
    text: TextTower | str | None = None,
    prompts: WordPrompts | None = None,
    teacher: Detector | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    watch: Watch | None = None,
    steps: Callable[[TrainingRun], Any] | None = None,
) -> FitResult:
    """Train a detector on the split "train" of a store. Everything random comes from
    ``settings.train.seed``; the caller's random state is left alone. One log line an epoch.
    ``text``: the frozen text tower with its ``prompts``, or the name that ``load_text`` knows it by
    (``None``: that of the store's encoder). ``teacher``: a trained audio-visual detector for a
    student with ``ukd``; it is copied. ``out``: the run's folder; an interrupted run is continued,
    a finished one returned as it is. ``watch``: called with the detector, in eval mode, after every
    epoch; the numbers that it returns join the history and decide nothing. ``steps``: what takes a
    run's steps in place of ``TrainingRun.backward`` (``experiments.graphs``). Raises ``ValueError``
    for settings, store, teacher or an existing run that do not fit together, and for a loss that is
    no longer finite."""
    if store.dim != settings.model.dim:
        says = f"the configuration says dim={settings.model.dim}; set dim={store.dim}"
        raise ValueError(f"{store.path} holds features of width {store.dim}, {says}")
    device, settings = find_device(settings.train.device), resolved(settings)
    text, prompts = _text(settings, store, text, prompts)
    folder = None if out is None else Path(out)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.train.seed)
        model = build(settings, text, prompts, classes=store.classes).to(device)
        model.distil_from(teacher)
        run = TrainingRun(settings, model, device, steps)
        if folder is not None:
            given = {"text": text, "prompts": prompts, "teacher": teacher}
            _open_folder(folder, run_identity(settings, store, **given))
            run.restore(folder)
        if not run.finished:
            run.train(store, folder, progress, watch)
    model.zero_grad(set_to_none=True)
    model.load_trainable_state(run.best)
    seconds = sum(entry["seconds"] for entry in run.history)
    return FitResult(model.eval(), settings, run.history, run.chosen_epoch, seconds, folder)


def _text(
    settings: Config, store: FeatureStore, text: TextTower | str | None, prompts: WordPrompts | None
) -> tuple[TextTower | None, WordPrompts | None]:
    """The text tower and its prompts, for a detector that is built from them."""
    if not registered(settings.detector).needs_text:
        return None, None
    if isinstance(text, TextTower):
        return text, prompts
    return load_text(text or store.encoder, store.classes.words, dim=settings.model.dim)


class TrainingRun:
    """The state of a training between two steps, and the loop over them."""

    def __init__(self, settings: Config, model: Detector, device: torch.device, steps=None) -> None:
        self.settings, self.model, self.device = settings, model, device
        self.optimizers = model.optimizers()
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.rates = [(group, group["lr"]) for group in groups]
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.shuffling = torch.Generator().manual_seed(settings.train.seed)
        self.epoch = self.step = self.chosen_epoch = 0  # epochs and steps done
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_value = -math.inf
        self.captured = steps(self) if steps else None
        self.writer = ThreadPoolExecutor(1)  # of checkpoints
        self.writing: Future | None = None

    @property
    def finished(self) -> bool:
        train = self.settings.train
        return self.epoch >= train.epochs or 0 < train.max_steps <= self.step

    def train(self, store: FeatureStore, folder: Path | None, progress: bool, watch=None) -> None:
        """All epochs that are left."""
        train = self.settings.train
        rows, held = store.indices("train"), None
        if train.selection == "holdout":
            rows, held_rows = holdout_split(store, rows, train.holdout_share, train.seed)
            if not len(held_rows):
                what = f"holdout_share={train.holdout_share} holds out none of the training videos"
                raise ValueError(f"{what} in {store.path}; raise it, or set selection='last'")
            # one crop of a video is enough to judge an epoch by
            held = TrainingSet(store, held_rows, self.settings.override(crops="first"))
            held = _resident(held, self.device)
        elif train.selection == "test" and not store.frame_truth(store.indices("test")).any():
            raise ValueError(f"{store.path} has no event in its test set: set selection='holdout'")
        bags = _resident(TrainingSet(store, rows, self.settings), self.device)
        shown = {"unit": "step", "disable": None if progress else True}  # None: in no terminal
        with closing(self), tqdm(initial=self.step, **shown) as bar:
            while not self.finished:
                began = time.perf_counter()
                entry = self.one_epoch(bags, bar)
                if watch is not None:  # before weights may be loaded back
                    entry |= watch(self.model.eval())
                entry |= self.select(store, held)
                entry["seconds"] = time.perf_counter() - began
                self.history.append(entry)
                self.report(entry)
                if folder is not None:
                    self.save(folder)

    def one_epoch(self, bags: TrainingSet, bar: tqdm) -> dict[str, float]:
        """Pass over the bags once; mean of every loss over the videos that had it."""
        train = self.settings.train
        decay = 0.1 ** sum(self.epoch >= m for m in train.milestones)
        for group, rate in self.rates:
            group["lr"] = rate * decay
        self.model.start_epoch(self.epoch, bags)
        self.model.train()
        sums: dict[str, Tensor] = {}
        seen: dict[str, int] = {}
        batches = self.model.batches(bags, self.shuffling)
        bar.total = self.step + len(batches) * (train.epochs - self.epoch)
        for index in batches:
            parts = self.one_step(bags.batch(index).to(self.device))
            # added up on the device: asking for a number would wait for it
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + part.detach() * len(index)
                seen[name] = seen.get(name, 0) + len(index)
            self.step += 1
            bar.update()
            if self.step == train.max_steps:
                break
        means = torch.stack([total.float() / seen[name] for name, total in sums.items()])
        entry = dict(zip(sums, means.tolist(), strict=True))
        if not all(map(math.isfinite, entry.values())):
            what = f"training diverged in epoch {self.epoch + 1} ({entry})"
            remedy = f"lower learning_rate={train.learning_rate:g}, or set grad_clip"
            raise ValueError(f"{what}; {remedy}")
        self.model.end_epoch(self.epoch)
        self.epoch += 1
        return {"epoch": float(self.epoch), "learning_rate": train.learning_rate * decay} | entry

    def one_step(self, batch: Batch) -> dict[str, Tensor]:
        """One update; the losses by name, on the device."""
        train = self.settings.train
        parts = self.captured(self.backward, batch) if self.captured else self.backward(batch)
        if train.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, train.grad_clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return parts

    def backward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch, and their gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with arithmetic(self.settings.train.precision, self.device.type) as autocast:
            with autocast:
                output = self.model(batch)
            parts = self.model.loss(output, batch)
            parts["total"].backward()
        return parts

    def select(self, store: FeatureStore, held: TrainingSet | None) -> dict[str, float]:
        """Judge the epoch that just ended, and keep its weights if it is the best so far."""
        train = self.settings.train
        measures: dict[str, float] = {}
        value, better = self.best_value, True  # selection "last"
        if train.selection == "holdout":
            measures = video_level(self.model, held)
            value = measures["holdout_criterion"]
            better = value >= self.best_value
        elif train.selection == "test":
            found = evaluate(self.model, store, precision=train.precision).metrics
            known = {k: v for k, v in found.items() if k in SHOWN and not math.isnan(v)}
            measures = {f"test_{name}": value for name, value in known.items()}
            value = found.get("frame_ap_alignment", found["frame_ap_classification"])
            better = value > self.best_value  # as in the release, the first of equals
        if better or not self.best:
            self.best_value, self.chosen_epoch = value, self.epoch
            self.best = {k: v.detach().clone() for k, v in self.model.trainable_state().items()}
        elif train.reload_best:
            self.model.load_trainable_state(self.best)
        return measures

    def report(self, entry: Mapping[str, float]) -> None:
        """The log line of an epoch."""
        numbers = ", ".join(f"{k} {v:.4g}" for k, v in entry.items() if k != "epoch")
        how = " (chosen on the test set: optimistic)" * (self.settings.train.selection == "test")
        kept = f"{numbers}; kept epoch {self.chosen_epoch}{how}"
        log.info("epoch %d/%d: %s", self.epoch, self.settings.train.epochs, kept)

    def _moments(self) -> list[dict[str, Any]]:
        """What the optimisers keep of each parameter."""
        return [o.state[p] for o in self.optimizers for g in o.param_groups for p in g["params"]]

    def save(self, folder: Path) -> None:
        """Checkpoint: weights, then state. Copied to the host here, written while training goes on;
        ``close`` waits for it, as the next does."""
        tensors = {f"best.{k}": v for k, v in self.best.items()}
        if not self.finished:
            tensors |= {f"model.{k}": v for k, v in self.model.trainable_state().items()}
            tensors |= {f"hooks.{k}": v for k, v in self.model.training_state().items()}
            for i, moments in enumerate(self._moments()):
                tensors |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
            tensors["random.torch"] = torch.get_rng_state()
            tensors["random.shuffling"] = self.shuffling.get_state()
            if self.device.type == "cuda":
                tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        rows = {"copy": True, "memory_format": torch.contiguous_format}  # as they are written
        tensors = {name: value.detach().to("cpu", **rows) for name, value in tensors.items()}
        scalars = json.dumps({name: getattr(self, name) for name in SCALARS})
        is_best = self.chosen_epoch == self.epoch

        def write() -> None:
            if is_best:
                write_file(folder / WEIGHTS, save(_under("best.", tensors)))
            write_file(folder / STATE, save(tensors, {"scalars": scalars}))

        self.close()
        self.writing = self.writer.submit(write)

    def close(self) -> None:
        """Wait for the checkpoint that is being written; what went wrong there is raised here."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def restore(self, folder: Path) -> None:
        """Go on where ``save`` left off; nothing happens in a folder without a checkpoint."""
        path = folder / STATE
        if not path.is_file():
            return
        try:
            with safe_open(path, framework="pt") as file:
                scalars = json.loads(file.metadata()["scalars"])
            held = load_file(path)
            random = _under("random.", held)  # stays on the host
            tensors = {k: v.to(self.device) for k, v in held.items()}
            for name in SCALARS:
                setattr(self, name, scalars[name])
            self.best = _under("best.", tensors)
            if self.finished:
                return
            self.model.load_trainable_state(_under("model.", tensors))
            self.model.load_training_state(_under("hooks.", tensors))
            for i, moments in enumerate(self._moments()):
                moments |= _under(f"optimizer.{i}.", tensors)
            self.shuffling.set_state(random["shuffling"])
            torch.set_rng_state(random["torch"])
            if self.device.type == "cuda" and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"], self.device)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            remedy = f"delete {folder} to train again"
            raise ValueError(f"checkpoint {path} is damaged ({error}); {remedy}") from None


def _resident(bags: TrainingSet, device: torch.device) -> TrainingSet:
    """Bags on the device if they fit; otherwise each batch travels."""
    if device.type == "cuda" and bags.nbytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return bags.to(device)
    return bags


def video_level(model: Detector, bags: TrainingSet, batch_size: int = 32) -> dict[str, float]:
    """How well whole bags are judged, by weak labels only, in float32. ``holdout_ap``: average
    precision of a bag's Top-K mean confidence; ``holdout_map``: of its MIL-Align class
    probabilities, mean over the anomaly classes that occur; ``holdout_criterion``: mean of both, or
    the one that is defined (of bags of both kinds, with classes)."""
    device = next(model.parameters()).device
    divisor = model.settings.loss.topk_divisor
    scores, labels = [], []
    for index in bags.lengths.cpu().argsort(stable=True).split(batch_size):
        batch = bags.batch(index).to(device)
        output = predict(model, batch)
        top = [topk_mean(output.confidence, batch.lengths, divisor)[:, None]]
        if output.alignment_logits is not None:
            top += [topk_mean(output.alignment_logits, batch.lengths, divisor).softmax(dim=1)]
        scores.append(torch.cat(top, dim=1).cpu())
        labels.append(batch.labels.cpu())
    confidence, *classes = torch.cat(scores).numpy().T
    normal, *anomalies = (torch.cat(labels).numpy() > 0).T
    pairs = list(zip(classes[1:], anomalies, strict=True)) if classes else []
    found = [average_precision(score, true, ~true) for score, true in pairs if true.any()]
    measures = {
        "holdout_ap": average_precision(confidence, ~normal, normal),
        "holdout_map": float(np.mean(found)) if found else math.nan,
    }
    defined = [value for value in measures.values() if not math.isnan(value)]
    return measures | {"holdout_criterion": float(np.mean(defined)) if defined else 0.0}


# --- on disk --------------------------------------------------------------------------------------


def load(
    folder: str | Path,
    device: str | torch.device = "cpu",
    *,
    text: TextTower | None = None,
    prompts: WordPrompts | None = None,
) -> Detector:
    """The detector of a run's folder, in eval mode, which knows ``classes`` and ``features_of`` its
    data. ``text``, ``prompts``: of a run with a tower of its own. ``FileNotFoundError`` without a
    run, ``ValueError`` for damaged files, an unregistered detector, another text tower."""
    folder = Path(folder)
    known = _read_config(folder)
    settings = Config.from_dict(known["settings"])
    classes = ClassSet(**{k: tuple(v) if k != "name" else v for k, v in known["classes"].items()})
    name, own = known["text"]["name"], folder / TEXT
    if registered(settings.detector).needs_text:
        if text is None and name is None and not own.is_file():
            raise ValueError(f"{folder} was trained with a text tower of its own: pass text=")
        if text is None:
            file = {} if name else {"weights": own}
            text, prompts = load_text(name or "clip", classes.words, dim=settings.model.dim, **file)
            text.name = name  # a tower of the run's own has none
        if prompts is None or text_digest(text, prompts) != known["text"]["digest"]:
            what = "other text tower weights than those found now"
            raise ValueError(f"{folder} was trained with {what}; restore them, or train again")
    with torch.random.fork_rng(devices=[]):
        model = build(settings, text, prompts, classes=classes)
    path = folder / (STATE if (folder / STATE).is_file() else WEIGHTS)
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {WEIGHTS}: no epoch of this run has ended yet")
    try:
        held = load_file(path)
        model.load_trainable_state(_under("best.", held) if path.name == STATE else held)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged or foreign ({error}); train again") from None
    model.classes, model.features_of = classes, known["store"]["encoder"]
    return model.to(device).eval()


def run_identity(settings: Config, store: FeatureStore, **given: Any) -> dict[str, Any]:
    """What makes a training the same, as plain JSON; ``given``: as ``fit`` is given it."""
    settings, teacher = resolved(settings), given.get("teacher")
    text, prompts = _text(settings, store, given.get("text"), given.get("prompts"))
    return {
        "format": FORMAT,
        "settings": settings.to_dict(),
        "store": {"path": str(store.path), "digest": store.digest, "encoder": store.encoder},
        "classes": json.loads(json.dumps(asdict(store.classes))),
        "text": {"name": text and text.name, "digest": text and text_digest(text, prompts)},
        "teacher": teacher and _digest(teacher.trainable_state(), teacher.settings.digest()),
    }


def text_digest(tower: TextTower, prompts: WordPrompts | None) -> str:
    """Twelve hexadecimal digits of a tower's weights and its prompts."""
    return _digest(tower.state_dict(), repr(prompts))


def _digest(state: Mapping[str, Tensor], also: str) -> str:
    digest = hashlib.sha256(also.encode())
    for name, value in sorted(state.items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:12]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names start with the prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _open_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Start a run's folder, or make sure that it is the same run."""
    check_place(folder, CONFIG)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).is_file():
        write_file(folder / CONFIG, json.dumps(identity, indent=2).encode())
        return
    both = _read_config(folder), dict(identity)
    known, now = (pd.json_normalize(one).to_dict("records")[0] for one in both)
    for where in known | now:
        if where != "store.path" and known.get(where) != now.get(where):
            what = f"{where} was {known.get(where)!r} there and is {now.get(where)!r} now"
            raise ValueError(f"{folder} holds another run: {what}; choose another, or delete it")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no training run: it has no {CONFIG}; see `train`")
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if known.get("format") == FORMAT:
            Config.from_dict(known["settings"]), known["store"]["encoder"]
            known["text"]["digest"], known["classes"]["words"]  # noqa: B018
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); train into another folder") from None
    if known.get("format") != FORMAT:
        raise ValueError(f"{folder} was written by another version of this package; train it again")
    return known


def write_file(path: Path, content: bytes) -> None:
    """Replace a file in one step: after a crash it is the old one or the new one, whole."""
    with (part := path.with_name(f"{path.name}.part")).open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
