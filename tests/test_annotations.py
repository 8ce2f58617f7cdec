"""Weak labels and annotation files against hand-read examples."""

from __future__ import annotations

import pytest

from avadclip_lite.config import CCTV_CLASSES, XD_CLASSES
from avadclip_lite.dataset import events_of, parse_codes, parse_label
from avadclip_lite.features.annotations import (
    is_hidden,
    match_names,
    read_annotations,
    read_table,
    read_text,
    some,
    video_name,
)


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
        ("v__#1_label_A-B1-0", "normal and anomalous at once"),
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
    assert events_of(binary + coded, coded=False) == binary
    assert events_of(coded + binary, coded=True) == coded
    assert events_of(coded, coded=False) == coded and events_of(binary, coded=True) == binary
    assert events_of([], coded=True) == events_of([], coded=False) == []


@pytest.mark.parametrize(
    "line",
    [
        "Film, 2__#1_label_G-B2-0.mp4\t25\t92\t50\t84",
        '"Film, 2__#1_label_G-B2-0",25,92,50,84,,',
        "Film, 2__#1_label_G-B2-0;25;92;50;84",
    ],
)
def test_annotations_that_a_spreadsheet_saved(tmp_path, line):
    (tmp_path / "a.csv").write_text(f"{line}\n;;\n" if ";" in line else f"{line}\n")
    if ";" in line:
        with pytest.raises(ValueError, match="a.csv, line 2: ';;' does not begin with the name"):
            read_annotations(tmp_path / "a.csv", XD_CLASSES)
        (tmp_path / "a.csv").write_text(line)
    assert read_annotations(tmp_path / "a.csv", XD_CLASSES) == {
        "Film, 2__#1_label_G-B2-0": [(None, 25, 92), (None, 50, 84)]
    }


def test_names_without_label_are_one_word(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("clip_01 10 20\n")
    assert read_annotations(path, XD_CLASSES) == {"clip_01": [(None, 10, 20)]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x_label_B1-0-0 10 20 30", "'CODE start end' in whole frames, got '10 20 30'"),
        ("x_label_B1-0-0", "groups of 'start end' or of 'CODE start end' .*, got ''"),
        ("x_label_B1-0-0 B1 10", "in whole frames, got 'B1 10'"),
        ("x_label_B1-0-0 B1 10 20 30 B2 40", "in whole frames, got 'B1 10 20 30 B2 40'"),
        ("x_label_B1-0-0 10 20 B1 30 40", "in whole frames, got '10 20 B1 30 40'"),
        ("x_label_B1-0-0 10 2.5", "in whole frames, got '10 2.5'"),
        ("x_label_B1-0-0 -5 20", "in whole frames, got '-5 20'"),
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


# ---------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a_label_A", "a_label_A"),
        ("a_label_A.mp4", "a_label_A"),
        ("test/a_label_A.MKV", "test/a_label_A"),
        (r"test\sub\a.mp4", "test/sub/a"),
        ("./a.avi ", "a"),
        ("x//a.mp4", "x/a"),
        ("A.Film.1999", "A.Film.1999"),  # no suffix of a video
        (".mp4", ".mp4"),
        ("Cafe\u0301.mp4", "Caf\u00e9"),  # as macOS writes it
    ],
)
def test_names_are_compared_in_one_form(given, name):
    assert video_name(given) == name == video_name(name)


def test_names_match_where_one_ends_with_the_other():
    videos = ["test/one_label_G", "two", "a/clip", "b/clip", "clip", "film.mp4", "film.mkv"]
    listed = ["one_label_G.mp4", "/home/x/two.avi", "b/clip", "clip.mp4", "nobody", "film.mkv"]
    found, unmatched = match_names(listed, videos)
    assert found == {
        "test/one_label_G": "one_label_G.mp4",
        "two": "/home/x/two.avi",
        "b/clip": "b/clip",
        "clip": "clip.mp4",
        "film.mkv": "film.mkv",
    }
    assert unmatched == ["nobody"]
    assert match_names([r"C:\films\a\clip.MP4"], ["a/clip", "b/clip"])[0] == {
        "a/clip": r"C:\films\a\clip.MP4"
    }
    assert match_names(["Caf\u00e9"], ["x/Cafe\u0301"])[0] == {"x/Cafe\u0301": "Caf\u00e9"}
    # another folder's video of the same name is another video
    assert match_names(["train/001.mp4"], ["test/001"]) == ({}, ["train/001.mp4"])
    assert match_names(["/d/a/x", "x"], ["a/x", "x"])[0] == {"a/x": "/d/a/x", "x": "x"}
    assert match_names([], ["a"]) == ({}, []) and match_names(["a"], []) == ({}, ["a"])


