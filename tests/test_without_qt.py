"""A batch exported from the widget runs on a computer that has no Qt binding at all, to the same files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import tifffile

import napari_tileseg
from napari_tileseg.batch.job import BatchJob
from napari_tileseg.io import read_volume
from napari_tileseg.job import SegmentOptions

BINDINGS = ("PyQt5", "PyQt6", "PySide2", "PySide6", "sip", "shiboken2", "shiboken6", "PyQt6_sip")
LEFT_OUT = re.compile(r"(?i)(pyqt|pyside|shiboken|sip\b|pytestqt|pytest_qt|napari_tileseg)")
"""The bindings with their data and whatever needs them at import; our own package is put there by itself."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with everything that this one has but a Qt binding."""
    root = tmp_path_factory.mktemp("without_qt")
    context = _Builder(with_pip=False).build(root)
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(folder).iterdir():
            target = context / entry.name
            if not (LEFT_OUT.match(entry.name) or entry.suffix == ".pth" or entry.name == "__pycache__" or target.exists()):
                _link(target, entry)
    _link(context / "napari_tileseg", Path(napari_tileseg.__file__).parent)
    return root / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


class _Builder(venv.EnvBuilder):
    def build(self, root: Path) -> Path:
        """Make the environment; return its folder of packages."""
        self.create(root)
        names = {"base": str(root), "platbase": str(root)}
        return Path(sysconfig.get_path("purelib", "nt_venv" if sys.platform == "win32" else "posix_venv", vars=names))


def _link(target: Path, entry: Path) -> None:
    try:
        target.symlink_to(entry, target_is_directory=entry.is_dir())
    except OSError as error:
        pytest.skip(f"this computer makes no links: {error}")


def call(python: Path | str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with nothing of this one's surroundings but our settings."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "COV_", "QT_", "DISPLAY")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    if str(python) == sys.executable:
        environment["PYTHONPATH"] = str(Path(napari_tileseg.__file__).parents[1])
    return subprocess.run([str(python), *arguments], capture_output=True, text=True, timeout=600, cwd=folder, env=environment, check=False)


def test_there_is_no_binding_there(python: Path, tmp_path: Path) -> None:
    code = f"""
import importlib, importlib.util
for name in {BINDINGS!r}:
    assert importlib.util.find_spec(name) is None, name
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    raise SystemExit(f"{{name}} is there")
import qtpy
"""
    done = call(python, "-W", "ignore", "-c", code, folder=tmp_path)
    assert "QtBindingsNotFoundError" in done.stderr, (done.returncode, done.stderr)


def test_a_job_of_the_widget_runs_there_to_the_same_files(python: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "deeper").mkdir(parents=True)
    whole = np.asarray(read_volume(Path(napari_tileseg.__file__).parent / "sample_data" / "nuclei_fluorescence.tif").data)
    for number, name in enumerate(("a.tif", "b.tif", "deeper/c.tif")):
        tifffile.imwrite(images / name, whole[number * 100 : number * 100 + 96, :128])
    (images / "text.tif").write_text("no image")
    job = BatchJob(
        models=("nuclei-2d",),
        inputs=(str(images),),
        output=str(tmp_path / "with"),
        recursive=True,
        objects=True,
        overlays=True,
        options=SegmentOptions(device="cpu", window=(96, 96)),
    )
    (tmp_path / "job.json").write_text(job.model_dump_json(indent=2), encoding="utf-8")
    runs = {
        "with": call(sys.executable, "-m", "napari_tileseg.cli", "run", "job.json", "--json", folder=tmp_path),
        "without": call(python, "-m", "napari_tileseg.cli", "run", "job.json", "--json", "-o", "without", folder=tmp_path),
    }
    for name, done in runs.items():
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 1, (name, done.stderr)
        assert "text.tif" in done.stderr
        assert {event["event"] for event in events} >= {"batch started", "task ended", "batch finished"}
        assert (events[-1]["done"], events[-1]["failed"]) == (3, 1)
    found, expected = (_contents(tmp_path / name) for name in ("without", "with"))
    assert found == expected
    assert len([name for name in found if name.endswith(".ome.tif")]) == 3
    assert (tmp_path / "without" / "report.html").is_file()


def _contents(folder: Path) -> dict[str, bytes]:
    """Return every file of the results by its path below the folder; what tells of times is left out."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".tileseg" not in path.relative_to(folder).parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if not path.name.startswith("report.")}
