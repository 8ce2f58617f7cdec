"""Training: fit a teacher, distil a student, resume after a crash, find what was trained before.

    result = fit(make_config(seed=0), FeatureStore.open(soundstage_path()), out="runs/teacher")
    student = fit(make_config(role="vision"), store, teacher=result.model)
    same = trained(make_config(seed=0), store)   # from the cache, or trained into it

Only ``torch``, ``numpy``, ``safetensors``, ``scikit-learn`` and ``tqdm`` are needed here.

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
(the best epoch so far, everything but the frozen text tower) and ``state.safetensors`` (everything
needed to go on after the last full epoch). Each is replaced in one step, so a killed run never
leaves half a file, and going on gives the same weights as not having been interrupted (bit for bit
on a CPU).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from avadclip_lite import losses
from avadclip_lite.config import Config, make_config
from avadclip_lite.dataset import Batch, FeatureStore, TrainingSet, holdout_split
from avadclip_lite.encoders import TextTower, WordPrompts, load_text
from avadclip_lite.evaluate import average_precision, evaluate
from avadclip_lite.model import Detector, build

__all__ = [
    "FitResult",
    "FrozenTeacher",
    "TrainingRun",
    "add_field_argument",
    "chosen_fields",
    "find_device",
    "fit",
    "load",
    "shuffled_batches",
    "source_digest",
    "trained",
]

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent
CACHE = PACKAGE.parent / "runs" / "cache"  # AVADCLIP_CACHE names another folder
CONFIG, WEIGHTS, STATE = "config.json", "weights.safetensors", "state.safetensors"
POOL = 8  # length-aware batches are cut from this many shuffled batches sorted by length
RESIDENT_SHARE = 0.6  # training data moves to the GPU when it takes at most this share of it

# Modules whose text decides what a training gives. A cached model is trained again when one of
# them changes.
SOURCES = (
    "config",
    "dataset",
    "encoders",
    "evaluate",
    "fusion",
    "losses",
    "model",
    "prompts",
    "temporal",
    "train",
)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A finished training."""

    model: Detector  # in eval mode, with the chosen epoch's weights
    settings: Config
    history: list[dict[str, float]]  # one entry an epoch: mean losses, selection measures, seconds
    chosen_epoch: int  # counted from 1
    seconds: float  # of training, selection included, over all interrupted parts
    out: Path | None  # the run's folder


class FrozenTeacher(nn.Module):
    """A copy of a teacher that never trains: no parameter asks for a gradient, no call of
    ``train()`` leaves eval mode, and no graph is recorded."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Frozen: stays in eval mode whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tensor:
        """x_av (B, T, D) of a batch."""
        assert not any(module.training for module in self.modules()), "the teacher left eval mode"
        output = self.detector(batch.video, batch.audio, batch.lengths, batch.audio_mask)
        return output.features


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
    watch: Callable[[Detector], Mapping[str, float]] | None = None,
) -> FitResult:
    """Train a detector on the split "train" of a store.

    Everything random comes from ``settings.train.seed``; the caller's random state is left alone.
    One log line an epoch (logger ``avadclip_lite.train``, level INFO) names every part of the loss.

    Args:
        settings: what to train, and how.
        store: features and weak labels. Its split "test" is only read for ``selection="test"``.
        text: the frozen text tower with its ``prompts``, or the name that ``load_text`` knows it
            by. ``None``: that of the store's encoder.
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
    text_name, tower, prompts = _text(text, prompts, store, settings)
    identity = {
        "settings": settings.to_dict(),
        "store": {"path": str(store.path), "digest": store.digest},
        "classes": {
            "name": store.classes.name,
            "codes": list(store.classes.codes),
            "words": list(store.classes.words),
        },
        "text": {"name": text_name, "digest": _text_digest(tower, prompts)},
        "teacher": _teacher_digest(teacher),
    }
    folder = None if out is None else Path(out)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(settings.train.seed)
        model = build(settings, tower, prompts).to(device)
        run = TrainingRun(settings, model, device)
        if folder is not None:
            _open_folder(folder, identity)
            run.restore(folder)
        if not run.finished:
            run.train(store, teacher, folder, progress, watch)
    run.optimizer.zero_grad(set_to_none=True)
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
    student = model.role != "audio_visual"
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


