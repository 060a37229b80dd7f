"""The model's process is started by a Python, never by an application, and finds what its parent finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import napari_tileseg
from napari_tileseg.errors import RunError
from napari_tileseg.worker import interpreter
from napari_tileseg.worker.__main__ import PATH_VARIABLE
from napari_tileseg.worker.interpreter import command, environment, find_python, tool
from napari_tileseg.worker.messages import Ready, from_line


@pytest.mark.parametrize("name", ["python", "python3", "python3.12", "Python", "pythonw.exe", "python.exe", "pypy3", "python3.13t"])
def test_a_python_is_taken_as_it_is(name: str) -> None:
    assert find_python(f"/some/where/{name}") == f"/some/where/{name}"


@pytest.mark.parametrize("name", ["napari", "napari.exe", "blender", "pythonista", "/", ""])
def test_an_application_is_not_started_but_the_python_beside_it(tmp_path: Path, name: str) -> None:
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text("")
    python.chmod(0o755)
    assert find_python(name, (str(tmp_path / "nothing"), str(tmp_path))) == str(python)


def test_no_python_at_all_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r'this program is "napari" and has none beside it\. Install'):
        find_python("/Applications/napari", (str(tmp_path),))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ["-P"]),
        ({"isolated": 1, "ignore_environment": 1, "no_user_site": 1}, ["-I"]),
        ({"ignore_environment": 1}, ["-P", "-E"]),
        ({"no_user_site": 1}, ["-P", "-s"]),
    ],
)
def test_the_child_is_as_isolated_as_its_parent(monkeypatch: pytest.MonkeyPatch, flags: dict[str, int], expected: list[str]) -> None:
    class Flags:
        isolated = ignore_environment = no_user_site = 0

    for name, value in flags.items():
        setattr(Flags, name, value)
    monkeypatch.setattr(interpreter.sys, "flags", Flags)
    assert command("python")[1:-2] == expected


def _greeting(arguments: list[str], **more: Any) -> Ready:
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read().decode()
        process.stdin.close()  # type: ignore[union-attr]
        assert process.wait(10) == 0
    ready = from_line(line).body
    assert isinstance(ready, Ready)
    return ready


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """A folder whose modules would break the child if it looked there first."""
    for name in ("json", "numpy", "torch", "napari_tileseg", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    return tmp_path


def test_an_odd_working_folder_changes_nothing(odd_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(odd_folder)
    ready = _greeting(command(sys.executable), cwd=odd_folder, env=environment())
    assert Path(ready.root).samefile(Path(napari_tileseg.__file__).parent)
    assert ready.version == napari_tileseg.__version__


def test_the_command_line_runs_where_the_child_would(odd_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(odd_folder)
    done = subprocess.run(
        tool(sys.executable, ["--version"]), capture_output=True, text=True, cwd=odd_folder, env=environment(), check=True
    )
    assert done.stdout.strip() == f"tileseg {napari_tileseg.__version__}"


@pytest.mark.parametrize("flag", ["-I", "-E"])
def test_the_package_is_found_where_only_the_parent_knows_it(tmp_path: Path, flag: str) -> None:
    # A second copy, as an application would bring it: on no path of a fresh Python.
    root = tmp_path / "bundle"
    root.mkdir()
    (root / "napari_tileseg").symlink_to(Path(napari_tileseg.__file__).parent, target_is_directory=True)
    script = root / "napari_tileseg" / "worker" / "__main__.py"
    here = [path for path in sys.path if path and not Path(path, "napari_tileseg").exists()]
    variables = {**os.environ, PATH_VARIABLE: json.dumps([str(root), *here])}
    ready = _greeting([sys.executable, flag, str(script)], env=variables)
    assert Path(ready.root) == root / "napari_tileseg"


def test_threads_do_not_spin_unless_the_user_wants_them_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert environment()["OMP_WAIT_POLICY"] == "ACTIVE"


def test_it_also_starts_by_its_name() -> None:
    root = str(Path(napari_tileseg.__file__).parent.parent)
    ready = _greeting([sys.executable, "-m", "napari_tileseg.worker"], env={**os.environ, "PYTHONPATH": root})
    assert ready.version == napari_tileseg.__version__
