"""The frozen encoders against open_clip, the wav2clip package and torchaudio."""

import urllib.error
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import save_file
from wav2clip.model.encoder import MLPLayers, ResNetExtractor

from avadclip_lite import encoders as enc
from avadclip_lite.config import SAMPLE_RATE, XD_CLASSES
from data.make_soundstage.encoders import save_soundstage


def waves(n: int, samples: int = 10_667, seed: int = 0) -> np.ndarray:
    """Noise whose loudness differs from row to row."""
    rng = np.random.default_rng(seed)
    loudness = 10.0 ** -np.arange(n)[:, None]
    return (rng.standard_normal((n, samples)) * loudness).astype(np.float32)


@pytest.fixture(scope="module")
def real_clip():
    """The real architecture, random weights, with biases and norms moved off their start."""
    torch.manual_seed(1)
    model = open_clip.create_model(enc.CLIP_MODEL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def random_encoders():
    return enc.load_encoders("clip", weights="random")


SMALL_CLIP = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 64, "patch_size": 56},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 8, "layers": 1},
}


def small_clip() -> open_clip.CLIP:
    """Stands in for ViT-B/16 where only the way of the weights is tested."""
    torch.manual_seed(2)
    return open_clip.CLIP(**SMALL_CLIP).eval()


# ---- text ----------------------------------------------------------------------------------------


def test_class_tokens_are_open_clips():
    tokenizer = SimpleTokenizer()
    assert set(enc.CLASS_TOKENS) == set(XD_CLASSES.words)
    for word, ids in enc.CLASS_TOKENS.items():
        assert list(ids) == tokenizer.encode(word)
    assert (enc.START_TOKEN, enc.END_TOKEN) == (tokenizer.sot_token_id, tokenizer.eot_token_id)


