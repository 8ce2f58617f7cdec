"""The four ways to put sight and sound together."""

import math

import pytest
import torch
from tiny_models import DIM, batch
from torch import nn

from avadclip_lite.config import ModelConfig
from avadclip_lite.fusion import (
    AdaptiveFusion,
    AddFusion,
    ConcatFusion,
    CrossAttentionFusion,
    build_fusion,
)
from avadclip_lite.temporal import length_mask

KINDS = ["adaptive", "concat", "add", "cross_attention"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def fusion(kind: str) -> nn.Module:
    return build_fusion(ModelConfig(dim=DIM, fusion=kind))


def test_adaptive_fusion_by_hand():
    module = AdaptiveFusion(2)
    with torch.no_grad():
        # j = [v0, v1, a0, a1]; the gate looks at a0 and a1, the residual is GELU(a) doubled.
        module.gate_proj.weight.copy_(torch.tensor([[0, 0, 1.0, 0], [0, 0, 0, 1.0]]))
        module.gate_proj.bias.copy_(torch.tensor([0.0, 1.0]))
        module.residual_in.weight.copy_(torch.tensor([[0, 0, 1.0, 0], [0, 0, 0, 1.0]]))
        module.residual_in.bias.zero_()
        module.residual_out.weight.copy_(2 * torch.eye(2))
        module.residual_out.bias.zero_()
    x_v, x_a = torch.tensor([[[10.0, 20.0]]]), torch.tensor([[[1.0, -1.0]]])

    def gelu(x):
        return x * (1 + math.erf(x / math.sqrt(2))) / 2

    gate = [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(0.0))]
    residual = [2 * gelu(1.0), 2 * gelu(-1.0)]
    expected = [10 + gate[0] * residual[0], 20 + gate[1] * residual[1]]
    assert module.gate(x_v, x_a).flatten().tolist() == pytest.approx(gate, rel=1e-6)
    assert module.residual(x_v, x_a).flatten().tolist() == pytest.approx(residual, rel=1e-6)
    assert module(x_v, x_a).flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_concat_and_add_by_hand():
    x_v, x_a = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]])
    assert AddFusion()(x_v, x_a).flatten().tolist() == [4.0, 6.0]
    module = ConcatFusion(2)
    with torch.no_grad():
        module.project.weight.copy_(torch.tensor([[1.0, 0, 10, 0], [0, 1, 0, 100]]))
        module.project.bias.copy_(torch.tensor([0.5, 0.0]))
    assert module(x_v, x_a).flatten().tolist() == [31.5, 402.0]


def test_cross_attention_equals_torchs_own_attention():
    module = CrossAttentionFusion(DIM, heads=4)
    oracle = nn.MultiheadAttention(DIM, 4, batch_first=True)
    oracle.load_state_dict(
        {
            "in_proj_weight": torch.cat([module.query.weight, module.key_value.weight]),
            "in_proj_bias": torch.cat([module.query.bias, module.key_value.bias]),
            "out_proj.weight": module.out.weight,
            "out_proj.bias": module.out.bias,
        }
    )
    x_v, x_a, lengths = batch([7, 3])
    mask = length_mask(lengths, 7)
    keys = module.norm_audio(x_a)
    heard, _ = oracle(module.norm_video(x_v), keys, keys, key_padding_mask=~mask)
    expected = x_v + heard
    expected = expected + module.ffn(module.norm_ffn(expected))
    ours = module(x_v, x_a, mask)
    torch.testing.assert_close(ours[mask], expected[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["adaptive", "add", "cross_attention"])
def test_a_video_without_sound_stays_exactly_what_was_seen(kind):
    module = fusion(kind)
    x_v, x_a, lengths = batch([6, 6])
    mask = length_mask(lengths, 6)
    audio_mask = torch.tensor([[False] * 6, [True] * 6])
    out = module(x_v, x_a, mask, audio_mask)
    assert torch.equal(out[0], x_v[0])
    assert not torch.allclose(out[1], x_v[1])


@pytest.mark.parametrize("kind", ["adaptive", "add"])
def test_single_snippets_without_sound_stay_too(kind):
    x_v, x_a, _ = batch([6])
    audio_mask = torch.tensor([[True, True, False, True, False, True]])
    out = fusion(kind)(x_v, x_a, None, audio_mask)
    same = (out == x_v).all(dim=-1)
    assert same.tolist() == (~audio_mask).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_contents_of_missing_sound_never_matter(kind):
    module = fusion(kind)
    x_v, x_a, lengths = batch([8, 5])
    mask = length_mask(lengths, 8)
    audio_mask = mask.clone()
    audio_mask[0, 2:5] = False
    before = module(x_v, x_a, mask, audio_mask)
    x_a = x_a.masked_fill(~audio_mask[..., None], 50.0)
    torch.testing.assert_close(module(x_v, x_a, mask, audio_mask), before)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_reaches_no_valid_snippet(kind):
    module = fusion(kind)
    lengths = [8, 5, 1]
    x_v, x_a, lengths_t = batch(lengths)
    near = module(x_v, x_a, length_mask(lengths_t, 8))
    x_v, x_a, _ = batch(lengths, snippets=20)
    mask = length_mask(lengths_t, 20)
    x_v, x_a = (x.masked_fill(~mask[..., None], 9.0) for x in (x_v, x_a))
    far = module(x_v, x_a, mask)
    torch.testing.assert_close(far[:, :8], near, atol=2e-6, rtol=1e-5)
    assert not far[~mask].any()


@pytest.mark.parametrize("kind", KINDS)
def test_without_masks_every_row_counts(kind):
    x_v, x_a, lengths = batch([6, 6])
    everything = torch.ones(2, 6, dtype=torch.bool)
    module = fusion(kind)
    torch.testing.assert_close(
        module(x_v, x_a), module(x_v, x_a, everything, everything), atol=1e-6, rtol=1e-5
    )
