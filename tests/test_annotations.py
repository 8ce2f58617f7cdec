"""Weak labels and annotation files against hand-read examples."""

from __future__ import annotations

import pytest

from avadclip_lite.config import CCTV_CLASSES, XD_CLASSES
from avadclip_lite.dataset import class_events, has_label, parse_codes, parse_label, truth_events
from avadclip_lite.features.annotations import read_annotations


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("A.Film.2001__#00-01-45_00-02-50_label_A", ("A",)),
        ("v=ab-cd_e__#1_label_G-0-0", ("G",)),
        ("v=ab__#1_label_G-B2-0", ("B2", "G")),  # class order, not the name's
        ("v=ab__#1_label_B6-B2-G", ("B2", "B6", "G")),
        ("Film__#1_label_B1", ("B1",)),  # unpadded, as some training names are
        ("v=ab__#1_label_B1-0-0.mp4", ("B1",)),
        ("a_label_of_things__#1_label_B4-B4-0", ("B4",)),  # the last mark counts; once each
    ],
)
def test_label_of_a_name(name, codes):
    assert parse_label(name, XD_CLASSES) == codes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v__#1_label_B3-0-0", "v__#1_label_B3-0-0.*unknown label code 'B3'.*B1, B2"),
        ("v__#1", "'v__#1' carries no label"),
        ("v__#1_label_0-0-0", "names no class"),
        ("v__#1_label_A-B1-0", "normal .A. and anomalous at once"),
        ("v__#1_label_", "unknown label code ''"),
    ],
)
def test_bad_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        parse_label(name, XD_CLASSES)


def test_codes_are_those_of_the_data_set():
    assert parse_codes("B1-0-0", CCTV_CLASSES) == ("B1",)
    with pytest.raises(ValueError, match="CCTV-Fights knows A, B1"):
        parse_codes("B2-0-0", CCTV_CLASSES)
    assert parse_codes(["G", "B1"], XD_CLASSES) == ("B1", "G")
    assert has_label("v_label_A") and not has_label("my_own_clip")


def test_both_forms_of_an_annotation_file(tmp_path):
    binary, coded = tmp_path / "annotations.txt", tmp_path / "multi.txt"
    binary.write_text(
        "v=a__#1_label_B4-0-0 0 1517 1970 3038\n\n  Film, 2 (x)__#1_label_G-B2-0.mp4 25 92 50 84 \n"
    )
    coded.write_text(
        "\ufeffv=a__#1_label_B4-0-0 B4 0 1517 B4 1970 3038\r\n"
        "Film, 2 (x)__#1_label_G-B2-0 G 25 92 B2 50 84",
        encoding="utf-8",
    )
    assert read_annotations(binary, XD_CLASSES) == {
        "v=a__#1_label_B4-0-0": [(None, 0, 1517), (None, 1970, 3038)],
        "Film, 2 (x)__#1_label_G-B2-0": [(None, 25, 92), (None, 50, 84)],
    }
    assert read_annotations(coded, XD_CLASSES) == {
        "v=a__#1_label_B4-0-0": [("B4", 0, 1517), ("B4", 1970, 3038)],
        "Film, 2 (x)__#1_label_G-B2-0": [("G", 25, 92), ("B2", 50, 84)],
    }


def test_the_two_forms_are_told_apart():
    binary, coded = [(None, 0, 9), (None, 20, 30)], [("G", 0, 5), ("B1", 5, 9)]
    assert truth_events(binary + coded) == binary and class_events(coded + binary) == coded
    assert truth_events(coded) == coded and class_events(binary) == binary
    assert truth_events([]) == class_events([]) == []


def test_names_without_label_are_one_word(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("clip_01 10 20\n")
    assert read_annotations(path, XD_CLASSES) == {"clip_01": [(None, 10, 20)]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x_label_B1-0-0 10 20 30", "groups of 'start end', got '10 20 30'"),
        ("x_label_B1-0-0", "groups of 'start end', got ''"),
        ("x_label_B1-0-0 B1 10", "groups of 'CODE start end'"),
        ("x_label_B1-0-0 B1 10 20 30 B2 40", "whole frame numbers, got 'B2 40'"),
        ("x_label_B1-0-0 10 2.5", "whole frame numbers, got '10 2.5'"),
        ("x_label_B1-0-0 -5 20", "groups of 'CODE start end'"),
        ("x_label_B1-0-0 B9 10 20", "unknown label code 'B9'"),
        ("x_label_B1-0-0 A 10 20", "annotates the normal class A"),
        ("x_label_B1-0-0 20 10", "ends before it starts, 20 10"),
        ("x_label_B1-0-0 10 10", "ends before it starts"),
        ("a_label_B1-0-0.mp4 1 2", "'a_label_B1-0-0' has two lines"),
    ],
)
def test_bad_lines_are_refused_with_their_number(tmp_path, line, message):
    path = tmp_path / "annotations.txt"
    path.write_text(f"a_label_B1-0-0 1 5\n{line}\n")
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(path, XD_CLASSES)
    assert f"{path}, line 2:" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.txt does not exist"):
        read_annotations(tmp_path / "none.txt", XD_CLASSES)
