"""The checks of ``gpu_check.sh``, which says how to call them.

Each check has a process of its own, because a device-side assert ends a process's CUDA for good,
and what is left of the part's seconds. Rows are kept as they come, so a check that fails late, or
is stopped, loses nothing of what it had measured. A row without a verdict only informs.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

MAX_TRIP = 64 * 2**20  # bytes of tree and wheels that may travel together
KERNELS_SHOWN = 25
SMALL_DIM = 64  # the width that the tiny text tower fits

# What the GPU machine that was looked at had installed, its Python, and what of our dependencies
# the check can do without: tools for people, and libraries that are installed and never imported.
THERE = (
    "torch torchvision torchaudio numpy pandas scikit-learn scipy matplotlib seaborn pillow "
    "safetensors joblib tqdm pytest"
).split()
THERE_PYTHON = "3.12"
DISPENSABLE = {
    *"jupyterlab jupytext nbval pytest-xdist ruff".split(),
    *"numba llvmlite soundfile soxr audioread pooch msgpack hf-xet jedi parso debugpy".split(),
}
FIRST_TRIP = {"av"}  # more than half of all wheels; unpacked in part one, needed in part two


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table. ``limit`` None: a number that nothing is expected of."""

    check: str
    what: str
    value: float | str
    unit: str = ""
    limit: float | None = None
    ok: bool | None = None

    def line(self) -> str:
        value = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)
        limit = "" if self.limit is None else f"<= {self.limit:.0e}"
        verdict = {None: "", True: "ok", False: "FAILED"}[self.ok]
        return f"{self.check:14s}{self.what:46s}{value:>12s} {self.unit:8s}{limit:10s}{verdict}"


def within(check: str, what: str, value: float, limit: float) -> Row:
    return Row(check=check, what=what, value=value, limit=limit, ok=bool(value <= limit))


