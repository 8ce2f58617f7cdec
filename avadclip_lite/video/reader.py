"""Video files: pictures and sound by their real presentation times, with bounded memory.

    for snippet in VideoReader("film.mp4", stride=16, picks=(8,)):
        snippet.start, snippet.end, snippet.pictures    # seconds from the first picture
    Sound("film.mp4").window(2.0, 2.5)                  # exactly the samples of these seconds
    frames, rate, wave = read_clip("clip.mp4")          # a short clip as a whole

Late streams, varying frame rates and edit lists mean here what they mean to a player. Recordings
joined end to end, whose time stamps start anew, go on where the one before ended. Pictures and
sound are read apart, forward only, and neither keeps more than what it was asked for last.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.stream import Discard, Disposition

from avadclip_lite.config import SAMPLE_RATE

GAP = 0.02  # seconds; a larger jump between sound's time stamps is a gap, else rounding
FALLBACK_RATE = 25.0  # frames a second of a stream that has neither time stamps nor a rate
PAUSE = 0.5  # seconds without a new picture that are told
BACK, FORWARD = 0.5, 10.0  # seconds that time stamps jump where recordings were joined
CANCELLED = 0.01  # share of the loudest channel's energy below which a mix has lost the sound
# what a channel adds to mono, as ITU-R BS.775 mixes down; those not named here add 0.5
MIX = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0}
TICKS = 90_000  # a second, of time stamps that are written
CODED = 1024  # samples that AAC codes at a time


class BrokenVideo(ValueError):
    """A file that holds no video, or none that can be decoded."""


def printable(path: str | Path) -> str:
    """A path as text: bytes that are not UTF-8 become ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def clock(seconds: float) -> str:
    """12.3 -> "00:00:12.3"."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{tenths // 10:02d}.{tenths % 10}"


def longest(what: str, gaps: Sequence[tuple[float, float]]) -> str:
    """How many gaps (length, start in seconds) there are, and the longest, in words."""
    length, start = max(gaps)
    times = f" {len(gaps)} times, longest" if len(gaps) > 1 else ""
    return f"{what}{times} for {length:.1f} s at {clock(start)}"


class Media:
    """A file opened for decoding: its moving picture and the sound track that a player takes.

    ``damaged`` counts what could not be decoded whole, ``joins`` where time stamps start anew;
    ``track`` says which of several sound tracks is read. Raises ``FileNotFoundError``, or
    ``BrokenVideo`` for what cannot be opened.
    """

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        self.name = printable(path)
        self._container = _open(Path(path), self.name)
        streams, cover = self._container.streams, Disposition.attached_pic
        self._picture = next((s for s in streams.video if not s.disposition & cover), None)
        self.sound = streams.best("audio")
        if self.sound is not None and self.sound.codec_context is None:
            self.sound = None
        if self._picture is not None and self._picture.codec_context is not None:
            self._picture.thread_type = "AUTO"
            self._picture.codec_context.thread_count = threads
            self._picture.codec_context.options = {"err_detect": "buffer"}  # WMV conceals damage
        self.track = _track(self._container, self.sound)
        self.damaged = self.joins = self.reached = 0  # reached: byte of the file

    def close(self) -> None:  # its streams must not be asked any more
        self._container.close()

    @property
    def picture(self) -> av.VideoStream:
        """The first moving picture (a cover image is none); ``BrokenVideo`` if there is none."""
        if self._picture is None:
            kinds = ", ".join(sorted({s.type for s in self._container.streams})) or "no stream"
            raise BrokenVideo(f"{self.name} holds no video (only {kinds})")
        if self._picture.codec_context is None:
            raise BrokenVideo(f"{self.name} is coded in a way this FFmpeg cannot decode")
        return self._picture

    def frames(
        self, wanted: av.stream.Stream, start: float | None = None
    ) -> Iterator[av.VideoFrame | av.AudioFrame]:
        """The decoded frames of a stream, times on one clock; from about container time ``start``
        on, where the format has an index."""
        if start is not None:
            # a seek into a program stream gives the rest of a picture the next one's time
            start -= 3 if self._container.format.name == "mpeg" else 0
            try:
                self._container.seek(max(round(start * av.time_base), 0), backward=True)
            except av.FFmpegError:
                pass  # go on from where we are
        for packet in self._on_one_clock(wanted):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.damaged += 1
                continue
            self.damaged += packet.is_corrupt or any(frame.is_corrupt for frame in frames)
            yield from frames

    def _on_one_clock(self, wanted: av.stream.Stream) -> Iterator[av.Packet]:
        """The packets of a stream. Where time stamps jump as those of joined recordings do, they
        are shifted so that they go on, and the other stream follows by the same shift."""
        jumpy = bool(self._container.format.flags & av.format.Flags.ts_discont.value)
        shifts, current, ends, kind = [0.0], {}, {}, wanted.type
        for packet in self._demux(wanted):
            index, base = packet.stream_index, packet.time_base
            shift = current.get(index, shifts[-1])
            if packet.dts is not None:
                now = float(packet.dts * base)
                last, end = ends.get(index, (now + shift, now + shift))  # of this stream so far
                latest = max((other for _, other in ends.values()), default=end)
                if now + shift < last - BACK or (jumpy and now + shift > latest + FORWARD):
                    # the other stream may have told how far already
                    at = range(round(end - 1), round(latest + FORWARD))
                    known = [s for s in shifts if s != shift and round(now + s) in at]
                    shift = known[-1] if known else (end if end > latest - 1 else latest) - now
                    if not known:
                        shifts.append(shift)
                        self.joins += 1
                current[index] = shift
                ends[index] = now + shift, now + shift + float((packet.duration or 0) * base)
                packet.dts += round(shift / base)
            if packet.pts is not None:
                packet.pts += round(shift / base)
            # a join may change a stream's kind; what ends it has no size
            if packet.stream is wanted and (kind == wanted.type or not packet.size):
                yield packet

    def _demux(self, wanted: av.stream.Stream) -> Iterator[av.Packet]:
        """Packets, of the other stream too where joins may be, past what cannot be read."""
        streams = [wanted]
        if "mp4" not in self._container.format.name:  # which has one table of times
            streams = [s for s in (self._picture, self.sound) if s is not None]
        for other in self._container.streams:
            other.discard = Discard.default if other in streams else Discard.all
        failures, sized = 0, self._container.format.name != "gif"  # whose last is the whole rest
        while failures < 16:
            try:
                for packet in self._container.demux(streams):
                    failures = 0
                    if packet.pos:
                        self.reached = max(self.reached, packet.pos + sized * packet.size)
                    if packet.size or packet.dts is None:  # an empty picture is not the end
                        yield packet
                return
            except (av.FFmpegError, IndexError):  # damage may look like another stream to it
                failures += 1
                self.damaged += failures == 1


def _open(path: Path, name: str) -> av.container.InputContainer:
    try:
        if path.is_dir():
            raise BrokenVideo(f"{name} is a folder; give a video file")
        if path.exists() and not path.is_file():  # opening a pipe would wait for who writes
            raise BrokenVideo(f"{name} is a pipe or a device; save what it gives as a file")
        with path.open("rb") as file:  # the system's answer is clearer than FFmpeg's
            if not file.read(1):
                raise BrokenVideo(f"{name} is empty (0 bytes); copy or download it again")
        # a plain name with a colon in it would be taken for a protocol; FFmpeg is told names in
        # UTF-8 only, other names are opened here
        source = f"file:{path}" if os.fsencode(path) == name.encode() else path.open("rb")
        return av.open(source, metadata_errors="replace")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {name}; check the path") from None
    except PermissionError:
        raise BrokenVideo(f"{name} must not be read by this user; change its permissions") from None
    except av.FFmpegError as error:
        why = f"({error.strerror}); it may be cut off or of another type than its name says"
        raise BrokenVideo(f"{name} is not a video that FFmpeg can open {why}") from None
    except OSError as error:
        raise BrokenVideo(f"{name} cannot be read ({error.strerror})") from None


def _track(container: av.container.InputContainer, taken: av.AudioStream | None) -> str:
    """Which of several sound tracks is read, in words; nothing where there is one."""
    tracks = [stream.index for stream in container.streams.audio]
    if taken is None or len(tracks) < 2:
        return ""
    which = f"sound track {tracks.index(taken.index) + 1} of {len(tracks)}"
    return f"{which} ({taken.metadata.get('language', 'und')}) is taken, as players do"


def _declared_end(stream: av.stream.Stream) -> float | None:
    """Container time at which a stream ends as the file says (Matroska: in a tag), in seconds."""
    if stream.duration is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    match = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    return match and sum(float(n) * by for n, by in zip(match.groups(), (3600, 60, 1), strict=True))


def upright(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame of any pixel format as uint8 (H, W, 3), turned and mirrored as marked."""
    image = frame.to_ndarray(format="rgb24")
    turned, x, y = _display(frame)
    return np.ascontiguousarray((image.swapaxes(0, 1) if turned else image)[::y, ::x])


