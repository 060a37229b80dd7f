"""Scores are decoded again with other settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import expit, softmax

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.scores import decode, redecoded
from napari_tileseg.refine.specks import specks

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture
def scores() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 2, (4, 6, 40, 50)).astype(np.float32)


def test_the_middle_threshold_gives_the_most_likely_class(scores: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(decode(scores, "softmax"), scores.argmax(axis=0))


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.8])
def test_with_two_classes_the_threshold_is_the_probability(scores: NDArray[np.float32], threshold: float) -> None:
    found = decode(scores[:2], "softmax", threshold=threshold)
    np.testing.assert_array_equal(found == 1, softmax(scores[:2].astype(np.float64), axis=0)[1] > threshold)


def test_a_higher_threshold_never_adds(scores: NDArray[np.float32]) -> None:
    before = np.ones(scores.shape[1:], np.bool_)
    for threshold in (0.0, 0.2, 0.5, 0.9, 1.0):
        found = decode(scores, "softmax", threshold=threshold) > 0
        assert not (found & ~before).any()
        before = found
    assert not before.any()


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_masks_are_where_the_sigmoid_is_high_enough(scores: NDArray[np.float32], threshold: float) -> None:
    found = decode(scores, "sigmoid", threshold=threshold)
    np.testing.assert_array_equal(found, expit(scores.astype(np.float64)) >= threshold)
    assert found.dtype == np.bool_


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_small_parts_go(scores: NDArray[np.float32], kind: Any) -> None:
    smooth = ndimage.gaussian_filter(scores, (0, 1, 2, 2))
    found, whole = (decode(smooth, kind, min_size=size) for size in (30, 0))
    masks = [(found == k, whole == k) for k in range(1, 4)] if kind == "softmax" else list(zip(found, whole, strict=True))
    for kept, every in masks:
        parts, count = ndimage.label(every, np.ones((3, 3, 3)))
        pixels = np.bincount(parts.ravel(), minlength=count + 1)
        np.testing.assert_array_equal(kept, every & (pixels >= 30)[parts])
    assert found.sum() < whole.sum()


def test_objects_are_decoded_by_the_model_s_own_decoder(scores: NDArray[np.float32]) -> None:
    asked: list[tuple[float, float]] = []

    def decoder(given: NDArray[Any], threshold: float, min_size: float) -> NDArray[Any]:
        asked.append((threshold, min_size))
        return ndimage.label(given[0] > 3)[0]

    found = decode(scores, "instances", threshold=0.3, min_size=4, instances=decoder)
    assert asked == [(0.3, 4)]
    canvas = Canvas(np.zeros(scores.shape[1:], np.uint16))
    edit = redecoded(
        canvas, tuple(slice(0, size) for size in canvas.shape), scores, "instances", threshold=0.3, min_size=4, instances=decoder
    )
    assert edit.note == f"{found.max()} objects at threshold 0.3."
    canvas.apply(edit)
    np.testing.assert_array_equal(canvas.data > 0, found > 0)
    with pytest.raises(InputError, match="decoder"):
        decode(scores, "instances")


def test_the_visible_slice_alone_is_decoded(scores: NDArray[np.float32]) -> None:
    canvas = Canvas(np.full(scores.shape[1:], 9, np.uint8), classes=True)
    box = (slice(2, 3), slice(0, 40), slice(0, 50))
    canvas.apply(redecoded(canvas, box, scores[:, 2], "softmax"))
    np.testing.assert_array_equal(canvas.data[2], scores[:, 2].argmax(axis=0))
    assert (canvas.data[[0, 1, 3, 4, 5]] == 9).all()
    edit = redecoded(canvas, box, scores[:, 2], "sigmoid", threshold=0.7, number=1)
    canvas.apply(edit)
    np.testing.assert_array_equal(canvas.data[2], expit(scores[1, 2].astype(np.float64)) >= 0.7)
    with pytest.raises(InputError, match="box"):
        redecoded(canvas, box, scores, "softmax")


@pytest.mark.parametrize("options", [{"threshold": 1.1}, {"threshold": float("nan")}, {"min_size": -1}])
def test_settings_that_make_no_sense_are_refused(scores: NDArray[np.float32], options: dict[str, float]) -> None:
    with pytest.raises(OptionsError, match="not accepted"):
        decode(scores, "softmax", **options)


def test_regions_lie_in_each_other_and_the_last_one_counts(scores: NDArray[np.float32]) -> None:
    for threshold in (0.0, 0.3, 0.7, 1.0):
        found = decode(scores[:3], "regions", threshold=threshold, values=(2, 1, 3))
        inside = expit(scores[:3].astype(np.float64)) > threshold
        wanted = np.zeros(found.shape, np.uint8)
        for mask, value in zip(inside, (2, 1, 3), strict=True):
            wanted[mask] = value
        np.testing.assert_array_equal(found, wanted)
    smooth = ndimage.gaussian_filter(scores[:3], (0, 1, 2, 2))
    left, every = (decode(smooth, "regions", min_size=size, values=(2, 1, 3)) for size in (50, 0))
    assert np.count_nonzero(left) < np.count_nonzero(every)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (33, 57), (64, 64), (5, 20, 30)])
@pytest.mark.parametrize("blur", [0.0, 1.5, 4.0])
def test_specks_are_the_parts_with_few_pixels(shape: tuple[int, ...], blur: float) -> None:
    random = np.random.default_rng(len(shape) + int(blur))
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        values = ndimage.gaussian_filter(random.normal(size=shape), blur) if blur else random.normal(size=shape)
        mask = values <= np.quantile(values, share) if share else np.zeros(shape, bool)
        parts, _ = ndimage.label(mask, np.ones((3,) * len(shape)))
        wanted = mask & (np.bincount(parts.ravel()) < 9)[parts]
        np.testing.assert_array_equal(specks(mask, 9), wanted)
