"""Faults that users of tools like this one brought, each with its whole kind; see cases.md."""

from __future__ import annotations

import argparse
import json
import os
import signal
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import (
    clip_wave,
    damage,
    find_click,
    flat,
    join,
    set_matrix,
    write_clip,
    write_tracks,
)
from test_extract import LOSSLESS, Plain
from test_importers import Layout
from test_score import BOTH, film, panel

from avadclip_lite.__main__ import main as command
from avadclip_lite.config import CLASS_SETS, SAMPLE_RATE, make_config, soundstage_path
from avadclip_lite.dataset import AUDIO_PRESENT, FeatureStore, StoreError
from avadclip_lite.features.annotations import read_table
from avadclip_lite.features.writer import StoreWriter
from avadclip_lite.train import fit, load
from avadclip_lite.video import timeline
from avadclip_lite.video.detect import DetectorSet, score_video
from avadclip_lite.video.extract import FeatureReader, extract
from avadclip_lite.video.folder import OVERLAY, extract_folder, find_videos
from avadclip_lite.video.reader import BrokenVideo, Sound, VideoReader, pictures_at, read_clip
from avadclip_lite.video.timeline import peaks_figure, timeline_picture, write_scores

# ---- containers and time -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "codec", "group", "offset"),
    [
        ("ts", "libx264", 50, 0.0),
        ("ts", "libx264", 250, 7.2),
        ("mpg", "mpeg2video", 30, 0.0),
        ("mkv", "libx264", 100, 0.0),
        ("m2ts", "mpeg2video", 45, 2.0),
        ("vob", "mpeg2video", 45, 100.0),  # with B-frames, many of them under one time stamp
    ],
)
def test_pictures_are_found_by_time_where_keys_are_rare(tmp_path, container, codec, group, offset):
    path = tmp_path / f"a.{container}"
    write_clip(
        path,
        seconds=4,
        picture=lambda k: flat(20 + 2 * k, (32, 32)),
        size=(32, 32),
        video_codec=codec,
        video_options={"g": str(group)} | ({"bf": "2"} if container == "vob" else {}),
        video_offset=offset,
    )
    reader = VideoReader(path, stride=16, picks=(8,))
    list(reader)
    asked = list(range(5, 100, 15))
    got = pictures_at(path, [reader.origin + (k + 0.5) / 25 for k in asked])
    shown = [(picture.mean() - 20) / 2 for picture in got]
    np.testing.assert_allclose(shown, asked, atol=1.5)


def recording(path: Path, grey: int, click: float, **choices) -> Path:
    """Three seconds: brighter with every frame, one click."""
    write_clip(
        path,
        rate=Fraction(16),
        seconds=3,
        picture=lambda k: flat(grey + k, choices.get("size", (32, 32))),
        wave=clip_wave(3, 48000, [click]),
        sample_rate=48000,
        **{"size": (32, 32), "video_options": {"g": "100"}} | choices,
    )
    return path


@pytest.mark.parametrize(
    ("container", "codecs", "count"),
    [
        ("ts", ("libx264", "aac"), 2),
        ("ts", ("libx264", "aac"), 3),
        ("mpg", ("mpeg2video", "mp2"), 2),
    ],
)
def test_joined_recordings_go_on(tmp_path, container, codecs, count):
    choices = {"video_codec": codecs[0], "audio_codec": codecs[1]}
    if container == "mpg":  # which knows the frame rates of television only
        choices |= {"rate": Fraction(25)}
    rate = choices.get("rate", Fraction(16))

    def part(k: int) -> Path:
        path = tmp_path / f"{k}.{container}"
        picture = lambda n: flat(30 + 60 * k, (32, 32))  # noqa: E731
        wave = clip_wave(3, 48000, [1.0 + 0.5 * k])
        form = {"rate": rate, "seconds": 3, "size": (32, 32), "sample_rate": 48000}
        write_clip(path, picture=picture, wave=wave, **form | choices)
        return path

    path = join(tmp_path / f"joined.{container}", *(part(k) for k in range(count)))
    found = extract(path, Plain())
    snippet = 16 / float(rate)
    assert found.seconds == pytest.approx(3 * count, abs=snippet + 0.3)
    np.testing.assert_allclose(np.diff(found.times), snippet, atol=0.15)
    assert found.joins == count - 1 and "joined recordings" in " ".join(found.notes)
    middle = (found.times[:-1] + found.times[1:]) / 2
    part_of = np.minimum(middle // (found.seconds / count), count - 1).astype(int)
    clear = np.abs(middle - 3 * np.round(middle / 3)) > snippet
    np.testing.assert_allclose(found.video[0, clear, 0], 30 + 60 * part_of[clear], atol=4)
    with Sound(path) as sound:
        for k in range(count):
            wave, share = sound.window(found.origin + 3 * k, found.origin + 3 * k + 2.8)
            assert find_click(wave, SAMPLE_RATE) == pytest.approx(1.0 + 0.5 * k, abs=0.15)
            assert share > 0.9

    scores = score_video(path, panel(*BOTH), Plain())
    peaks_figure(scores)
    shown = pictures_at(path, [found.origin + 3 * count - 1.0], seek=not found.joins)[0]
    assert shown.mean() == pytest.approx(30 + 60 * (count - 1), abs=4)
    made = write_scores(scores, tmp_path / "out", timeline=False, overlay=True)
    copy = VideoReader(made[1], stride=1, picks=(0,))
    assert [snippet.start for snippet in copy][-1] == pytest.approx(3 * count, abs=0.3)


@pytest.mark.parametrize("container", ["flv", "mp4"])
def test_joined_recordings_that_players_end_with_the_first_are_told(tmp_path, container):
    noise = np.random.default_rng(0).integers(0, 256, (75, 48, 64, 3), np.uint8)
    path = tmp_path / f"a.{container}"
    write_clip(path, seconds=3, picture=lambda k: noise[k])
    assert extract(path, Plain()).notes == ()
    found = extract(join(tmp_path / f"j.{container}", path, path), Plain())
    assert found.snippets == 4 and "joined recordings, or damage" in found.notes[0]


def test_what_follows_the_pictures_is_no_second_recording(tmp_path):
    """Sound alone, or the room that a dash camera reserved."""
    clip = {"seconds": 2, "rate": Fraction(16)}
    write_clip(tmp_path / "song.mp4", wave=clip_wave(20, 44100, [1.0]), **clip)
    assert extract(tmp_path / "song.mp4", Plain()).notes == (
        "18.00 s of sound after the last picture left out",
    )
    write_clip(tmp_path / "dash.mp4", **clip)
    with (tmp_path / "dash.mp4").open("ab") as file:
        file.write((200_000).to_bytes(4, "big") + b"free" + bytes(199_992))
    assert extract(tmp_path / "dash.mp4", Plain()).notes == ()
    wave = np.random.default_rng(0).normal(0, 0.1, 22 * 44100)
    times = [*(k / 16 for k in range(32)), 21.9]  # pictures first, then sound for long
    write_clip(tmp_path / "pause.mp4", times=times, wave=wave.astype(np.float32))
    (told,) = extract(tmp_path / "pause.mp4", Plain()).notes
    assert told.startswith("no new picture for 20.0 s")


def test_damage_ends_a_gif_and_is_told(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 48, 64, 3), np.uint8)
    path = tmp_path / "a.gif"
    write_clip(path, seconds=2, picture=lambda k: noise[k], video_codec="gif", pixels="rgb8")
    assert extract(path, Plain()).notes == ()
    small = tmp_path / "small.gif"
    write_clip(small, seconds=0.2, picture=lambda k: noise[k], video_codec="gif", pixels="rgb8")
    assert extract(small, Plain()).notes == ()
    data = bytearray(path.read_bytes())
    at = int(0.7 * len(data))
    data[at : at + 300] = bytes(300)
    path.write_bytes(data)
    assert "or damage" in " ".join(extract(path, Plain()).notes)


