"""What makes a notebook a lesson: how much there is of it, in which order, and honest minutes.

``notebook_rules`` says what any notebook keeps; this says what the course wants of each, as limits
on what can be counted and as rules that hold or do not. Each rule is also shown a lesson with one
fault planted.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import symtable
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from notebook_rules import Page, Rules, cell_source, counts, reading_minutes

from tools.notebook_files import cell_tags

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
MODEL_LESSON = "09_xd_violence.ipynb"  # it breaks nothing; faults are planted in copies of it

MOST = {"words": 2_500, "code lines": 320, "sections": 8, "longest cell": 40, "figures": 6}
LEAST = {"figures": 3}
OPEN = ("03", "05", "06", "07", "08")  # lessons in which at least one exercise is open
MARK = "**Open.**"  # in the prompt of one: its check measures, it does not know the answer
COURSE = {"words a lesson": 2_250, "code lines a lesson": 290, "hours": 8}


# --- what can be counted --------------------------------------------------------------------------


def beyond(page: Page) -> list[str]:
    """Counts that break their limit."""
    found, complaints = counts(page), []
    for name, most in MOST.items():
        least = LEAST.get(name, 0)
        if not least <= found[name] <= most:
            complaints.append(f"{name}: {found[name]}, limits {least} and {most}")
    return complaints


# --- what holds or does not -----------------------------------------------------------------------

rule = RULES = Rules()


def exercises(page: Page) -> list[int]:
    return [i for i, cell in page.code if "exercise" in cell_tags(cell)]


def exercise_minutes(page: Page) -> list[tuple[int, bool]]:
    """Of each exercise: its own minutes, 0 where it states none, and whether it is open."""
    found = []
    for number in exercises(page):
        prompt = cell_source(page.cells[number - 1])
        stated = re.search(r"\*(\d+) minutes", prompt)
        found.append((int(stated[1]) if stated else 0, MARK in prompt))
    return found


def stated_minutes(page: Page) -> tuple[int, int] | None:
    """Reading and hands-on, as the header states them."""
    stated = r"^\*\*Minutes:\*\* (\d+) to read, (\d+) hands-on; \d+ on two "
    found = re.search(stated, cell_source(page.cells[0]), re.M)
    return (int(found[1]), int(found[2])) if found else None


@rule
def minutes(page: Page) -> Iterator[str]:
    """The header states reading and hands-on apart, and neither is less than honest."""
    stated, own = stated_minutes(page), exercise_minutes(page)
    if stated is None:
        yield "the header does not state `N to read, N hands-on; N on two CPU cores`"
        return
    if stated[0] < reading_minutes(page):
        yield f"{stated[0]} to read are less than {reading_minutes(page):.0f}"
    for nth, (its, is_open) in enumerate(own, start=1):
        if its < (least := 10 if is_open else 5):
            yield f"exercise {nth}: {its} minutes are less than {least}"
    if stated[1] < sum(its for its, _ in own):
        yield f"{stated[1]} hands-on are less than the exercises' {sum(its for its, _ in own)}"


@rule
def core(page: Page) -> Iterator[str]:
    """The short path: from the header to the recap, less than everything, and it runs alone as far
    as tags can tell."""
    tagged = [("core" in cell_tags(cell)) for cell in page.cells]
    if not any(tagged):
        yield "no cell is tagged core"
        return
    if all(tagged):
        yield "every cell is tagged core: nothing deepens"
    for number, cell in enumerate(page.cells):
        needed = {"parameters", "setup"} & set(cell_tags(cell))
        if (needed or number in (0, len(page.cells) - 1)) and not tagged[number]:
            yield f"cell {number} ({', '.join(needed) or 'header or recap'}) is not core"
    for number in exercises(page):
        if len({tagged[k] for k in (number - 1, number, number + 1)}) > 1:
            yield f"exercise at cell {number}: prompt, code and check are not on one path"


def names_of(source: str) -> tuple[set[str], set[str]]:
    """Of a cell: the names that it reads from outside its own functions, and those it binds."""
    cell = symtable.symtable(source, "cell", "exec")
    bound = {s.get_name() for s in cell.get_symbols() if s.is_assigned() or s.is_imported()}
    read = {s.get_name() for s in cell.get_symbols() if s.is_referenced()}
    inner = list(cell.get_children())
    while inner:
        scope = inner.pop()
        read |= {s.get_name() for s in scope.get_symbols() if s.is_global() and s.is_referenced()}
        inner += scope.get_children()
    return read, bound


@rule
def core_alone(page: Page) -> Iterator[str]:
    """The short path runs alone: whatever a core cell reads, this or an earlier core cell binds."""
    known = set(dir(builtins))
    for number, cell in page.code:
        if "core" in cell_tags(cell):
            read, bound = names_of(cell_source(cell))
            if missing := read - bound - known:
                yield f"cell {number} is core and needs {', '.join(sorted(missing))} of others"
            known |= bound


@rule
def exercise_early(page: Page) -> Iterator[str]:
    """The first exercise follows the toy: in the first half, and nothing of it is used before."""
    first = exercises(page)[0]
    if first > len(page.cells) / 2:
        yield f"the first exercise is cell {first} of {len(page.cells)}"
    body = ast.parse(cell_source(page.cells[first])).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    for number, cell in page.code:
        names = {
            node.id for node in ast.walk(ast.parse(cell_source(cell))) if type(node) is ast.Name
        }
        if number < first and defined & names:
            yield f"cell {number} uses {', '.join(defined & names)} before it is asked for"


@rule
def scoreboard(page: Page) -> Iterator[str]:
    """The last cell but one, before the recap, draws the scoreboard up to this lesson."""
    cell = page.cells[-2]
    called = f'upto="{page.path.name[:2]}"'
    if cell["cell_type"] != "code" or "scoreboard(" not in cell_source(cell):
        yield "the last cell but one draws no scoreboard"
    elif called not in cell_source(cell):
        yield f"the scoreboard is not drawn {called}"


@rule
def open_exercise(page: Page) -> Iterator[str]:
    """Where the course wants one, an exercise is open."""
    if page.path.name[:2] in OPEN and not any(is_open for _, is_open in exercise_minutes(page)):
        yield f"no exercise is open (its prompt says {MARK})"


# --- the lessons as they are ----------------------------------------------------------------------

each_lesson = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each_lesson
def test_no_lesson_is_longer_than_allowed(path: Path) -> None:
    assert beyond(Page(path)) == []


@each_lesson
@pytest.mark.parametrize("name", RULES)
def test_a_lesson_keeps_the_rules(path: Path, name: str) -> None:
    assert list(RULES[name](Page(path))) == []


def test_the_course_as_a_whole() -> None:
    """Averages, and the hours that reading and exercises take at least."""
    pages = [Page(path) for path in NOTEBOOKS]
    found = [counts(page) for page in pages]
    practice = [
        max(its, 10 if is_open else 5) for p in pages for its, is_open in exercise_minutes(p)
    ]
    whole = {
        "words a lesson": sum(one["words"] for one in found) / len(found),
        "code lines a lesson": sum(one["code lines"] for one in found) / len(found),
        "hours": (sum(map(reading_minutes, pages)) + sum(practice)) / 60,
    }
    for name, most in COURSE.items():
        assert whole[name] <= most, f"{name}: {whole[name]:.1f}"


# --- and with a fault -----------------------------------------------------------------------------

Cells = list[dict[str, Any]]
PLANTED = count()  # numbers of the cells made here


@pytest.fixture
def lesson(tmp_path: Path) -> Callable[..., Page]:
    """A copy of the model lesson, changed; under another number if one is given."""

    def made(change: Callable[[Cells], object] = lambda cells: None, number: str = "09") -> Page:
        source = next(path for path in NOTEBOOKS if path.name == MODEL_LESSON)
        notebook = json.loads(source.read_text(encoding="utf-8"))
        change(notebook["cells"])
        path = tmp_path / f"{number}{MODEL_LESSON[2:]}"
        path.write_text(json.dumps(notebook), encoding="utf-8")
        return Page(path)

    return made


def code(text: str, outputs: int = 0) -> dict[str, Any]:
    pictures = [{"output_type": "display_data", "data": {"image/png": ""}}] * outputs
    about = {"id": f"planted-{next(PLANTED)}", "metadata": {}, "execution_count": 1}
    return {"cell_type": "code", "source": text, "outputs": pictures, **about}


def core_code(text: str) -> dict[str, Any]:
    cell = code(text)
    cell["metadata"]["tags"] = ["core"]
    return cell


def prose(text: str) -> dict[str, Any]:
    about = {"id": f"planted-{next(PLANTED)}", "metadata": {}}
    return {"cell_type": "markdown", "source": text, **about}


def nth_exercise(cells: Cells, n: int = 0) -> int:
    return [i for i, cell in enumerate(cells) if "exercise" in cell_tags(cell)][n]


def replaced(find: str, put: str) -> Callable[[Cells], None]:
    def change(cells: Cells) -> None:
        hits = [cell for cell in cells if re.search(find, cell_source(cell), re.M)]
        assert hits, find
        hits[0]["source"] = re.sub(find, put, cell_source(hits[0]), count=1, flags=re.M)

    return change


def untagged(which: Callable[[Cells], int]) -> Callable[[Cells], None]:
    def change(cells: Cells) -> None:
        cell = cells[which(cells)]
        cell["metadata"]["tags"] = [tag for tag in cell_tags(cell) if tag != "core"]

    return change


def all_core(cells: Cells) -> None:
    for cell in cells:
        cell["metadata"]["tags"] = [*cell_tags(cell), "core"]


def none_core(cells: Cells) -> None:
    for k in range(len(cells)):
        untagged(lambda _, k=k: k)(cells)


def no_pictures(cells: Cells) -> None:
    for cell in cells:
        cell["outputs"] = [] if "outputs" in cell else None


def exercises_last(cells: Cells) -> None:
    at = nth_exercise(cells)
    three = cells[at - 1 : at + 2]
    del cells[at - 1 : at + 2]
    at = nth_exercise(cells)  # the other one goes with it, to stay the second
    both = three + cells[at - 1 : at + 2]
    del cells[at - 1 : at + 2]
    cells[-2:-2] = both


SIZES: list[tuple[str, Callable[[Cells], object]]] = [
    ("words", lambda cells: cells.insert(1, prose("word " * 2_500))),
    ("code lines", lambda cells: cells.extend(code("x = 1\n" * 30) for _ in range(11))),
    ("sections", lambda cells: cells.insert(1, prose("## One more\n\n## And another"))),
    ("longest cell", lambda cells: cells.insert(3, code("x = 1\n" * 41))),
    ("figures", lambda cells: cells.insert(3, code("show()", outputs=4))),
    ("figures", no_pictures),
]


@pytest.mark.parametrize(("name", "change"), SIZES)
def test_too_much_or_too_little_is_caught(lesson, name: str, change: Callable) -> None:
    caught = [line.split(":")[0] for line in beyond(lesson(change))]
    assert name in caught, caught
    assert set(caught) <= {name, "code lines"}


FAULTS: list[tuple[str, str, Callable[[Cells], object]]] = [
    ("minutes", "does not state", replaced(r"\d+ to read, ", "")),
    ("minutes", "does not state", replaced(r"to read, \d+ hands-on", "to teach")),
    ("minutes", "to read are less", replaced(r"\d+ to read", "15 to read")),
    ("minutes", "hands-on are less", replaced(r"\d+ hands-on", "9 hands-on")),
    ("minutes", "to read are less", lambda cells: cells.insert(3, code("x = 1\n" * 60))),
    ("minutes", "exercise 1: 4 minutes", replaced(r"\*\d+ minutes", "*4 minutes")),
    ("minutes", "exercise 1: 0 minutes", replaced(r"\*\d+ minutes, medium", "*medium")),
    (
        "minutes",
        "exercise 1: 9 minutes",
        replaced(r"\*\d+ minutes, medium.\*", f"*9 minutes* {MARK}"),
    ),
    ("core", "no cell", none_core),
    ("core", "nothing deepens", all_core),
    ("core", "cell 0 (header or recap)", untagged(lambda cells: 0)),
    ("core", "header or recap", untagged(lambda cells: len(cells) - 1)),
    ("core", "(parameters)", untagged(lambda cells: 1)),
    ("core", "(setup)", untagged(lambda cells: 2)),
    ("core", "not on one path", untagged(lambda cells: nth_exercise(cells) + 1)),
    ("core_alone", "is core and needs XD_CLASSES, np", untagged(lambda cells: 2)),
    ("core_alone", "needs x", lambda cells: cells.append(core_code("def f(y):\n    return x + y"))),
    ("core_alone", "needs x", lambda cells: cells.append(core_code("print([x for y in (1, 2)])"))),
    ("exercise_early", "the first exercise is cell", exercises_last),
    ("exercise_early", "uses two_means", lambda cells: cells.insert(3, code("two_means(1, 2)"))),
    ("scoreboard", "draws no scoreboard", lambda cells: cells.pop(-2)),
    ("scoreboard", "draws no scoreboard", lambda cells: cells.insert(-1, prose("One word more."))),
    ("scoreboard", "is not drawn", replaced('upto="09"', 'upto="08"')),
]


@pytest.mark.parametrize(("name", "complaint", "change"), FAULTS)
def test_a_planted_fault_is_caught(lesson, name: str, complaint: str, change: Callable) -> None:
    caught = list(RULES[name](lesson(change)))
    assert any(complaint in line for line in caught), caught


def test_a_lesson_without_an_open_exercise_is_caught_where_one_is_wanted(lesson) -> None:
    assert list(RULES["open_exercise"](lesson())) == []
    assert "no exercise is open" in next(RULES["open_exercise"](lesson(number="05")))
    opened = lesson(replaced(r"medium\.\*", f"hard.* {MARK}"), number="05")
    assert list(RULES["open_exercise"](opened)) == []


def test_every_rule_has_been_broken_and_the_model_breaks_none(lesson) -> None:
    assert {name for name, *_ in FAULTS} | {"open_exercise"} == set(RULES)
    assert {name for name, _ in SIZES} == set(MOST)
    assert beyond(lesson()) == []
    assert [line for check in RULES.values() for line in check(lesson())] == []