def find_device(name: str) -> torch.device:
    """The device that ``TrainConfig.device`` names; "auto" is a GPU where there is one. Raises
    ``ValueError`` for what is no device, or not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name!r} is no device; try 'auto'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}, but torch finds no GPU here; try 'auto'")
    return device


def _text(
    text: TextTower | str | None,
    prompts: WordPrompts | None,
    store: FeatureStore,
    settings: Config,
) -> tuple[str | None, TextTower, WordPrompts]:
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
        train = settings.train
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=train.learning_rate,
            weight_decay=train.weight_decay,
            fused=True,
        )
        self.shuffling = torch.Generator().manual_seed(train.seed)
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
        teacher: Detector | None,
        folder: Path | None,
        progress: bool,
        watch: Callable[[Detector], Mapping[str, float]] | None = None,
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
            one_crop = self.settings.with_(crops="first")
            held = _resident(TrainingSet(store, held, one_crop), self.device)
        bags = _resident(TrainingSet(store, rows, self.settings), self.device)
        frozen = None if teacher is None else FrozenTeacher(teacher).to(self.device)
        steps = -(-len(bags) // train.batch_size) * train.epochs
        steps = min(steps, train.max_steps or steps)
        with tqdm(
            total=steps, initial=self.step, unit="step", disable=None if progress else True
        ) as bar:
            while not self.finished:
                began = time.perf_counter()
                entry = self.one_epoch(bags, frozen, bar)
                if watch is not None:  # before weights may be loaded back
                    entry |= watch(self.model.eval())
                entry |= self.select(store, held)
                entry["seconds"] = time.perf_counter() - began
                self.history.append(entry)
                self.report(entry)
                if folder is not None:
                    self.save(folder)

    def one_epoch(
        self, bags: TrainingSet, teacher: FrozenTeacher | None, bar: tqdm
    ) -> dict[str, float]:
        """Pass over the bags once; mean of every loss over videos."""
        train = self.settings.train
        rate = train.learning_rate * 0.1 ** sum(self.epoch >= m for m in train.milestones)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        names: list[str] = []
        sums = torch.zeros((), device=self.device)
        seen = 0
        for index in shuffled_batches(bags, train.batch_size, self.shuffling):
            try:
                parts = self.one_step(bags.batch(index).to(self.device), teacher)
            except RuntimeError as error:
                if "between 0 and 1" not in str(error):  # torch's binary cross-entropy of NaN
                    raise
                raise self.diverged("a confidence is not a number") from None
            names = list(parts)
            # added up on the device: asking for a number would wait for it
            sums = sums + torch.stack([part.detach() for part in parts.values()]) * len(index)
            seen += len(index)
            self.step += 1
            bar.update()
            if self.step == train.max_steps:
                break
        means = (sums / seen).tolist()
        entry = dict(zip(names, means, strict=True))
        if not all(map(math.isfinite, means)):
            raise self.diverged(_numbers(entry))
        self.epoch += 1
        return {"epoch": float(self.epoch), "learning_rate": rate} | entry

    def diverged(self, what: str) -> ValueError:
        rate = self.settings.train.learning_rate
        return ValueError(
            f"training diverged in epoch {self.epoch + 1} ({what}); lower learning_rate={rate:g}, "
            "or set grad_clip"
        )

    def one_step(self, batch: Batch, teacher: FrozenTeacher | None) -> dict[str, Tensor]:
        """One update; the losses by name, on the device."""
        bf16 = self.settings.train.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            known = None if teacher is None else teacher(batch)
            output = self.model(batch.video, batch.audio, batch.lengths, batch.audio_mask)
        parts = losses.compute(
            output,
            batch.labels,
            batch.lengths,
            self.settings.loss,
            teacher_features=known,
            alpha=self.model.alpha,
        )
        self.optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        if self.settings.train.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.train.grad_clip)
        self.optimizer.step()
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
            measures = video_level(self.model, held, train.batch_size, train.precision)
            value = measures["holdout_criterion"]
            better = value >= self.best_value
        else:
            report = evaluate(self.model, store, precision=train.precision)
            names = ("ap_alignment", "ap_classification", "map_six_avg", "map_seven_avg")
            measures = {f"test_{name}": report.metrics[name] for name in names}
            value = measures["test_ap_alignment"]
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

    def save(self, folder: Path) -> None:
        """Checkpoint: what to use (weights), then how to go on (state)."""
        if self.chosen_epoch == self.epoch:
            _write(folder / WEIGHTS, save(_cpu(self.best)))
        tensors: dict[str, Tensor] = {}
        if not self.finished:
            tensors |= {f"model.{k}": v for k, v in self.model.trainable_state().items()}
            for i, parameter in enumerate(self.parameters):
                for name, value in self.optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer.{i}.{name}"] = value
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
            if self.finished:
                return
            self.model.load_trainable_state(_under("model.", tensors, self.device))
            for i, parameter in enumerate(self.parameters):
                moments = _under(f"optimizer.{i}.", tensors, self.device)
                if moments:
                    self.optimizer.state[parameter] = moments
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


def shuffled_batches(bags: TrainingSet, size: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffled positions of an epoch, the last small batch kept.

    Where batches are cut to their longest bag, each pool of ``POOL`` shuffled batches is sorted by
    length before it is cut, so that little padding is computed; then the batches are shuffled.
    """
    order = torch.randperm(len(bags), generator=generator)
    if not bags.length_aware:
        return list(order.split(size))
    lengths = bags.lengths.cpu()
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in order.split(POOL * size)]
    batches = list(torch.cat(pools).split(size))
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


