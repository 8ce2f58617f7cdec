"""Training: fit any detector of the seam, distil a student, resume after a crash.

    result = fit(make_config(seed=0), FeatureStore.open(soundstage_path()), out="runs/teacher")
    student = fit(make_config(role="vision"), store, teacher=result.model)
    detector = load("runs/teacher")

Which epoch is kept (``settings.train.selection``):

- ``holdout``: a seeded share of the *training videos* is set aside and never trained on. After
  every epoch they are judged by their weak labels alone: the mean of (a) the average precision of
  a video's Top-K mean confidence as an answer to "is anything anomalous in it?" and (b) the mean,
  over the anomaly classes that occur, of the average precision of its MIL-Align class
  probabilities. The best epoch is kept, the later one of equals. The test set is not looked at.
- ``last``: the last epoch; every training video is trained on.
- ``test``: the release's protocol, the epoch with the best *test* AP of the alignment branch.
  Optimistic, because the test set chose it: never compare such a number with an honest one.

A run's folder (``out``) holds ``config.json`` (settings, data, teacher), ``weights.safetensors``
(the best epoch so far, everything but frozen weights) and ``state.safetensors`` (everything needed
to go on after the last full epoch). Each is replaced in one step, and going on mends what a kill
between two of them left, so an interrupted run gives the same weights as an uninterrupted one (bit
for bit on a CPU).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from avadclip_lite import losses
from avadclip_lite.config import ClassSet, Config, add_device_argument, find_device, make_config
from avadclip_lite.dataset import Batch, FeatureStore, TrainingSet, holdout_split
from avadclip_lite.encoders import TextTower, WordPrompts, load_text
from avadclip_lite.evaluate import average_precision, evaluate, predict
from avadclip_lite.model import Detector, build, needs_text

__all__ = [
    "FitResult",
    "LoadedRun",
    "TrainingRun",
    "add_field_argument",
    "chosen_fields",
    "fit",
    "load",
    "load_run",
    "run_identity",
    "video_level",
]

log = logging.getLogger(__name__)

CONFIG, WEIGHTS, STATE = "config.json", "weights.safetensors", "state.safetensors"
FORMAT = 2  # of a run's folder; 1 had other names of weights
# test metrics in the log and on the command line; the first that a detector has chooses the epoch
# where the test set may
SHOWN = ("frame_ap_classification", "frame_ap_alignment", "map_anomaly", "map_with_normal")
CHOOSES = ("frame_ap_alignment", "frame_ap_classification")
RESIDENT_SHARE = 0.6  # training data moves to the GPU when it takes at most this share of it
Watch = Callable[[Detector], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A finished training."""

    model: Detector  # in eval mode, with the chosen epoch's weights
    settings: Config
    history: list[dict[str, float]]  # one entry an epoch: mean losses, selection measures, seconds
    chosen_epoch: int  # counted from 1
    seconds: float  # of training, selection included, over all interrupted parts
    out: Path | None  # the run's folder


# --- fit ------------------------------------------------------------------------------------------


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
) -> FitResult:
    """Train a detector on the split "train" of a store.

    Everything random comes from ``settings.train.seed``; the caller's random state is left alone.
    One log line an epoch (logger ``avadclip_lite.train``, level INFO) names every part of the loss.

    Args:
        settings: what to train, and how.
        store: features and weak labels. Its split "test" is only read for ``selection="test"``.
        text: the frozen text tower with its ``prompts``, or the name that ``load_text`` knows it
            by. ``None``: that of the store's encoder. Detectors without words ignore it.
        teacher: a trained audio-visual detector; students with ``ukd`` need one. It is copied.
        out: the run's folder. One that holds an interrupted run is continued, a finished one is
            returned as it is.
        progress: a progress bar over the steps, where standard error is a terminal.
        watch: called with the detector, in eval mode, after every epoch, with the weights that the
            epoch left; the numbers it returns join the history and decide nothing.

    Raises ``ValueError`` for settings, store, teacher or an existing run that do not fit together,
    and for a loss that is no longer finite.
    """
    _check(settings, store, teacher)
    device = find_device(settings.train.device)
    name, tower, prompts = _text(settings, store, text, prompts)
    folder = None if out is None else Path(out)
    if folder is not None:
        _open_folder(folder, _identity(settings, store, name, tower, prompts, teacher))
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(settings.train.seed)
        model = build(settings, tower, prompts, classes=store.classes).to(device)
        run = TrainingRun(settings, model, device)
        if folder is not None:
            run.restore(folder)
        if not run.finished:
            if teacher is not None:
                model.distil_from(teacher)
            run.train(store, folder, progress, watch)
    for optimizer in run.optimizers:
        optimizer.zero_grad(set_to_none=True)
    model.load_trainable_state(run.best)
    model.eval()
    return FitResult(
        model=model,
        settings=settings,
        history=run.history,
        chosen_epoch=run.chosen_epoch,
        seconds=sum(entry["seconds"] for entry in run.history),
        out=folder,
    )


