"""Video files made for the tests: what is seen and heard, and when, is known exactly."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CLICK_SECONDS = 0.012


def click(rate: int) -> np.ndarray:
    """A short burst of 2 kHz under a bell, its middle at ``CLICK_SECONDS / 2``."""
    t = np.arange(round(CLICK_SECONDS * rate)) / rate - CLICK_SECONDS / 2
    return (0.8 * np.cos(2 * np.pi * 2000 * t) * np.exp(-((t / 0.002) ** 2))).astype(np.float32)


def find_click(wave: np.ndarray, rate: int) -> float:
    """Seconds from the start of ``wave`` to the middle of its loudest click."""
    match = np.abs(np.correlate(wave, click(rate), mode="full"))
    return (int(match.argmax()) - len(click(rate)) + 1) / rate + CLICK_SECONDS / 2


def flat(value: int, size: tuple[int, int]) -> np.ndarray:
    """One grey level, (height, width, 3)."""
    return np.full((size[1], size[0], 3), value, np.uint8)


def clip_wave(
    seconds: float, rate: int, clicks: Sequence[float], offset: float = 0.0, noise: float = 1e-3
) -> np.ndarray:
    """Faint noise from container time ``offset`` on, with clicks at container times."""
    wave = np.random.default_rng(0).normal(0, noise, round(seconds * rate)).astype(np.float32)
    shape = click(rate)
    for when in clicks:
        first = round((when - offset - CLICK_SECONDS / 2) * rate)
        low, high = max(first, 0), min(first + len(shape), len(wave))
        if low < high:
            wave[low:high] += shape[low - first : high - first]
    return wave


def write_clip(
    path: Path,
    *,
    times: Sequence[float] | None = None,
    rate: Fraction = Fraction(25),
    seconds: float = 4.0,
    size: tuple[int, int] = (64, 48),
    picture: Callable[[int], np.ndarray] | None = None,
    flash_frames: Sequence[int] = (),
    video_codec: str = "libx264",
    video_options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    video_offset: float = 0.0,
    rotation: int = 0,
    wave: np.ndarray | None = None,
    sample_rate: int = 44100,
    channels: int = 2,
    audio_codec: str = "aac",
    audio_offset: float = 0.0,
    gap: tuple[float, float] = (0.0, 0.0),
    options: dict[str, str] | None = None,
) -> list[float]:
    """Write a clip and return the presentation time of each frame (container seconds).

    Frames are dark grey, white at ``flash_frames``, or whatever ``picture(k)`` returns. ``times``
    (seconds, from 0) make the frame rate variable; otherwise it is ``rate``. ``wave`` is mono and
    goes to every channel, its first sample at ``audio_offset``; the samples of the container
    times in ``gap`` are left out of the file. ``options`` are the container's.
    """
    if times is None:
        count = round(seconds * rate)
        base, stamps = 1 / rate, [k + round(video_offset * rate) for k in range(count)]
    else:
        base = Fraction(1, 90000)
        stamps = [round((t + video_offset) * 90000) for t in times]
    if picture is None:
        flashes = set(flash_frames)

        def picture(k: int) -> np.ndarray:
            return flat(255 if k in flashes else 40, size)

    with av.open(str(path), "w", options=options or {}) as out:
        video = out.add_stream(video_codec, rate=rate, options=video_options or {})
        video.width, video.height, video.pix_fmt = *size, pixels
        video.codec_context.time_base = base
        if rotation:
            video.set_display_rotation(rotation)
        audio = None
        if wave is not None:
            layout = "mono" if channels == 1 else "stereo"
            audio = out.add_stream(audio_codec, rate=sample_rate, layout=layout)
        packets = []
        for k, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            frame.pts, frame.time_base = stamp, base
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio is not None:
            packets += _audio_packets(audio, wave, sample_rate, channels, audio_offset, gap)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return [float(stamp * base) for stamp in stamps]


def _audio_packets(
    stream: av.AudioStream,
    wave: np.ndarray,
    rate: int,
    channels: int,
    offset: float,
    gap: tuple[float, float],
) -> list[av.Packet]:
    packets, first = [], round(offset * rate)
    context = stream.codec_context
    layout = "mono" if channels == 1 else "stereo"
    resampler = av.AudioResampler(format=context.format.name, layout=layout, rate=rate)
    for start in range(0, len(wave), 1024):
        if gap[0] <= offset + start / rate < gap[1]:
            continue
        part = np.repeat(wave[None, start : start + 1024], channels, axis=0)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), "fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, first + start
        frame.time_base = Fraction(1, rate)
        for converted in resampler.resample(frame):
            packets += stream.encode(converted)
    return packets + stream.encode(None)


def set_matrix(path: Path, matrix: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    """Write a display matrix (a, b, c, d) into the first track of an MP4: a point (x, y) is shown
    at (a x + c y, b x + d y), moved back into the picture."""
    a, b, c, d = matrix
    width, height = size
    data = bytearray(path.read_bytes())
    head = data.find(b"tkhd") + 4
    at = head + (32 if data[head] else 20) + 20
    back = (min(a, 0) * width + min(c, 0) * height, min(b, 0) * width + min(d, 0) * height)
    moved = [-value << 16 for value in back]
    one = [value << 16 for value in (a, b, c, d)]
    data[at : at + 36] = struct.pack(">9i", one[0], one[1], 0, one[2], one[3], 0, *moved, 1 << 30)
    path.write_bytes(data)


def join(path: Path, *parts: Path) -> Path:
    """Recordings joined end to end, as ``cat`` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def damage(path: Path, share: float = 0.5, length: int = 2000) -> Path:
    """Overwrite bytes in the middle with noise."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * share)
    noise = np.random.default_rng(1).integers(0, 256, min(length, len(data) - at), np.uint8)
    data[at : at + len(noise)] = noise.tobytes()
    path.write_bytes(data)
    return path


def write_tracks(
    path: Path,
    tracks: Sequence[tuple[np.ndarray, dict]],
    *,
    layout: str = "mono",
    rate: int = 16000,
    codec: str = "aac",
    seconds: float = 2.0,
) -> Path:
    """A dark video with several sound tracks: (channels, samples) each, and what is told of it
    ("language", "default")."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        sounds = []
        for _, about in tracks:
            sound = out.add_stream(codec, rate=rate, layout=layout)
            if "language" in about:
                sound.metadata["language"] = about["language"]
            if about.get("default"):
                sound.disposition = av.stream.Disposition.default
            sounds.append(sound)
        for k in range(round(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(flat(40, (32, 32)), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(video.encode(frame))
        for sound, (wave, _) in zip(sounds, tracks, strict=True):
            form = sound.codec_context.format.name
            resampler = av.AudioResampler(format=form, layout=layout, rate=rate)
            for start in range(0, wave.shape[1], 1024):
                part = np.ascontiguousarray(wave[:, start : start + 1024].T, np.float32)
                piece = av.AudioFrame.from_ndarray(part.reshape(1, -1), "flt", layout=layout)
                piece.sample_rate, piece.pts = rate, start
                for ready in resampler.resample(piece):
                    out.mux(sound.encode(ready))
            out.mux(sound.encode(None))
        out.mux(video.encode(None))
    return path
