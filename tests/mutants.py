"""Small faults, one at a time, in a copy of the package; each must be noticed by a named test.

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
        "branch = zero_padding(layer(branch, adjacency), keep)",
        "branch = layer(branch, adjacency)",
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
        "return torch.sigmoid(self.gate_proj(torch.cat([x_v, x_a], dim=-1)))",
        "return self.gate_proj(torch.cat([x_v, x_a], dim=-1))",
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
        "row[start:end] = 1",
        "row[start : end + 1] = 1",
        "tests/test_store.py::test_frame_truth_by_hand",
    ),
    Mutant(
        "the teacher left in training mode",
        "model.py",
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
        "audio=gathered(self._audio, audio_start, audio_lengths)",
        "audio=gathered(self._audio, audio_start, audio_lengths).roll(1, dims=1)",
        "tests/test_store.py::test_a_batch_equals_a_loop",
    ),
    Mutant(
        "a loss that stops at NaN",
        "losses.py",
        "(q.clamp_min(",
        "(q.nan_to_num().clamp_min(",
        "tests/test_losses.py::test_topk_bce_lets_nan_through",
    ),
    Mutant(
        "means of losses unweighted",
        "train.py",
        "part.detach() * len(index)\n                seen[name] = seen.get(name, 0) + len(index)",
        "part.detach()\n                seen[name] = seen.get(name, 0) + 1",
        "tests/test_train.py::test_losses_are_means_over_videos_not_over_batches",
    ),
    Mutant(
        "batches left sorted",
        "dataset.py",
        "return [batches[i] for i in torch.randperm(len(batches), generator=generator)]",
        "return batches",
        "tests/test_train.py::test_length_aware_batches_see_every_bag_once_with_less_padding",
    ),
    Mutant(
        "hold-out judged by all crops",
        "train.py",
        'self.settings.override(crops="first")',
        "self.settings",
        "tests/test_train.py::test_held_out_videos_are_judged_by_one_crop_in_float32",
    ),
    Mutant(
        "hold-out judged in bf16",
        "train.py",
        "output = predict(model, batch)",
        "output = predict(model, batch, model.settings.train.precision)",
        "tests/test_train.py::test_held_out_videos_are_judged_by_one_crop_in_float32",
    ),
    Mutant(
        "watch called in training mode",
        "train.py",
        "watch(self.model.eval())",
        "watch(self.model)",
        "tests/test_train.py::test_watch_sees_the_epochs_weights_in_eval_mode",
    ),
    Mutant(
        "the guard for fully masked windows gone",
        "temporal.py",
        "keys = keys | ~keys.any(dim=1, keepdim=True)",
        "keys = keys.clone()",
        "tests/test_model.py::test_padding_never_reaches_a_valid_snippet",
    ),
    Mutant(
        "the state beside the weights ignored",
        "train.py",
        "path = folder / (STATE if (folder / STATE).is_file() else WEIGHTS)",
        "path = folder / WEIGHTS",
        "tests/test_train.py::test_a_kill_between_the_writes_of_an_epoch_leaves_one_choice",
    ),
    Mutant(
        "the teacher's heads computed for nobody",
        "model.py",
        "features, _, _ = self.detector.encode(batch)",
        "features = self.detector(batch).features",
        "tests/test_train.py::test_the_teacher_of_a_student_computes_no_heads",
    ),
    Mutant(
        "the head in bfloat16",
        "model.py",
        "with torch.autocast(x.device.type, enabled=False):\n            x = x.float()",
        "if True:",
        "tests/test_train.py::test_bf16_does_not_round_confidences",
    ),
    Mutant(
        "the text tower shared between detectors",
        "model.py",
        "copy.deepcopy(context.text)",
        "context.text",
        "tests/test_model.py::test_detectors_own_their_weights",
    ),
    Mutant(
        "clips of a film on both sides of the hold-out",
        "dataset.py",
        'table["name"].str.partition("__#")[0]',
        'table["name"]',
        "tests/test_dataset.py::test_clips_of_one_film_are_held_out_together",
    ),
    Mutant(
        "the last snippet cut where sound is shorter, as released too",
        "evaluate.py",
        'separate = model.settings.data.resample == "separate"',
        "separate = False",
        "tests/test_dataset.py::test_sound_that_is_one_snippet_shorter_cuts_the_paper_form_alone",
    ),
    Mutant(
        "partial sound not masked in evaluation",
        "evaluate.py",
        "store.audio_mask(i)[: len(video)]))",
        "None))",
        "tests/test_dataset.py::test_partial_sound_is_masked_by_one_rule_everywhere",
    ),
    Mutant(
        "partial sound not masked in training",
        "dataset.py",
        "mask &= self._flags",
        "mask | self._flags",
        "tests/test_dataset.py::test_partial_sound_is_masked_by_one_rule_everywhere",
    ),
    Mutant(
        "a device of another kind accepted",
        "config.py",
        'if not re.fullmatch(r"cpu|cuda(:\\d+)?", name):',
        "if False:",
        "tests/test_train.py::test_settings_that_do_not_fit_are_refused",
    ),
    Mutant(
        "pseudo labels lost with an interruption",
        "train.py",
        'self.model.load_training_state(_under("hooks.", tensors))',
        "pass",
        "tests/test_seam.py::test_an_interrupted_two_stage_training_goes_on_exactly",
    ),
    Mutant(
        "a detector's own batches ignored",
        "train.py",
        "self.model.batches(bags, self.shuffling)",
        "Detector.batches(self.model, bags, self.shuffling)",
        "tests/test_seam.py::test_paired_batches_hold_as_many_normal_as_anomalous_bags",
    ),
    *(
        Mutant(
            f"{field} not wired through",
            file,
            old,
            new,
            f"tests/test_every_field.py::test_two_values_of_a_field_give_two_trainings[{field}]",
        )
        for field, file, old, new in (
            ("heads", "model.py", "heads=model.heads", "heads=1"),
            (
                "similarity_threshold",
                "model.py",
                "threshold=model.similarity_threshold",
                "threshold=0.7",
            ),
            ("tcn_dilations", "model.py", "dilations=model.tcn_dilations", "dilations=(1, 2)"),
            ("tcn_dropout", "model.py", "dropout=model.tcn_dropout", "dropout=0.1"),
            ("audio_context", "model.py", "context=model.audio_context", 'context="causal"'),
            (
                "prompt_temperature",
                "model.py",
                "temperature=model.prompt_temperature",
                "temperature=1.0",
            ),
            ("temperature", "model.py", "prompted, model.temperature)", "prompted)"),
            (
                "fusion_heads",
                "fusion.py",
                "(settings.dim, settings.fusion_heads)",
                "(settings.dim)",
            ),
            ("focal_gamma", "losses.py", "gamma=settings.focal_gamma", "gamma=2.0"),
            ("focal_alpha", "losses.py", "alpha=settings.focal_alpha if", "alpha=0.25 if"),
            ("topk_divisor", "losses.py", "divisor = settings.topk_divisor", "divisor = 16"),
            ("ukd_mask", "losses.py", "output.mask if settings.ukd_mask else None", "output.mask"),
            ("grad_clip", "train.py", "if train.grad_clip:", "if False:"),
            ("milestones", "train.py", 'group["lr"] = rate * decay', 'group["lr"] = rate'),
            ("max_steps", "train.py", "if self.step == train.max_steps:", "if False:"),
        )
    ),
    Mutant(
        "a normal interval for few seeds",
        "viz/lesson.py",
        "stats.t.ppf(0.975, n - 1)",
        "stats.norm.ppf(0.975)",
        "tests/test_scoreboard.py::test_means_and_intervals_are_those_of_the_t_test",
    ),
    Mutant(
        "any crop will do",
        "compare/features.py",
        "sum(its != crops for",
        "sum(len(its) != len(crops) for",
        "tests/test_check_features.py::test_each_fault_is_noticed_and_nothing_else",
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