def _check(settings: Config, store: FeatureStore, teacher: Detector | None) -> None:
    model, loss = settings.model, settings.loss
    if store.dim != model.dim:
        raise ValueError(
            f"{store.path} holds features of width {store.dim}, the configuration says "
            f"dim={model.dim}; set dim={store.dim}"
        )
    student = settings.detector == "avadclip" and model.role != "audio_visual"
    if student and loss.ukd != "none" and teacher is None:
        raise ValueError(
            f"role={model.role!r} with ukd={loss.ukd!r} learns from a teacher: pass teacher=, or "
            "set ukd='none'"
        )
    if teacher is not None:
        if not student or loss.ukd == "none":
            raise ValueError(
                f"a teacher was passed, but role={model.role!r} with ukd={loss.ukd!r} has no use "
                "for it"
            )
        theirs = teacher.settings.model
        if theirs.role != "audio_visual" or theirs.dim != model.dim:
            raise ValueError(
                f"the teacher is a {theirs.role} detector of dim={theirs.dim}; this student needs "
                f"an audio_visual one of dim={model.dim}"
            )


def _text(
    settings: Config,
    store: FeatureStore,
    text: TextTower | str | None,
    prompts: WordPrompts | None,
) -> tuple[str | None, TextTower | None, WordPrompts | None]:
    """The text tower's name, if it has one, the tower and its prompts."""
    if not needs_text(settings.detector):
        return None, None, None
    if isinstance(text, TextTower):
        if prompts is None:
            raise ValueError("a text tower was passed without prompts; load_text gives both")
        return None, text, prompts
    name = text or store.encoder
    with torch.random.fork_rng(devices=[]):  # building a module draws weights, loaded or not
        return name, *load_text(name, store.classes.words, dim=settings.model.dim)


