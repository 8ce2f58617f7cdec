"""Windowed Transformer, graph convolution, temporal convolution, and their masks."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_models import DIM, batch
from torch import nn

from avadclip_lite.encoders import quick_gelu
from avadclip_lite.model import Enhancement, LogVarianceHead
from avadclip_lite.temporal import (
    GraphConvolution,
    TemporalConvNet,
    VideoEncoder,
    WindowBlock,
    WindowedTransformer,
    distance_adjacency,
    length_mask,
    similarity_adjacency,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def full_attention_block(block: WindowBlock, x: torch.Tensor, allowed: torch.Tensor):
    """The same block with torch's own attention over all T x T pairs; allowed (B, T, T)."""
    torch_attention = nn.MultiheadAttention(DIM, block.heads, batch_first=True)
    torch_attention.load_state_dict(
        {
            "in_proj_weight": block.qkv.weight,
            "in_proj_bias": block.qkv.bias,
            "out_proj.weight": block.out.weight,
            "out_proj.bias": block.out.bias,
        }
    )
    normed = F.layer_norm(x, (DIM,), block.norm_attention.weight, block.norm_attention.bias)
    forbidden = ~allowed.repeat_interleave(block.heads, dim=0)
    x = x + torch_attention(normed, normed, normed, attn_mask=forbidden, need_weights=False)[0]
    normed = F.layer_norm(x, (DIM,), block.norm_ffn.weight, block.norm_ffn.bias)
    wide = F.linear(normed, block.ffn.fc1.weight, block.ffn.fc1.bias)
    wide = wide * torch.sigmoid(1.702 * wide)
    return x + F.linear(wide, block.ffn.fc2.weight, block.ffn.fc2.bias)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("window", "snippets"), [(4, 16), (4, 10), (64, 7), (3, 1), (5, 5)])
@pytest.mark.parametrize("masked", [True, False])
def test_windows_equal_full_attention_behind_a_block_mask(heads, window, snippets, masked):
    transformer = WindowedTransformer(
        DIM, heads=heads, blocks=2, window=window, max_snippets=snippets
    )
    lengths = [snippets, max(1, snippets - 3), 1]
    x, _, lengths = batch(lengths, snippets=snippets)
    mask = length_mask(lengths, snippets)

    place = torch.arange(snippets) // window
    allowed = (place[:, None] == place[None]).expand(3, -1, -1)
    if masked:  # rows without any allowed partner would be NaN; let padding see itself
        allowed = allowed & (mask[:, None, :] | ~mask[:, :, None])
    expected = x + transformer.positions[:snippets]
    for block in transformer.blocks:
        expected = full_attention_block(block, expected, allowed)
    if masked:
        expected = expected * mask[..., None]

    ours = transformer(x, mask if masked else None)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_a_snippet_reaches_its_own_window_and_no_other():
    transformer = WindowedTransformer(DIM, window=4, blocks=2)
    x, _, _ = batch([12])
    before = transformer(x)
    x[0, 5, 0] += 1.0
    changed = (transformer(x) - before).abs().amax(dim=-1)[0] > 1e-6
    assert changed.tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_more_snippets_than_positions_are_refused_with_both_numbers():
    transformer = WindowedTransformer(DIM, max_snippets=8)
    with pytest.raises(ValueError, match="9 snippets.*table holds 8"):
        transformer(torch.zeros(1, 9, DIM))


def test_similarity_adjacency_by_hand():
    # Snippets 0 and 1 point the same way (cosine 1), 2 is at a right angle (0, cut), 3 is padding.
    x = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [1.0, 0.0]]])
    mask = torch.tensor([[True, True, True, False]])
    e = math.e
    alike, alone = 2 * e + 1, 2 + e
    expected = torch.tensor(
        [
            [e / alike, e / alike, 1 / alike, 0],
            [e / alike, e / alike, 1 / alike, 0],
            [1 / alone, 1 / alone, e / alone, 0],
            [0, 0, 0, 0],
        ]
    )
    torch.testing.assert_close(similarity_adjacency(x, mask, 0.7)[0], expected)


def test_similarity_exactly_at_the_threshold_is_cut():
    x = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])  # cosine 0.6
    mask = torch.ones(1, 2, dtype=torch.bool)
    cosine = float(F.cosine_similarity(x[0, 0], x[0, 1], dim=0))
    torch.testing.assert_close(
        similarity_adjacency(x, mask, cosine)[0, 0], torch.tensor([math.e, 1.0]) / (math.e + 1)
    )
    kept = similarity_adjacency(x, mask, 0.59)[0, 0, 1]
    assert float(kept) == pytest.approx(math.exp(0.6) / (math.exp(0.6) + math.e), rel=1e-6)


