"""Ten small faults, one at a time, in a copy of the package; each must be noticed by a named test.

    python tests/mutants.py            # all, as a table
    python tests/mutants.py "K off"    # those whose name holds these words

A fault is killed when its test fails: not when it cannot be collected, and only if it passes in
the same copy without the fault. ``test_mutants.py`` does the same in the test run, so the list
cannot rot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTEST_FAILED = 1  # pytest's status when tests ran and some failed; other errors are 2 and above


@dataclass(frozen=True)
class Mutant:
    """One fault: in ``file`` of the package, ``old`` (there exactly once) becomes ``new``."""

    name: str
    file: str
    old: str
    new: str
    killer: str  # the test that must notice

    @property
    def path(self) -> Path:
        return Path("avadclip_lite") / self.file

    def source(self, root: Path = ROOT) -> str:
        """The file's text; ``ValueError`` unless ``old`` is in it exactly once."""
        text = (root / self.path).read_text(encoding="utf-8")
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.old!r} is {times} times in {self.path}, not once")
        return text


MUTANTS = [
    Mutant(
        "a mask dropped",
        "temporal.py",
        "x = zero_padding(layer(x, adjacency), keep)",
        "x = layer(x, adjacency)",
        "tests/test_model.py::test_padding_never_reaches_a_valid_snippet",
    ),
    Mutant(
        "K off by one",
        "losses.py",
        "count = torch.minimum(lengths // divisor + 1, lengths)",
        "count = torch.minimum(lengths // divisor + 2, lengths)",
        "tests/test_losses.py::test_topk_mean_by_hand",
    ),
    Mutant(
        "classes swapped",
        "config.py",
        '"shooting", "riot"',
        '"riot", "shooting"',
        "tests/test_config.py::test_classes_are_the_papers_in_its_order",
    ),
    Mutant(
        "softmax over the wrong axis",
        "prompts.py",
        "(cosine / self.temperature).softmax(dim=-1)",
        "(cosine / self.temperature).softmax(dim=0)",
        "tests/test_prompts.py::test_audio_visual_prompt_equals_a_loop_over_videos_and_classes",
    ),
    Mutant(
        "sigmoid left out",
        "fusion.py",
        "return torch.sigmoid(self.weigh(torch.cat([x_v, x_a], dim=-1)))",
        "return self.weigh(torch.cat([x_v, x_a], dim=-1))",
        "tests/test_fusion.py::test_adaptive_fusion_by_hand",
    ),
    Mutant(
        "a frozen tower left trainable",
        "encoders.py",
        "        self.requires_grad_(False)\n        super().train(False)\n",
        "        super().train(False)\n",
        "tests/test_encoders.py::test_tower_is_frozen_but_lets_gradients_through",
    ),
    Mutant(
        "an annotation's end made inclusive",
        "dataset.py",
        "np.add.at(steps, bounds[:, 1], -1)",
        "np.add.at(steps, np.minimum(bounds[:, 1] + 1, offset[-1]), -1)",
        "tests/test_store.py::test_frame_truth_by_hand",
    ),
    Mutant(
        "the teacher left in training mode",
        "train.py",
        "        return super().train(False)\n",
        "        return super().train(mode)\n",
        "tests/test_train.py::test_the_frozen_teacher_cannot_be_unfrozen",
    ),
    Mutant(
        "an IoU with the shared part twice in the union",
        "evaluate.py",
        "((p_end - p_start) + (t_end - t_start) - shared)",
        "((p_end - p_start) + (t_end - t_start))",
        "tests/test_evaluate.py::test_map_by_hand",
    ),
    Mutant(
        "audio shifted by a snippet",
        "dataset.py",
        "audio = self._gather(self._audio, audio_start, audio_lengths, step)",
        "audio = self._gather(self._audio, audio_start, audio_lengths, step).roll(1, dims=1)",
        "tests/test_store.py::test_a_batch_equals_a_loop",
    ),
]


@contextmanager
def copy_of_the_package() -> Iterator[Path]:
    """A folder with everything that tests need, the package and tests copied, data linked."""
    with tempfile.TemporaryDirectory(prefix="mutants_") as name:
        copy = Path(name)
        litter = shutil.ignore_patterns("__pycache__", "benchmarks")
        for folder in ("avadclip_lite", "tests", "tools"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=litter)
        for file in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / file, copy)
        (copy / "data").symlink_to(ROOT / "data")
        yield copy


def run_tests(copy: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """pytest in the copy, in a process of its own, that sees no other package of this name."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    variables |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=copy, env=variables, capture_output=True, text=True)


def check_unharmed(copy: Path, mutants: Sequence[Mutant]) -> None:
    """The tests pass without a fault; ``AssertionError`` with what pytest said otherwise."""
    done = run_tests(copy, sorted({mutant.killer for mutant in mutants}))
    assert done.returncode == 0, f"without any fault:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"


def killed(copy: Path, mutant: Mutant) -> bool:
    """Whether the test notices the fault; the copy is unharmed again afterwards."""
    text = mutant.source(copy)
    path = copy / mutant.path
    try:
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        return run_tests(copy, [mutant.killer]).returncode == PYTEST_FAILED
    finally:
        path.write_text(text, encoding="utf-8")


def main(words: Sequence[str]) -> int:
    chosen = [m for m in MUTANTS if all(word in m.name for word in words)]
    survivors = 0
    with copy_of_the_package() as copy:
        check_unharmed(copy, chosen)
        for mutant in chosen:
            dead = killed(copy, mutant)
            survivors += not dead
            verdict = "killed" if dead else "SURVIVED"
            print(f"{verdict:9s} {mutant.name:47s} {mutant.killer}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