class TrainingRun:
    """The state of a training between two steps, and the loop over them."""

    def __init__(self, settings: Config, model: Detector, device: torch.device) -> None:
        self.settings, self.model, self.device = settings, model, device
        self.optimizers = model.optimizers()
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.rates = [(group, group["lr"]) for group in groups]
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.shuffling = torch.Generator().manual_seed(settings.train.seed)
        self.epoch = 0  # epochs done
        self.step = 0  # steps done
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_value = -float("inf")
        self.chosen_epoch = 0

    @property
    def finished(self) -> bool:
        train = self.settings.train
        return self.epoch >= train.epochs or 0 < train.max_steps <= self.step

    # -- the loop

    def train(
        self,
        store: FeatureStore,
        folder: Path | None,
        progress: bool,
        watch: Watch | None = None,
    ) -> None:
        """All epochs that are left."""
        train = self.settings.train
        rows, held = store.indices("train"), None
        if train.selection == "holdout":
            rows, held = holdout_split(store, rows, train.holdout_share, train.seed)
            if not len(held):
                raise ValueError(
                    f"selection='holdout' with holdout_share={train.holdout_share} holds out none "
                    f"of the training videos in {store.path}; raise it, or set selection='last'"
                )
            # one crop of a video is enough to judge an epoch by
            one_crop = self.settings.override(crops="first")
            held = _resident(TrainingSet(store, held, one_crop), self.device)
        bags = _resident(TrainingSet(store, rows, self.settings), self.device)
        steps = -(-len(bags) // train.batch_size) * train.epochs
        steps = min(steps, train.max_steps or steps)
        with tqdm(
            total=steps, initial=self.step, unit="step", disable=None if progress else True
        ) as bar:
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
        """Pass over the bags once; mean of every loss over videos."""
        train = self.settings.train
        decay = 0.1 ** sum(self.epoch >= m for m in train.milestones)
        for group, rate in self.rates:
            group["lr"] = rate * decay
        self.model.start_epoch(self.epoch, bags)
        self.model.train()
        sums: dict[str, Tensor] = {}
        seen = 0
        for index in self.model.batches(bags, self.shuffling):
            parts = self.one_step(bags.batch(index).to(self.device))
            # added up on the device: asking for a number would wait for it
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + part.detach() * len(index)
            seen += len(index)
            self.step += 1
            bar.update()
            if self.step == train.max_steps:
                break
        means = torch.stack([total.float() for total in sums.values()]) / seen
        entry = dict(zip(sums, means.tolist(), strict=True))
        if not all(map(math.isfinite, entry.values())):
            raise self.diverged(_numbers(entry))
        self.model.end_epoch(self.epoch)
        self.epoch += 1
        rate = train.learning_rate * decay
        return {"epoch": float(self.epoch), "learning_rate": rate} | entry

    def diverged(self, what: str) -> ValueError:
        rate = self.settings.train.learning_rate
        return ValueError(
            f"training diverged in epoch {self.epoch + 1} ({what}); lower learning_rate={rate:g}, "
            "or set grad_clip"
        )

    def one_step(self, batch: Batch) -> dict[str, Tensor]:
        """One update; the losses by name, on the device."""
        bf16 = self.settings.train.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            output = self.model(batch)
        parts = self.model.loss(output, batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        if self.settings.train.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.train.grad_clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return parts

    # -- which epoch

    def select(self, store: FeatureStore, held: TrainingSet | None) -> dict[str, float]:
        """Judge the epoch that just ended, and keep its weights if it is the best so far."""
        train = self.settings.train
        measures: dict[str, float] = {}
        if train.selection == "last":
            better = True
        elif train.selection == "holdout":
            assert held is not None
            measures = video_level(self.model, held)
            value = measures["holdout_criterion"]
            better = value >= self.best_value
        else:
            report = evaluate(self.model, store, precision=train.precision)
            measures = {
                f"test_{name}": value
                for name, value in report.metrics.items()
                if name in SHOWN and not math.isnan(value)
            }
            value = next(v for k in CHOOSES if (v := report.metrics.get(k)) is not None)
            better = value > self.best_value  # as in the release, the first of equals
        if better or not self.best:
            if train.selection != "last":
                self.best_value = value
            self.chosen_epoch = self.epoch
            self.best = _copy(self.model.trainable_state())
        elif train.reload_best:
            self.model.load_trainable_state(self.best)
        return measures

    def report(self, entry: Mapping[str, float]) -> None:
        """The log line of an epoch."""
        shown = {k: v for k, v in entry.items() if k not in ("epoch", "seconds")}
        log.info(
            "epoch %d/%d: %s; kept epoch %d%s; %.1f s",
            self.epoch,
            self.settings.train.epochs,
            _numbers(shown),
            self.chosen_epoch,
            " (chosen on the test set: optimistic)"
            if self.settings.train.selection == "test"
            else "",
            entry["seconds"],
        )

    # -- on disk

    def _moments(self) -> list[dict[str, Any]]:
        """What the optimisers keep of each parameter."""
        return [
            optimizer.state[parameter]
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def save(self, folder: Path) -> None:
        """Checkpoint: how to go on (state), then what to use (weights). The state holds both, so
        that a kill between the two writes loses nothing: ``_chosen`` takes what it says."""
        tensors: dict[str, Tensor] = {}
        if not self.finished:
            tensors |= {f"model.{k}": v for k, v in self.model.trainable_state().items()}
            tensors |= {f"hooks.{k}": v for k, v in self.model.training_state().items()}
            for i, moments in enumerate(self._moments()):
                tensors |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
            tensors["random.torch"] = torch.get_rng_state()
            tensors["random.shuffling"] = self.shuffling.get_state()
            if self.device.type == "cuda":
                tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        if self.finished or self.chosen_epoch != self.epoch:  # else they are the model's
            tensors |= {f"best.{k}": v for k, v in self.best.items()}
        scalars = {
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "best_value": self.best_value,
            "chosen_epoch": self.chosen_epoch,
        }
        _write(folder / STATE, save(_cpu(tensors), metadata={"scalars": json.dumps(scalars)}))
        if self.chosen_epoch == self.epoch:
            self.save_weights(folder)

    def save_weights(self, folder: Path) -> None:
        """The chosen epoch's weights, and in the header which epoch that is."""
        _write(folder / WEIGHTS, save(_cpu(self.best), metadata={"epoch": str(self.chosen_epoch)}))

    def restore(self, folder: Path) -> None:
        """Go on where ``save`` left off; nothing happens in a folder without a checkpoint."""
        path = folder / STATE
        if not path.is_file():
            return
        try:
            with safe_open(path, framework="pt") as file:
                scalars = json.loads(file.metadata()["scalars"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.epoch, self.step = scalars["epoch"], scalars["step"]
            self.history = scalars["history"]
            self.best_value, self.chosen_epoch = scalars["best_value"], scalars["chosen_epoch"]
            kept = "model." if not self.finished and self.chosen_epoch == self.epoch else "best."
            self.best = _under(kept, tensors, self.device)
            if (
                _epoch_of(folder / WEIGHTS) != self.chosen_epoch
            ):  # a kill came before it was written
                self.save_weights(folder)
            if self.finished:
                return
            self.model.load_trainable_state(_under("model.", tensors, self.device))
            self.model.load_training_state(_under("hooks.", tensors, self.device))
            for i, moments in enumerate(self._moments()):
                moments |= _under(f"optimizer.{i}.", tensors, self.device)
            self.shuffling.set_state(tensors["random.shuffling"])
            torch.set_rng_state(tensors["random.torch"])
            if self.device.type == "cuda" and "random.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"checkpoint {path} is damaged ({error}); delete {folder} to train again"
            ) from None


def _resident(bags: TrainingSet, device: torch.device) -> TrainingSet:
    """Bags on the device if they fit; otherwise each batch travels."""
    if device.type != "cuda":
        return bags
    free, _ = torch.cuda.mem_get_info(device)
    return bags.to(device) if bags.nbytes <= RESIDENT_SHARE * free else bags


def video_level(model: Detector, bags: TrainingSet, batch_size: int = 32) -> dict[str, float]:
    """How well whole bags are judged, by weak labels only (see the module's text), in float32.

    Returns ``holdout_ap`` (anomalous or not), ``holdout_map`` (classes) and their mean,
    ``holdout_criterion``. Where one is not defined (no normal or no anomalous bag, no classes), the
    other stands alone.
    """
    device = next(model.parameters()).device
    divisor = model.settings.loss.topk_divisor
    confidence, classes, labels = [], [], []
    for index in bags.lengths.cpu().argsort(stable=True).split(batch_size):
        batch = bags.batch(index).to(device)
        output = predict(model, batch)
        confidence.append(losses.topk_mean(output.confidence, batch.lengths, divisor).cpu())
        labels.append(batch.labels.cpu())
        if output.alignment_logits is not None:
            per_class = losses.topk_mean(output.alignment_logits, batch.lengths, divisor)
            classes.append(per_class.softmax(dim=1).cpu())
    truth = torch.cat(labels).numpy() > 0

    def precision_of(score: Tensor, true: Any) -> float:
        return average_precision(score.numpy(), true, ~true)

    ap = precision_of(torch.cat(confidence), ~truth[:, 0])
    shown = [c for c in range(1, truth.shape[1]) if truth[:, c].any()] if classes else []
    per_class = [precision_of(torch.cat(classes)[:, c], truth[:, c]) for c in shown]
    mean = sum(per_class) / len(per_class) if per_class else float("nan")
    defined = [value for value in (ap, mean) if value == value] or [0.0]
    return {
        "holdout_ap": ap,
        "holdout_map": mean,
        "holdout_criterion": sum(defined) / len(defined),
    }


# --- on disk --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """What a run's folder holds."""

    detector: Detector  # in eval mode
    classes: ClassSet
    encoder: str  # of the features that it was trained on


def load(folder: str | Path, device: str | torch.device = "cpu", **text: Any) -> Detector:
    """``load_run(...).detector``."""
    return load_run(folder, device, **text).detector


def load_run(
    folder: str | Path,
    device: str | torch.device = "cpu",
    *,
    text: TextTower | None = None,
    prompts: WordPrompts | None = None,
) -> LoadedRun:
    """The detector that a run's folder holds.

    ``text`` and ``prompts`` are needed only if the run was given a text tower of its own. Raises
    ``FileNotFoundError`` if there is no run, ``ValueError`` if its files are damaged, its detector
    is not registered or the text tower is another.
    """
    folder = Path(folder)
    known = _read_config(folder)
    settings = Config.from_dict(known["settings"])
    classes = ClassSet(**{k: tuple(v) if k != "name" else v for k, v in known["classes"].items()})
    with torch.random.fork_rng(devices=[]):
        if needs_text(settings.detector):
            if text is None:
                name = known["text"]["name"]
                if name is None:
                    raise ValueError(
                        f"{folder} was trained with a text tower of its own: pass text="
                    )
                text, prompts = load_text(name, classes.words, dim=settings.model.dim)
            if prompts is None or _text_digest(text, prompts) != known["text"]["digest"]:
                raise ValueError(
                    f"{folder} was trained with other text tower weights than those found now; "
                    "restore them, or train again"
                )
        model = build(settings, text, prompts, classes=classes)
    try:
        model.load_trainable_state(_chosen(folder))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged or foreign: {error}") from None
    encoder = known["store"]["encoder"]
    return LoadedRun(detector=model.to(device).eval(), classes=classes, encoder=encoder)


def run_identity(
    settings: Config,
    store: FeatureStore,
    *,
    text: TextTower | str | None = None,
    prompts: WordPrompts | None = None,
    teacher: Detector | None = None,
) -> dict[str, Any]:
    """What makes a training the same training: settings, data, text tower and teacher, as plain
    JSON. Arguments as in ``fit``."""
    return _identity(settings, store, *_text(settings, store, text, prompts), teacher)


def _identity(
    settings: Config,
    store: FeatureStore,
    text_name: str | None,
    tower: TextTower | None,
    prompts: WordPrompts | None,
    teacher: Detector | None,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "settings": settings.to_dict(),
        "store": {"path": str(store.path), "digest": store.digest, "encoder": store.encoder},
        "classes": json.loads(json.dumps(asdict(store.classes))),
        "text": {
            "name": text_name,
            "digest": None if tower is None else _text_digest(tower, prompts),
        },
        "teacher": teacher
        and _weights_digest(teacher.trainable_state(), teacher.settings.digest()),
    }


def _epoch_of(weights: Path) -> int:
    """The epoch in the header of a weights file; 0 without one."""
    if not weights.is_file():
        return 0
    with safe_open(weights, framework="pt") as file:
        return int((file.metadata() or {}).get("epoch", 0))


def _chosen(folder: Path) -> dict[str, Tensor]:
    """The chosen epoch's weights: of the weights file, unless the state beside it, which is written
    first, has chosen a later epoch."""
    weights, state = folder / WEIGHTS, folder / STATE
    if state.is_file():
        with safe_open(state, framework="pt") as file:
            scalars = json.loads(file.metadata()["scalars"])
            if scalars["chosen_epoch"] != _epoch_of(weights):
                kept = "model." if scalars["chosen_epoch"] == scalars["epoch"] else "best."
                names = [name for name in file.keys() if name.startswith(kept)]  # noqa: SIM118
                names = names or [n for n in file.keys() if n.startswith("best.")]  # noqa: SIM118
                return {name.partition(".")[2]: file.get_tensor(name) for name in names}
    if not weights.is_file():
        raise FileNotFoundError(f"{folder} holds no {WEIGHTS}: no epoch of this run has ended yet")
    return load_file(weights)


def _open_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Start a run's folder, or make sure that it is the same run."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).is_file():
        _write(folder / CONFIG, json.dumps(identity, indent=2).encode())
        return
    known = _read_config(folder)
    for where, before in _flat(known).items():
        now = _flat(identity).get(where)
        if where != "store.path" and before != now:
            raise ValueError(
                f"{folder} holds another run: {where} was {before!r} there and is {now!r} now; "
                "choose another folder, or delete this one"
            )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no training run: it has no {CONFIG}")
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        known["settings"], known["text"]["digest"], known["classes"]["words"]  # noqa: B018
        if known.get("format") != FORMAT:
            raise ValueError("a run of another version of this package")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete {folder} to train again") from None
    return known


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step: after a crash it is the old one or the new one, whole."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v.to(device) for k, v in tensors.items() if k.startswith(prefix)}


def _numbers(entry: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in entry.items())


def _text_digest(tower: TextTower, prompts: WordPrompts) -> str:
    return _weights_digest(tower.state_dict(), repr(prompts))


def _weights_digest(state: Mapping[str, Tensor], also: str) -> str:
    digest = hashlib.sha256(also.encode())
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:12]


# --- command line ---------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite train``."""
    parser.description = "Train a detector on a feature store and score it on the test split."
    parser.add_argument("--data", required=True, help="the feature store")
    parser.add_argument("--out", required=True, help="the run's folder; an interrupted run goes on")
    parser.add_argument("--form", default="paper", help="paper or released")
    parser.add_argument("--scale", default="soundstage", help="soundstage or xd")
    parser.add_argument("--role", default="audio_visual", help="audio_visual, vision or audio")
    parser.add_argument("--teacher", help="folder of the trained teacher, for a student")
    parser.add_argument("--text", help="text tower: soundstage, clip or random")
    add_device_argument(parser)
    add_field_argument(parser)


def add_field_argument(parser: argparse.ArgumentParser) -> None:
    """The option ``-s FIELD VALUE``; ``chosen_fields`` reads it."""
    parser.add_argument(
        "-s",
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("FIELD", "VALUE"),
        help="a field of the configuration, the value as JSON or plain text",
    )


def chosen_fields(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of the configuration by name, as ``-s`` gave them: JSON, or else the text."""
    return {name: _value(word) for name, word in args.set}


def main(args: argparse.Namespace) -> int:
    """Train, then print the test metrics. Bad input raises ``ValueError``."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = {"device": args.device} | chosen_fields(args)
    settings = make_config(form=args.form, scale=args.scale, role=args.role, **chosen)
    store = FeatureStore.open(args.data)
    teacher = None if args.teacher is None else load(args.teacher)
    result = fit(settings, store, text=args.text, teacher=teacher, out=args.out)
    print(f"epoch {result.chosen_epoch} kept, {result.seconds:.0f} s, in {result.out}")
    if settings.train.selection == "test":
        print("chosen on the test set: these numbers are optimistic")
    if "test" not in {row.split for row in store.videos}:
        print(f"{store.path} has no test split: nothing to score")
        return 0
    metrics = evaluate(result.model, store, precision=settings.train.precision).metrics
    for name in (name for name in SHOWN if name in metrics):
        print(f"{name:24s}{100 * metrics[name]:7.2f} %")
    return 0


def _value(word: str) -> Any:
    try:
        value = json.loads(word)
    except ValueError:
        return word
    return tuple(value) if isinstance(value, list) else value
