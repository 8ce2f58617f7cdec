"""A lesson executed in JupyterLab without a browser, and saved there.

    python tests/benchmarks/in_jupyterlab.py [00]

Speaks to a JupyterLab server as its page does: opens the notebook, starts a kernel for it, runs one
cell after another, puts the outputs in and saves. It does so in a copy of the repository, with the
server started in the root and in another folder. Right is: no cell fails, the script beside the
notebook keeps every byte, and of the notebook nothing but outputs and counts has changed (jupytext
notes its filters in the metadata as well). Prints a line for each; exits 1 where that is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import websocket

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = (".git", ".venv", "runs", "__pycache__", ".pytest_cache", ".ruff_cache")
TOKEN = "lesson"


class Lab:
    """A running server, as its page knows it."""

    def __init__(self, *, cwd: Path, notebooks: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
        command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.port={self.port}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        env = os.environ | {"PYTHONPATH": str(notebooks.parent)}
        command.append(f"--notebook-dir={notebooks}")
        self.process = subprocess.Popen(command, cwd=cwd, env=env, **quiet)
        for _ in range(240):
            try:
                self.ask("GET", "api/status")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        raise RuntimeError("JupyterLab's server does not answer after two minutes")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request to its API."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data, method=method)
        asked.add_header("Authorization", f"token {TOKEN}")
        with urllib.request.urlopen(asked, timeout=60) as reply:
            return json.loads(reply.read() or "null")

    def run(self, name: str) -> tuple[int, str]:
        """Open, execute and save a notebook: cells run, and the first error ("" without one)."""
        model = self.ask("GET", f"api/contents/{name}?type=notebook&content=1")
        kernel = {"name": "python3"}
        asked = {"path": name, "name": name, "type": "notebook", "kernel": kernel}
        session = self.ask("POST", "api/sessions", asked)
        channels = f"ws://127.0.0.1:{self.port}/api/kernels/{session['kernel']['id']}/channels"
        wire = websocket.create_connection(f"{channels}?token={TOKEN}", timeout=600)
        cells = [cell for cell in model["content"]["cells"] if cell["cell_type"] == "code"]
        ran, error = 0, ""
        for cell in cells:
            cell["outputs"], cell["execution_count"], error = self._execute(wire, cell["source"])
            ran += 1
            if error:
                break
        wire.close()
        body = {k: model[k] for k in ("type", "format", "content")}
        self.ask("PUT", f"api/contents/{name}", body)
        self.ask("DELETE", f"api/sessions/{session['id']}")
        return ran, error

    @staticmethod
    def _execute(wire: websocket.WebSocket, code: str) -> tuple[list, int | None, str]:
        """Outputs of a cell, its count, and what went wrong."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
        header |= {"username": "", "session": uuid.uuid4().hex, "date": ""}
        content = {"code": code, "silent": False, "store_history": True, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell"}
        wire.send(json.dumps(message | {"content": content}))
        outputs, count, error = [], None, ""
        while True:
            got = json.loads(wire.recv())
            if got["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            kind, told = got["msg_type"], got["content"]
            if kind == "status" and told["execution_state"] == "idle":
                return outputs, count, error
            if kind == "execute_input":
                count = told["execution_count"]
            elif kind == "error":
                error = f"{told['ename']}: {told['evalue']}"
            elif kind == "stream":
                outputs.append({"output_type": kind, "name": told["name"], "text": told["text"]})
            elif kind in ("display_data", "execute_result"):
                known = {k: told[k] for k in ("data", "metadata")}
                counted = {"execution_count": count} if kind == "execute_result" else {}
                outputs.append({"output_type": kind} | known | counted)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def without_outputs(path: Path) -> dict[str, Any]:
    """A notebook but for what executing it may change."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell.pop("outputs", None)
        cell.pop("execution_count", None)
        cell["metadata"].pop("execution", None)
        cell["source"] = "".join(cell["source"])
    for name in ("language_info", "jupytext"):
        notebook["metadata"].pop(name, None)
    return notebook


def check(number: str, copy: Path, started_in: Path) -> list[str]:
    """Run a lesson in a copy of the repository; what is wrong."""
    notebook = next((copy / "notebooks").glob(f"{number}_*.ipynb"))
    script = notebook.with_suffix(".py")
    before = without_outputs(notebook), script.read_bytes(), notebook.read_bytes()
    lab = Lab(cwd=started_in, notebooks=copy / "notebooks")
    try:
        ran, error = lab.run(notebook.name)
    finally:
        lab.stop()
    wrong = [f"cell {ran} fails: {error}"] if error else []
    if notebook.read_bytes() == before[2]:
        wrong.append("nothing was saved")
    if without_outputs(notebook) != before[0]:
        wrong.append("saving changed more of the notebook than its outputs")
    if script.read_bytes() != before[1]:
        wrong.append("saving changed the script beside the notebook")
    told = "; ".join(wrong) or "all right"
    print(f"{notebook.name}, server started in {started_in.name}: {ran} cells run; {told}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lesson", nargs="?", default="00", help="its number (%(default)s)")
    given = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder, "elsewhere")
        other.mkdir()
        for where in ("root", "elsewhere"):
            copy = Path(folder, f"copy_{where}")
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
            wrong += check(given.lesson, copy, copy if where == "root" else other)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
