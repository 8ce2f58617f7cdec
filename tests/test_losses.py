"""Losses against hand-worked numbers and loops over videos."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import log_loss
from tiny_models import batch, call, detector, multi_hot

from avadclip_lite import losses
from avadclip_lite.config import LossConfig
from avadclip_lite.dataset import Batch

LENGTHS = [1, 15, 16, 255, 256]
COUNTS = [1, 1, 2, 16, 17]  # K = floor(length / 16) + 1


def scores(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loop_topk(row: torch.Tensor, length: int, divisor: int = 16) -> float:
    best = sorted(row[:length].tolist(), reverse=True)
    best = best[: length // divisor + 1]
    return sum(best) / len(best)


def test_topk_mean_by_hand():
    # Length 3 of 4, divisor 2: K = 2, the best two of 5, 1, 3; the 9 is padding.
    row = torch.tensor([[5.0, 1.0, 3.0, 9.0]])
    assert float(losses.topk_mean(row, torch.tensor([3]), divisor=2)) == 4.0


def test_topk_mean_equals_a_loop():
    lengths = torch.tensor(LENGTHS)
    flat, classes = scores(5, 256), scores(5, 256, 3)
    ours = losses.topk_mean(flat, lengths)
    assert ours.tolist() == pytest.approx(
        [loop_topk(r, n) for r, n in zip(flat, LENGTHS, strict=True)], abs=1e-6
    )
    ours = losses.topk_mean(classes, lengths)
    for video, n in enumerate(LENGTHS):
        expected = [loop_topk(classes[video, :, c], n) for c in range(3)]
        assert ours[video].tolist() == pytest.approx(expected, abs=1e-6)


def test_topk_mean_gives_its_gradient_to_exactly_k_snippets():
    row = scores(5, 256).requires_grad_()
    losses.topk_mean(row, torch.tensor(LENGTHS)).sum().backward()
    for video, (n, k) in enumerate(zip(LENGTHS, COUNTS, strict=True)):
        assert int((row.grad[video] != 0).sum()) == k
        assert row.grad[video].sum().item() == pytest.approx(1.0)
        assert not row.grad[video, n:].any()


@pytest.mark.parametrize("padding", [math.inf, -math.inf, math.nan, 1e9])
def test_padding_never_enters_a_bag(padding):
    lengths = torch.tensor([3, 5])
    x = scores(2, 40)
    before = losses.topk_mean(x[:, :5], lengths)
    x[0, 3:], x[1, 5:] = padding, padding
    torch.testing.assert_close(losses.topk_mean(x, lengths), before)


def test_k_never_exceeds_the_video():
    x = torch.tensor([[1.0, 3.0], [4.0, 0.0]])
    assert losses.topk_mean(x, torch.tensor([2, 1]), divisor=1).tolist() == [2.0, 4.0]


def test_topk_bce_equals_scikit_learn():
    logits, lengths = scores(5, 256), torch.tensor(LENGTHS)
    anomalous = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    chance = [loop_topk(torch.sigmoid(r), n) for r, n in zip(logits, LENGTHS, strict=True)]
    expected = log_loss(anomalous.tolist(), chance)
    assert losses.topk_bce(logits, anomalous, lengths).item() == pytest.approx(expected, rel=1e-5)


def test_topk_bce_by_hand_is_the_mean_of_confidences_not_of_logits():
    # length 16: K = 2, confidences 0.75 and 0.5, mean 0.625
    logits = torch.full((1, 16), -9.0)
    logits[0, 3], logits[0, 7] = math.log(3.0), 0.0
    loss = losses.topk_bce(logits, torch.tensor([1.0]), torch.tensor([16]))
    assert loss.item() == pytest.approx(-math.log(0.625))


def test_topk_bce_stays_finite_where_the_sigmoid_is_one_or_zero():
    logits = torch.tensor([[200.0], [-200.0], [200.0], [-200.0]], requires_grad=True)
    target = torch.tensor([1.0, 0.0, 0.0, 1.0])
    loss = losses.topk_bce(logits, target, torch.ones(4, dtype=torch.int64))
    loss.backward()
    assert bool(loss.isfinite()) and bool(logits.grad.isfinite().all())


def test_topk_bce_lets_nan_through():
    """A diverged training is told by its loss: no device assertion, no NaN replaced on the way."""
    logits = torch.tensor([[float("nan"), 0.0], [1.0, 2.0]])
    loss = losses.topk_bce(logits, torch.tensor([1.0, 0.0]), torch.tensor([2, 2]))
    assert bool(loss.isnan())


def loop_align(logits, present, lengths, alpha, gamma):
    """Cross-entropy and focal part, video by video in plain Python."""
    entropies, focals = [], []
    for video, (classes, n) in enumerate(zip(present, lengths, strict=True)):
        z = [loop_topk(logits[video, :, c], n) for c in range(logits.shape[2])]
        total = sum(math.exp(v) for v in z)
        p = [math.exp(v) / total for v in z]
        share = 1 / len(classes)
        entropy = -sum(share * math.log(p[c]) for c in classes)
        right = sum(share * p[c] for c in classes)
        weight = sum(share * alpha[c] for c in classes)
        entropies.append(entropy)
        focals.append(weight * (1 - right) ** gamma * entropy)
    return sum(entropies) / len(present), sum(focals) / len(present)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_mil_align_equals_a_loop(gamma):
    logits = scores(5, 256, 4)
    present = [[0], [1], [1, 3], [1, 2, 3], [2]]
    alpha = [0.25, 0.5, 0.1, -0.05]
    ours = losses.mil_align(
        logits, multi_hot(present), torch.tensor(LENGTHS), alpha=torch.tensor(alpha), gamma=gamma
    )
    entropy, focal = loop_align(logits, present, LENGTHS, alpha, gamma)
    assert ours.cross_entropy.item() == pytest.approx(entropy, rel=1e-5)
    assert ours.focal.item() == pytest.approx(focal, rel=1e-5)
    same = losses.mil_align(logits, multi_hot(present), torch.tensor(LENGTHS), alpha=0.25)
    _, focal = loop_align(logits, present, LENGTHS, [0.25] * 4, 2.0)
    assert same.focal.item() == pytest.approx(focal, rel=1e-5)


def test_mil_align_by_hand_with_two_labels():
    # One snippet, three classes, probabilities 1/2, 1/4, 1/4; true are classes 1 and 2.
    logits = torch.tensor([[[math.log(2.0), 0.0, 0.0]]])
    ours = losses.mil_align(logits, torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([1]), alpha=0.5)
    assert ours.cross_entropy.item() == pytest.approx(math.log(4.0))
    assert ours.focal.item() == pytest.approx(0.5 * 0.75**2 * math.log(4.0))


def test_focal_by_hand():
    entropy, right = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.0 + 1e-7])
    assert losses.focal(entropy, right, 0.25, 2.0).item() == pytest.approx(0.25 * 0.25 / 2)
    assert losses.focal(entropy, right, 0.25, 0.5).item() == pytest.approx(0.25 * 0.5**0.5 / 2)
    assert losses.focal(entropy, right, 1.0, 0.0).item() == pytest.approx(1.5)


def test_text_contrast_by_hand():
    embeddings = torch.tensor([[2.0, 0.0], [-3.0, 4.0], [0.0, 5.0], [1.0, 0.0]])
    assert losses.text_contrast(embeddings).item() == pytest.approx((0.6 + 0.0 + 1.0) / 3)
    assert losses.text_contrast(embeddings[:2]).item() == pytest.approx(0.6)


# One video of two snippets with one channel, the second snippet is padding.
STUDENT = torch.tensor([[[1.0], [7.0]]])
TEACHER = torch.tensor([[[3.0], [7.5]]])  # squared errors 4 and 0.25
THETA = torch.tensor([[[math.log(8.0)], [0.0]]])  # sigma^2 = 8 and 1


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("paper", (4 / 8 + math.log(8)) / 2, (0.25 + 0) / 2),
        ("released", 4 / (1e-6 + 16) + math.log(8), 0.25 / (1e-6 + 2)),
        ("mse", 4.0, 0.25),
    ],
)
def test_ukd_by_hand(kind, first, second):
    def value(mask):
        return losses.ukd(STUDENT, TEACHER, THETA, mask, kind).item()

    assert value(None) == pytest.approx((first + second) / 2, rel=1e-6)
    assert value(torch.tensor([[True, False]])) == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize("kind", ["paper", "released", "mse"])
def test_ukd_equals_a_loop_over_the_snippets_that_exist(kind):
    student, teacher, theta = scores(3, 6, 4), scores(3, 6, 4, seed=1), scores(3, 6, 4, seed=2)
    lengths = [6, 1, 3]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    terms = []
    for video, n in enumerate(lengths):
        for t in range(n):
            for d in range(4):
                squared = float(teacher[video, t, d] - student[video, t, d]) ** 2
                log = float(theta[video, t, d])
                terms.append(
                    {
                        "paper": (squared / math.exp(log) + log) / 2,
                        "released": squared / (1e-6 + 2 * math.exp(log)) + log,
                        "mse": squared,
                    }[kind]
                )
    broken = [x.masked_fill(~mask[..., None], math.nan) for x in (student, teacher, theta)]
    for arguments in ((student, teacher, theta), broken):
        ours = losses.ukd(*arguments, mask, kind).item()
        assert ours == pytest.approx(sum(terms) / len(terms), rel=1e-5)


@pytest.mark.parametrize(("kind", "optimum"), [("paper", 4.0), ("released", 2.0)])
def test_the_best_variance_is_the_squared_error_in_the_paper_and_half_of_it_released(kind, optimum):
    student, teacher = torch.zeros(1, 1, 1), torch.full((1, 1, 1), 2.0)
    variances = torch.arange(0.5, 8.0, 0.01)
    values = [
        losses.ukd(student, teacher, theta.view(1, 1, 1), None, kind) for theta in variances.log()
    ]
    assert variances[torch.stack(values).argmin()].item() == pytest.approx(optimum, abs=0.011)


def test_ukd_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="needs log_variance"):
        losses.ukd(STUDENT, TEACHER)
    with pytest.raises(ValueError, match="got 'kl'"):
        losses.ukd(STUDENT, TEACHER, THETA, kind="kl")


PRESENT = [[0], [1, 3], [2]]


def computed(role="audio_visual", teacher=None, **choices):
    model = detector(role=role, **choices)
    video, audio, lengths = batch([20, 5, 1])
    out = call(model, video, audio, lengths)
    labels = multi_hot(PRESENT)
    settings = model.settings.loss
    out = replace(out, teacher_features=teacher)
    bags = Batch(video=None, audio=None, lengths=lengths, labels=labels)
    parts = losses.compute(out, bags, settings, model.alpha)
    return out, labels, lengths, {k: v.item() for k, v in parts.items()}


def test_compute_adds_the_parts_of_the_paper():
    out, labels, lengths, parts = computed()
    assert set(parts) == {"classification", "cross_entropy", "focal", "alignment", "total"}
    bce = losses.topk_bce(out.anomaly_logits, torch.tensor([0.0, 1.0, 1.0]), lengths)
    assert parts["classification"] == pytest.approx(bce.item())
    entropy, focal = loop_align(out.alignment_logits.detach(), PRESENT, [20, 5, 1], [0.25] * 4, 2.0)
    assert parts["cross_entropy"] == pytest.approx(entropy, rel=1e-5)
    assert parts["focal"] == pytest.approx(focal, rel=1e-5)
    assert parts["alignment"] == pytest.approx((entropy + focal) / 2, rel=1e-5)
    assert parts["total"] == pytest.approx(parts["classification"] + parts["alignment"])


def test_compute_takes_the_learned_focal_weight_of_the_detector():
    model = detector(focal_alpha_learned=True)
    alpha = [0.1, 0.2, -0.3, 0.4]
    model.alpha.data.copy_(torch.tensor(alpha))
    video, audio, lengths = batch([20, 5, 1])
    out = call(model, video, audio, lengths)
    bags = Batch(video=None, audio=None, lengths=lengths, labels=multi_hot(PRESENT))
    parts = losses.compute(out, bags, model.settings.loss, model.alpha)
    _, focal = loop_align(out.alignment_logits.detach(), PRESENT, [20, 5, 1], alpha, 2.0)
    assert parts["focal"].item() == pytest.approx(focal, rel=1e-5)


def test_compute_leaves_out_what_the_configuration_leaves_out():
    *_, parts = computed(alignment="cross_entropy")
    assert parts["alignment"] == pytest.approx(parts["cross_entropy"])
    *_, parts = computed(alignment="none")
    assert set(parts) == {"classification", "total"}
    *_, parts = computed(role="vision", ukd="none", teacher=torch.zeros(3, 20, 16))
    assert "ukd" not in parts


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("weight", [1.0, 1e-3])
def test_compute_weighs_distillation_and_contrast(form, weight):
    teacher = scores(3, 20, 16)
    out, _, lengths, parts = computed("vision", teacher, form=form, ukd_weight=weight)
    mask = out.mask if form == "paper" else None
    ukd = losses.ukd(out.features, teacher, out.log_variance, mask, form)
    assert parts["ukd"] == pytest.approx(ukd.item(), rel=1e-6)
    expected = parts["classification"] + parts["alignment"] + weight * parts["ukd"]
    if form == "released":
        expected += 1e-4 * parts["contrast"]
    assert parts["total"] == pytest.approx(expected, rel=1e-6)


def test_a_student_without_a_teacher_is_trained_without_distillation():
    *_, parts = computed("vision")
    assert "ukd" not in parts


def test_losses_are_computed_in_float32_from_low_precision_outputs():
    logits, lengths = scores(5, 256).bfloat16(), torch.tensor(LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses.topk_bce(logits, torch.ones(5), lengths)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        losses.topk_bce(logits.float(), torch.ones(5), lengths).item()
    )


def test_loss_config_defaults_are_those_of_the_functions():
    """A reader who calls the functions bare gets the paper's values."""
    settings = LossConfig()
    x, lengths, labels = scores(3, 20, 4), torch.tensor([20, 5, 1]), multi_hot(PRESENT)
    bare = losses.mil_align(x, labels, lengths)
    full = losses.mil_align(
        x,
        labels,
        lengths,
        alpha=settings.focal_alpha,
        gamma=settings.focal_gamma,
        divisor=settings.topk_divisor,
    )
    assert torch.equal(bare.focal, full.focal)
