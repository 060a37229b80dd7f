"""Tissue on bright and on dark ground is found, and leaving the ground out changes nothing inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.events import Finished
from napari_tileseg.engine.tissue import Tissue, tissue_mask
from napari_tileseg.io.samples import sample
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec
from napari_tileseg.pipeline import segment
from napari_tileseg.volume import Volume


def mask_of(array: np.ndarray, axes: str) -> Tissue:
    volume = Volume(array, axes)
    return tissue_mask(volume, map_axes(axes, array.shape, find_spec("nuclei-2d")))


def on_canvas(size: int = 1400) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Return the histology sample somewhere on a white slide with a little noise."""
    tissue = np.asarray(sample("nuclei-histology")[0].data)
    canvas = np.random.default_rng(0).normal(244, 1.5, (size, size, 3)).round().astype(np.uint8)
    place = (slice(500, 500 + tissue.shape[0]), slice(700, 700 + tissue.shape[1]))
    canvas[place] = tissue
    return canvas, place


def test_stained_tissue_on_a_white_slide() -> None:
    canvas, place = on_canvas()
    tissue = mask_of(canvas, "YXC")
    inside = np.zeros(canvas.shape[:2], bool)
    inside[place] = True
    full = tissue.mask.repeat(tissue.step, 0).repeat(tissue.step, 1)[: canvas.shape[0], : canvas.shape[1]]
    assert full[inside].mean() > 0.97
    assert full.mean() < inside.mean() * 1.2


@pytest.mark.parametrize("invert", [False, True])
def test_cells_on_dark_and_on_bright_ground(invert: bool) -> None:
    image = np.random.default_rng(0).normal(200, 8, (600, 900))
    image[100:140, 300:330] += 150  # bright cells, and dim ones
    image[400:430, 700:740] += 70
    tissue = mask_of((4000 - image if invert else image).astype(np.uint16), "YX")
    assert tissue.mask[105:135, 305:325].all()
    assert tissue.mask[405:425, 705:735].all()
    assert tissue.share < 0.02


@pytest.mark.parametrize("name", ["nuclei-histology", "nuclei-fluorescence"])
def test_no_nucleus_of_the_samples_is_taken_for_ground(name: str) -> None:
    image, labels = sample(name)
    tissue = mask_of(np.asarray(image.data), image.axes)
    assert tissue.step == 1
    found = np.unique(np.asarray(labels.data)[tissue.mask])
    assert set(found) | {0} == set(np.unique(np.asarray(labels.data))) | {0}
    assert np.count_nonzero(tissue.mask & (np.asarray(labels.data) > 0)) > 0.9 * np.count_nonzero(labels.data)


def test_an_image_without_ground_is_tissue_all_over() -> None:
    assert mask_of(np.full((40, 50), 7, np.uint8), "YX").share == 1
    noise = np.random.default_rng(0).random((300, 300)).astype(np.float32)
    assert mask_of(noise, "YX").share == 1


@settings(max_examples=50)
@given(step=st.integers(1, 7), shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 2**31), data=st.data())
def test_a_box_touches_what_lies_in_it(step: int, shape: tuple[int, int], seed: int, data: st.DataObject) -> None:
    grid = tuple(-(-size // step) for size in shape)
    mask = np.random.default_rng(seed).random(grid) < 0.1
    full = mask.repeat(step, 0).repeat(step, 1)[: shape[0], : shape[1]]
    box: Any = tuple(sorted((data.draw(st.integers(-3, size - 1)), data.draw(st.integers(1, size + 3)))) for size in shape)
    inside = full[tuple(slice(max(0, start), max(stop, 0)) for start, stop in box)]
    if inside.any():
        assert Tissue(mask, step).touches(box)


def test_skipping_changes_no_label_in_the_tissue_and_saves_most_tiles() -> None:
    canvas, place = on_canvas()
    predictor = load_model("nuclei-2d", device="cpu")
    events: dict[bool, list[Any]] = {False: [], True: []}
    labels, windows = {}, {}
    for skip in (True, False):
        options = SegmentOptions(window=(128, 128), skip_background=skip, device="cpu")
        result = segment(canvas, predictor, axes="YXC", options=options, on_event=events[skip].append)
        labels[skip], windows[skip] = result.labels, result.windows
        assert isinstance(events[skip][-1], Finished)
        assert events[skip][-1].windows == result.windows
    inner = tuple(slice(span.start + 8, span.stop - 8) for span in place)
    assert windows[True] < windows[False] / 4
    np.testing.assert_array_equal(labels[True][inner] > 0, labels[False][inner] > 0)
    pairs = np.unique(np.stack([labels[True][inner].ravel(), labels[False][inner].ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]  # the same objects, whatever their numbers
    outside = labels[True].copy()
    outside[400:900, 600:1200] = 0
    assert not outside.any()
