"""How far apart pictures and sound come out of files whose flashes and clicks coincide.

    python tests/benchmarks/alignment_table.py

One clip for each row: four white frames, a click at the presentation time of each. The error is
where the click lies in the sound that extraction hands to the encoder, minus when its flash is
shown; and both must fall into the same snippet.
"""

from __future__ import annotations

import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clips import clip_wave, find_click, write_clip  # noqa: E402

from avadclip_lite.config import SAMPLE_RATE, XD_STRIDE  # noqa: E402
from avadclip_lite.video.reader import Sound, VideoReader  # noqa: E402

FLASHES = (17, 40, 55, 72)
FRAMES = 96
NTSC = Fraction(30000, 1001)
WIDE = (  # container, picture codec, sound codec, frames/s, samples/s, offsets of picture and sound
    ("mp4", "libx264", "aac", Fraction(25), 44100, 0.0, 0.0),
    ("mp4", "libx264", "aac", NTSC, 48000, 0.0, 0.0),
    ("mp4", "libx264", "aac", Fraction(10), 22050, 0.0, 0.0),
    ("mp4", "libx264", "aac", Fraction(60), 16000, 0.0, 0.0),
    ("mp4", "libx264", "aac", Fraction(25), 48000, 0.0, 0.3),
    ("mp4", "libx264", "aac", Fraction(25), 48000, 0.4, 0.0),
    ("mp4", "libx264", "libmp3lame", Fraction(24), 44100, 0.0, 0.0),
    ("mp4", "libx265", "aac", Fraction(24), 44100, 0.0, 0.0),
    ("mp4", "libx264", "aac", None, 44100, 0.0, 0.0),
    ("mov", "libx264", "pcm_s16le", Fraction(50), 32000, 0.0, 0.2),
    ("mkv", "ffv1", "pcm_s16le", Fraction(24), 16000, 0.5, 0.0),
    ("mkv", "libx264", "libopus", NTSC, 48000, 0.0, 0.25),
    ("mkv", "libx264", "aac", None, 44100, 0.0, 0.0),
    ("webm", "libvpx", "libopus", Fraction(15), 48000, 0.0, 0.2),
    ("webm", "libvpx-vp9", "libopus", Fraction(30), 48000, 0.0, 0.0),
    ("avi", "mpeg4", "pcm_s16le", Fraction(25), 44100, 0.0, 0.0),
    ("avi", "mpeg4", "pcm_s16le", NTSC, 11025, 0.0, 0.0),
    ("avi", "mpeg4", "libmp3lame", Fraction(25), 44100, 0.0, 0.0),
    ("ts", "libx264", "aac", Fraction(25), 48000, 0.0, 0.2),
)


def measure(path: Path, case: tuple) -> tuple[float, float, int]:
    """Mean and largest error in milliseconds, and how many of the four pairs share a snippet."""
    _, picture, sound_codec, rate, samples, video_offset, audio_offset = case
    times = None
    if rate is None:  # a phone in changing light
        gaps = np.random.default_rng(0).choice([1 / 30, 1 / 24, 1 / 15], size=FRAMES)
        times = np.concatenate([[0.0], np.cumsum(gaps)[:-1]])
        shown = times
    else:
        video_offset = round(video_offset * rate) / float(rate)
        shown = np.arange(FRAMES) / float(rate)
    clicks = [video_offset + shown[k] for k in FLASHES]
    seconds = shown[-1] + 0.5 + video_offset - audio_offset
    write_clip(
        path,
        times=times,
        rate=rate or Fraction(30),
        seconds=FRAMES / (rate or 30),
        flash_frames=FLASHES,
        video_codec=picture,
        video_options={"x265-params": "log-level=none"} if picture == "libx265" else None,
        audio_codec=sound_codec,
        sample_rate=samples,
        wave=clip_wave(seconds, samples, clicks, audio_offset),
        video_offset=video_offset,
        audio_offset=audio_offset,
    )
    reader = VideoReader(path, stride=XD_STRIDE, picks=range(XD_STRIDE), convert=np.mean)
    snippets = list(reader)
    errors, together = [], 0
    with Sound(path) as sound:
        waves = [
            sound.window(reader.origin + part.start, reader.origin + part.end)[0]
            for part in snippets
        ]
    starts = np.cumsum([0] + [len(wave) for wave in waves])
    whole = np.concatenate(waves)
    for k in FLASHES:
        snippet, place = divmod(k, XD_STRIDE)
        assert snippets[snippet].pictures[place] > 150, "the flash is not where it was drawn"
        low = max(0, round((shown[k] - 0.15) * SAMPLE_RATE))
        found = low / SAMPLE_RATE + find_click(
            whole[low : low + round(0.3 * SAMPLE_RATE)], SAMPLE_RATE
        )
        errors.append(1000 * (found - shown[k]))
        heard_in = np.searchsorted(starts, found * SAMPLE_RATE, side="right") - 1
        together += int(heard_in == snippet)
    return float(np.mean(errors)), float(np.abs(errors).max()), together


def main() -> int:
    print("container  picture     sound       frames/s  samples/s  starts (s)   error (ms)   pairs")
    print("                                                        pic.  sound  mean   max   kept")
    with tempfile.TemporaryDirectory() as folder:
        for case in WIDE:
            container, picture, sound, rate, samples, video_offset, audio_offset = case
            mean, worst, together = measure(Path(folder) / f"clip.{container}", case)
            speed = "varies" if rate is None else f"{float(rate):.2f}"
            offsets = f"{video_offset:4.2f}   {audio_offset:4.2f}"
            print(
                f"{container:10s} {picture:11s} {sound:11s} {speed:>8s} {samples:10d}"
                f"  {offsets} {mean:6.2f} {worst:5.2f}   {together}/4"
            )
    print("avi with mp3: the encoder's 1105 samples of silence, which AVI has no field to announce")
    return 0


if __name__ == "__main__":
    sys.exit(main())
