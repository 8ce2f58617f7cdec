"""Textual and audio-visual prompts, and the alignment map."""

import contextlib
import math

import pytest
import torch
from tiny_models import DIM, WORDS, text_tower
from torch import nn

from avadclip_lite.config import XD_CLASSES
from avadclip_lite.encoders import WordPrompts, load_text
from avadclip_lite.prompts import (
    AudioVisualPrompt,
    TextualPrompt,
    alignment_map,
    global_vector,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def prompt(**choices) -> TextualPrompt:
    return TextualPrompt(text_tower(), WORDS, **choices)


def test_a_prompt_is_start_context_word_context_end():
    module = TextualPrompt(text_tower(), WORDS, before=2, after=3)
    token, context = module.tower.embed_tokens, module.context
    one_word = [token(0), *context[1:3], token(2), *context[4:7], token(1)]
    two_words = [token(0), *context[1:3], token(4), token(5), *context[5:8], token(1)]
    embedded = module.embed()
    assert embedded.shape == (4, 9, 8)  # only as long as the longest prompt
    torch.testing.assert_close(embedded[0, :8], torch.stack(one_word))
    torch.testing.assert_close(embedded[2], torch.stack(two_words))
    assert module.ends.tolist() == [7, 7, 8, 7]


def test_positions_beyond_the_end_do_not_matter():
    """The release computes all positions of the tower; 24 of them give the same."""
    module = prompt()
    assert module.tokens.shape[1] == 24
    embedded = module.embed()
    everything = torch.randn(4, 32, 8)  # anything at all behind the end
    for row, end in enumerate(module.ends.tolist()):
        everything[row, : end + 1] = embedded[row, : end + 1]
    torch.testing.assert_close(module(), module.tower(everything, module.ends))


def test_every_context_vector_in_reach_gets_a_gradient_and_the_tower_none():
    module = prompt()
    module().square().sum().backward()
    reached = module.context.grad.abs().sum(dim=1) > 0
    # 1..10, then 12..21 behind one word or 13..22 behind two
    assert reached.nonzero().flatten().tolist() == [*range(1, 11), *range(12, 23)]
    assert all(p.grad is None and not p.requires_grad for p in module.tower.parameters())


def test_no_context_means_plain_class_words():
    module = prompt(before=0, after=0)
    assert module.context is None and not list(p for p in module.parameters() if p.requires_grad)
    plain = torch.tensor([[0, 2, 1], [0, 3, 1], [0, 6, 1]])
    expected = module.tower(module.tower.embed_tokens(plain), torch.tensor([2, 2, 2]))
    torch.testing.assert_close(module()[[0, 1, 3]], expected)


def test_a_prompt_longer_than_the_tower_is_refused():
    with pytest.raises(ValueError, match="42 tokens does not fit the text tower's 32 positions"):
        prompt(before=19, after=19)


def test_the_tower_stays_in_eval_mode():
    module = prompt().train()
    assert module.training and not module.tower.training
    assert not any(m.training for m in module.tower.modules())


def counted(module: TextualPrompt) -> list[int]:
    calls: list[int] = []
    module.tower.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_training_after_inference_in_bf16_still_gets_gradients():
    module = prompt()
    for mode in (torch.inference_mode, contextlib.nullcontext):
        with mode(), torch.autocast("cpu", torch.bfloat16):
            features = module()
    features.float().sum().backward()
    assert module.context.grad is not None


def test_a_tower_that_is_loaded_anew_is_cast_anew():
    module, other = prompt(), prompt()
    with torch.no_grad():
        other.tower.text_projection.mul_(2)
    with torch.autocast("cpu", torch.bfloat16):
        before = module()
        module.load_state_dict(other.state_dict())
        assert not torch.equal(module(), before)


def test_weights_without_the_tower_leave_its_casts_in_place():
    """As best weights that are loaded back: a captured step goes on reading where the casts are."""
    module = prompt()
    with torch.autocast("cpu", torch.bfloat16):
        module()
        places = {name: cast.data_ptr() for name, cast in module._cast.items()}
        state = nn.ModuleDict({"textual_prompt": module}).state_dict()
        learned = {k: v for k, v in state.items() if ".tower." not in k}
        nn.ModuleDict({"textual_prompt": module}).load_state_dict(learned, strict=False)
        assert places and places == {k: cast.data_ptr() for k, cast in module._cast.items()}


def test_training_after_inference_still_gets_gradients():
    module = prompt()
    with torch.inference_mode():
        module()
    module().sum().backward()
    assert module.context.grad is not None
    module.context.requires_grad_(False)  # a frozen prompt inside a training model
    with torch.inference_mode():
        module()
    weight = nn.Parameter(torch.ones(DIM))
    (module() * weight).sum().backward()
    assert weight.grad is not None


def test_global_vector_by_hand():
    features = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]])
    weights = torch.tensor([[1.5, 1.0, 0.0]])
    # 1.5 (1, 0) + 1 (0, 2) = (1.5, 2), of length 2.5
    assert global_vector(features, weights)[0].tolist() == pytest.approx([0.6, 0.8])