@pytest.mark.parametrize("offset", [100.0, -1.0])
def test_where_time_stamps_jump_forward_or_the_first_is_mute(tmp_path, offset):
    first = tmp_path / "1.ts"
    if offset > 0:
        recording(first, 40, 1.0)
    else:
        write_clip(first, rate=Fraction(16), seconds=3, size=(32, 32))
    late = max(offset, 0.0)
    wave = clip_wave(3, 48000, [late + 1.5], late)
    form = {"wave": wave, "sample_rate": 48000, "audio_offset": late, "video_offset": late}
    write_clip(tmp_path / "2.ts", rate=Fraction(16), seconds=3, size=(32, 32), **form)
    second = tmp_path / "2.ts"
    found = extract(join(tmp_path / "j.ts", first, second), Plain())
    assert found.seconds == pytest.approx(6, abs=0.1) and found.joins == 1


def test_sound_alone_joined_to_a_recording_is_not_taken_for_pictures(tmp_path):
    """It stands where the pictures stood. FFmpeg itself loses the last two of these, no more."""
    first, second = tmp_path / "1.ts", tmp_path / "2.ts"
    write_clip(first, rate=Fraction(16), seconds=66 / 16, size=(32, 32))
    recording(tmp_path / "both.ts", 40, 1.0)
    with av.open(str(tmp_path / "both.ts")) as both, av.open(str(second), "w") as out:
        sound = out.add_stream_from_template(both.streams.audio[0])
        for packet in both.demux(both.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = sound
                out.mux(packet)
    found = extract(join(tmp_path / "j.ts", first, second), Plain())
    assert (found.frames, found.snippets) == (64, 4)
    assert found.notes == ("time stamps start anew 1 times: joined recordings",)


def test_a_pause_of_the_pictures_alone_is_no_join(tmp_path):
    path = tmp_path / "a.ts"
    even = [k / 16 for k in range(32)]
    wave = clip_wave(42, 16000, [30.0])
    write_clip(path, times=even + [40 + t for t in even], wave=wave, sample_rate=16000)
    found = extract(path, Plain())
    assert found.joins == 0 and found.seconds == pytest.approx(42, abs=0.1)
    assert found.audio[:, 0].argmax() == 1


def test_joined_recordings_of_other_size_and_sound(tmp_path):
    first, second = tmp_path / "1.ts", tmp_path / "2.ts"
    form = {"seconds": 3, "audio_codec": "aac"}
    write_clip(first, size=(64, 48), wave=clip_wave(3, 48000, [1.0]), sample_rate=48000, **form)
    write_clip(
        second,
        size=(96, 64),
        wave=clip_wave(3, 44100, [1.0]),
        sample_rate=44100,
        channels=1,
        **form,
    )
    scores = score_video(join(tmp_path / "j.ts", first, second), panel(*BOTH), Plain())
    assert scores.times[-1] == pytest.approx(6, abs=0.7)
    made = write_scores(scores, tmp_path / "out", overlay=True)
    assert len(list(VideoReader(made[2], stride=1, picks=(0,)))) == pytest.approx(150, abs=2)


def test_a_bang_in_a_long_pause_is_heard_and_the_pause_is_told(tmp_path):
    path = tmp_path / "a.mkv"
    even = [k / 16 for k in range(32)]
    wave = 1e-3 * np.random.default_rng(0).normal(size=102 * 16000).astype(np.float32)
    wave[70 * 16000 : 74 * 16000] *= 300
    times = even + [100 + t for t in even]
    write_clip(path, times=times, wave=wave, sample_rate=16000, audio_codec="pcm_s16le", **LOSSLESS)
    found = extract(path, Plain())
    assert found.loudness.argmax() == 1 and found.loudness.max() > 0.1
    assert found.audio[:, 0].argmax() == 1
    assert found.notes == ("no new picture for 98.1 s at 00:00:01.9",)
    assert found.seconds == pytest.approx(102, abs=0.1)


@pytest.mark.parametrize("starts", [[0.0], [0.0, 10.0]])
def test_a_pause_after_the_first_pictures_is_no_frame_rate(tmp_path, starts):
    path = tmp_path / "a.mkv"
    write_clip(path, times=[*starts, *(30 + k / 16 for k in range(63))], size=(32, 32))
    found = extract(path, Plain())
    assert found.seconds == pytest.approx(34, abs=0.2)
    assert "no new picture" in found.notes[0]


@pytest.mark.parametrize("container", ["mkv", "mp4"])
@pytest.mark.parametrize("after", [1, 2])
def test_a_pause_before_the_last_pictures_invents_no_duration(tmp_path, container, after):
    path = tmp_path / f"a.{container}"
    times = [k / 16 for k in range(32 - after)] + [60 + k / 16 for k in range(after)]
    write_clip(path, times=times, size=(32, 32))
    found = extract(path, Plain())
    assert found.snippets == 2 and found.seconds == pytest.approx(60 + after / 16, abs=0.1)
    assert "no new picture for" in found.notes[0]


WHITE = {  # where a white top left corner is shown
    "left-right": ((-1, 0, 0, 1), "top right"),
    "upside down": ((1, 0, 0, -1), "bottom left"),
    "half a turn": ((-1, 0, 0, -1), "bottom right"),
    "along the diagonal": ((0, 1, 1, 0), "top left"),
    "along the other": ((0, -1, -1, 0), "bottom right"),
    "a quarter turn": ((0, 1, -1, 0), "top right"),
}


@pytest.mark.parametrize("how", WHITE)
def test_display_matrices_that_turn_and_mirror(tmp_path, how):
    matrix, corner = WHITE[how]
    image = flat(20, (96, 64))
    image[:32, :48] = 240
    path = tmp_path / "a.mp4"
    write_clip(path, seconds=2, picture=lambda k: image, size=(96, 64))
    set_matrix(path, matrix, (96, 64))
    (got,) = pictures_at(path, [1.0])
    assert got.shape[:2] == ((96, 64) if matrix[0] == 0 else (64, 96))
    rows, columns = got.shape[0] // 2, got.shape[1] // 2
    grey = got.mean(axis=2)
    parts = {
        "top left": grey[:rows, :columns],
        "top right": grey[:rows, columns:],
        "bottom left": grey[rows:, :columns],
        "bottom right": grey[rows:, columns:],
    }
    assert max(parts, key=lambda name: parts[name].mean()) == corner
    (snippet, *_) = VideoReader(path, stride=16, picks=(0,))
    np.testing.assert_array_equal(snippet.pictures[0], got)


@pytest.mark.parametrize(
    ("container", "turned", "expected"),
    [("mp4", False, Fraction(4, 3)), ("mkv", False, Fraction(4, 3)), ("mp4", True, Fraction(3, 4))],
)
def test_copies_keep_the_shape_of_pixels_and_start_at_zero(tmp_path, container, turned, expected):
    path = tmp_path / f"a.{container}"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        sound = out.add_stream("aac", rate=48000, layout="stereo")
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.sample_aspect_ratio = Fraction(4, 3)
        wave = clip_wave(4.0, 48000, [1.5])
        for k in range(50):
            frame = av.VideoFrame.from_ndarray(flat(40, (96, 64)), format="rgb24")
            frame.pts, frame.time_base = k + 25, Fraction(1, 25)  # a second late
            out.mux(video.encode(frame))
        for start in range(0, len(wave), 1024):
            part = np.repeat(wave[None, start : start + 1024], 2, axis=0)
            piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), "fltp", "stereo")
            piece.sample_rate, piece.pts = 48000, start
            out.mux(sound.encode(piece))
        for stream in (video, sound):
            out.mux(stream.encode(None))
    if turned:
        set_matrix(path, (0, 1, -1, 0), (96, 64))
    scores = score_video(path, panel(*BOTH), Plain())
    copy = write_scores(scores, tmp_path / "out", timeline=False, overlay=True)[1]
    reader = VideoReader(copy, stride=16, picks=(0,))
    (first, *_) = reader
    assert reader.aspect == expected and reader.origin == pytest.approx(0, abs=1e-3)
    with av.open(str(copy)) as file:
        assert file.streams.audio[0].channels == 2
    with Sound(copy) as track:
        heard, _ = track.window(0.0, 2.0)
    assert find_click(heard, SAMPLE_RATE) == pytest.approx(0.5, abs=0.01)  # 1.5 s less the second