def holds(check: str, what: str, ok: bool, said: str = "") -> Row:
    return Row(check=check, what=what, value=said or ("yes" if ok else "no"), ok=ok)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the checks are called with."""

    device: Any  # a torch.device, or its name in part two
    small: bool  # the dry run: shapes and code paths, no measurement
    out: Path
    folder: Path  # for what nobody keeps
    until: float  # on time.monotonic

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"


# --- part one: right on CUDA ----------------------------------------------------------------------


def losses(at: Setting) -> Iterator[Row]:
    """Twenty steps of teacher and student on the CPU and on the device."""
    import cpu_vs_cuda

    videos, dim, steps = (6, SMALL_DIM, 2) if at.small else (64, 512, 20)
    store = cpu_vs_cuda.synthetic(at.folder / "losses", dim, videos)
    for role, columns in cpu_vs_cuda.compare(store, steps, str(at.device)):
        reference = columns["cpu float32"]
        for precision, limit in (("float32", 1e-4), ("bf16", 5e-2)):
            gap = cpu_vs_cuda.largest_difference(columns[f"{at.device} {precision}"], reference)
            yield within("losses", f"{role}, {precision}, {steps} steps, relative", gap, limit)


def not_a_number(at: Setting) -> Iterator[Row]:
    """A training that diverges ends in one sentence, and the device can still be used."""
    import cpu_vs_cuda
    import torch

    from avadclip_lite.experiments import graphs
    from avadclip_lite.train import fit
    from tools import bench

    store = cpu_vs_cuda.synthetic(at.folder / "diverging", SMALL_DIM, 6)
    for precision in ("float32", "bf16"):
        settings = cpu_vs_cuda.settings_for(
            store, steps=4, device=str(at.device), precision=precision, learning_rate=1e30
        )
        text = bench.synthetic_text(store.dim)
        how = {"text": text[0], "prompts": text[1], "progress": False, "steps": graphs.steps}
        try:
            fit(settings, store, **how)
            said = "nothing"
        except ValueError as error:
            said = str(error).splitlines()[0]
        print(said)
        yield holds("NaN", f"{precision}: a sentence that says so", "diverged" in said)
    alive = float(torch.ones(2, device=at.device).sum()) == 2.0
    yield holds("NaN", "the device still computes", alive)


def independence(at: Setting) -> Iterator[Row]:
    """Of two detectors built from one text tower, one moves and the other stays."""
    import cpu_vs_cuda

    from avadclip_lite.config import make_config
    from avadclip_lite.model import build
    from tools import bench

    store = cpu_vs_cuda.synthetic(at.folder / "independent", SMALL_DIM, 4)
    text = bench.synthetic_text(store.dim)
    settings = make_config(dim=SMALL_DIM)
    left, moved = (build(settings, *text) for _ in range(2))
    moved.to(at.device if at.cuda else "meta")
    places = {tensor.device.type for tensor in (*left.parameters(), *left.buffers())}
    yield holds("independence", "a second detector stays where it is", places == {"cpu"})


def evaluation(at: Setting) -> Iterator[Row]:
    """One trained detector, evaluated on the CPU and on the device."""
    import numpy as np

    from avadclip_lite.config import make_config, soundstage_path
    from avadclip_lite.dataset import FeatureStore
    from avadclip_lite.evaluate import evaluate
    from avadclip_lite.train import fit

    store = FeatureStore.open(soundstage_path())
    settings = make_config(device="cpu", selection="last", max_steps=2 if at.small else 60)
    model = fit(settings, store, progress=False).model
    here = evaluate(model, store).metrics
    began = time.perf_counter()
    there = evaluate(model.to(at.device), store).metrics
    seconds = time.perf_counter() - began
    gaps = [abs(here[k] - there[k]) for k in here if not math.isnan(here[k])]
    gap = float(np.max(gaps))  # NaN if one is
    yield within("evaluation", "largest difference of any metric from the CPU", gap, 2e-3)
    yield Row(check="evaluation", what="Soundstage's test set", value=seconds, unit="s")


def determinism(at: Setting) -> Iterator[Row]:
    """Two runs of six steps give the same weights, bit for bit."""
    import cpu_vs_cuda
    import torch

    from avadclip_lite.experiments import graphs
    from avadclip_lite.train import fit
    from tools import bench

    store = cpu_vs_cuda.synthetic(at.folder / "twice", SMALL_DIM if at.small else 512, 6)
    text = bench.synthetic_text(store.dim)
    how = {"text": text[0], "prompts": text[1], "progress": False, "steps": graphs.steps}
    for precision in ("float32", "bf16"):
        settings = cpu_vs_cuda.settings_for(
            store, steps=2 if at.small else 6, device=str(at.device), precision=precision
        )
        one, two = (fit(settings, store, **how).model.cpu() for _ in range(2))
        pairs = zip(one.trainable_state().values(), two.trainable_state().values(), strict=True)
        same = all(torch.equal(a, b) for a, b in pairs)
        yield holds("determinism", f"{precision}: two runs, equal weights", same)


def captured(at: Setting) -> Iterator[Row]:
    """Steps captured as CUDA graphs against the same steps eager, dropout included, on batches of
    XD-Violence's lengths: every loss of every step, and the weights afterwards."""
    import numpy as np
    import torch

    from avadclip_lite.experiments import graphs

    for precision, limit in (("float32", 1e-3), ("bf16", 5e-2)):
        made = [_Bench(at, batches=24, graphed=g, precision=precision) for g in (False, True)]
        run, gaps = made[1].run, []
        if not at.cuda:  # in the dry run nothing is captured
            how = {"capture": lambda step, *_: step}
            run.captured = graphs.GraphedStep(run.parameters, run.model.max_snippets, **how)
        for number, batch in enumerate(made[0].batches):
            batch = graphs.round_up(batch, run.model.max_snippets)  # dropout goes by shape
            if number == 12:  # weights are loaded back, and what was freed is written over
                for one in made:
                    state = one.run.model.trainable_state()
                    one.run.model.load_trainable_state({k: v.clone() for k, v in state.items()})
                sizes = [2**k for k in range(8, 24)] * 32 if at.cuda else [1]  # 2 GiB, in blocks
                held = [torch.full((size,), torch.nan, device=at.device) for size in sizes]
                del held
                _empty(at)
            told = []
            for one in made:
                torch.manual_seed(number)
                told.append({k: v.item() for k, v in one.run.one_step(batch).items()})
            eager, graphed = told
            apart = [abs(graphed[k] / eager[k] - 1) for k in eager if eager[k]]
            gaps.append(float(np.max(apart)))  # unlike max, it does not pass over NaN
        own = run.captured
        shapes = f"{len(own.captured)} shapes"
        yield holds("captured", f"{precision}: no fallback", not own.failed, own.failed or shapes)
        yield within("captured", f"{precision}: losses of 24 steps, relative", np.max(gaps), limit)
        for one, other in zip(made[0].run.parameters, run.parameters, strict=True):
            gaps.append(float((one - other).norm() / one.norm().clamp_min(1e-3)))
        yield Row(
            check="captured", what=f"{precision}: the same and weights", value=float(np.max(gaps))
        )

    def waits(given: Any) -> Any:  # which no graph can hold
        given.lengths.max().item()
        return run.backward(given)

    broken = graphs.GraphedStep(run.parameters, run.model.max_snippets)
    if at.cuda:
        broken(waits, batch)
    run.captured = None  # last in this process: it may be the end of its CUDA
    ok = bool(run.one_step(batch)["total"].isfinite())
    _empty(at)
    if at.cuda:  # and the next training captures again
        again = graphs.GraphedStep(run.parameters, run.model.max_snippets)
        again(run.backward, batch)
        ok = ok and bool(broken.failed) and not again.failed
    yield holds("captured", "a failed capture leaves CUDA usable", ok, broken.failed[:40])


