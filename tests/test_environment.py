"""What is needed to start: the two lists of dependencies agree, and ``make`` finds a Python.

The script that makes ``.venv`` is tried with a fake Python, so nothing is installed here.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_mirrors_pyproject() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert pip == [*project()["dependencies"], "--editable ."]
    assert f"python{project()['requires-python']}" in conda
    assert "make" in conda


def test_the_reason_for_the_pins_stands_beside_them_in_both() -> None:
    comments = []
    for name in ("pyproject.toml", "environment.yml"):
        text = (ROOT / name).read_text()
        found = re.search(r'((?:^ *#.*\n)+) *(?:"|- )torch==2\.11', text, re.M)
        assert found, f"{name}: no comment above the pin of torch"
        comments.append(" ".join(found[1].replace("#", "").split()))
    assert comments[0] == comments[1] and "torchaudio" in comments[0]


# what we import that comes with a dependency of ours, and names that differ from the package's
BELONGS = {"PIL": "pillow", "sklearn": "scikit-learn", "open_clip": "open-clip-torch"} | {
    "IPython": "ipykernel",
    "jinja2": "nbconvert",
    "jsonschema": "nbformat",
    "jupyter_client": "ipykernel",
    "jupyter_server": "jupyterlab",
    "matplotlib_inline": "ipykernel",
    "packaging": "pytest",
    "scipy": "scikit-learn",
    "websocket": "jupyterlab",
    "yaml": "papermill",
}


def test_every_import_is_a_dependency() -> None:
    """What our code imports is installed because we ask for it, not because someone else does."""
    asked = project()["dependencies"]
    wanted = {re.split(r"[=<>\[ ]", text)[0].lower().replace("_", "-") for text in asked}
    folders = ("avadclip_lite", "tests", "tools", "data", "notebooks")
    local = {path.stem for folder in folders for path in (ROOT / folder).rglob("*.py")}
    missing = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
            found |= {
                node.module or ""
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and not node.level
            }
            for name in (
                {f.split(".")[0] for f in found} - set(sys.stdlib_module_names) - local - {*folders}
            ):
                if BELONGS.get(name, name).lower().replace("_", "-") not in wanted:
                    missing.add(f"{path.relative_to(ROOT)} imports {name}")
    assert not missing


def test_one_version_everywhere() -> None:
    version = project()["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+) \((\S+)\)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert cited["version"] == version == newest[1]
    assert cited["date-released"] == newest[2]
    assert f'__version__ = "{version}"' in (ROOT / "avadclip_lite" / "__init__.py").read_text()


def test_what_is_cited_is_the_paper() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = cited["preferred-citation"]
    assert paper["title"].startswith("AVadCLIP: ") and "2504.04495" in paper["url"]
    assert len(paper["authors"]) == 7 and cited["license"] == project()["license"]["text"]


# --- making .venv --------------------------------------------------------------------------------

SHIM = "#!/bin/sh\necho 'shim: command not found' >&2\nexit 127\n"
OLD = "#!/bin/sh\nexit 1\n"  # a Python that does not fit answers our question with 1
# A Python that fits: answers questions with 0, and makes an environment whose Python is itself.
FITTING = """#!/bin/sh
echo "$0 $*" >> "$LOG"
case "$*" in
    "-c print(1)") echo 1 ;;
    "-c "*) exit 0 ;;
    *"venv --clear .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *"pip install"*) exit ${PIP_STATUS:-0} ;;
    --version) echo Python 3.12.0 ;;