@pytest.mark.parametrize(
    ("container", "video", "sound"),
    [
        ("mp4", "libx264", "aac"),
        ("ts", "libx264", "aac"),
        ("mkv", "libx264", "aac"),
        ("avi", "mpeg4", "libmp3lame"),
        ("flv", "libx264", "aac"),
        ("webm", "libvpx", "libopus"),
        ("mpg", "mpeg2video", "mp2"),
        ("mov", "mjpeg", "aac"),
    ],
)
def test_damage_in_the_middle_is_told(tmp_path, container, video, sound):
    noise = np.random.default_rng(0).integers(0, 256, (150, 48, 64, 3), np.uint8)
    path = tmp_path / f"a.{container}"
    wave = clip_wave(6, 48000, [], noise=0.1)
    form = {"video_codec": video, "audio_codec": sound, "sample_rate": 48000, "wave": wave}
    if video == "mjpeg":
        form |= {"pixels": "yuvj420p"}
    if video == "libx264":  # with threads and a look ahead no two files are the same
        form |= {"video_options": {"threads": "1", "rc-lookahead": "0"}}
    write_clip(path, seconds=6, picture=lambda k: noise[k], **form)
    assert extract(path, Plain()).notes == ()  # whole, nothing is told
    for share, length in ((0.3, 1000), (0.5, 4000), (0.7, 20000)):
        broken = tmp_path / f"broken.{container}"
        broken.write_bytes(path.read_bytes())
        notes = " ".join(extract(damage(broken, share, length), Plain()).notes)
        assert any(word in notes for word in ("damaged", "only", "no new picture", "missing"))


