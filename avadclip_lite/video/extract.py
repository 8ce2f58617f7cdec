"""From video files to a feature store: pictures and sound, snippet by snippet.

    encoders = load_encoders("soundstage")
    found = extract("holiday.mp4", encoders)
    found.video, found.audio, found.times     # (K, T, D), (T, D) or None, (T + 1,) seconds

A snippet is ``stride`` consecutive frames, whatever their time stamps; its sound is exactly the
sound between its first frame and the next snippet's. Three choices shape the picture features:

- ``crops``: which part of the picture is encoded. Crop numbers 0 to 9 are the released features'
  (every picture squeezed to 340 x 256 whatever its aspect, then 224 x 224 from the centre (0), top
  left, top right, bottom left, bottom right (4); 5 to 9 the same mirrored; the released test
  features are crop 5). ``"clip"`` is CLIP's own preprocessing (shorter side resized, centre cut
  out); ``"whole"`` squeezes the whole picture into the encoder's square, so that nothing at the
  edges is lost.
- ``picture``: which frames of a snippet are encoded. The release does not say which it took;
  ``"middle"`` (frame ``stride // 2``) is nearest to the sound of the whole snippet, ``"first"`` is
  what a loop over every 16th frame takes, ``"mean"`` encodes all and averages their features.
- ``stride``: frames a snippet.

Pictures are encoded in a worker thread while the next ones are decoded. Memory: besides the
result (4 D bytes a snippet, crop and modality) at most ``QUEUE + 2`` batches of cut pictures and
their sound are held, whatever the length of the video.

Shape letters: K crops, T snippets, D feature width, P pictures a snippet, S side of a cut picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from avadclip_lite.config import CROPS, TEST_CROP, XD_STRIDE
from avadclip_lite.encoders import Encoders
from avadclip_lite.video.reader import Snippet, Sound, VideoReader

__all__ = [
    "BATCH",
    "Crops",
    "Extraction",
    "FeatureReader",
    "Part",
    "cut",
    "extract",
]

Crops = Literal["clip", "whole"] | tuple[int, ...]

RELEASE_SIZE = (340, 256)  # width, height that the release squeezes every picture to
RELEASE_CROP = 224
BATCH = 32  # pictures encoded at a time
QUEUE = 2  # batches that may wait for the encoder
LOUDNESS_BINS = 8  # loudness values a snippet, for drawing the sound
SILENCE = 1e-3  # a track whose peak stays below (-60 dB) counts as silent
NOTICEABLE = 0.1  # seconds; pictures and sound that start or end further apart are reported


# ---- what of a picture is encoded ----------------------------------------------------------------


def cut(image: np.ndarray, crops: Crops, size: int) -> np.ndarray:
    """One picture uint8 (H, W, 3) -> (K, S, S, 3): S is 224 for the release's crops, else the
    encoder's ``size``."""
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
    top, left = height - RELEASE_CROP, width - RELEASE_CROP
    corners = ((top // 2, left // 2), (0, 0), (0, left), (top, 0), (top, left))
    out = []
    for crop in crops:
        y, x = corners[crop % len(corners)]
        part = squeezed[y : y + RELEASE_CROP, x : x + RELEASE_CROP].numpy()
        out.append(part[:, ::-1] if crop >= len(corners) else part)
    return np.stack(out)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """To (width, height), bicubic and antialiased as CLIP's preprocessing; as is if it fits."""
    from PIL import Image

    if image.shape[1::-1] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def checked_crops(crops: Crops | str | int | Sequence[int] | None, encoder: str) -> Crops:
    """``crops`` in its one form: "clip", "whole" or a tuple of crop numbers; also understands
    "all", "5", "0,5" and None, the encoder's default (whole pictures for the tiny encoders, which
    were trained on whole pictures; the released test features' crop for CLIP).

    Raises ``ValueError`` for anything else.
    """
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
        raise ValueError(
            f"crops must be 'clip', 'whole', 'all' or numbers from 0 to {CROPS - 1}, got {crops!r}"
        )
    return numbers


# ---- one video -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Part:
    """Features of n consecutive snippets."""

    times: np.ndarray  # (n + 1,) float64, seconds from the first picture: starts, and the last end
    video: np.ndarray  # (K, n, D) float32
    audio: np.ndarray | None  # (n, D) float32
    heard: np.ndarray  # (n,) float32, the share of the snippet for which the file has sound
    loudness: np.ndarray  # (n, LOUDNESS_BINS) float32, root mean square


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """The features of a video, and how it was read."""

    source: Path
    video: np.ndarray  # (K, T, D) float32
    audio: np.ndarray | None  # (T, D) float32; None without sound, or with silence only
    times: np.ndarray  # (T + 1,) float64, seconds from the first picture
    heard: np.ndarray  # (T,) float32, share of each snippet for which the file has sound
    loudness: np.ndarray  # (T, LOUDNESS_BINS) float32
    frames: int  # decoded; T x stride of them are covered
    origin: float  # container time of the first picture, seconds
    sound: Literal["present", "absent", "silent", "unreadable"]
    notes: tuple[str, ...] = field(default=())  # what was out of the ordinary, in words

    @property
    def snippets(self) -> int:
        """T."""
        return self.video.shape[1]

    @property
    def seconds(self) -> float:
        """Length of what the snippets cover."""
        return float(self.times[-1])


class FeatureReader:
    """Iterates over a video's features in ``Part``s, as soon as each batch is encoded.

    Arguments as in ``extract``. ``expected`` snippets: what the file promises, None if it does
    not tell. After the last part ``frames``, ``origin``, ``sound`` and ``notes`` are as in
    ``Extraction``.
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
        if batch < 1:
            raise ValueError(f"batch must be at least 1 picture, got {batch}")
        self.path, self.encoders = Path(path), encoders
        self.crops = checked_crops(crops, encoders.name)
        self._pictures = VideoReader(
            path,
            stride=stride,
            picks=_picks(picture, stride),
            convert=lambda image: cut(image, self.crops, encoders.image_size),
            threads=threads,
        )
        self._sound = Sound(path)
        crop_count = 1 if isinstance(self.crops, str) else len(self.crops)
        self._batch = max(1, batch // (crop_count * len(self._pictures.picks)))  # snippets
        self.expected = self._pictures.declared // stride or None
        self.frames, self.origin = 0, 0.0
        self.sound, self.notes = "absent", ()

    @property
    def sounding(self) -> bool:
        """Whether there is a sound track, and it has not been silent so far."""
        return self._sound.present and self._sound.peak >= SILENCE

    def __iter__(self) -> Iterator[Part]:
        with self._sound, ThreadPoolExecutor(max_workers=1) as worker:
            waiting: deque[Future[Part]] = deque()
            try:
                for snippets, waves in self._batches():
                    if len(waiting) > QUEUE:
                        yield waiting.popleft().result()
                    waiting.append(worker.submit(self._encode, snippets, waves))
                while waiting:
                    yield waiting.popleft().result()
            finally:
                worker.shutdown(cancel_futures=True)  # the caller may stop half-way
        self._describe()

    def _batches(self) -> Iterator[tuple[list[Snippet], list[tuple[np.ndarray, float]]]]:
        snippets, waves = [], []
        for snippet in self._pictures:
            snippets.append(snippet)
            origin = self._pictures.origin
            waves.append(self._sound.window(origin + snippet.start, origin + snippet.end))
            if len(snippets) == self._batch:
                yield snippets, waves
                snippets, waves = [], []
        if snippets:
            yield snippets, waves

    def _encode(self, snippets: list[Snippet], waves: list[tuple[np.ndarray, float]]) -> Part:
        pictures = np.stack([np.stack(snippet.pictures) for snippet in snippets])
        n, p, k = pictures.shape[:3]
        video = self.encoders.encode_images(pictures.reshape(n * p * k, *pictures.shape[3:]))
        video = video.view(n, p, k, -1).mean(dim=1).transpose(0, 1)
        audio = None
        if self._sound.present:
            audio = encode_waves(self.encoders, [wave for wave, _ in waves])
        return Part(
            times=np.array([s.start for s in snippets] + [snippets[-1].end]),
            video=video.numpy(),
            audio=audio,
            heard=np.array([share for _, share in waves], np.float32),
            loudness=np.stack([_loudness(wave) for wave, _ in waves]),
        )

    def _describe(self) -> None:
        pictures, sound = self._pictures, self._sound
        self.frames, self.origin = pictures.frames, pictures.origin
        notes = [pictures.note()]
        if sound.present and sound.first is None:
            self.sound = "unreadable"
            notes.append("the sound track cannot be decoded and is left out")
        elif sound.present and sound.peak < SILENCE:
            self.sound = "silent"
            notes.append("the sound track is silent and is left out")
        elif sound.present:
            self.sound = "present"
            notes += _timing_notes(sound, pictures)
        self.notes = tuple(note for note in notes if note)


def extract(
    path: str | Path,
    encoders: Encoders,
    *,
    stride: int = XD_STRIDE,
    crops: Crops | str | int | Sequence[int] | None = None,
    picture: Literal["middle", "first", "mean"] = "middle",
    batch: int = BATCH,
    threads: int = 0,
) -> Extraction:
    """All features of a video file.

    ``crops``, ``picture``, ``stride``: see the module's text. ``batch``: pictures encoded at a
    time; it changes features by no more than float32 rounding. ``threads``: of the decoder, 0 for
    one a core.

    Raises ``FileNotFoundError``, ``BrokenVideo`` for a file without pictures, ``ValueError`` for
    a bad choice.
    """
    reader = FeatureReader(
        path, encoders, stride=stride, crops=crops, picture=picture, batch=batch, threads=threads
    )
    return gather(reader, list(reader))


def gather(reader: FeatureReader, parts: Sequence[Part]) -> Extraction:
    """The parts of a reader that has come to its end, put together."""
    audio = None
    if reader.sound == "present":
        audio = np.concatenate([part.audio for part in parts])
    return Extraction(
        source=reader.path,
        video=np.concatenate([part.video for part in parts], axis=1),
        audio=audio,
        times=np.concatenate([*(part.times[:-1] for part in parts), parts[-1].times[-1:]]),
        heard=np.concatenate([part.heard for part in parts]),
        loudness=np.concatenate([part.loudness for part in parts]),
        frames=reader.frames,
        origin=reader.origin,
        sound=reader.sound,
        notes=reader.notes,
    )


def encode_waves(encoders: Encoders, waves: Sequence[np.ndarray]) -> np.ndarray:
    """Waveforms of several lengths -> (n, D) float32. Only equal lengths share a call: padding
    would be heard."""
    lengths = np.array([len(wave) for wave in waves])
    out = np.empty((len(waves), encoders.dim), np.float32)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        out[rows] = encoders.encode_audio(np.stack([waves[row] for row in rows])).numpy()
    return out


def _picks(picture: str, stride: int) -> Sequence[int]:
    choices = {"first": (0,), "middle": (stride // 2,), "mean": range(stride)}
    if picture not in choices:
        raise ValueError(f"picture must be one of {', '.join(choices)}, got {picture!r}")
    return choices[picture]


def _loudness(wave: np.ndarray) -> np.ndarray:
    """(samples,) -> (LOUDNESS_BINS,) root mean square."""
    edges = np.linspace(0, len(wave), LOUDNESS_BINS + 1).astype(int)
    total = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    energy = (total[edges[1:]] - total[edges[:-1]]) / np.maximum(np.diff(edges), 1)
    return np.sqrt(energy).astype(np.float32)


def _timing_notes(sound: Sound, pictures: VideoReader) -> Iterator[str]:
    """Where the sound track and the pictures do not begin or end together."""
    lead = sound.first - pictures.origin
    if lead > NOTICEABLE:
        yield f"the sound starts {lead:.2f} s after the pictures"
    elif lead < -NOTICEABLE:
        yield f"{-lead:.2f} s of sound before the first picture left out"
    end = pictures.origin + pictures.end
    declared = sound.last if sound.declared_end is None else sound.declared_end
    if sound.over and sound.last < end - NOTICEABLE:
        yield f"the sound ends {end - sound.last:.2f} s before the pictures"
    elif declared > end + NOTICEABLE and not pictures.note():  # else the pictures broke off
        yield f"{declared - end:.2f} s of sound after the last picture left out"
    if sound.damaged:
        yield f"{sound.damaged} damaged packets of sound skipped"
