"""The authors' release: its checkpoints in our modules.

    teacher = load_teacher("model_t.pth")  # or an already loaded state dict
    python -m avadclip_lite import-checkpoint model_t.pth --out RUN   # a run folder of it

The release saves bare state dicts with the whole frozen CLIP inside. What it computes is form
"released" at D = 512: every batch is filled with zeros to 256 snippets and the padding takes part.
"""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import save_file
from torch import Tensor

from avadclip_lite import encoders, train
from avadclip_lite.config import CLIP_DIM, XD_CLASSES, make_config
from avadclip_lite.model import AVadCLIP, build

CLIP_PREFIX = "clipmodel."
_TEXT = re.compile(r"clipmodel\.(?!visual\.|logit_scale$)")  # all of CLIP but its image side
SIGMA = "disAdj.sigma"  # saved by the release, used nowhere

_NAMES = Path(__file__).with_name("release_names.toml")
_RENAME = tomllib.loads(_NAMES.read_text(encoding="utf-8"))  # our names to the release's, in order


def release_key(name: str) -> str:
    """The release's name of a weight of ours: ``linear.bias`` for ``encoder.project.bias``."""
    for pattern, replacement in _RENAME.items():
        name = re.sub(pattern, replacement, name)
    return name


def load_teacher(source: str | Path | Mapping[str, Tensor]) -> AVadCLIP:
    """The release's audio-visual teacher, in eval mode on the CPU, from a file or a state dict.
    Raises ``FileNotFoundError`` for a missing file, and what ``check_weights`` does."""
    return _load(*_read(source), "audio_visual")


def load_student(source: str | Path | Mapping[str, Tensor]) -> AVadCLIP:
    """The release's vision-only student; otherwise like ``load_teacher``."""
    return _load(*_read(source), "vision")


def _load(state: dict[str, Tensor], where: str, role: str) -> AVadCLIP:
    own = {k: v for k, v in state.items() if not k.startswith(CLIP_PREFIX)}
    text = {k.removeprefix(CLIP_PREFIX): v for k, v in state.items() if _TEXT.match(k)}
    words = tuple(map(encoders.token_ids, XD_CLASSES.words))
    prompts = encoders.WordPrompts(words, encoders.START_TOKEN, encoders.END_TOKEN)
    with torch.device("meta"):  # shapes alone
        rows = range(prompts.end + 1)
        whole = encoders.TextTower(vocabulary=rows, dim=CLIP_DIM, **encoders.CLIP_TEXT)
    encoders.check_weights(text, whole.state_dict(), f"{where}, {CLIP_PREFIX}*,")
    with torch.random.fork_rng(devices=[]):  # the global generator stays as it is
        tower = encoders.TextTower.from_state_dict(text, heads=encoders.CLIP_TEXT["heads"])
        model = build(make_config(form="released", scale="xd", role=role), tower, prompts)
    needed = {release_key(k): v for k, v in model.trainable_state().items()}
    encoders.check_weights(own, needed | {SIGMA: torch.empty(1)}, where)
    model.load_trainable_state({k: own[release_key(k)].float() for k in model.trainable_state()})
    return model.eval()


def _read(source: str | Path | Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """A state dict without second names, and how to call it in messages."""
    where = "the state dict"
    if isinstance(source, (str, Path)):
        where = str(source)
        if not Path(source).is_file():
            raise FileNotFoundError(f"{where} does not exist as a file; the release links to it")
        try:
            source = torch.load(source, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise ValueError(f"{where} is no checkpoint to be read safely; get it again") from error
    if not isinstance(source, Mapping) or not all(isinstance(v, Tensor) for v in source.values()):
        raise ValueError(f"{where} is not a bare state dict (names to tensors) as released")
    # the audio branch's convolutions have second names, those of the nn.Sequential around them
    folded: dict[str, Tensor] = {}
    for key, value in source.items():
        first = key.replace(".net.0.", ".conv1.").replace(".net.4.", ".conv2.")
        if not torch.equal(folded.setdefault(first, value), value):
            told = f"{where}: {key} and {first} are two names of one tensor"
            raise ValueError(f"{told} but hold different values; keep one of them")
    return folded, where


def import_checkpoint(source: str | Path, out: str | Path) -> AVadCLIP:
    """Write a run's folder of a checkpoint, teacher or student, whose text tower is its own. Raises
    what ``load_teacher`` does, and ``ValueError`` for a folder that is not empty."""
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; choose another folder")
    state, where = _read(source)
    student = any(key.startswith("fe_net.") for key in state)  # only students enhance
    detector = _load(state, where, "vision" if student else "audio_visual")
    prompt = detector.textual_prompt
    identity = {
        "format": train.FORMAT,
        "settings": detector.settings.to_dict(),
        "store": {"path": str(source), "digest": None, "encoder": "clip"},
        "classes": asdict(XD_CLASSES),
        "text": {"name": None, "digest": train.text_digest(prompt.tower, prompt.prompts)},
        "teacher": None,
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(prompt.tower.state_dict(), out / train.TEXT)
    save_file(detector.trainable_state(), out / train.WEIGHTS)
    (out / train.CONFIG).write_text(json.dumps(identity, indent=2), encoding="utf-8")  # the last
    return detector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite import-checkpoint``."""
    parser.description = "Make a run folder of a checkpoint that the authors released."
    parser.add_argument("checkpoint", help="model_xd_t.pth (teacher) or model_xd_s.pth (student)")
    parser.add_argument("--out", required=True, help="the run folder to write")


def main(args: argparse.Namespace) -> int:
    """Import; bad input raises ``ValueError`` or ``FileNotFoundError``."""
    role = import_checkpoint(args.checkpoint, args.out).settings.model.role
    print(f"{role} detector of the release, in {args.out}: for evaluate --run, and score")
    return 0