def test_tower_equals_open_clip_whole_and_cut(real_clip):
    tower = enc.TextTower.from_state_dict(real_clip.state_dict(), heads=8)
    texts = ["normal", "car accident", "a man throws a bottle at a parked car by night"]
    ids = open_clip.get_tokenizer(enc.CLIP_MODEL)(texts)
    end = ids.argmax(1)
    with torch.no_grad():
        expected = real_clip.encode_text(ids)
        whole = tower(tower.embed_tokens(ids), end)
        cut = tower(tower.embed_tokens(ids[:, : int(end.max()) + 1]), end)
    assert expected.std() > 0.1  # something to compare
    torch.testing.assert_close(whole, expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(cut, expected, atol=2e-5, rtol=2e-5)


def test_tower_reads_prefixed_keys_and_names_a_missing_one():
    torch.manual_seed(0)
    text = {"context_length": 9, "vocab_size": 20, "width": 32, "heads": 4, "layers": 2}
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=True).eval()
    state = {f"clipmodel.{k}": 3 * v for k, v in model.state_dict().items()}  # far from linear
    model.load_state_dict({k.removeprefix("clipmodel."): v for k, v in state.items()})
    ids = torch.tensor([[1, 4, 7, 19, 0, 0, 0, 0, 0]])
    tower = enc.TextTower.from_state_dict(state, heads=4, prefix="clipmodel.")
    out = tower(tower.embed_tokens(ids), torch.tensor([3]))
    torch.testing.assert_close(out, model.encode_text(ids).detach(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="no text tower: 'text_projection' under 'clipmodel.'"):
        del state["clipmodel.text_projection"]
        enc.TextTower.from_state_dict(state, heads=4, prefix="clipmodel.")


def test_nothing_behind_the_end_mark_matters_and_everything_before_does():
    tower, _ = random_text()
    torch.manual_seed(0)
    x = torch.randn(1, 12, tower.width)
    end = torch.tensor([7])
    base = tower(x, end)
    for position in range(12):
        changed = x.clone()
        changed[0, position] += torch.randn(tower.width)
        moved = (tower(changed, end) - base).abs().max()
        assert moved > 1e-4 if position <= 7 else moved < 1e-6, position


def random_text(words=XD_CLASSES.words, **options):
    with pytest.warns(UserWarning, match="random weights"):
        return enc.load_text("random", words, **options)


def test_tower_is_frozen_but_lets_gradients_through():
    tower, _ = random_text()
    assert not any(p.requires_grad for p in tower.parameters())
    tower.train()
    assert not any(m.training for m in tower.modules())
    torch.nn.Sequential(tower).train()
    assert not any(m.training for m in tower.modules())
    x = torch.randn(2, 5, tower.width, requires_grad=True)
    tower(x, torch.tensor([4, 2])).sum().backward()
    assert (x.grad[0].abs().sum(1) > 0).all()
    assert (x.grad[1, :3].abs().sum(1) > 0).all() and (x.grad[1, 3:] == 0).all()


def test_random_text_has_clips_shape_and_is_the_same_each_time():
    tower, prompts = random_text()
    again, _ = random_text()
    assert (tower.width, tower.positions, tower.dim) == (512, 77, 512)
    assert len(tower.transformer["resblocks"]) == 12
    assert prompts.ids == tuple(enc.CLASS_TOKENS[w] for w in XD_CLASSES.words)
    for a, b in zip(tower.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    features = [
        again(again.embed_tokens([[prompts.start, *i, prompts.end]]), torch.tensor([len(i) + 1]))
        for i in prompts.ids
    ]
    cosine = torch.corrcoef(torch.cat(features))
    assert cosine.fill_diagonal_(0).max() < 0.99  # the words are told apart
    assert random_text(dim=24)[0].dim == 24


def test_tower_refuses_what_it_does_not_know():
    tower, _ = random_text()
    with pytest.raises(ValueError, match="no row for token id 320"):
        tower.embed_tokens([enc.START_TOKEN, 320, enc.END_TOKEN])
    with pytest.raises(ValueError, match="78 positions is longer than the tower's 77"):
        tower(torch.zeros(1, 78, 512), torch.tensor([77]))
    with pytest.raises(ValueError, match="got 'clap'"):
        enc.load_text("clap", ["normal"])
    with pytest.raises(ValueError, match="rising order"):
        enc.TextTower(width=8, heads=2, layers=1, positions=4, dim=4, vocabulary=[5, 3])


# ---- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(224, 224), (64, 64), (360, 640), (501, 333), (64, 91)])
def test_pixels_are_open_clips(height, width):
    rng = np.random.default_rng(height)
    frames = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    transform = image_transform(224, is_train=False)
    expected = torch.stack([transform(Image.fromarray(f)) for f in frames])
    torch.testing.assert_close(enc.clip_pixels(frames, 224), expected, atol=1e-6, rtol=1e-6)


def test_pixels_refuse_floats_and_channels_first():
    with pytest.raises(ValueError, match="float64"):
        enc.clip_pixels(np.zeros((1, 8, 8, 3)), 8)
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\)"):
        enc.clip_pixels(np.zeros((1, 3, 8, 8), np.uint8), 8)


def test_images_go_through_the_real_image_tower(random_encoders):
    frames = np.random.default_rng(0).integers(0, 256, (2, 90, 120, 3), dtype=np.uint8)
    got = random_encoders.encode_images(frames)
    torch.manual_seed(0)
    model = open_clip.create_model(enc.CLIP_MODEL).eval()
    transform = image_transform(224, is_train=False)
    with torch.no_grad():
        expected = model.encode_image(torch.stack([transform(Image.fromarray(f)) for f in frames]))
    assert got.shape == (2, 512) and got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)  # raw, not normalised


# ---- audio ---------------------------------------------------------------------------------------


def package_wav2clip(tower) -> ResNetExtractor:
    """The package's own forward with our weights."""
    own = ResNetExtractor(scenario="frozen")
    own.encoder.load_state_dict(tower.extractor.encoder.state_dict())
    own.transform = MLPLayers()
    own.transform.load_state_dict(tower.extractor.transform.state_dict())
    return own.eval()


