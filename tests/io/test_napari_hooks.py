"""What napari is offered: layers that it accepts, with spacing, units and names, and labels that come back as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_tileseg.io import napari_hooks, read_volume, write_labels, zarr_layout
from napari_tileseg.io import tiff as tiff_module
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

layers = pytest.importorskip("napari.layers")


def opened(path: Path) -> list[Any]:
    reader = napari_hooks.get_reader(str(path))
    assert reader is not None
    return [layers.Layer.create(*layer) for layer in reader(str(path))]


@pytest.mark.parametrize("sample", [napari_hooks.sample_fluorescence, napari_hooks.sample_histology, napari_hooks.sample_hippocampus])
def test_samples_open_as_image_above_hidden_reference(sample: Any) -> None:
    reference, image = (layers.Layer.create(*layer) for layer in sample())
    assert (type(reference).__name__, type(image).__name__) == ("Labels", "Image")
    assert (reference.visible, image.visible) == (False, True)
    assert reference.data.shape == image.data.shape[: reference.ndim]
    assert reference.axis_labels == image.axis_labels
    np.testing.assert_array_equal(reference.extent.world, image.extent.world)
    assert image.metadata["licence"].startswith("CC")


def test_the_mri_has_millimetres_and_coloured_classes() -> None:
    reference, image = (layers.Layer.create(*layer) for layer in napari_hooks.sample_hippocampus())
    assert [str(unit) for unit in image.units] == ["millimeter"] * 3
    assert list(reference.features["class"]) == ["background", "anterior", "posterior"]
    np.testing.assert_allclose(reference.get_color(1), [0xE4 / 255, 0x57 / 255, 0x2E / 255, 1], atol=0.01)


def test_ome_tiff_keeps_spacing_units_and_channels(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 99, (2, 3, 4, 5, 6)).astype(np.uint16)
    metadata = {"axes": "TCZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0, "Channel": {"Name": ["a", "b", "c"]}}
    tifffile.imwrite(tmp_path / "x.ome.tif", image, metadata=metadata)
    found = opened(tmp_path / "x.ome.tif")
    assert [layer.name for layer in found] == ["x a", "x b", "x c"]
    for index, layer in enumerate(found):
        np.testing.assert_array_equal(np.asarray(layer.data), image[:, index])
        assert layer.axis_labels == ("T", "Z", "Y", "X")
        np.testing.assert_allclose(layer.scale, (1, 2, 0.5, 0.5))
        assert [str(unit) for unit in layer.units][1:] == ["micrometer"] * 3


def test_colours_stay_one_layer(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 99, (20, 30, 3)).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "x.ome.tif", image, photometric="rgb", metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    )
    (layer,) = opened(tmp_path / "x.ome.tif")
    assert layer.rgb
    assert (layer.axis_labels, tuple(layer.scale)) == (("Y", "X"), (0.25, 0.5))


def test_pyramids_open_with_all_levels(tmp_path: Path) -> None:
    fine = np.random.default_rng(0).integers(0, 99, (64, 64)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "x.ome.tif") as writer:
        writer.write(fine, subifds=1, tile=(16, 16), metadata={"axes": "YX"})
        writer.write(fine[::2, ::2], subfiletype=1, tile=(16, 16))
    (layer,) = opened(tmp_path / "x.ome.tif")
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [(64, 64), (32, 32)]


def test_a_zarr_folder_opens_with_its_grid_and_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_layout, "_COARSEST", 20)
    values = np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.uint8)
    labels = Volume.from_scale(values, "YX", (0.5, 0.25), units=("micrometer", "micrometer"))
    write_labels(labels, tmp_path / "x.ome.zarr", classes=("background", "a", "b"), colors=("#ff0000", "#00ff00"))
    (layer,) = opened(tmp_path / "x.ome.zarr")
    assert layer.multiscale
    assert tuple(layer.scale) == (0.5, 0.25)
    assert [level.shape for level in layer.data] == [(64, 64), (64, 32), (32, 16), (16, 8)]  # towards squares
    np.testing.assert_array_equal(np.asarray(layer.data[0]), values)
    (tmp_path / "folder").mkdir()
    assert napari_hooks.get_reader(str(tmp_path / "folder")) is None


def test_large_files_stay_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_module, "_WHOLE_BYTES", 0)
    image = np.random.default_rng(0).integers(0, 99, (4, 50, 60)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.ome.tif", image, metadata={"axes": "ZYX"}, compression="zlib")
    (layer,) = opened(tmp_path / "x.ome.tif")
    assert type(layer.data).__module__.startswith("dask")
    np.testing.assert_array_equal(np.asarray(layer.data[2, 10:20]), image[2, 10:20])


def test_every_image_of_a_file_is_opened(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.ome.tif") as writer:
        writer.write(np.zeros((5, 6), np.uint8), metadata={"axes": "YX"})
        writer.write(np.ones((7, 8), np.uint8), metadata={"axes": "YX"})
    assert [(layer.name, layer.data.shape) for layer in opened(tmp_path / "x.ome.tif")] == [("x 1", (5, 6)), ("x 2", (7, 8))]


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing:UserWarning")  # napari says how it shows such a layer
@pytest.mark.parametrize("suffix", [".ome.tif", ".nii.gz"])
@pytest.mark.parametrize(
    "placement",
    [
        {"scale": (2.0, 0.5, 0.5), "translate": (1.0, 2.0, 3.0)},
        {"scale": (2.0, 0.5, 0.5), "rotate": 30.0},
        {"scale": (2.0, 0.5, 0.5), "shear": [0.1, 0.2, 0.3], "translate": (4.0, 5.0, 6.0)},
        {"affine": [[0.0, 2.0, 0.0, 3.0], [0.0, 0.0, 1.0, 2.0], [-1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]], "scale": (1.0, 2.0, 3.0)},
    ],
    ids=["scale", "rotate", "shear", "affine"],
)
def test_a_saved_layer_lies_where_it_lay(tmp_path: Path, suffix: str, placement: dict[str, Any]) -> None:
    data = np.random.default_rng(0).integers(0, 999, (4, 5, 6))
    layer = layers.Labels(
        data, name="cells", units=("micrometer",) * 3, axis_labels=("z", "y", "x"), metadata={"tileseg": {"a": 1}}, **placement
    )
    path = tmp_path / f"cells{suffix}"
    assert napari_hooks.write_labels_layer(str(path), *layer.as_layer_data_tuple()[:2]) == [str(path)]
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data)
    assert volume.units == ("micrometer",) * 3
    assert volume.metadata["provenance"] == {"a": 1}
    for index in [(0, 0, 0), (3, 4, 5), (1, 0, 2)]:
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], layer.data_to_world(index), atol=1e-4)


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii.gz"])
def test_labels_come_back_as_labels_with_classes_and_colours(tmp_path: Path, suffix: str) -> None:
    volume = Volume(np.arange(24).reshape(2, 3, 4) % 3, "ZYX", units=("millimeter",) * 3)
    path = write_labels(
        volume, tmp_path / f"a{suffix}", classes=("background", "a", "b"), colors=("#ff0000", "#0000ff"), provenance={"x": 1}
    )
    (layer,) = opened(path)
    assert type(layer).__name__ == "Labels"
    assert layer.metadata["tileseg"] == {"x": 1}
    assert list(layer.features["class"]) == ["background", "a", "b"]
    np.testing.assert_array_equal(layer.get_color(2)[:3], (0, 0, 1))
    again = tmp_path / f"b{suffix}"
    napari_hooks.write_labels_layer(str(again), *layer.as_layer_data_tuple()[:2])
    found = read_volume(again)
    assert (found.metadata["classes"], found.metadata["colors"]) == (["background", "a", "b"], ["#ff0000", "#0000ff"])


def test_what_is_no_image_is_left_to_others(tmp_path: Path) -> None:
    assert napari_hooks.get_reader(str(tmp_path / "table.csv")) is None
    assert napari_hooks.get_reader([]) is None
    (tmp_path / "folder.tif").mkdir()
    assert napari_hooks.get_reader(str(tmp_path / "folder.tif")) is None


def test_axes_of_a_layer() -> None:
    def axes(shape: tuple[int, ...], **kwargs: Any) -> str:
        return napari_hooks.layer_volume(*layers.Labels(np.zeros(shape, int), **kwargs).as_layer_data_tuple()[:2]).axes

    assert axes((2, 3)) == "YX"
    assert axes((2, 3, 4)) == "ZYX"
    assert axes((2, 3, 4), axis_labels=("time", "y", "x")) == "TYX"
    assert axes((2, 3, 4, 5)) == "TZYX"
    assert axes((2, 3, 4), axis_labels=("a", "b", "c")) == "ZYX"