def _display(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """Whether width and height are exchanged; -1 where x is mirrored, and where y is."""
    marks = frame.side_data.get(Type.DISPLAYMATRIX)
    if marks is None:
        return False, 1, 1
    # a point (x, y) is shown at (a x + c y, b x + d y)
    a, b, _, c, d = np.frombuffer(bytes(marks), np.int32)[:5].astype(float)
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    x, y = (c, b) if turned else (a, d)
    return turned, -1 if x < 0 else 1, -1 if y < 0 else 1


def pictures_at(path: str | Path, times: Sequence[float], *, seek: bool = True) -> list[np.ndarray]:
    """The pictures that a player shows at these container times (seconds), upright uint8
    (H, W, 3), in the order asked for; the nearest there is before the first. ``seek=False`` is for
    joined recordings, whose times no index knows."""
    found: dict[float, np.ndarray] = {}
    for start in (True, False) if seek else (False,):
        media = Media(path)
        left = [time for time in sorted(set(times)) if time not in found]
        for some in [[time] for time in left] if start else [left]:
            found |= _shown(media, some, seek=start)
        media.close()
    if not found.keys() >= set(times):
        raise BrokenVideo(f"{media.name} holds no picture that can be decoded")
    return [found[time] for time in times]


def _shown(media: Media, times: list[float], *, seek: bool) -> dict[float, np.ndarray]:
    """The picture shown at each of the rising ``times``; nothing where seeking came out behind."""
    found, shown, left = {}, None, deque(times)
    for frame in media.frames(media.picture, times[0] if seek and times else None):
        while left and (frame.time or 0.0) > left[0] + 1e-6:
            if seek and shown is None:
                return found
            found[left.popleft()] = upright(shown or frame)
        if not left:
            break
        shown = frame
    return found if shown is None else found | {time: upright(shown) for time in left}


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """What is decoded for ``stride`` consecutive frames of a video."""

    start: float  # seconds from the video's first frame
    end: float  # the next snippet's start; the last frame's end for the last snippet
    pictures: tuple[np.ndarray, ...]  # one a pick, whatever ``convert`` made of it


class VideoReader:
    """The pictures of a file, in snippets of ``stride`` frames. As in the released features frames
    after the last full snippet are left out; only a shorter video is a (short) snippet of its own.

    ``picks``: which frames of a snippet are converted, as offsets. ``convert``: what is kept of an
    upright uint8 (H, W, 3). ``threads``: of the decoder, 0 for one a core.

    ``rate``: frames a second on average. After the first snippet: ``origin`` (container time of
    the first frame, seconds), ``aspect`` (of a pixel, width by height). After reading: ``frames``
    (all decoded), ``end``, ``notes()``.
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
        self.path, self.stride, self._convert = path, stride, convert
        self.picks = tuple(sorted(picks))
        self.media = Media(path, threads=threads)
        stream = self.media.picture
        self.rate = float(stream.average_rate or stream.guessed_rate or FALLBACK_RATE)
        self.aspect = Fraction(stream.codec_context.sample_aspect_ratio or 1)
        # streams of a closed file cannot be asked; 0 and None: it does not say
        self._declared = stream.frames, _declared_end(stream)
        self.frames, self.origin = 0, 0.0
        self._last, self._step = 0.0, 1 / self.rate  # the last frame's start, and how long it lasts
        self._gaps: list[tuple[float, float]] = []  # between pictures: length, start
        self._doubles = 0
        self.sound_left = 0.0  # seconds behind the last picture, as the file says

    def __iter__(self) -> Iterator[Snippet]:
        pictures: list[np.ndarray] = []
        start, held = 0.0, None  # of the snippet that is being gathered; its last frame
        for time, frame in self._timed():
            place = self.frames % self.stride
            if place == 0:
                if self.frames:
                    yield Snippet(start=start, end=time, pictures=tuple(pictures))
                start, pictures = time, []
            if place in self.picks:
                pictures.append(self._convert(upright(frame)))
            self.frames += 1
            held = frame if self.frames < self.stride else None
        self.media.close()
        if not self.frames:
            raise BrokenVideo(f"{self.media.name} holds no picture that can be decoded")
        if held is not None:
            missing = len(self.picks) - len(pictures)
            pictures += [self._convert(upright(held))] * missing
        if held is not None or self.frames % self.stride == 0:
            yield Snippet(start=start, end=self.end, pictures=tuple(pictures))

    @property
    def end(self) -> float:
        """When the last decoded frame ends, seconds from the first frame."""
        return self._last + self._step

    def _timed(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Frames with seconds since the first; where there is no time, one step after the last."""
        first: float | None = None
        for frame in self.media.frames(self.media.picture):
            if first is None:
                first = self.origin = frame.time or 0.0
                self.aspect = 1 / self.aspect if _display(frame)[0] else self.aspect
            now = self._last + self._step if frame.time is None else frame.time - first
            step = max(now - self._last, 0.0)
            if self.frames < 4 and PAUSE < self._step > 4 * step > 0:  # it began with a pause
                self._gaps.append((self._step, self._last - self._step))
                self._step = step
            if self.frames > 1 and step > 1.5 * self._step:  # says nothing of how long one lasts
                self._gaps.append((step, self._last))
            elif step > 0.5 * self._step or self.frames < 2:
                self._step = step or self._step
            else:  # containers that round may put two at one time, and leave out the next
                self._doubles += 1
            self._last += step
            yield self._last, frame

    def notes(self) -> list[str]:
        """What is out of the ordinary about the pictures, in words."""
        notes, joins = [], self.media.joins
        damaged = self.media.damaged - joins  # a join counts as damage in transport streams
        told, declared = self._declared[0], (self._declared[1] or 0.0) - self.origin
        if told - self.frames > 1:  # one off is how containers count
            notes.append(f"only {self.frames} of {told} frames could be decoded")
        elif not told and not joins and self.end + PAUSE < declared:
            notes.append(f"the pictures end after {self.end:.1f} of {declared:.1f} s")
        elif damaged > 0:
            notes.append(f"the pictures are damaged in {damaged} places")
        pauses = [gap for gap in self._gaps if gap[0] > max(PAUSE, 4 * self._step)]
        if pauses:
            notes.append(longest("no new picture", pauses))
        small = len(self._gaps) - len(pauses) - self._doubles
        few = 0 < small < self.frames / 20  # more are a frame rate that varies
        if few and not notes and not joins:
            notes.append(f"pictures are missing in {small} places")
        if joins:
            notes.append(f"time stamps start anew {joins} times: joined recordings")
        size, reached = os.path.getsize(self.path), self.media.reached
        index = 3 / self.frames if Path(self.path).suffix.lower() == ".gif" else 0.4
        # an index, and such sound as is left, weigh less
        if 0 < reached < min((1 - index) * size, size - 32_000 - 200_000 * self.sound_left):
            with open(self.path, "rb") as file:
                file.seek((reached + size) // 2)
                more = file.read(4096).strip(b"\0")  # recorders fill up with zeros
            told = f"the video ends at byte {reached} of {size}: joined recordings, or damage"
            notes += [told] * bool(more)
        return notes


class Sound:
    """The sound of a file, mono at 16 kHz unless asked otherwise (``channels=2``: stereo), in
    windows that only move forward. Sample n stands for container time n / rate; where the file has
    no sound (before it starts, in a gap, after its end) a window is zero.

    ``present``, ``declared_end`` (container time in seconds as the file says, or None); after
    reading ``first`` and ``last`` (container times of what was decoded), ``over`` (there is no
    more), ``peak`` (of any channel), ``cancels`` (channels that cancel each other were met),
    ``gaps`` (length and container time, seconds).
    """

    def __init__(self, path: str | Path, *, rate: int = SAMPLE_RATE, channels: int = 1) -> None:
        self.rate, self.channels = rate, channels
        self.media = Media(path)
        self._stream = self.media.sound
        self.present = self._stream is not None
        self.declared_end = _declared_end(self._stream) if self.present else None
        self.first = self.last = None
        self.peak, self.cancels, self.over = 0.0, False, not self.present
        self.gaps: list[tuple[float, float]] = []
        self._loudest = 0  # the channel that stands for all where they cancel
        self._pieces: deque[tuple[int, np.ndarray]] = deque()  # (first sample, (channels, n))
        self._source = self._decode()
        self._end = self._place = 0  # samples after the last piece read, and the last decoded

    def __enter__(self) -> Sound:
        return self

    def __exit__(self, *_: object) -> None:
        self.media.close()

    def window(self, start: float, end: float) -> tuple[np.ndarray, float]:
        """The samples (n,) of container time [start, end), (2, n) in stereo, and the share of them
        for which the file has sound. ``start`` must not go back."""
        low = round(start * self.rate)
        high = max(round(end * self.rate), low + 1)
        while self._end < high and not self.over:
            self._read()
            while self._pieces and self._pieces[0][0] + self._pieces[0][1].shape[1] <= low:
                self._pieces.popleft()
        out, covered = np.zeros((self.channels, high - low), np.float32), 0
        for first, piece in self._pieces:
            a, b = max(first, low), min(first + piece.shape[1], high)
            if a < b:
                out[:, a - low : b - low] = piece[:, a - first : b - first]
                covered += b - a
        return (out[0] if self.channels == 1 else out), covered / (high - low)

    def _read(self) -> None:
        first, piece = next(self._source, (0, None))
        if piece is None:
            self.over = True
            return
        if first < self._end:  # joined recordings may overlap
            first, piece = self._end, piece[:, self._end - first :]
        if piece.shape[1]:
            self._pieces.append((first, piece))
            self._end = first + piece.shape[1]
            self.first = first / self.rate if self.first is None else self.first
            self.last = self._end / self.rate

    def _decode(self) -> Iterator[tuple[int, np.ndarray]]:
        """Pieces (first sample, samples) one after the other. Samples are counted, not placed by
        each frame's time stamp, which containers round; only a jump of more than ``GAP`` starts
        counting anew."""
        resampler, form, due = None, None, 0.0  # due: when the next frame should start
        for frame in self.media.frames(self._stream):
            now = (frame.format.name, frame.layout.name, frame.sample_rate)
            time = due if frame.time is None else frame.time
            jump = resampler is None or time > due + GAP or time < due - BACK
            if jump and resampler is not None and time > due:
                self.gaps.append((time - due, due))
            if jump or now != form:
                yield from self._resample(resampler, None)
                # channels stay apart for mono: FFmpeg's own mix is 3 dB louder for codecs that
                # decode to floating point than for those that decode to integers
                layout = "stereo" if self.channels == 2 else None
                # "flt": PyAV cannot read the planes of eight channels
                resampler = av.AudioResampler(format="flt", layout=layout, rate=self.rate)
                form = now
                if jump:
                    self._place, due = round(time * self.rate), time
            due += frame.samples / frame.sample_rate
            frame.pts = None  # the resampler need not know
            yield from self._resample(resampler, frame)
        yield from self._resample(resampler, None)

    def _resample(
        self, resampler: av.AudioResampler | None, frame: av.AudioFrame | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """What comes out for a frame, or at the end (None)."""
        for out in resampler.resample(frame) if resampler is not None else ():
            if out.samples:
                wave = out.to_ndarray().reshape(out.samples, -1).T
                self.peak = max(self.peak, float(np.abs(wave).max()))
                yield self._place, wave if self.channels == 2 else self._mono(wave, out.layout)
                self._place += out.samples

    def _mono(self, wave: np.ndarray, layout: av.AudioLayout) -> np.ndarray:
        """(c, n) -> (1, n): the mean of two channels, the usual mix of more; the loudest channel
        where the mix loses what they hold (out of phase, or in none that mixes take)."""
        weights = np.ones(len(wave), np.float32)
        if len(wave) > 2:
            weights = np.array([MIX.get(c.name, 0.5) for c in layout.channels], np.float32)
        mixed = weights @ wave / weights.sum()
        energy = np.einsum("cn,cn->c", wave, wave)
        if mixed @ mixed < CANCELLED * energy.max():
            self.cancels = True
            if energy[self._loudest % len(wave)] < 0.5 * energy.max():
                self._loudest = int(energy.argmax())
            mixed = wave[self._loudest % len(wave)]
        return mixed[None]


def read_clip(path: str | Path) -> tuple[np.ndarray, float, np.ndarray | None]:
    """A short clip as a whole: frames uint8 (N, H, W, 3), frames a second, and the sound of these
    pictures float32 (samples,) at 16 kHz, None without."""
    reader = VideoReader(path, stride=1, picks=(0,))
    frames = np.stack([snippet.pictures[0] for snippet in reader])
    with Sound(path) as sound:
        wave, _ = sound.window(reader.origin, reader.origin + reader.end)
        return frames, reader.rate, wave if sound.present else None


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    *,
    rate: Fraction | float,
    wave: np.ndarray | Callable[[int, int], np.ndarray] | None = None,
    options: Mapping[str, str] | None = None,
    times: Iterable[float] | None = None,
    sound_rate: int = SAMPLE_RATE,
    layout: str = "mono",
    aspect: Fraction = Fraction(1),
) -> Path:
    """Write an MP4 (H.264, AAC) that any player shows: pictures uint8 (H, W, 3) with even sides,
    ``rate`` a second or at their ``times``, and ``wave (samples,)`` from the first picture on, or
    a function of first and end sample that gives (channels, n). ``options`` of the encoder."""
    rate = Fraction(rate).limit_denominator(1001)
    flat = None if wave is None or callable(wave) else np.atleast_2d(np.asarray(wave, np.float32))
    sound = wave if flat is None else lambda low, high: flat[:, low:high]
    times = (k / rate for k in count()) if times is None else times
    # a file opened here: a name may hold a colon, or be no UTF-8
    with open(path, "wb") as file, av.open(file, "w", format="mp4") as out:
        picture = out.add_stream("libx264", rate=rate, options=dict(options or {"crf": "12"}))
        picture.pix_fmt, picture.codec_context.time_base = "yuv420p", Fraction(1, TICKS)
        track = out.add_stream("aac", rate=sound_rate, layout=layout) if sound else None
        stamp, written = -1, 0
        for image, time in zip(frames, times, strict=False):
            if stamp < 0:
                picture.height, picture.width = image.shape[:2]
                picture.codec_context.sample_aspect_ratio = aspect
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            stamp = max(round(time * TICKS), stamp + 1)
            frame.pts, frame.time_base = stamp, Fraction(1, TICKS)
            out.mux(picture.encode(frame))
            # sound goes along with the pictures, so that the file can be played while it loads
            while track is not None and written < (time + 1 / rate) * sound_rate:
                part = np.ascontiguousarray(sound(written, written + CODED), np.float32)
                if not part.shape[1]:
                    break
                piece = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
                piece.sample_rate, piece.pts = sound_rate, written
                out.mux(track.encode(piece))
                written += part.shape[1]
        for stream in filter(None, (picture, track)):
            out.mux(stream.encode(None))
    return Path(path)
