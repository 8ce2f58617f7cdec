"""Deterministic stand-in weights for the release's models: every tensor is a function of its name.

``value(key, shape) = offset + scale * N(0, 1)``, the generator seeded with the CRC-32 of the key,
scales chosen so that activations stay moderate. The recorded reference outputs in ``fixtures/``
and the larger reference files were made with exactly this rule by running the release.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_SMALL_TABLES = {
    "frame_position_embeddings.weight",
    "text_prompt_embeddings.weight",
    "clipmodel.positional_embedding",
}


def scale_offset(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if key == "alpha":
        return 0.02, 0.25
    if key == "disAdj.sigma":
        return 0.0, 0.1
    if re.search(r"(ln_\w+|ln_final)\.weight$", key):
        return 0.05, 1.0
    if key.endswith(("bias", "in_proj_bias")):
        return 0.02, 0.0
    if key.endswith("weight_g"):
        return 0.03, 0.58
    if key in _SMALL_TABLES:
        return 0.01, 0.0
    if key == "clipmodel.token_embedding.weight":
        return 0.02, 0.0
    if key == "clipmodel.text_projection":
        return 512**-0.5, 0.0
    if re.match(r"gc[1-4]\.weight$", key):
        return 0.15 * (2.0 / (shape[0] + shape[1])) ** 0.5, 0.0
    gain = 1.0
    if re.match(r"(gc[13]\.residual|linear|classifier)\.weight$", key):
        gain = 0.5
    if key.startswith("fe_net."):
        gain = 0.6
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
    return gain * fan_in**-0.5, 0.0


def value(key: str, shape: tuple[int, ...]) -> Tensor:
    """The stand-in for one tensor of the release's state dict, float32."""
    scale, offset = scale_offset(key, tuple(shape))
    draw = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    noise = draw.standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy((np.float32(offset) + np.float32(scale) * noise).astype(np.float32))


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A whole state dict from names and shapes."""
    return {key: value(key, tuple(shape)) for key, shape in shapes.items()}


# Names and shapes of what the release trains (its own list, D = 512), in blocks that repeat.
def _linear(name: str, out: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, inner), f"{name}.bias": (out,)}


def _conv(name: str, out: int, inner: int, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, inner, size), f"{name}.bias": (out,)}


def release_shapes(which: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the release's "teacher" or "student", its text tower included, without
    the image tower and the second names of the audio branch."""
    w, half = 512, 256
    shapes: dict[str, tuple[int, ...]] = {
        "alpha": (7,),
        "frame_position_embeddings.weight": (256, w),
        "text_prompt_embeddings.weight": (77, w),
        "disAdj.sigma": (1,),
        "gc1.weight": (w, half),
        "gc2.weight": (half, half),
        "gc3.weight": (w, half),
        "gc4.weight": (half, half),
        **_conv("gc1.residual", half, w, 5),
        **_conv("gc3.residual", half, w, 5),
        **_linear("linear", w, w),
        **_linear("classifier", 1, w),
        "clipmodel.positional_embedding": (77, w),
        "clipmodel.text_projection": (w, w),
        "clipmodel.token_embedding.weight": (49408, w),
        "clipmodel.ln_final.weight": (w,),
        "clipmodel.ln_final.bias": (w,),
    }
    for name in ("mlp1", "mlp2"):
        shapes |= _linear(f"{name}.c_fc", 4 * w, w) | _linear(f"{name}.c_proj", w, 4 * w)
    blocks = [f"temporal.resblocks.{n}" for n in range(2 if which == "teacher" else 1)]
    blocks += [f"clipmodel.transformer.resblocks.{n}" for n in range(12)]
    for name in blocks:
        shapes |= {f"{name}.attn.in_proj_weight": (3 * w, w), f"{name}.attn.in_proj_bias": (3 * w,)}
        shapes |= _linear(f"{name}.attn.out_proj", w, w)
        shapes |= _linear(f"{name}.mlp.c_fc", 4 * w, w) | _linear(f"{name}.mlp.c_proj", w, 4 * w)
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{name}.{norm}.weight": (w,), f"{name}.{norm}.bias": (w,)}
    if which == "teacher":
        for n in range(3):
            for conv in ("conv1", "conv2"):
                name = f"temporalconvnet.network.{n}.{conv}"
                shapes |= {
                    f"{name}.bias": (w,),
                    f"{name}.weight_g": (w, 1, 1),
                    f"{name}.weight_v": (w, w, 2),
                }
        shapes |= _linear("temporalgatedresidual.gate_proj.0", w, 2 * w)
        shapes |= _linear("temporalgatedresidual.residual_proj.0", w, 2 * w)
        shapes |= _linear("temporalgatedresidual.residual_proj.2", w, w)
    else:
        for n in range(3):
            shapes |= _conv(f"fe_net.conv.{n}.conv.0", w, w, 3)
        for n, size in ((0, 1), (2, 3), (3, 1)):
            shapes |= _conv(f"fe_net.theta.theta.{n}", w, w, size)
    return shapes
