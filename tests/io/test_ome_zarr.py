"""OME-Zarr: every version's axes, grids, levels and names arrive; what is no image says so; labels come back as they went."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io import own_labels, read_volume, write_labels, zarr_layout
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.registry import suffix_of
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path


def ngff(path: Path, image: np.ndarray[Any, Any], axes: str, version: str = "0.5", *, levels: int = 1, **more: Any) -> None:
    """Write an image as other programs do."""
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    units = {"t": ("time", "second"), "c": ("channel", None), "z": ("space", "micrometer")}
    described = []
    for axis in axes.lower():
        kind, unit = units.get(axis, ("space", "micrometer"))
        described.append({"name": axis, "type": kind} | ({"unit": unit} if unit else {}))
    datasets = []
    for level in range(levels):
        by = [2**level if axis in "YX" else 1 for axis in axes]
        group.create_array(f"{level}", data=image[tuple(slice(None, None, step) for step in by)])
        scale = [0.5 * step if axis in "YX" else 2.0 if axis == "Z" else 1.0 for axis, step in zip(axes, by, strict=True)]
        shift = [0.5 * (step - 1) / 2 + 10 * (axis == "X") for axis, step in zip(axes, by, strict=True)]
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    named = {"0.5": described, "0.4": described, "0.3": list(axes.lower()), "0.2": None}[version]
    entry = {"datasets": datasets, "version": version} | ({"axes": named} if named else {})
    found: dict[str, Any] = {"multiscales": [entry], **more}
    group.update_attributes({"ome": {"version": "0.5", **found}} if version == "0.5" else found)


def image(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, 200, shape, dtype=np.uint16)


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_grid_names_and_levels_arrive(tmp_path: Path, version: str) -> None:
    pixels = image((1, 2, 3, 40, 50))
    channels = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    ngff(tmp_path / "a.ome.zarr", pixels, "TCZYX", version, levels=3, omero=channels)
    volume = read_volume(tmp_path / "a.ome.zarr")
    assert isinstance(volume.data, LazyArray)
    assert (volume.axes, volume.name, volume.channel_names) == ("CZYX", "a", ("DAPI", "GFP"))
    np.testing.assert_array_equal(np.asarray(volume.data), pixels[0])
    assert volume.spacing == {"C": 1.0, "Z": 2.0, "Y": 0.5, "X": 0.5}
    assert volume.affine[-2, -1] == 10
    assert volume.unit["X"] == "micrometer"
    assert volume.metadata["levels"] == 3
    assert [level.shape for level in volume.levels] == [(2, 3, 20, 25), (2, 3, 10, 13)]
    assert [level.spacing["X"] for level in volume.levels] == [1.0, 2.0]
    second = read_volume(tmp_path / "a.ome.zarr", level=1)
    np.testing.assert_array_equal(np.asarray(second.data), pixels[0, ..., ::2, ::2])
    assert len(second.levels) == 1


@pytest.mark.parametrize(("version", "axes"), [("0.3", "ZYX"), ("0.2", "TCZYX")])
def test_older_versions_are_read(tmp_path: Path, version: str, axes: str) -> None:
    pixels = image({"ZYX": (3, 8, 9), "TCZYX": (2, 2, 3, 8, 9)}[axes])
    ngff(tmp_path / "a.zarr", pixels, axes, version)
    volume = read_volume(tmp_path / "a.zarr")
    assert volume.axes == axes
    np.testing.assert_array_equal(np.asarray(volume.data), pixels)


def test_a_zip_is_read(tmp_path: Path) -> None:
    pixels = image((30, 40))
    ngff(tmp_path / "a.ome.zarr", pixels, "YX")
    for name, inner in (("a.ome.zarr.zip", ""), ("b.ozx", "a.ome.zarr/")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in sorted((tmp_path / "a.ome.zarr").rglob("*")):
                if file.is_file():
                    archive.write(file, inner + str(file.relative_to(tmp_path / "a.ome.zarr")))
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(volume.data), pixels)
        assert volume.name == name[0]


def test_labels_inside_a_store_are_read(tmp_path: Path) -> None:
    pixels = image((30, 40))
    ngff(tmp_path / "a.ome.zarr", pixels, "YX")
    ngff(tmp_path / "a.ome.zarr" / "labels" / "cells", pixels.astype(np.int32), "YX", **{"image-label": {"version": "0.5"}})
    found = read_volume(tmp_path / "a.ome.zarr" / "labels" / "cells")
    assert found.metadata["labels"]
    assert found.name == "a cells"
    np.testing.assert_array_equal(np.asarray(found.data), pixels)
    zarr.open_group(tmp_path / "a.ome.zarr" / "labels").update_attributes({"ome": {"labels": ["cells"]}})
    with pytest.raises(InputError, match=r"lists the labels cells\. Open one of them"):
        read_volume(tmp_path / "a.ome.zarr" / "labels")


def test_series_are_read(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a.ome.zarr", zarr_format=2)
    root.update_attributes({"bioformats2raw.layout": 3})
    for index in range(2):
        ngff(tmp_path / "a.ome.zarr" / str(index), image((8, 9)) + index, "YX", "0.4")
    assert read_volume(tmp_path / "a.ome.zarr").metadata["series"] == 2
    np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / "a.ome.zarr", series=1).data), image((8, 9)) + 1)
    with pytest.raises(InputError, match="2 images"):
        read_volume(tmp_path / "a.ome.zarr", series=2)


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        (
            {"plate": {"wells": [{"path": "A/1"}, {"path": "A/2"}]}},
            r'of 2 wells\. Open one of its fields, say "a\.ome\.zarr/A/1/0"',
        ),
        ({}, "group without an image"),
        ({"multiscales": [{"datasets": []}]}, "lists no resolution"),
        ({"multiscales": [{"datasets": [{"path": "0"}]}]}, 'lacks "0"'),
    ],
)
def test_what_is_no_image_says_so(tmp_path: Path, attributes: dict[str, Any], sentence: str) -> None:
    zarr.create_group(tmp_path / "a.ome.zarr").update_attributes({"ome": attributes})
    with pytest.raises(InputError, match=sentence):
        read_volume(tmp_path / "a.ome.zarr")


def test_levels_and_foreign_axes_are_refused(tmp_path: Path) -> None:
    ngff(tmp_path / "a.zarr", image((30, 40)), "YX")
    with pytest.raises(InputError, match="1 resolutions"):
        read_volume(tmp_path / "a.zarr", level=1)
    zarr.open_group(tmp_path / "a.zarr").update_attributes(
        {"ome": {"multiscales": [{"axes": [{"name": "angle"}, {"name": "x"}], "datasets": [{"path": "0"}]}]}}
    )
    with pytest.raises(InputError, match='axis "angle"'):
        read_volume(tmp_path / "a.zarr")


@pytest.mark.parametrize("content", [b"", b"{", b'{"zarr_format": 9}'])
def test_damaged_stores_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_bytes(content)
    with pytest.raises(InputError, match="no Zarr image, or it is damaged"):
        read_volume(tmp_path / "a.zarr")


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        read_volume(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(InputError, match="no Zarr image"):
        read_volume(tmp_path / "b.zarr")
    (tmp_path / "c").mkdir()
    assert suffix_of(tmp_path / "c") == ""


@pytest.mark.parametrize("version", [2, 3])
def test_plain_arrays_are_read(tmp_path: Path, version: Any) -> None:
    pixels = image((3, 8, 9))
    zarr.create_array(tmp_path / "a.zarr", data=pixels, zarr_format=version)
    volume = read_volume(tmp_path / "a.zarr")
    assert (volume.axes, volume.metadata["guessed_axes"]) == ("ZYX", "Z")
    np.testing.assert_array_equal(np.asarray(volume.data), pixels)
    named = zarr.create_group(tmp_path / "b.zarr", zarr_format=version)
    named.create_array("data", data=pixels, **({"dimension_names": ["c", "y", "x"]} if version == 3 else {}))
    if version == 2:
        named["data"].attrs["_ARRAY_DIMENSIONS"] = ["c", "y", "x"]
    assert read_volume(tmp_path / "b.zarr").axes == "CYX"
    named.create_array("other", data=pixels)
    with pytest.raises(InputError, match="arrays data, other"):
        read_volume(tmp_path / "b.zarr")
    assert read_volume(tmp_path / "b.zarr" / "other").name == "b other"


@given(
    axes=st.sampled_from(["YX", "XY", "ZYX", "TZYX", "CYX", "YXT", "CTZYX"]),
    dtype=st.sampled_from(["bool", "uint8", "uint16", "int32", "int64"]),
    turned=st.booleans(),
)
@settings(max_examples=25)
def test_labels_come_back_with_grid_classes_and_provenance(
    tmp_path_factory: pytest.TempPathFactory, axes: str, dtype: str, turned: bool
) -> None:
    sizes = {"T": 1, "C": 2, "Z": 3, "Y": 30, "X": 21}
    shape = tuple(sizes[axis] for axis in axes)
    values = np.random.default_rng(1).integers(0, 2, shape).astype(dtype)
    affine = np.diag([*np.linspace(0.5, 2, len(axes)), 1.0])
    affine[:-1, -1] = range(len(axes))
    if turned:
        affine[axes.index("Y"), axes.index("X")] = 0.25
    units = tuple("micrometer" if axis in "ZYX" else "pixel" for axis in axes)
    given_labels = Volume(values, axes, affine, units, "found")
    path = tmp_path_factory.mktemp("zarr") / "found.ome.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr_layout, "_COARSEST", 12)
        patch.setattr(zarr_layout, "_SIDE_3D", 16)
        assert write_labels(given_labels, path, classes=("background", "cell"), colors=("#ff0000",), provenance={"a": [1]}) == path
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    read = read_volume(path)
    order = [axes.index(axis) for axis in "TCZYX" if axis in axes]
    assert read.axes == "".join(axes[place] for place in order)
    np.testing.assert_array_equal(np.asarray(read.data), values.transpose(order))
    np.testing.assert_allclose(read.affine, affine[np.ix_([*order, len(axes)], [*order, len(axes)])])
    assert read.units == tuple(units[place] for place in order)
    assert read.metadata["classes"] == ["background", "cell"]
    assert read.metadata["colors"] == ["#ff0000"]
    assert read.metadata["provenance"] == {"a": [1]}
    assert read.metadata["labels"]
    assert read.dtype == (np.uint8 if dtype in ("bool", "int64") else dtype)
    assert len(read.levels) >= 1
    # A pixel of a coarse level covers those of the finest that it stands for.
    np.testing.assert_allclose(_corner(read.levels[0]), _corner(read))


def _corner(volume: Volume) -> np.ndarray[Any, Any]:
    """Return the place of the outer corner of the first pixel."""
    return (volume.affine @ np.array([-0.5] * volume.ndim + [1.0]))[:-1]


def test_the_metadata_are_those_of_ngff(tmp_path: Path) -> None:
    labels = Volume.from_scale(np.eye(30, dtype=np.uint8), "YX", (0.5, 0.5), units=("micrometer", "micrometer"), name="found")
    write_labels(labels, tmp_path / "a.ome.zarr", classes=("background", "cell"), colors=("#ff8000",))
    ome = dict(zarr.open_group(tmp_path / "a.ome.zarr").attrs)["ome"]
    assert ome["version"] == "0.5"
    assert ome["multiscales"][0]["axes"] == [
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    assert ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0] == {"type": "scale", "scale": [0.5, 0.5]}
    assert ome["image-label"]["colors"] == [
        {"label-value": 0, "rgba": [0, 0, 0, 0]},
        {"label-value": 1, "rgba": [255, 128, 0, 255]},
    ]
    assert ome["image-label"]["properties"][1] == {"label-value": 1, "class": "cell"}


def test_a_store_is_replaced_only_when_that_is_wanted(tmp_path: Path) -> None:
    first = Volume(np.ones((9, 9), np.uint8), "YX")
    write_labels(first, tmp_path / "a.ome.zarr")
    with pytest.raises(OutputError, match="there already"):
        write_labels(first, tmp_path / "a.ome.zarr")
    write_labels(Volume(np.full((9, 9), 2, np.uint8), "YX"), tmp_path / "a.ome.zarr", overwrite=True)
    assert read_volume(tmp_path / "a.ome.zarr").data[0, 0] == 2
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="is a folder"):
        write_labels(first, tmp_path / "b.zarr", overwrite=True)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="float32"):
        write_labels(Volume(np.zeros((9, 9), np.float32), "YX"), tmp_path / "a.ome.zarr")
    assert not list(tmp_path.iterdir())


def test_a_file_system_that_never_says_two_names_are_one_file_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_labels, "_is", lambda path, descriptor: False)
    monkeypatch.setattr(own_labels, "_PATIENCE", 0.0)
    zarr.open_group(str(tmp_path / "image.zarr"), mode="w", zarr_format=2)
    (tmp_path / "image.zarr" / "labels").mkdir()
    own_labels.enlist(tmp_path / "image.zarr" / "labels" / "cells")
    assert json.loads((tmp_path / "image.zarr" / "labels" / ".zattrs").read_text(encoding="utf-8")) == {"labels": ["cells"]}