def test_similarity_adjacency_equals_a_loop_over_videos_and_pairs():
    x, _, lengths = batch([6, 3, 1])
    ours = similarity_adjacency(x, length_mask(lengths, 6), 0.7)
    for video, n in enumerate(lengths.tolist()):
        for i in range(6):
            row = []
            for j in range(n):
                a, b = x[video, i].double(), x[video, j].double()
                cosine = float(a @ b / (a.norm() * b.norm() + 1e-20))
                row.append(math.exp(cosine if cosine > 0.7 else 0.0))
            expected = [v / sum(row) if i < n else 0.0 for v in row] + [0.0] * (6 - n)
            assert ours[video, i].tolist() == pytest.approx(expected, abs=1e-6)


def test_distance_adjacency_by_hand():
    one, two = math.exp(-1 / math.e), math.exp(-2 / math.e)
    expected = torch.tensor([[1, one, two], [one, 1, one], [two, one, 1]])
    torch.testing.assert_close(distance_adjacency(3), expected)


@pytest.mark.parametrize("width", [4, 8])
def test_graph_convolution_equals_a_loop_over_snippets(width):
    layer = GraphConvolution(8, width)
    x = torch.randn(1, 5, 8)
    adjacency = torch.rand(1, 5, 5)
    ours = layer(x, adjacency)[0]
    padded = F.pad(x[0], (0, 0, 2, 2))
    for i in range(5):
        mixed = sum(adjacency[0, i, j] * (x[0, j] @ layer.weight) for j in range(5))
        if width == 8:
            residual = x[0, i]
        else:
            taps = layer.residual.weight  # (K, D, 5)
            residual = sum(taps[:, :, k] @ padded[i + k] for k in range(5)) + layer.residual.bias
        summed = mixed + residual
        torch.testing.assert_close(ours[i], summed * torch.sigmoid(1.702 * summed))


