"""Example clips of Soundstage: short MP4 files with sound, for lessons that show a scene.

    python -m data.make_soundstage.clips [--out data/soundstage/clips] [--size 128]

The running examples of the lessons (named as in the store), one clip of each class, of each kind of
distractor and of each sensor fault, and ``index.csv`` that says what each file shows. Nobody needs
the generator to see or hear them.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from avadclip_lite.config import soundstage_path
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.video.reader import write_video
from avadclip_lite.viz.lesson import EXAMPLES
from data.make_soundstage.build import video_scene
from data.make_soundstage.captions import describe
from data.make_soundstage.render import frame, wave
from data.make_soundstage.world import (
    ANOMALIES,
    AUDIO_DISTRACTORS,
    DISTRACTORS,
    FPS,
    STAGES,
    Event,
    Fault,
    Scene,
)

SNIPPETS = 9  # of a clip: 6 s, its event from second 1 to second 5
COLUMNS = ("file", "shows", "classes", "events", "fps")
# The picture encoder: small files rather than clean ones, and the same bytes on any machine.
ENCODER = {"crf": "31", "preset": "veryslow", "threads": "1"}

# A shooting that is seen and heard, and what fails meanwhile.
FAULTS = {
    "black_frames": "the picture fails: black frames from second 2 to 4",
    "low_light": "the picture is nearly dark from second 2 to 4",
    "clipped_microphone": "the microphone is overdriven from second 2 to 4",
    "silent_microphone": "the microphone is dead from second 2 to 4",
    "missing_audio": "the file has no audio track",
    "static": "picture and sound drown in static from second 2 to 4",
}


def event_scene(kind: str, number: int) -> Scene:
    """Six seconds in which ``kind`` happens once, at a place and in a light that suit it."""
    places = STAGES.get(kind) or DISTRACTORS[kind]
    place = places[number % len(places)]
    light = "night" if kind in ("fireworks", "headlights", "thunder") else "day"
    light = "day" if place == "corridor" else light
    event = Event(kind=kind, start=24, end=120, seed=5 + number)
    return Scene(seed=40 + number, place=place, light=light, snippets=SNIPPETS, events=(event,))


def fault_scene(kind: str) -> Scene:
    """A shooting on a street while a sensor fails from second 2 to 4."""
    span = (
        {"start": 0, "end": SNIPPETS * 16} if kind == "missing_audio" else {"start": 48, "end": 96}
    )
    kinds = ("picture_static", "sound_static") if kind == "static" else (kind,)
    event = Event(kind="shooting", start=24, end=120, seed=3)
    faults = tuple(Fault(kind=name, **span) for name in kinds)
    return Scene(seed=61, place="square", snippets=SNIPPETS, events=(event,), faults=faults)


def clips() -> dict[str, tuple[Scene, str]]:
    """File name without its end -> the scene and what it shows, in words."""
    store = FeatureStore.open(soundstage_path())
    source = {row.name: row.source for row in store.videos}
    found = {}
    for role, name in EXAMPLES.items():
        scene = video_scene("test", int(source[name].removeprefix("scene:")))
        found[name] = scene, f"running example ({role}): {describe(scene)}"
    for number, kind in enumerate(ANOMALIES):
        scene = event_scene(kind, number)
        found[kind.replace(" ", "_")] = scene, f"{kind} ({scene.labels[0]}), seen and heard"
    for number, kind in enumerate(DISTRACTORS):
        sense = "sound" if kind in AUDIO_DISTRACTORS else "look"
        shows = f"distractor: {kind.replace('_', ' ')}, harmless with the {sense} of an anomaly"
        found[f"distractor_{kind}"] = event_scene(kind, number), shows
    for kind, shows in FAULTS.items():
        found[f"fault_{kind}"] = fault_scene(kind), f"a shooting, and {shows}"
    return found


def write_clip(path: Path, scene: Scene, size: int) -> None:
    """``scene`` as a file: every frame at 24 a second, and its sound where it has a track."""
    pictures = (frame(scene, k / FPS, size) for k in range(scene.frames))
    write_video(path, pictures, rate=FPS, wave=wave(scene), options=ENCODER)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.make_soundstage.clips", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, default=soundstage_path() / "clips", help="folder")
    parser.add_argument("--size", type=int, default=128, help="side of the picture, pixels")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "index.csv", "w", newline="", encoding="utf-8") as file:
        index = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        index.writeheader()
        for name, (scene, shows) in clips().items():
            path = options.out / f"{name}.mp4"
            write_clip(path, scene, options.size)
            index.writerow(
                {
                    "file": path.name,
                    "shows": " / ".join(line.strip() for line in shows.splitlines()),
                    "classes": "-".join(scene.labels),
                    "events": " ".join(f"{code} {a} {b}" for code, a, b in scene.segments),
                    "fps": int(FPS),
                }
            )
            print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
