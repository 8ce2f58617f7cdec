"""Training: reproducible, resumable after kill -9, choosing epochs without the test set."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from tiny import DIM, tiny_settings, tiny_store, tiny_text

from avadclip_lite import train as train_module
from avadclip_lite.dataset import FeatureStore, TrainingSet, shuffled_batches
from avadclip_lite.evaluate import evaluate, predict, predict_store
from avadclip_lite.experiments import train_command
from avadclip_lite.losses import compute, topk_mean
from avadclip_lite.model import FrozenTeacher, build
from avadclip_lite.train import fit, load, video_level

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FeatureStore:
    return tiny_store(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def teacher(store):
    return run(store).model


def run(store, **overrides):
    passed = {k: overrides.pop(k) for k in ("out", "teacher") if k in overrides}
    text, prompts = tiny_text()
    return fit(tiny_settings(**overrides), store, text=text, prompts=prompts, **passed)


def same_weights(one, other) -> bool:
    one, other = one.trainable_state(), other.trainable_state()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# --- the loop -------------------------------------------------------------------------------------


def test_the_loop_is_adamw_on_the_sum_of_losses(store) -> None:
    """Three epochs against a loop written out here: same batches, same updates."""
    settings = tiny_settings(
        selection="last",
        tcn_dropout=0.0,
        milestones=(1,),
        length_aware=False,
        learning_rate=0.01,
        weight_decay=0.01,
    )
    text, prompts = tiny_text()
    result = fit(settings, store, text=text, prompts=prompts)
    torch.manual_seed(0)
    model = build(settings, text, prompts).train()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=0.01,
        betas=(0.9, 0.999),
        weight_decay=0.01,
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1], gamma=0.1)
    bags = TrainingSet(store, store.indices("train"), settings)
    shuffling = torch.Generator().manual_seed(0)
    for epoch in range(3):
        order, total = torch.randperm(24, generator=shuffling), 0.0
        for index in (order[:8], order[8:16], order[16:]):
            batch = bags.batch(index)
            output = model(batch)
            loss = compute(output, batch, settings.loss)["total"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * 8
        scheduler.step()
        assert result.history[epoch]["total"] == pytest.approx(total / 24, rel=1e-5)
    assert [entry["learning_rate"] for entry in result.history] == pytest.approx([0.01, 1e-3, 1e-3])
    expected = model.trainable_state()
    for name, value in result.model.trainable_state().items():
        if name.endswith("qkv.bias"):  # the keys' bias has gradient 0, and Adam scales rounding up
            value, expected[name] = (
                torch.cat([x[:DIM], x[2 * DIM :]]) for x in (value, expected[name])
            )
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_losses_are_means_over_videos_not_over_batches(store, monkeypatch) -> None:
    """24 bags in batches of 10, 10 and 4: the small batch counts as its four videos."""
    totals = []
    original = train_module.TrainingRun.one_step

    def spy(self, batch):
        parts = original(self, batch)
        totals.append((len(batch), parts["total"].item()))
        return parts | ({"rare": torch.tensor(7.0)} if len(batch) == 4 else {})

    monkeypatch.setattr(train_module.TrainingRun, "one_step", spy)
    entry = run(store, selection="last", batch_size=10, epochs=1).history[0]
    assert sorted(n for n, _ in totals) == [4, 10, 10]
    assert entry["total"] == pytest.approx(sum(n * x for n, x in totals) / 24, rel=1e-6)
    assert entry["total"] != pytest.approx(np.mean([x for _, x in totals]), rel=1e-4)
    assert entry["rare"] == 7.0  # the mean over the videos that had it


def test_watch_sees_the_epochs_weights_in_eval_mode(store) -> None:
    seen = []

    def watch(model):
        seen.append((model.training, {k: v.clone() for k, v in model.trainable_state().items()}))
        return {"watched": float(len(seen))}

    text, prompts = tiny_text()
    settings = tiny_settings(selection="last")
    result = fit(settings, store, text=text, prompts=prompts, watch=watch)
    assert [training for training, _ in seen] == [False] * 3
    assert [entry["watched"] for entry in result.history] == [1.0, 2.0, 3.0]
    last = result.model.trainable_state()
    assert all(torch.equal(value, last[name]) for name, value in seen[-1][1].items())


def test_held_out_videos_are_judged_by_one_crop_in_float32(store, monkeypatch) -> None:
    crops, precisions = [], []
    original = TrainingSet.__init__

    def spy(self, its_store, its_rows, settings):
        crops.append((len(its_rows), settings.data.crops))
        original(self, its_store, its_rows, settings)

    def judge(model, batch, precision="float32"):
        precisions.append(precision)
        return predict(model, batch, precision)

    monkeypatch.setattr(TrainingSet, "__init__", spy)
    monkeypatch.setattr(train_module, "predict", judge)
    run(store, holdout_share=0.25, epochs=1, precision="bf16")
    assert crops == [(6, "first"), (18, "all")] and set(precisions) == {"float32"}


def test_a_seed_decides_everything_and_the_callers_random_state_stays(store) -> None:
    (text, prompts), before = tiny_text(), torch.get_rng_state()
    one = fit(tiny_settings(seed=5), store, text=text, prompts=prompts)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert same_weights(one.model, run(store, seed=5).model)
    assert not same_weights(one.model, run(store, seed=6).model)


def test_the_last_small_batch_is_kept_and_max_steps_stops(store, monkeypatch) -> None:
    sizes = []
    original = TrainingSet.batch
    monkeypatch.setattr(
        TrainingSet, "batch", lambda self, i: sizes.append(len(i)) or original(self, i)
    )
    run(store, selection="last", batch_size=10, epochs=1)
    assert sorted(sizes) == [4, 10, 10]
    sizes.clear()
    result = run(store, selection="last", batch_size=10, epochs=5, max_steps=4)
    assert len(sizes) == 4
    assert len(result.history) == 2


def test_length_aware_batches_see_every_bag_once_with_less_padding(store) -> None:
    padded = {}
    for aware in (True, False):
        bags = TrainingSet(store, store.indices("train"), tiny_settings(length_aware=aware))
        generator = torch.Generator().manual_seed(0)
        batches = shuffled_batches(bags, 3, generator)
        assert sorted(torch.cat(batches).tolist()) == list(range(24))
        padded[aware] = sum(int(bags.lengths[b].max()) * len(b) for b in batches)
        longest = [int(bags.lengths[b].max()) for b in batches]
        assert longest != sorted(longest) and longest != sorted(longest, reverse=True)
        again = shuffled_batches(bags, 3, generator)
        assert [b.tolist() for b in again] != [b.tolist() for b in batches]
    real = int(bags.lengths.sum())
    assert padded[True] - real < 0.3 * (padded[False] - real)


def test_every_part_of_the_loss_is_in_the_history_and_the_log(store, teacher, caplog) -> None:
    with caplog.at_level(logging.INFO, "avadclip_lite.train"):
        result = run(store, role="vision", teacher=teacher, contrast_weight=0.1, epochs=2)
    parts = {"classification", "cross_entropy", "focal", "alignment", "contrast", "ukd", "total"}
    assert parts | {"holdout_criterion", "seconds", "epoch"} <= result.history[0].keys()
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2 and lines[0].startswith("epoch 1/2")
    assert all(part in lines[1] for part in parts)
    total = result.history[1]
    assert total["total"] == pytest.approx(
        total["classification"] + total["alignment"] + 0.1 * total["contrast"] + total["ukd"],
        rel=1e-5,
    )


def test_every_trainable_parameter_learns_and_the_text_tower_does_not(store) -> None:
    text, prompts = tiny_text()
    before = {name: value.clone() for name, value in text.state_dict().items()}
    settings = tiny_settings(focal_alpha_learned=True, av_prompt="softmax", selection="last")
    result = fit(settings, store, text=text, prompts=prompts)
    torch.manual_seed(0)
    start = build(settings, *tiny_text()).trainable_state()
    still = [n for n, v in result.model.trainable_state().items() if torch.equal(v, start[n])]
    assert still == []
    assert all(torch.equal(value, before[name]) for name, value in text.state_dict().items())


@pytest.mark.parametrize("role", ["audio_visual", "vision", "audio"])
@pytest.mark.parametrize("form", ["paper", "released"])
def test_every_form_and_role_trains_and_evaluates(store, teacher, form, role) -> None:
    small = {"form": form, "role": role, "max_snippets": 32, "epochs": 2, "learning_rate": 3e-3}
    result = run(store, teacher=None if role == "audio_visual" else teacher, **small)
    first, last = result.history[0], result.history[-1]
    assert last["total"] < first["total"]
    measured = "test_frame_ap_alignment" if form == "released" else "holdout_criterion"
    assert 0 <= last[measured] <= 1
    report = evaluate(result.model, store)
    assert 0 < report.metrics["frame_ap_alignment"] <= 1
    if form == "released":
        best = max(entry["test_frame_ap_alignment"] for entry in result.history)
        assert report.metrics["frame_ap_alignment"] == best


def test_a_loss_that_is_not_finite_is_reported(store) -> None:
    with pytest.raises(ValueError, match=r"diverged in epoch 1 .*learning_rate=1e\+30"):
        run(store, learning_rate=1e30, weight_decay=0.0)


def test_bf16_trains_to_nearly_the_same_loss(store) -> None:
    full, half = (run(store, precision=p, tcn_dropout=0.0) for p in ("float32", "bf16"))
    assert half.history[-1]["total"] == pytest.approx(full.history[-1]["total"], rel=0.02)
    assert half.history[-1]["total"] != full.history[-1]["total"]


def test_bf16_does_not_round_confidences(store, teacher) -> None:
    """Logits on the grid of bfloat16 would make neighbouring confidences equal, and rank them by
    chance."""
    rows = store.indices("train")
    logits = torch.from_numpy(predict_store(teacher, store, rows, precision="bf16").anomaly_logits)
    assert (logits.bfloat16().float() != logits).float().mean() > 0.9
    exact = predict_store(teacher, store, rows).anomaly_logits
    assert np.abs(logits.numpy() - exact).max() > 0  # it was bf16


# --- the teacher of a student ---------------------------------------------------------------------


def test_the_frozen_teacher_cannot_be_unfrozen(store, teacher) -> None:
    teacher.train()
    frozen = FrozenTeacher(teacher)
    teacher.eval()
    torch.nn.ModuleList([frozen]).train()
    assert not any(module.training for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    batch = TrainingSet(store, store.indices("train"), tiny_settings()).batch(torch.arange(4))
    assert not frozen(batch).requires_grad
    frozen.detector.audio_encoder.train()
    with pytest.raises(AssertionError, match="left eval mode"):
        frozen(batch)


def test_the_teacher_of_a_student_computes_no_heads(store, teacher) -> None:
    frozen = FrozenTeacher(teacher)
    calls = []
    for part in (frozen.detector.anomaly, frozen.detector.textual_prompt):
        part.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    batch = TrainingSet(store, store.indices("train"), tiny_settings()).batch(torch.arange(4))
    with torch.no_grad():
        assert torch.equal(frozen(batch), teacher(batch).features)
    assert calls == []


def test_distillation_does_not_depend_on_the_mode_of_the_teacher_nor_change_it(
    store, teacher
) -> None:
    state = {name: value.clone() for name, value in teacher.trainable_state().items()}
    settings = {"role": "vision", "tcn_dropout": 0.5}
    from_eval = run(store, teacher=teacher.eval(), **settings)
    from_train = run(store, teacher=teacher.train(), **settings)
    assert teacher.training
    teacher.eval()
    assert same_weights(from_eval.model, from_train.model)
    assert all(torch.equal(value, state[name]) for name, value in teacher.trainable_state().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_student_of_mse_comes_closer_to_its_teacher(store, teacher) -> None:
    result = run(
        store, role="vision", teacher=teacher, ukd="mse", ukd_weight=10.0, epochs=10,
        learning_rate=5e-3,
    )  # fmt: skip
    assert result.history[-1]["ukd"] < 0.8 * result.history[0]["ukd"]


@pytest.mark.parametrize(
    ("overrides", "give_teacher", "message"),
    [
        ({"role": "vision"}, False, "with ukd='paper' learns from a teacher: name one .--teacher"),
        ({"role": "vision", "ukd": "none"}, True, "has no use for the teacher that was passed"),
        ({}, True, "role='audio_visual'.* has no use for the teacher"),
        ({"dim": 16}, False, "features of width 8.*dim=16; set dim=8"),
        ({"device": "gpu7"}, False, "device='gpu7' is not supported"),
        ({"device": "mps"}, False, "device='mps' is not supported; use 'auto', 'cpu' or 'cuda'"),
        ({"device": "cuda:9"}, False, "device='cuda:9', but torch finds"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    store, teacher, overrides, give_teacher, message
) -> None:
    with pytest.raises(ValueError, match=message):
        run(store, teacher=teacher if give_teacher else None, **overrides)


def test_a_teacher_of_another_system_is_refused(store) -> None:
    other = build(tiny_settings(detector="deepmil"))
    with pytest.raises(ValueError, match="the teacher is a deepmil one .* needs an audio_visual"):
        run(store, role="vision", teacher=other)


# --- which epoch ----------------------------------------------------------------------------------


def test_a_test_set_without_events_can_choose_no_epoch(store, monkeypatch) -> None:
    monkeypatch.setattr(FeatureStore, "frame_truth", lambda *_: np.zeros(9, np.uint8))
    began = []
    monkeypatch.setattr(train_module.TrainingRun, "one_epoch", lambda *_: began.append(1))
    with pytest.raises(ValueError, match="no event in its test set: set selection='holdout'"):
        run(store, selection="test")
    assert not began


class NoTest(FeatureStore):
    """A store that fails when anything but training rows and weak labels is asked for."""

    def indices(self, split):
        assert split == "train"
        return super().indices(split)

    def frame_truth(self, indices):
        raise AssertionError("frame truth was read")

    segments = frame_truth


@pytest.mark.parametrize("selection", ["holdout", "last"])
def test_the_test_set_is_never_touched(store, selection) -> None:
    run(NoTest.open(store.path), selection=selection)


def test_the_held_out_videos_are_not_trained_on(store, monkeypatch) -> None:
    rows = []
    original = TrainingSet.__init__

    def spy(self, its_store, its_rows, settings):
        rows.append(set(np.asarray(its_rows).tolist()))
        original(self, its_store, its_rows, settings)

    monkeypatch.setattr(TrainingSet, "__init__", spy)
    run(store, holdout_share=0.25, epochs=1)
    held, kept = sorted(rows, key=len)
    assert len(held) == 6 and not held & kept
    assert held | kept == set(store.indices("train").tolist())


@pytest.mark.parametrize(("selection", "better"), [("holdout", 3), ("test", 2)])
def test_the_best_epoch_is_kept(store, monkeypatch, selection, better) -> None:
    """Criteria 0.2, 0.5, 0.5, 0.1: of equals the later for holdout, the first as released."""
    values = iter([0.2, 0.5, 0.5, 0.1])
    states = []

    def judge(model, *args, **kwargs):
        states.append({k: v.clone() for k, v in model.trainable_state().items()})
        value = next(values)
        if selection == "holdout":
            return {"holdout_criterion": value}
        names = ("frame_ap_alignment", "frame_ap_classification", "map_anomaly", "map_with_normal")
        return type("Report", (), {"metrics": dict.fromkeys(names, value)})

    monkeypatch.setattr(
        train_module, "video_level" if selection == "holdout" else "evaluate", judge
    )
    result = run(store, selection=selection, epochs=4)
    assert result.chosen_epoch == better
    for name, value in result.model.trainable_state().items():
        assert torch.equal(value, states[better - 1][name])
    assert not result.model.training


def test_reload_best_starts_the_next_epoch_from_the_best_weights(store, monkeypatch) -> None:
    values = iter([0.5, 0.1, 0.1])
    names = ("frame_ap_alignment", "frame_ap_classification", "map_anomaly", "map_with_normal")
    first, started = [], []

    def judge(model, *args, **kwargs):
        first.append({k: v.clone() for k, v in model.trainable_state().items()})
        return type("Report", (), {"metrics": dict.fromkeys(names, next(values))})

    original = train_module.TrainingRun.one_epoch

    def spy(self, *args):
        started.append({k: v.clone() for k, v in self.model.trainable_state().items()})
        return original(self, *args)

    monkeypatch.setattr(train_module, "evaluate", judge)
    monkeypatch.setattr(train_module.TrainingRun, "one_epoch", spy)
    run(store, selection="test", reload_best=True)
    for start in started[1:]:
        assert all(torch.equal(start[name], first[0][name]) for name in start)
    assert any(not torch.equal(first[1][name], first[0][name]) for name in first[0])


def test_video_level_measures_equal_scikit_learn(store, teacher) -> None:
    settings = tiny_settings()
    rows = store.indices("train")
    measures = video_level(teacher, TrainingSet(store, rows, settings), 7)
    binary, classes = [], []
    with torch.no_grad():
        for row in rows:  # one video at a time, no padding
            bag = TrainingSet(store, [row], settings).batch(torch.tensor([0]))
            output = teacher(bag)
            k = bag.video.shape[1] // 16 + 1
            confidence = sorted(torch.sigmoid(output.anomaly_logits[0]).tolist())[-k:]
            binary.append(sum(confidence) / k)
            classes.append(topk_mean(output.alignment_logits, bag.lengths)[0].softmax(0).tolist())
    labels = store.labels(rows)
    ap = average_precision_score(1 - labels[:, 0], binary)
    per_class = [
        average_precision_score(labels[:, c], np.array(classes)[:, c]) for c in range(1, 7)
    ]
    assert measures["holdout_ap"] == pytest.approx(ap, abs=1e-6)
    assert measures["holdout_map"] == pytest.approx(np.mean(per_class), abs=1e-6)
    assert measures["holdout_criterion"] == pytest.approx((ap + np.mean(per_class)) / 2, abs=1e-6)


def test_holding_out_nothing_is_refused(store) -> None:
    with pytest.raises(ValueError, match="holdout_share=0.0 holds out none"):
        run(store, holdout_share=0.0)


# --- checkpoints ----------------------------------------------------------------------------------

WORKER = """
    import sys
    sys.path[:0] = [{tests!r}, {root!r}]
    from avadclip_lite import train
    from avadclip_lite.dataset import FeatureStore
    from tiny import tiny_settings, tiny_text
    save = train.TrainingRun.save

    def save_and_tell(self, folder):
        save(self, folder)
        self.close()  # it is on disk
        print(self.epoch, flush=True)
        if self.epoch == {stop}:
            import time
            time.sleep(60)  # waits to be killed

    train.TrainingRun.save = save_and_tell
    text, prompts = tiny_text()
    settings = tiny_settings(**{settings!r})
    teacher = train.load({teacher!r}, text=text, prompts=prompts) if {teacher!r} else None
    train.fit(settings, FeatureStore.open({store!r}), text=text, prompts=prompts,
              teacher=teacher, out={out!r}, progress=False)
