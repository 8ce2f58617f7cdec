"""How fast extraction is, where its time goes, and how much memory a long film takes.

    python tests/benchmarks/extract_throughput.py                    # tiny encoders, and memory
    python tests/benchmarks/extract_throughput.py --encoder clip     # the real architecture

Decoding and encoding are timed apart and then together, on a film of moving noise with sound. The
encoder's own bound is the time that it takes when pictures and sound are there already. Memory is
the peak of a process of its own, for a short film and for one of hours; their difference is what
grows with length. Weights are random unless given, which changes neither times nor memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clips import clip_wave, write_clip  # noqa: E402

from avadclip_lite.config import SAMPLE_RATE, XD_STRIDE  # noqa: E402
from avadclip_lite.encoders import load_encoders  # noqa: E402
from avadclip_lite.video.extract import FeatureReader, checked_crops, cut, encode_waves, extract  # noqa: E402
from avadclip_lite.video.reader import Sound, VideoReader  # noqa: E402

RATE = Fraction(25)
PIECE = 60  # seconds that are encoded once and repeated


def film(path: Path, seconds: float, size: tuple[int, int]) -> Path:
    """Noise that moves, with sound: hard to compress, as real film is."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (size[1] // 8, size[0] // 8 + 64, 3), np.uint8)
    scene = scene.repeat(8, axis=0).repeat(8, axis=1)
    write_clip(
        path,
        rate=RATE,
        seconds=seconds,
        size=size,
        picture=lambda k: np.ascontiguousarray(scene[:, 4 * (k % 100) : 4 * (k % 100) + size[0]]),
        video_options={"preset": "ultrafast"},
        wave=clip_wave(seconds, 44100, [], noise=0.05),
    )
    return path


def repeated(piece: Path, path: Path, times: int) -> Path:
    """The same packets again and again, so that hours take seconds to write."""
    with av.open(str(path), "w") as out:
        streams, last = {}, {}
        for k in range(times):
            with av.open(str(piece)) as source:
                if not streams:
                    for stream in source.streams:
                        streams[stream.index] = out.add_stream_from_template(stream)
                for packet in source.demux():
                    if packet.dts is None:
                        continue
                    shift, index = round(k * PIECE / packet.time_base), packet.stream.index
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    if packet.dts <= last.get(index, -(10**9)):
                        continue  # sound is coded in blocks, and the last reaches beyond the piece
                    last[index] = packet.dts
                    packet.stream = streams[index]
                    out.mux(packet)
    return path


def timings(path: Path, encoders, batch: int) -> dict[str, float]:
    """Seconds for decoding alone, encoding alone, and both, and the number of snippets."""
    crops = checked_crops(None, encoders.name)
    started = time.perf_counter()
    reader = VideoReader(
        path,
        stride=XD_STRIDE,
        picks=(XD_STRIDE // 2,),
        convert=lambda image: cut(image, crops, encoders.image_size),
    )
    pictures, waves = [], []
    with Sound(path) as sound:
        for snippet in reader:
            pictures.append(snippet.pictures[0])
            low, high = reader.origin + snippet.start, reader.origin + snippet.end
            waves.append(sound.window(low, high)[0])
    decode = time.perf_counter() - started

    started = time.perf_counter()
    for at in range(0, len(pictures), batch):
        encoders.encode_images(np.concatenate(pictures[at : at + batch]))
        encode_waves(encoders, waves[at : at + batch])
    encode = time.perf_counter() - started

    started = time.perf_counter()
    extract(path, encoders, batch=batch)
    both = time.perf_counter() - started
    return {"decode": decode, "encode": encode, "both": both, "snippets": len(pictures)}


def peak_of(path: Path, which: str) -> tuple[float, float, int]:
    """Peak memory in MB, seconds and snippets of extracting a file, in a process of its own."""
    command = [sys.executable, __file__, "--encoder", which, "--only-memory", str(path)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(out[0]), float(out[1]), int(out[2])


def only_memory(path: str, which: str) -> None:
    encoders = load_encoders(which, weights="random")
    started, snippets = time.perf_counter(), 0
    for part in FeatureReader(path, encoders):
        snippets += len(part.audio_coverage)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(peak, time.perf_counter() - started, snippets)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=["soundstage", "clip"], default="soundstage")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the film that is timed")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 240))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5, help="the best of so many counts")
    parser.add_argument("--hours", type=float, default=2.0, help="of the long film, 0: skip")
    parser.add_argument("--only-memory", metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_memory:
        only_memory(args.only_memory, args.encoder)
        return 0
    encoders = load_encoders(args.encoder, weights="random", device=args.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = film(folder / "film.mp4", args.seconds, tuple(args.size))
        # the first call pays for starting up
        encoders.encode_images(np.zeros((1, encoders.image_size, encoders.image_size, 3), np.uint8))
        encoders.encode_audio(np.zeros((1, SAMPLE_RATE), np.float32))
        tries = [timings(path, encoders, args.batch) for _ in range(args.repeat)]
        took = {what: min(one[what] for one in tries) for what in tries[0]}
        frames = took["snippets"] * XD_STRIDE
        print(f"{args.encoder}, {args.device}, {args.size[0]} x {args.size[1]}, {frames} frames")
        for what in ("decode", "encode", "both"):
            seconds = took[what]
            print(
                f"{what:7s}{seconds:8.2f} s  {frames / seconds:8.0f} frames/s  "
                f"{took['snippets'] / seconds:7.1f} snippets/s  "
                f"{frames / float(RATE) / seconds:6.1f} x real time"
            )
        print(f"share of the encoder's own bound: {100 * took['encode'] / took['both']:.0f} %")
        longest = max(took["decode"], took["encode"])
        print(f"share of the slower one's bound:  {100 * longest / took['both']:.0f} %")
        if args.hours:
            piece = film(folder / "piece.mp4", PIECE, (64, 64))
            long = repeated(piece, folder / "long.mp4", round(args.hours * 3600 / PIECE))
            for file in (piece, long):
                peak, seconds, snippets = peak_of(file, args.encoder)
                minutes = snippets * XD_STRIDE / float(RATE) / 60
                print(
                    f"{minutes:6.1f} min: peak {peak:6.0f} MB, {snippets} snippets, {seconds:.1f} s"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
