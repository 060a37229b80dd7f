"""Objects decoded while scores arrive are those of the whole image, ids included."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_tileseg.engine.decoders import DECODERS, find_decoder
from napari_tileseg.engine.objects import Objects, renumber
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Peaks:
    """Cores of components, found with the help of the scores up to `margin` pixels away."""

    def margin(self, parameters: Mapping[str, float]) -> int:
        return int(parameters["margin"])

    def foreground(self, scores: np.ndarray, parameters: Mapping[str, float], threshold: float = 0.5) -> np.ndarray:
        return scores[0] >= threshold

    def decode(self, scores: np.ndarray, parameters: Mapping[str, float], *, threshold: float = 0.5, min_size: float = 0) -> np.ndarray:
        highest = ndimage.maximum_filter(scores[0], size=2 * self.margin(parameters) + 1, mode="constant", cval=-np.inf)
        cores = self.foreground(scores, parameters, threshold) & (scores[0] >= highest - 0.8)
        labels, count = ndimage.label(cores, structure=np.ones((3,) * cores.ndim))
        small = np.bincount(labels.ravel(), minlength=count + 1) < min_size
        labels[small[labels]] = 0
        return labels


def blobs(seed: int, shape: tuple[int, ...], channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scores = ndimage.gaussian_filter(rng.normal(size=(channels, *shape)), (0, *(rng.choice([0.7, 1.5]),) * len(shape)))
    return (scores / max(scores.std(), 1e-9)).astype(np.float32)


def stream(objects: Objects, scores: np.ndarray, cuts: list[int]) -> tuple[np.ndarray, list[int]]:
    """Feed scores in pieces; return the labels and after how many rows each of them came."""
    shape = scores.shape[1:]
    labels = np.full(shape, -1, dtype=np.int32)
    emitted = [0]

    def put(pieces: Any) -> None:
        for region, values in pieces:
            assert region.start[0] == emitted[-1], "regions come in order, side by side"
            assert values.dtype == np.int32
            emitted.append(region.stop[0])
            labels[region.slices] = values

    edges = sorted({0, shape[0], *(cut for cut in cuts if cut < shape[0])})
    for start, stop in itertools.pairwise(edges):
        buffer = torch.from_numpy(scores[:, start:stop].copy())
        put(objects.add(Tile((start, *(0 for _ in shape[1:])), (stop, *shape[1:])), buffer))
        buffer.fill_(np.nan)  # the engine uses its buffer again
    put(objects.finish())
    assert emitted[-1] == shape[0]
    return labels, emitted


SHAPES = st.one_of(st.tuples(st.integers(1, 60), st.integers(1, 40)), st.tuples(*[st.integers(1, 16)] * 3))


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    shape=SHAPES,
    cuts=st.lists(st.integers(1, 59)),
    margin=st.integers(0, 4),
    min_size=st.integers(0, 6),
    threshold=st.sampled_from([-0.5, 0.3, 1.0]),
)
def test_streamed_objects_equal_those_of_the_whole_image(
    seed: int, shape: tuple[int, ...], cuts: list[int], margin: int, min_size: int, threshold: float
) -> None:
    scores, parameters = blobs(seed, shape), {"margin": margin}
    expected, count = renumber(Peaks().decode(scores, parameters, threshold=threshold, min_size=min_size))
    objects = Objects(Peaks(), parameters, classes=["background", "cell"], threshold=threshold, min_size=min_size)
    found, _ = stream(objects, scores, cuts)
    np.testing.assert_array_equal(found, expected)
    assert objects.objects == count
    assert objects.voxels == {"background": int((expected == 0).sum()), "cell": int((expected > 0).sum())}
    assert objects.warnings() == []


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), shape=SHAPES, cuts=st.lists(st.integers(1, 59)))
def test_the_watershed_too(seed: int, shape: tuple[int, ...], cuts: list[int]) -> None:
    scores, watershed = blobs(seed, shape, channels=3), find_decoder("watershed")
    expected, _ = renumber(watershed.decode(scores, {}, threshold=0.4, min_size=2))
    objects = Objects(watershed, {}, classes=["background", "cell"], threshold=0.4, min_size=2)
    found, _ = stream(objects, scores, cuts)
    np.testing.assert_array_equal(found, expected)


def test_what_is_settled_is_given_at_once() -> None:
    scores = np.full((1, 40, 5), -1, dtype=np.float32)
    scores[0, 2:4, 1] = 1
    scores[0, 20:35, 2] = 1
    objects = Objects(Peaks(), {"margin": 0}, classes=["background", "cell"])
    _, emitted = stream(objects, scores, [10, 25, 30])
    assert emitted == [0, 9, 20, 39, 40]  # the last row of a piece can still grow; the tall one is waited for


def test_ids_go_on_from_the_first() -> None:
    scores = np.full((1, 3, 9), -1, dtype=np.float32)
    scores[0, 1, ::4] = 1
    objects = Objects(Peaks(), {"margin": 0}, classes=["background", "cell"], first_id=8)
    found, _ = stream(objects, scores, [1, 2])
    assert found[1].tolist() == [8, 0, 0, 0, 9, 0, 0, 0, 10]
    assert objects.objects == 3


@pytest.mark.parametrize("margin", [0, 5])
def test_a_component_without_end_is_cut_between_its_objects(margin: int) -> None:
    scores = np.full((1, 400, 6), 0.6, dtype=np.float32)  # one component from end to end ...
    scores[0, 2::10, 3] = 5.0  # ... with an object every ten rows, if the margin is wide enough to see the next one
    parameters = {"margin": margin}
    whole, count = renumber(Peaks().decode(scores, parameters))
    objects = Objects(Peaks(), parameters, classes=["background", "cell"], limit=50)
    held = []
    for start in range(0, 400, 20):
        for _, labels in objects.add(Tile((start, 0), (start + 20, 6)), torch.from_numpy(scores[:, start : start + 20].copy())):
            held.append(labels)
        assert start + 20 - sum(map(len, held)) <= 50 + 20
    held += [labels for _, labels in objects.finish()]
    found = np.concatenate(held)
    (warning,) = objects.warnings()
    assert "more than 50 rows" in warning
    assert found.shape == whole.shape
    if margin:
        np.testing.assert_array_equal(found, whole)
        assert objects.objects == count


def test_an_object_taller_than_the_limit_is_cut_in_two() -> None:
    scores = np.ones((1, 100, 4), dtype=np.float32)
    objects = Objects(Peaks(), {"margin": 1}, classes=["background", "cell"], limit=30)
    found, _ = stream(objects, scores, list(range(10, 100, 10)))
    assert (found > 0).all()
    assert len(np.unique(found)) == objects.objects > 1
    assert all((np.diff(np.flatnonzero((found == value).any(1))) == 1).all() for value in np.unique(found))
    assert len(objects.warnings()) == 1


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(ModelError, match=r'needs the decoder "embedding".*Known decoders are cellpose, stardist, watershed'):
        find_decoder("embedding")


def test_a_broken_decoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "gone", "napari_tileseg_no_such_module")
    monkeypatch.setitem(DECODERS, "json", "json")
    with pytest.raises(ModelError, match='"gone" cannot be loaded'):
        find_decoder("gone")
    with pytest.raises(ModelError, match="lacks foreground, decode, margin"):
        find_decoder("json")