esac
"""
WITHOUT_VENV = (
    '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; *print*) echo python3.11-venv ;; esac\n'
)


class Machine:
    """A folder with a copy of the clone's setup, and a PATH on which only our Pythons are."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "my clone"
        (self.clone / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "tools" / "make_venv.sh", self.clone / "tools")
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, self.clone)
        self.log = folder / "log"
        self.log.touch()
        tools = folder / "system tools"
        tools.mkdir()
        for name in ("sh", "dirname", "rm", "touch", "mkdir", "cp", "make"):
            (tools / name).symlink_to(shutil.which(name) or name)
        self.path = [tools]

    def python(self, name: str, script: str) -> Path:
        folder = self.clone.parent / f"pythons {len(self.path)}"
        folder.mkdir()
        file = folder / name
        file.write_text(script)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        self.path.append(folder)
        return file

    def make(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.pathsep.join(map(str, self.path)), "LOG": str(self.log)}
        return subprocess.run(
            ["make", *words],
            cwd=self.clone,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def stamp(self) -> Path:
        return self.clone / ".venv" / ".installed"

    def said(self, words: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if words in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_shims_and_old_pythons_are_passed_over(machine: Machine) -> None:
    machine.python("python3.12", SHIM)
    machine.python("python3", OLD)
    fitting = machine.python("python3.11", FITTING)
    done = machine.make("run")
    assert done.returncode == 0, done.stderr
    assert machine.said("venv --clear") == [f"{fitting} -m venv --clear .venv"]
    assert machine.said("pip install") and machine.said("-m avadclip_lite run")
    assert machine.stamp.exists()


def test_a_fitting_python_behind_an_old_one_of_the_same_name(machine: Machine) -> None:
    machine.python("python3", OLD)
    fitting = machine.python("python3", FITTING)
    machine.make("run")
    assert machine.said("venv --clear") == [f"{fitting} -m venv --clear .venv"]


def test_the_second_call_starts_at_once(machine: Machine) -> None:
    machine.python("python3.11", FITTING)
    machine.make("run")
    machine.log.write_text("")
    machine.make("run")
    assert [line.split(maxsplit=1)[1] for line in machine.said("")] == [
        "-c print(1)",  # is it still there?
        "-m avadclip_lite run",
    ]


def test_a_newer_pyproject_brings_the_environment_up_to_date(machine: Machine) -> None:
    machine.python("python3.11", FITTING)
    machine.make("run")
    os.utime(machine.stamp, (1, 1))
    machine.log.write_text("")
    machine.make("run")
    assert machine.said("pip install") and not machine.said("venv --clear")


def test_an_interrupted_installation_is_not_taken_for_a_finished_one(machine: Machine) -> None:
    machine.python("python3.11", FITTING)
    assert machine.make("run", PIP_STATUS="1").returncode != 0
    assert not machine.stamp.exists()
    machine.log.write_text("")
    assert machine.make("run").returncode == 0
    assert machine.said("venv --clear") and machine.stamp.exists()
    # and when bringing it up to date is interrupted
    os.utime(machine.stamp, (1, 1))
    assert machine.make("run", PIP_STATUS="1").returncode != 0
    assert not machine.stamp.exists()


def test_an_environment_whose_python_has_gone_is_made_anew(machine: Machine) -> None:
    machine.python("python3.11", FITTING)
    machine.make("run")
    (machine.clone / ".venv" / "bin" / "python").write_text(SHIM)
    assert machine.make("run").returncode == 0
    assert len(machine.said("venv --clear")) == 2


def test_no_python_is_said_clearly(machine: Machine) -> None:
    machine.python("python3", OLD)
    done = machine.make("run")
    assert done.returncode != 0
    assert "No Python 3.11 or 3.12" in done.stderr and "make PYTHON=" in done.stderr


def test_a_python_without_venv_is_said_clearly(machine: Machine) -> None:
    machine.python("python3.11", WITHOUT_VENV)
    done = machine.make("run")
    assert done.returncode != 0 and "apt install python3.11-venv" in done.stderr


def test_a_python_can_be_named(machine: Machine, tmp_path: Path) -> None:
    machine.python("python3.12", FITTING)
    chosen = machine.python("other", FITTING)
    assert machine.make("run", f"PYTHON={chosen}").returncode == 0
    assert machine.said("venv --clear") == [f"{chosen} -m venv --clear .venv"]
    machine.stamp.unlink()
    done = machine.make("run", "PYTHON=/no/such/python")
    assert done.returncode != 0 and "PYTHON=/no/such/python is not a working" in done.stderr


def test_ci_runs_what_the_readme_says() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