@pytest.mark.parametrize(
    ("container", "video", "sound"), [("wmv", "wmv2", None), ("ogv", "libvpx", "libopus")]
)
def test_little_damage_is_told_too(tmp_path, container, video, sound):
    """WMV's decoder conceals it; Ogg leaves out the pages that it is in, of sound as well."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 48, 64, 3), np.uint8)
    wave = clip_wave(4, 48000, [], noise=0.1) if sound else None
    form = {"audio_codec": sound or "aac", "sample_rate": 48000, "wave": wave}
    path, broken = tmp_path / f"a.{container}", tmp_path / f"broken.{container}"
    write_clip(path, seconds=4, picture=lambda k: noise[k], video_codec=video, **form)
    assert extract(path, Plain()).notes == ()
    for share in (0.15, 0.25, 0.45, 0.55, 0.75):
        for length in (20, 300):
            broken.write_bytes(path.read_bytes())
            notes = " ".join(extract(damage(broken, share, length), Plain()).notes)
            said = ("damaged", "only", "no new picture", "missing", "no sound")
            assert any(word in notes for word in said), (share, length)


def test_a_gap_in_the_sound_is_told(tmp_path):
    path, wave = tmp_path / "a.mkv", clip_wave(4, 16000, [])
    write_clip(path, wave=wave, sample_rate=16000, audio_codec="pcm_s16le", gap=(1.0, 2.5))
    assert extract(path, Plain()).notes == ("no sound for 1.5 s at 00:00:01.0",)


def tone(level: float, seconds: float = 2.0) -> np.ndarray:
    return (level * np.sin(np.arange(round(seconds * 16000)) * 0.3)).astype(np.float32)[None]


@pytest.mark.parametrize(
    ("tracks", "taken", "said"),
    [
        ([(0.1, {}), (0.4, {"default": True, "language": "deu"})], 0.4, "track 2 of 2 (deu)"),
        ([(0.1, {"default": True, "language": "eng"}), (0.4, {})], 0.1, "track 1 of 2 (eng)"),
        ([(0.1, {}), (0.2, {}), (0.4, {"default": True})], 0.4, "track 3 of 3"),
    ],
)
def test_which_of_several_sound_tracks(tmp_path, tracks, taken, said):
    waves = [(tone(level), about) for level, about in tracks]
    found = extract(write_tracks(tmp_path / "a.mkv", waves, codec="pcm_s16le"), Plain())
    assert found.loudness[1] == pytest.approx(taken / np.sqrt(2), rel=0.1)
    assert said in found.notes[0] and "as players do" in found.notes[0]


def channels(layout: str) -> np.ndarray:
    """What is in each channel."""
    one, none = tone(0.3), tone(0.0)
    return np.concatenate(
        {
            "stereo": [one, -one],
            "5.1": [none, none, 0.01 * one, none, none, none],
            "7.1": [none, none, none, one, none, none, none, none],  # the deep channel alone
            "quad": [one, one, -one, -one],
        }[layout]
    )


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1", "quad"])
def test_channels_that_mixing_loses_are_heard(tmp_path, layout):
    path = write_tracks(tmp_path / "a.mkv", [(channels(layout), {})], layout=layout, codec="flac")
    found = extract(path, Plain())
    assert found.sound == "present" and found.audio[:, 0].min() > 0
    loudest = np.abs(channels(layout)).max() / np.sqrt(2)
    assert 0.15 * loudest < found.loudness[1] < 1.1 * loudest
    assert ("cancel" in " ".join(found.notes)) == (layout in ("stereo", "7.1"))


def test_sound_in_one_channel_is_half_as_loud_as_ever(tmp_path):
    wave = np.concatenate([tone(0.4), tone(0.0)])
    path = write_tracks(tmp_path / "a.mkv", [(wave, {})], layout="stereo", codec="pcm_s16le")
    found = extract(path, Plain())
    assert found.loudness[1] == pytest.approx(0.2 / np.sqrt(2), rel=0.05) and found.notes == ()


def test_a_clip_as_a_whole(tmp_path):
    path = tmp_path / "a.mp4"
    form = {"video_options": {"crf": "5"}, "sample_rate": 48000, "video_offset": 0.4}
    write_clip(path, seconds=2, wave=clip_wave(3, 48000, [1.4]), **form)
    frames, rate, wave = read_clip(path)
    assert frames.shape == (50, 48, 64, 3) and frames.dtype == np.uint8 and rate == 25
    assert len(wave) == 2 * SAMPLE_RATE and wave.dtype == np.float32
    assert find_click(wave, SAMPLE_RATE) == pytest.approx(1.0, abs=0.005)
    write_clip(tmp_path / "b.mkv", seconds=100, size=(16, 16), **LOSSLESS)
    assert read_clip(tmp_path / "b.mkv")[2] is None


# ---- batches go on -------------------------------------------------------------------------------

NAMES = [
    "a$b_$c.mp4",
    "10:30 cam.mp4",
    os.fsdecode("监控.mp4".encode("gbk")),
    os.fsdecode(b"caf\xe9.mp4"),
    "監視カメラ 🎥.mp4",
    "{0} %s \\alpha^2_.mp4",
    "two\nlines.mp4",
]


@pytest.fixture(scope="module")
def plain_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    write_clip(path, seconds=1.4, wave=clip_wave(1.4, 16000, [0.4], noise=0.05), sample_rate=16000)
    return path


@pytest.fixture
def scorer(monkeypatch):
    """``score`` with a detector and encoders that need no weights."""
    monkeypatch.setattr(DetectorSet, "load", lambda *args: panel(*BOTH))
    monkeypatch.setattr(timeline, "load_encoders", lambda *args, **choices: Plain())

    def run(*words: str | Path) -> int:
        return command(["score", *map(str, words), "--model", "any"])

    return run


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.filterwarnings("error:Glyph")
def test_names_as_people_have_them(tmp_path, plain_clip, scorer, capfd, stream):
    folder = tmp_path / "v"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(plain_clip.read_bytes())
    words = [folder, "--out", tmp_path / "out", "--overlay"] + ["--stream"] * stream
    assert scorer(*words) == 0
    out = capfd.readouterr().out
    assert out.encode() and "not scored" not in out and r"\xbc\xe0\xbf\xd8.mp4" in out
    made = {path.name for path in (tmp_path / "out").iterdir()}
    stems = [Path(name).stem for name in NAMES]
    assert made == {stem + end for stem in stems for end in (".json", ".png", "_overlay.mp4")}
    for stem in stems:
        json.loads((tmp_path / "out" / f"{stem}.json").read_text(encoding="utf-8"))

    log = extract_folder(folder, tmp_path / "store", weights="random", progress=False)
    assert len(log.done) == len(NAMES) and not log.set_aside
    str(log).encode()
    again = extract_folder(folder, tmp_path / "store", weights="random", progress=False)
    assert len(again.kept) == len(NAMES) and not again.done
    assert len({row.name for row in FeatureStore.open(tmp_path / "store").videos}) == len(NAMES)


def test_whatever_one_file_does_the_rest_is_done(tmp_path, plain_clip, scorer, monkeypatch, capsys):
    for k in range(6):
        (tmp_path / f"{k}.mp4").write_bytes(plain_clip.read_bytes())
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.ts").touch()
    real = FeatureReader.__iter__
    faults = {
        "1": RuntimeError("out of\nmemory"),
        "2": av.error.InvalidDataError(1, "Invalid data", "2.mp4"),
        "3": UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"),
        "4": ZeroDivisionError(),
    }

    def faulty(self):
        yield from real(self)
        if fault := faults.get(self._path.stem):
            raise fault

    monkeypatch.setattr(FeatureReader, "__iter__", faulty)
    assert scorer(tmp_path, "--out", tmp_path / "out", "--no-timeline") == 1
    out = capsys.readouterr().out
    bad = [line for line in out.splitlines() if line.startswith("  not scored: ")]
    assert len(bad) == 6
    for name in ("1.mp4", "2.mp4", "3.mp4", "4.mp4", "text.mp4", "empty.ts"):
        assert sum(name in line for line in bad) == 1
    assert "2 videos scored, 6 not" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0.json", "5.json"}

    log = extract_folder(tmp_path, tmp_path / "store", weights="random", progress=False)
    assert set(log.done) == {"0", "5"} and len(log.set_aside) == 6
    assert all("\n" not in why for why in log.set_aside.values())

    (tmp_path / "bare.mp4").mkdir()  # an empty folder among what was named
    assert scorer(tmp_path / "bare.mp4", tmp_path / "0.mp4", "--out", tmp_path / "some") == 1
    assert "bare.mp4 is a folder; give a video file" in capsys.readouterr().out
    assert (tmp_path / "some" / "0.json").is_file()


def test_score_leaves_its_own_products_alone(tmp_path, plain_clip, scorer, capsys):
    for name in ("a.mp4", "sub/a.mkv", "b_overlay.mp4"):  # the last is the user's own
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(plain_clip.read_bytes())
    own = (tmp_path / "b_overlay.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(plain_clip.read_bytes())
    for _ in range(2):
        assert scorer(tmp_path, "--out", tmp_path, "--overlay", "--no-timeline") == 0
        made = sorted(path.name for path in tmp_path.glob("*.json"))
        assert made == ["a.json", "a_2.json", "b_2.json", "b_overlay.json"]
        assert (tmp_path / "b_overlay.mp4").read_bytes() == own
    assert len(find_videos(tmp_path)) == 4


@pytest.mark.filterwarnings("error:Glyph")
def test_names_as_long_as_they_may_be(tmp_path, plain_clip, scorer, capsys):
    (tmp_path / "v").mkdir()
    for name in ("n" * 251, "n" * 250 + "x", "\u76d1" * 83):
        (tmp_path / "v" / f"{name}.mp4").write_bytes(plain_clip.read_bytes())
    assert scorer(tmp_path / "v", "--out", tmp_path / "out", "--overlay") == 0
    made = [path.name for path in (tmp_path / "out").iterdir()]
    stems = ["n" * 220, "n" * 220 + "_2", "\u76d1" * 73]
    assert sorted(made) == sorted(s + end for s in stems for end in (".json", ".png", OVERLAY))


def test_linked_folders_are_searched_once(tmp_path, plain_clip):
    disk, folder = tmp_path / "disk", tmp_path / "v"
    for place in (disk, folder):
        place.mkdir()
        (place / "a.mp4").write_bytes(plain_clip.read_bytes())
    (folder / "more").symlink_to(disk)
    (folder / "round").symlink_to(folder)
    for name in ("x", "y"):  # two ways round, of which there are 2 ** 40 of the length allowed
        (folder / name).mkdir()
        (folder / name / "up").symlink_to(folder)
    assert find_videos(folder) == [folder / "a.mp4", folder / "more" / "a.mp4"]


def test_score_replaces_nothing_that_it_did_not_make(tmp_path, plain_clip, scorer):
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.mkv"):
        (tmp_path / name).write_bytes(plain_clip.read_bytes())
    own = {"a.json": '{"camera": "7"}', "b.json": "[1]", "c.png": "a thumbnail"}
    for name, text in own.items():
        (tmp_path / name).write_text(text)
    for _ in range(2):  # its own results it does replace
        assert scorer(tmp_path, "--out", tmp_path) == 0
        made = {path.name for path in tmp_path.iterdir()} - own.keys()
        stems = ("a_2", "b_2", "c_2", "d")
        assert made == {s + end for s in stems for end in (".json", ".png")} | {
            "a.mp4",
            "b.mp4",
            "c.mp4",
            "d.mkv",
        }
        assert all((tmp_path / name).read_text() == text for name, text in own.items())
    assert not timeline._taken(tmp_path / "z", "z.mp4", set())
    (tmp_path / "z_overlay.mp4").touch()
    (tmp_path / "y.json").mkdir()
    assert all(timeline._taken(tmp_path / s, f"{s}.mp4", set()) for s in "yz")


def test_a_folder_whose_name_is_not_utf8_gets_a_sentence(tmp_path, plain_clip, capsys):
    out = tmp_path / os.fsdecode(b"caf\xe9")
    words = ["extract", str(plain_clip), "--out", str(out), "--weights", "random"]
    assert command(words) == 2
    told = capsys.readouterr().err
    assert r"caf\udce9' is not in UTF-8; rename it" in told and not out.exists()


def test_a_link_without_its_target_is_named(tmp_path, plain_clip, scorer, capsys):
    """As in data sets whose content was not fetched."""
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(plain_clip.read_bytes())
    (folder / "b.mp4").symlink_to(tmp_path / "not fetched.mp4")
    assert scorer(folder, "--out", tmp_path / "out", "--no-timeline") == 1
    told = f"not scored: there is no file {folder / 'b.mp4'}; check the path"
    assert told in capsys.readouterr().out
    log = extract_folder(folder, tmp_path / "store", weights="random", progress=False)
    assert log.done == ["a"] and list(log.set_aside) == ["b"]
    assert f"there is no file {folder / 'b.mp4'}" in log.set_aside["b"]
    (tmp_path / "not fetched.mp4").write_bytes(plain_clip.read_bytes())
    log = extract_folder(folder, tmp_path / "store", weights="random", progress=False)
    assert log.done == ["b"]


def test_a_pipe_is_refused_at_once(tmp_path):
    def late(*_: object) -> None:
        raise TimeoutError("it waits for somebody who writes")

    os.mkfifo(tmp_path / "a.mp4")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        with pytest.raises(BrokenVideo, match="a.mp4 is a pipe or a device; save what it gives"):
            extract(tmp_path / "a.mp4", Plain())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "name",
    [
        "._a.mp4",
        ".Trash-0/b.mp4",
        "__MACOSX/a.mp4",
        "@eaDir/a.mp4/c.mp4",
        "$RECYCLE.BIN/d.avi",
        "#recycle/e.mp4",
        "@Recycle/f.mp4",
        "lost+found/g.mp4",
    ],
)
def test_hidden_files_of_other_systems_are_ignored(tmp_path, name):
    (tmp_path / "a.mp4").touch()
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert find_videos(tmp_path) == [tmp_path / "a.mp4"]


# ---- lists and truth -----------------------------------------------------------------------------


def test_names_match_by_one_rule_and_what_matches_nothing_is_told(tmp_path, plain_clip):
    for name in ("test/one_label_G-0-0.mp4", "Caf\u00e9.mp4", "deep/er/three.mkv"):
        path = tmp_path / "v" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(plain_clip.read_bytes())
    (tmp_path / "events.txt").write_text(
        "one_label_G-0-0 4 20\nthree.mkv 2 9\nnobody_label_A 1 9\n"
    )
    table = "Name;Label;Split\nCafe\u0301.mp4;B1;test\nthree;G;test\nabsent;A;test\n"
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    choices = {"weights": "random", "progress": False, "split": "test"}
    choices |= {"labels": tmp_path / "labels.csv", "annotations": tmp_path / "events.txt"}
    log = extract_folder(tmp_path / "v", tmp_path / "store", **choices)
    store = FeatureStore.open(tmp_path / "store")
    rows = {
        row.name: (row.label, row.split, len(store.segments(i)))
        for i, row in enumerate(store.videos)
    }
    assert rows == {
        "Caf\u00e9": ("B1", "test", 0),
        "deep/er/three": ("G", "test", 1),
        "test/one_label_G-0-0": ("G", "test", 1),
    }
    said = str(log)
    assert "labels.csv names 1 video: absent, not found" in said
    assert "events.txt names 1 video: nobody_label_A, not found" in said


def test_a_list_in_another_encoding_is_read_and_told(tmp_path, plain_clip):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "Caf\u00e9.mp4").write_bytes(plain_clip.read_bytes())
    for encoding in ("cp1252", "utf-16"):
        (tmp_path / "l.csv").write_bytes("name,label\nCaf\u00e9,B1\n".encode(encoding))
        log = extract_folder(
            tmp_path / "v",
            tmp_path / encoding,
            labels=tmp_path / "l.csv",
            weights="random",
            progress=False,
        )
        assert FeatureStore.open(tmp_path / encoding).videos[0].label == "B1"
        assert ("Windows-1252" in str(log)) == (encoding == "cp1252")


@pytest.mark.parametrize("above", ["sep=;\r\n", "\r\n\r\n"])
def test_what_spreadsheets_write_above_the_header(tmp_path, above):
    path = tmp_path / "l.csv"
    path.write_text(f"{above}Name;Label\r\na;G\r\n", newline="")
    ((where, cells),) = read_table(path, {"name": "", "label": ""})
    assert cells == {"name": "a", "label": "G"}
    assert where.endswith(f"line {2 + above.count(chr(10))}")


# ---- partial sound -------------------------------------------------------------------------------


def test_the_store_flags_where_there_is_sound_as_scoring_does(tmp_path):
    path = tmp_path / "v" / "half.mkv"
    path.parent.mkdir()
    wave = clip_wave(1.3, 16000, [0.3], noise=0.05)  # reaches into the third of six snippets
    write_clip(path, seconds=4, wave=wave, sample_rate=16000, audio_codec="pcm_s16le", **LOSSLESS)
    extract_folder(path.parent, tmp_path / "store", weights="random", progress=False)
    store = FeatureStore.open(tmp_path / "store")
    assert store.flag_names == (AUDIO_PRESENT,)
    assert store.audio_mask(0).tolist() == [True, True, True, False, False, False]
    assert (extract(path, Plain()).audio_coverage > 0).tolist() == store.audio_mask(0).tolist()


# ---- devices, parameters, out of the box ---------------------------------------------------------


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:7", "xpu", "cpu,"])
@pytest.mark.parametrize("name", ["extract", "score"])
def test_any_device_name_gets_one_sentence(tmp_path, plain_clip, capsys, name, device):
    out = ["--out", str(tmp_path / "out"), "--device", device]
    assert command([name, str(plain_clip), *out]) == 2
    said = capsys.readouterr().err.strip()
    assert device in said and "\n" not in said and said.startswith(f"avadclip_lite {name}: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stride", "0"], "stride must be at least 1"),
        (["--batch", "0"], "batch and stride must be at least 1"),
        (["--crops", "12"], "crops must be 'clip'"),
    ],
)
@pytest.mark.parametrize("name", ["extract", "score"])
def test_choices_that_are_wrong_for_all_end_at_once(
    tmp_path, plain_clip, scorer, capsys, name, words, message
):
    model = ["--model", "any"] * (name == "score")
    out = ["--out", str(tmp_path / "out")]
    assert command([name, str(plain_clip), *out, *words, *model]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file/new", "n" * 300])
@pytest.mark.parametrize("name", ["extract", "train"])
def test_places_that_the_system_refuses_get_one_sentence(
    tmp_path, plain_clip, capsys, monkeypatch, name, place
):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    words = ["extract", str(plain_clip), "--weights", "random"]
    if name == "train":
        words = ["train", "--data", str(soundstage_path()), "-s", "device", "cpu"]
    assert command([*words, "--out", place]) == 2
    said = capsys.readouterr().err.strip()
    assert place in said and "choose another path" in said and "\n" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "words", [["score", "--treshold", "1"], ["extract", "v", "--stride", "many"], ["trian"]]
)
def test_misspelt_words_get_one_sentence(words, capsys):
    try:
        status = command(words)
    except SystemExit as error:
        status = error.code
    said = capsys.readouterr().err.strip()
    assert status == 2 and "\n" not in said and said.startswith(("avadclip_lite", "python -m"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-s epochs 1 -s epochs 2", "field 'epochs' was given twice; keep one"),
        ("--role vision -s role audio", "field 'role' was given twice; keep one"),
        ("--device cpu -s device cpu", "field 'device' was given twice; keep one"),
        ("-s detector rtfm --role vision", "rtfm has no 'role' of the configuration"),
        ("-s milestones 3", "milestones must be a tuple (in JSON: a list), got 3"),
    ],
)
def test_what_contradicts_itself_is_refused(words, said, capsys):
    assert command(["train", "--data", "store", "--out", "run", *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_an_import_that_is_refused_leaves_nothing_and_draws_no_bars(tmp_path, capsys):
    bent = Layout(tmp_path)
    first = next(iter(bent.arrays))
    bent.arrays[first][3] = np.nan
    with pytest.raises(StoreError, match="extract them again"):
        bent.write().run(progress=True)
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "store").exists() and not (tmp_path / "store.partial").exists()


def test_results_need_a_folder(tmp_path, plain_clip, scorer, capsys):
    (tmp_path / "out").touch()
    assert scorer(plain_clip, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out'} cannot be used" in said and "choose another path" in said


def test_a_folder_of_other_things_is_left_alone(tmp_path, capsys):
    """A store among videos, a training in a store: both were made there. What lies about anywhere,
    and what a kill left, is in nobody's way."""
    for name in ("videos", "store"):
        (tmp_path / name).mkdir()
    write_clip(tmp_path / "videos" / "a_label_G.mp4", seconds=1)
    for name in ("log.txt", ".DS_Store"):
        (tmp_path / "store" / name).touch()
    extract_command = ["extract", str(tmp_path / "videos"), "--weights", "random", "--out"]
    assert command([*extract_command, str(tmp_path / "store")]) == 0
    train = ["train", "--data", str(tmp_path / "store"), "--out"]
    before = sorted(tmp_path.rglob("*"))
    for words, place in ((extract_command, "videos"), (train, "store"), (train, "videos")):
        capsys.readouterr()
        assert command([*words, str(tmp_path / place)]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"{tmp_path / place} holds other things (" in said and "choose a new folder" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_model_the_shipped_ones_are_told(tmp_path, plain_clip, monkeypatch, capsys):
    monkeypatch.setenv("AVADCLIP_DATA", str(tmp_path))
    assert command(["score", str(plain_clip), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    assert "no --model was given" in said and "soundstage/models" in said and "\n" not in said
    (tmp_path / "soundstage" / "models").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(
        DetectorSet, "load", lambda paths, device: asked.append(paths) or panel(*BOTH)
    )
    monkeypatch.setattr(timeline, "load_encoders", lambda *args, **choices: Plain())
    assert command(["score", str(plain_clip), "--out", str(tmp_path / "out")]) == 0
    assert asked == [[tmp_path / "soundstage" / "models"]]
    assert "synthetic world only" in capsys.readouterr().out


def test_the_models_that_ship_are_taken_by_role(tmp_path, plain_clip, monkeypatch, capsys):
    """A teacher and a student where those that ship will lie; trained here, on a tiny store."""
    ours, data = soundstage_path(), tmp_path / "soundstage"
    data.mkdir()
    for name in ("encoders.json", "encoders.safetensors"):
        (data / name).symlink_to(ours / name)
    monkeypatch.setenv("AVADCLIP_DATA", str(tmp_path))
    kind = {"classes": CLASS_SETS["xd"], "dim": 64, "stride": 16, "encoder": "soundstage"}
    with StoreWriter(tmp_path / "store", **kind) as writer:
        for name in ("a_label_G", "b_label_A"):
            rows = np.random.default_rng(0).normal(size=(2, 5, 64)).astype(np.float32)
            writer.add(name=name, split="train", video=rows[0], audio=rows[1])
        writer.finish()
    few = {"epochs": 1, "selection": "last", "device": "cpu"}
    for role, name in (("audio_visual", "teacher"), ("vision", "student")):
        teacher = None if name == "teacher" else load(data / "models" / "teacher")
        settings, out = make_config(role=role, **few), data / "models" / name
        fit(settings, FeatureStore.open(tmp_path / "store"), teacher=teacher, out=out)
    write_clip(tmp_path / "mute.mp4", seconds=1.4)
    words = ["--out", str(tmp_path / "out"), "--no-timeline"]
    assert command(["score", str(plain_clip), str(tmp_path / "mute.mp4"), *words]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert "no --model was given" in said and f"{data / 'models'} are used" in said
    assert "know Soundstage's synthetic world only" in said
    told = (json.loads((tmp_path / "out" / f"{n}.json").read_text()) for n in ("plain", "mute"))
    assert [one["detector"] for one in told] == ["audio_visual", "vision"]


def test_a_checkpoint_of_the_authors_is_converted_first(tmp_path, plain_clip, capsys):
    (tmp_path / "model.pth").write_bytes(b"PK")
    words = ["--model", str(tmp_path / "model.pth"), "--out", str(tmp_path / "out")]
    assert command(["score", str(plain_clip), *words]) == 2
    said = capsys.readouterr().err.strip()
    assert f"import-checkpoint {tmp_path / 'model.pth'} --out RUN" in said and "\n" not in said


def test_detectors_without_classes_give_events_without_names(tmp_path):
    from test_score import Bright

    nameless = DetectorSet(
        detectors={"vision": Bright("vision", named=False)},
        thresholds={"vision": 0.0},
        classes=panel("vision").classes,
        encoder="soundstage",
    )
    path = film(tmp_path / "a.mkv", {2, 3, 7}, None)
    told: list[tuple[str, str]] = []
    for on_event in (None, lambda what, event: told.append((what, event.label))):
        scores = score_video(path, nameless, Plain(), on_event=on_event)
        spans = [(e.code, e.name, e.share, e.first_snippet, e.end_snippet) for e in scores.events]
        assert spans == [(None, None, None, 2, 4), (None, None, None, 7, 8)]
    assert told == [("starts", "anomaly"), ("ends", "anomaly")] * 2
    made = write_scores(scores, tmp_path / "out", overlay=True)
    document = json.loads(made[0].read_text())
    assert document["events"][0]["name"] is None and "classes" not in document["snippets"]
    assert timeline_picture(scores).width > 300


def test_old_option_of_the_copy_is_accepted():
    parser = argparse.ArgumentParser()
    timeline.add_arguments(parser)
    assert parser.parse_args(["a.mp4", "--annotate"]).overlay