@torch.no_grad()
def video_level(
    model: Detector, bags: TrainingSet, batch_size: int, precision: str = "float32"
) -> dict[str, float]:
    """How well whole bags are judged, by weak labels only (see the module's text).

    Returns ``holdout_ap`` (anomalous or not), ``holdout_map`` (classes) and their mean,
    ``holdout_criterion``. Where one is not defined (no normal or no anomalous bag), the other
    stands alone.
    """
    device = next(model.parameters()).device
    divisor = model.settings.loss.topk_divisor
    model.eval()
    confidence, classes = [], []
    for index in bags.lengths.cpu().argsort(stable=True).split(batch_size):
        batch = bags.batch(index).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = model(batch.video, batch.audio, batch.lengths, batch.audio_mask)
        confidence.append(losses.topk_mean(output.confidence, batch.lengths, divisor))
        per_class = losses.topk_mean(output.alignment_logits, batch.lengths, divisor)
        classes.append(torch.cat([per_class.softmax(dim=1), batch.labels], dim=1))
    scores = torch.cat(confidence).cpu().numpy()
    both = torch.cat(classes).cpu().numpy()
    probabilities, labels = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]

    def precision_of(score: Any, truth: Any) -> float:
        return average_precision(score, truth > 0, truth == 0)

    shown = [c for c in range(1, labels.shape[1]) if labels[:, c].any()]
    ap = precision_of(scores, 1 - labels[:, 0])
    per_class = [precision_of(probabilities[:, c], labels[:, c]) for c in shown]
    mean = sum(per_class) / len(per_class) if per_class else float("nan")
    defined = [value for value in (ap, mean) if value == value] or [0.0]
    return {
        "holdout_ap": ap,
        "holdout_map": mean,
        "holdout_criterion": sum(defined) / len(defined),
    }


# --- on disk --------------------------------------------------------------------------------------


