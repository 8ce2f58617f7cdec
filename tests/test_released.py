"""The release's checkpoints: exact agreement on excerpts of its recorded outputs, and refusals.

``fixtures/ref_models.npz`` and ``ref_losses.npz`` are excerpts of what the release computes with
the stand-in weights of ``reference_fill``: two videos of 37 and 5 snippets, and its losses alone.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from reference_fill import filled, release_shapes
from release_state import to_release_state
from tiny_models import WORDS, detector

from avadclip_lite import __main__ as command_line
from avadclip_lite import losses
from avadclip_lite.compare.release import load_student, load_teacher, release_key
from avadclip_lite.config import XD_CLASSES
from avadclip_lite.dataset import Batch
from avadclip_lite.encoders import TextTower
from avadclip_lite.train import load

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "ref_models.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, torch.Tensor]]:
    return {which: filled(release_shapes(which)) for which in ("teacher", "student")}


def padded(reference, name: str, snippets: int) -> torch.Tensor:
    """The two videos behind each other in the file, as a batch with zeros beyond their ends."""
    first, second = reference["lengths"].tolist()
    out = torch.zeros(2, snippets, 512)
    out[0, :first] = torch.from_numpy(reference[name][:first])
    out[1, :second] = torch.from_numpy(reference[name][first:])
    return out


@pytest.fixture(scope="module")
def outputs(reference, states):
    lengths = torch.from_numpy(reference["lengths"])
    video, audio = padded(reference, "video", 256), padded(reference, "audio", 256)
    teacher, student = load_teacher(states["teacher"]), load_student(states["student"])
    with torch.no_grad():
        return {
            "teacher": (teacher, teacher(Batch(video=video, audio=audio, lengths=lengths))),
            "student": (student, student(Batch(video=video, audio=audio, lengths=lengths))),
        }


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_outputs_equal_the_release(reference, outputs, which):
    _, out = outputs[which]
    rows = reference["rows"]
    found = {
        "anomaly_logits": out.anomaly_logits,  # all 256 rows, padding included
        "alignment_logits": out.alignment_logits,
        "features": out.features[:, rows],
        "class_embeddings": out.class_embeddings,
    }
    if which == "student":
        found["log_variance"] = out.log_variance[:, rows]
    for name, value in found.items():
        gap = np.abs(value.numpy() - reference[f"{which}.{name}"]).max()
        assert gap < 1e-5, f"{name} is {gap:.1e} away from the release"


def test_a_batch_that_is_not_filled_up_gives_the_same(reference, outputs):
    teacher, out = outputs["teacher"]
    lengths = torch.from_numpy(reference["lengths"])
    with torch.no_grad():
        video, audio = (padded(reference, name, 37) for name in ("video", "audio"))
        short = teacher(Batch(video=video, audio=audio, lengths=lengths))
    assert short.alignment_logits.shape == (2, 37, 7)
    torch.testing.assert_close(
        short.alignment_logits, out.alignment_logits[:, :37], atol=1e-5, rtol=1e-5
    )


def test_losses_and_their_gradients_equal_the_release():
    with np.load(FIXTURES / "ref_losses.npz", allow_pickle=False) as file:
        ref = {key: torch.from_numpy(file[key]) for key in file.files}
    logits1, logits2, alpha = (
        ref[key].clone().requires_grad_() for key in ("logits1", "logits2", "alpha")
    )
    labels, lengths = ref["multi_hot"], ref["lengths"]
    bce = losses.topk_bce(logits1.squeeze(-1), 1 - labels[:, 0], lengths)
    align = losses.mil_align(logits2, labels, lengths, alpha=alpha)
    clasm = (align.cross_entropy + align.focal) / 2
    assert bce.item() == pytest.approx(ref["CLAS2"].item(), rel=1e-5)
    assert clasm.item() == pytest.approx(ref["CLASM"].item(), rel=1e-5)
    (bce + clasm).backward()
    for value, key in ((logits1, "logits1"), (logits2, "logits2"), (alpha, "alpha")):
        expected = ref[f"grad_{key}"]
        assert (value.grad - expected).abs().max() <= 1e-4 * expected.abs().max(), key

    # The distillation was averaged over 256 rows, of which the excerpt holds six.
    theta, student = (ref[key].clone().requires_grad_() for key in ("theta", "student"))
    uc = losses.ukd(student, ref["teacher"], theta, kind="released")
    (uc * len(ref["ukd_rows"]) / 256).backward()
    for value, key in ((theta, "theta"), (student, "student")):
        expected = ref[f"grad_{key}"]
        assert (value.grad - expected).abs().max() <= 1e-4 * expected.abs().max(), key


def test_the_release_reads_back_what_we_write(states, outputs):
    for which, read in (("teacher", load_teacher), ("student", load_student)):
        model, out = outputs[which]
        clip = {k: v for k, v in states[which].items() if k.startswith("clipmodel.")}
        clip["clipmodel.visual.proj"] = torch.ones(3)  # whatever belongs to the image tower
        written = to_release_state(model, clip)
        own = {k: v for k, v in states[which].items() if k != "disAdj.sigma"}
        assert all(torch.equal(written[k], own[k]) for k in own)
        assert written["disAdj.sigma"].tolist() == pytest.approx([0.1])
        again = read(written)
        for key, value in model.trainable_state().items():
            assert torch.equal(again.trainable_state()[key], value), key
        extra = written.keys() - states[which].keys() - {"clipmodel.visual.proj"}
        aliases = {
            f"temporalconvnet.network.{n}.net.{place}.{part}"
            for n in range(3)
            for place in (0, 4)
            for part in ("bias", "weight_g", "weight_v")
        }
        assert extra == (aliases if which == "teacher" else set())


def test_aliases_and_the_image_tower_are_accepted_from_a_file(tmp_path, states, outputs):
    state = dict(states["teacher"])
    for key in [k for k in state if k.startswith("temporalconvnet.network.1.conv2.")]:
        state[key.replace("conv2", "net.4")] = state.pop(key)  # under its second name alone
    first = "temporalconvnet.network.0.conv1.bias"
    state[first.replace("conv1", "net.0")] = state[first]  # under both
    state["clipmodel.visual.proj"] = torch.zeros(768, 512)
    state["clipmodel.logit_scale"] = torch.tensor(4.6)
    torch.save(state, tmp_path / "model_t.pth")
    loaded = load_teacher(tmp_path / "model_t.pth").trainable_state()
    for key, value in outputs["teacher"][0].trainable_state().items():
        assert torch.equal(loaded[key], value), key


def test_a_loaded_detector_is_in_eval_mode_and_leaves_the_generator_alone(states):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    model = load_student(states["student"])
    assert torch.equal(torch.rand(1), expected)
    assert not model.training
    assert isinstance(model.textual_prompt.tower, TextTower)


CASES = {
    "missing": (lambda s: s.pop("gc1.weight"), "lacks gc1.weight"),
    "missing in the text tower": (
        lambda s: s.pop("clipmodel.transformer.resblocks.11.ln_2.bias"),
        r"clipmodel.\*, lacks transformer.resblocks.11.ln_2.bias",
    ),
    "a layer less in the text tower": (
        lambda s: [s.pop(k) for k in list(s) if ".resblocks.11." in k],
        r"clipmodel.\*, lacks transformer.resblocks.11.",
    ),
    "unexpected in the text tower": (
        lambda s: s.update({"clipmodel.bias": torch.zeros(1)}),
        "unknown key bias",
    ),
    "unexpected": (lambda s: s.update({"gc5.weight": torch.zeros(1)}), "unknown key gc5.weight"),
    "shape": (
        lambda s: s.update({"classifier.weight": torch.zeros(2, 512)}),
        r"classifier.weight has shape \(2, 512\), not \(1, 512\)",
    ),
    "shape in the text tower": (
        lambda s: s.update({"clipmodel.ln_final.weight": torch.zeros(8)}),
        r"ln_final.weight has shape \(8,\), not \(512,\)",
    ),
    "aliases that differ": (
        lambda s: s.update({"temporalconvnet.network.0.net.0.bias": torch.zeros(512)}),
        "two names of one tensor",
    ),
    "a student's key": (
        lambda s: s.update({"fe_net.conv.0.conv.0.bias": torch.zeros(512)}),
        "unknown key fe_net.conv.0.conv.0.bias",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_that_does_not_fit_is_refused_by_key(states, case):
    change, message = CASES[case]
    state = dict(states["teacher"])
    change(state)
    with pytest.raises(ValueError, match=message):
        load_teacher(state)


def test_files_that_are_no_state_dict_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pth does not exist"):
        load_teacher(tmp_path / "nothing.pth")
    (tmp_path / "noise.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="noise.pth is no checkpoint"):
        load_teacher(tmp_path / "noise.pth")
    torch.save({"epoch": 3, "model": {}}, tmp_path / "nested.pth")
    with pytest.raises(ValueError, match="nested.pth is not a bare state dict"):
        load_teacher(tmp_path / "nested.pth")

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="evil.pth is no checkpoint to be read safely"):
        load_teacher(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_what_the_release_does_not_have_cannot_be_written_in_its_format():
    def write(**choices):
        model = detector(**{"max_snippets": 256, **choices})
        return to_release_state(model, model.textual_prompt.tower.state_dict())

    with pytest.raises(ValueError, match="detector has the unknown key fusion.project"):
        write(fusion="concat")
    with pytest.raises(ValueError, match="this detector lacks fe_net.conv.1.conv.0.bias"):
        write(role="vision")
    model = detector(form="released", max_snippets=256)
    with pytest.raises(ValueError, match="text_projection is missing or not the one"):
        foreign = model.textual_prompt.tower.state_dict()
        to_release_state(model, foreign | {"text_projection": torch.zeros(8, 16)})
    written = write(form="paper", focal_alpha=0.3)
    assert written["alpha"].tolist() == pytest.approx([0.3] * len(WORDS.ids))


def test_our_names_and_the_releases():
    assert release_key("encoder.project.bias") == "linear.bias"
    assert release_key("encoder.transformer.blocks.1.qkv.weight") == (
        "temporal.resblocks.1.attn.in_proj_weight"
    )
    assert release_key("av_prompt.ffn.fc2.weight") == "mlp1.c_proj.weight"


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_a_checkpoint_becomes_a_run_folder(tmp_path, states, outputs, which, capsys):
    """What ``evaluate`` and ``score`` load is the released detector, its own text tower included,
    with nothing of CLIP on this machine; and nothing in the folder is a pickle."""
    torch.save(states[which], tmp_path / "model.pth")
    words = ["import-checkpoint", str(tmp_path / "model.pth"), "--out", str(tmp_path / "run")]
    assert command_line.main(words) == 0
    assert {"teacher": "audio_visual", "student": "vision"}[which] in capsys.readouterr().out
    found = load(tmp_path / "run")
    assert found.features_of == "clip" and found.classes == XD_CLASSES
    expected = outputs[which][0]
    assert found.settings == expected.settings
    theirs = found.state_dict()
    for key, value in expected.state_dict().items():
        assert torch.equal(theirs[key], value), key
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "text.safetensors", "weights.safetensors"}
    assert command_line.main(words) == 2
    assert "run is not empty; choose another folder" in capsys.readouterr().err