@pytest.mark.parametrize(
    ("listed", "videos", "message"),
    [
        (["clip"], ["a/clip", "b/clip"], "'clip' could be 'a/clip' or 'b/clip'; write it as one"),
        (
            ["/x/a/clip.mp4"],
            ["a/clip", "x/a/clip.mkv", "x/a/clip.avi"],
            "could be 'x/a/clip.mkv' or",
        ),
        (["one", "t/one"], ["t/one"], "'one' and 't/one' are both names of video 't/one'; keep"),
    ],
)
def test_names_that_could_be_two_are_refused(listed, videos, message):
    with pytest.raises(ValueError, match=message):
        match_names(listed, videos)


@pytest.mark.parametrize(
    "name", ["._a.mp4", "x/.DS_Store", "Thumbs.db", "x/__MACOSX", "@eaDir", "$RECYCLE.BIN"]
)
def test_files_of_other_systems_are_hidden(name):
    assert is_hidden(name) and not is_hidden("x/a.mp4") and not is_hidden("thumbs.mp4")


def test_many_names_are_counted_and_some_named():
    assert some(["a"]) == "1 video: a" and some(list("abc"), "file") == "3 files: a, b, c"
    assert some([str(k) for k in range(1250)]) == "1,250 videos: 0, 1, 2 and 1,247 more"


# ---------------------------------------------------------------------------- text and tables


CAFE = "Caf\u00e9.1999__#1_label_B1-0-0 1 5\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"]
)
def test_encodings_are_told_apart(tmp_path, encoding):
    path, remarks = tmp_path / "annotations.txt", []
    text = CAFE.encode(encoding)
    if encoding == "utf-16":
        path.write_bytes(b"\xfe\xff" + CAFE.encode("utf-16-be"))  # the other order
        assert read_annotations(path, XD_CLASSES, remarks)
    path.write_bytes(text)
    assert read_annotations(path, XD_CLASSES, remarks) == {CAFE.split()[0]: [(None, 1, 5)]}
    guessed = encoding in ("cp1252", "latin-1")
    assert len(remarks) == guessed
    if guessed:
        assert f"{path} is not in UTF-8 and was read as Windows-1252" in remarks[0]


@pytest.mark.parametrize(
    "data",
    [
        "\u76d1\u63a7\u8d70\u5eca 1 5".encode("gbk") + b"\x81\x8d",
        b"\xff\xfea",  # half a character
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\xa4\xdd\x00\xd8\xd9",  # a spreadsheet
    ],
)
def test_what_is_no_known_text_is_refused(tmp_path, data):
    (tmp_path / "list").write_bytes(data)
    with pytest.raises(ValueError, match="list is not text in UTF-8, UTF-16 or Windows-1252; save"):
        read_text(tmp_path / "list")


@pytest.mark.parametrize(
    "text",
    [
        "name,label\nx y,A\n",
        "NAME;Label;\n\nx y ; A;\n",
        "\ufeffName\tLABEL\r\nx y\tA\r\n",
        '"name","label"\r"x y","A"\r',
        "label,Name\nA,x y\n,\n",
    ],
)
def test_tables_of_other_programs(tmp_path, text):
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode())
    ((where, cells),) = read_table(path, {"name": "", "label": ""})
    assert (cells["name"], cells["label"]) == ("x y", "A")
    assert where.startswith(f"{path}, line ")


def test_bad_tables_are_refused(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("Name;Class\na;b\nc;d;e\n")
    with pytest.raises(ValueError, match="list.csv, line 3: wrong number of cells; .*';'"):
        read_table(path, {"name": "add it"})
    with pytest.raises(ValueError, match="list.csv has no column 'label' in 'name, class'; add it"):
        read_table(path, {"label": "add it"})
    path.write_text("")
    with pytest.raises(ValueError, match="list.csv has no column 'label' in ''; add it"):
        read_table(path, {"label": "add it"})
    path.write_text("name,label,Name\na,A,b\n")  # of which the last was taken
    with pytest.raises(ValueError, match="list.csv has two columns 'name' in 'name, label, name'"):
        read_table(path, {"name": "keep one"})


def test_a_file_of_each_form_in_one_call(tmp_path):
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("a_label_B1 1 5\n")
    other.write_text("a_label_B1.mp4 B1 1 4\nb_label_G G 2 3\n")
    assert read_annotations([one, other], XD_CLASSES) == {
        "a_label_B1": [(None, 1, 5), ("B1", 1, 4)],
        "b_label_G": [("G", 2, 3)],
    }
    with pytest.raises(
        ValueError, match="one.txt, line 1: video 'a_label_B1' has two lines of one"
    ):
        read_annotations([one, other, one], XD_CLASSES)