# --- part one: how fast ---------------------------------------------------------------------------


def _wait(at: Setting) -> None:
    import torch

    if at.cuda:
        torch.cuda.synchronize(at.device)


def _empty(at: Setting) -> None:
    import torch

    if at.cuda:
        torch.cuda.empty_cache()


def _median_ms(at: Setting, call: Callable[[], Any], times: int = 20, warm_up: int = 5) -> float:
    took = []
    for turn in range(2 if at.small else warm_up + times):
        _wait(at)
        began = time.perf_counter()
        call()
        _wait(at)
        if turn >= (1 if at.small else warm_up):
            took.append(time.perf_counter() - began)
    return 1e3 * sorted(took)[len(took) // 2]


_BAGS: dict[Any, Any] = {}  # synthetic, by what decides their shape


class _Bench:
    """Training steps of one kind on synthetic bags with the lengths of XD-Violence."""

    def __init__(self, at: Setting, *, batches: int, graphed=False, **fields: Any) -> None:
        from avadclip_lite.config import make_config
        from tools import bench

        size = {"scale": "soundstage", "batch_size": 2} if at.small else {"scale": "xd"}
        self.settings = make_config(**size, **fields)
        key = self.settings.data, self.settings.model.max_snippets
        if key not in _BAGS:  # a check has a process of its own
            _BAGS[key] = bench.synthetic_bags(
                self.settings,
                videos=8 if at.small else 400,
                crops=1 if at.small else 4,
                device=str(at.device),
            )
        self.bags = _BAGS[key]
        self.run = bench.training_run(self.settings, at.device)
        if not graphed:
            self.run.captured = None
        queue = self.run.model.batches(self.bags, self.run.shuffling)
        while len(queue) < batches:
            queue += self.run.model.batches(self.bags, self.run.shuffling)
        self.batches = [self.bags.batch(index) for index in queue[:batches]]

    def step(self, batch: Any) -> None:
        self.run.one_step(batch)


def steps(at: Setting) -> Iterator[Row]:
    """Milliseconds of a step, until when the host is busy, what the device does meanwhile; eager,
    and on a GPU captured, each shape checked before."""
    from avadclip_lite.experiments import graphs

    count = 2 if at.small else 12
    kinds = [
        ("teacher, paper, bf16", {"form": "paper", "precision": "bf16"}),
        ("teacher, paper, float32", {"form": "paper", "precision": "float32"}),
        ("student, paper, bf16", {"form": "paper", "precision": "bf16", "role": "vision"}),
        ("teacher, released, float32", {"form": "released", "precision": "float32"}),
    ]
    for (kind, fields), graphed in product(kinds, (False, True) if at.cuda else (False,)):
        name = f"{kind}, captured" if graphed else kind
        made = _Bench(at, batches=count, graphed=graphed, **fields)
        for batch in made.batches * graphs.CHECKS:
            made.step(batch)
        if graphed and made.run.captured.failed:
            yield holds("step", f"{name}: no fallback", False, made.run.captured.failed)
            continue
        walls, busy = [], []
        for batch in made.batches:
            _wait(at)
            began = time.perf_counter()
            made.step(batch)
            busy.append(time.perf_counter() - began)
            _wait(at)
            walls.append(time.perf_counter() - began)
        wall, host = (1e3 * sorted(values)[len(values) // 2] for values in (walls, busy))
        yield Row(check="step", what=name, value=wall, unit="ms")
        yield Row(check="step", what=f"{name}: host busy until", value=host, unit="ms")
        if fields["form"] == "paper" and "role" not in fields:
            yield from _profile(at, name, made)


def _profile(at: Setting, name: str, made: _Bench) -> Iterator[Row]:
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * at.cuda
    batches = made.batches[-1 if at.small else -3 :]
    with profile(activities=activities) as seen:
        for batch in batches:
            made.step(batch)
        _wait(at)
    key = "self_cuda_time_total" if at.cuda else "self_cpu_time_total"
    print(f"\n{name}, {len(batches)} steps")
    print(seen.key_averages().table(sort_by=key, row_limit=KERNELS_SHOWN, max_name_column_width=70))
    on_device = torch.autograd.DeviceType.CUDA if at.cuda else torch.autograd.DeviceType.CPU
    events = [event for event in seen.events() if event.device_type == on_device]
    what = "kernels" if at.cuda else "operations"
    yield Row(check="profile", what=f"{name}: {what} a step", value=len(events) / len(batches))
    if at.cuda:
        busy = sum(event.self_device_time_total for event in events) / 1e3 / len(batches)
        yield Row(check="profile", what=f"{name}: device busy", value=busy, unit="ms")


def attention(at: Setting) -> Iterator[Row]:
    """Kinds of attention over windows of four snippets, forward and backward."""
    import contextlib

    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    windows, width = (4, 16) if at.small else (96 * 40, 512)
    kind = torch.float32 if at.small else torch.bfloat16
    shape = (windows, 1, 4, width)
    q, k, v = (
        torch.randn(shape, device=at.device, dtype=kind, requires_grad=True) for _ in range(3)
    )
    mask = torch.ones(windows, 1, 1, 4, dtype=torch.bool, device=at.device)

    def products() -> torch.Tensor:
        scores = (q @ k.transpose(-2, -1)) * width**-0.5
        return scores.masked_fill(~mask, -1e4).softmax(-1) @ v

    kinds: list[tuple[str, Any, Callable[[], torch.Tensor]]] = [("plain products", None, products)]
    for name, backend in (("efficient", SDPBackend.EFFICIENT_ATTENTION), ("math", SDPBackend.MATH)):
        if at.cuda or backend is SDPBackend.MATH:
            call = lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # noqa: E731
            kinds.append((name, backend, call))
    for name, backend, call in kinds:
        with sdpa_kernel(backend) if backend is not None else contextlib.nullcontext():
            ms = _median_ms(at, lambda call=call: call().sum().backward())
        yield Row(check="attention", what=f"window of 4, {name}", value=ms, unit="ms")


def text_prompt(at: Setting) -> Iterator[Row]:
    """The learnable textual prompt, forward and backward, as it is and as one captured graph."""
    import torch

    for precision in ("bf16", "float32"):
        prompt = _Bench(at, batches=0, precision=precision).run.model.textual_prompt.train()

        def autocast(precision: str = precision, **more: bool) -> torch.autocast:
            return torch.autocast(
                at.device.type, torch.bfloat16, enabled=precision == "bf16", **more
            )

        def eager(prompt: Any = prompt, autocast: Any = autocast) -> None:
            with autocast():
                prompt().float().sum().backward()

        ms = _median_ms(at, eager)
        yield Row(check="text prompt", what=f"{precision}, eager", value=ms, unit="ms")
        if at.cuda:
            with autocast(cache_enabled=False):
                graphed = torch.cuda.make_graphed_callables(prompt, (), allow_unused_input=True)
            ms = _median_ms(at, lambda graphed=graphed: graphed().float().sum().backward())
            yield Row(check="text prompt", what=f"{precision}, graph", value=ms, unit="ms")


def compiled(at: Setting) -> Iterator[Row]:
    """A step with the trunk's parts compiled, each on its own, against the same step eager."""
    import torch

    made = _Bench(at, batches=1, form="paper", precision="bf16")
    batch = made.batches[0]
    before = _median_ms(at, lambda: made.step(batch), times=10, warm_up=3)
    backend = "eager" if at.small else "inductor"
    for part in ("encoder", "audio_encoder", "fusion", "anomaly"):
        setattr(made.run.model, part, torch.compile(getattr(made.run.model, part), backend=backend))
    began = time.perf_counter()
    made.step(batch)
    _wait(at)
    took = time.perf_counter() - began
    after = _median_ms(at, lambda: made.step(batch), times=10, warm_up=3)
    yield Row(check="compile", what="once", value=took, unit="s")
    yield Row(check="compile", what="step before", value=before, unit="ms")
    yield Row(check="compile", what="step after", value=after, unit="ms")


def end_to_end(at: Setting) -> Iterator[Row]:
    """``fit`` from an open store to the best weights on the disk, and what that makes of XD."""
    from avadclip_lite.config import make_config
    from avadclip_lite.experiments import graphs
    from tools import bench

    videos, crops, epochs = (4, 1, 1) if at.small else (400, 10, 3)
    dim = SMALL_DIM if at.small else 512
    began = time.perf_counter()
    store = bench.synthetic_store(at.folder / "store", videos=videos, crops=crops, dim=dim)
    took = time.perf_counter() - began
    yield Row(check="fit", what=f"{len(store)} bags written (not counted)", value=took, unit="s")
    for role, graphed in product(("audio_visual", "vision"), ("1", "0")[: 1 + at.cuda]):
        os.environ[graphs.GRAPHS] = graphed
        size = {"scale": "soundstage", "batch_size": 2} if at.small else {"scale": "xd"}
        settings = make_config(
            form="paper", role=role, epochs=epochs, precision="bf16", device=str(at.device), **size
        )
        timing = bench.measure_fit(role, settings, store)
        how = f"{role}, bf16" + ", eager" * (graphed == "0")
        what = f"{how}, {epochs} epochs"
        yield Row(check="fit", what=what, value=timing.seconds, unit="s")
        for part, seconds in timing.parts.items():
            yield Row(check="fit", what=f"{what}: {part}", value=seconds, unit="s")
        yield Row(
            check="fit",
            what=f"{how}, XD, ten epochs, extrapolated",
            value=timing.extrapolated_seconds,
            unit="s",
        )


# --- part two -------------------------------------------------------------------------------------


def encoders(at: Setting) -> Iterator[Row]:
    """The three towers give on the device what they give on the CPU."""
    import numpy as np

    from avadclip_lite.config import SAMPLE_RATE, XD_CLASSES
    from avadclip_lite.encoders import load_encoders

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 48, 64, 3), np.uint8)
    waves = rng.standard_normal((3, SAMPLE_RATE)).astype(np.float32)
    kinds = [("soundstage", "auto"), ("clip", "random")]
    for which, weights in kinds[: 1 if at.small else 2]:
        here = load_encoders(which, weights=weights)
        there = load_encoders(which, weights=weights, device=at.device)
        for name, inputs in (
            ("encode_text", list(XD_CLASSES.words)),
            ("encode_images", pictures),
            ("encode_audio", waves),
        ):
            try:
                a, b = (getattr(side, name)(inputs) for side in (here, there))
                gap = float((a - b).norm() / a.norm())
                yield within("encoders", f"{which}, {name}, relative", gap, 1e-3)
            except RuntimeError as error:
                traceback.print_exc()
                yield holds("encoders", f"{which}, {name}", False, str(error).splitlines()[0])


def lessons(at: Setting) -> Iterator[Row]:
    """Every notebook, as a user runs it, with device=cuda; a few at a time, each on its own."""
    scripts = sorted(ROOT.glob("notebooks/[0-9][0-9]_*.py"))
    if at.small:
        scripts = [_tiny_lesson(at.folder)]
    at_once = min(4, os.cpu_count() or 1, len(scripts))
    with ThreadPoolExecutor(at_once) as pool:
        for row, said in pool.map(lambda script: _lesson(at, script), scripts):
            print(f"--- {row.what}: {row.value} {row.unit}\n{said}", flush=True)
            yield row


def _tiny_lesson(folder: Path) -> Path:
    """Stands in for the course in the dry run: a notebook that computes on the device."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    first = new_code_cell('device: str = "auto"  # where', metadata={"tags": ["parameters"]})
    second = new_code_cell("import torch\nprint(torch.ones(2, device=device).sum())")
    (folder / "notebooks").mkdir()
    path = folder / "notebooks" / "00_tiny.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[first, second], metadata={"kernelspec": kernel}), path)
    path.with_suffix(".py").write_text('device: str = "auto"  # where\n')
    return path.with_suffix(".py")


def _lesson(at: Setting, script: Path) -> tuple[Row, str]:
    name, out = script.stem, at.folder / "lessons" / script.stem
    asked = {"folder": str(script.parent), "out": str(out), "only": [name[:2]], "words": []}
    if re.search(r"^device:", script.read_text(encoding="utf-8"), re.M):
        asked["words"] = [("device", str(at.device))]
    call = (
        "import json, pathlib, sys; from tools.run import run; "
        "asked = json.loads(sys.argv[1]); "
        "folders = {key: pathlib.Path(asked.pop(key)) for key in ('folder', 'out')}; "
        "run(**folders, **asked)"
    )
    began = time.monotonic()
    left = max(1.0, at.until - began)
    try:
        done = subprocess.run(
            [sys.executable, "-c", call, json.dumps(asked)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=left,
        )
        ok, said = done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    except subprocess.TimeoutExpired:
        ok, said = False, f"stopped after {left:.0f} s"
    executed = out / f"{name}.ipynb"
    if not ok and executed.is_file():
        (at.out / f"failed_{name}.ipynb").write_bytes(executed.read_bytes())
    seconds = time.monotonic() - began
    return Row(check="lesson", what=name, value=seconds, unit="s", ok=ok), said


# --- running them ---------------------------------------------------------------------------------

CHECKS: dict[str, list[Callable[[Setting], Iterator[Row]]]] = {
    "one": [
        losses,
        not_a_number,
        independence,
        determinism,
        captured,
        evaluation,
        steps,
        end_to_end,
        attention,
        text_prompt,
        compiled,
    ],
    "two": [encoders, lessons],
}


def _child(check: Callable[[Setting], Iterator[Row]], at: Setting, rows: Path, log: Path) -> None:
    os.setpgrp()  # so that whatever it starts can be stopped with it
    with rows.open("w", encoding="utf-8") as kept, log.open("w", encoding="utf-8") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        sys.stdout = sys.stderr = said
        try:
            for row in check(at):
                kept.write(json.dumps(asdict(row)) + "\n")
                kept.flush()
        except Exception as error:
            traceback.print_exc()
            first = (str(error).splitlines() or [""])[0]
            row = holds(check.__name__, f"{type(error).__name__}: {first}"[:46], False)
            kept.write(json.dumps(asdict(row)) + "\n")


def perform(check: Callable[[Setting], Iterator[Row]], at: Setting) -> tuple[list[Row], str]:
    """The rows of a check and what it said, from a process of its own."""
    name = check.__name__
    rows, log = at.folder / f"{name}.jsonl", at.folder / f"{name}.log"
    if at.until - time.monotonic() < 5:
        return [holds(name, "not reached: the seconds were spent", False)], ""
    began = time.monotonic()
    process = multiprocessing.get_context("fork").Process(
        target=_child, args=(check, at, rows, log)
    )
    process.start()
    process.join(max(1.0, at.until - time.monotonic()))
    found = []
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        found.append(holds(name, "stopped: the seconds were spent", False))
    elif process.exitcode:
        found.append(holds(name, f"the process ended with status {process.exitcode}", False))
    kept = rows.read_text(encoding="utf-8").splitlines() if rows.is_file() else []
    said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    seconds = time.monotonic() - began
    return [Row(**json.loads(line)) for line in kept] + found, f"== {name}, {seconds:.1f} s\n{said}"


def run_part(part: str, at: Setting, where: dict[str, str]) -> int:
    """All checks of a part; the table last."""
    rows: list[Row] = []
    began = time.monotonic()
    log = at.out / f"part_{part}.txt"
    with log.open("w", encoding="utf-8") as file:
        for check in CHECKS[part]:
            found, said = perform(check, at)
            rows += found
            print(f"{check.__name__}: {len(found)} rows", file=sys.stderr, flush=True)
            file.write(said + "\n")
            _write(at.out / f"part_{part}.json", where, rows)
        failed = [row for row in rows if row.ok is False]
        held = sum(row.ok is True for row in rows)
        facts = ", ".join(f"{name} {value}" for name, value in where.items())
        table = [facts, *(row.line() for row in rows)]
        table.append(
            f"part {part}: {held} held, {len(failed)} failed, {time.monotonic() - began:.0f} s"
        )
        text = "\n".join(table)
        file.write(f"\n{text}\n")
    print(text)
    return int(bool(failed))


def _write(path: Path, where: dict[str, str], rows: list[Row]) -> None:
    content = {"machine": where, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def machine(device: str) -> dict[str, str]:
    """Where and on what this runs. Asked in a process of its own: it starts CUDA."""
    code = (
        "import torch, sys; d = torch.device(sys.argv[1]); "
        "print(torch.cuda.get_device_name(d) if d.type == 'cuda' else 'CPU'); "
        "print(torch.__version__)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code, device], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        raise SystemExit(f"gpu_check: --device {device} cannot be used here ({last})")
    name, version = asked.stdout.split("\n")[:2]
    return {
        "device": name,
        "torch": version,
        "Python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


# --- wheels ---------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(roots: list[str]) -> set[str]:
    """Distributions and all that they require, as far as they are installed here."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    queue = [_plain(root) for root in roots]
    while queue:
        name = queue.pop()
        if name in found or name in DISPENSABLE:
            continue
        try:
            needs = [Requirement(text) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        queue += [_plain(n.name) for n in needs if not n.marker or n.marker.evaluate({"extra": ""})]
    return found


def fetch_wheels(folder: Path, python: str) -> int:
    """Fill ``folder/one`` and ``folder/two`` with the wheels that a bare GPU machine lacks."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lacking = closure([Requirement(text).name for text in project["dependencies"]])
    lacking -= closure(THERE)
    tree = sum(p.stat().st_size for p in map(ROOT.joinpath, _tracked()) if p.is_file())
    for trip, names in (("one", lacking & FIRST_TRIP), ("two", lacking - FIRST_TRIP)):
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        target = folder / trip
        for name in sorted(names):
            exact = f"{name}=={metadata.version(name)}"
            binary = ["--only-binary", ":all:", "--python-version", python, exact]
            done = subprocess.run(
                [*pip, "download", "--no-deps", "-d", str(target), *binary], stderr=subprocess.PIPE
            )
            if done.returncode:  # no wheel: build one
                subprocess.run([*pip, "wheel", "--no-deps", "-w", str(target), exact], check=True)
        size = sum(path.stat().st_size for path in target.glob("*.whl"))
        print(
            f"{target}: {len(names)} wheels, {size / 2**20:.0f} MiB, with the tree "
            f"{(size + tree) / 2**20:.0f} of {MAX_TRIP / 2**20:.0f} MiB"
        )
        if size + tree > MAX_TRIP:
            print("gpu_check: too much for one trip", file=sys.stderr)
            return 1
    return 0


def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    return listed.stdout.splitlines()


def unpack_wheels(folder: Path, site: Path) -> None:
    """Install the wheels of what this Python lacks, without a network, into ``site``."""
    wanted = []
    for wheel in sorted(folder.glob("*.whl")):
        try:
            metadata.version(wheel.name.split("-")[0])
        except metadata.PackageNotFoundError:
            wanted.append(str(wheel))
    if wanted:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--no-index", "--no-deps", "--target", str(site), *wanted], check=True
        )
        print(f"{len(wanted)} wheels unpacked into {site}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["one", "two", "wheels"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="the dry run: tiny, measures nothing")
    parser.add_argument("--seconds", type=float, default=345.0, help="for all checks of the part")
    parser.add_argument(
        "--only", nargs="*", default=[], help="checks to run, by part of their name"
    )
    parser.add_argument("--python", default=THERE_PYTHON, help="Python of the machine to come")
    args = parser.parse_args()
    began = time.monotonic()
    wheels = Path(os.environ.get("WHEELS", "runs/wheels"))
    if args.part == "wheels":
        return fetch_wheels(wheels, args.python)
    unpack_wheels(wheels / args.part, Path(os.environ.get("SITE", "runs/gpu_site")))
    out = Path(os.environ.get("OUT", "runs/gpu_check"))
    out.mkdir(parents=True, exist_ok=True)
    where = machine(args.device)
    import torch

    import avadclip_lite.train  # noqa: F401  imported once, before the checks' processes part

    if args.only:
        CHECKS[args.part] = [
            check
            for check in CHECKS[args.part]
            if any(word in check.__name__ for word in args.only)
        ]
    with tempfile.TemporaryDirectory() as folder:
        at = Setting(
            device=torch.device(args.device),
            small=args.small,
            out=out.resolve(),
            folder=Path(folder),
            until=began + args.seconds,
        )
        return run_part(args.part, at, where)


if __name__ == "__main__":
    sys.exit(main())
