"""The bundled models on real images: scores through the shipped path, and equal to one pass over the whole image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import napari_tileseg
from napari_tileseg.engine.watershed import decode
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor, load_model
from napari_tileseg.pipeline import segment
from napari_tileseg.training.assess import CHANGES, Score, assess, grey, inverted, mean_scores
from napari_tileseg.training.data import Pair, prepare_image, read_array
from napari_tileseg.training.metrics import average_precision, dice
from napari_tileseg.training.predict import whole_image_scores
from napari_tileseg.training.recipes import RECIPES

SAMPLES = Path(napari_tileseg.__file__).parent / "sample_data"


def sample(name: str, group: str) -> Pair:
    (image,) = SAMPLES.glob(f"{name}.*")
    (label,) = SAMPLES.glob(f"{name}_labels.*")
    return Pair(image, label, group)


FLUORESCENCE = sample("nuclei_fluorescence", "fluorescence")
HISTOLOGY = sample("nuclei_histology", "histology")
MRI = sample("hippocampus_mri", "mri")


@pytest.fixture(scope="module")
def nuclei() -> Predictor:
    return load_model("nuclei-2d", device="cpu")


@pytest.fixture(scope="module")
def hippocampus() -> Predictor:
    return load_model("hippocampus-3d", device="cpu")


@pytest.mark.parametrize("change", CHANGES)
def test_nuclei_are_found_bright_or_dark_coloured_or_grey(nuclei: Predictor, change: str) -> None:
    scores = list(assess(nuclei, [FLUORESCENCE, HISTOLOGY], change=CHANGES[change]))
    assert [score.group for score in scores] == ["fluorescence", "histology"]
    assert scores[0].values[0] > 0.85
    assert scores[1].values[0] > 0.35


def test_both_parts_of_the_hippocampus_are_found(hippocampus: Predictor) -> None:
    (score,) = assess(hippocampus, [MRI])
    assert min(score.values) > 0.85


def test_tiles_give_what_one_pass_gives(nuclei: Predictor) -> None:
    array = read_array(FLUORESCENCE.image)
    whole = decode(whole_image_scores(nuclei.module, nuclei.spec, prepare_image(array, nuclei.spec)), nuclei.spec.decoder_parameters)
    tiled = np.asarray(segment(array, nuclei, axes="YX", options=SegmentOptions(device="cpu")).labels)
    assert average_precision(tiled, whole, [0.7])[0] > 0.95  # two of 84 may be parted otherwise


def test_a_volume_in_one_tile_equals_one_pass(hippocampus: Predictor) -> None:
    array = read_array(MRI.image)
    whole = whole_image_scores(hippocampus.module, hippocampus.spec, prepare_image(array, hippocampus.spec)).argmax(axis=0)
    tiled = np.asarray(segment(array, hippocampus, axes="ZYX", options=SegmentOptions(device="cpu")).labels)
    assert (dice(tiled, whole, [1, 2]) > 0.999).all()


@pytest.mark.parametrize("name", RECIPES)
def test_bundled_models_are_those_of_the_recipes(name: str) -> None:
    made, recipe = load_model(name, device="cpu").spec, RECIPES[name].spec
    given = {"training", "weights_sha256", "decoder_parameters"}
    assert made.model_dump(exclude=given) == recipe.model_dump(exclude=given)
    assert made.training["crops"] > 0


def test_inverted_keeps_range_and_type_and_is_its_own_inverse() -> None:
    for array in (np.array([[3, 7], [200, 255]], np.uint8), np.array([[100, 4000]], np.uint16)):
        turned = inverted(array)
        assert turned.dtype == array.dtype
        assert (turned.min(), turned.max()) == (array.min(), array.max())
        np.testing.assert_array_equal(inverted(turned), array)


def test_grey_drops_the_colour_axis() -> None:
    colour = np.array([[[0, 30, 60], [255, 255, 255]]], np.uint8)
    np.testing.assert_array_equal(grey(colour), [[30, 255]])
    np.testing.assert_array_equal(grey(colour[..., 0]), colour[..., 0])


def test_means_are_over_images_and_by_group() -> None:
    scores = [Score("1", "a", (0.5, 1.0)), Score("2", "a", (0.7, 0.0)), Score("3", "b", (0.0, 0.5))]
    means = mean_scores(scores)
    assert list(means) == ["all", "a", "b"]
    assert means["a"][0] == 2
    np.testing.assert_allclose(means["all"][1], [0.4, 0.5])
    np.testing.assert_allclose(means["a"][1], [0.6, 0.5])
