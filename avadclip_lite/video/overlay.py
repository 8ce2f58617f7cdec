"""A copy of a video with its scores drawn in and its sound kept.

At the bottom runs a band that holds the confidence over the whole video, with a mark at the current
time; while an event lasts, its class and score stand at the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, tee
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from avadclip_lite.dataset import Array
from avadclip_lite.video.reader import Sound, VideoReader, write_video

LEGIBLE = 240  # pixels of height; smaller pictures are shown larger, so that words fit
SOUND_RATE = 48_000  # the copy's sound is AAC at this rate, in stereo
QUIET = "#56B4E9"  # the band below the threshold
ENCODER = {"crf": "20", "preset": "veryfast"}  # good quality at fair speed

Labels = Sequence[tuple[float, float, str, str]]  # start, end (seconds), text, colour


class Overlay:
    """What is drawn over pictures: ``confidence (T,)`` at ``times (T + 1,)``, and labels."""

    def __init__(
        self, size: Sequence[int], times: Array, confidence: Array, threshold: float, labels: Labels
    ) -> None:
        self.size, self._seconds, self._labels = size, times[-1], labels
        width, height = size
        self._font = ImageFont.load_default(max(9, height // 20))
        # the band: the whole video's confidence, a column of pixels an instant
        rows = max(12, height // 8)
        seconds = (np.arange(width) + 0.5) / width * times[-1]
        colours = np.full((width, 3), ImageColor.getrgb(QUIET))
        for start, end, _, colour in labels:
            colours[(seconds >= start) & (seconds < end)] = ImageColor.getrgb(colour)
        level = np.arange(rows)[::-1, None] / max(rows - 1, 1)
        filled = level <= confidence[np.searchsorted(times[1:-1], seconds, side="right")]
        pixels = np.where(filled[..., None], colours, 24).astype(np.uint8)
        pixels[round((1 - threshold) * (rows - 1))] = 150
        self._band = Image.fromarray(pixels)

    def draw(self, image: Array, time: float) -> Array:
        """One upright picture uint8 (H, W, 3) at ``time`` seconds, in the copy's size."""
        width, height = self.size
        picture = Image.fromarray(image).resize(self.size, Image.Resampling.NEAREST)
        top = height - self._band.height
        picture.paste(self._band, (0, top))
        pen = ImageDraw.Draw(picture)
        x = min(round(time / self._seconds * width), width - 1)
        pen.rectangle((x - 1, top, x + 1, height), fill="white")
        y = 4
        for start, end, text, colour in self._labels:
            if start <= time < end:
                box = pen.textbbox((8, y), text, font=self._font)
                pen.rectangle((4, y - 2, box[2] + 4, box[3] + 3), fill=colour)
                pen.text((8, y), text, font=self._font, fill="white")
                y = box[3] + 8
        return np.asarray(picture)


def write_overlay(
    path: str | Path, out: Path, times: Array, confidence: Array, threshold: float, labels: Labels
) -> None:
    """Write the copy (MP4, H.264 and AAC). It starts at zero; pictures and sound keep the times
    between them, and pixels their shape. Nothing is left behind when writing fails."""
    half = out.with_name(out.name + ".part")
    reader = VideoReader(path, stride=1, picks=(0,))
    snippets = iter(reader)
    first = next(snippets)
    height, width = first.pictures[0].shape[:2]
    scale = -(-LEGIBLE // height)  # a whole multiple, and even, as H.264 in its common form needs
    size = tuple(max(2, side * scale // 2 * 2) for side in (width, height))
    overlay = Overlay(size, times, confidence, threshold, labels)
    shown, timed = tee(chain([first], snippets))
    form = {"times": (snippet.start for snippet in timed), "options": ENCODER}
    form |= {"sound_rate": SOUND_RATE, "layout": "stereo", "aspect": reader.aspect}
    with Sound(path, rate=SOUND_RATE, channels=2) as sound:
        if sound.present:
            at = lambda n: reader.origin + n / SOUND_RATE  # noqa: E731
            form["wave"] = lambda low, high: sound.window(at(low), at(high))[0]
        try:
            pictures = (overlay.draw(snippet.pictures[0], snippet.start) for snippet in shown)
            write_video(half, pictures, rate=reader.rate, **form)
            half.replace(out)
        finally:
            half.unlink(missing_ok=True)
