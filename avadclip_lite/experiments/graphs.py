"""Training steps as CUDA graphs, text prompt and backward pass included: one launch in place of a
thousand operations that a GPU would wait for. ``fit(..., steps=graphs.steps)`` takes them on a GPU,
unless ``AVADCLIP_GRAPHS`` is 0. **No GPU has run this yet** (``docs/gpu.md``: what is unproved).

A graph fits one shape, so lengths are rounded up to few; the padding is masked and changes nothing.
A shape is captured when it is first met. Eager is the reference: then, and when it is next met,
with other weights and videos, a replay must give the eager losses and size of gradients, or all
steps are eager from then on, and one log line says so.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import isclose, nan

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.dataset import Batch
from avadclip_lite.train import TrainingRun

log = logging.getLogger(__name__)
Step = Callable[[Batch], dict[str, Tensor]]  # losses by name; it leaves gradients behind
GRAPHS = "AVADCLIP_GRAPHS"  # environment variable: 0 captures nothing
MULTIPLE = 32  # snippets: 8 widths are left of XD-Violence's lengths, for 7 % more work
TOLERANCE = 1e-3  # relative, between captured and eager losses: the same kernels ran
CHECKS = 2  # of each shape


def steps(run: TrainingRun) -> GraphedStep | None:
    """What takes a run's steps captured, where that is possible and was not refused."""
    wanted = os.environ.get(GRAPHS) != "0" and run.device.type == "cuda" and run.model.capturable
    # padding enters an unmasked distillation's mean, so lengths cannot be rounded up
    if wanted and (run.settings.loss.ukd_mask or not run.settings.data.length_aware):
        return GraphedStep(run.parameters, run.model.max_snippets)
    return None


def round_up(batch: Batch, most: int) -> Batch:
    """The batch filled with absent snippets to a multiple of ``MULTIPLE``, at most ``most``."""
    fill = min(-batch.snippets % MULTIPLE, max(most - batch.snippets, 0))
    widths = {"video": (0, 0, 0, fill), "audio": (0, 0, 0, fill), "audio_mask": (0, fill)}
    held = {k: x for k, x in vars(batch).items() if k in widths and x is not None}
    return Batch(**vars(batch) | {k: F.pad(x, widths[k]) for k, x in held.items()})


def capture(step: Step, batch: Batch, parameters: Sequence[nn.Parameter], pool: tuple) -> Step:
    """The step as a CUDA graph, for batches of this shape; the losses of a replay, and the
    gradients that it leaves, hold until the next one. Graphs share the memory ``pool``."""
    static = Batch(**{k: None if v is None else v.clone() for k, v in vars(batch).items()})
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # torch asks for steps before a capture
            step(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:  # the outer context puts the stream back, which torch's own does not after an error
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=pool):
            losses = {name: loss.detach() for name, loss in step(static).items()}
    except Exception:
        recover(pool)
        raise
    gradients = [parameter.grad for parameter in parameters]

    def replay(given: Batch) -> dict[str, Tensor]:
        for name, value in vars(given).items():
            if value is not None:
                getattr(static, name).copy_(value)
        graph.replay()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return losses

    return replay


def recover(pool: tuple) -> None:
    """Tells torch 2.11 that a capture which was cut off has ended: else dropout would raise, and
    memory stay. Where it did end, calls may raise and do no harm."""
    index = torch.cuda.current_device()
    with suppress(RuntimeError):
        torch.cuda.synchronize()  # takes a pending error
    generator = torch.cuda.default_generators[index]
    generator.graphsafe_set_state(generator.clone_state())  # a clone is not capturing
    with suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(index, pool)
        torch._C._cuda_releasePool(index, pool)


class GraphedStep:
    """Takes steps, captured by shape for as long as that gives what eager gives."""

    def __init__(self, parameters: Sequence[nn.Parameter], most: int, capture=capture) -> None:
        self.parameters, self.most, self.capture = parameters, most, capture
        self.captured: dict[tuple[int, int], Step] = {}  # by videos and snippets
        self.checks = Counter[tuple[int, int]]()  # that the shape has passed
        self.failed = ""  # why steps are eager
        self.pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None

    def __call__(self, step: Step, batch: Batch) -> dict[str, Tensor]:
        filled = batch if self.failed else round_up(batch, self.most)
        shape = len(filled), filled.snippets
        if not self.failed and self.checks[shape] < CHECKS:
            self._check(step, shape, filled)
        return step(batch) if self.failed else self.captured[shape](filled)

    def _check(self, step: Step, shape: tuple[int, int], batch: Batch) -> None:
        """Replay a shape, captured if new, after an eager step with the same random numbers."""
        fork = partial(torch.random.fork_rng, [batch.lengths.device] * batch.lengths.is_cuda)
        try:
            with fork():
                eager = self._told(step(batch))
            if shape not in self.captured:
                on = batch.lengths.device if batch.lengths.is_cuda else -1  # nowhere
                with fork(), torch.cuda.device(on):
                    self.captured[shape] = self.capture(step, batch, self.parameters, self.pool)
            with fork():
                found = self._told(self.captured[shape](batch))
            if not all(isclose(found.get(k, nan), v, rel_tol=TOLERANCE) for k, v in eager.items()):
                raise RuntimeError(f"captured they give {found}, eager {eager}")
            self.checks[shape] += 1
        except Exception as error:
            error = (isinstance(error, torch.AcceleratorError) and error.__context__) or error
            self.captured, self.failed = {}, str(error).partition("\n")[0] or type(error).__name__
            log.warning("steps not captured as CUDA graphs (off: %s=0): %s", GRAPHS, self.failed)

    def _told(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Losses as numbers, and how large the gradients are."""
        norms = [p.grad.norm() for p in self.parameters if p.grad is not None]
        told = losses | {"gradient": torch.stack(norms).norm()}
        return {name: value.detach().item() for name, value in told.items()}
