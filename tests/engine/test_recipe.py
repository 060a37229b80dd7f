"""Options override the model's recipe, and only where they were given."""

from __future__ import annotations

import pytest

from napari_tileseg.engine.faults import smaller_window
from napari_tileseg.engine.recipe import resolve
from napari_tileseg.engine.scan import Turn
from napari_tileseg.errors import OptionsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.spec import ModelSpec

SPEC = ModelSpec(
    name="m",
    axes="CYX",
    channels=["grey"],
    classes=["a", "b"],
    window=(64, 64),
    multiple_of=16,
    overlap=0.3,
    sigma=0.2,
    steps="even",
    blending="nnunet",
)


def test_nothing_given_means_the_models_recipe() -> None:
    recipe = resolve(SPEC, SegmentOptions())
    assert (recipe.window, recipe.overlap, recipe.steps, recipe.blending, recipe.sigma) == ((64, 64), 0.3, "even", "nnunet", 0.2)


def test_what_is_given_counts() -> None:
    recipe = resolve(SPEC, SegmentOptions(window=(32, 48), overlap=0.0, blending="constant", sigma=0.125))
    assert (recipe.window, recipe.overlap, recipe.steps, recipe.blending, recipe.sigma) == ((32, 48), 0.0, "even", "constant", 0.125)


def test_padding_is_the_models_unless_it_is_given() -> None:
    reflecting = SPEC.model_copy(update={"padding": "reflect"})
    assert [resolve(spec, SegmentOptions()).plan((9, 9)).mirrored for spec in (SPEC, reflecting)] == [False, True]
    assert resolve(SPEC, SegmentOptions(padding="reflect")).plan((9, 9)).mirrored
    assert not resolve(reflecting, SegmentOptions(padding="zeros")).plan((9, 9)).mirrored


def test_a_window_that_the_network_cannot_take_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"^Window 250 is no multiple of 16\. Use 256\.$"):
        resolve(SPEC, SegmentOptions(window=(64, 250)))
    with pytest.raises(OptionsError, match="Window 64 x 64 x 64 has 3 sizes, the model's axes are YX"):
        resolve(SPEC, SegmentOptions(window=(64, 64, 64)))


def test_each_axis_may_have_its_own_multiple() -> None:
    flat = ModelSpec(name="m", axes="CZYX", channels=1, classes=["a", "b"], window=(6, 64, 32), multiple_of=(2, 16, 8))
    assert flat.multiples == (2, 16, 8)
    assert ModelSpec.model_validate_json(flat.model_dump_json()) == flat
    assert resolve(flat, SegmentOptions(window=(4, 16, 40))).window == (4, 16, 40)
    with pytest.raises(OptionsError, match=r"^Window 40 along Y is no multiple of 16\. Use 48\.$"):
        resolve(flat, SegmentOptions(window=(4, 40, 40)))
    assert smaller_window((8, 128, 64), flat.model_copy(update={"window": (8, 128, 64)})) == (8, 96, 48)
    turned = Turn(2, 3).spec(flat)
    assert (turned.axes, turned.window, turned.multiples) == ("CXZY", (32, 6, 64), (8, 2, 16))


def test_equal_multiples_are_one_number() -> None:
    known = {"name": "m", "axes": "CYX", "channels": 1, "classes": ["a", "b"], "window": (64, 64)}
    assert ModelSpec(**known, multiple_of=(16, 16)).multiple_of == 16
    for wrong in ((16, 16, 16), (16, 0), 0, ()):
        with pytest.raises(ValueError, match="multiple_of"):
            ModelSpec(**known, multiple_of=wrong)
    with pytest.raises(ValueError, match="positive multiples"):
        ModelSpec(**known, multiple_of=(16, 48))
