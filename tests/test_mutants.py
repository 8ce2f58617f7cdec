"""The tests notice faults: see ``mutants``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mutants
import pytest
from mutants import MUTANTS, Mutant


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    with mutants.copy_of_the_package() as folder:
        mutants.check_unharmed(folder, MUTANTS)
        yield folder


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_fault_is_noticed(copy: Path, mutant: Mutant) -> None:
    before = mutant.source(copy)
    assert mutants.killed(copy, mutant), f"{mutant.killer} passes with {mutant.name}"
    assert mutant.source(copy) == before  # and it is gone again


def test_the_faults_are_different() -> None:
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len({m.name for m in MUTANTS}) >= 35


def test_what_changes_nothing_survives(copy: Path) -> None:
    harmless = replace(MUTANTS[2], old='"shooting", "riot"', new='"shooting",  "riot"')
    assert not mutants.killed(copy, harmless)


def test_a_test_that_is_not_there_kills_nothing(copy: Path) -> None:
    assert not mutants.killed(copy, replace(MUTANTS[2], killer="tests/test_config.py::test_gone"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_fault_still_has_its_place(mutant: Mutant) -> None:
    file, _, test = mutant.killer.partition("[")[0].partition("::")
    assert mutant.source() and f"def {test}(" in (mutants.ROOT / file).read_text()


def test_a_text_that_has_changed_is_reported() -> None:
    with pytest.raises(ValueError, match="is 0 times in avadclip_lite/config.py, not once"):
        replace(MUTANTS[2], old="no such text").source()
