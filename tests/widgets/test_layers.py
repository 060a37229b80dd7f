"""Layer <-> Volume: the world's coordinates are the same on both sides, and labels lie where their image lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Labels, Points, Shapes

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.errors import AxesError, InputError, OptionsError
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.volume import Volume
from napari_tileseg.widgets.layers import (
    class_features,
    facts_of,
    image_layers,
    label_colors,
    layer_matrix,
    other_layers,
    place,
    stack,
    volume_from_layer,
)
from napari_tileseg.widgets.objects import objects_table
from napari_tileseg.widgets.regions import framed, rectangles, visible_part, words
from napari_tileseg.widgets.result import finished_features

FLAT = ModelSpec(name="flat", axes="CYX", channels=["grey"], classes=["background", "a", "b"], colors=["#ff0000", "#00ff00"], window=(8, 8))
DEEP = ModelSpec(name="deep", axes="CZYX", channels=["t1"], classes=["background", "a"], window=(4, 4, 4))

numbers = st.floats(0.1, 10) | st.floats(-10, -0.1)
angles = st.floats(-170, 170)


@given(scale=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), move=st.tuples(numbers, numbers), turn=angles, shear=st.floats(-1, 1))
def test_labels_lie_on_their_image_however_it_is_turned(scale: Any, move: Any, turn: float, shear: float) -> None:
    affine = np.array([[0.9, 0.1, 4], [-0.2, 1.1, 5], [0, 0, 1]])
    units, names = ("um", "um"), ("y", "x")
    image = Image(np.zeros((6, 7)), scale=scale, translate=move, rotate=turn, shear=[shear], affine=affine, units=units, axis_labels=names)
    labels = Labels(np.zeros((6, 7), np.uint8), **place(image, "YX").arguments)
    np.testing.assert_allclose(layer_matrix(labels), layer_matrix(image), atol=1e-9)
    assert labels.units == image.units
    assert labels.axis_labels == image.axis_labels
    volume = volume_from_layer(image, "YX")
    np.testing.assert_allclose(volume.affine, layer_matrix(image))
    assert volume.units == ("micrometer", "micrometer")


@pytest.mark.parametrize(
    ("shape", "axes", "meta"),
    [
        pytest.param((5, 6), "YX", {}, id="plane"),
        pytest.param((5, 6, 3), "YXC", {"rgb": True}, id="colour"),
        pytest.param((4, 5, 6), "ZYX", {"scale": (3, 1, 2)}, id="volume"),
        pytest.param((2, 5, 6), "CYX", {"scale": (1, 2, 3)}, id="channels first"),
        pytest.param((2, 4, 5, 6), "TZYX", {"translate": (0, 1, 2, 3)}, id="film of volumes"),
        pytest.param((2, 3, 4, 5, 6), "TCZYX", {"scale": (9, 1, 2, 3, 4)}, id="film of channels of volumes"),
    ],
)
def test_every_kind_of_axes(shape: tuple[int, ...], axes: str, meta: dict[str, Any]) -> None:
    image = Image(np.random.default_rng(0).random(shape).astype(np.float32), **meta)
    volume = volume_from_layer(image, axes)
    assert volume.shape == shape
    placement = place(image, axes)
    grid = tuple(size for size, axis in zip(shape, axes, strict=True) if axis != "C")
    labels = Labels(placement.lay(np.zeros(grid, np.uint8)), **placement.arguments)
    assert placement.take(labels.data).shape == grid
    viewer = ViewerModel()
    viewer.add_layer(image)
    viewer.add_layer(labels)
    # napari lines layers up by their last axes: the same world point must mean the same pixel in both.
    for index in np.ndindex(*image.data.shape[: image.ndim]):
        world = image.data_to_world(index)
        found = np.round(labels.world_to_data(world[-labels.ndim :])).astype(int)
        letters = axes[: image.ndim]
        expected = [place for place, axis in zip(index, letters, strict=True) if axis != "C"]
        assert list(placement_index(found, placement.kept)) == expected


def placement_index(found: Any, kept: int | None) -> Any:
    if kept is None:
        return found
    assert found[kept] == 0, "the labels reach over all channels"
    return np.delete(found, kept)


def test_rgb_needs_its_colours_to_be_named() -> None:
    image = Image(np.zeros((5, 6, 3), np.uint8), rgb=True)
    assert facts_of(image).guess(FLAT) == "YXC"
    with pytest.raises(AxesError, match="Name it C"):
        volume_from_layer(image, "CYX")


def test_a_pyramid_is_taken_at_full_resolution() -> None:
    levels = [np.zeros((64, 64)), np.zeros((32, 32))]
    assert volume_from_layer(Image(levels, multiscale=True), "YX").shape == (64, 64)


def test_layers_are_stacked_as_channels() -> None:
    one, two = (Volume(np.full((3, 4), value, dtype), "YX", name=str(value)) for value, dtype in ((1, np.uint8), (2, np.float32)))
    both = stack([one, two], "both")
    assert (both.axes, both.shape, both.dtype) == ("CYX", (2, 3, 4), np.float32)
    np.testing.assert_array_equal(both.data[:, 1:, :2], np.stack([one.data, two.data])[:, 1:, :2])
    np.testing.assert_array_equal(both.data[1], two.data)
    with pytest.raises(InputError, match="one shape"):
        stack([one, Volume(np.zeros((3, 5)), "YX")], "no")


def test_what_is_no_image_is_named() -> None:
    points = Points(np.zeros((1, 2)), name="spots")
    assert other_layers([points]) == '"spots" is a Points layer; images can be segmented. Open an image.'
    assert other_layers([]) == ""
    first, second = Image(np.zeros((2, 2)), name="a"), Image(np.zeros((2, 2)), name="b")
    assert image_layers([first, points, second]) == [second, first]


def test_classes_have_names_and_colours() -> None:
    assert list(class_features(FLAT, 0)["class"]) == ["background", "a", "b"]
    colormap = label_colors(FLAT)
    assert colormap is not None
    np.testing.assert_allclose(colormap.color_dict[1], (1, 0, 0, 1))
    np.testing.assert_allclose(colormap.color_dict[0], (0, 0, 0, 0))
    objects = FLAT.model_copy(update={"output": "instances", "classes": ["background", "nucleus"], "colors": []})
    assert label_colors(objects) is None, "objects take napari's cyclic colours"
    assert list(class_features(objects, 3)["class"]) == ["background", "nucleus", "nucleus", "nucleus"]
    plain = label_colors(FLAT.model_copy(update={"colors": []}))
    assert plain is not None
    assert len({tuple(color) for label, color in plain.color_dict.items() if label}) == 2


def test_objects_are_measured_in_the_images_units() -> None:
    labels = np.zeros((2, 6, 8), np.int32)
    labels[0, 1:3, 1:5] = 1
    labels[1, 2:6, 2:4] = 4
    spacing, unit = {"T": 1.0, "Y": 0.5, "X": 2.0}, {"T": "pixel", "Y": "micrometer", "X": "micrometer"}
    table = objects_table(labels, "TYX", "YX", spacing, unit)
    np.testing.assert_array_equal(table["index"], [1, 4])
    np.testing.assert_array_equal(table["T"], [0, 1])
    np.testing.assert_allclose(table["area [µm²]"], [8, 8])
    np.testing.assert_allclose(table["centre Y [µm]"], [0.75, 1.75])
    objects = FLAT.model_copy(update={"output": "instances", "classes": ["background", "nucleus"], "colors": []})
    features = finished_features(objects, labels, table)
    assert len(features["index"]) == 5
    assert features["area [µm²]"][4] == 8
    assert np.isnan(features["area [µm²]"][2]), "there is no object 2"


def test_rectangles_become_a_region() -> None:
    image = Image(np.zeros((40, 60)), scale=(0.5, 0.5), translate=(10, 10))
    axis_map = map_axes("YX", (40, 60), FLAT)
    corners = np.array([[12.0, 15.0], [12.0, 20.0], [17.0, 20.0], [17.0, 15.0]])
    assert rectangles(Shapes([corners], shape_type="rectangle"), image, axis_map) == (((4, 15), (10, 21)),)
    with pytest.raises(OptionsError, match="No Shapes layer"):
        rectangles(None, image, axis_map)
    with pytest.raises(OptionsError, match="no rectangle"):
        rectangles(Shapes([corners], shape_type="polygon", name="mine"), image, axis_map)
    with pytest.raises(OptionsError, match="touches the image"):
        rectangles(Shapes([corners + 900], shape_type="rectangle"), image, axis_map)


def test_a_flat_rectangle_takes_all_planes_of_a_volume() -> None:
    image = Image(np.zeros((9, 40, 60)))
    corners = np.array([[12.0, 15.0], [12.0, 20.0], [17.0, 20.0], [17.0, 15.0]])
    (region,) = rectangles(Shapes([corners], shape_type="rectangle"), image, map_axes("ZYX", (9, 40, 60), DEEP))
    assert region[0] == (0, 9)
    flat = np.concatenate([np.full((4, 1), 3.0), corners], axis=1)
    (region,) = rectangles(Shapes([flat], shape_type="rectangle"), image, map_axes("TYX", (9, 40, 60), FLAT))
    assert region[0] == (3, 4), "drawn on one frame, it means that frame"
    both = Shapes([flat, flat + np.array([2, 0, 20])], shape_type="rectangle")
    first, second = rectangles(both, image, map_axes("TYX", (9, 40, 60), FLAT))
    assert (first[0], second[0]) == ((3, 4), (5, 6)), "nothing is meant of what lies between"
    assert framed(both, image, map_axes("TYX", (9, 40, 60), FLAT))[0] == (3, 6)
    deep = map_axes("ZYX", (9, 40, 60), DEEP)
    assert [region[0] for region in rectangles(both, image, deep)] == [(0, 9), (0, 9)]
    (between,) = rectangles(Shapes([flat, flat + np.array([2, 0, 0])], shape_type="rectangle"), image, deep)
    assert between[0] == (3, 6), "one above the other, they mean what is between them"


def test_several_rectangles_are_several_regions() -> None:
    image, axis_map = Image(np.zeros((40, 60))), map_axes("YX", (40, 60), FLAT)
    corners = np.array([[2.0, 5.0], [2.0, 9.0], [5.0, 9.0], [5.0, 5.0]])
    shapes = Shapes([corners, corners + 30, corners + 900], shape_type="rectangle")
    regions = rectangles(shapes, image, axis_map)
    assert regions == (((2, 6), (5, 10)), ((32, 36), (35, 40))), "one lies outside of the image"
    assert framed(Shapes([corners, corners + 30], shape_type="rectangle"), image, axis_map) == ((2, 36), (5, 40))
    assert words(regions, axis_map) == "2, 2 % of image"
    assert words((regions[0], regions[0]), axis_map) == "2, < 1 % of image", "what they share counts once"
    assert words(regions[:1], axis_map) == "4 × 5"


def test_the_visible_part() -> None:
    image = Image(np.zeros((5, 40, 60)))
    image.corner_pixels = np.array([[2, 10, 20], [2, 19, 39]])
    film = map_axes("TYX", (5, 40, 60), FLAT)
    assert visible_part(image, film, (1, 2), (2, 0, 0), 3) == ((2, 3), (10, 20), (20, 40))
    volume = map_axes("ZYX", (5, 40, 60), DEEP)
    assert visible_part(image, volume, (1, 2), (2, 0, 0), 3) == ((0, 5), (10, 20), (20, 40))
    image.corner_pixels = np.zeros((2, 3), int)
    with pytest.raises(OptionsError, match="Nothing of the image is visible"):
        visible_part(image, film, (1, 2), (2, 0, 0), 3)


def test_the_levels_of_a_layer_are_those_of_its_volume() -> None:
    fine = np.arange(64 * 48, dtype=np.float32).reshape(64, 48)
    layer = Image([fine, fine[::2, ::2], fine[::4, ::4]], multiscale=True, scale=(2, 3), units=("um", "um"))
    volume = volume_from_layer(layer, "YX")
    assert [level.shape for level in volume.levels] == [(32, 24), (16, 12)]
    assert volume.levels[1].spacing == {"Y": 8, "X": 12}
    np.testing.assert_allclose(volume.levels[0].affine[:2, 2], (1, 1.5), err_msg="all levels cover the same box")
    colours = Image([np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)], multiscale=True, rgb=True)
    assert volume_from_layer(colours, "YXC").levels[0].shape == (4, 4, 3)
