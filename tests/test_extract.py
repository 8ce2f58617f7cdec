"""Extraction against clips whose pictures and sounds were placed by hand."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import clip_wave, find_click, flat, write_clip

from avadclip_lite.config import SAMPLE_RATE
from avadclip_lite.encoders import clip_pixels, load_encoders
from avadclip_lite.video import extract as extraction
from avadclip_lite.video.extract import FeatureReader, checked_crops, cut, extract
from avadclip_lite.video.reader import BrokenVideo, Sound, VideoReader, write_video

STRIDE = 16
FLASHES = (17, 32, 47, 63)  # the second and the last frame of a snippet, and the first
LOSSLESS = {"video_codec": "ffv1", "pixels": "bgr0"}


class Plain:
    """Features that can be read: mean grey level, and energy of the sound."""

    name, dim, image_size = "soundstage", 2, 8

    def encode_images(self, frames: np.ndarray) -> torch.Tensor:
        grey = torch.as_tensor(np.asarray(frames)).float().flatten(1).mean(1)
        return torch.stack([grey, grey], dim=1)

    def encode_audio(self, waves: np.ndarray) -> torch.Tensor:
        energy = torch.as_tensor(np.asarray(waves)).square().sum(1)
        return torch.stack([energy, energy], dim=1)


@pytest.fixture(scope="module")
def tiny():
    return load_encoders("soundstage", weights="random")


# ---- pictures and sound in step ------------------------------------------------------------------

STEPS = [  # container, video, audio, frames/s, samples/s, video starts, audio starts, error allowed
    ("mp4", "libx264", "aac", Fraction(25), 44100, 0.0, 0.0, 1.0),
    ("mp4", "libx264", "aac", Fraction(30000, 1001), 48000, 0.0, 0.3, 1.0),
    ("mp4", "libx264", "aac", Fraction(10), 22050, 0.5, 0.0, 1.0),
    ("mkv", "ffv1", "pcm_s16le", Fraction(24), 16000, 0.5, 0.0, 1.0),
    ("mkv", "libx264", "libopus", Fraction(60), 48000, 0.0, 0.25, 1.5),
    ("webm", "libvpx", "libopus", Fraction(15), 48000, 0.0, 0.2, 1.5),
    ("avi", "mpeg4", "pcm_s16le", Fraction(25), 44100, 0.0, 0.0, 1.0),
    # AVI has no field for the silence that an MP3 encoder puts in front (1105 samples)
    ("avi", "mpeg4", "libmp3lame", Fraction(25), 44100, 0.0, 0.0, 26.0),
    ("ts", "libx264", "aac", Fraction(25), 48000, 0.0, 0.2, 1.0),
]


@pytest.mark.parametrize("case", STEPS, ids=lambda case: "-".join(str(value) for value in case[:7]))
def test_a_flash_and_its_click_are_in_one_snippet(tmp_path, case):
    container, video, audio, rate, samples, video_offset, audio_offset, allowed = case
    path = tmp_path / f"clip.{container}"
    count = 80
    started = round(video_offset * rate) / float(rate)
    for flash in FLASHES:
        when = started + flash / float(rate)
        write_clip(
            path,
            rate=rate,
            seconds=count / rate,
            flash_frames=[flash],
            video_codec=video,
            audio_codec=audio,
            sample_rate=samples,
            wave=clip_wave(count / rate + started - audio_offset, samples, [when], audio_offset),
            video_offset=video_offset,
            audio_offset=audio_offset,
        )
        found = extract(path, Plain(), picture="mean")
        assert found.snippets == count // STRIDE
        assert found.video[0, :, 0].argmax() == flash // STRIDE
        if flash % STRIDE:  # a click on the very edge may fall to either side
            assert found.audio[:, 0].argmax() == flash // STRIDE
        with Sound(path) as sound:
            wave, _ = sound.window(found.origin, found.origin + found.seconds)
        assert abs(find_click(wave, SAMPLE_RATE) - flash / float(rate)) * 1000 <= allowed


def test_snippets_of_a_variable_frame_rate_follow_the_time_stamps(tmp_path):
    gaps = np.random.default_rng(1).choice([0.02, 0.04, 0.1, 0.3], size=64)
    times = np.concatenate([[0.0], np.cumsum(gaps)])[:64]
    flash = 37
    path = tmp_path / "vfr.mp4"
    wave = clip_wave(times[-1] + 1, 44100, [times[flash] + 0.01])
    write_clip(path, times=times, flash_frames=[flash], wave=wave)
    found = extract(path, Plain(), picture="mean")
    np.testing.assert_allclose(found.times[:-1], times[::STRIDE], atol=1e-3)
    assert found.video[0, :, 0].argmax() == found.audio[:, 0].argmax() == flash // STRIDE
    reader = VideoReader(path, stride=STRIDE, picks=(0,))
    ends = [snippet.end for snippet in reader]
    np.testing.assert_allclose(ends[:-1], times[STRIDE::STRIDE], atol=1e-3)


def test_windows_tile_the_sound_without_gap_or_overlap(tmp_path):
    rng = np.random.default_rng(3)
    wave = rng.normal(0, 0.1, 3 * SAMPLE_RATE).astype(np.float32)
    path = tmp_path / "noise.mkv"
    write_clip(
        path, seconds=3, **LOSSLESS, wave=wave, sample_rate=SAMPLE_RATE, audio_codec="pcm_s16le"
    )
    edges = np.sort(rng.uniform(0, 3, 20))
    with Sound(path) as sound:
        parts = [sound.window(a, b)[0] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    low, high = round(edges[0] * SAMPLE_RATE), round(edges[-1] * SAMPLE_RATE)
    np.testing.assert_allclose(np.concatenate(parts), wave[low:high], atol=1e-4)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_mono_is_the_mean_of_the_channels_whatever_the_codec(tmp_path, codec):
    t = np.arange(2 * 48000) / 48000
    wave = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    path = tmp_path / "tone.mkv"
    write_clip(path, seconds=2, wave=wave, sample_rate=48000, audio_codec=codec, channels=2)
    with Sound(path) as sound:
        heard, _ = sound.window(0.5, 1.5)
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_a_gap_in_the_sound_is_silence_and_what_follows_stays_in_place(tmp_path):
    path = tmp_path / "gap.mkv"
    wave = clip_wave(4, 44100, [0.5, 3.5])
    write_clip(path, wave=wave, audio_codec="pcm_s16le", gap=(1.0, 2.5), **LOSSLESS)
    with Sound(path) as sound:
        before, _ = sound.window(0.0, 1.0)
        inside, share = sound.window(1.1, 2.4)
        after, _ = sound.window(3.0, 4.0)
    assert find_click(before, SAMPLE_RATE) == pytest.approx(0.5, abs=1e-3)
    assert share == 0 and not inside.any()
    assert find_click(after, SAMPLE_RATE) == pytest.approx(0.5, abs=1e-3)


# ---- which sound there is ------------------------------------------------------------------------


def test_no_sound_track(tmp_path):
    path = tmp_path / "mute.mp4"
    write_clip(path)
    found = extract(path, Plain())
    assert found.audio is None and found.sound == "absent" and not found.audio_coverage.any()
    assert found.notes == ()


def test_a_silent_track_counts_as_no_sound(tmp_path):
    path = tmp_path / "silent.mp4"
    write_clip(path, wave=np.zeros(4 * 44100, np.float32))
    found = extract(path, Plain())
    assert found.audio is None and found.sound == "silent"
    assert found.notes == ("the sound track is silent and is left out",)


@pytest.mark.parametrize(
    ("seconds", "start", "heard", "note"),
    [
        (1.28, 0.0, [1, 1, 0, 0, 0, 0], "the sound ends 2.72 s before the pictures"),
        (2.08, 1.92, [0, 0, 0, 1, 1, 1], "the sound starts 1.92 s after the pictures"),
        (6.0, 0.0, [1] * 6, "2.00 s of sound after the last picture left out"),
    ],
    ids=["shorter", "later", "longer"],
)
def test_sound_that_is_shorter_later_or_longer(tmp_path, seconds, start, heard, note):
    path = tmp_path / "clip.mkv"
    wave = clip_wave(seconds, 48000, [], start, noise=0.1)
    write_clip(
        path, wave=wave, sample_rate=48000, audio_codec="pcm_s16le", audio_offset=start, **LOSSLESS
    )
    found = extract(path, Plain())  # 25 frames/s: snippets of 0.64 s
    np.testing.assert_allclose(found.audio_coverage, heard, atol=0.01)
    assert found.audio.shape == (6, 2)
    assert (found.audio[:, 0] > 1).tolist() == [bool(share) for share in heard]
    assert (found.loudness > 0.05).tolist() == [bool(share) for share in heard]
    assert found.notes == (note,)


# ---- which frames, which part of the picture -----------------------------------------------------


def test_the_picked_frame_and_the_tail(tmp_path):
    path = tmp_path / "count.mkv"
    write_clip(
        path, seconds=2.0, picture=lambda k: flat(5 * k, (16, 16)), size=(16, 16), **LOSSLESS
    )
    for picture, offset in (("first", 0), ("middle", 8), ("mean", 7.5)):
        found = extract(path, Plain(), picture=picture)
        assert found.frames == 50 and found.snippets == 3  # frames 48 and 49 are left out
        expected = 5 * (np.arange(3) * STRIDE + offset)
        np.testing.assert_allclose(found.video[0, :, 0], expected, atol=0.51)
    with pytest.raises(ValueError, match="picture must be one of first, middle, mean, got 'last'"):
        extract(path, Plain(), picture="last")
    assert extract(path, Plain(), stride=4).snippets == 12


@pytest.mark.parametrize("frames", [1, 5, 15])
def test_a_video_shorter_than_a_snippet_is_one_snippet(tmp_path, frames):
    path = tmp_path / "short.mp4"
    write_clip(path, seconds=frames / 25, wave=clip_wave(frames / 25, 44100, [], noise=0.1))
    found = extract(path, Plain())
    assert found.snippets == 1 and found.frames == frames and found.audio.shape == (1, 2)
    assert found.seconds == pytest.approx(frames / 25, abs=0.005)


def squeezed(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear resizing written from its definition: pixel centres, edges repeated."""
    rows = (np.arange(height) + 0.5) * image.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * image.shape[1] / width - 0.5

    def at(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        y, x = np.clip(y, 0, image.shape[0] - 1), np.clip(x, 0, image.shape[1] - 1)
        return image[y[:, None], x[None]].astype(float)

    y, x = np.floor(rows).astype(int), np.floor(columns).astype(int)
    dy, dx = (rows - y)[:, None, None], (columns - x)[None, :, None]
    top = at(y, x) * (1 - dx) + at(y, x + 1) * dx
    return top * (1 - dy) + (at(y + 1, x) * (1 - dx) + at(y + 1, x + 1) * dx) * dy


def test_the_ten_crops_of_the_release():
    image = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)
    whole = squeezed(image, 340, 256)
    five = [
        whole[16:240, 58:282],
        whole[:224, :224],
        whole[:224, -224:],
        whole[-224:, :224],
        whole[-224:, -224:],
    ]
    expected = np.stack([*five, *(part[:, ::-1] for part in five)])
    got = cut(image, checked_crops("all", "clip"), 64)
    assert got.shape == (10, 224, 224, 3)
    assert np.abs(got - expected).max() <= 1.0
    np.testing.assert_array_equal(cut(image, (5,), 64)[0], got[5])


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (9, 200), (64, 64)])
def test_clips_own_preprocessing_is_the_encoders(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    ours = clip_pixels(cut(image, "clip", 32), 32)
    torch.testing.assert_close(ours, clip_pixels(image[None], 32), rtol=0, atol=0)


def test_whole_keeps_the_edges():
    image = np.zeros((90, 300, 3), np.uint8)
    image[:, :30] = 255
    got = cut(image, "whole", 20)
    assert got.shape == (1, 20, 20, 3)
    assert got[0, :, 0].min() > 240 and got[0, :, 4:].max() < 10


@pytest.mark.parametrize(
    ("crops", "meaning"),
    [("5", (5,)), (3, (3,)), ("0,5", (0, 5)), ((1, 1, 2), (1, 2)), ("clip", "clip")],
)
def test_spelling_of_crops(crops, meaning):
    assert checked_crops(crops, "clip") == meaning


@pytest.mark.parametrize("crops", ["10", -1, "centre", (), "clip,5"])
def test_unknown_crops_are_refused(crops):
    with pytest.raises(ValueError, match="crops must be 'clip', 'whole', 'all' or numbers"):
        checked_crops(crops, "clip")


def test_default_crops():
    assert checked_crops(None, "soundstage") == "whole"
    assert checked_crops(None, "clip") == (5,)


@pytest.mark.parametrize(("turn", "corner"), [(90, "bottom left"), (-90, "top right"), (180, "")])
def test_phone_video_is_turned_upright(tmp_path, turn, corner):
    """The mark tells how far to turn counterclockwise: a light top left corner ends up bottom left
    after a quarter turn."""
    image = flat(20, (64, 32))
    image[:16, :16] = 240
    path = tmp_path / "phone.mp4"
    write_clip(path, seconds=1, size=(64, 32), picture=lambda k: image, rotation=turn)
    (snippet,) = VideoReader(path, stride=STRIDE, picks=(0,))
    got = snippet.pictures[0].mean(axis=2)
    assert got.shape == ((32, 64) if turn == 180 else (64, 32))
    corners = {
        "top left": got[:12, :12],
        "top right": got[:12, -12:],
        "bottom left": got[-12:, :12],
        "": got[-12:, -12:],
    }
    assert {where: part.mean() > 150 for where, part in corners.items()} == {
        where: where == corner for where in corners
    }


@pytest.mark.parametrize(
    ("container", "codec", "pixels", "size"),
    [
        ("mp4", "libx264", "yuv420p10le", (64, 48)),
        ("mp4", "libx264", "yuv444p", (63, 47)),
        ("mkv", "ffv1", "gray", (33, 17)),
        ("mkv", "ffv1", "yuv420p16le", (64, 48)),
        ("mov", "png", "pal8", (64, 48)),
        ("mov", "png", "rgba", (31, 63)),
        ("gif", "gif", "pal8", (50, 50)),
        ("avi", "mjpeg", "yuvj422p", (2, 2)),
        ("mkv", "ffv1", "yuv422p", (1, 1)),
    ],
)
def test_any_pixel_format_and_size(tmp_path, container, codec, pixels, size):
    path = tmp_path / f"clip.{container}"
    count = 20
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(flat(100, size), format="rgb24")
            if pixels == "pal8":  # FFmpeg does not convert to palettes
                frame = av.VideoFrame(*size, "pal8")
                palette = np.zeros(256, "<u4")
                palette[7] = 0xFF646464
                plane = np.full((size[1], frame.planes[0].line_size), 7, np.uint8)
                frame.planes[0].update(plane.tobytes())
                frame.planes[1].update(palette.tobytes())
            frame.pts = k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    found = extract(path, Plain())
    assert found.snippets == 1 and found.frames == count
    assert found.video[0, 0, 0] == pytest.approx(100, abs=4)


# ---- the tiny encoders: determinism, order, memory -----------------------------------------------


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    rng = np.random.default_rng(5)
    pictures = rng.integers(0, 256, (16, 12, 16, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    write_clip(
        path,
        rate=Fraction(30000, 1001),
        seconds=8,
        picture=lambda k: pictures[k // STRIDE],
        wave=clip_wave(8, 44100, [1.0, 2.2, 5.1], noise=0.05),
    )
    return path


def test_features_do_not_depend_on_the_batch(film, tiny):
    first = extract(film, tiny, batch=1, threads=1)
    for batch in (3, 5, 64):
        other = extract(film, tiny, batch=batch)
        np.testing.assert_allclose(other.video, first.video, atol=2e-5)
        np.testing.assert_allclose(other.audio, first.audio, atol=2e-5)
        np.testing.assert_array_equal(other.times, first.times)
        np.testing.assert_array_equal(other.loudness, first.loudness)
    again = extract(film, tiny, batch=1)
    np.testing.assert_array_equal(again.video, first.video)
    np.testing.assert_array_equal(again.audio, first.audio)


def test_features_are_the_encoders_of_the_decoded_pictures_and_sound(film, tiny):
    found = extract(film, tiny, crops=(0, 7))
    assert found.video.shape == (2, 15, 64) and found.audio.shape == (15, 64)
    with av.open(str(film)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    middle = np.concatenate([cut(frame, (7,), 64) for frame in frames[8::STRIDE]])
    expected = tiny.encode_images(middle).numpy()
    np.testing.assert_allclose(found.video[1], expected, atol=2e-5)


class Slow(Plain):
    """An encoder that waits until it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def encode_images(self, frames: np.ndarray) -> torch.Tensor:
        assert self.gate.wait(20)
        return super().encode_images(frames)


def test_pictures_wait_for_a_slow_encoder_in_bounded_number(tmp_path, monkeypatch):
    path = tmp_path / "long.mkv"
    write_clip(path, seconds=40, size=(16, 16), **LOSSLESS)
    made = []
    real = extraction.cut
    monkeypatch.setattr(extraction, "cut", lambda *args: made.append(1) or real(*args))
    encoder, batch = Slow(), 4
    parts = iter(FeatureReader(path, encoder, batch=batch))
    threading.Timer(1.5, lambda: (counts.append(len(made)), encoder.gate.set())).start()
    counts: list[int] = []
    got = list(parts)
    assert sum(part.video.shape[1] for part in got) == len(made) == 40 * 25 // STRIDE
    assert counts[0] <= (extraction.QUEUE + 2) * batch  # of 62, while nothing was encoded


def test_an_encoders_failure_reaches_the_caller(film):
    class Failing(Plain):
        def encode_audio(self, waves):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        extract(film, Failing(), batch=2)


def test_a_reader_may_be_left_half_way(film):
    parts = iter(FeatureReader(film, Plain(), batch=2))
    assert next(parts).video.shape == (1, 2, 2)
    parts.close()
    assert threading.active_count() == 1 or not any(
        "ThreadPoolExecutor" in thread.name for thread in threading.enumerate()
    )


def test_a_written_video_is_read_as_it_was(tmp_path):
    path = tmp_path / "made: here.mp4"
    wave = clip_wave(4.0, SAMPLE_RATE, [1.0, 2.75])
    pictures = (flat(2 * k + 10, (32, 48)) for k in range(100))
    view = np.repeat(wave[: 100 * SAMPLE_RATE // 24], 2)[::2]  # not contiguous in memory
    write_video(path, pictures, rate=24, wave=view)
    found = extract(path, Plain(), picture="first")
    assert found.frames == 100 and found.seconds == pytest.approx(96 / 24, abs=1e-3)
    np.testing.assert_allclose(found.video[0, :, 0], 2 * np.arange(0, 96, 16) + 10, atol=2)
    assert np.argsort(found.audio[:, 0])[-2:].tolist() in ([1, 4], [4, 1])
    with Sound(path) as sound:
        heard, _ = sound.window(0.0, 2.0)
    assert find_click(heard, SAMPLE_RATE) == pytest.approx(1.0, abs=1e-3)


# ---- files that are no good ----------------------------------------------------------------------


def not_a_video(path: Path) -> None:
    path.write_text("This is a text.\n" * 40)


def cut_off(path: Path) -> None:
    write_clip(path, seconds=4)  # the index of an MP4 stands at its end
    os.truncate(path, path.stat().st_size * 2 // 3)


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def no_frames(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))


def forbidden(path: Path) -> None:
    write_clip(path, seconds=1)
    path.chmod(0)


BAD = {
    "empty": (lambda path: path.touch(), "is empty (0 bytes); copy or download it again"),
    "text": (not_a_video, "is not a video that FFmpeg can open"),
    "cut off": (cut_off, "is not a video that FFmpeg can open"),
    "audio only": (audio_only, "holds no video (only audio)"),
    "no frames": (no_frames, "no picture that can be decoded"),
    "folder": (lambda path: path.mkdir(), "is a folder; give a video file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_get_one_sentence(tmp_path, kind):
    path = tmp_path / "bad.mp4"
    make, message = BAD[kind]
    make(path)
    with pytest.raises(BrokenVideo) as caught:
        extract(path, Plain())
    text = str(caught.value)
    assert message in text and str(path) in text and "\n" not in text


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*gone.mp4"):
        extract(tmp_path / "gone.mp4", Plain())


def test_a_file_that_must_not_be_read(tmp_path):
    path = tmp_path / "secret.mp4"
    forbidden(path)
    user = os.geteuid()
    if user == 0:  # root may read anything: be somebody else for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(BrokenVideo, match="must not be read by this user"):
            extract(path, Plain())
    finally:
        if user == 0:
            os.seteuid(0)


def test_a_file_cut_off_behind_its_index_keeps_what_it_has(tmp_path):
    path = tmp_path / "half.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (100, 48, 64, 3), np.uint8)
    wave = clip_wave(4, 44100, [])
    write_clip(path, picture=lambda k: noise[k], wave=wave, options={"movflags": "faststart"})
    os.truncate(path, path.stat().st_size // 2)
    found = extract(path, Plain())
    assert 0 < found.snippets < 6
    assert found.notes == (f"only {found.frames} of 100 frames could be decoded",)


@pytest.mark.parametrize(
    "name", ["a name with spaces.mp4", "Straße_видео_動画.mp4", "http: x#1?.mp4"]
)
def test_any_file_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "plain.mp4", seconds=1)
    (tmp_path / "plain.mp4").rename(tmp_path / name)
    assert extract(name, Plain()).snippets == 1


def test_a_cover_image_is_no_video(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("libmp3lame", rate=44100, layout="mono")
        cover = out.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
        out.mux(cover.encode(av.VideoFrame.from_ndarray(flat(9, (16, 16)), format="rgb24")))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(BrokenVideo, match="song.mp3 holds no video"):
        extract(path, Plain())
