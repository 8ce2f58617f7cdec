"""A GPU that is not there: tensors that have a shape, a type and the device "cuda", and no content.

    with fake_cuda() as move:
        detector = move(detector)            # any module, tensor or Batch
        TrainingRun(settings, detector, torch.device("cuda")).one_step(move(batch))

torch's fake tensors refuse what would mix devices. They say nothing of types that a matrix product
would refuse, so that is refused here. Gradients: torch's engine asks the driver, so the graph is
walked here, node by node, with the checks of the engine. What the package asks of the *content* of
a tensor has no answer; ``CONTENT`` lists each such question, its stand-in and the reason why it is
asked.
"""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ONE_TYPE = {  # operations whose floating-point arguments must have one type
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "convolution",
    "convolution_backward",
    "native_layer_norm",
    "searchsorted",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_attention_math",
}


def _numpy(tensor: Tensor, **_: Any) -> np.ndarray:
    """An array of zeros; as torch does, only from the host and only without a graph."""
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device} tensor to numpy; use Tensor.cpu() first")
    if tensor.requires_grad:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")
    return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _half(mask: Tensor) -> list[Tensor]:
    """Indices where a mask is true, one tensor a dimension: of the first half of its entries."""
    count = max(mask.numel() // 2, 1)
    return [torch.zeros(count, dtype=torch.int64, device=mask.device) for _ in range(mask.ndim)]


def _any(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor | bool:
    """No, when asked of a whole tensor; along a dimension the answer is a tensor."""
    return torch.any(tensor, *args, **kwargs) if args or kwargs else False


CONTENT: dict[str, tuple[Callable, str]] = {
    "numpy": (_numpy, "scores leave for the host, to be written and measured there"),
    "tolist": (lambda t: np.zeros(tuple(t.shape)).tolist(), "an epoch's losses, once an epoch"),
    "__bool__": (lambda t: True, "a text tower checks token ids once, when it looks them up"),
    "any": (_any, "torchvision asks whether a standard deviation it was given is zero"),
    "nonzero": (_half, "systems that pair normal with anomalous bags split a batch by a mask"),
}


class _OneType(TorchDispatchMode):
    """Refuses what a GPU would: a product of a float32 and a bfloat16 matrix. And an index by a
    mask, whose content decides the shape, takes half of the entries."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket.__name__ in ONE_TYPE:
            kinds = {t.dtype for t in args if isinstance(t, Tensor) and t.is_floating_point()}
            if len(kinds) > 1:
                raise RuntimeError(f"{func} mixes {sorted(map(str, kinds))}")
        if func is torch.ops.aten.index.Tensor:
            masks = [isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1]]
            pairs = zip(args[1], masks, strict=True)
            args = (args[0], [j for i, mask in pairs for j in (_half(i) if mask else [i])])
        return func(*args, **kwargs or {})


class _Captured(TorchDispatchMode):
    """Refuses a tensor of the host, and an index by a mask."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.index.Tensor:
            for i in args[1]:
                _refuse(func, isinstance(i, Tensor) and i.dtype == torch.bool)
        out = func(*args, **kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        _refuse(func, any(tensor.device.type == "cpu" for tensor in tensors))
        return out


def _refuse(what: Any, refused: bool = True) -> None:
    if refused:
        raise RuntimeError(f"a CUDA graph cannot hold this: {what}")


@contextlib.contextmanager
def as_captured() -> Iterator[None]:
    """Inside ``fake_cuda``: what a CUDA graph cannot hold is refused, every question about content
    among it, stand-in or not."""

    def refuse(name: str) -> Callable:
        whole = CONTENT[name][0]  # along a dimension ``any`` is an operation like others
        return lambda t, *a, **k: whole(t, *a, **k) if name == "any" and (a or k) else _refuse(name)

    with contextlib.ExitStack() as stack:
        for name in CONTENT:
            stack.enter_context(mock.patch.object(FakeTensor, name, refuse(name)))
        stack.enter_context(_Captured())
        yield


def backward(loss: Tensor) -> None:
    """``loss.backward()`` without torch's engine: every node is called with its gradients, which
    have the shape, the type and the device that it saw on the way forward."""
    if loss.grad_fn is None:  # of a detector without gradients
        loss.grad = torch.ones_like(loss)
        return
    order: list[Any] = []
    seen: set[Any] = set()
    stack = [(loss.grad_fn, False)]
    while stack:
        node, finished = stack.pop()
        if finished:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(n, False) for n, _ in node.next_functions if n is not None]
    gradients: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    gradients[loss.grad_fn][0] = torch.ones_like(loss)
    with torch.no_grad():
        for node in reversed(order):
            have, metadata = gradients.pop(node, {}), node._input_metadata
            if not have:
                continue
            if hasattr(node, "variable"):
                leaf, gradient = node.variable, have[0]
                assert gradient.shape == leaf.shape and gradient.device == leaf.device
                assert gradient.dtype == leaf.dtype
                leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
                continue
            given = [have.get(i) for i in range(len(metadata))]
            ours = getattr(type(node), "_forward_cls", None)  # an autograd.Function
            out = node(*given) if ours is None else ours.backward(node, *given)
            results = out if isinstance(out, tuple) else (out,)
            for gradient, (target, place) in zip(results, node.next_functions, strict=False):
                if target is None or gradient is None:
                    continue
                wanted = target._input_metadata[place]
                if tuple(gradient.shape) != tuple(wanted.shape):
                    gradient = gradient.sum_to_size(wanted.shape)
                assert gradient.device == wanted.device, f"{node}: {gradient.device}"
                gradient = gradient.to(wanted.dtype)
                before = gradients[target].get(place)
                gradients[target][place] = gradient if before is None else before + gradient


@contextlib.contextmanager
def fake_cuda() -> Iterator[Callable[[Any], Any]]:
    """While this is open, "cuda" is a device of tensors without content; gives the function that
    moves a module, a tensor or a batch there."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor.to("cuda")
        return mode.from_tensor(tensor.detach()).to("cuda")

    def move(value: Any) -> Any:
        if isinstance(value, nn.Module):
            with torch.utils._mode_utils.no_dispatch():
                value = copy.deepcopy(value)
            for module in value.modules():
                for name, parameter in module._parameters.items():
                    if parameter is not None:
                        moved = nn.Parameter(fake(parameter), parameter.requires_grad)
                        module._parameters[name] = moved
                for name, buffer in module._buffers.items():
                    module._buffers[name] = None if buffer is None else fake(buffer)
            return value
        if is_dataclass(value):
            return type(value)(**{f.name: move(getattr(value, f.name)) for f in fields(value)})
        return fake(value) if isinstance(value, Tensor) else value

    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(mode)  # first: it looks whether a driver is there
        enter(_OneType())
        # autocast asks the driver as well
        enter(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        enter(mock.patch("torch.cuda.is_bf16_supported", lambda *_: True))
        enter(mock.patch.object(Tensor, "backward", backward))
        for name, (stand_in, _) in CONTENT.items():
            enter(mock.patch.object(FakeTensor, name, stand_in, create=True))
        fast = torch.backends.mha.get_fastpath_enabled()  # torch's own shortcut asks the driver
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        yield move
