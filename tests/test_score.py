"""Scoring: which detector, which events, and what is written, on clips made by hand."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from clips import clip_wave, flat, write_clip
from PIL import Image
from scipy.special import logit
from test_extract import LOSSLESS, Plain
from tiny_models import DIM, detector

from avadclip_lite import train
from avadclip_lite.config import SAMPLE_RATE, XD_CLASSES, ClassSet, make_config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.encoders import load_encoders
from avadclip_lite.evaluate import predict_store
from avadclip_lite.model import Detector, Output
from avadclip_lite.video import timeline as scoring
from avadclip_lite.video.detect import DELAY, DetectorSet, score_video
from avadclip_lite.video.detect import find_events as events_of_logits
from avadclip_lite.video.folder import extract_folder
from avadclip_lite.video.overlay import Overlay
from avadclip_lite.video.reader import Sound, VideoReader, clock, pictures_at
from avadclip_lite.video.timeline import write_scores

SECONDS = 16 / 25  # a snippet of the clips below


class Bright(Detector):
    """A detector one can predict: as sure as the picture is bright or, if it hears, the sound is
    loud; fighting when it is seen, shooting when it is heard."""

    def __init__(self, role: str, window: int = 256, *, named: bool = True) -> None:
        super().__init__(
            SimpleNamespace(model=SimpleNamespace(role=role, dim=2), detector="bright")
        )
        self.max_snippets, self.named = window, named
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.rows = 0  # most snippets in one call

    def forward(self, batch):
        self.rows = max(self.rows, batch.snippets)
        seen = batch.video[..., 0] / 255
        heard = torch.zeros_like(seen)
        if self.settings.model.role != "vision":
            heard = (batch.audio[..., 0] / 50).clamp(max=1) * batch.audio_mask
        confidence = torch.maximum(seen, heard).clamp(1e-6, 1 - 1e-6)
        probabilities = torch.zeros(*seen.shape, len(XD_CLASSES))
        probabilities[..., 0] = 1 - confidence
        probabilities[..., 1] = torch.where(seen >= heard, confidence, 0.0)
        probabilities[..., 2] = torch.where(seen < heard, confidence, 0.0)
        steps = torch.arange(batch.snippets)
        return Output(
            anomaly_logits=torch.logit(confidence),
            mask=steps < batch.lengths[:, None],
            alignment_logits=probabilities.log() if self.named else None,
        )


def panel(*roles: str, window: int = 256, **thresholds: float) -> DetectorSet:
    return DetectorSet(
        detectors={role: Bright(role, window) for role in roles},
        thresholds={role: logit(thresholds.get(role, 0.5)) for role in roles},
        classes=XD_CLASSES,
        encoder="soundstage",
    )


BOTH = ("audio_visual", "vision")


def film(path: Path, bright: set[int], loud: set[int] | None, snippets: int = 10) -> Path:
    """Snippets that are white and snippets that are loud, on a dark quiet ground; ``loud=None``:
    no sound track."""
    wave = None
    if loud is not None:
        wave = np.full(round(snippets * SECONDS * SAMPLE_RATE), 0.003, np.float32)
        for k in loud:
            low, high = (round(edge * SECONDS * SAMPLE_RATE) for edge in (k + 0.2, k + 0.8))
            wave[low:high] = 0.2 * np.sin(np.arange(high - low) * 0.3)
    write_clip(
        path,
        seconds=snippets * SECONDS,
        picture=lambda k: flat(230 if k // 16 in bright else 30, (64, 48)),
        wave=wave,
        sample_rate=SAMPLE_RATE,
        audio_codec="pcm_s16le",
        **LOSSLESS,
    )
    return path


# ---- which detector ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "loud", "role", "why"),
    [
        (BOTH, {5}, "audio_visual", "sound is present: audio-visual detector"),
        (BOTH, None, "vision", "sound is absent: vision-only detector"),
        (
            ("audio_visual",),
            None,
            "audio_visual",
            "sound is absent: audio-visual detector, because no vision-only detector was given",
        ),
        (
            ("vision",),
            {5},
            "vision",
            "sound is present: vision-only detector, because no audio-visual detector was given",
        ),
    ],
)
def test_the_detector_follows_the_sound_and_says_so(tmp_path, roles, loud, role, why):
    scores = score_video(film(tmp_path / "a.mkv", {2}, loud), panel(*roles), Plain())
    assert (scores.role, scores.why) == (role, why)
    found = [(event.name, event.first_snippet, event.end_snippet) for event in scores.events]
    heard = [("shooting", 5, 6)] if role == "audio_visual" and loud else []
    assert found == [("fighting", 2, 3), *heard]


def test_silence_is_no_sound(tmp_path):
    path = tmp_path / "a.mkv"
    wave = np.zeros(4 * SAMPLE_RATE, np.float32)
    write_clip(path, wave=wave, sample_rate=SAMPLE_RATE, audio_codec="pcm_s16le", **LOSSLESS)
    scores = score_video(path, panel(*BOTH), Plain())
    assert scores.role == "vision" and scores.why.startswith("sound is silent")


def test_a_detector_that_only_hears_needs_something_to_hear(tmp_path):
    with pytest.raises(ValueError, match="sound is absent, and the only detector at hand hears"):
        score_video(film(tmp_path / "a.mkv", {2}, None), panel("audio"), Plain())


# ---- events --------------------------------------------------------------------------------------


def find_events(confidence, probabilities, times, threshold, classes):
    return events_of_logits(logit(confidence), probabilities, times, logit(threshold), classes)


def test_events_worked_by_hand():
    classes = ClassSet(name="three", codes=("A", "X", "Y"), words=("normal", "ex", "why"))
    confidence = np.array([0.1, 0.6, 0.9, 0.2, 0.5])
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.5, 0.4, 0.1], [0.1, 0.3, 0.6], [0.8, 0.1, 0.1], [0.5, 0.5, 0.0]]
    )
    times = np.array([0.0, 1.0, 2.0, 4.0, 5.0, 6.0])  # the third snippet is longer
    first, second = find_events(confidence, probabilities, times, 0.5, classes)
    # weights 0.6 x .4 + 0.9 x .3 = .51 and 0.6 x .1 + 0.9 x .6 = .60
    assert (first.code, first.name, first.start, first.end) == ("Y", "why", 1.0, 4.0)
    assert first.score == pytest.approx(0.9) and first.peak == 3.0
    assert first.share == pytest.approx(0.60 / 1.11)
    assert (second.code, second.first_snippet, second.end_snippet) == ("X", 4, 5)
    assert find_events(confidence, probabilities, times, 0.95, classes) == []


@pytest.mark.parametrize(
    ("leading", "events"),
    [
        ("XXXXYYYY", [("X", 0, 4), ("Y", 4, 8)]),
        ("XXXYXXXX", [("X", 0, 8)]),  # a moment does not count
        ("YY", [("Y", 0, 2)]),
    ],
)
def test_an_event_ends_where_its_class_changes(leading, events):
    classes = ClassSet(name="three", codes=("A", "X", "Y"), words=("normal", "ex", "why"))
    rows = {"X": [0.1, 0.6, 0.3], "Y": [0.1, 0.3, 0.6]}
    confidence = np.concatenate([[0.2], np.full(len(leading), 0.8), [0.2]])
    probabilities = np.array([rows["X"], *(rows[c] for c in leading), rows["X"]])
    times = np.arange(len(confidence) + 1.0)
    got = find_events(confidence, probabilities, times, 0.5, classes)
    assert [(e.code, e.first_snippet - 1, e.end_snippet - 1) for e in got] == events


def test_neighbours_of_one_name_are_one_event():
    classes = ClassSet(name="three", codes=("A", "X", "Y"), words=("normal", "ex", "why"))
    x, y, sure = [0.1, 0.7, 0.2], [0.1, 0.35, 0.55], [0.1, 0.8, 0.1]
    probabilities = np.array([x] * 5 + [y] * 4 + [sure] + [y] * 4)
    # Y leads from snippet 6 on; weighted by confidence that part is X too: 2.7 x 0.35 + 0.8 = 1.745
    # against 2.7 x 0.55 + 0.1 = 1.585
    confidence = np.array([0.9] * 5 + [0.5] * 4 + [1.0] + [0.3] * 4)
    times = np.arange(len(confidence) + 1.0)
    (event,) = find_events(confidence, probabilities, times, 0.25, classes)
    assert (event.code, event.first_snippet, event.end_snippet) == ("X", 0, 14)
    assert event.share == pytest.approx(
        (confidence @ probabilities[:, 1]) / (confidence @ probabilities[:, 1:]).sum()
    )


def test_the_threshold_saved_with_the_detector_is_used(tmp_path):
    path = film(tmp_path / "a.mkv", {2}, None)  # white is 230 / 255 = 0.90
    assert len(score_video(path, panel("vision"), Plain()).events) == 1
    assert score_video(path, panel("vision", vision=0.95), Plain()).threshold == pytest.approx(0.95)
    assert not score_video(path, panel("vision", vision=0.95), Plain()).events
    assert score_video(path, panel("vision", vision=0.95), Plain(), threshold=0.8).events


def test_several_crops_are_averaged(tmp_path):
    half = flat(0, (64, 48))
    half[:, 32:] = 255  # the left crops see less of the white half
    path = tmp_path / "half.mkv"
    write_clip(path, seconds=1, picture=lambda k: half, **LOSSLESS)
    one, two, both = (
        score_video(path, panel("vision"), Plain(), crops=crops).confidence
        for crops in ((1,), (2,), (1, 2))
    )
    assert one[0] < two[0] - 0.2
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-6)


# ---- streaming -----------------------------------------------------------------------------------


def test_streaming_tells_events_in_time_and_ends_with_the_same_scores(tmp_path):
    bright = {3, 4, 30, 31, 32, 60, 69}
    path = film(tmp_path / "long.mkv", bright, {45}, snippets=70)
    whole = score_video(path, panel(*BOTH), Plain())
    done, told = 0, []

    def progress(count: int) -> None:
        nonlocal done
        done += count

    def on_event(what, event):
        told.append((what, event.name, event.first_snippet, event.end_snippet, done))

    small = panel(*BOTH, window=32)
    streamed = score_video(path, small, Plain(), on_event=on_event, progress=progress)
    np.testing.assert_allclose(streamed.confidence, whole.confidence, atol=1e-6)
    np.testing.assert_array_equal(streamed.times, whole.times)
    np.testing.assert_array_equal(streamed.loudness, whole.loudness)
    assert streamed.events == whole.events and streamed.streamed
    ends = [entry[:4] for entry in told if entry[0] == "ends"]
    assert ends == [
        ("ends", "fighting", 3, 5),
        ("ends", "fighting", 30, 33),
        ("ends", "shooting", 45, 46),
        ("ends", "fighting", 60, 61),
        ("ends", "fighting", 69, 70),
    ]
    assert [entry[0] for entry in told] == ["starts", "ends"] * 5
    assert all(done - end <= DELAY for _, _, _, end, done in told)
    assert max(model.rows for model in small.detectors.values()) <= 32


def test_a_real_detector_streams_close_to_the_whole(tmp_path):
    """In the middle of a window, context on both sides is there, and scores agree."""
    path = tmp_path / "a.mkv"
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, 60)
    write_clip(
        path,
        seconds=60 * SECONDS,
        picture=lambda k: flat(int(grey[k // 16]), (16, 16)),
        size=(16, 16),
        **LOSSLESS,
    )

    class Wide(Plain):
        dim = DIM

        def encode_images(self, frames):
            generator = torch.Generator().manual_seed(0)
            return (
                super().encode_images(frames)[:, :1]
                / 128
                * torch.randn(1, DIM, generator=generator)
            )

    classes = ClassSet(name="four", codes=tuple("ABCD"), words=tuple("abcd"))
    model = DetectorSet(
        detectors={"vision": detector(role="vision", window=4)},
        thresholds={"vision": 0.0},
        classes=classes,
        encoder="x",
    )
    whole = score_video(path, model, Wide())
    streamed = score_video(path, model, Wide(), on_event=lambda what, event: None)
    assert np.abs(whole.confidence - streamed.confidence).max() < 0.1


# ---- what is written -----------------------------------------------------------------------------


def test_json_timeline_and_copy(tmp_path):
    path = film(tmp_path / "Straße 1.mkv", {2, 3}, {7})
    scores = score_video(path, panel(*BOTH), Plain())
    made = write_scores(scores, tmp_path / "out", overlay=True)
    assert [file.name for file in made] == ["out.json", "out.png", "out_overlay.mp4"]

    told = json.loads(made[0].read_text(encoding="utf-8"))
    assert told["video"] == "Straße 1.mkv" and told["sound"] == "present"
    events = [(e["code"], e["start"], e["end"]) for e in told["events"]]
    assert events == [
        ("B1", pytest.approx(2 * SECONDS, abs=2e-3), pytest.approx(4 * SECONDS, abs=2e-3)),
        ("B2", pytest.approx(7 * SECONDS, abs=2e-3), pytest.approx(8 * SECONDS, abs=2e-3)),
    ]
    assert len(told["snippets"]["confidence"]) == len(told["snippets"]["start"]) == 10
    assert told["snippets"]["classes"]["B1"][2] == pytest.approx(230 / 255, abs=0.01)

    with Image.open(made[1]) as picture:
        assert picture.width > 600 and picture.height > 400
        assert np.asarray(picture.convert("L")).std() > 10

    frames = list(VideoReader(made[2], stride=1, picks=(0,)))
    originals = list(VideoReader(path, stride=1, picks=(0,)))
    assert len(frames) == len(originals) == 160
    np.testing.assert_allclose(
        [frame.start for frame in frames], [frame.start for frame in originals], atol=1e-3
    )

    def box(k: int) -> np.ndarray:
        """The corner where an event's name stands, without its letters."""
        return frames[k].pictures[0][3:6, 5:9].reshape(-1, 3).astype(int).mean(axis=0)

    assert np.abs(box(40) - (0xD5, 0x5E, 0x00)).max() < 40  # fighting
    assert np.abs(box(115) - (0x00, 0x72, 0xB2)).max() < 40  # shooting
    assert box(10).max() < 60 and box(90).max() < 60
    for file in (path, made[2]):
        with Sound(file) as sound:
            wave, _ = sound.window(0, 6.4)
        window = wave[: 10 * round(SECONDS * SAMPLE_RATE)].reshape(10, -1)
        assert int(window.std(axis=1).argmax()) == 7


