"""A copy of a video with its scores drawn in and its sound kept.

At the bottom runs a band that holds the confidence over the whole video, with a mark at the current
time; while an event lasts, its class and score stand at the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from avadclip_lite.video.reader import (
    BrokenVideo,
    open_media,
    picture_stream,
    sound_stream,
    upright,
)

__all__ = ["Label", "Overlay", "annotate"]

TICKS = 90_000  # a second, of the copy's time stamps; frame times survive whatever the rate
LEGIBLE = 240  # pixels of height; smaller pictures are shown larger, so that words fit
SOUND_RATE = 48_000  # the copy's sound is AAC at this rate
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
        place = np.searchsorted(self._times[1:-1], seconds, side="right")
        values = self._confidence[place]
        colours = np.where(
            values[:, None] >= threshold, self._colours(seconds), ImageColor.getrgb(QUIET)
        )
        level = np.arange(height)[::-1, None] / max(height - 1, 1)
        filled = level <= values[None]
        pixels = np.where(filled[..., None], colours[None], 24).astype(np.uint8)
        pixels[round((1 - threshold) * (height - 1))] = 150
        return Image.fromarray(pixels)

    def _colours(self, seconds: np.ndarray) -> np.ndarray:
        colours = np.full((len(seconds), 3), 200)
        for start, end, _, colour in self._labels:
            colours[(seconds >= start) & (seconds < end)] = ImageColor.getrgb(colour)
        return colours

    def draw(self, image: np.ndarray, time: float) -> Image.Image:
        """One upright picture uint8 (H, W, 3) at ``time`` seconds after the first."""
        picture = Image.fromarray(image)
        width, height = self.size
        if picture.size != self.size:
            picture = picture.resize(self.size, Image.Resampling.NEAREST)
        top = height - self._height
        picture.paste(self._band, (0, top))
        pen = ImageDraw.Draw(picture)
        x = min(round(time / self._times[-1] * width), width - 1)
        pen.rectangle((x - 1, top, x + 1, height), fill="white")
        place = int(np.searchsorted(self._times[1:-1], time, side="right"))
        value = f"{self._confidence[place]:.2f}"
        room = pen.textlength(value, font=self._font)
        left = x - room - 5 if x + room + 8 > width else x + 5
        pen.text(
            (left, top), value, fill="white", font=self._font, stroke_width=1, stroke_fill="black"
        )
        y = 4
        for start, end, text, colour in self._labels:
            if start <= time < end:
                box = pen.textbbox((8, y), text, font=self._font)
                pen.rectangle((4, y - 2, box[2] + 4, box[3] + 3), fill=colour)
                pen.text((8, y), text, fill="white", font=self._font)
                y = box[3] + 8
        return picture


def annotate(
    path: str | Path,
    out: str | Path,
    *,
    times: np.ndarray,
    confidence: np.ndarray,
    threshold: float,
    labels: Sequence[Label],
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write the copy (MP4, H.264 and AAC); pictures and sound keep their presentation times.

    ``options`` of the picture encoder; by default good quality at fair speed. Nothing is left
    behind when writing fails.
    """
    out = Path(out)
    half = out.with_name(out.name + ".part")
    overlay = Overlay(_copy_size(_first_picture(path)), times, confidence, threshold, labels)
    try:
        with open_media(path) as source, av.open(str(half), "w", format="mp4") as target:
            stream, sound = picture_stream(source), sound_stream(source)
            stream.thread_type = "AUTO"
            pictures = _Pictures(target, overlay, stream.average_rate, options)
            sounds = None if sound is None else _Sounds(target, sound.channels)
            streams = [stream] if sound is None else [stream, sound]
            for packet in source.demux(streams):
                for frame in _decoded(packet):
                    (pictures if packet.stream is stream else sounds).write(frame)
            pictures.finish()
            if sounds is not None:
                sounds.finish()
        half.replace(out)
    finally:
        half.unlink(missing_ok=True)
    return out


class _Pictures:
    """Draws over pictures and encodes them at their own times."""

    def __init__(
        self,
        target: av.container.OutputContainer,
        overlay: Overlay,
        rate: Fraction | None,
        options: Mapping[str, str] | None,
    ) -> None:
        self._target, self._overlay = target, overlay
        self._stream = target.add_stream("libx264", rate=rate or Fraction(25))
        self._stream.width, self._stream.height = overlay.size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._stream.options = dict(options or {"crf": "20", "preset": "veryfast"})
        self._step = round(TICKS / (rate or 25))
        self._first = self._last = None

    def write(self, frame: av.VideoFrame) -> None:
        if self._last is None:
            stamp = self._first = round((frame.time or 0.0) * TICKS)
        elif frame.time is None:
            stamp = self._last + self._step
        else:
            stamp = max(round(frame.time * TICKS), self._last + 1)
        self._last = stamp
        drawn = self._overlay.draw(upright(frame), (stamp - self._first) / TICKS)
        copy = av.VideoFrame.from_image(drawn)
        copy.pts, copy.time_base = stamp, Fraction(1, TICKS)
        self._target.mux(self._stream.encode(copy))

    def finish(self) -> None:
        self._target.mux(self._stream.encode(None))


class _Sounds:
    """Encodes sound anew at its own times; not every codec may stand in an MP4."""

    def __init__(self, target: av.container.OutputContainer, channels: int) -> None:
        layout = "mono" if channels == 1 else "stereo"
        self._target = target
        self._stream = target.add_stream("aac", rate=SOUND_RATE, layout=layout)
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=SOUND_RATE)

    def write(self, frame: av.AudioFrame | None) -> None:
        for piece in self._resampler.resample(frame):
            self._target.mux(self._stream.encode(piece))

    def finish(self) -> None:
        self.write(None)
        self._target.mux(self._stream.encode(None))


def _copy_size(image: np.ndarray) -> tuple[int, int]:
    """Width and height of the copy: a whole multiple, and even, as H.264 in its common form
    needs."""
    times = -(-LEGIBLE // image.shape[0])
    width, height = (max(2, side * times // 2 * 2) for side in image.shape[1::-1])
    return width, height


def _decoded(packet: av.Packet) -> list[av.VideoFrame] | list[av.AudioFrame]:
    try:
        return packet.decode()
    except av.FFmpegError:
        return []  # damaged: extraction has told of it


def _first_picture(path: str | Path) -> np.ndarray:
    with open_media(path) as source:
        stream = picture_stream(source)
        for packet in source.demux(stream):
            for frame in _decoded(packet):
                return upright(frame)
    raise BrokenVideo(f"{path} holds no picture that can be decoded")
