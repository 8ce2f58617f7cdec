"""A video file becomes features: pictures and sound of every snippet.

    found = extract("holiday.mp4", load_encoders("soundstage"))
    found.video, found.audio, found.times     # (K, T, D), (T, D) or None, (T + 1,) seconds

A snippet is ``stride`` consecutive frames, whatever their time stamps; its sound is exactly the
sound between its first frame and the next snippet's. Two more choices shape the picture features:

- ``crops``: which part is encoded. Numbers 0 to 9 are the released features' (every picture
  squeezed to 340 x 256 whatever its aspect, then 224 x 224 from the centre (0), top left, top
  right, bottom left, bottom right (4); 5 to 9 the same mirrored; the release tests with crop 5).
  ``"clip"`` is CLIP's own preprocessing (shorter side resized, centre cut out); ``"whole"``
  squeezes the picture into the encoder's square, so that nothing at the edges is lost.
- ``picture``: which frames are encoded. The release does not say which it took; ``"middle"`` is
  nearest to the sound of the whole snippet, ``"first"`` is what a loop over every 16th frame takes,
  ``"mean"`` encodes all and averages their features.

Pictures are encoded in a worker thread while the next ones are decoded. Besides the result at most
``QUEUE + 2`` batches of cut pictures and their sound are held, whatever the length of the video.

Shape letters: K crops, T snippets, D feature width, P pictures a snippet, S side of a cut picture.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from avadclip_lite.config import CROPS, TEST_CROP, XD_STRIDE
from avadclip_lite.encoders import Encoders
from avadclip_lite.video.reader import Snippet, Sound, VideoReader, longest

Crops = Literal["clip", "whole"] | tuple[int, ...]

RELEASE_SIZE = (340, 256)  # width, height that the release squeezes every picture to
RELEASE_CROP = 224
BATCH = 32  # pictures encoded at a time
QUEUE = 2  # batches that may wait for the encoder
SILENCE = 1e-3  # a track whose peak stays below (-60 dB) counts as silent
NOTICEABLE = 0.1  # seconds; gaps, and pictures and sound that start or end further apart are told
MAX_WINDOW = 30.0  # seconds of sound that are encoded at once; a pause in the pictures is longer


def cut(image: np.ndarray, crops: Crops, size: int) -> np.ndarray:
    """One picture uint8 (H, W, 3) -> (K, S, S, 3): S is 224 for numbered crops, else ``size``."""
    if crops == "whole":
        return _resized(image, (size, size))[None]
    if crops == "clip":
        height, width = image.shape[:2]
        scale = min(height, width)
        resized = _resized(image, (size * width // scale, size * height // scale))
        top, left = (round((side - size) / 2) for side in resized.shape[:2])
        return resized[None, top : top + size, left : left + size]
    width, height = RELEASE_SIZE
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    # bilinear without antialiasing, which is what OpenCV's resize does unless told otherwise
    squeezed = F.interpolate(pixels, size=(height, width), mode="bilinear")[0].permute(1, 2, 0)
    y, x = height - RELEASE_CROP, width - RELEASE_CROP
    corners = ((y // 2, x // 2), (0, 0), (0, x), (y, 0), (y, x))
    five = [squeezed[y : y + RELEASE_CROP, x : x + RELEASE_CROP].numpy() for y, x in corners]
    return np.stack([five[k] if k < 5 else five[k - 5][:, ::-1] for k in crops])


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """To (width, height), bicubic and antialiased as CLIP's preprocessing; as is if it fits."""
    if image.shape[1::-1] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def checked_crops(crops: Crops | str | int | Sequence[int] | None, encoder: str) -> Crops:
    """``crops`` in its one form: "clip", "whole" or a tuple of numbers; also understands "all",
    "5", "0,5" and None, the encoder's default (what the tiny encoders were trained on; the released
    test features' crop for CLIP). Raises ``ValueError`` for anything else."""
    if crops is None:
        return (TEST_CROP,) if encoder == "clip" else "whole"
    if crops in ("clip", "whole"):
        return crops
    if crops == "all":
        return tuple(range(CROPS))
    try:
        parts = crops.split(",") if isinstance(crops, str) else np.atleast_1d(crops)
        numbers = tuple(dict.fromkeys(int(part) for part in parts))
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(0 <= number < CROPS for number in numbers):
        known = f"'clip', 'whole', 'all' or numbers from 0 to {CROPS - 1}"
        raise ValueError(f"crops must be {known}, got {crops!r}")
    return numbers


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file was read."""

    source: Path
    frames: int  # decoded; T x stride of them are covered
    origin: float  # container time of the first picture, seconds
    joins: int  # recordings joined to the first
    sound: Literal["present", "absent", "silent", "unreadable"]
    notes: tuple[str, ...]  # what was out of the ordinary, in words


@dataclass(frozen=True, kw_only=True)
class Part:
    """Features of T consecutive snippets."""

    times: np.ndarray  # (T + 1,) float64, seconds from the first picture: starts, and the last end
    video: np.ndarray  # (K, T, D) float32
    audio: np.ndarray | None  # (T, D) float32; None without sound
    audio_coverage: np.ndarray  # (T,) float32, the share of a snippet that the track covers
    loudness: np.ndarray  # (T,) float32, root mean square


@dataclass(frozen=True, kw_only=True)
class Extraction(Part, Reading):
    """The features of a video, and how it was read. ``audio`` is None for silence as well."""

    @property
    def snippets(self) -> int:
        """T."""
        return self.video.shape[1]

    @property
    def seconds(self) -> float:
        """Length of what the snippets cover."""
        return float(self.times[-1])


def join(parts: Sequence[Part]) -> Part:
    sound = all(part.audio is not None for part in parts)
    return Part(
        times=np.concatenate([*(part.times[:-1] for part in parts), parts[-1].times[-1:]]),
        video=np.concatenate([part.video for part in parts], axis=1),
        audio=np.concatenate([part.audio for part in parts]) if sound else None,
        audio_coverage=np.concatenate([part.audio_coverage for part in parts]),
        loudness=np.concatenate([part.loudness for part in parts]),
    )


class FeatureReader:
    """Iterates over a video's features in ``Part``s, as soon as each batch is encoded; after the
    last one ``reading`` tells how the file was read.

    ``crops``, ``picture``, ``stride``: see the module's text. ``batch``: pictures encoded at a
    time, which changes features by no more than rounding. ``threads``: of the decoder, 0: one a
    core. Raises ``FileNotFoundError``, ``BrokenVideo``, ``ValueError`` for a bad choice.
    """

    def __init__(
        self,
        path: str | Path,
        encoders: Encoders,
        *,
        stride: int = XD_STRIDE,
        crops: Crops | str | int | Sequence[int] | None = None,
        picture: Literal["middle", "first", "mean"] = "middle",
        batch: int = BATCH,
        threads: int = 0,
    ) -> None:
        self._path, self._encoders = Path(path), encoders
        crops = checked_crops(crops, encoders.name)
        picks = checked_picks(stride, picture, batch)
        size = encoders.image_size
        cuts = {"picks": picks, "convert": lambda image: cut(image, crops, size)}
        self._pictures = VideoReader(path, stride=stride, threads=threads, **cuts)
        self._sound = Sound(path)
        count = len(picks) * (1 if isinstance(crops, str) else len(crops))
        self._batch = max(1, batch // count)  # snippets
        self.reading: Reading | None = None

    @property
    def sounding(self) -> bool:
        """Whether there is a sound track, and it has not been silent so far."""
        return self._sound.present and self._sound.peak >= SILENCE

    def __iter__(self) -> Iterator[Part]:
        with self._sound, ThreadPoolExecutor(max_workers=1) as worker:
            waiting: deque[Future[Part]] = deque()
            heard = ((snippet, *self._listen(snippet)) for snippet in self._pictures)
            try:
                while batch := list(islice(heard, self._batch)):
                    if len(waiting) > QUEUE:
                        yield waiting.popleft().result()
                    waiting.append(worker.submit(self._encode, *zip(*batch, strict=True)))
                while waiting:
                    yield waiting.popleft().result()
            finally:
                worker.shutdown(cancel_futures=True)  # the caller may stop half-way
        self.reading = self._describe()

    def _listen(self, snippet: Snippet) -> tuple[np.ndarray, float]:
        """The sound of a snippet (samples,), and the share of it that the track covers; of one that
        lasts longer than ``MAX_WINDOW`` (pictures may pause for hours) the loudest piece."""
        start, end = (self._pictures.origin + time for time in (snippet.start, snippet.end))
        edges = np.linspace(start, end, max(math.ceil((end - start) / MAX_WINDOW), 1) + 1)
        pieces = (self._sound.window(low, high) for low, high in pairwise(edges))
        return max(pieces, key=lambda piece: loudness(piece[0]))

    def _encode(
        self, snippets: Sequence[Snippet], waves: Sequence[np.ndarray], coverage: Sequence[float]
    ) -> Part:
        pictures = np.stack([np.stack(snippet.pictures) for snippet in snippets])
        n, p, k = pictures.shape[:3]
        video = self._encoders.encode_images(pictures.reshape(n * p * k, *pictures.shape[3:]))
        return Part(
            times=np.array([s.start for s in snippets] + [snippets[-1].end]),
            video=video.view(n, p, k, -1).mean(dim=1).transpose(0, 1).numpy(),
            audio=encode_waves(self._encoders, waves) if self._sound.present else None,
            audio_coverage=np.array(coverage, np.float32),
            loudness=np.array([loudness(wave) for wave in waves], np.float32),
        )

    def _describe(self) -> Reading:
        pictures, track = self._pictures, self._sound
        pictures.media.reached = max(pictures.media.reached, track.media.reached)
        over = (track.declared_end or 0.0) - pictures.origin - pictures.end
        pictures.sound_left = max(over, 0.0)
        sound, notes = "absent", pictures.notes()
        if track.present:
            sound, heard = "present", _sound_notes(track, pictures)
            if track.first is None:
                sound, heard = "unreadable", ["the sound track cannot be decoded and is left out"]
            elif track.peak < SILENCE:
                sound, heard = "silent", ["the sound track is silent and is left out"]
            notes += [note for note in (track.media.track, *heard) if note]
        return Reading(
            source=self._path,
            frames=pictures.frames,
            origin=pictures.origin,
            joins=pictures.media.joins,
            sound=sound,
            notes=tuple(notes),
        )


def extract(path: str | Path, encoders: Encoders, **choices: Any) -> Extraction:
    """All features of a video file; ``choices`` and what is raised as in ``FeatureReader``."""
    reader = FeatureReader(path, encoders, **choices)
    found = vars(join(list(reader)))
    if reader.reading.sound != "present":
        found = found | {"audio": None}
    return Extraction(**found, **vars(reader.reading))


def loudness(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def encode_waves(encoders: Encoders, waves: Sequence[np.ndarray]) -> np.ndarray:
    """Waveforms -> (n, D) float32. Only equal lengths share a call: padding would be heard."""
    lengths = np.array([len(wave) for wave in waves])
    out = np.empty((len(waves), encoders.dim), np.float32)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        out[rows] = encoders.encode_audio(np.stack([waves[row] for row in rows])).numpy()
    return out


def checked_picks(
    stride: int = XD_STRIDE, picture: str = "middle", batch: int = BATCH, **_: Any
) -> Sequence[int]:
    """Which frames of a snippet are encoded; ``ValueError`` for a bad choice."""
    if batch < 1 or stride < 1:
        raise ValueError(f"batch and stride must be at least 1, got {batch} and {stride}")
    choices = {"first": (0,), "middle": (stride // 2,), "mean": range(stride)}
    if picture not in choices:
        raise ValueError(f"picture must be one of {', '.join(choices)}, got {picture!r}")
    return choices[picture]


def _sound_notes(sound: Sound, pictures: VideoReader) -> Iterator[str]:
    """Where track and pictures do not begin or end together, and what else is not as it should."""
    lead, end = sound.first - pictures.origin, pictures.origin + pictures.end
    if lead > NOTICEABLE:
        yield f"the sound starts {lead:.2f} s after the pictures"
    elif lead < -NOTICEABLE:
        yield f"{-lead:.2f} s of sound before the first picture left out"
    # of joined recordings only one's end is declared
    declared = (not pictures.media.joins and sound.declared_end) or sound.last
    if sound.over and sound.last < end - NOTICEABLE:
        yield f"the sound ends {end - sound.last:.2f} s before the pictures"
    elif declared > end + NOTICEABLE and not pictures.notes():  # else the pictures broke off
        yield f"{declared - end:.2f} s of sound after the last picture left out"
    gaps = [(n, start - pictures.origin) for n, start in sound.gaps if n > NOTICEABLE]
    if gaps := [gap for gap in gaps if 0 <= gap[1] < pictures.end]:
        yield longest("no sound", gaps)
    if sound.media.damaged > sound.media.joins:
        yield f"the sound is damaged in {sound.media.damaged} places"
    if sound.cancels:
        yield "the channels cancel each other where they are mixed; one of them is heard there"
