"""Build what ships in data/soundstage: the tiny frozen encoders, then the feature store.

    python -m data.make_soundstage.build             # everything, about half an hour
    python -m data.make_soundstage.build encoders    # pretrain the trio on stock, report zero-shot
    python -m data.make_soundstage.build report      # zero-shot of the weights that are there
    python -m data.make_soundstage.build store       # render, encode and pack the footage
    python -m data.make_soundstage.build store --world heard --out FOLDER --weights data/soundstage

Everything is drawn from seeds. The scenes are the same bytes each time, and features repeat to the
rounding of the machine's arithmetic. Pretraining runs on one thread, so that it repeats on one kind
of machine; on another its weights drift apart, as any training does. Captioned snippets for
pretraining and the snippets that zero-shot is measured on live in another space of seeds than the
videos, and apart from each other.

Shape letters: T snippets of a video, D feature width.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed

from avadclip_lite.config import SAMPLE_RATE, XD_CLASSES, XD_STRIDE, soundstage_path
from avadclip_lite.encoders import SOUNDSTAGE_FILE, Encoders, load_encoders
from avadclip_lite.features.writer import StoreWriter
from data.make_soundstage.encoders import (
    Snippets,
    distil_audio,
    pretrain_clip,
    save_soundstage,
    show,
    zero_shot,
)
from data.make_soundstage.render import frame, wave
from data.make_soundstage.sample import sample_scene
from data.make_soundstage.timelines import NORMAL_SHARES
from data.make_soundstage.world import FOOTAGE, FPS, SNIPPET_SAMPLES, STOCK, WORLDS, Scene, World

PRETRAIN_SEED, HELD_OUT_SEED = 1, 2  # of captioned snippets
TRAIN_SCENES = range(100_000, 101_000)  # seeds of the videos: what ships ...
TEST_SCENES = range(200_000, 200_300)
CALIBRATION_TRAIN = range(901_000, 902_000)  # ... and what difficulty was set on, never shipped
CALIBRATION_TEST = range(900_600, 901_000)
REPORT_FILE = "encoders.json"


# ---- the feature store ---------------------------------------------------------------------------


def render_scene(scene: Scene) -> tuple[np.ndarray, np.ndarray | None]:
    """What the encoders get of a video: the frame in the middle of each snippet, uint8
    (T, 64, 64, 3), and the sound of each snippet's window, float32 (T, samples) or None."""
    middles = (np.arange(scene.snippets) * XD_STRIDE + XD_STRIDE // 2) / FPS
    frames = np.stack([frame(scene, t) for t in middles])
    track = wave(scene)
    if track is None:
        return frames, None
    return frames, cut_windows(track, scene.snippets)


def cut_windows(track: np.ndarray, snippets: int) -> np.ndarray:
    """A track (samples,) -> its snippets' windows (T, samples of one), zeros behind the end."""
    starts = np.round(np.arange(snippets) * XD_STRIDE / FPS * SAMPLE_RATE).astype(np.int64)
    padded = np.pad(track, (0, max(0, int(starts[-1]) + SNIPPET_SAMPLES - len(track))))
    return np.stack([padded[start : start + SNIPPET_SAMPLES] for start in starts]).astype(
        np.float32
    )


def encode(
    encoders: Encoders, frames: np.ndarray, waves: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rendered snippets -> video (T, D) and audio (T, D) or None, float32."""
    video = encoders.encode_images(frames).numpy()
    return video, None if waves is None else encoders.encode_audio(waves).numpy()


def video_scene(split: str, seed: int, world: World = FOOTAGE) -> Scene:
    """The scene of a store's video: in footage each split has its own share of normal videos."""
    if world.time_scale:
        world = replace(world, normal_share=NORMAL_SHARES[split])
    return sample_scene(seed, world=world)


def _render_seed(
    split: str, seed: int, world: World
) -> tuple[Scene, np.ndarray, np.ndarray | None]:
    scene = video_scene(split, seed, world)
    return scene, *render_scene(scene)


def build_store(
    path: Path,
    encoders: Encoders,
    splits: dict[str, Sequence[int]],
    world: World,
    workers: int,
    inputs: str = "",
    watch: Callable[[Scene, np.ndarray, np.ndarray | None], None] | None = None,
) -> None:
    """Render and encode the videos of each split (seeds) and write them as a feature store. Each
    row's source is ``scene:SEED``, so that anyone can render the video again and play it.
    ``inputs`` names what the features are made with; an interrupted build of the same inputs
    goes on where it stopped. ``watch`` gets every video as rendered: scene, frames, waves."""
    jobs = [(split, seed) for split, seeds in splits.items() for seed in seeds]
    with StoreWriter(
        path,
        classes=XD_CLASSES,
        dim=encoders.dim,
        stride=XD_STRIDE,
        encoder=encoders.name,
        dtype="float16",
        inputs=json.dumps([jobs, asdict(world), inputs]),
        overwrite=True,
    ) as writer:
        todo = jobs[writer.resumed :]
        drawn = Parallel(workers, batch_size=2, return_as="generator")(
            delayed(_render_seed)(split, seed, world) for split, seed in todo
        )
        for (split, seed), (scene, frames, waves) in zip(todo, drawn, strict=True):
            if watch is not None:
                watch(scene, frames, waves)
            video, audio = encode(encoders, frames, waves)
            writer.add(
                name=f"soundstage_{len(writer) + 1:04d}_label_{label_of(scene)}",
                split=split,
                video=video.astype(np.float16),
                audio=None if audio is None else audio.astype(np.float16),
                segments=scene.segments,
                flags=scene.flags(),
                source=f"scene:{seed}",
            )
        writer.finish()


def digest_of(weights: Path) -> str:
    """SHA-256 of the encoders in the folder ``weights``."""
    return hashlib.sha256((weights / SOUNDSTAGE_FILE).read_bytes()).hexdigest()


def label_of(scene: Scene) -> str:
    """Weak label as XD-Violence writes it: three codes, missing ones ``0``; a lone ``A``."""
    labels = scene.labels
    return "A" if labels == ("A",) else "-".join([*labels, "0", "0"][: max(3, len(labels))])


# ---- command line --------------------------------------------------------------------------------


def parse_world(choices: Sequence[str], world: World = FOOTAGE) -> World:
    """The name of a world and ``field=value`` (pairs as ``low,high``) over it; without a name over
    ``world``, the one that ships."""
    for choice in choices:
        name, given, text = choice.partition("=")
        if not given:
            if name not in WORLDS:
                raise SystemExit(f"unknown world {name!r}; known: {', '.join(WORLDS)}")
            world = WORLDS[name]
            continue
        known = [item.name for item in fields(World)]
        if name not in known:
            raise SystemExit(f"unknown World field {name!r}; known: {', '.join(known)}")
        now = getattr(world, name)
        if isinstance(now, tuple):
            value = tuple(type(now[0])(part) for part in text.split(","))
        else:
            value = type(now)(text)
        world = replace(world, **{name: value})
    return world


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "part", nargs="?", default="all", choices=("all", "encoders", "report", "store")
    )
    parser.add_argument("--out", type=Path, default=soundstage_path(), help="folder to write")
    parser.add_argument("--weights", type=Path, help="folder of the encoders (default: --out)")
    parser.add_argument("--world", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--snippets", type=int, default=12_000, help="for pretraining")
    parser.add_argument("--held-out", type=int, default=2_000, help="snippets for zero-shot")
    parser.add_argument("--epochs", type=int, default=20, help="of the towers")
    parser.add_argument("--train", type=int, default=len(TRAIN_SCENES), help="training videos")
    parser.add_argument("--test", type=int, default=len(TEST_SCENES), help="test videos")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    options = parser.parse_args(arguments)
    weights = options.weights or options.out
    stock, footage = (parse_world(options.world, usual) for usual in (STOCK, FOOTAGE))
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.time()
    torch.set_num_threads(1)

    if options.part in ("all", "encoders"):
        data = Snippets(PRETRAIN_SEED, options.snippets, stock, options.workers)
        print(f"{len(data)} captioned snippets rendered, {time.time() - start:.0f} s", flush=True)
        torch.manual_seed(0)
        clip, vocabulary = pretrain_clip(data, epochs=options.epochs)
        audio = distil_audio(data, clip, epochs=options.epochs)
        weights.mkdir(parents=True, exist_ok=True)
        about = {"seed": PRETRAIN_SEED, "snippets": len(data), "epochs": options.epochs}
        save_soundstage(weights / SOUNDSTAGE_FILE, clip, audio, vocabulary, about)
        print(f"encoders pretrained, {time.time() - start:.0f} s", flush=True)
    encoders = load_encoders("soundstage", weights=weights)
    if options.part in ("all", "encoders", "report"):
        held_out = Snippets(HELD_OUT_SEED, options.held_out, stock, options.workers)
        report = zero_shot(encoders, held_out)
        show(report)
        text = json.dumps({"world": asdict(stock), "zero_shot": report}, indent=1)
        (weights / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    if options.part in ("all", "store"):
        train, test = TRAIN_SCENES[: options.train], TEST_SCENES[: options.test]
        splits = {"train": train, "test": test}
        build_store(options.out, encoders, splits, footage, options.workers, digest_of(weights))
        print(f"feature store written to {options.out}, {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
