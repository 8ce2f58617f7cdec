"""A copy of a video with its scores drawn in and its sound kept.

At the bottom runs a band that holds the confidence over the whole video, with a mark at the current
time; while an event lasts, its class and score stand at the top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from avadclip_lite.video.reader import Sound, VideoReader, mux

__all__ = ["Label", "Overlay", "write_overlay"]

LEGIBLE = 240  # pixels of height; smaller pictures are shown larger, so that words fit
SOUND_RATE = 48_000  # the copy's sound is AAC at this rate, in stereo
QUIET = "#56B4E9"  # the band below the threshold

Label = tuple[float, float, str, str]  # start, end (seconds), text, colour


class Overlay:
    """What is drawn over the pictures of one video.

    ``times (T + 1,)`` seconds, ``confidence (T,)`` in [0, 1], and labels for the events.
    """

    def __init__(
        self,
        size: tuple[int, int],
        times: np.ndarray,
        confidence: np.ndarray,
        threshold: float,
        labels: Sequence[Label],
    ) -> None:
        self.size, self._times, self._labels = size, times, labels
        self._confidence = confidence
        width, height = size
        self._height = max(12, height // 8)
        self._font = ImageFont.load_default(max(9, height // 20))
        self._band = self._draw_band(width, self._height, threshold)

    def _draw_band(self, width: int, height: int, threshold: float) -> Image.Image:
        """The whole video's confidence, a column of pixels an instant."""
        seconds = (np.arange(width) + 0.5) / width * self._times[-1]
        colours = np.full((width, 3), ImageColor.getrgb(QUIET))
        for start, end, _, colour in self._labels:
            colours[(seconds >= start) & (seconds < end)] = ImageColor.getrgb(colour)
        level = np.arange(height)[::-1, None] / max(height - 1, 1)
        filled = level <= self._confidence[self._snippet(seconds)]
        pixels = np.where(filled[..., None], colours, 24).astype(np.uint8)
        pixels[round((1 - threshold) * (height - 1))] = 150
        return Image.fromarray(pixels)

    def _snippet(self, seconds: np.ndarray | float) -> np.ndarray:
        return np.searchsorted(self._times[1:-1], seconds, side="right")

    def draw(self, image: np.ndarray, time: float) -> np.ndarray:
        """One upright picture uint8 (H, W, 3) at ``time`` seconds after the first, in the copy's
        size."""
        width, height = self.size
        picture = Image.fromarray(image).resize(self.size, Image.Resampling.NEAREST)
        top = height - self._height
        picture.paste(self._band, (0, top))
        pen = ImageDraw.Draw(picture)
        x = min(round(time / self._times[-1] * width), width - 1)
        pen.rectangle((x - 1, top, x + 1, height), fill="white")
        value = f"{self._confidence[self._snippet(time)]:.2f}"
        room = pen.textlength(value, font=self._font)
        left = x - room - 5 if x + room + 8 > width else x + 5
        shape = {"font": self._font, "fill": "white"}
        pen.text((left, top), value, **shape, stroke_width=1, stroke_fill="black")
        y = 4
        for start, end, text, colour in self._labels:
            if start <= time < end:
                box = pen.textbbox((8, y), text, font=self._font)
                pen.rectangle((4, y - 2, box[2] + 4, box[3] + 3), fill=colour)
                pen.text((8, y), text, **shape)
                y = box[3] + 8
        return np.asarray(picture)


def write_overlay(
    path: str | Path,
    out: str | Path,
    *,
    times: np.ndarray,
    confidence: np.ndarray,
    threshold: float,
    labels: Sequence[Label],
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write the copy (MP4, H.264 and AAC). It starts at zero; pictures and sound keep the times
    between them, and pixels their shape.

    ``options`` of the picture encoder; by default good quality at fair speed. Nothing is left
    behind when writing fails.
    """
    out = Path(out)
    half = out.with_name(out.name + ".part")
    reader = VideoReader(path, stride=1, picks=(0,))
    snippets = iter(reader)
    first = next(snippets)
    height, width = first.pictures[0].shape[:2]
    scale = -(-LEGIBLE // height)  # a whole multiple, and even, as H.264 in its common form needs
    size = tuple(max(2, side * scale // 2 * 2) for side in (width, height))
    overlay = Overlay(size, times, confidence, threshold, labels)

    def pictures() -> Iterator[tuple[float, np.ndarray]]:
        yield first.start, overlay.draw(first.pictures[0], first.start)
        for snippet in snippets:
            yield snippet.start, overlay.draw(snippet.pictures[0], snippet.start)

    with Sound(path, rate=SOUND_RATE, channels=2) as sound:

        def samples(low: int, high: int) -> np.ndarray:
            return sound.window(*(reader.origin + n / SOUND_RATE for n in (low, high)))[0]

        try:
            mux(
                half,
                pictures(),
                rate=Fraction(reader.rate).limit_denominator(1001),
                sound=samples if sound.present else None,
                sound_rate=SOUND_RATE,
                channels=2,
                aspect=reader.aspect,
                options=options or {"crf": "20", "preset": "veryfast"},
            )
            half.replace(out)
        finally:
            half.unlink(missing_ok=True)
    return out
