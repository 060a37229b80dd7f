"""What all tests share: no network, no files of the user's, no process left behind."""

from __future__ import annotations

import gc
import os
import socket
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Threads of torch that wait sleep instead of spinning: on a busy machine spinning costs ten times the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# No deadline: a busy machine is no bug. In CI the examples are always the same, so that a change fails by its own fault.
settings.register_profile("tileseg", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tileseg")

HERE = Path(__file__).parent


def pytest_collection() -> None:
    """Look for no garbage while the tests are imported: all that is made then stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Spare the collector torch, napari and the tests themselves: to look through them takes longer than most tests do."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep Qt from aborting the whole run where it has no screen to draw on."""
    if sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")):
        return
    sentence = "There is no screen and no Xvfb. Run `make setup`, which installs one or says how."
    widgets = [item for item in items if item.path.is_relative_to(HERE / "widgets")]
    if widgets and "CI" in os.environ:
        raise pytest.UsageError(sentence)
    for item in widgets:
        item.add_marker(pytest.mark.skip(reason=sentence))


@pytest.fixture(autouse=True, scope="session")
def _own_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the models and settings of the person who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILESEG_MODELS", str(tmp_path_factory.mktemp("models")))
        patch.setenv("TILESEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TILESEG_SETTINGS", str(tmp_path_factory.mktemp("settings") / "settings.json"))
        yield


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other computers, so that a test that needs one cannot pass here by luck."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        internet = self.family in (socket.AF_INET, socket.AF_INET6)
        if internet and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"A test tried to reach {address[0]}. Mark it `network`, or do without.")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True, scope="session")
def _no_worker_left() -> Iterator[None]:
    """Fail when the child process of a run outlives the tests."""
    yield
    workers = [child for child in psutil.Process().children(recursive=True) if _is_worker(child)]
    _, alive = psutil.wait_procs(workers, timeout=10)
    for process in alive:
        process.kill()
    assert not alive, f"{len(alive)} worker processes were still running after the last test"


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "napari_tileseg.worker" in process.cmdline()
    except psutil.Error:
        return False


@pytest.fixture
def make_plate(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a plate as microscopes' programs do."""

    def make(name: str = "plate.ome.zarr", wells: Sequence[str] = ("A/1", "B/2"), fields: int = 2, version: str = "0.5") -> Path:
        import numpy as np
        import zarr

        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = 3 if version == "0.5" else 2

        def describe(group: Any, **facts: Any) -> None:
            facts = {key: {"version": version, **value} if isinstance(value, dict) else value for key, value in facts.items()}
            group.update_attributes({"ome": {"version": version, **facts}} if kind == 3 else facts)

        root = zarr.create_group(path, zarr_format=kind)
        rows, columns = (list(dict.fromkeys(well.split("/")[axis] for well in wells)) for axis in (0, 1))
        listed = [{"path": well, "rowIndex": 0, "columnIndex": 0} for well in wells]
        plate = {"name": "test", "rows": [{"name": row} for row in rows], "columns": [{"name": column} for column in columns]}
        describe(root, plate={**plate, "wells": listed})
        for number, well in enumerate(wells):
            group = root.create_group(well)
            describe(group, well={"images": [{"path": str(field)} for field in range(fields)]})
            for field in range(fields):
                image = group.create_group(str(field))
                pixels = np.random.default_rng(10 * number + field).integers(0, 200, (1, 32, 40), dtype=np.uint16)
                image.create_array("0", data=pixels, chunks=(1, 16, 20))
                axes = [{"name": "c", "type": "channel"}]
                axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
                datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]}]
                describe(image, multiscales=[{"version": version, "axes": axes, "datasets": datasets}])
        return path

    return make


EXTENSIONS = HERE / "extensions"


@pytest.fixture
def extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with the example packages, and what pip would write of them, which Python finds meanwhile; new processes too."""
    import napari_tileseg

    site = tmp_path / "site"
    site.mkdir()
    names = [path.parent.name for path in EXTENSIONS.glob("*/pyproject.toml")]
    for name in names:
        told = tomllib.loads((EXTENSIONS / name / "pyproject.toml").read_text())["project"]
        (site / f"{name}.py").write_text((EXTENSIONS / name / f"{name}.py").read_text())
        known = site / f"{told['name'].replace('-', '_')}-{told['version']}.dist-info"
        known.mkdir()
        (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {told['name']}\nVersion: {told['version']}\n")
        groups = told["entry-points"].items()
        text = "".join(f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items()) for group, entries in groups)
        (known / "entry_points.txt").write_text(text)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(Path(napari_tileseg.__file__).parents[1])]))
    _forget_extensions(names)
    yield site
    _forget_extensions(names)


def _forget_extensions(names: list[str]) -> None:
    from napari_tileseg.io.registry import formats
    from napari_tileseg.models.loaders.registry import loaders

    loaders.cache_clear()
    formats.cache_clear()
    for name in names:
        sys.modules.pop(name, None)
