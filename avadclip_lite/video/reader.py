"""Video files: pictures and sound by their real presentation times, with bounded memory.

    for snippet in read_snippets("film.mp4", stride=16, picks=(8,)):
        snippet.start, snippet.end        # seconds from the first picture
        snippet.pictures                  # the picked frames, uint8 (H, W, 3), upright

    sound = Sound("film.mp4")
    sound.window(2.0, 2.5)                # mono 16 kHz, exactly the samples of these seconds

Time is the container's presentation time, so that a stream that starts late, a frame rate that
varies and an edit list all mean here what they mean to a player. Pictures and sound are read by
two readers of one file that only move forward: how the file interleaves them does not matter, and
neither keeps more than one snippet (bound: the frames in the decoder, the picked pictures of one
snippet, and at most ``MAX_WINDOW`` seconds of sound).

What cannot be read raises ``BrokenVideo`` with one sentence that names the file.
"""

from __future__ import annotations

import errno
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Discard, Disposition

from avadclip_lite.config import SAMPLE_RATE

__all__ = [
    "MAX_WINDOW",
    "BrokenVideo",
    "Snippet",
    "Sound",
    "VideoReader",
    "open_media",
    "picture_stream",
    "pictures_at",
    "sound_stream",
    "upright",
    "write_video",
]

MAX_WINDOW = 60.0  # seconds of sound that one snippet can have; time-lapse has longer snippets
GAP = 0.02  # seconds; a larger jump between sound time stamps is a gap, a smaller one is rounding
FALLBACK_RATE = 25.0  # frames a second of a stream that has neither time stamps nor a rate


class BrokenVideo(ValueError):
    """A file that holds no video, or none that can be decoded."""


def open_media(path: str | Path) -> av.container.InputContainer:
    """Open a local file for decoding.

    Raises ``FileNotFoundError``, or ``BrokenVideo`` for a folder, an empty file, one that must not
    be read, and one that is no audio or video file.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise BrokenVideo(f"{path} is a folder; give a video file")
        if size == 0:
            raise BrokenVideo(f"{path} is empty (0 bytes); copy or download it again")
        with path.open("rb"):
            pass  # the operating system's answer is clearer than FFmpeg's
        # a plain name with a colon in it would be taken for a protocol
        return av.open(f"file:{os.fspath(path)}", metadata_errors="replace")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except PermissionError:
        raise BrokenVideo(f"{path} must not be read by this user; change its permissions") from None
    except av.FFmpegError as error:
        raise BrokenVideo(
            f"{path} is not a video that FFmpeg can open ({_reason(error)}); it may be cut off or "
            "of another type than its name says"
        ) from None
    except OSError as error:
        raise BrokenVideo(f"{path} cannot be read ({_reason(error)})") from None


def picture_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first moving picture (a cover image is none); ``BrokenVideo`` if there is none."""
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise BrokenVideo(f"{_name(container)} is coded in a way this FFmpeg cannot decode")
        return stream
    kinds = sorted({stream.type for stream in container.streams}) or ["no stream"]
    raise BrokenVideo(f"{_name(container)} holds no video (only {', '.join(kinds)})")


def sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The sound track that a player would choose, or None."""
    stream = container.streams.best("audio")
    return stream if stream is not None and stream.codec_context is not None else None


def upright(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame of any pixel format as uint8 (H, W, 3), turned as its rotation mark says."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # counterclockwise, as np.rot90 counts
    return np.ascontiguousarray(np.rot90(image, turns))


def pictures_at(path: str | Path, times: Sequence[float]) -> list[np.ndarray]:
    """The pictures that a player shows at these container times (seconds), upright uint8
    (H, W, 3), in the order asked for; the nearest there is where the file ends before."""
    found: dict[float, np.ndarray] = {}
    with open_media(path) as container:
        stream = picture_stream(container)
        for time in sorted(set(times)):
            try:
                container.seek(max(round(time * av.time_base), 0), backward=True)
            except av.FFmpegError:
                pass  # a format without an index: go on from where we are
            shown = None
            for frame in container.decode(stream):
                if shown is not None and (frame.time or 0.0) > time + 1e-6:
                    break
                shown = frame
            if shown is None:
                raise BrokenVideo(f"{path} shows no picture at {time:.2f} s")
            found[time] = upright(shown)
    return [found[time] for time in times]


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    *,
    rate: Fraction | float,
    wave: np.ndarray | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write an MP4 (H.264, AAC) that any player shows: pictures uint8 (H, W, 3) with even sides,
    ``rate`` a second, and ``wave (samples,)`` at 16 kHz from the first picture on.

    ``options`` of the picture encoder; by default nearly lossless.
    """
    rate = Fraction(rate).limit_denominator(1001)
    block = 1024  # samples that AAC codes at a time
    with av.open(f"file:{os.fspath(path)}", "w", format="mp4") as out:
        picture = out.add_stream("libx264", rate=rate, options=dict(options or {"crf": "12"}))
        sound = None if wave is None else out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        heard = 0  # samples written
        for k, image in enumerate(frames):
            if k == 0:
                picture.height, picture.width = image.shape[:2]
                picture.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = k, 1 / rate
            out.mux(picture.encode(frame))
            # sound goes along with the pictures, so that the file can be played while it loads
            while sound is not None and heard < min(len(wave), (k + 1) / rate * SAMPLE_RATE):
                part = np.ascontiguousarray(wave[heard : heard + block], np.float32)
                piece = av.AudioFrame.from_ndarray(part[None], format="fltp", layout="mono")
                piece.sample_rate, piece.pts = SAMPLE_RATE, heard
                out.mux(sound.encode(piece))
                heard += len(part)
        for stream in (picture, sound):
            if stream is not None:
                out.mux(stream.encode(None))
    return Path(path)


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """``stride`` consecutive frames of a video."""

    start: float  # seconds from the video's first frame
    end: float  # the next snippet's start; the last frame's end for the last snippet
    frames: int
    pictures: tuple[np.ndarray, ...]  # one a pick, whatever ``convert`` made of it


