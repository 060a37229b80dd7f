"""Volume: axes, grid, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.errors import AxesError, InputError
from napari_tileseg.volume import Volume, parse_axes


@given(st.permutations("TCZYX"))
def test_any_order_of_known_letters_is_accepted(letters: list[str]) -> None:
    assert parse_axes(", ".join(letters).lower(), 5) == "".join(letters)


@pytest.mark.parametrize(
    ("axes", "ndim", "message"),
    [
        pytest.param("QYX", 3, '"Q" is unknown', id="unknown letter"),
        pytest.param("YYX", 3, "named twice", id="letter twice"),
        pytest.param("YX", 3, "3 dimensions", id="too few"),
        pytest.param("TZ", 2, "lack Y or X", id="no plane"),
    ],
)
def test_bad_axes_get_one_sentence(axes: str, ndim: int, message: str) -> None:
    with pytest.raises(AxesError, match=message):
        parse_axes(axes, ndim)


def test_spacing_is_the_length_of_one_step_even_on_a_turned_grid() -> None:
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine = np.eye(3)
    affine[:2, :2] = turn @ np.diag([2.0, 0.5])
    volume = Volume(np.zeros((3, 4)), "YX", affine)
    assert volume.spacing == pytest.approx({"Y": 2.0, "X": 0.5})


def test_dropping_the_channel_axis_keeps_the_others_in_place() -> None:
    volume = Volume.from_scale(
        np.zeros((2, 3, 4, 5)), "ZCYX", (3.0, 1.0, 0.5, 0.25), translate=(7, 0, 8, 9), units=("mm", "pixel", "mm", "mm")
    )
    axes, affine, units = volume.drop("C")
    assert axes == "ZYX"
    assert units == ("mm", "mm", "mm")
    np.testing.assert_array_equal(affine, [[3, 0, 0, 7], [0, 0.5, 0, 8], [0, 0, 0.25, 9], [0, 0, 0, 1]])


def test_refusals() -> None:
    with pytest.raises(InputError, match="empty"):
        Volume(np.zeros((0, 4)), "YX")
    with pytest.raises(InputError, match="affine"):
        Volume(np.zeros((2, 2)), "YX", np.eye(4))
    with pytest.raises(InputError, match="units"):
        Volume(np.zeros((2, 2)), "YX", units=("mm",))


def test_data_is_not_read_until_it_is_indexed() -> None:
    class Lazy:
        shape = (1 << 20, 1 << 20)
        dtype = np.dtype(np.uint8)

        def __getitem__(self, key: object) -> object:
            raise RuntimeError("read")

    assert Volume(Lazy(), "YX").sizes == {"Y": 1 << 20, "X": 1 << 20}