def test_annotating_a_turned_video_of_odd_size_without_sound(tmp_path):
    path = tmp_path / "phone.mp4"
    write_clip(
        path, seconds=1, size=(64, 46), rotation=90, video_options={"crf": "10"}, video_offset=0.4
    )
    scores = score_video(path, panel("vision"), Plain())
    copy = write_scores(scores, tmp_path / "out", timeline=False, overlay=True)[1]
    reader = VideoReader(copy, stride=1, picks=(0,))
    pictures = [snippet.pictures[0] for snippet in reader]
    assert len(pictures) == 25 and pictures[0].shape == (256, 184, 3)
    assert reader.origin == 0
    with av.open(str(copy)) as container:
        assert not container.streams.audio


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mkv", {2}, None)
    scores = score_video(path, panel("vision"), Plain())

    def broken(self, image, time):
        raise RuntimeError("no")

    monkeypatch.setattr(Overlay, "draw", broken)
    with pytest.raises(RuntimeError):
        write_scores(scores, tmp_path / "out", timeline=False, overlay=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mkv", "out.json"]


@pytest.mark.parametrize(
    ("container", "codec", "pixels"),
    [("mp4", "libx264", "yuv420p"), ("mkv", "ffv1", "bgr0"), ("avi", "mpeg4", "yuv420p")],
)
def test_pictures_at_given_times(tmp_path, container, codec, pixels):
    path = tmp_path / f"count.{container}"
    write_clip(
        path,
        seconds=4,
        picture=lambda k: flat(2 * k + 20, (32, 32)),
        size=(32, 32),
        video_codec=codec,
        pixels=pixels,
    )
    wanted = [3.61, 0.0, 2.5, 0.05, 99.0]
    got = [picture.mean() for picture in pictures_at(path, wanted)]
    frames = [90, 0, 62, 1, 99]
    np.testing.assert_allclose(got, [2 * k + 20 for k in frames], atol=3)


def test_clock():
    assert [clock(t) for t in (0, 59.96, 3723.44)] == ["00:00:00.0", "00:01:00.0", "01:02:03.4"]


# ---- from a folder of videos to scores, with nothing but the package -----------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Extract a folder, train a teacher and a student on it for one step."""
    root = tmp_path_factory.mktemp("own")
    for k in range(4):
        code = "B1" if k % 2 else "A"
        write_clip(
            root / f"{k}_label_{code}.mp4",
            seconds=4,
            picture=lambda n, k=k: flat(40 * k + n % 16, (32, 32)),
            size=(32, 32),
            wave=clip_wave(4, SAMPLE_RATE, [1.0], noise=0.02) if k else None,
            sample_rate=SAMPLE_RATE,
        )
    common = {"weights": "random", "device": "cpu", "progress": False}
    extract_folder(root, root / "store", **common)
    store = FeatureStore.open(root / "store")
    small = {"epochs": 1, "max_steps": 1, "batch_size": 4, "selection": "last", "device": "cpu"}
    with pytest.warns(UserWarning, match="random weights"):
        for role in BOTH:
            ukd = {"ukd": "none"} if role == "vision" else {}
            settings = make_config(role=role, **small, **ukd)
            train.fit(settings, store, text="random", out=root / "runs" / role, progress=False)
    return root


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    scoring.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.mark.filterwarnings("ignore:the text tower has random weights")
def test_the_command_line(trained, tmp_path, capsys):
    common = ["--model", trained / "runs", "--encoder", "soundstage", "--weights", "random"]
    sounding, mute = trained / "1_label_B1.mp4", trained / "0_label_A.mp4"
    out = tmp_path / "out"
    assert scoring.main(arguments(sounding, mute, "--out", out, *common)) == 0
    text = capsys.readouterr().out
    assert "sound is present: audio-visual detector" in text
    assert "sound is absent: vision-only detector" in text
    made = sorted(file.name for file in out.iterdir())
    assert made == ["0_label_A.json", "0_label_A.png", "1_label_B1.json", "1_label_B1.png"]

    bad = tmp_path / "bad.mp4"
    bad.touch()
    again = [bad, sounding, tmp_path / "gone.mp4", "--out", out, "--stream", "--no-timeline"]
    assert scoring.main(arguments(*again, *common)) == 1
    text = capsys.readouterr().out
    assert f"not scored: {bad} is empty" in text and "not scored: there is no file" in text
    assert "from 00:00:00.0 on sound is present: audio-visual detector" in text
    streamed = json.loads((out / "1_label_B1.json").read_text())
    assert streamed["streamed"] is True


@pytest.mark.filterwarnings("ignore:the text tower has random weights")
def test_a_file_is_scored_as_its_row_in_a_store(trained, tmp_path):
    """Sound that ends half-way included: one rule says where there is any."""
    path = tmp_path / "v" / "half_label_B1.mp4"
    path.parent.mkdir()
    picture = lambda n: flat(40 + n, (32, 32))  # noqa: E731
    wave = clip_wave(1.7, SAMPLE_RATE, [1.0], noise=0.02)
    form = {"size": (32, 32), "wave": wave, "sample_rate": SAMPLE_RATE}
    write_clip(path, seconds=4, picture=picture, **form)
    extract_folder(path.parent, tmp_path / "s", weights="random", device="cpu", progress=False)
    store, detectors = FeatureStore.open(tmp_path / "s"), DetectorSet.load([trained / "runs"])
    assert 0 < store.audio_mask(0).sum() < len(store.audio_mask(0))
    scores = score_video(path, detectors, load_encoders("soundstage", weights="random"))
    expected = predict_store(detectors.detectors["audio_visual"], store, [0])
    assert scores.role == "audio_visual"
    np.testing.assert_allclose(scores.logits, expected.anomaly_logits, atol=1e-4)
    np.testing.assert_allclose(scores.probabilities, expected.alignment, atol=1e-4)


@pytest.mark.filterwarnings("ignore:the text tower has random weights")
def test_detectors_that_cannot_be_used(trained, tmp_path, monkeypatch):
    runs = trained / "runs"
    with pytest.raises(FileNotFoundError, match="there is no trained detector at"):
        DetectorSet.load([tmp_path])
    with pytest.raises(FileNotFoundError, match="there is no trained detector at"):
        DetectorSet.load([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="are both vision detectors"):
        DetectorSet.load([shutil.copytree(runs / "vision", tmp_path / "other"), runs])
    monkeypatch.setattr(scoring, "load_encoders", lambda *args, **choices: Plain())
    with pytest.raises(ValueError, match="takes features 64 wide, the clip encoders give 2"):
        scoring.score(["a.mp4"], models=[runs], out=tmp_path, encoder="clip")
    with pytest.raises(ValueError, match="threshold must be between 0 and 1, got 3"):
        scoring.score(["a.mp4"], models=[runs], out=tmp_path, threshold=3)
    assert DetectorSet.load([runs]).thresholds["vision"] == 0  # a confidence of 0.5
