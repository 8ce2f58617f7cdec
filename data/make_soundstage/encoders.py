"""The tiny frozen encoders of Soundstage: pretrained on captioned snippets, and how well they name.

Image and text tower learn together, contrastively, as CLIP's did; the audio tower is distilled from
the frozen image tower, as Wav2CLIP's was.

Shape letters: n snippets, D feature width, C classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from safetensors.torch import save_file
from torch import Tensor, nn

from avadclip_lite.config import XD_CLASSES
from avadclip_lite.encoders import (
    CLASS_TOKENS,
    END_TOKEN,
    START_TOKEN,
    AudioTower,
    Encoders,
    clip_pixels,
    soundstage_clip,
    token_ids,
)
from data.make_soundstage.captions import CaptionedSnippet, caption_snippets
from data.make_soundstage.render import middle_frame, window
from data.make_soundstage.world import DISTRACTORS, PLACES, World

DISTIL_SCALE = 15.0  # inverse temperature at which a sound must resemble the pictures

# What zero-shot asks: the bare class words, as a detector's prompts start from, and the same
# words in the style of the captions.
TEMPLATES = ("{}", "a photo of {}", "{} on a street", "{} on a road", "{} on a square",
             "{} in a stadium", "{} in a corridor")  # fmt: skip


# ---- captioned snippets --------------------------------------------------------------------------


def _draw(snippet: CaptionedSnippet) -> tuple[np.ndarray, np.ndarray]:
    return middle_frame(snippet), window(snippet)


class Snippets:
    """Captioned snippets, rendered: ``frames`` uint8 (n, 64, 64, 3), ``waves`` float32
    (n, samples), ``captions``, ``codes``, ``seen`` (n,) bool, ``heard`` (n,) bool."""

    def __init__(self, seed: int, count: int, world: World, workers: int) -> None:
        snippets = caption_snippets(seed, count, world=world)
        drawn = Parallel(workers, batch_size=64)(delayed(_draw)(s) for s in snippets)
        self.frames = np.stack([frame for frame, _ in drawn])
        self.waves = np.stack([wave for _, wave in drawn])
        self.captions = [s.caption for s in snippets]
        self.codes = np.array([s.code for s in snippets])
        self.kinds = np.array([s.kind for s in snippets], dtype=object)
        self.seen = np.array([s.cause_visible for s in snippets])
        self.heard = np.array([s.audible for s in snippets])

    def __len__(self) -> int:
        return len(self.frames)


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


# ---- the file ------------------------------------------------------------------------------------


def save_soundstage(
    path: Path, clip: nn.Module, audio: AudioTower, vocabulary: Sequence[int], about: dict
) -> None:
    """Write the trio to one safetensors file: matrices as float16, vectors as float32, the ids
    of the token rows, and ``about`` (plain JSON: how it was made) in the header."""
    state = {}
    for name, value in clip.state_dict().items():
        key = name if name.startswith("visual.") else f"text.{name}"
        if name != "logit_scale":
            state[key] = value
    state |= {f"audio.{name}": value for name, value in audio.state_dict().items()}
    state = {
        k: (v.half() if v.is_floating_point() and v.ndim > 1 else v).contiguous()
        for k, v in state.items()
    }
    state["text.vocabulary"] = torch.tensor(vocabulary, dtype=torch.int32)
    half = path.with_suffix(".part")
    save_file(state, half, metadata={"about": json.dumps(about)})
    half.replace(path)
