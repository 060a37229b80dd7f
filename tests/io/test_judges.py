"""OME files before judges that are not ours: the schema of OME-XML, the models of OME-Zarr; and files of several parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydantic_zarr.v2
import pytest
import tifffile
import zarr
from lxml import etree
from ome_zarr_models import open_ome_zarr, v04, v05

from napari_tileseg.io import read_volume, write_labels, write_scores
from napari_tileseg.io import tiff_labels as tiff_labels_module
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.volume import Volume

for model in (v04.Image, v04.ImageLabel, v04.Labels):
    model.model_rebuild(_types_namespace=vars(pydantic_zarr.v2))  # it forgets the types of what it holds

CLASSES, COLORS = ("background", "nucleus <&> µ"), ("#ff8000",)


def stack(shape: tuple[int, ...], axes: str, highest: int = 300) -> Volume:
    steps = {"T": (2.0, "second"), "C": (1.0, "pixel"), "Z": (2.5, "micrometer"), "Y": (0.5, "micrometer"), "X": (0.25, "micrometer")}
    values = np.random.default_rng(1).integers(0, highest + 1, shape)
    scale, units = tuple(steps[axis][0] for axis in axes), tuple(steps[axis][1] for axis in axes)
    shift = tuple({"Z": 3.0, "Y": -4.0}.get(axis, 0.0) for axis in axes)
    return Volume.from_scale(values, axes, scale, translate=shift, units=units, name="Zellen <µ>")


@pytest.fixture(scope="module")
def schema() -> Any:
    import ome_types

    (place,) = Path(ome_types.__file__).parent.rglob("ome-2016-06.xsd")
    return etree.XMLSchema(etree.parse(place))


@pytest.mark.parametrize(("shape", "axes"), [((5, 6), "YX"), ((2, 3, 5, 6), "TZYX"), ((2, 3, 4, 5, 6), "TCZYX"), ((1100, 1030), "YX")])
def test_ome_xml_is_valid(tmp_path: Path, schema: Any, shape: tuple[int, ...], axes: str) -> None:
    names = ("a", "b", "c") if "C" in axes else CLASSES
    labels = write_labels(stack(shape, axes), tmp_path / "a.ome.tif", classes=names, colors=COLORS, provenance={"model": {"name": "µ <"}})
    files = [labels]
    if "C" not in axes:
        scores = np.zeros((2, *shape), np.float32)
        files.append(write_scores(scores, stack(shape, axes), ["x", "y"], tmp_path / "s.ome.tif", provenance={"a": 1}))
    for path in files:
        text = tifffile.tiffcomment(path)
        schema.assertValid(etree.fromstring(text.encode()))


def test_large_planes_get_coarser_resolutions_of_labels(tmp_path: Path) -> None:
    labels = stack((2, 2500, 1041), "ZYX")
    path = write_labels(labels, tmp_path / "a.ome.tif", provenance={"a": 1})
    values = np.asarray(labels.data)
    with tifffile.TiffFile(path) as tif:
        levels = tif.series[0].levels
        assert [level.shape for level in levels] == [(2, 2500, 1041), (2, 1250, 521), (2, 625, 261)]
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(level.asarray(), values[:, :: 2**number, :: 2**number])
            assert level.keyframe.tile == (256, 256)
            assert level.dtype == np.uint16
    found = read_volume(path)
    assert [level.shape for level in found.levels] == [(2, 1250, 521), (2, 625, 261)]
    for number, level in enumerate((found, *found.levels)):
        alone = read_volume(path, level=number)
        np.testing.assert_array_equal(np.asarray(alone.data), np.asarray(level.data))
        np.testing.assert_allclose(alone.affine, level.affine)
        # The box that a level covers is that of the finest, to a pixel that its odd size is short of.
        corner = level.affine @ [-0.5, -0.5, -0.5, 1]
        np.testing.assert_allclose(corner, labels.affine @ [-0.5, -0.5, -0.5, 1])
        np.testing.assert_allclose(level.affine @ [*(size - 0.5 for size in level.shape), 1], labels.affine @ [1.5, 2499.5, 1040.5, 1])


def test_coarser_resolutions_of_axes_of_length_one(tmp_path: Path) -> None:
    labels = stack((1, 1, 1100, 20), "TZYX")
    found = read_volume(write_labels(labels, tmp_path / "a.ome.tif"))
    assert [level.shape for level in (found, *found.levels)] == [(1, 1, 1100, 20), (1, 1, 550, 10)]
    assert [level.axes for level in found.levels] == ["TZYX"]


def test_a_half_that_is_too_large_lies_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 9, (1200, 1200)).astype(np.uint8)
    rows: list[int] = []

    def read(box: tuple[slice, ...]) -> Any:
        rows.append(box[0].start)
        return values[box]

    lazy = Volume(LazyArray(values.shape, values.dtype, read), "YX")
    monkeypatch.setattr(tiff_labels_module, "_IN_MEMORY_BYTES", 1000)
    path = write_labels(lazy, tmp_path / "a.ome.tif")
    assert [item.name for item in tmp_path.iterdir()] == ["a.ome.tif"]
    np.testing.assert_array_equal(tifffile.imread(path, level=1), values[::2, ::2])


@pytest.mark.parametrize(("shape", "axes"), [((40, 50), "YX"), ((2, 3, 40, 50), "TZYX"), ((2, 40, 50), "CYX")])
@pytest.mark.parametrize(("suffix", "expected"), [(".ome.zarr", v05.Image), (".0.4.ome.zarr", v04.Image)])
def test_ome_zarr_is_valid(tmp_path: Path, shape: tuple[int, ...], axes: str, suffix: str, expected: Any) -> None:
    labels = stack(shape, axes, 1 if "C" in axes else 300)
    path = write_labels(labels, tmp_path / f"a{suffix}", classes=CLASSES, colors=COLORS, provenance={"model": "m"})
    kind = v05 if suffix == ".ome.zarr" else v04
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == (3 if kind is v05 else 2)
    kind.Image.from_zarr(group)
    found = kind.ImageLabel.from_zarr(group)
    attributes = found.ome_attributes if kind is v05 else found.attributes
    if "C" not in axes:
        told = {color.label_value: tuple(color.rgba) for color in attributes.image_label.colors}
        assert told == {0: (0, 0, 0, 0), 1: (255, 128, 0, 255)}
    assert open_ome_zarr(group).__class__.__module__.startswith(expected.__module__.rsplit(".", 1)[0])
    back = read_volume(path)
    np.testing.assert_array_equal(np.asarray(back.data), labels.data)
    np.testing.assert_allclose(back.affine, labels.affine)
    assert (back.name, back.metadata["provenance"]) == ("a", {"model": "m"})


@pytest.mark.parametrize(("version", "kind"), [(3, v05), (2, v04)])
def test_labels_in_the_store_of_their_image_are_valid(tmp_path: Path, version: int, kind: Any) -> None:
    place = tmp_path / "image.ome.zarr"
    root = zarr.open_group(place, mode="w", zarr_format=version)
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in ("y", "x")]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.25]}]}]
    image = {"axes": axes, "datasets": datasets, "name": "image"}
    told = {"ome": {"version": "0.5", "multiscales": [image]}} if version == 3 else {"multiscales": [{"version": "0.4", **image}]}
    root.attrs.update(told)
    names = {"dimension_names": ("y", "x")} if version == 3 else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    root.create_array("0", data=np.zeros((30, 40), np.uint16), chunks=(16, 16), **names)
    write_labels(stack((30, 40), "YX"), place / "labels" / "nuclei", classes=CLASSES, colors=COLORS)
    group = zarr.open_group(place, mode="r")
    found = kind.Image.from_zarr(group)
    assert found.labels is not None
    kind.ImageLabel.from_zarr(group["labels/nuclei"])
    listed = dict(group["labels"].attrs)
    assert (listed["ome"] if version == 3 else listed)["labels"] == ["nuclei"]


@pytest.mark.parametrize(
    ("told", "classes", "colors"),
    [
        (
            {"properties": [{"label-value": 1, "class": "a"}], "colors": [{"label-value": 1, "rgba": [255, 0, 9, 255]}]},
            ["background", "a"],
            ["#ff0009"],
        ),
        ({"properties": [{"label-value": 0, "name": "none"}, {"label-value": 1, "name": "b"}]}, ["none", "b"], None),
        ({"properties": [{"label-value": 2, "class": "a"}], "colors": [{"label-value": 7, "rgba": [1, 2, 3, 4]}]}, None, None),
        ({"properties": [{"label-value": 1, "area": 5}], "colors": [{"label-value": 1, "rgba": "red"}]}, None, None),
        ({}, None, None),
        ({"properties": ["x", 3], "colors": "red"}, None, None),
        ("labels", None, None),
    ],
)
def test_names_and_colours_that_another_program_gave(tmp_path: Path, told: Any, classes: Any, colors: Any) -> None:
    root = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=2)
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}]}]
    root.attrs.update({"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}], "image-label": told})
    root.create_array("0", data=np.eye(5, dtype=np.uint8))
    metadata = read_volume(tmp_path / "a.ome.zarr").metadata
    assert metadata["labels"] is True
    assert (metadata.get("classes"), metadata.get("colors")) == (classes, colors)


def test_an_ome_tiff_of_several_files(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 200, (3, 20, 30)).astype(np.uint8)
    names = [f"part {z}.ome.tif" for z in range(3)]
    for z, name in enumerate(names):
        planes = "".join(
            f'<TiffData FirstZ="{other}" IFD="0" PlaneCount="1"><UUID FileName="{place}">'
            f"urn:uuid:00000000-0000-0000-0000-00000000000{other}</UUID></TiffData>"
            for other, place in enumerate(names)
        )
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:00000000-0000-0000-0000-00000000000{z}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            'Type="uint8" SizeX="30" SizeY="20" SizeZ="3" SizeC="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeZ="2">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(tmp_path / name, values[z], description=xml, metadata=None)
    found = read_volume(tmp_path / names[0])
    assert found.axes == "ZYX"
    np.testing.assert_array_equal(np.asarray(found.data), values)
    assert found.spacing == {"Z": 2, "Y": 0.5, "X": 0.5}


def test_bigtiff(tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    tifffile.imwrite(tmp_path / "a.btf", values, bigtiff=True)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.btf").data, values)
