"""The systems of the field: recorded numbers, training through the seam, every option wired."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_store, tiny_text

from avadclip_lite import baselines
from avadclip_lite.baselines import SYSTEMS, clip_tsa, common, configure, simple, ur_dmu
from avadclip_lite.baselines.macil_sd import MACILSD
from avadclip_lite.config import XD_CLASSES, make_config, soundstage_path
from avadclip_lite.dataset import Batch, FeatureStore, TrainingSet
from avadclip_lite.encoders import load_text
from avadclip_lite.evaluate import predict_store
from avadclip_lite.experiments import train_command
from avadclip_lite.model import _DETECTORS, Detector, build
from avadclip_lite.train import fit, load

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import check_baselines  # noqa: E402

FIXTURES = Path(__file__).parent / "fixtures" / "baselines"
SMALL = {  # options for features eight wide
    "ju_like": {"heads": 2, "layers": 1},
    "ur_dmu": {"bins": 12, "width": 16, "blocks": 1},
    "tpwng_like": {"heads": 2, "layers": 1},
    "clip_tsa": {"draws": 10},
    "cupl": {"passes": 3},
    "hl_net": {"width": 16},
    "avvd_style": {"width": 16},
    "macil_sd": {"width": 16},
    "fvai": {"width": 16},
    "one_class_svm": {"snippets": 200},
}


def settings(name: str, fields: dict | None = None, **options):
    """A system at D = 8: two epochs of two steps."""
    small = {"dim": 8, "fusion_heads": 2, "context_before": 1, "context_after": 1}
    small |= {"epochs": 2, "batch_size": 8, "device": "cpu", "selection": "last"}
    if name != "vadclip":
        options = {"steps": 4} | SMALL.get(name, {}) | options
    return configure(name, scale="soundstage", options=options, **(small | (fields or {})))


def modalities(name: str) -> list[str]:
    if name == "vadclip":
        return ["vision"]
    found = []
    for modality in ("vision", "audio_visual"):
        try:
            _DETECTORS[name].Options(modality=modality)
        except ValueError:
            continue
        found.append(modality)
    return found


def trained(store: FeatureStore, config, **more):
    text, prompts = tiny_text()
    return fit(config, store, text=text, prompts=prompts, progress=False, **more)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FeatureStore:
    return tiny_store(tmp_path_factory.mktemp("baselines") / "store")


# ---------------------------------------------------------------------------- recorded numbers


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("ref_*.npz")), ids=lambda p: p.stem[4:])
def test_recorded_numbers(path):
    rows = check_baselines.check(path)
    assert len(rows) >= 6
    off = [(name, gap, limit) for _, name, gap, limit in rows if not gap <= limit]
    assert not off


def test_the_check_knows_every_kind_of_file():
    assert {p.stem[4:] for p in FIXTURES.glob("ref_*.npz")} == set(check_baselines.CHECKS)


def test_a_wrong_number_is_noticed():
    ref = {"scores": np.zeros(3, np.float32), "names": np.array(["a"])}
    good = {"scores": np.zeros(3), "names": np.array(["a"])}
    assert all(gap <= limit for _, _, gap, limit in check_baselines.compare("x", good, ref))
    for bad in (
        {"scores": np.array([0, 0, 2e-5])},
        {"scores": np.array([0, 0, np.nan])},
        {"names": np.array(["b"])},
    ):
        rows = check_baselines.compare("x", good | bad, ref)
        assert not all(gap <= limit for _, _, gap, limit in rows)
    with pytest.raises(SystemExit, match="no check knows 'scores'"):
        check_baselines.compare("x", {}, ref)


# ---------------------------------------------------------------------------- through the seam


@pytest.mark.parametrize("name, modality", [(n, m) for n in SYSTEMS for m in modalities(n)])
def test_trains_saves_loads_and_scores_each_video_as_if_alone(name, modality, store, tmp_path):
    options = {} if name == "vadclip" else {"modality": modality}
    result = trained(store, settings(name, **options), out=tmp_path / "run")
    assert all(np.isfinite(entry["total"]) for entry in result.history)
    text, prompts = tiny_text()
    loaded = load(tmp_path / "run", text=text, prompts=prompts)
    rows = store.indices("test")
    together = predict_store(result.model, store, rows)
    again = predict_store(loaded, store, rows, batch_size=1)
    assert np.ptp(together.anomaly_logits) > 0
    np.testing.assert_allclose(again.anomaly_logits, together.anomaly_logits, atol=2e-5)
    if together.alignment is not None:
        assert together.alignment.shape == (together.lengths.sum(), len(XD_CLASSES))


@pytest.mark.parametrize("name", [n for n in SYSTEMS if "audio_visual" in modalities(n)])
def test_sound_is_heard_where_there_is_any_and_nowhere_else(name, store):
    config = settings(name, modality="audio_visual")
    model = build(config, *tiny_text()).eval()
    if isinstance(model, simple.SVM):
        model.start_epoch(0, TrainingSet(store, store.indices("train"), config))
    generator = torch.Generator().manual_seed(0)
    video, audio, other = torch.randn(3, 2, 6, 8, generator=generator)
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0] = True
    lengths = torch.tensor([6, 6])

    def scores(sound):
        batch = Batch(video=video, audio=sound, audio_mask=mask, lengths=lengths)
        return model(batch).anomaly_logits.detach()

    first, second = scores(audio), scores(other)
    if name not in ("fvai", "rtfm"):  # alpha, and the non-local block, start at zero: still heard
        assert not torch.allclose(first[0], second[0])
    assert torch.equal(first[1], second[1])


@pytest.mark.parametrize("name", ["cupl", "macil_sd"])
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(name, store, tmp_path):
    config = settings(name, {"epochs": 6}, steps=12)

    class Stop(Exception):
        pass

    def interrupt(model):
        calls.append(1)
        if len(calls) == 4:
            raise Stop
        return {}

    calls: list[int] = []
    whole = trained(store, config)
    with pytest.raises(Stop):
        trained(store, config, out=tmp_path / "run", watch=interrupt)
    resumed = trained(store, config, out=tmp_path / "run")
    for key, value in whole.model.trainable_state().items():
        assert torch.equal(value, resumed.model.trainable_state()[key]), key


# What changes no weight and no score by itself here, and why.
EXEMPT = {
    "modality": "tested above",
    "steps": "tested below",
    "snippets": "a limit that the tiny store does not reach",
}
OTHER = {
    "bins": 8,
    "top": 2,
    "heads": 1,
    "passes": 5,
    "branch_width": 4,
    "dropout": 0.2,
    "width": 8,
}


def other(field: dataclasses.Field, default):
    if field.name in OTHER:
        return OTHER[field.name]
    if isinstance(default, bool):
        return not default
    if isinstance(default, str):
        choices = field.type.__args__
        return next(choice for choice in choices if choice != default)
    return default * 4 + (1 if isinstance(default, int) else 0.5)


def option_cases():
    for name in SYSTEMS:
        if name == "vadclip":
            continue
        for field in dataclasses.fields(_DETECTORS[name].Options):
            if field.name not in EXEMPT:
                yield name, field


@pytest.mark.parametrize(
    "name, field", [pytest.param(n, f, id=f"{n}-{f.name}") for n, f in option_cases()]
)
def test_every_option_does_something(name, field, store):
    """Another value gives another detector, or other scores of the same."""
    fields = {"epochs": 4 if name == "cupl" else 2, "learning_rate": 0.01}
    needed = {"steps": 2 * fields["epochs"]}

    def outcome(**options):
        model = trained(store, settings(name, fields, **(needed | options))).model
        scores = predict_store(model, store, store.indices("test")).anomaly_logits
        weights = [v.flatten().double() for v in model.trainable_state().values()]
        return torch.cat([torch.from_numpy(scores), *weights])

    default = SMALL.get(name, {}).get(field.name, field.default)
    before, after = outcome(), outcome(**{field.name: other(field, default)})
    assert before.shape != after.shape or not torch.equal(before, after)


# ---------------------------------------------------------------------------- settings


def test_unknown_options_and_values_are_refused():
    words = load_text("soundstage", XD_CLASSES.words)
    with pytest.raises(ValueError, match="rtfm has no option 'tops', only .*'top'"):
        build(make_config(detector="rtfm", options={"tops": 3}))
    with pytest.raises(ValueError, match="rule must be one of 'mean', 'maximum'"):
        build(make_config(detector="late_fusion", options={"rule": "sum"}), *words)
    with pytest.raises(ValueError, match="modality must be one of 'vision', got 'audio_visual'"):
        build(make_config(detector="ju_like", options={"modality": "audio_visual"}), *words)
    with pytest.raises(ValueError, match="cupl has no option 'form'"):
        build(make_config(detector="cupl", options={"form": "intended"}))
    for name in ("avadclip", "vadclip"):  # which took them without a word
        with pytest.raises(ValueError, match=f"{name} has no option 'steps', only none"):
            build(make_config(detector=name, options={"steps": 3}))
    with pytest.raises(ValueError, match="options must be dict, got 5"):
        make_config(options=5)
    with pytest.raises(ValueError, match="unknown system 'avcl'; known: zero_shot"):
        configure("avcl", scale="xd")
    for name in ("avadclip", "ju_like", "late_fusion"):
        for given, got in (((), "none"), (words[:1], "none"), (words, "one of dim=64")):
            dim = 32 if given == words else 64
            said = f"{name} needs a text tower of dim={dim} with its prompts, got {got}"
            with pytest.raises(ValueError, match=said):
                build(make_config(detector=name, dim=dim), *given)
    with pytest.raises(ValueError, match="options must be dict, got 'foo'"):
        configure("rtfm", scale="xd", options="foo")


def test_schedules_are_scaled_by_one_rule():
    for name, system in SYSTEMS.items():
        xd, small = (configure(name, scale=scale) for scale in ("xd", "soundstage"))
        assert xd.detector == small.detector == name
        if system.steps:
            assert xd.options["steps"] == system.steps
            assert xd.train.batch_size == system.batch
            assert xd.train.learning_rate == small.train.learning_rate == system.rate
        if system.steps > 1:
            steps, batch = small.options["steps"], small.train.batch_size
            assert abs(batch - system.batch / 3) <= 1 and batch % 2 == 0
            assert steps * batch >= 580 * 32 and steps >= round(system.steps / 8)
            assert steps == round(system.steps / 8) or (steps - 1) * batch < 580 * 32
        avadclip = make_config(scale="soundstage").train
        assert small.train.epochs == avadclip.epochs  # looks are everybody's
        assert small.train.selection == avadclip.selection == "holdout"
        assert small.train.holdout_share == avadclip.holdout_share
    by_hand = {"hl_net": (969, 42), "clip_tsa": (1856, 10), "deepmil": (2500, 20)}
    for name, wanted in by_hand.items():
        small = configure(name, scale="soundstage")
        assert (small.options["steps"], small.train.batch_size) == wanted
    small = configure("clip_tsa", scale="soundstage", batch_size=4)
    assert (small.options["steps"], small.train.batch_size) == (580 * 8, 4)
    assert configure("hl_net", scale="xd", epochs=50).train.milestones == (9,)
    short = [configure(name, scale="xd", epochs=1) for name in ("deepmil", "zero_shot")]
    assert [config.options["steps"] for config in short] == [2000, 1]  # a tenth of the schedule
    assert configure("vadclip", scale="xd").train.milestones == (3, 6)
    assert configure("vadclip", scale="soundstage").train.milestones == ()
    assert configure("rtfm", scale="xd", options={"top": 5}).options == {"steps": 15_000, "top": 5}
    assert configure("rtfm", scale="xd", learning_rate=0.5).train.learning_rate == 0.5


def test_every_system_fits_the_data_that_ships():
    text, prompts = load_text("soundstage", XD_CLASSES.words)
    for name in SYSTEMS:
        build(configure(name, scale="soundstage"), text, prompts)


def test_importing_registers_all_and_loads_nothing_heavy():
    code = (
        "import avadclip_lite.baselines as b, sys; from avadclip_lite.model import _DETECTORS as d;"
        "assert set(b.SYSTEMS) <= set(d), d; assert 'sklearn.svm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_system_is_documented():
    for name in SYSTEMS:
        module = sys.modules[_DETECTORS[name].__module__]
        if module is not simple:
            assert "The idea" in module.__doc__ and "eft out" in module.__doc__, name
        assert _DETECTORS[name].__doc__.strip() and SYSTEMS[name].idea
    assert "AVCL" in baselines.__doc__


# ---------------------------------------------------------------------------- batches and bags


def train_set(store, config) -> TrainingSet:
    return TrainingSet(store, store.indices("train"), config)


def test_paired_batches_are_half_normal_and_start_over(store):
    config = settings("rtfm", {"batch_size": 6, "epochs": 2}, steps=30)
    model, bags = build(config), train_set(store, config)
    batches = model.batches(bags, torch.Generator().manual_seed(0))
    assert len(batches) == 15
    normal = common.is_normal(bags.labels)
    for index in batches:
        assert normal[index].tolist() == [True] * 3 + [False] * 3
    used = torch.cat([index[:3] for index in batches])
    assert sorted(used[:12].tolist()) == normal.nonzero().squeeze(1).tolist()  # one whole pass
    again = model.batches(bags, torch.Generator().manual_seed(1))
    assert not torch.equal(torch.cat(batches), torch.cat(again))


def test_pairs_need_both_kinds(store):
    config = settings("rtfm")
    bags = train_set(store, config)
    bags.labels[:] = 0
    bags.labels[:, 0] = 1
    with pytest.raises(ValueError, match="rtfm needs both normal and anomalous videos"):
        build(config).batches(bags, torch.Generator())


def test_bins_repeat_short_videos_and_average_long_ones():
    x = torch.arange(5.0)[None, :, None]
    short = common.shared_bins(torch.tensor([2]), 4, 5) @ x  # the third row is another video's
    assert short.flatten().tolist() == [0, 0, 1, 1]
    long = common.shared_bins(torch.tensor([5]), 2, 5) @ x
    assert long.flatten().tolist() == [0.5, 3.0]


def test_thinning_keeps_short_bags_of_the_same_batch_whole():
    x = torch.arange(9.0).expand(2, 9)[..., None]
    kept, lengths = common.pick_rows(x, torch.tensor([9, 4]), 5)
    assert lengths.tolist() == [5, 4]
    assert kept[0, :, 0].tolist() == [0, 2, 4, 6, 8]
    assert kept[1, :4, 0].tolist() == [0, 1, 2, 3]


# ---------------------------------------------------------------------------- single ideas


ROWS = torch.ones(4, 32, dtype=torch.bool)  # the mask of four full bags, two of each kind


def pairs_of_bags(lengths: int = 32) -> Batch:
    labels = torch.tensor([[1.0, 0]] * 2 + [[0, 1.0]] * 2)
    return Batch(video=None, audio=None, lengths=torch.full((4,), lengths), labels=labels)


def test_deepmil_ranks_pairs_in_order_as_intended():
    """By hand: hinges 0.7 and 1.1 in order, 0.7 + 0.9 + 0.9 + 1.1 over all; sums of scores 1.3 and
    0.9, of squared steps 0.42 and 0.25."""
    scores = torch.tensor(
        [[0.2, 0.4, 0.1, 0.1], [0.6, 0.1, 0.1, 0.2], [0.1, 0.2, 0.7, 0.3], [0.2, 0.5, 0.1, 0.1]]
    )
    expected = {"released": (1.8, 2.2, 0.67, 1.0), "intended": (0.9, 1.1, 0.335, 10.0)}
    for form, (hinge, level, steps, penalty) in expected.items():
        model = build(settings("deepmil", form=form, sparsity=2.0, smoothness=3.0))
        parts = model.loss(model.output(torch.logit(scores), ROWS[:, :4]), pairs_of_bags(4))
        assert float(parts["hinge"]) == pytest.approx(hinge)
        assert float(parts["sparsity"]) == pytest.approx(2 * level)
        assert float(parts["smoothness"]) == pytest.approx(3 * steps, rel=1e-5)
        squares = sum(float(model.mlp[k].weight.detach().square().sum()) for k in (0, 3, 5))
        assert parts["weight_l2"].item() == pytest.approx(1e-3 * penalty * squares)


def test_deepmils_own_bags_have_unit_length_and_never_reach_the_last_snippet():
    video = torch.randn(1, 40, 8, generator=torch.Generator().manual_seed(0))
    other = 3 * video
    other[:, -1] += 9.0
    for own in (True, False):
        model = build(settings("deepmil", own_bags=own)).train()
        model.mlp.eval()  # no dropout
        batches = (Batch(video=x, audio=None, lengths=torch.tensor([40])) for x in (video, other))
        first, second = (model(batch).anomaly_logits for batch in batches)
        assert torch.allclose(first, second, atol=1e-5) is own


def test_the_intended_form_mends_the_slips_that_matter():
    """UR-DMU: rows that sum to one; HL-Net: the same of the distance graph; MACIL-SD: streams by
    their own scores."""
    intended = {n: build(settings(n, form="intended")) for n in ("hl_net", "macil_sd")}
    mask = torch.tensor([[True] * 20 + [False] * 12] * 4)
    near = ur_dmu.distance_attention(mask, released=False)
    assert torch.allclose(near.sum(dim=2), torch.ones(4, 32)) and not near[:, :, 20:].any()
    graphs = intended["hl_net"].relations(torch.rand(4, 32, 16), torch.rand(4, 32), mask)
    assert torch.allclose(graphs["distance"].sum(dim=2), torch.ones(4, 32))

    generator = torch.Generator().manual_seed(0)
    v, a = torch.randn(2, 4, 32, 16, generator=generator)
    p_v, p_a = torch.rand(2, 4, 32, generator=generator)
    violent, swapped = torch.tensor([True, False, True, False]), build(settings("macil_sd"))
    right = {"v": v, "a": a, "p_v": p_v, "p_a": p_a}
    terms = intended["macil_sd"].contrast(right, mask, violent)
    assert torch.equal(
        torch.stack(terms),
        torch.stack(swapped.contrast(right | {"v": a, "a": v}, mask, violent)),
    )


@pytest.mark.parametrize("form", common.FORMS)
def test_rtfms_loss_by_loops(form):
    generator = torch.Generator().manual_seed(0)
    features = 3 * torch.randn(4, 32, 8, generator=generator)
    scores = torch.rand(4, 32, generator=generator)
    model = build(settings("rtfm", form=form, margin=7.0)).eval()
    output = model.output(torch.logit(scores), ROWS, features=features)
    parts = model.loss(output, pairs_of_bags())

    x, s, lengths, bag = features.double().numpy(), scores.double().numpy(), [], []
    for b in range(4):
        norms = np.linalg.norm(x[b], axis=1)
        top = np.argsort(-norms)[:3]
        of_mean = np.linalg.norm(x[b, top].mean(axis=0))
        lengths.append(of_mean if form == "released" else norms[top].mean())
        bag.append(s[b, top].mean())
    low, high = lengths[:2], lengths[2:]
    steps = [(s[b, j + 1] - s[b, j]) ** 2 for b in (2, 3) for j in range(31)]
    if form == "released":
        margin = [(abs(7 - h) + n) ** 2 for h, n in zip(high, low, strict=True)]
        steps.append((s[3, 0] - s[2, 31]) ** 2)
        sparsity = np.sqrt((s[2:] ** 2).sum())
    else:
        margin = [max(0, 7 - h + n) for h, n in zip(high, low, strict=True)]
        sparsity = s[2:].sum()
    assert float(parts["magnitude"]) == pytest.approx(np.mean(margin), rel=1e-5)
    assert float(parts["smooth"]) == pytest.approx(8e-4 * sum(steps), rel=1e-5)
    assert float(parts["sparsity"]) == pytest.approx(8e-3 * sparsity, rel=1e-5)
    bce = -np.mean(np.log([1 - bag[0], 1 - bag[1], bag[2], bag[3]]))
    assert float(parts["bce"]) == pytest.approx(bce, rel=1e-5)


def hl_net(**options):
    torch.manual_seed(0)
    return build(settings("hl_net", **options)).eval()


def test_a_lower_temperature_sharpens_both_softmaxes():
    x = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0)).abs()
    online, mask = torch.linspace(-3, 3, 7)[None, :6], torch.tensor([[True] * 5 + [False]])
    graphs = hl_net(temperature=0.1).relations(x, online, mask)
    v, s = x[0, :5].double().numpy(), 1 / (1 + np.exp(-online[0, :5].double().numpy()))
    norms = np.linalg.norm(v, axis=1)
    cosine = v @ v.T / np.outer(norms, norms)
    near = 1 / (1 + np.exp(-(1 - np.abs(s[:, None] - s[None]) - 0.5) / 0.1))
    for name, values in {"similarity": cosine * (cosine > 0.7), "score": near}.items():
        expected = np.exp(values / 0.1)
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(graphs[name][0, :5, :5], expected, atol=1e-5)
        assert not graphs[name][0, 5].any() and not graphs[name][0, :, 5].any()


def test_only_the_intended_teacher_of_hl_net_pushes_down():
    offline, online = torch.full((4, 32), -2.0), torch.full((4, 32), 1.0).requires_grad_()
    p, q = 1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-1.0))
    expected = {"released": -p * np.log(q)}
    expected["intended"] = expected["released"] - (1 - p) * np.log(1 - q)
    for form, value in expected.items():
        model = hl_net(form=form)
        parts = model.loss(model.output(offline, ROWS, online=online), pairs_of_bags())
        assert parts["distillation"].item() == pytest.approx(value, rel=1e-5)
        (gradient,) = torch.autograd.grad(parts["distillation"], online)
        assert bool((gradient > 0).all()) is (form == "intended")  # the student is too high


def test_macil_groups_by_label_where_asked():
    generator = torch.Generator().manual_seed(0)
    v, a = torch.randn(2, 4, 32, 16, generator=generator)
    p_v, p_a = torch.rand(2, 4, 32, generator=generator)
    logits, batch = -torch.ones(4, 32), pairs_of_bags()  # no bag is violent by its own verdict
    traces = {"v": v, "a": a, "p_v": p_v, "p_a": p_a, "vision": logits}
    found = {}
    for by_label in (False, True):
        model = build(settings("macil_sd", by_label=by_label))
        parts = model.loss(model.output(logits, ROWS, **traces), batch)
        found[by_label] = [float(parts[f"c{n}"]) for n in range(1, 5)]
    assert found[False] == [0.0] * 4
    by_hand = model.contrast(traces, ROWS, torch.tensor([False, False, True, True]))
    assert found[True] == [float(term) for term in by_hand] and min(found[True]) > 0


def test_ur_dmus_divergence_is_summed_over_time_as_released_and_over_channels_as_intended(store):
    for form, axis in (("released", 0), ("intended", 1)):
        model = build(settings("ur_dmu", form=form)).train()
        bags = train_set(store, model.settings)
        batch = bags.batch(model.batches(bags, torch.Generator().manual_seed(0))[0])
        output = model(batch)
        found = model.loss(output, batch)["kl"].item()
        mu, v = (output.traces[name].detach().double().numpy() for name in ("mu", "v"))
        each = [
            -0.5 * (1 + b - a**2 - np.exp(b)).sum(axis=axis) for a, b in zip(mu, v, strict=True)
        ]
        assert found == pytest.approx(np.mean(each), rel=1e-5)


def test_distance_attention_dims_the_ends_as_released():
    released = ur_dmu.distance_attention(torch.ones(1, 50, dtype=torch.bool))[0]
    assert torch.allclose(released.sum(dim=0), torch.ones(50))
    assert released.sum(dim=1)[0] < 0.85 < 0.99 < released.sum(dim=1)[25]


def test_the_gate_keeps_k_snippets_and_its_noisy_gradient_finds_the_slope():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(1, 32, generator=generator)
    weight = torch.randn(1, 32, generator=generator)
    count = torch.tensor([28])

    def gradient(draws: int, seed: int) -> torch.Tensor:
        leaf = p.clone().requires_grad_()
        own = torch.Generator().manual_seed(seed)
        noise = 0.05 * torch.randn(1, draws, 32, generator=own)
        gate = clip_tsa.PerturbedTopK.apply(leaf, noise, count, 0.05, False)
        assert float(gate.detach().sum()) == pytest.approx(28, abs=1e-3)
        (gate * weight).sum().backward()
        return leaf.grad

    one, other = (gradient(200_000, seed) for seed in (98, 99))
    assert (one - other).norm() < 0.3 * one.norm()


def test_a_centred_gate_finds_the_same_slope_with_less_noise():
    """Two snippets, one to be chosen: the first is, with the chance Phi(delta / (sigma sqrt 2)),
    whose slope is known; loss: the gate of the first."""
    sigma, delta = 0.05, 0.04
    wide = sigma * 2**0.5
    slope = np.exp(-((delta / wide) ** 2) / 2) / (wide * (2 * np.pi) ** 0.5)
    generator = torch.Generator().manual_seed(0)
    noise = sigma * torch.randn(4000, 100, 2, generator=generator)  # many times 100 draws
    spread = {}
    for centred in (False, True):
        p = torch.tensor([[0.5 + delta, 0.5]]).repeat(4000, 1).requires_grad_()
        count = torch.ones(4000, dtype=torch.long)
        clip_tsa.PerturbedTopK.apply(p, noise, count, sigma, centred)[:, 0].sum().backward()
        found = p.grad.mean(dim=0)
        np.testing.assert_allclose(found, [slope, -slope], rtol=0.05)
        spread[centred] = float(p.grad[:, 0].std())
    assert spread[True] < 0.7 * spread[False]


def test_without_its_gate_clip_tsa_is_rtfm():
    x = Batch(video=torch.randn(2, 9, 8), audio=None, lengths=torch.tensor([9, 5]))
    model = build(settings("clip_tsa", gate="off")).eval()
    assert not any("scorer" in name for name in model.state_dict())
    rows, mask = model.inputs(x)
    assert torch.equal(model(x).anomaly_logits, model.encode(rows, mask).anomaly_logits)


def test_the_one_class_machine_is_scikit_learns(store):
    from sklearn.svm import OneClassSVM

    config = settings("one_class_svm")
    model, bags = build(config), train_set(store, config)
    torch.manual_seed(3)
    model.start_epoch(0, bags)
    torch.manual_seed(3)
    rows, anomalous = model.draw(bags)
    theirs = OneClassSVM(gamma="scale", nu=0.1).fit(rows[~anomalous].numpy())
    x = torch.randn(1, 7, 8, generator=torch.Generator().manual_seed(0))
    ours = model.eval()(Batch(video=x, audio=None, lengths=torch.tensor([7])))
    unit = torch.nn.functional.normalize(x[0], dim=-1)
    expected = -theirs.decision_function(unit.numpy()) / theirs.dual_coef_.sum()
    np.testing.assert_allclose(ours.anomaly_logits[0].detach(), expected, atol=1e-5)


def test_the_linear_machine_is_scikit_learns(store):
    from sklearn.svm import LinearSVC

    config = settings("linear_svm")
    model, bags = build(config), train_set(store, config)
    torch.manual_seed(3)
    model.start_epoch(0, bags)
    torch.manual_seed(3)
    rows, anomalous = model.draw(bags)
    theirs = LinearSVC(dual="auto", random_state=0).fit(rows.numpy(), anomalous.numpy())
    x = torch.randn(1, 7, 8, generator=torch.Generator().manual_seed(0))
    ours = model.eval()(Batch(video=x, audio=None, lengths=torch.tensor([7])))
    unit = torch.nn.functional.normalize(x[0], dim=-1)
    expected = theirs.decision_function(unit.numpy())
    np.testing.assert_allclose(ours.anomaly_logits[0].detach(), expected, atol=1e-5)


def test_zero_shot_is_a_softmax_over_cosines():
    text, prompts = tiny_text()
    model = build(settings("zero_shot"), text, prompts).eval()
    words = torch.nn.functional.normalize(model.words(), dim=-1).detach()
    x = 3 * words[None, :3]  # three snippets that are a class word each
    out = model(Batch(video=x, audio=None, lengths=torch.tensor([3])))
    assert torch.allclose(out.alignment_logits[0], words[:3] @ words.T / 0.07, atol=1e-4)
    normal = out.alignment_logits.softmax(-1)[..., 0]
    assert torch.allclose(out.confidence, 1 - normal, atol=1e-5)


def tpwng() -> Detector:
    return build(settings("tpwng_like", {"max_snippets": 10}), *tiny_text())


def test_the_span_only_looks_back_and_fades():
    model = tpwng()
    mask = model.reach(torch.zeros(1, 4, 2)).exp()  # half of 10 snippets, heads side by side
    assert mask.shape == (2, 4, 4)
    assert torch.equal(mask[0].triu(1), torch.zeros(4, 4))
    assert torch.allclose(mask[0, 3], torch.tensor([1.0, 1.0, 1.0, 1.0]))
    near = model.reach(torch.full((1, 10, 2), -50.0)).exp()  # no span: a ramp of 10 snippets
    assert torch.allclose(near[0, 9], torch.arange(1.0, 11) / 10, atol=1e-5)


def test_labels_are_high_where_the_class_shows_and_normal_does_not():
    model = tpwng()
    own = torch.tensor([[0.1, 0.2, 0.9, 0.8, 5.0]])
    normal = torch.tensor([[0.9, 0.8, 0.1, 0.2, -5.0]])
    mask = torch.tensor([[True] * 4 + [False]])
    assert model.label(own, normal, mask).tolist() == [[0, 0, 1, 1, 0]]


def test_macil_averages_vision_weights_in_less_and_less():
    torch.manual_seed(0)
    model = build(settings("macil_sd", {"epochs": 50}))
    assert isinstance(model, MACILSD)
    model.optimizers()
    weights = model.audio_visual.score.weight, model.vision.score.weight
    start = weights[0].detach().clone()
    model.start_epoch(0, None)
    model.end_epoch(0)
    assert torch.allclose(weights[0], 0.91 * start + 0.09 * weights[1])
    alone = model.audio_visual.project_audio.weight.detach().clone()
    model.start_epoch(49, None)
    assert model.kept_share() > 0.999
    model.end_epoch(49)
    assert torch.equal(alone, model.audio_visual.project_audio.weight)
    rates = {group["lr"] for group in model.groups}
    assert max(rates) < 4e-4 * 0.5  # down a cosine
    seeing = build(settings("macil_sd", {"learning_rate": 4e-4}, modality="vision"))
    (optimizer,) = seeing.optimizers()
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(8e-5)]


def test_cupl_relabels_in_the_second_half(store):
    config = settings("cupl", {"epochs": 4}, steps=8)
    model, bags = build(config), train_set(store, config)
    for epoch in range(2):
        model.start_epoch(epoch, bags)
        assert int(model.round) == 0
    model.start_epoch(2, bags)
    assert int(model.round) > 0
    normal = common.is_normal(bags.labels)
    assert model.labels[normal].abs().max() == 0
    assert torch.equal(model.labels[~normal].amax(dim=1), torch.ones(int((~normal).sum())))
    assert model.kept[normal].all()
    assert model.kept[~normal].sum(dim=1).eq(16).all()  # half of 32


def test_vadclip_is_the_student_without_extras():
    config = configure("vadclip", scale="xd")
    assert (config.model.role, config.loss.ukd, config.loss.alignment) == (
        "vision",
        "none",
        "cross_entropy",
    )
    text, prompts = tiny_text()
    model = build(settings("vadclip"), text, prompts)
    assert not len(model.enhancement.convs)
    assert model.alpha is None and model.log_variance is None


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["detector", "vadclip"], {}),  # whose form and role are its own
        (["detector", "rtfm", "options", '{"form": "intended"}', "epochs", "2"], {"epochs": 2}),
    ],
)
def test_the_train_command_takes_a_systems_own_recipe(words, given, monkeypatch):
    """It took AVadCLIP's: its weight decay, and of VadCLIP the teacher with the extras on."""
    parser, seen = argparse.ArgumentParser(), []
    train_command.add_arguments(parser)
    pairs = [part for pair in zip(words[::2], words[1::2], strict=True) for part in ("-s", *pair)]

    def fit(settings, *_, **__):
        seen.append(settings)
        raise ValueError("enough")

    monkeypatch.setattr(train_command, "fit", fit)
    with pytest.raises(ValueError, match="enough"):
        train_command.main(
            parser.parse_args(["--data", str(soundstage_path()), "--out", "x", *pairs])
        )
    options = {"options": {"form": "intended"}} if "options" in words else {}
    expected = configure(words[1], scale="soundstage", device="auto", **given, **options)
    assert seen == [expected], "the recipe of another"
