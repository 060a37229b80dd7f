"""Axes: what feeds what, asked where it is in doubt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.engine.axes import guess_axes, map_axes
from napari_tileseg.errors import AxesError, InputError
from napari_tileseg.models.spec import ModelSpec

PLANE = ModelSpec(name="plane", axes="CYX", channels=1, classes=["background", "cell"], window=(8, 8))
COLOUR = ModelSpec(name="colour", axes="CYX", channels=3, classes=["background", "cell"], window=(8, 8), grey="repeat")
STAINS = ModelSpec(name="stains", axes="CYX", channels=["DAPI", "actin"], classes=["background", "cell"], window=(8, 8))
SOLID = ModelSpec(name="solid", axes="CZYX", channels=1, classes=["background", "organ"], window=(8, 8, 8))


@given(axes=st.permutations("TCZYX").map("".join), sizes=st.lists(st.integers(1, 4), min_size=5, max_size=5))
def test_every_pixel_of_every_sample_has_one_place_in_the_result(axes: str, sizes: list[int]) -> None:
    found = dict(zip(axes, sizes, strict=True))
    mapped = map_axes(axes, sizes, PLANE, channels=[0])
    assert mapped.count * int(np.prod(mapped.spatial_shape)) == int(np.prod(mapped.result_shape))
    assert len(list(mapped.samples())) == mapped.count == found["T"] * found["Z"]
    assert "C" not in mapped.result_axes


@pytest.mark.parametrize(
    ("axes", "shape", "spec", "sentence"),
    [
        pytest.param("YX", (520, 696), PLANE, "Y 520, X 696 → model Y X. One plane.", id="plane"),
        pytest.param("YXC", (64, 80, 3), COLOUR, "C = all of 3, Y 64, X 80 → model Y X. One plane.", id="colour"),
        pytest.param("TYX", (12, 64, 80), COLOUR, "Y 64, X 80 → model Y X. T = 12 frames, each by itself.", id="film"),
        pytest.param(
            "TCZYX",
            (2, 1, 5, 64, 80),
            SOLID,
            "C = 0 of 1, Z 5, Y 64, X 80 → model Z Y X. T = 2 frames, each by itself.",
            id="film of volumes",
        ),
        pytest.param("ZYX", (5, 64, 80), PLANE, "Y 64, X 80 → model Y X. Z = 5 planes, each by itself.", id="stack"),
    ],
)
def test_the_sentence_says_what_will_happen(axes: str, shape: tuple[int, ...], spec: ModelSpec, sentence: str) -> None:
    assert map_axes(axes, shape, spec).sentence == sentence


def test_grey_feeds_all_channels_of_a_model_that_repeats_it() -> None:
    assert map_axes("YX", (8, 8), COLOUR).channels == (None, None, None)
    assert map_axes("CYX", (1, 8, 8), COLOUR).channels == (0, 0, 0)
    assert map_axes("CYX", (5, 8, 8), COLOUR, channels=[4]).channels == (4, 4, 4)


def test_three_stains_are_no_colours_and_the_one_that_is_meant_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"Which of the 3 channels should colour look at\? Choose one \(0 to 2\), or all if they are"):
        map_axes("CYX", (3, 8, 8), COLOUR)
    assert map_axes("CYX", (3, 8, 8), COLOUR, channels=[1]).channels == (1, 1, 1)
    assert map_axes("CYX", (3, 8, 8), COLOUR, channels=[0, 1, 2]).channels == (0, 1, 2)


def test_alpha_is_no_channel() -> None:
    assert map_axes("YXC", (8, 8, 4), COLOUR).channels == (0, 1, 2)


@pytest.mark.parametrize(
    ("axes", "shape", "spec", "channels", "message"),
    [
        pytest.param("CYX", (5, 8, 8), COLOUR, None, "takes 3 channels or 1; the image has 5", id="too many"),
        pytest.param("YX", (8, 8), STAINS, None, r"needs 2 channels \(DAPI, actin\); the image has 1", id="too few"),
        pytest.param("CYX", (2, 8, 8), STAINS, [0, 2], "Channel 2 was chosen; the image has channels 0 to 1", id="beyond"),
        pytest.param("CYX", (2, 8, 8), STAINS, [0], "1 channels were chosen", id="one missing"),
        pytest.param("YX", (0, 8), PLANE, None, "empty", id="empty"),
    ],
)
def test_channels_that_do_not_fit(axes: str, shape: tuple[int, ...], spec: ModelSpec, channels: list[int] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        map_axes(axes, shape, spec, channels=channels)


def test_a_volume_model_refuses_a_plane_and_says_why() -> None:
    with pytest.raises(AxesError, match=r"solid needs volumes \(Z Y X\); the image has Y X"):
        map_axes("YX", (8, 8), SOLID)


@pytest.mark.parametrize("shape", [(9,), (1, 1, 1, 1, 9, 9)])
def test_too_few_or_too_many_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(AxesError, match=f"{len(shape)} dimension"):
        map_axes("?" * (len(shape) - 2) + "YX", shape, PLANE)


def test_the_question_names_the_axis_and_its_length() -> None:
    with pytest.raises(AxesError, match=r"What is the first axis \(12 entries\)\?") as caught:
        map_axes("?YX", (12, 8, 8), PLANE)
    assert caught.value.axis == 0


@pytest.mark.parametrize(
    ("shape", "rgb", "labels", "spec", "expected"),
    [
        pytest.param((5, 6), False, (), PLANE, "YX", id="plane"),
        pytest.param((5, 6, 3), True, ("-2", "-1"), COLOUR, "YXC", id="colour"),
        pytest.param((9, 5, 6, 3), True, ("time", "y", "x"), COLOUR, "TYXC", id="colour film"),
        pytest.param((9, 5, 6), False, (), PLANE, "?YX", id="stack or film: ask"),
        pytest.param((9, 5, 6), False, ("-3", "-2", "-1"), PLANE, "?YX", id="napari's own names mean nothing"),
        pytest.param((9, 5, 6), False, (), SOLID, "ZYX", id="volume for a volume model"),
        pytest.param((9, 5, 6), False, ("z", "y", "x"), PLANE, "ZYX", id="named stack"),
        pytest.param((2, 5, 6), False, (), STAINS, "CYX", id="as many as the model has channels"),
        pytest.param((4, 2, 5, 6), False, ("t", "c", "y", "x"), STAINS, "TCYX", id="all named"),
        pytest.param((4, 9, 5, 6), False, ("t", "-3", "-2", "-1"), SOLID, "T?YX", id="one unknown"),
    ],
)
def test_guesses(shape: tuple[int, ...], rgb: bool, labels: tuple[str, ...], spec: ModelSpec, expected: str) -> None:
    assert guess_axes(shape, rgb=rgb, axis_labels=labels, spec=spec) == expected


@given(t=st.integers(1, 3), z=st.integers(1, 3), y=st.integers(1, 9))
def test_rows_count_samples_in_order(t: int, z: int, y: int) -> None:
    mapped = map_axes("TZYX", (3, 3, 9, 4), PLANE)
    region = ((t - 1, t), (z - 1, z), (0, y), (0, 4))
    assert mapped.rows_until(region) == ((t - 1) * 3 + (z - 1)) * 9 + y


def test_overlapping_classes_get_one_mask_each() -> None:
    spec = ModelSpec(name="regions", axes="CYX", channels=1, classes=["whole", "core"], window=(8, 8), output="sigmoid")
    mapped = map_axes("TYX", (3, 8, 9), spec)
    assert mapped.result_axes == "CTYX"
    assert mapped.result_shape == (2, 3, 8, 9)
    assert mapped.result_dtype == np.uint8
