"""A literal reading of the authors' release, slow on purpose: what the package is timed against.

Everything is done as the release describes it: attention over all 256 x 256 pairs behind a window
mask, all 77 positions of the text tower at every step, Python loops over the videos of a batch for
the graph adjacencies and for Top-K, padding left in. It works on a flat dictionary of tensors under
the release's own key names and imports nothing of the package, so it is also an independent oracle.

    python tests/benchmarks/literal.py REFERENCE_FOLDER

checks it against the release's recorded inputs and outputs (``ref_teacher.npz``,
``ref_student.npz`` and their deterministic weights) and prints the largest deviation of each.

Shape letters: B videos, T = 256 snippets, D = 512, C classes, L text positions.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
LENGTH, WIDTH, TEMPERATURE, TEXT_POSITIONS, CONTEXT = 256, 512, 0.07, 77, 10
START, END = 49406, 49407  # CLIP's start and end tokens
WORDS = (
    (5967,),
    (4652,),
    (3992,),
    (14218,),
    (7678,),
    (1615, 6608),
    (13785,),
)  # class words in order


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def layer_norm(p: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), p[f"{name}.weight"], p[f"{name}.bias"])


def linear(p: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))


def feed_forward(p: State, name: str, x: Tensor) -> Tensor:
    return linear(p, f"{name}.c_proj", quick_gelu(linear(p, f"{name}.c_fc", x)))


def attention(p: State, name: str, x: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Multi-head self-attention over x (B,L,W) with an additive mask (L,L)."""
    batch, length, width = x.shape
    joined = F.linear(x, p[f"{name}.in_proj_weight"], p[f"{name}.in_proj_bias"])
    q, k, v = (
        part.view(batch, length, heads, width // heads).transpose(1, 2)
        for part in joined.chunk(3, dim=-1)
    )
    scores = q @ k.transpose(-1, -2) / math.sqrt(width // heads) + mask
    mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, length, width)
    return linear(p, f"{name}.out_proj", mixed)


def block(p: State, name: str, x: Tensor, heads: int, mask: Tensor) -> Tensor:
    x = x + attention(p, f"{name}.attn", layer_norm(p, f"{name}.ln_1", x), heads, mask)
    return x + feed_forward(p, f"{name}.mlp", layer_norm(p, f"{name}.ln_2", x))


def encode_text(p: State, words: tuple[tuple[int, ...], ...] = WORDS) -> Tensor:
    """Class embeddings (C,D), not normalised, from all 77 positions."""
    table, embed = p["text_prompt_embeddings.weight"], p["clipmodel.token_embedding.weight"]
    rows, ends = [], []
    for ids in words:
        row = table.clone()
        end = len(ids) + 1  # index of the end token among start, words, end
        row[0] = embed[START]
        row[CONTEXT + 1 : CONTEXT + end] = embed[torch.tensor(ids, device=table.device)]
        row[2 * CONTEXT + end] = embed[END]
        rows.append(row)
        ends.append(2 * CONTEXT + end)
    x = torch.stack(rows) + p["clipmodel.positional_embedding"]
    mask = torch.full((TEXT_POSITIONS, TEXT_POSITIONS), -math.inf, device=x.device).triu(1)
    layers = sum(
        k.startswith("clipmodel.transformer.resblocks.") and k.endswith(".ln_1.weight") for k in p
    )
    for layer in range(layers):
        x = block(p, f"clipmodel.transformer.resblocks.{layer}", x, 8, mask)
    x = layer_norm(p, "clipmodel.ln_final", x)
    return x[range(len(words)), ends] @ p["clipmodel.text_projection"]


def similarity_adjacency(x: Tensor, lengths: list[int]) -> Tensor:
    """(B,T,T): cosine similarity of the valid rows, small entries zeroed, softmax over columns."""
    product = x @ x.transpose(1, 2)
    norm = x.norm(dim=2, keepdim=True)
    cosine = product / (norm @ norm.transpose(1, 2) + 1e-20)
    out = torch.zeros_like(cosine)
    for video, n in enumerate(lengths):
        part = F.threshold(cosine[video, :n, :n], 0.7, 0)
        out[video, :n, :n] = part.softmax(dim=1)
    return out


def distance_adjacency(batch: int, length: int, device: torch.device) -> Tensor:
    place = torch.arange(length, dtype=torch.float32, device=device)
    gap = (place[:, None] - place[None]).abs()
    return torch.exp(-gap / math.e).expand(batch, length, length)


def graph_layer(p: State, name: str, x: Tensor, adjacency: Tensor) -> Tensor:
    residual = x
    if f"{name}.residual.weight" in p:
        weight, bias = p[f"{name}.residual.weight"], p[f"{name}.residual.bias"]
        residual = F.conv1d(x.transpose(1, 2), weight, bias, padding=2).transpose(1, 2)
    return quick_gelu(adjacency @ (x @ p[f"{name}.weight"]) + residual)


def encode_video(p: State, video: Tensor, lengths: list[int], *, window: int) -> Tensor:
    """(B,T,D) CLIP features to (B,T,D): position, windowed blocks, two graph branches, linear."""
    x = video + p["frame_position_embeddings.weight"]
    place = torch.arange(LENGTH, device=x.device) // window
    mask = torch.zeros(LENGTH, LENGTH, device=x.device)
    mask.masked_fill_(place[:, None] != place[None], -math.inf)
    layers = sum(k.startswith("temporal.resblocks.") and k.endswith(".ln_1.weight") for k in p)
    for layer in range(layers):
        x = block(p, f"temporal.resblocks.{layer}", x, 1, mask)
    near = similarity_adjacency(x, lengths)
    far = distance_adjacency(len(x), LENGTH, x.device)
    left = graph_layer(p, "gc2", graph_layer(p, "gc1", x, near), near)
    right = graph_layer(p, "gc4", graph_layer(p, "gc3", x, far), far)
    return linear(p, "linear", torch.cat((left, right), dim=2))


def encode_audio(p: State, audio: Tensor, *, dropout: float = 0.0) -> Tensor:
    x = audio.transpose(1, 2)
    for level in range(3):
        dilation, out = 2**level, x
        for conv in ("conv1", "conv2"):
            name = f"temporalconvnet.network.{level}.{conv}"
            v, g = p[f"{name}.weight_v"], p[f"{name}.weight_g"]
            weight = g * v / v.norm(dim=(1, 2), keepdim=True)
            out = F.conv1d(out, weight, p[f"{name}.bias"], padding=dilation, dilation=dilation)
            out = F.dropout(F.relu(out[..., :-dilation]), dropout, training=dropout > 0)
        x = F.relu(out + x)
    return x.transpose(1, 2)


def fuse(p: State, video: Tensor, audio: Tensor) -> Tensor:
    joined, name = torch.cat((video, audio), dim=2), "temporalgatedresidual"
    gate = torch.sigmoid(linear(p, f"{name}.gate_proj.0", joined))
    hidden = F.gelu(linear(p, f"{name}.residual_proj.0", joined))
    return video + gate * linear(p, f"{name}.residual_proj.2", hidden)


def heads(p: State, features: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Anomaly logits (B,T) and alignment logits (B,T,C); global vector from the raw logits."""
    logits = linear(p, "classifier", features + feed_forward(p, "mlp2", features))
    glob = (logits.transpose(1, 2) @ features).squeeze(1)
    glob = glob / glob.norm(dim=-1, keepdim=True)
    prompted = text[None] + glob[:, None]
    prompted = prompted + feed_forward(p, "mlp1", prompted)
    unit = features / features.norm(dim=-1, keepdim=True)
    other = prompted / prompted.norm(dim=-1, keepdim=True)
    return logits.squeeze(2), unit @ other.transpose(1, 2) / TEMPERATURE


def teacher(
    p: State, video: Tensor, audio: Tensor, lengths: list[int], *, dropout: float = 0.0
) -> dict[str, Tensor]:
    text = encode_text(p)
    features = fuse(
        p, encode_video(p, video, lengths, window=4), encode_audio(p, audio, dropout=dropout)
    )
    anomaly, alignment = heads(p, features, text)
    return {"features": features, "text": text, "anomaly": anomaly, "alignment": alignment}


def student(p: State, video: Tensor, lengths: list[int]) -> dict[str, Tensor]:
    text = encode_text(p)
    encoded = encode_video(p, video, lengths, window=64).transpose(1, 2)

    def conv(name: str, x: Tensor, padding: int) -> Tensor:
        return F.conv1d(x, p[f"{name}.weight"], p[f"{name}.bias"], padding=padding)

    z = encoded
    for level in range(3):
        z = z + F.relu(conv(f"fe_net.conv.{level}.conv.0", z, 1))
    inner = F.relu(conv("fe_net.theta.theta.0", encoded, 0))
    inner = F.relu(conv("fe_net.theta.theta.3", conv("fe_net.theta.theta.2", inner, 1), 0))
    features, theta = z.transpose(1, 2), -(encoded + inner).transpose(1, 2)
    anomaly, alignment = heads(p, features, text)
    return {
        "features": features,
        "text": text,
        "anomaly": anomaly,
        "alignment": alignment,
        "theta": theta,
    }


def losses(
    out: dict[str, Tensor],
    labels: Tensor,
    lengths: list[int],
    alpha: Tensor,
    teacher_features: Tensor | None = None,
) -> dict[str, Tensor]:
    """The release's loss terms and their weighted total; videos one by one."""
    coarse, fine = [], []
    for video, n in enumerate(lengths):
        k = n // 16 + 1
        coarse.append(torch.sigmoid(out["anomaly"][video, :n]).topk(min(k, n)).values.mean())
        fine.append(out["alignment"][video, :n].topk(min(k, n), dim=0).values.mean(dim=0))
    clas2 = F.binary_cross_entropy(torch.stack(coarse), 1 - labels[:, 0])
    z = torch.stack(fine)
    y = labels / labels.sum(dim=1, keepdim=True)
    ce = -(y * z.log_softmax(dim=1)).sum(dim=1)
    pt = (y * z.softmax(dim=1)).sum(dim=1)
    focal = (y * alpha).sum(dim=1) * (1 - pt) ** 2 * ce
    clasm = (ce.mean() + focal.mean()) / 2
    text = out["text"] / out["text"].norm(dim=-1, keepdim=True)
    contrast = sum((text[0] @ text[c]).abs() for c in range(1, len(text))) / (len(text) - 1)
    parts = {"clas2": clas2, "clasm": clasm, "contrast": contrast}
    total = clas2 + clasm + 1e-4 * contrast
    if teacher_features is not None:
        theta = out["theta"]
        gap = (teacher_features - out["features"]) ** 2
        parts["uc"] = (gap / (1e-6 + 2 * theta.exp()) + theta).mean()
        total = total + 1e-8 * parts["uc"]
    return {**parts, "total": total}


def filled_state(folder: Path, which: str) -> State:
    """The reference's deterministic weights for ``which`` in {"teacher", "student"}."""
    spec = importlib.util.spec_from_file_location("fill_state", folder / "fill_state.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    state: State = {}
    section = ""
    for line in (folder / "state_dict_keys.txt").read_text().splitlines():
        if line.startswith("#"):
            section = line.lower()
        elif line.strip() and section.startswith((f"# {which}", "# clipmodel")):
            pattern, rest = line.split(maxsplit=1)
            inside = rest[1 : rest.index(")")].replace(" ", "").strip(",")
            shape = tuple(int(n) for n in inside.split(",")) if inside else ()
            layers = range(12) if "{0..11}" in pattern else (0,)
            for key in (pattern.replace("{0..11}", str(layer)) for layer in layers):
                if not fill.skip(key):
                    state[key] = torch.from_numpy(fill.value(key, shape))
    return state


def _check(folder: Path) -> None:
    rows = []
    for which in ("teacher", "student"):
        state = filled_state(folder, which)
        trained = {k: v for k, v in state.items() if not k.startswith("clipmodel.")}
        ref = np.load(folder / f"ref_{which}.npz", allow_pickle=False)
        lengths = [int(n) for n in ref["lengths"]]
        video = torch.from_numpy(ref["visual"])
        labels = torch.from_numpy(ref["multi_hot"]).float()
        extra = {}
        if which == "student":
            extra = {"teacher_features": torch.from_numpy(ref["teacher_features"])}
        for tensor in trained.values():
            tensor.requires_grad_()
        optimiser = torch.optim.AdamW(list(trained.values()), lr=1e-5)
        for step in range(3):
            if which == "teacher":
                out = teacher(state, video, torch.from_numpy(ref["audio"]), lengths)
            else:
                out = student(state, video, lengths)
            parts = losses(out, labels, lengths, state["alpha"], **extra)
            if step == 0:
                for ours, theirs in (
                    ("features", "visual_features"),
                    ("text", "text_features"),
                    ("anomaly", "logits1"),
                    ("alignment", "logits2"),
                    ("theta", "theta"),
                ):
                    if ours in out:
                        a, b = out[ours].detach().numpy(), ref[theirs]
                        rows.append((which, ours, float(np.abs(a - b.reshape(a.shape)).max())))
            got = np.array([float(v.detach()) for v in parts.values()])
            rows.append(
                (which, f"losses {step}", float(np.abs(got / ref["loss_history"][step] - 1).max()))
            )
            optimiser.zero_grad()
            parts["total"].backward()
            optimiser.step()
    for which, name, gap in rows:
        print(f"{which:8s} {name:12s} {gap:.2e}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    _check(Path(sys.argv[1]))
