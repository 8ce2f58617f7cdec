"""The plan of the package: who may import whom, and how much there may be of everything.

Imports are read, not executed, so those inside functions and under ``TYPE_CHECKING`` count as well.
Each rule is also shown a copy of the package with one fault planted in it.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "avadclip_lite"
NAME = PACKAGE.name
TOP = ""  # the modules of the method, right in the package

MAY_IMPORT = {  # beyond the top level, which every sub-package may import, and itself
    TOP: set(),
    "features": set(),
    "viz": set(),
    "baselines": set(),
    "compare": {"features"},
    "video": {"features", "viz"},
    "experiments": {"features", "baselines", "viz"},
}
OUTSIDE = {"data", "tools", "tests", "notebooks", "authoring", "workshop", "doctor", "bench"}
EXEMPT = {f"{NAME}.__main__"}  # the command line finds each command where it is

MAX_TOP_FILES = 12
MAX_LINES = {
    TOP: 3_200,
    "features": 750,
    "video": 2_150,
    "experiments": 1_350,
    "compare": 250,
    "viz": 650,
    "baselines": 1_400,
}
MAX_PACKAGE = 8_400  # without baselines
MAX_FILE = {"viz/lesson.py": 150} | {
    f"baselines/{path.name}": 150 for path in PACKAGE.glob("baselines/*.py")
}


def modules(package: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name; a package's is that of its ``__init__``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join((NAME, *parts))] = path
    return found


def folder(module: str) -> str:
    """The sub-package that a module belongs to, ``TOP`` for those of the method."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else TOP


def imported(path: Path, module: str) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it, ``import_module("...")`` included."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join(parents + ([base] if base else []))
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            called = called.id if isinstance(called, ast.Name) else called
            value = node.args[0]
            if called in ("import_module", "__import__") and isinstance(value, ast.Constant):
                yield str(value.value)


def edges(package: Path) -> Iterator[tuple[str, str]]:
    """(module, what it imports); names inside our modules are cut to the module."""
    known = modules(package)
    for module, path in known.items():
        for name in imported(path, module):
            while name.startswith(f"{NAME}.") and name not in known:
                name = name.rpartition(".")[0]
            yield module, name


def forbidden(package: Path) -> list[str]:
    """Imports against the rule."""
    found = []
    for module, name in edges(package):
        here, there = folder(module), folder(name)
        ours = name.split(".")[0] == NAME
        allowed = there in MAY_IMPORT[here] | {here, TOP} if ours else True
        if module not in EXEMPT and (not allowed or name.split(".")[0] in OUTSIDE):
            found.append(f"{module} imports {name}")
    return found


def circle(package: Path) -> list[str]:
    """Modules that import each other in a circle, empty where there is none."""
    graph: dict[str, set[str]] = {module: set() for module in modules(package)}
    for module, name in edges(package):
        if name in graph and name != module:
            graph[module].add(name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def oversized(package: Path) -> list[str]:
    """Everything beyond its limit."""
    lines: dict[Path, int] = {
        path.relative_to(package): path.read_text(encoding="utf-8").count("\n")
        for path in package.rglob("*.py")
    }
    top = [path for path in lines if len(path.parts) == 1]
    totals = {
        where or "top level": (sum(n for p, n in lines.items() if folder_of(p) == where), most)
        for where, most in MAX_LINES.items()
    }
    whole = sum(n for path, n in lines.items() if folder_of(path) != "baselines")
    totals["package without baselines"] = (whole, MAX_PACKAGE)
    totals |= {name: (lines[Path(name)], most) for name, most in MAX_FILE.items()}
    found = [f"{what}: {n} lines of {most}" for what, (n, most) in totals.items() if n > most]
    if len(top) > MAX_TOP_FILES:
        found.append(f"top level: {len(top)} files of {MAX_TOP_FILES}")
    strangers = {p.parts[0] for p in lines if len(p.parts) > 1} - MAX_LINES.keys()
    return found + [f"{name}: a folder that the plan does not know" for name in sorted(strangers)]


def folder_of(path: Path) -> str:
    return path.parts[0] if len(path.parts) > 1 else TOP


# --- the package as it is -------------------------------------------------------------------------


def test_nothing_is_imported_against_the_rule() -> None:
    assert not forbidden(PACKAGE)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not circle(PACKAGE)


def test_everything_stays_inside_its_size() -> None:
    assert not oversized(PACKAGE)


# --- and with a fault -----------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(PACKAGE, tmp_path / NAME, ignore=shutil.ignore_patterns("__pycache__"))


def plant(package: Path, file: str, text: str) -> None:
    path = package / file
    path.parent.mkdir(exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.write_text(f"{before}\n{text}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("losses.py", "import avadclip_lite.video.reader", "losses imports avadclip_lite.video"),
        ("fusion.py", "def f():\n    from avadclip_lite.viz import plots", "fusion imports"),
        ("features/writer.py", "from ..video.reader import Sound", "writer imports"),
        ("viz/plots.py", "from avadclip_lite import features", "plots imports"),
        ("compare/paper.py", "from avadclip_lite.experiments.study import fit", "paper imports"),
        ("video/extract.py", "from avadclip_lite import compare", "extract imports"),
        ("baselines/toy.py", "from avadclip_lite.viz import plots", "baselines.toy imports"),
        ("viz/lesson.py", "from data.make_soundstage import scenes", "lesson imports data"),
        ("train.py", "import importlib\nimportlib.import_module('tools.bench')", "train imports"),
        ("evaluate.py", "import bench", "evaluate imports bench"),
    ],
)
def test_a_planted_import_is_caught(copy: Path, file: str, text: str, found: str) -> None:
    before = set(forbidden(copy))
    plant(copy, file, text)
    caught = set(forbidden(copy)) - before
    assert len(caught) == 1 and found in caught.pop()


def test_what_is_allowed_is_not_caught(copy: Path) -> None:
    before = forbidden(copy)
    plant(copy, "video/extract.py", "from avadclip_lite.features import writer")
    plant(copy, "experiments/study.py", "from avadclip_lite import baselines, config, viz")
    plant(copy, "__main__.py", "from avadclip_lite.video import reader")
    assert forbidden(copy) == before


def test_a_planted_circle_is_caught(copy: Path) -> None:
    plant(copy, "config.py", "def f():\n    from avadclip_lite.dataset import FeatureStore")
    assert {f"{NAME}.config", f"{NAME}.dataset"} <= set(circle(copy))


def test_planted_lines_files_and_folders_are_caught(copy: Path) -> None:
    before = set(oversized(copy))
    plant(copy, "fusion.py", "#\n" * MAX_LINES[TOP])
    plant(copy, "viz/lesson.py", "#\n" * MAX_FILE["viz/lesson.py"])
    plant(copy, "extras/more.py", "")
    for number in range(MAX_TOP_FILES):
        plant(copy, f"more_{number}.py", "")
    caught = " ".join(set(oversized(copy)) - before)
    for what in ("top level: ", "viz/lesson.py: ", "files of 12", "extras: a folder", "package"):
        assert what in caught