def silent(module: AudioVisualPrompt) -> AudioVisualPrompt:
    """With the feed-forward network at zero only the skip connection is left."""
    for parameter in module.ffn.parameters():
        nn.init.zeros_(parameter)
    return module


def test_audio_visual_prompt_by_hand():
    x_c = torch.tensor([[2.0, 0.0], [0.0, 3.0]])  # directions (1, 0) and (0, 1)
    x_p = torch.tensor([[0.6, 0.8]])
    a, b = math.exp(0.6), math.exp(0.8)
    share = [a / (a + b), b / (a + b)]

    module = silent(AudioVisualPrompt(2, skip="sum"))
    assert module.similarity(x_c, x_p)[0].tolist() == pytest.approx(share)
    expected = [2 + share[0] * 0.6, share[0] * 0.8, share[1] * 0.6, 3 + share[1] * 0.8]
    assert module(x_c, x_p).flatten().tolist() == pytest.approx(expected)

    module = silent(AudioVisualPrompt(2, skip="class"))
    assert module(x_c, x_p).flatten().tolist() == [2.0, 0.0, 0.0, 3.0]

    module = silent(AudioVisualPrompt(2, weights="uniform", skip="sum"))
    assert module(x_c, x_p).flatten().tolist() == pytest.approx([2.6, 0.8, 0.6, 3.8])

    module = AudioVisualPrompt(2, temperature=0.1)
    a, b = math.exp(6), math.exp(8)
    assert module.similarity(x_c, x_p)[0].tolist() == pytest.approx([a / (a + b), b / (a + b)])


def test_audio_visual_prompt_equals_a_loop_over_videos_and_classes():
    module = AudioVisualPrompt(DIM)
    x_c, x_p = torch.randn(5, DIM), torch.nn.functional.normalize(torch.randn(3, DIM), dim=1)
    ours = module(x_c, x_p)
    for video in range(3):
        cosine = torch.stack([c @ x_p[video] / c.norm() for c in x_c])
        share = cosine.exp() / cosine.exp().sum()  # over the classes of one video
        assert float(share.sum()) == pytest.approx(1.0)
        for c in range(5):
            expected = module.ffn(share[c] * x_p[video] + x_c[c]) + x_c[c]
            torch.testing.assert_close(ours[video, c], expected, atol=1e-6, rtol=1e-5)


def test_alignment_map_by_hand():
    features = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    embeddings = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    expected = torch.tensor([[[0.6, 0.8], [0.0, 0.0]]]) / 0.07
    torch.testing.assert_close(alignment_map(features, embeddings), expected)
    warm = alignment_map(features, embeddings, temperature=1.0)
    torch.testing.assert_close(warm, expected * 0.07)


def test_prompts_of_classes_with_equal_words_are_equal():
    module = TextualPrompt(text_tower(), WordPrompts(ids=((2,), (3,), (2,)), start=0, end=1))
    out = module()
    torch.testing.assert_close(out[0], out[2])
    assert not torch.allclose(out[0], out[1])


def test_autocast_finds_the_frozen_weights_cast() -> None:
    """Bit for bit what autocast gives when it casts them itself, gradients included; in full
    precision the tower is the one that was given; the copy is no part of the state."""
    tower, prompts = load_text("soundstage", XD_CLASSES.words)
    prompt = TextualPrompt(tower, prompts, 2, 2)
    names, full = set(prompt.state_dict()), prompt()
    with torch.autocast("cpu", torch.bfloat16):
        once = prompt()
        again = prompt()
        expected = tower(prompt.embed(), prompt.ends)
    assert torch.equal(once, expected) and torch.equal(once, again)
    assert not torch.equal(once, full) and torch.equal(prompt(), full)
    grads = [
        torch.autograd.grad(x.float().square().sum(), prompt.context) for x in (once, expected)
    ]
    assert torch.equal(*(grad for (grad,) in grads))
    assert prompt._cast["text_projection"].dtype == torch.bfloat16
    assert tower.text_projection.dtype == torch.float32 and set(prompt.state_dict()) == names
