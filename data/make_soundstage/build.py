"""Build what ships in data/soundstage: the tiny frozen encoders, then the feature store.

    python -m data.make_soundstage.build             # everything, about six minutes on two cores
    python -m data.make_soundstage.build encoders    # pretrain the trio, report zero-shot
    python -m data.make_soundstage.build report      # zero-shot of the weights that are there
    python -m data.make_soundstage.build store       # render, encode and pack the videos
    python -m data.make_soundstage.build store --world figure_scale=0.8 --out FOLDER

Everything is drawn from seeds. The scenes are the same bytes each time, and features repeat to the
rounding of the machine's arithmetic. Pretraining runs on one thread, so that it repeats on one kind
of machine; on another its weights drift apart, as any training does. Captioned snippets for
pretraining and the snippets that zero-shot is measured on live in another space of seeds than the
videos, and apart from each other.

Shape letters: n snippets, T snippets of a video, D feature width.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.config import SAMPLE_RATE, XD_CLASSES, XD_STRIDE, soundstage_path
from avadclip_lite.encoders import (
    CLASS_TOKENS,
    END_TOKEN,
    SOUNDSTAGE_FILE,
    START_TOKEN,
    AudioTower,
    Encoders,
    clip_pixels,
    load_encoders,
    save_soundstage,
    soundstage_clip,
    token_ids,
)
from avadclip_lite.features.writer import StoreWriter
from data.make_soundstage.scenes import (
    DISTRACTORS,
    FPS,
    PLACES,
    Scene,
    Snippet,
    World,
    caption_snippets,
    sample_scene,
)

PRETRAIN_SEED, HELD_OUT_SEED = 1, 2  # of captioned snippets
TRAIN_SCENES = range(100_000, 100_400)  # seeds of the videos: what ships ...
TEST_SCENES = range(200_000, 200_160)
CALIBRATION_SCENES = range(900_000, 901_000)  # ... and what difficulty was set on, never shipped
REPORT_FILE = "encoders.json"
DISTIL_SCALE = 15.0  # inverse temperature at which a sound must resemble the pictures

# What zero-shot asks: the bare class words, as a detector's prompts start from, and the same
# words in the style of the captions.
TEMPLATES = ("{}", "a photo of {}", "{} on a street", "{} on a road", "{} on a square",
             "{} in a stadium", "{} in a corridor")  # fmt: skip


# ---- captioned snippets --------------------------------------------------------------------------


def _draw(snippet: Snippet) -> tuple[np.ndarray, np.ndarray]:
    return snippet.frame(64), snippet.wave()


class Snippets:
    """Captioned snippets, rendered: ``frames`` uint8 (n, 64, 64, 3), ``waves`` float32
    (n, samples), ``captions``, ``codes``, ``seen`` (n,) bool, ``heard`` (n,) bool."""

    def __init__(self, seed: int, count: int, world: World, workers: int) -> None:
        snippets = caption_snippets(seed, count, world=world)
        drawn = list(_parallel(_draw, snippets, workers, chunk=64))
        self.frames = np.stack([frame for frame, _ in drawn])
        self.waves = np.stack([wave for _, wave in drawn])
        self.captions = [s.caption for s in snippets]
        self.codes = np.array([s.code for s in snippets])
        self.kinds = np.array([s.kind for s in snippets], dtype=object)
        self.seen = np.array([s.cause_visible for s in snippets])
        self.heard = np.array([s.audible for s in snippets])

    def __len__(self) -> int:
        return len(self.frames)


def _parallel(function, items: Sequence, workers: int, chunk: int = 1) -> Iterator:
    """``map`` over processes, in order. Spawned, not forked: torch's threads do not survive."""
    if workers <= 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, items, chunksize=chunk)


# ---- pretraining ---------------------------------------------------------------------------------


def _vocabulary(captions: Iterable[str]) -> list[int]:
    """Token ids of the captions and the zero-shot prompts, in rising order."""
    prompts = [t.format(word) for t in TEMPLATES for word in CLASS_TOKENS]
    used = {i for text in (*set(captions), *prompts) for i in token_ids(text)}
    return sorted(used | {START_TOKEN, END_TOKEN})


SETTING = re.compile(r" (?:on|in|over) a (?:{})\b.*$".format("|".join(PLACES)))
SMALL_WORDS = frozenset("a an the of on in at by with its over to two photo".split())