def test_wav2clip_is_the_package_one_snippet_at_a_time(random_encoders):
    """Alone, a snippet gets the package's feature. In company the package's feature changes;
    ours does not."""
    package = package_wav2clip(random_encoders.audio)
    sound = waves(3)
    ours = random_encoders.encode_audio(sound)
    with torch.no_grad():
        alone = torch.cat([package(torch.from_numpy(w)[None]) for w in sound])
        together = package(torch.from_numpy(sound))
    scale = alone.abs().mean()
    assert (ours - alone).abs().max() < 1e-4 * scale
    assert (together - alone).abs().max() > 0.1 * scale


@pytest.mark.parametrize("which", ["clip", "soundstage"])
def test_a_feature_does_not_depend_on_its_company(which, random_encoders):
    trio = random_encoders if which == "clip" else enc.load_encoders(which, weights="random")
    sound = waves(3)
    frames = np.random.default_rng(3).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    for encode, x in ((trio.encode_audio, sound), (trio.encode_images, frames)):
        whole = encode(x)
        single = torch.cat([encode(x[i : i + 1]) for i in range(3)])
        assert (whole - single).abs().max() < 1e-4 * whole.abs().mean()
    expected = trio.encode_audio(sound)
    by_two = replace(trio, batch_size=2)
    torch.testing.assert_close(by_two.encode_audio(sound), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("which", ["clip", "soundstage"])
def test_short_sound_is_padded_behind_with_zeros(which, random_encoders):
    trio = random_encoders if which == "clip" else enc.load_encoders(which, weights="random")
    short = waves(1, samples=200)
    padded = np.pad(short, ((0, 0), (0, enc.MIN_SAMPLES - 200)))
    assert torch.equal(trio.encode_audio(short), trio.encode_audio(padded))
    assert torch.isfinite(trio.encode_audio(np.zeros((2, 10_667), np.float32))).all()
    assert trio.encode_audio(np.zeros((0, 10_667), np.float32)).shape == (0, trio.dim)


def test_the_package_fails_on_sound_that_we_pad(random_encoders):
    package = package_wav2clip(random_encoders.audio)
    with pytest.raises(RuntimeError):
        package(torch.zeros(1, 200))


def test_sound_must_be_float_and_two_dimensional(random_encoders):
    for bad in (np.zeros(100, np.float32), np.zeros((1, 100), np.int16)):
        with pytest.raises(ValueError, match="floating-point of shape"):
            random_encoders.encode_audio(bad)


def test_the_tiny_spectrogram_finds_a_tone():
    tower = enc.AudioTower()
    t = np.arange(8000) / SAMPLE_RATE
    mel = tower.log_mel(torch.from_numpy(np.sin(2 * np.pi * 1000 * t)[None].astype(np.float32)))
    band = int(mel[0].mean(1).argmax())
    # HTK: mel(40) = 62.2, mel(8000) = 2840.0, mel(1000) = 1000.0; 49 steps of 56.7 mel
    assert band == round((1000.0 - 62.2) / 56.7) - 1
    # louder by a factor of ten is higher by ln 100 everywhere: no statistics of the input
    noise = torch.from_numpy(waves(1))
    difference = tower.log_mel(10 * noise) - tower.log_mel(noise)
    torch.testing.assert_close(
        difference, torch.full_like(difference, np.log(100)), atol=1e-3, rtol=0
    )


# ---- the interface and its files -----------------------------------------------------------------


@pytest.mark.parametrize("which, dim", [("clip", 512), ("soundstage", 64)])
def test_random_encoders_have_the_real_shapes_and_are_frozen(which, dim, random_encoders):
    trio = random_encoders if which == "clip" else enc.load_encoders(which, weights="random")
    assert (trio.name, trio.dim) == (which, dim)
    for tower in (trio.image, trio.audio, trio.text):
        assert not any(p.requires_grad for p in tower.parameters())
        assert not any(m.training for m in tower.modules())
    features = trio.encode_text(["riot", "car accident"])
    assert features.shape == (2, dim) and not features.requires_grad
    # cut after the end mark of the longest: the shorter prompt does not notice
    torch.testing.assert_close(features[:1], trio.encode_text(["riot"]), atol=1e-5, rtol=1e-5)


def test_the_tiny_features_have_root_mean_square_one():
    trio = enc.load_encoders("soundstage", weights="random")
    frames = np.random.default_rng(5).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    for features in (trio.encode_images(frames), trio.encode_audio(waves(4))):
        rms = features.square().mean(1).sqrt()
        torch.testing.assert_close(rms, torch.ones(4), atol=1e-5, rtol=0)


def test_the_tiny_text_tower_names_the_word_it_has_never_read():
    trio = enc.load_encoders("soundstage", weights="random")
    with pytest.raises(ValueError, match="never read 'zebra'"):
        trio.encode_text(["riot zebra"])


def test_missing_weights_say_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    monkeypatch.setenv("AVADCLIP_WEIGHTS", str(tmp_path / "w"))
    with pytest.raises(FileNotFoundError) as error:
        enc.load_encoders("clip")
    for part in (enc.CLIP_URL, str(tmp_path / "w" / enc.CLIP_FILE), "no route to host"):
        assert part in str(error.value)
    with pytest.raises(FileNotFoundError, match="fetch https://huggingface.co/timm/"):
        enc.load_text("clip", XD_CLASSES.words)
    (tmp_path / enc.CLIP_FILE).touch()
    with pytest.raises(FileNotFoundError) as error:
        enc.load_encoders("clip", weights=tmp_path)
    assert enc.WAV2CLIP_URL in str(error.value)
    with pytest.raises(FileNotFoundError, match="make_soundstage"):
        enc.load_encoders("soundstage", weights=tmp_path / "nothing")


def test_a_broken_download_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(torch.hub, "urlopen", broken)
    monkeypatch.setenv("AVADCLIP_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="reset by peer"):
        enc.load_text("clip", ["riot"])
    assert list(tmp_path.iterdir()) == []


def test_weight_files_find_their_way(tmp_path, monkeypatch):
    """Both files in a folder."""
    model = small_clip()
    state = model.state_dict()
    save_file(state, tmp_path / enc.CLIP_FILE)
    torch.manual_seed(7)
    extractor = ResNetExtractor(scenario="supervise")
    head = MLPLayers()
    sound = {f"audio_encoder.{k}": v for k, v in extractor.encoder.state_dict().items()}
    sound |= {f"audio_transform.{k}": v for k, v in head.state_dict().items()}
    torch.save(sound | {"image_transform.w": torch.zeros(1)}, tmp_path / enc.WAV2CLIP_FILE)
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: SMALL_CLIP)
    read, files = enc._read_tensors, []
    monkeypatch.setattr(enc, "_read_tensors", lambda path: files.append(path.name) or read(path))
    trio = enc.load_encoders("clip", weights=tmp_path)
    assert files == [enc.CLIP_FILE, enc.WAV2CLIP_FILE]  # the first is 600 MB: once is enough

    frames = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    tokens = open_clip.tokenize(["a riot", "an explosion by night"])
    with torch.no_grad():
        image = model.encode_image(enc.clip_pixels(frames, 224))
        text = model.encode_text(tokens)
        package = ResNetExtractor(checkpoint=sound, scenario="frozen", transform=True)
        audio = package(torch.from_numpy(waves(1)))
    torch.testing.assert_close(trio.encode_images(frames), image, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        trio.encode_text(["a riot", "an explosion by night"]), text, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(trio.encode_audio(waves(1)), audio, atol=1e-4, rtol=1e-4)


def test_damaged_or_foreign_weight_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: SMALL_CLIP)
    save_file({"x": torch.zeros(1)}, tmp_path / enc.CLIP_FILE)
    (tmp_path / enc.WAV2CLIP_FILE).write_bytes(b"not a weight file")
    with pytest.raises(ValueError, match=f"{enc.CLIP_FILE}.* lacks .*another model"):
        enc.load_encoders("clip", weights=tmp_path)
    with pytest.raises(ValueError, match="holds? no text tower"):
        enc.load_text("clip", ["riot"], weights=tmp_path)
    save_file(small_clip().state_dict(), tmp_path / enc.CLIP_FILE)
    with pytest.raises(ValueError, match=f"{enc.WAV2CLIP_FILE} is not a readable weight file"):
        enc.load_encoders("clip", weights=tmp_path)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"audio_encoder.x": Evil()}, tmp_path / enc.WAV2CLIP_FILE)
    with pytest.raises(ValueError, match="not a readable weight file"):
        enc._read_tensors(tmp_path / enc.WAV2CLIP_FILE)
    assert not (tmp_path / "ran").exists()