"""


def start_worker(store, out, *, stop, settings, teacher="") -> subprocess.Popen:
    source = textwrap.dedent(WORKER).format(
        tests=str(TESTS),
        root=str(TESTS.parent),
        stop=stop,
        settings=settings,
        teacher=str(teacher),
        store=str(store.path),
        out=str(out),
    )
    return subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("student", [False, True])
def test_going_on_after_kill_9_gives_the_same_bits(store, tmp_path, student) -> None:
    settings = {"epochs": 4, "tcn_dropout": 0.3}
    folder = ""
    if student:
        folder = tmp_path / "teacher"
        run(store, out=folder, epochs=1)
        settings |= {"role": "vision"}
    whole = start_worker(store, tmp_path / "whole", stop=0, settings=settings, teacher=folder)
    broken = start_worker(store, tmp_path / "broken", stop=2, settings=settings, teacher=folder)
    for line in broken.stdout:
        if line.strip() == "2":
            break
    broken.send_signal(signal.SIGKILL)
    assert broken.wait() == -signal.SIGKILL
    again = start_worker(store, tmp_path / "broken", stop=0, settings=settings, teacher=folder)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0 and said.split() == ["3", "4"]  # not from the beginning
    assert whole.communicate(timeout=120)[0].split() == ["1", "2", "3", "4"]
    one, other = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "broken")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_going_on_in_one_process_is_exact_for_the_released_protocol_too(
    store, tmp_path, monkeypatch
) -> None:
    settings = {"selection": "test", "reload_best": True, "epochs": 4, "milestones": (2,)}
    whole = run(store, **settings)

    class Stop(Exception):
        pass

    original = train_module.TrainingRun.save

    def stop_after_two(self, folder):
        original(self, folder)
        if self.epoch == 2:
            raise Stop

    monkeypatch.setattr(train_module.TrainingRun, "save", stop_after_two)
    with pytest.raises(Stop):
        run(store, out=tmp_path / "run", **settings)
    monkeypatch.undo()
    rest = run(store, out=tmp_path / "run", **settings)
    assert same_weights(whole.model, rest.model)
    assert rest.chosen_epoch == whole.chosen_epoch

    def timeless(history):
        return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]

    assert timeless(rest.history) == timeless(whole.history)


def test_a_kill_while_writing_leaves_the_old_checkpoint(store, tmp_path, monkeypatch) -> None:
    out = tmp_path / "run"
    run(store, out=out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        train_module.write_file(out / "state.safetensors", b"half")
    assert (out / "state.safetensors").read_bytes() == before["state.safetensors"]


@pytest.mark.parametrize("writes", [1, 2])
def test_a_kill_between_the_writes_of_an_epoch_leaves_one_choice(
    store, tmp_path, monkeypatch, writes
) -> None:
    """Wherever the second epoch's files are cut off, what is loaded is the epoch that the state
    calls chosen, and going on gives what an uninterrupted run gives."""
    whole, states = run(store, epochs=3), {}
    monkeypatch.setattr(train_module, "video_level", lambda *_: {"holdout_criterion": 0.5})
    original, count = train_module.write_file, []

    class Killed(Exception):
        pass

    def write(path, content):
        if path.name == "config.json":
            return original(path, content)
        count.append(path.name)
        if len(count) == 2 + writes:  # two writes an epoch, as every epoch is chosen
            raise Killed
        return original(path, content)

    def note(self, entry):
        states[self.epoch] = {k: v.clone() for k, v in self.model.trainable_state().items()}

    monkeypatch.setattr(train_module.TrainingRun, "report", note)
    monkeypatch.setattr(train_module, "write_file", write)
    with pytest.raises(Killed):
        run(store, out=tmp_path / "run", epochs=3)
    assert len(set(count)) == 2
    with safe_open(tmp_path / "run" / "state.safetensors", framework="pt") as file:
        chosen = json.loads(file.metadata()["scalars"])["chosen_epoch"]
    text, prompts = tiny_text()
    found = load(tmp_path / "run", text=text, prompts=prompts).trainable_state()
    assert all(torch.equal(value, states[chosen][name]) for name, value in found.items())
    monkeypatch.setattr(train_module, "write_file", original)
    assert run(store, out=tmp_path / "run", epochs=3).chosen_epoch == whole.settings.train.epochs
    (tmp_path / "run" / "state.safetensors").unlink()  # the weights that ship are the same
    assert same_weights(load(tmp_path / "run", text=text, prompts=prompts), whole.model)


def test_checkpoints_are_written_while_training_goes_on(store, tmp_path, monkeypatch) -> None:
    """By one thread, weights before state, epoch after epoch; what training changes meanwhile is
    not what is written."""
    whole, order, open_ = run(store), [], threading.Event()
    original, one_epoch = train_module.write_file, train_module.TrainingRun.one_epoch
    trainer = threading.current_thread()

    def write(path, content):
        if path.name != "config.json":
            assert threading.current_thread() is not trainer
            assert open_.wait(60)  # the first ends when the second epoch has been trained
            order.append(path.name)
        original(path, content)

    def epoch(self, *args):
        entry = one_epoch(self, *args)
        order.append(self.epoch)
        if self.epoch == 2:
            open_.set()
        return entry

    monkeypatch.setattr(train_module, "write_file", write)
    monkeypatch.setattr(train_module.TrainingRun, "one_epoch", epoch)
    monkeypatch.setattr(train_module, "video_level", lambda *_: {"holdout_criterion": 0.5})
    result = run(store, out=tmp_path / "run")
    both = ["weights.safetensors", "state.safetensors"]
    assert [name for name in order if isinstance(name, str)] == 3 * both
    assert order.index(2) < order.index(both[0])
    text, prompts = tiny_text()
    assert same_weights(load(tmp_path / "run", text=text, prompts=prompts), result.model)
    assert result.chosen_epoch == whole.settings.train.epochs


def test_a_checkpoint_that_cannot_be_written_ends_the_training(store, tmp_path, monkeypatch):
    original = train_module.write_file

    def full(path, content):
        if path.name == "weights.safetensors":
            raise OSError("disk full")
        original(path, content)

    monkeypatch.setattr(train_module, "write_file", full)
    for epochs in (1, 3):  # at the end, and before the next checkpoint
        with pytest.raises(OSError, match="disk full"):
            run(store, out=tmp_path / str(epochs), epochs=epochs)


def test_load_gives_the_chosen_weights_in_eval_mode(store, tmp_path) -> None:
    result = run(store, out=tmp_path / "run")
    text, prompts = tiny_text()
    model = load(tmp_path / "run", text=text, prompts=prompts)
    assert same_weights(model, result.model) and not model.training
    assert model.settings == result.settings
    with pytest.raises(ValueError, match="text tower of its own: pass text="):
        load(tmp_path / "run")
    with torch.no_grad():
        text.text_projection.add_(1)
    with pytest.raises(ValueError, match="other text tower weights"):
        load(tmp_path / "run", text=text, prompts=prompts)


def test_a_finished_run_is_returned_as_it_is(store, tmp_path, monkeypatch) -> None:
    first = run(store, out=tmp_path / "run")
    monkeypatch.setattr(train_module.TrainingRun, "one_epoch", None)  # would fail if called
    second = run(store, out=tmp_path / "run")
    assert same_weights(first.model, second.model)
    assert second.history == first.history and second.chosen_epoch == first.chosen_epoch
    assert second.seconds == first.seconds


def test_damaged_or_foreign_checkpoints_get_one_sentence(store, tmp_path) -> None:
    out = tmp_path / "run"
    run(store, out=out)
    with pytest.raises(ValueError, match=r"holds another run: settings.train.seed was 0 .* is 1"):
        run(store, out=out, seed=1)
    other = tiny_store(tmp_path / "other", train=20)
    with pytest.raises(ValueError, match="holds another run: store.digest"):
        run(other, out=out)
    text, prompts = tiny_text()
    with pytest.raises(FileNotFoundError, match=r"no training run: it has no config.json"):
        load(tmp_path / "nothing", text=text, prompts=prompts)
    state = (out / "state.safetensors").read_bytes()
    for name in ("state.safetensors", "weights.safetensors"):  # the second alone is what ships
        whole = (out / name).read_bytes()
        (out / name).write_bytes(whole[:-40])
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            load(out, text=text, prompts=prompts)
        (out / name).unlink()
    with pytest.raises(FileNotFoundError, match="no epoch of this run has ended"):
        load(out, text=text, prompts=prompts)
    for content in (state[: len(state) // 2], b"", b"\x80\x04not a tensor"):
        (out / "state.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"state.safetensors is damaged .*delete .*run"):
            run(store, out=out)
    whole = (out / "config.json").read_text()
    for content in (
        "{",
        "[]",
        whole.replace('"epochs"', '"eposch"'),
        whole.replace("encoder", "e"),
    ):
        (out / "config.json").write_text(content)
        for use in (lambda: run(store, out=out), lambda: load(out, text=text, prompts=prompts)):
            with pytest.raises(ValueError, match=r"config.json is damaged"):
                use()
    (out / "config.json").write_text(whole.replace('"format": ', '"format": 1'))
    with pytest.raises(ValueError, match=r"written by another version"):
        run(store, out=out)


def test_nothing_on_disk_is_pickled(store, tmp_path) -> None:
    run(store, out=tmp_path / "run", max_steps=1)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "weights.safetensors", "state.safetensors"}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["store"]["digest"]


# --- what it imports ------------------------------------------------------------------------------


def test_training_imports_nothing_heavy(store) -> None:
    source = textwrap.dedent(f"""
        import sys
        sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]
        from avadclip_lite import train
        from avadclip_lite.dataset import FeatureStore
        from tiny import tiny_settings, tiny_text
        text, prompts = tiny_text()
        store = FeatureStore.open({str(store.path)!r})
        settings = tiny_settings(epochs=1, selection="test")
        train.fit(settings, store, text=text, prompts=prompts, progress=False)
        heavy = {{"open_clip", "matplotlib", "torchvision", "torchaudio", "PIL",
                  "wav2clip", "av", "seaborn"}}
        print(sorted(heavy & set(sys.modules)))
    """)
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_progress_bar_is_silent_away_from_a_terminal(store, capfd) -> None:
    began = time.perf_counter()
    result = run(store)
    assert capfd.readouterr().err == ""
    assert 0 < result.seconds <= time.perf_counter() - began
    assert result.model.settings.model.dim == DIM


def test_the_command_trains_scores_and_takes_a_teacher(
    store, tmp_path, monkeypatch, capsys
) -> None:
    def load_tiny(*_, **__):
        tower, prompts = tiny_text()
        tower.name = "tiny"  # as the real one does: a run's folder says which tower to load
        return tower, prompts

    monkeypatch.setattr(train_module, "load_text", load_tiny)

    def call(*words) -> str:
        parser = argparse.ArgumentParser()
        train_command.add_arguments(parser)
        small = {"dim": 8, "fusion_heads": 2, "epochs": 1, "context_before": 1, "context_after": 1}
        sets = [str(word) for pair in small.items() for word in ("-s", *pair)]
        args = parser.parse_args(["--data", str(store.path), *map(str, words), *sets])
        assert train_command.main(args) == 0
        return capsys.readouterr().out

    said = call("--out", tmp_path / "teacher", "-s", "milestones", "[1, 2]")
    model = load(tmp_path / "teacher")
    assert model.settings.train.milestones == (1, 2)
    ap = evaluate(model, store).metrics["frame_ap_alignment"]
    assert f"frame_ap_alignment {100 * ap:12.2f} %" in said and "optimistic" not in said
    said = call(
        "--out", tmp_path / "student", "--role", "vision", "--teacher", tmp_path / "teacher",
        "-s", "selection", "test",
    )  # fmt: skip
    assert "chosen on the test set: these numbers are optimistic" in said
    with pytest.raises(ValueError, match="unknown configuration field 'speed'"):
        call("--out", tmp_path / "x", "-s", "speed", "9")
