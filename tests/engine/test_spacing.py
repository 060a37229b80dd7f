"""Pixel sizes are compared in one unit, and a bad match is said."""

from __future__ import annotations

import numpy as np
import pytest

from napari_tileseg.engine.spacing import spacing_note, spacing_ratios
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.volume import Volume

SPEC = ModelSpec(
    name="organ", axes="CZYX", channels=1, classes=["background", "organ"], window=(8, 8, 8), spacing=(1, 1, 1), spacing_unit="millimeter"
)


def _volume(*scale: float, unit: str) -> Volume:
    return Volume.from_scale(np.zeros((4, 4, 4)), "ZYX", scale, units=(unit,) * 3)


@pytest.mark.parametrize(("scale", "unit"), [((1, 1, 1), "mm"), ((1000, 1000, 1000), "µm"), ((0.1, 0.1, 0.1), "cm")])
def test_one_length_in_any_unit_suits_the_model(scale: tuple[float, ...], unit: str) -> None:
    volume = _volume(*scale, unit=unit)
    assert spacing_ratios(volume, SPEC) == pytest.approx({"Z": 1, "Y": 1, "X": 1})
    assert spacing_note(volume, SPEC) is None


def test_thick_slices_are_resampled_without_a_word_and_named_when_they_are_not() -> None:
    volume = _volume(3, 1, 1, unit="mm")
    assert spacing_note(volume, SPEC) is None
    note = spacing_note(volume, SPEC, rescale=False)
    assert note is not None
    assert "3 x 1 x 1 mm" in note


def test_a_unit_that_cannot_be_right_is_questioned() -> None:
    note = spacing_note(_volume(1, 1, 1, unit="µm"), SPEC)
    assert note is not None
    assert "Is the unit right?" in note


def test_an_unknown_pixel_size_is_said() -> None:
    note = spacing_note(_volume(1, 1, 1, unit="pixel"), SPEC)
    assert note is not None
    assert "unknown" in note


def test_a_model_without_a_pixel_size_asks_nothing() -> None:
    spec = SPEC.model_copy(update={"spacing": None})
    assert spacing_note(_volume(5, 1, 1, unit="mm"), spec) is None


def test_a_zoom_counts_whatever_the_pixel_size_is() -> None:
    spec = SPEC.model_copy(update={"zoom": (1.0, 2.0, 2.0)})
    for unit in ("mm", "pixel"):
        volume = _volume(3, 1, 1, unit=unit)
        assert spacing_ratios(volume, spec) == {"Z": 1.0, "Y": 2.0, "X": 2.0}
        assert spacing_note(volume, spec) is None