def test_unknown_encoders_are_refused():
    with pytest.raises(ValueError, match="got 'imagebind'"):
        enc.load_encoders("imagebind")


def test_the_trio_comes_back_from_its_file(tmp_path):
    """As float16 with a part of the vocabulary; open_clip reads the same from its own towers."""
    torch.manual_seed(3)
    vocabulary = sorted({320, 539, enc.START_TOKEN, enc.END_TOKEN, *enc.CLASS_TOKENS["riot"]})
    clip = enc.soundstage_clip(len(vocabulary)).eval().to(memory_format=torch.channels_last)
    audio = enc.AudioTower().eval()
    with torch.no_grad():
        for part in (clip, audio):
            for tensor in part.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(tensor.half().float())  # what float16 can hold
        audio.mel_mean.fill_(-3.0)
    save_soundstage(tmp_path / enc.SOUNDSTAGE_FILE, clip, audio, vocabulary, {"seed": 3})
    trio = enc.load_encoders("soundstage", weights=tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    ids = [enc.START_TOKEN, 320, *enc.CLASS_TOKENS["riot"], enc.END_TOKEN]
    rows = torch.zeros(1, 32, dtype=torch.int64)
    rows[0, :4] = torch.tensor([vocabulary.index(i) for i in ids])
    with torch.no_grad():
        image = clip.encode_image(enc.clip_pixels(frames, 64), normalize=True) * 8
        sound = torch.nn.functional.normalize(audio(torch.from_numpy(waves(2))), dim=-1) * 8
        text = clip.encode_text(rows)
    torch.testing.assert_close(trio.encode_images(frames), image, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(trio.encode_audio(waves(2)), sound, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(trio.encode_text(["a riot"]), text, atol=1e-5, rtol=1e-4)
    tower, _ = enc.load_text("soundstage", ["riot"], dim=64, weights=tmp_path)
    own = tower(tower.embed_tokens([ids]), torch.tensor([3]))
    torch.testing.assert_close(own, text, atol=1e-5, rtol=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == [enc.SOUNDSTAGE_FILE]


def test_encoders_compute_in_full_float32():
    """Whatever torch's switches say: convolutions on a GPU are TF32 otherwise."""
    seen, switch = [], torch.backends.cudnn.conv
    before = switch.fp32_precision
    trio = enc.load_encoders("soundstage", weights="random")
    for tower in (trio.image, trio.audio, trio.text):
        tower.register_forward_hook(lambda *_: seen.append(switch.fp32_precision))
    trio.encode_images(np.zeros((1, 64, 64, 3), np.uint8))
    trio.encode_audio(waves(1))
    trio.encode_text(["riot"])
    assert seen == ["ieee"] * 3 and switch.fp32_precision == before
