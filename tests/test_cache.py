"""The cache in front of training: what is found again, what is not, and two who ask at once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tiny import tiny_settings, tiny_store, tiny_text

from avadclip_lite import train
from avadclip_lite.experiments import cache
from avadclip_lite.experiments.cache import source_digest, train_or_load

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("data") / "tiny")


def run(store, **overrides):
    text, prompts = tiny_text()
    settings = tiny_settings(**overrides)
    return train.fit(settings, store, text=text, prompts=prompts, progress=False)


def same_weights(one, other) -> bool:
    theirs = other.trainable_state()
    return all(torch.equal(value, theirs[name]) for name, value in one.trainable_state().items())


def cached(store, folder, teacher=None, **overrides):
    text, prompts = tiny_text()
    settings = tiny_settings(**overrides)
    return train_or_load(settings, store, text=text, prompts=prompts, teacher=teacher, cache=folder)


def test_the_cache_finds_the_same_training_and_no_other(store, tmp_path, monkeypatch) -> None:
    first = cached(store, tmp_path)
    calls = []
    original = train.TrainingRun.train
    monkeypatch.setattr(
        train.TrainingRun, "train", lambda self, *a: calls.append(1) or original(self, *a)
    )
    assert same_weights(cached(store, tmp_path).model, first.model)
    assert calls == []
    cached(store, tmp_path, seed=1)  # another configuration
    assert len(calls) == 1
    cached(tiny_store(tmp_path / "other", train=20), tmp_path)  # other data
    assert len(calls) == 2
    monkeypatch.setattr(cache, "source_digest", lambda: "changed")
    cached(store, tmp_path)  # another package
    assert len(calls) == 3
    monkeypatch.setenv("AVADCLIP_CACHE", str(tmp_path / "elsewhere"))
    cached(store, None)  # an empty cache
    assert len(calls) == 4 and (tmp_path / "elsewhere").is_dir()
    for seed in (0, 1):  # another teacher
        cached(store, tmp_path, teacher=run(store, seed=seed).model, role="vision")
    assert len(calls) == 4 + 2 * 2


def test_the_same_data_elsewhere_are_the_same_training(store, tmp_path, monkeypatch) -> None:
    first = cached(store, tmp_path)
    again = tiny_store(tmp_path / "elsewhere")
    monkeypatch.setattr(train.TrainingRun, "train", lambda *args: pytest.fail("trained again"))
    assert same_weights(cached(again, tmp_path).model, first.model)


def test_the_source_digest_follows_the_method_and_nothing_else(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    seen = set()
    # captured steps are taken only while they give what eager ones do
    others = "viz/plots.py", "experiments/graphs.py", "__main__.py", "notes.txt"
    for place in ("model.py", "losses.py", "model.py", *others):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.read_text() + "#" if path.is_file() else "")
        source_digest.cache_clear()
        seen.add(source_digest())
    source_digest.cache_clear()
    assert len(seen) == 3


def test_a_cache_that_cannot_be_written_is_told_with_the_variable(store, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written .* AVADCLIP_CACHE"):
        cached(store, tmp_path / "file" / "cache")


def test_two_processes_that_ask_at_once_train_once(store, tmp_path) -> None:
    source = textwrap.dedent(f"""
        import sys
        sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]
        from avadclip_lite import train
        from avadclip_lite.dataset import FeatureStore
        from tiny import tiny_settings, tiny_text
        import time
        one_epoch = train.TrainingRun.one_epoch

        def slowly(self, *args):
            print("epoch", flush=True)
            time.sleep(0.3)
            return one_epoch(self, *args)

        train.TrainingRun.one_epoch = slowly
        text, prompts = tiny_text()
        from avadclip_lite.experiments.cache import train_or_load
        result = train_or_load(tiny_settings(), FeatureStore.open({str(store.path)!r}), text=text,
                               prompts=prompts, cache={str(tmp_path)!r}, progress=False)
        print(train._digest(result.model.trainable_state(), ""))
    """)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", source],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    said = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sorted(words.count("epoch") for words in said) == [0, 3]
    assert said[0][-1] == said[1][-1]