class VideoReader:
    """The pictures of a file, in snippets of ``stride`` frames.

    Snippet k covers the frames [k x stride, (k + 1) x stride). As in the released features the
    frames after the last full snippet are left out; only a video shorter than one snippet becomes
    a (short) snippet of its own.

    ``picks``: which frames of a snippet are converted, as offsets below ``stride``.
    ``convert``: what is kept of a picked frame, an upright uint8 (H, W, 3).
    ``threads``: of the decoder, 0 for as many as there are cores.

    ``declared`` frames and ``declared_end`` (container time, seconds) are what the file says, 0
    and None if it does not. After reading: ``frames`` (all decoded), ``damaged`` (packets that
    could not be decoded), ``origin`` (container time of the first frame, seconds), ``note()``.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        stride: int,
        picks: Sequence[int],
        convert: Callable[[np.ndarray], np.ndarray] = lambda image: image,
        threads: int = 0,
    ) -> None:
        if stride < 1 or not picks or not all(0 <= pick < stride for pick in picks):
            raise ValueError(f"picks must be offsets in 0..{stride - 1}, got {tuple(picks)}")
        self.path, self.stride, self.picks = Path(path), stride, tuple(sorted(picks))
        self._convert = convert
        self._container = open_media(path)
        self._stream = picture_stream(self._container)
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = threads
        self.declared = self._stream.frames  # 0: the container does not say
        self.declared_end = _declared_end(self._stream)
        self.frames = self.damaged = 0
        self.origin = self._last = self._step = 0.0

    def __iter__(self) -> Iterator[Snippet]:
        with self._container:
            yield from self._snippets()

    def _snippets(self) -> Iterator[Snippet]:
        pictures: list[np.ndarray] = []
        start, held = 0.0, None  # of the snippet that is being gathered; its last frame
        for time, frame in self._timed():
            place = self.frames % self.stride
            if place == 0:
                if self.frames:
                    yield self._snippet(start, time, pictures)
                start, pictures = time, []
            if place in self.picks:
                pictures.append(self._convert(upright(frame)))
            self.frames += 1
            held = frame if self.frames < self.stride else None
        if not self.frames:
            raise BrokenVideo(
                f"{self.path} holds a video stream but no picture that can be decoded"
            )
        if self.frames % self.stride == 0:
            yield self._snippet(start, self.end, pictures)
        elif self.frames < self.stride:
            last = self._convert(upright(held))
            pictures += [last] * (len(self.picks) - len(pictures))
            yield self._snippet(start, self.end, pictures)

    @property
    def end(self) -> float:
        """When the last decoded frame ends, seconds from the first frame."""
        return self._last + self._step

    def _snippet(self, start: float, end: float, pictures: list[np.ndarray]) -> Snippet:
        count = min(self.frames, self.stride)
        return Snippet(start=start, end=end, frames=count, pictures=tuple(pictures))

    def _timed(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Frames with seconds since the first; a missing time stamp is one step after its
        predecessor, one that goes back is as late as it."""
        rate = self._stream.average_rate or self._stream.guessed_rate or FALLBACK_RATE
        self._step = 1 / float(rate)
        first: float | None = None
        for frame in self._decode(self._stream):
            time = frame.time
            if first is None:
                first = self.origin = 0.0 if time is None else time
            elif time is None:
                time = first + self._last + self._step
            now = max((first if time is None else time) - first, self._last)
            if now > self._last:
                self._step = now - self._last
            self._last = now
            yield now, frame

    def _decode(self, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        for packet in _packets(self._container, stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self.damaged += 1

    def note(self) -> str:
        """One phrase about pictures that are missing, or nothing."""
        lost = self.declared - self.frames
        if lost > 1:  # one off is how containers count
            return f"only {self.frames} of {self.declared} frames could be decoded"
        declared = (self.declared_end or 0.0) - self.origin
        if not self.declared and self.end + 1.0 < declared:
            return f"the pictures end after {self.end:.1f} of {declared:.1f} s"
        if self.damaged:
            return f"{self.damaged} damaged packets skipped"
        return ""


class Sound:
    """The sound of a file as mono 16 kHz, asked for in windows that only move forward.

    Sample n stands for container time n / 16000; where the file has no sound (before it starts,
    in a gap, after its end) a window is zero.

    Attributes: ``present``, ``declared_end`` (container time in seconds at which the track ends as
    the file says, or None); after reading ``first`` and ``last`` (container times in seconds of
    what was decoded; None before any), ``over`` (there is no more of it), ``peak`` (largest
    magnitude), ``damaged`` (packets).
    """

    def __init__(self, path: str | Path) -> None:
        self._container = open_media(path)
        self._stream = sound_stream(self._container)
        self.present = self._stream is not None
        self.declared_end = _declared_end(self._stream) if self._stream is not None else None
        self.first: float | None = None
        self.last: float | None = None
        self.peak, self.damaged = 0.0, 0
        self._pieces: deque[tuple[int, np.ndarray]] = deque()  # (first sample, samples)
        self._source = self._decode() if self.present else iter(())
        self._end = 0  # sample after the last piece
        self.over = not self.present

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Sound:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def window(self, start: float, end: float) -> tuple[np.ndarray, float]:
        """The samples of container time [start, end), cut to ``MAX_WINDOW`` seconds, and the
        share of them for which the file has sound. ``start`` must not go back."""
        low = round(start * SAMPLE_RATE)
        high = max(round(min(end, start + MAX_WINDOW) * SAMPLE_RATE), low + 1)
        out = np.zeros(high - low, np.float32)
        self._skip(low)
        while self._end < high and not self.over:
            self._read()
            self._skip(low)
        covered = 0
        for first, piece in self._pieces:
            a, b = max(first, low), min(first + len(piece), high)
            if a < b:
                out[a - low : b - low] = piece[a - first : b - first]
                covered += b - a
        return out, covered / len(out)

    def _skip(self, low: int) -> None:
        while self._pieces and self._pieces[0][0] + len(self._pieces[0][1]) <= low:
            self._pieces.popleft()

    def _read(self) -> None:
        try:
            first, piece = next(self._source)
        except StopIteration:
            self.over = True
            return
        self._pieces.append((first, piece))
        self._end = first + len(piece)
        if self.first is None:
            self.first = first / SAMPLE_RATE
        self.last = self._end / SAMPLE_RATE
        self.peak = max(self.peak, float(np.abs(piece).max()))

    def _decode(self) -> Iterator[tuple[int, np.ndarray]]:
        """Pieces (first sample, samples) that follow one another without overlap.

        Samples are counted, not placed by each frame's time stamp, which containers round; only a
        jump of more than ``GAP`` starts counting anew.
        """
        resampler, form = None, None
        place, due = 0, 0.0  # next sample to come out; time at which the next frame should start
        for packet in _packets(self._container, self._stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.damaged += 1
                continue
            for frame in frames:
                now = (frame.format.name, frame.layout.name, frame.sample_rate)
                time = due if frame.time is None else frame.time
                jump = resampler is None or time > due + GAP
                if jump or now != form:
                    for piece in _resample(resampler, None):
                        yield place, piece
                        place += len(piece)
                    resampler, form = _resampler(), now
                    place = max(round((time if jump else due) * SAMPLE_RATE), place)
                    due = time if jump else due
                due += frame.samples / frame.sample_rate
                frame.pts = None  # the resampler need not know
                for piece in _resample(resampler, frame):
                    yield place, piece
                    place += len(piece)
        for piece in _resample(resampler, None):
            yield place, piece
            place += len(piece)


def _resampler() -> av.AudioResampler:
    """Channels stay apart: FFmpeg's own mix to mono is 3 dB louder for codecs that decode to
    floating point than for those that decode to integers."""
    return av.AudioResampler(format="fltp", rate=SAMPLE_RATE)


def _resample(
    resampler: av.AudioResampler | None, frame: av.AudioFrame | None
) -> Iterator[np.ndarray]:
    """What comes out for a frame, or at the end (None): the mean of the channels."""
    for out in resampler.resample(frame) if resampler is not None else ():
        if out.samples:
            yield out.to_ndarray().mean(axis=0)


def _packets(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator:
    """The packets of one stream; where the file breaks off they end."""
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    source = container.demux(stream)
    while True:
        try:
            yield next(source)
        except (StopIteration, av.FFmpegError):
            return


def _declared_end(stream: av.stream.Stream) -> float | None:
    """Container time at which a stream ends as the file says (Matroska: in a tag), in seconds."""
    if stream.duration is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    match = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if match is None:
        return None
    hours, minutes, seconds = (float(part) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _name(container: av.container.InputContainer) -> str:
    return container.name.removeprefix("file:")


def _reason(error: OSError) -> str:
    return error.strerror or errno.errorcode.get(error.errno or 0, str(error))
