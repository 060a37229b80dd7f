"""The registry: the longest suffix wins, modules are imported on use, a broken extension stops nobody."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.errors import InputError
from napari_tileseg.io import Format, read_volume, registry, suffix_of, write_labels
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    registry.formats.cache_clear()
    yield
    registry.formats.cache_clear()


@pytest.mark.parametrize(
    ("name", "suffix", "title"),
    [
        ("a.ome.tif", ".ome.tif", "OME-TIFF"),
        ("A.OME.TIFF", ".ome.tiff", "OME-TIFF"),
        ("a.tif", ".tif", "TIFF"),
        ("some.ome.tif.nii.gz", ".nii.gz", "NIfTI"),
        ("a.nii", ".nii", "NIfTI"),
        ("a.b.PNG", ".png", "PNG"),
        ("a.jpeg", ".jpeg", "JPEG"),
    ],
)
def test_the_longest_suffix_decides(name: str, suffix: str, title: str) -> None:
    assert suffix_of(name) == suffix
    found = registry.find_format(name)
    assert found is not None
    assert found.title == title


def test_an_unknown_suffix_names_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "scan.czi").touch()
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / "scan.czi")
    assert str(caught.value).startswith(
        '"scan.czi" is of no known format. OME-TIFF (.ome.tif), TIFF (.tif), ImageJ TIFF (.imagej.tif), NIfTI (.nii), OME-Zarr (.ome.zarr)'
    )
    with pytest.raises(InputError, match="There is no file"):
        read_volume(tmp_path / "nowhere.czi")


def test_a_folder_of_images_is_for_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.tif").touch()
    monkeypatch.chdir(tmp_path / "raw")
    for path in (tmp_path / "raw", Path()):
        with pytest.raises(InputError, match=r'^"raw" is a folder, .*batch'):
            read_volume(path)


@pytest.mark.parametrize("item", registry.BUILTIN, ids=lambda item: item.title)
def test_every_reference_leads_to_a_function(item: Format) -> None:
    for reference in filter(None, (item.reader, item.writer)):
        module, _, name = reference.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_formats_are_imported_on_use() -> None:
    code = """
import sys
from napari_tileseg.io import suffix_of
suffix_of("a.tif")
loaded = {"tifffile", "nibabel", "PIL", "zarr", "dask", "torch", "napari"} & sys.modules.keys()
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def extend(monkeypatch: pytest.MonkeyPatch, **objects: Any) -> None:
    """Pretend that installed packages offer these objects."""

    class Entry(EntryPoint):
        def load(self) -> Any:
            found = objects[self.name]
            if isinstance(found, Exception):
                raise found
            return found

    entries = [Entry(name, f"package_{name}:thing", registry.ENTRY_POINTS) for name in objects]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == registry.ENTRY_POINTS else [])


def read_rows(path: Path, *, series: int = 0, level: int = 0) -> Volume:
    return Volume(np.loadtxt(path, dtype=np.int64, ndmin=2), "YX", name=path.stem)


def write_rows(labels: Volume, path: Path, **_: Any) -> None:
    np.savetxt(path, np.asarray(labels.data), fmt="%d")


def test_other_packages_add_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rows_package", sys.modules[__name__])
    rows = Format("Rows", (".rows.txt",), "rows_package:read_rows", "rows_package:write_rows")
    extend(monkeypatch, rows=[rows])
    labels = Volume(np.arange(12).reshape(3, 4), "YX")
    path = write_labels(labels, tmp_path / "a.rows.txt")
    np.testing.assert_array_equal(read_volume(path).data, labels.data)


@pytest.mark.parametrize(
    "broken",
    [ImportError("no module named that"), object(), [Format("Bad", ("bad",))], [Format("None", ())], ["no format"]],
    ids=["import", "object", "dot", "empty", "string"],
)
def test_a_broken_extension_is_reported_and_left_out(broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    extend(monkeypatch, broken=broken, good=Format("Good", (".good",), "x:y"))
    with pytest.warns(UserWarning, match='The file formats of "package_broken:thing" were left out'):
        found = registry.formats()
    assert found == (*registry.BUILTIN, Format("Good", (".good",), "x:y"))


def test_the_packages_own_formats_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    extend(monkeypatch, other=Format("Other TIFF", (".tif",), "x:y"))
    found = registry.find_format("a.tif")
    assert found is not None
    assert found.title == "TIFF"