class Captions:
    """Captions as the text tower learns them. A caption is told in full, without its setting
    ("people dancing"), or as one of its words ("dancing"), so that prompts made of a bare class
    word mean something. ``told`` lists the distinct tellings as token rows."""

    def __init__(self, captions: Sequence[str], vocabulary: Sequence[int], length: int) -> None:
        self._number: dict[str, int] = {}
        tellings = []
        for caption in captions:
            short = SETTING.sub("", caption)
            words = [w for w in short.replace(",", "").split() if w not in SMALL_WORDS]
            tellings.append(
                (self._index(caption), self._index(short), [self._index(w) for w in words])
            )
        widest = max(len(words) for *_, words in tellings)
        self._full = torch.tensor([full for full, _, _ in tellings])
        self._short = torch.tensor([short for _, short, _ in tellings])
        # the words of each caption, repeated to a rectangle
        self._words = torch.tensor(
            [[(words or [short])[k % max(1, len(words))] for k in range(widest)]
             for _, short, words in tellings]
        )  # fmt: skip
        row_of = {token: row for row, token in enumerate(vocabulary)}
        self.told = torch.zeros(len(self._number), length, dtype=torch.int64)
        self.ends = torch.zeros(len(self._number), dtype=torch.int64)
        for telling, k in self._number.items():
            ids = [START_TOKEN, *token_ids(telling), END_TOKEN]
            self.told[k, : len(ids)] = torch.tensor([row_of[i] for i in ids])
            self.ends[k] = len(ids) - 1

    def _index(self, telling: str) -> int:
        return self._number.setdefault(telling, len(self._number))

    def draw(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Telling (n,) of the captions at ``index`` (n,): half in full, three in ten short, two
        in ten a single word."""
        draw = torch.rand(2, len(index), generator=generator)
        word = self._words[index, (draw[1] * self._words.shape[1]).long()]
        short = torch.where(draw[0] < 0.3, self._short[index], word)
        return torch.where(draw[0] < 0.5, short, self._full[index])


def encode_with_room(
    clip: nn.Module, rows: Tensor, ends: Tensor, generator: torch.Generator
) -> Tensor:
    """Token rows (P, L) -> text features (P, D), with up to ten near-zero vectors set between the
    start mark and the words, and between the words and the end mark, in half of the prompts. This
    is where a detector puts the context that it learns: without it the tower has never seen a
    word in such a place."""
    length = rows.shape[1]
    draw = torch.rand(3, len(rows), generator=generator)
    room = (length - 1 - ends) * (draw[0] < 0.5)
    before = (draw[1] * (room.clamp_max(10) + 1)).long()
    behind = (draw[2] * ((room - before).clamp_max(10) + 1)).long()
    place = torch.arange(length)
    last_word = (before + ends - 1)[:, None]
    end = last_word[:, 0] + behind + 1
    source = place - before[:, None]
    source = torch.where(place == 0, 0, source)
    source = torch.where(place == end[:, None], ends[:, None], source)
    is_token = (place == 0) | (place == end[:, None])
    is_token |= (place > before[:, None]) & (place <= last_word)
    tokens = clip.token_embedding(rows.gather(1, source.clamp(0, length - 1)))
    empty = 0.01 * torch.randn(tokens.shape, generator=generator)
    x = torch.where(is_token[:, :, None], tokens, empty) + clip.positional_embedding
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
    return x[torch.arange(len(x)), end] @ clip.text_projection


def _schedule(model_parts: Sequence[nn.Module], steps: int, rate: float):
    parameters = [p for part in model_parts for p in part.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    return optimiser, schedule


def _batches(count: int, size: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(epochs):
        yield from torch.randperm(count, generator=generator)[: count // size * size].split(size)


def pretrain_clip(
    data: Snippets, *, epochs: int, rate: float = 2e-3, batch: int = 128
) -> tuple[nn.Module, list[int]]:
    """Image and text tower, contrastively: every picture against the distinct captions of its
    batch. Equal captions are one caption, so that all its pictures are its positives. Returns the
    model and the token ids of its rows."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = _vocabulary(data.captions)
    clip = soundstage_clip(len(vocabulary)).train().to(memory_format=torch.channels_last)
    captions = Captions(data.captions, vocabulary, clip.context_length)
    pixels = clip_pixels(data.frames, data.frames.shape[1])
    optimiser, schedule = _schedule([clip], epochs * (len(data) // batch), rate)
    for step, index in enumerate(_batches(len(data), batch, epochs, generator)):
        image = pixels[index]
        mirrored = torch.rand(len(image), generator=generator) < 0.5
        image = torch.where(mirrored[:, None, None, None], image.flip(3), image)
        used, target = captions.draw(index, generator).unique(return_inverse=True)
        image_features = F.normalize(clip.visual(image), dim=-1)
        text = encode_with_room(clip, captions.told[used], captions.ends[used], generator)
        scale = clip.logit_scale.exp().clamp_max(50)
        logits = scale * image_features @ F.normalize(text, dim=-1).T
        positives = F.one_hot(target, len(used)).T.float()  # (captions, n)
        positives = positives / positives.sum(1, keepdim=True)
        loss = F.cross_entropy(logits, target) + F.cross_entropy(logits.T, positives)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"  image and text: step {step}, loss {loss.item():.3f}", flush=True)
    return clip.eval().requires_grad_(False), vocabulary


def distil_audio(
    data: Snippets, clip: nn.Module, *, epochs: int, rate: float = 2e-3, batch: int = 128
) -> AudioTower:
    """Audio tower, from the frozen image tower alone, as Wav2CLIP was: each sound against the
    pictures of its batch. Only snippets whose picture shows what makes the sound take part."""
    generator = torch.Generator().manual_seed(1)
    usable = torch.from_numpy(data.seen & data.heard).nonzero()[:, 0]
    tower = AudioTower().train()
    with torch.no_grad():
        target = torch.cat(
            [
                F.normalize(clip.visual(clip_pixels(data.frames[part], 64)), dim=-1)
                for part in usable.split(256)
            ]
        )
        mel = torch.cat(
            [tower.log_mel(torch.from_numpy(data.waves[part])) for part in usable.split(256)]
        )
        tower.mel_mean.copy_(mel.mean(dim=(0, 2)))
        tower.mel_std.copy_(mel.std(dim=(0, 2)))
    optimiser, schedule = _schedule([tower], epochs * (len(usable) // batch), rate)
    for step, index in enumerate(_batches(len(usable), batch, epochs, generator)):
        sound = F.normalize(tower.from_log_mel(mel[index]), dim=-1)
        picture = target[index]
        similar = (picture @ picture.T * DISTIL_SCALE).softmax(1)
        loss = F.cross_entropy(sound @ picture.T * DISTIL_SCALE, similar)
        loss = loss + (1 - (sound * picture).sum(1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"  audio: step {step}, loss {loss.item():.3f}", flush=True)
    return tower.eval().requires_grad_(False)


# ---- zero-shot -----------------------------------------------------------------------------------


def class_embeddings(encoders: Encoders, templates: Sequence[str]) -> Tensor:
    """(C, D): mean direction of a class word's prompts."""
    rows = []
    for word in XD_CLASSES.words:
        prompts = encoders.encode_text([template.format(word) for template in templates])
        rows.append(F.normalize(prompts, dim=-1).mean(0))
    return F.normalize(torch.stack(rows), dim=-1)


def zero_shot(encoders: Encoders, data: Snippets) -> dict:
    """Which class prompt is nearest to each picture and each sound? Recall of every class, their
    mean (balanced accuracy), and what share of each distractor is taken for an anomaly. Pictures
    count where the event is in sight, sounds where it can be heard; what does not occur is left
    out. Chance: 1 in 7."""
    truth = np.array([XD_CLASSES.index(code) for code in data.codes])
    report: dict = {"snippets": len(data), "chance": round(1 / len(XD_CLASSES), 4)}
    for sense, features, usable in (
        ("image", encoders.encode_images(data.frames), data.seen),
        ("audio", encoders.encode_audio(data.waves), data.heard),
    ):
        for style, templates in (("words", TEMPLATES[:1]), ("templates", TEMPLATES)):
            guess = (features @ class_embeddings(encoders, templates).T).argmax(1).numpy()
            recall = {
                word: float((guess == c)[usable & (truth == c)].mean())
                for c, word in enumerate(XD_CLASSES.words)
                if (usable & (truth == c)).any()
            }
            fooled = {
                kind: round(float((guess > 0)[usable & (data.kinds == kind)].mean()), 3)
                for kind in DISTRACTORS
                if (usable & (data.kinds == kind)).any()
            }
            report[f"{sense}_{style}"] = {
                "balanced_accuracy": round(float(np.mean(list(recall.values()))), 4),
                "recall": {word: round(share, 3) for word, share in recall.items()},
                "taken_for_an_anomaly": fooled,
            }
    return report


def show(report: dict) -> None:
    print(f"zero-shot on {report['snippets']} held-out snippets, chance {report['chance']:.3f}")
    for name, part in report.items():
        if isinstance(part, dict) and "recall" in part:
            recall = "  ".join(f"{word} {r:.2f}" for word, r in part["recall"].items())
            print(f"{name:16} {part['balanced_accuracy']:.3f}   {recall}")
            print(" " * 17, part["taken_for_an_anomaly"])


# ---- the feature store ---------------------------------------------------------------------------


def render_scene(scene: Scene) -> tuple[np.ndarray, np.ndarray | None]:
    """What the encoders get of a video: the frame in the middle of each snippet, uint8
    (T, 64, 64, 3), and the sound of each snippet's window, float32 (T, samples) or None."""
    middles = (np.arange(scene.snippets) * XD_STRIDE + XD_STRIDE // 2) / FPS
    frames = np.stack([scene.frame(t) for t in middles])
    track = scene.wave()
    if track is None:
        return frames, None
    return frames, cut_windows(track, scene.snippets)


def cut_windows(track: np.ndarray, snippets: int) -> np.ndarray:
    """A track (samples,) -> its snippets' windows (T, samples of one), zeros behind the end."""
    samples = -(-XD_STRIDE * SAMPLE_RATE // int(FPS))  # rounded up
    starts = np.round(np.arange(snippets) * XD_STRIDE / FPS * SAMPLE_RATE).astype(np.int64)
    padded = np.pad(track, (0, max(0, int(starts[-1]) + samples - len(track))))
    return np.stack([padded[start : start + samples] for start in starts]).astype(np.float32)


def encode(
    encoders: Encoders, frames: np.ndarray, waves: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rendered snippets -> video (T, D) and audio (T, D) or None, float32."""
    video = encoders.encode_images(frames).numpy()
    return video, None if waves is None else encoders.encode_audio(waves).numpy()


def _render_seed(job: tuple[int, World]) -> tuple[Scene, np.ndarray, np.ndarray | None]:
    scene = sample_scene(job[0], world=job[1])
    return scene, *render_scene(scene)


def build_store(
    path: Path,
    encoders: Encoders,
    splits: dict[str, Sequence[int]],
    world: World,
    workers: int,
    inputs: str = "",
) -> None:
    """Render and encode the videos of each split (seeds) and write them as a feature store. Each
    row's source is ``scene:SEED``, so that anyone can render the video again and play it.
    ``inputs`` names what the features are made with; an interrupted build of the same inputs
    goes on where it stopped."""
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
        drawn = _parallel(_render_seed, [(seed, world) for _, seed in todo], workers, chunk=2)
        for (split, seed), (scene, frames, waves) in zip(todo, drawn, strict=True):
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


def label_of(scene: Scene) -> str:
    """Weak label as XD-Violence writes it: three codes, missing ones ``0``; a lone ``A``."""
    labels = scene.labels
    return "A" if labels == ("A",) else "-".join([*labels, "0", "0"][: max(3, len(labels))])


# ---- command line --------------------------------------------------------------------------------


def parse_world(choices: Sequence[str]) -> World:
    """``name=value`` (pairs as ``low,high``) over the world that ships."""
    kinds = {item.name: getattr(World(), item.name) for item in fields(World)}
    values = {}
    for choice in choices:
        name, _, text = choice.partition("=")
        if name not in kinds:
            raise SystemExit(f"unknown World field {name!r}; known: {', '.join(kinds)}")
        if isinstance(kinds[name], tuple):
            values[name] = tuple(type(kinds[name][0])(part) for part in text.split(","))
        else:
            values[name] = type(kinds[name])(text)
    return World(**values)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "part", nargs="?", default="all", choices=("all", "encoders", "report", "store")
    )
    parser.add_argument("--out", type=Path, default=soundstage_path(), help="folder to write")
    parser.add_argument("--weights", type=Path, help="folder of the encoders (default: --out)")
    parser.add_argument("--world", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--snippets", type=int, default=10_000, help="for pretraining")
    parser.add_argument("--held-out", type=int, default=2_000, help="snippets for zero-shot")
    parser.add_argument("--epochs", type=int, default=6, help="of the image and text towers")
    parser.add_argument("--train", type=int, default=len(TRAIN_SCENES), help="training videos")
    parser.add_argument("--test", type=int, default=len(TEST_SCENES), help="test videos")
    parser.add_argument(
        "--calibration", action="store_true", help="draw the videos from the calibration seeds"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    options = parser.parse_args(arguments)
    world, weights = parse_world(options.world), options.weights or options.out
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.time()
    torch.set_num_threads(1)

    if options.part in ("all", "encoders"):
        data = Snippets(PRETRAIN_SEED, options.snippets, world, options.workers)
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
        held_out = Snippets(HELD_OUT_SEED, options.held_out, world, options.workers)
        report = zero_shot(encoders, held_out)
        show(report)
        text = json.dumps({"world": asdict(world), "zero_shot": report}, indent=1)
        (weights / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    if options.part in ("all", "store"):
        train, test = TRAIN_SCENES[: options.train], TEST_SCENES[: options.test]
        if options.calibration:
            train = CALIBRATION_SCENES[: options.train]
            test = CALIBRATION_SCENES[options.train : options.train + options.test]
        made_with = hashlib.sha256((weights / SOUNDSTAGE_FILE).read_bytes()).hexdigest()
        splits = {"train": train, "test": test}
        build_store(options.out, encoders, splits, world, options.workers, made_with)
        print(f"feature store written to {options.out}, {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