def test_temporal_conv_net_equals_a_loop_over_snippets():
    net = TemporalConvNet(DIM, dilations=(1, 3), dropout=0.5).eval()
    x, _, _ = batch([9])
    state = net.state_dict()

    def convolve(rows, name, dilation):
        g = state[f"{name}.parametrizations.weight.original0"]
        v = state[f"{name}.parametrizations.weight.original1"]
        weight = g * v / v.flatten(1).norm(dim=1)[:, None, None]
        out = []
        for t in range(len(rows)):
            earlier = rows[t - dilation] if t >= dilation else torch.zeros(DIM)
            total = weight[:, :, 0] @ earlier + weight[:, :, 1] @ rows[t] + state[f"{name}.bias"]
            out.append(torch.relu(total))
        return out

    rows = list(x[0])
    for level, dilation in enumerate((1, 3)):
        out = convolve(rows, f"blocks.{level}.conv1", dilation)
        out = convolve(out, f"blocks.{level}.conv2", dilation)
        rows = [torch.relu(a + b) for a, b in zip(out, rows, strict=True)]
    torch.testing.assert_close(net(x)[0], torch.stack(rows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("context", "back", "ahead"), [("causal", 14, 0), ("both", 7, 7)])
def test_how_far_the_temporal_conv_net_reaches(context, back, ahead):
    net = TemporalConvNet(DIM, context=context).eval()
    for block in net.blocks:  # all ReLUs open, so that every path is alive
        nn.init.constant_(block.conv1.bias, 5.0)
        nn.init.constant_(block.conv2.bias, 5.0)
    x = torch.zeros(1, 32, DIM)
    before = net(x)
    x[0, 8] += 1.0
    changed = ((net(x) - before).abs().amax(dim=-1)[0] > 0).nonzero().flatten().tolist()
    # what is heard in snippet 8 is known to the snippets whose look back, or ahead, meets it
    assert changed == list(range(8 - ahead, 8 + back + 1))


def test_looking_both_ways_is_looking_back_then_ahead():
    net = TemporalConvNet(DIM, dilations=(2,), context="both").eval()
    x, _, _ = batch([9])
    (block,) = net.blocks
    hidden = torch.relu(
        F.conv1d(F.pad(x.mT, (2, 0)), block.conv1.weight, block.conv1.bias, dilation=2)
    )
    # looking ahead is looking back in a video that runs backwards
    turned = block.conv2.weight.flip(-1)
    ahead = F.conv1d(F.pad(hidden.flip(-1), (2, 0)), turned, block.conv2.bias, dilation=2).flip(-1)
    torch.testing.assert_close(
        net(x), torch.relu(torch.relu(ahead) + x.mT).mT, atol=1e-6, rtol=1e-5
    )


def test_enhancement_by_hand():
    module = Enhancement(1, blocks=2)
    for conv in module.convs:
        nn.init.ones_(conv.weight)
        nn.init.zeros_(conv.bias)
    x = torch.tensor([[[1.0], [2.0], [-4.0]]])
    # z + ReLU(sum of the three neighbours), twice:
    # [1+3, 2+0, -4+0] = [4, 2, -4]; [4+6, 2+2, -4+0] = [10, 4, -4]
    assert module(x).flatten().tolist() == [10.0, 4.0, -4.0]
    assert Enhancement(1, blocks=0)(x).flatten().tolist() == [1.0, 2.0, -4.0]


def test_log_variance_head_by_hand():
    y = torch.tensor([[[1.0], [2.0], [-4.0]]])
    for bounded, expected in ((True, [-6.5, -7.5, 0.5]), (False, [5.5, 5.5, 3.5])):
        head = LogVarianceHead(1, bounded=bounded)
        for conv, weight, bias in ((head.first, 1, 0), (head.middle, 1, 0), (head.last, 2, -0.5)):
            nn.init.constant_(conv.weight, weight)
            nn.init.constant_(conv.bias, bias)
        # ReLU(y) = [1, 2, 0]; middle [3, 3, 2]; last 2h - 0.5 = [5.5, 5.5, 3.5];
        # bounded: -(y + ReLU(last)) = [-6.5, -7.5, 0.5]
        assert head(y).flatten().tolist() == pytest.approx(expected)


def test_bounded_log_variance_never_exceeds_minus_y():
    y, _, _ = batch([20])
    assert bool((LogVarianceHead(DIM, bounded=True)(y) <= -y).all())
    assert bool((LogVarianceHead(DIM, bounded=False)(y) > -y).any())


MODULES = {
    "encoder": lambda: VideoEncoder(DIM, window=4),
    "encoder, window over all": lambda: VideoEncoder(DIM, window=64, blocks=1, heads=2),
    "transformer": lambda: WindowedTransformer(DIM, window=4),
    "tcn": lambda: TemporalConvNet(DIM).eval(),
    "tcn, both ways": lambda: TemporalConvNet(DIM, context="both").eval(),
    "enhancement": lambda: Enhancement(DIM, blocks=3),
    "log variance, free": lambda: LogVarianceHead(DIM),
    "log variance, bounded": lambda: LogVarianceHead(DIM, bounded=True),
}


def run(module, x, lengths):
    """Output and gradients (of the input, of all weights) of a loss over valid snippets."""
    x = x.clone().requires_grad_()
    mask = length_mask(lengths, x.shape[1])
    out = module(x, mask)
    weight = torch.linspace(-1.0, 1.0, DIM)  # not constant, so that no gradient cancels
    module.zero_grad()
    ((out * weight).masked_fill(~mask[..., None], 0.0).tanh()).sum().backward()
    return out, x.grad, {k: p.grad for k, p in module.named_parameters()}


@pytest.mark.parametrize("kind", MODULES)
def test_padding_reaches_no_valid_snippet(kind):
    module = MODULES[kind]()
    lengths = [9, 4, 1, 13]
    x, _, lengths_t = batch(lengths)
    out, grad, grads = run(module, x, lengths_t)

    far, _, _ = batch(lengths, snippets=29)
    noisy = x.clone()
    noisy[~length_mask(lengths_t, 13)] = 100.0
    broken = x.clone()
    broken[~length_mask(lengths_t, 13)] = torch.nan
    for other in (far, noisy, broken):
        out2, grad2, grads2 = run(module, other, lengths_t)
        for video, n in enumerate(lengths):
            torch.testing.assert_close(out2[video, :n], out[video, :n], atol=2e-6, rtol=1e-5)
            torch.testing.assert_close(grad2[video, :n], grad[video, :n], atol=2e-6, rtol=1e-5)
            assert not grad2[video, n:].any(), "padding receives a gradient"
            assert not out2[video, n:].any(), "padding rows must come back zero"
        for name, value in grads.items():
            torch.testing.assert_close(grads2[name], value, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", MODULES)
def test_a_video_alone_equals_the_video_in_a_batch(kind):
    module = MODULES[kind]()
    lengths = [1, 7, 13]
    x, _, lengths_t = batch(lengths)
    together = module(x, length_mask(lengths_t, 13))
    for video, n in enumerate(lengths):
        alone = module(x[video : video + 1, :n], torch.ones(1, n, dtype=torch.bool))
        torch.testing.assert_close(together[video, :n], alone[0], atol=2e-6, rtol=1e-5)


def test_leaking_padding_leaks_as_in_the_release():
    encoder = VideoEncoder(DIM, padding="leaking")
    x, _, lengths = batch([5, 12])
    mask = length_mask(lengths, 12)
    before = encoder(x, mask)
    x[0, 5:] = 3.0
    assert not torch.allclose(encoder(x, mask)[0, :5], before[0, :5], atol=1e-3)


@pytest.mark.parametrize("snippets", [1, 2, 3, 63, 255, 256])
def test_lengths_from_one_snippet_to_the_whole_table(snippets):
    encoder = VideoEncoder(DIM, window=64)
    x, _, lengths = batch([snippets, 1], snippets=snippets)
    out = encoder(x, length_mask(lengths, snippets))
    assert out.shape == (2, snippets, DIM) and bool(out.isfinite().all())


def test_quick_gelu_by_hand():
    expected = [-1 / (1 + math.exp(1.702)), 0.0, 2 / (1 + math.exp(-3.404))]
    assert quick_gelu(torch.tensor([-1.0, 0.0, 2.0])).tolist() == pytest.approx(expected, rel=1e-6)
