"""The teacher and the students, put together: shapes, gradients, masks, missing sound."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny_models import DIM, WORDS, batch, call, detector, multi_hot, settings, text_tower

from avadclip_lite import losses
from avadclip_lite.dataset import Batch
from avadclip_lite.model import AnomalyHead, FrozenTeacher, build

ROLES = ["audio_visual", "vision", "audio"]
FORMS = ["paper", "released"]
KINDS = ["adaptive", "concat", "add", "cross_attention"]
CLASSES = len(WORDS.ids)
LENGTHS = [21, 1, 8, 16]
PRESENT = [[0], [1], [2, 3], [3]]


def train_loss(model, video, audio, lengths, audio_mask=None):
    out = call(model, video, audio, lengths, audio_mask)
    teacher = None
    if model.settings.model.role != "audio_visual":
        teacher = (video if video is not None else audio).detach().sin()
    out = replace(out, teacher_features=teacher)
    bags = Batch(video=None, audio=None, lengths=lengths, labels=multi_hot(PRESENT))
    return losses.compute(out, bags, model.settings.loss, model.alpha)["total"]


def inputs(role, **choices):
    video, audio, lengths = batch(LENGTHS, **choices)
    return (video if role != "audio" else None), (audio if role != "vision" else None), lengths


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("role", ROLES)
def test_shapes(form, role):
    model = detector(form=form, role=role)
    out = call(model, *inputs(role))
    assert out.features.shape == (4, 21, DIM)
    assert out.anomaly_logits.shape == out.confidence.shape == out.mask.shape == (4, 21)
    assert out.alignment_logits.shape == (4, 21, CLASSES)
    assert out.class_embeddings.shape == (CLASSES, DIM)
    assert out.prompted_embeddings.shape == (4, CLASSES, DIM)
    assert out.mask.sum(dim=1).tolist() == LENGTHS
    if role == "audio_visual":
        assert out.log_variance is None
    else:
        assert out.log_variance.shape == (4, 21, DIM)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("role", ROLES)
def test_features_alone_are_those_of_the_whole_output(form, role):
    model = detector(form=form, role=role)
    audio_mask = torch.arange(21) < torch.tensor([[21], [0], [4], [16]])
    video, audio, lengths = inputs(role)
    bags = Batch(video=video, audio=audio, lengths=lengths, audio_mask=audio_mask)
    assert torch.equal(FrozenTeacher(model)(bags), model(bags).features)


VARIANTS = [
    {},
    *({"fusion": kind} for kind in KINDS[1:]),
    {"av_prompt": "none"},
    {"av_prompt": "uniform"},
    {"global_weight": "logit", "prompt_skip": "sum"},
    {"padding": "leaking"},
    {"missing_audio": "zeros"},
    {"focal_alpha_learned": True},
    {"alignment": "cross_entropy", "focal_alpha_learned": True},
    {"heads": 2, "window": 3, "blocks": 1, "max_snippets": 32, "tcn_dilations": (1,)},
    {"contrast_weight": 0.1},
    {"role": "vision", "variance_head": "bounded"},
    {"role": "vision", "ukd": "mse", "enhancement_blocks": 2},
    {"role": "vision", "ukd": "none", "enhancement_blocks": 0},
    {"role": "vision", "ukd": "released", "ukd_mask": False, "context_after": 0},
    {"role": "audio", "context_before": 0, "context_after": 0},
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variant", VARIANTS + [{"role": "audio"}], ids=str)
def test_everything_trainable_gets_a_gradient_and_nothing_frozen_does(form, variant):
    model = detector(form=form, **variant).train()
    train_loss(model, *inputs(variant.get("role", "audio_visual"))).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("textual_prompt.tower."):
            assert not parameter.requires_grad and parameter.grad is None, name
        else:
            assert parameter.requires_grad, name
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("role", ROLES)
def test_a_training_step_leaves_the_tower_as_it_was(role):
    model = detector(role=role).train()
    before = copy.deepcopy(model.textual_prompt.tower.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    train_loss(model, *inputs(role)).backward()
    optimiser.step()
    assert model.training and model.encoder.training
    assert not any(module.training for module in model.textual_prompt.tower.modules())
    for key, value in model.textual_prompt.tower.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("variant", [{}, {"fusion": "cross_attention"}, {"global_weight": "logit"}])
@pytest.mark.parametrize("role", ROLES)
def test_padding_never_reaches_a_valid_snippet(role, variant):
    model = detector(role=role, max_snippets=256, **variant)
    video, audio, lengths = batch(LENGTHS)

    def run(fill, snippets):
        v, a, n = batch(LENGTHS, snippets=snippets)
        beyond = ~(torch.arange(snippets) < n[:, None])
        v, a = (x.masked_fill(beyond[..., None], fill) for x in (v, a))
        model.zero_grad()
        out = call(model, v, a, n)
        bags = Batch(video=None, audio=None, lengths=n, labels=multi_hot(PRESENT))
        teacher = torch.zeros(4, snippets, DIM) if role != "audio_visual" else None
        out = replace(out, teacher_features=teacher)
        losses.compute(out, bags, model.settings.loss)["total"].backward()
        return out, {k: p.grad for k, p in model.named_parameters() if p.requires_grad}

    out, grads = run(0.0, 21)
    for fill, snippets in ((0.0, 64), (50.0, 21), (float("nan"), 40), (1.0, 256)):
        other, other_grads = run(fill, snippets)
        for name in ("features", "anomaly_logits", "alignment_logits", "log_variance"):
            a, b = getattr(out, name), getattr(other, name)
            if a is not None:
                for row, n in enumerate(LENGTHS):
                    torch.testing.assert_close(a[row, :n], b[row, :n], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            out.prompted_embeddings, other.prompted_embeddings, atol=1e-5, rtol=1e-4
        )
        for name, value in grads.items():
            torch.testing.assert_close(other_grads[name], value, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("role", ROLES)
def test_a_video_alone_equals_the_video_in_its_batch(role):
    model = detector(role=role)
    video, audio, lengths = batch(LENGTHS)
    together = call(model, video, audio, lengths)
    for row, n in enumerate(LENGTHS):
        own = slice(row, row + 1)
        alone = call(model, video[own, :n], audio[own, :n], lengths[own])
        for name in ("features", "anomaly_logits", "alignment_logits"):
            a, b = getattr(alone, name)[0], getattr(together, name)[row, :n]
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("role", ROLES)
def test_leaking_forward_fills_up_to_the_whole_table(role):
    """The release pads every batch to 256, so a shorter batch must give the same answers."""
    model = detector(form="released", role=role, max_snippets=40)
    short, long = call(model, *inputs(role)), call(model, *inputs(role, snippets=40))
    for name in ("features", "anomaly_logits", "alignment_logits"):
        a, b = getattr(short, name), getattr(long, name)[:, :21]
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(short.prompted_embeddings, long.prompted_embeddings)


@pytest.mark.parametrize("kind", ["adaptive", "add", "cross_attention"])
def test_missing_sound_is_skipped_and_the_fused_feature_is_what_was_seen(kind):
    model = detector(fusion=kind)
    video, audio, lengths = batch(LENGTHS)
    audio_mask = torch.ones(4, 21, dtype=torch.bool)
    audio_mask[2] = False
    out = call(model, video, audio, lengths, audio_mask)
    seen = model.encoder(video, out.mask)
    assert torch.equal(out.features[2], seen[2])
    assert not torch.allclose(out.features[0], seen[0])
    audio[2] = float("nan")  # nothing that stands in for missing sound is ever read
    again = call(model, video, audio, lengths, audio_mask)
    torch.testing.assert_close(again.features, out.features)


@pytest.mark.parametrize("kind", KINDS)
def test_released_missing_sound_is_a_row_of_zeros(kind):
    model = detector(fusion=kind, missing_audio="zeros")
    video, audio, lengths = batch(LENGTHS)
    audio_mask = torch.ones(4, 21, dtype=torch.bool)
    audio_mask[2] = False
    out = call(model, video, audio, lengths, audio_mask)
    audio[2] = 0.0
    torch.testing.assert_close(out.features, call(model, video, audio, lengths).features)
    assert not torch.equal(out.features[2], model.encoder(video, out.mask)[2])


def test_students_ignore_the_other_modality():
    video, audio, lengths = batch(LENGTHS)
    seeing, hearing = detector(role="vision"), detector(role="audio")
    torch.testing.assert_close(
        call(seeing, video, None, lengths).features, call(seeing, video, audio, lengths).features
    )
    torch.testing.assert_close(
        call(hearing, None, audio, lengths).features, call(hearing, video, audio, lengths).features
    )
    with pytest.raises(ValueError, match="video must be .*got None"):
        call(seeing, None, audio, lengths)


def test_students_differ_only_in_what_they_are_given():
    video, audio, lengths = batch(LENGTHS)
    seeing, hearing = detector(role="vision"), detector(role="audio")
    assert seeing.trainable_state().keys() == hearing.trainable_state().keys()
    torch.testing.assert_close(
        call(seeing, video, None, lengths).features, call(hearing, None, video, lengths).features
    )


def test_a_variance_head_exists_only_where_a_loss_uses_it():
    def has(**choices):
        return any(k.startswith("log_variance") for k in detector(**choices).trainable_state())

    assert has(role="vision") and has(role="audio", ukd="released")
    assert not has(role="vision", ukd="none") and not has(role="vision", ukd="mse")
    assert not has(role="audio_visual")


def test_the_global_vector_follows_the_confidence_or_the_raw_logit():
    """With all logits negative the released global vector points the other way."""
    video, audio, lengths = batch(LENGTHS)
    found = {}
    for weight in ("confidence", "logit"):
        model = detector(global_weight=weight, av_prompt="uniform")
        torch.nn.init.zeros_(model.anomaly.score.weight)
        torch.nn.init.constant_(model.anomaly.score.bias, -2.0)
        torch.nn.init.zeros_(model.av_prompt.ffn.fc2.weight)
        torch.nn.init.zeros_(model.av_prompt.ffn.fc2.bias)
        model.av_prompt.skip = "sum"
        out = call(model, video, audio, lengths)
        found[weight] = (out.prompted_embeddings - out.class_embeddings)[:, 0]
    torch.testing.assert_close(found["logit"], -found["confidence"])
    assert found["confidence"].norm(dim=1).tolist() == pytest.approx([1.0] * 4)


def test_anomaly_head_by_hand():
    head = AnomalyHead(2)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.ffn.fc2.bias.copy_(torch.tensor([1.0, -1.0]))  # the FFN answers (1, -1) to anything
        head.score.weight.copy_(torch.tensor([[10.0, 1.0]]))
        head.score.bias.fill_(0.5)
    # 10 (3 + 1) + (4 - 1) + 0.5
    assert head(torch.tensor([[[3.0, 4.0]]])).tolist() == [[43.5]]


def test_without_the_audio_visual_prompt_every_video_gets_the_class_embeddings():
    out = call(detector(av_prompt="none"), *batch(LENGTHS))
    for row in range(4):
        torch.testing.assert_close(out.prompted_embeddings[row], out.class_embeddings)


@pytest.mark.parametrize("role", ROLES)
def test_trainable_state_goes_round(role):
    model, other = detector(role=role), detector(role=role, seed=9)
    state = model.trainable_state()
    assert not any("tower" in key for key in state)
    named = {k for k, p in model.named_parameters() if p.requires_grad}
    assert named == state.keys()
    other.load_trainable_state(state)
    torch.testing.assert_close(
        call(other, *inputs(role)).alignment_logits, call(model, *inputs(role)).alignment_logits
    )


def test_a_foreign_checkpoint_is_refused_by_name():
    model = detector()
    state = model.trainable_state()
    with pytest.raises(ValueError, match="lacks anomaly.score.bias"):
        model.load_trainable_state({k: v for k, v in state.items() if k != "anomaly.score.bias"})
    with pytest.raises(ValueError, match="unknown key alpha"):
        model.load_trainable_state(state | {"alpha": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"anomaly.score.bias has shape \(2,\), not \(1,\)"):
        model.load_trainable_state(state | {"anomaly.score.bias": torch.zeros(2)})


def test_wrong_widths_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match="dim=16 .*dim=24"):
        build(settings(), text_tower(dim=24), WORDS)
    video, audio, lengths = batch(LENGTHS)
    with pytest.raises(ValueError, match=r"audio must be.*16.*got \(4, 21, 12\)"):
        call(detector(), video, audio[..., :12], lengths)
    with pytest.raises(ValueError, match=r"video \(4, 21, 16\) and audio \(4, 20, 16\)"):
        call(detector(), video, audio[:, :20], lengths)


def test_detectors_own_their_weights():
    """Two detectors of one text tower: what one suffers does not reach the other."""
    text = text_tower()
    before = {k: v.clone() for k, v in text.state_dict().items()}
    one, other = (build(settings(), text, WORDS).eval() for _ in range(2))
    expected = call(other, *batch(LENGTHS)).class_embeddings
    one.to("meta")
    one.to_empty(device="cpu")
    assert {p.device.type for p in other.parameters()} == {"cpu"}
    assert torch.equal(call(other, *batch(LENGTHS)).class_embeddings, expected)
    other.textual_prompt.tower.text_projection.data.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in text.state_dict().items())


def test_seeded_builds_are_equal():
    a, b = detector(seed=3).trainable_state(), detector(seed=3).trainable_state()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("form", FORMS)
def test_form_and_scale_are_independent(form):
    """The released architecture at D = 512 has the published number of weights, 17,106,441 and
    13,163,017, less the one number the release stores and never uses."""
    text = text_tower(dim=512, width=512, positions=77)
    counts = {}
    for role in ("audio_visual", "vision"):
        model = build(settings(form=form, role=role, dim=512, max_snippets=256), text, WORDS)
        counts[role] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if form == "released":  # seven classes there, four here
        assert counts == {
            "audio_visual": 17_106_441 - 1 - 3,
            "vision": 13_163_017 - 1 - 3,
        }
    else:  # no learned focal weight, and one enhancement block in place of three
        assert counts["audio_visual"] == 17_106_441 - 1 - 7
        assert counts["vision"] == 13_163_017 - 1 - 7 - 2 * (3 * 512 * 512 + 512)


@pytest.mark.parametrize("role", ROLES)
def test_low_precision_stays_close_to_float32(role):
    model = detector(role=role)
    exact = call(model, *inputs(role))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = call(model, *inputs(role))
        loss = train_loss(model, *inputs(role))
    assert rough.anomaly_logits.dtype == rough.alignment_logits.dtype == torch.float32
    mask = exact.mask
    assert (rough.confidence - exact.confidence)[mask].abs().max() < 0.03
    assert loss.item() == pytest.approx(train_loss(model, *inputs(role)).item(), rel=0.05)


def test_heads_compute_in_float32_under_autocast() -> None:
    """The anomaly head, the log-variance of a student and the alignment map; the rest in bf16."""
    student, kinds = detector(role="vision"), {}
    for name in ("anomaly", "log_variance", "enhancement"):
        part = getattr(student, name)
        part.register_forward_hook(lambda _m, _i, out, name=name: kinds.update({name: out.dtype}))
        deepest = [m for m in part.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv1d))]
        deepest[0].register_forward_hook(
            lambda _m, _i, out, name=name: kinds.update({f"{name}, inside": out.dtype})
        )
    with torch.autocast("cpu", torch.bfloat16):
        output = call(student, *batch(LENGTHS))
    assert kinds.pop("enhancement, inside") == torch.bfloat16 and kinds.pop("enhancement")
    assert len(kinds) == 4 and set(kinds.values()) == {torch.float32}
    assert output.alignment_logits.dtype == torch.float32
