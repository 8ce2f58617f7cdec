"""The package against the release's recorded numbers: largest deviation per reference file.

    python tests/benchmarks/check_reference.py FOLDER

FOLDER holds ``ref_teacher.npz``, ``ref_student.npz`` and ``ref_losses.npz``: inputs, outputs,
losses, gradients and three AdamW steps of the release with the stand-in weights of
``tests/reference_fill.py``. Prints one row per quantity and fails if any exceeds its tolerance:
outputs 1e-5 absolute, losses 1e-5 relative, gradients 1e-4 relative.

Gradients of a tensor are compared relative to its largest entry. A ``nan`` among the recorded
norms marks a parameter that the release never uses.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from reference_fill import filled, release_shapes  # noqa: E402

from avadclip_lite import losses  # noqa: E402
from avadclip_lite.compare.release import load_student, load_teacher, release_key  # noqa: E402
from avadclip_lite.dataset import Batch  # noqa: E402
from avadclip_lite.model import Detector, Output  # noqa: E402
from avadclip_lite.temporal import (  # noqa: E402
    distance_adjacency,
    length_mask,
    similarity_adjacency,
)

OUTPUTS, LOSSES, GRADIENTS = 1e-5, 1e-5, 1e-4
Row = tuple[str, str, float, float]


def absolute(ours: Tensor, theirs: np.ndarray) -> float:
    return float((ours.detach().reshape(theirs.shape) - torch.from_numpy(theirs)).abs().max())


def relative(ours: Tensor | float, theirs: np.ndarray | float) -> float:
    """Largest difference over the largest entry of the reference."""
    ours = np.asarray(ours.detach() if isinstance(ours, Tensor) else ours, dtype=np.float64)
    theirs = np.asarray(theirs, dtype=np.float64)
    return float(np.abs(ours.reshape(theirs.shape) - theirs).max() / np.abs(theirs).max())


def check_model(folder: Path, which: str) -> list[Row]:
    name = f"ref_{which}.npz"
    ref = np.load(folder / name, allow_pickle=False)
    state = filled(release_shapes(which))
    detector = (load_teacher if which == "teacher" else load_student)(state)
    lengths = torch.from_numpy(ref["lengths"])
    labels = torch.from_numpy(ref["multi_hot"])
    video = torch.from_numpy(ref["visual"])
    audio = torch.from_numpy(ref["audio"]) if which == "teacher" else None
    target = torch.from_numpy(ref["teacher_features"]) if which == "student" else None
    batch = Batch(video=video, audio=audio, lengths=lengths, labels=labels)

    rows = [*_intermediates(detector, ref, video, audio, lengths, name)]
    parameters = {release_key(k): p for k, p in detector.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(parameters.values(), lr=1e-5)
    columns = ["classification", "alignment", "contrast"]
    columns += ["ukd", "total"] if which == "student" else ["total"]
    for step, expected in enumerate(ref["loss_history"], start=1):
        out = replace(detector(batch), teacher_features=target)
        parts = detector.loss(out, batch)
        if step == 1:
            rows += _outputs(out, ref, name)
        gaps = [relative(parts[c], value) for c, value in zip(columns, expected, strict=True)]
        rows.append((name, f"losses of step {step}", max(gaps), LOSSES))
        optimiser.zero_grad()
        parts["total"].backward()
        if step == 1:
            rows += _gradients(parameters, ref, name)
        optimiser.step()
        if step == 1:
            gap = max(
                absolute(parameters[k.removeprefix("step1.")], ref[k])
                for k in ref.files
                if k.startswith("step1.")
            )
            rows.append((name, "weights after AdamW step 1", gap, OUTPUTS))
    return rows


def _intermediates(
    detector: Detector,
    ref: np.lib.npyio.NpzFile,
    video: Tensor,
    audio: Tensor | None,
    lengths: Tensor,
    name: str,
) -> list[Row]:
    mask = length_mask(lengths, video.shape[1])
    encoder = detector.encoder
    with torch.no_grad():
        found = {"encode_video": encoder(video, mask)}
        if audio is not None:
            after = encoder.transformer(video)
            similar = similarity_adjacency(after, mask, encoder.threshold)
            found |= {
                "temporal_out": after[:, ::8],
                "adj_video2": similar[2, :100, :100],
                "dist_adj_row0": distance_adjacency(video.shape[1])[0],
                "audio_tcn": detector.audio_encoder(audio),
            }
    return [(name, key, absolute(value, ref[key]), OUTPUTS) for key, value in found.items()]


def _outputs(out: Output, ref: np.lib.npyio.NpzFile, name: str) -> list[Row]:
    found = {
        "visual_features": out.features,
        "text_features": out.class_embeddings,
        "logits1": out.anomaly_logits,
        "logits2": out.alignment_logits,
    }
    if out.log_variance is not None:
        found["theta"] = out.log_variance
    return [(name, key, absolute(value, ref[key]), OUTPUTS) for key, value in found.items()]


def _gradients(parameters: dict[str, Tensor], ref: np.lib.npyio.NpzFile, name: str) -> list[Row]:
    norms = dict(zip(ref["param_names"].tolist(), ref["grad_norm"].tolist(), strict=True))
    unused = {key for key, value in norms.items() if np.isnan(value)}
    if parameters.keys() != norms.keys() - unused:
        raise SystemExit(f"{name}: parameters differ: {parameters.keys() ^ norms.keys() - unused}")
    gap = max(relative(parameters[k].grad.norm(), norms[k]) for k in parameters)
    rows = [(name, f"gradient norms of {len(parameters)} parameters", gap, GRADIENTS)]
    gap = max(
        relative(parameters[k.removeprefix("grad.")].grad, ref[k])
        for k in ref.files
        if k.startswith("grad.")
    )
    return [*rows, (name, "gradients, entry by entry", gap, GRADIENTS)]


def check_losses(folder: Path) -> list[Row]:
    name = "ref_losses.npz"
    ref = np.load(folder / name, allow_pickle=False)
    tensors = {
        key: torch.from_numpy(ref[key]).requires_grad_()
        for key in ("logits1", "logits2", "alpha", "theta", "student")
    }
    lengths, labels = torch.from_numpy(ref["lengths"]), torch.from_numpy(ref["multi_hot"])
    bce = losses.topk_bce(tensors["logits1"].squeeze(-1), 1 - labels[:, 0], lengths)
    align = losses.mil_align(tensors["logits2"], labels, lengths, alpha=tensors["alpha"])
    clasm = (align.cross_entropy + align.focal) / 2
    teacher = torch.from_numpy(ref["teacher"])
    uc = losses.ukd(tensors["student"], teacher, tensors["theta"], kind="released")
    (bce + clasm).backward()
    uc.backward()
    rows = [
        (name, key, relative(value, ref[key]), LOSSES)
        for key, value in (("CLAS2", bce), ("CLASM", clasm), ("UC", uc))
    ]
    return rows + [
        (name, f"grad_{key}", relative(value.grad, ref[f"grad_{key}"]), GRADIENTS)
        for key, value in tensors.items()
    ]


def main(folder: Path) -> int:
    rows = [*check_model(folder, "teacher"), *check_model(folder, "student"), *check_losses(folder)]
    print(f"{'file':18s} {'quantity':36s} {'deviation':>10s} {'tolerance':>10s}")
    for name, quantity, gap, tolerance in rows:
        mark = "" if gap <= tolerance else "  TOO LARGE"
        print(f"{name:18s} {quantity:36s} {gap:10.1e} {tolerance:10.0e}{mark}")
    return int(not all(gap <= tolerance for _, _, gap, tolerance in rows))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