def load(
    out: str | Path,
    device: str | torch.device = "cpu",
    *,
    text: TextTower | None = None,
    prompts: WordPrompts | None = None,
) -> Detector:
    """The detector that a run's folder holds, in eval mode.

    ``text`` and ``prompts`` are needed only if the run was given a text tower of its own. Raises
    ``FileNotFoundError`` if there is no run, ``ValueError`` if its files are damaged or the text
    tower is another.
    """
    folder = Path(out)
    known = _read_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} holds no {WEIGHTS}: no epoch of this run has ended yet")
    settings = Config.from_dict(known["settings"])
    with torch.random.fork_rng(devices=[]):
        if text is None:
            name, words = known["text"]["name"], known["classes"]["words"]
            if name is None:
                raise ValueError(f"{folder} was trained with a text tower of its own: pass text=")
            text, prompts = load_text(name, words, dim=settings.model.dim)
        if prompts is None or _text_digest(text, prompts) != known["text"]["digest"]:
            raise ValueError(
                f"{folder} was trained with other text tower weights than those found now; "
                "restore them, or train again"
            )
        model = build(settings, text, prompts)
    try:
        model.load_trainable_state(load_file(folder / WEIGHTS))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged or foreign: {error}") from None
    return model.to(device).eval()


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


# --- what was trained before ----------------------------------------------------------------------


def trained(
    settings: Config,
    store: FeatureStore,
    *,
    text: TextTower | str | None = None,
    prompts: WordPrompts | None = None,
    teacher: Detector | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
    watch: Callable[[Detector], Mapping[str, float]] | None = None,
) -> FitResult:
    """``fit``, or the result of the same ``fit`` from the cache.

    The same means: equal settings, package sources, data, text tower and teacher's weights. The
    cache is ``cache``, or the folder that the environment variable ``AVADCLIP_CACHE`` names, or
    ``runs/cache`` of the repository. A second process that asks for the same training waits for
    the first and takes its result; what was interrupted is continued. ``watch`` is called by the
    epochs that are trained now; what is in the cache was watched by whoever trained it.
    """
    root = Path(cache or os.environ.get("AVADCLIP_CACHE") or CACHE)
    _, tower, words = _text(text, prompts, store, settings)
    key = hashlib.sha256(
        json.dumps(
            [
                settings.digest(),
                source_digest(),
                store.digest,
                _text_digest(tower, words),
                _teacher_digest(teacher),
            ]
        ).encode()
    ).hexdigest()[:16]
    folder = root / f"{settings.form}-{settings.model.role}-{key}"
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root / f"{folder.name}.lock"):
        return fit(
            settings,
            store,
            text=text,
            prompts=prompts,
            teacher=teacher,
            out=folder,
            progress=progress,
            watch=watch,
        )


def source_digest() -> str:
    """Twelve hexadecimal digits over the sources that decide what a training gives."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((PACKAGE / f"{name}.py").read_bytes())
    return digest.hexdigest()[:12]


def _text_digest(tower: TextTower, prompts: WordPrompts) -> str:
    return _weights_digest(tower.state_dict(), repr(prompts))


def _teacher_digest(teacher: Detector | None) -> str | None:
    if teacher is None:
        return None
    return _weights_digest(teacher.trainable_state(), teacher.settings.digest())


def _weights_digest(state: Mapping[str, Tensor], also: str) -> str:
    digest = hashlib.sha256(also.encode())
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock file; another process that wants it waits. The lock ends with the process."""
    try:
        import fcntl
    except ImportError:  # Windows: two at once do the same work; each file is replaced whole
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
    settings = make_config(form=args.form, scale=args.scale, role=args.role, **chosen_fields(args))
    store = FeatureStore.open(args.data)
    teacher = None if args.teacher is None else load(args.teacher)
    result = fit(settings, store, text=args.text, teacher=teacher, out=args.out)
    report = evaluate(result.model, store, precision=settings.train.precision)
    print(f"epoch {result.chosen_epoch} kept, {result.seconds:.0f} s, in {result.out}")
    if settings.train.selection == "test":
        print("chosen on the test set: these numbers are optimistic")
    for name in ("ap_classification", "ap_alignment", "map_six_avg", "map_seven_avg"):
        print(f"{name:20s}{100 * report.metrics[name]:7.2f} %")
    return 0


def _value(word: str) -> Any:
    try:
        value = json.loads(word)
    except ValueError:
        return word
    return tuple(value) if isinstance(value, list) else value
