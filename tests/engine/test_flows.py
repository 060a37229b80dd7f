"""Objects from flows: discs come back, whatever lies beside them and however the scores are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_tileseg.engine import flows
from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.engine.heat import flow_errors, flows_of
from napari_tileseg.engine.objects import Objects
from napari_tileseg.engine.scan import Turn
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.errors import ModelError, OptionsError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def blobs(seed: int, shape: tuple[int, ...] = (150, 120), count: int = 30) -> NDArray[np.int32]:
    """Return ellipses that may touch, numbered from 1."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), -1)
    labels = np.zeros(shape, np.int32)
    for number in range(1, count + 1):
        centre, radii = rng.uniform(0, 1, len(shape)) * shape, rng.uniform(5, 10, len(shape))
        labels[(((grid - centre) / radii) ** 2).sum(-1) < 1] = number
    pieces = np.zeros(shape, np.int32)
    count = 0
    for number in np.unique(labels)[1:]:
        found, more = ndimage.label(labels == number)
        pieces[found > 0] = found[found > 0] + count
        count += more
    return pieces


def scores_of(labels: NDArray[np.int32], seed: int = 0) -> NDArray[np.float32]:
    """Return what a good network says of objects in a plane."""
    rng = np.random.default_rng(seed)
    cells = np.where(labels > 0, 4.0, -4.0) + rng.normal(0, 0.5, labels.shape)
    return np.concatenate([cells[None], 5 * flows_of(labels) + rng.normal(0, 0.3, (2, *labels.shape))]).astype(np.float32)


def matched(found: NDArray[Any], true: NDArray[Any]) -> float:
    """Return the share of true objects of 40 pixels and more that are found with more than half in common."""
    numbers = [number for number in np.unique(true)[1:] if (true == number).sum() >= 40]
    hits = 0
    for number in numbers:
        mask = true == number
        other = np.bincount(found[mask]).argmax()
        hits += bool(other) and (mask & (found == other)).sum() / (mask | (found == other)).sum() > 0.5
    return hits / len(numbers)


@pytest.mark.parametrize("seed", range(4))
def test_objects_come_back(seed: int) -> None:
    labels = blobs(seed)
    found = flows.decode(scores_of(labels, seed), {})
    assert matched(found, labels) >= 0.9  # slivers that others have left are not
    numbers, first = np.unique(found, return_index=True)
    assert (numbers == np.arange(len(numbers))).all()
    assert (np.diff(first[1:]) > 0).all()  # numbered as a scan meets them


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("height", [7, 40])
def test_cut_into_slabs_objects_are_the_same(seed: int, height: int) -> None:
    scores = scores_of(blobs(seed, count=14), seed)
    whole = flows.decode(scores, {})
    decoder = Objects(flows, {}, classes=["background", "cell"])
    found = np.full(whole.shape, -1, np.int32)
    for top in range(0, len(whole), height):
        part = torch.from_numpy(scores[:, top : top + height].copy())
        for region, given in decoder.add(Tile((top, 0), (top + part.shape[1], whole.shape[1])), part):
            found[region.slices] = given
    for region, given in decoder.finish():
        found[region.slices] = given
    assert np.array_equal(found, whole)
    assert decoder.objects == whole.max() > 5


def test_what_lies_beside_an_object_does_not_change_it() -> None:
    labels = blobs(1, (60, 60), 6)
    alone = flows.decode(scores_of(labels), {})
    scores = np.full((3, 100, 400), -5, np.float32)
    scores[1:] = 3  # flows outside of cells are not followed
    scores[:, 20:80, 170:230] = scores_of(labels)
    scores[:, 20:80, 300:360] = scores_of(blobs(2, (60, 60), 6))
    found = flows.decode(scores, {})[20:80, 170:230]
    assert np.array_equal(found > 0, alone > 0)
    pairs = np.unique(np.stack([found.ravel(), alone.ravel()]), axis=1)
    assert len(pairs.T) == len(np.unique(alone))


def test_parameters_choose() -> None:
    scores = scores_of(blobs(3))
    usual = flows.decode(scores, {})
    sizes = np.bincount(usual.ravel())[1:]
    assert (np.bincount(flows.decode(scores, {}, min_size=150).ravel())[1:] >= 150).all()
    assert (sizes < 150).any()
    assert not flows.decode(scores, {"cellprob_threshold": 50}).any()
    assert not flows.decode(scores, {}, threshold=1).any()
    bad = scores.copy()
    bad[1:] = -bad[1:] / 4  # away from the middle
    kept, all_ = flows.decode(bad, {"min_size": 1}), flows.decode(bad, {"min_size": 1, "flow_threshold": 0})
    assert kept.max() < all_.max()


def test_an_objects_own_flow_has_no_error_and_another_has() -> None:
    labels = blobs(0)
    own = flows_of(labels).astype(np.float32)
    assert flow_errors(labels, own).max() < 1e-10
    assert np.median(flow_errors(labels, -own)) > 3.5
    lengths = np.sqrt((own**2).sum(0))
    assert np.allclose(lengths[(labels > 0) & (lengths > 0)], 1, atol=1e-5)
    assert not lengths[labels == 0].any()


def test_volumes() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in (24, 40, 60)], indexing="ij"), -1)
    scores = np.full((4, 24, 40, 60), -3, np.float32)
    true = np.zeros((24, 40, 60), np.int32)
    for number, centre in enumerate([(10, 12, 14), (12, 25, 25), (11, 20, 46)], start=1):
        away = np.asarray(centre) - grid
        inside = (away**2).sum(-1) < 64
        true[inside] = number
        scores[1:, inside] = (5 * away / np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1))[inside].T
        scores[0, inside] = 3
    found = flows.decode(scores, {})
    assert found.max() == 3
    assert matched(found, true) == 1


def test_strange_scores_are_refused_and_empty_ones_are_not() -> None:
    with pytest.raises(ModelError, match="needs 3 score channels"):
        flows.decode(np.zeros((4, 9, 9), np.float32), {})
    with pytest.raises(OptionsError, match="from 0 to 1"):
        flows.foreground(np.zeros((3, 9, 9), np.float32), {}, 1.5)
    assert not flows.decode(np.full((3, 9, 9), -9, np.float32), {}).any()
    assert not flows.decode(np.zeros((3, 1, 9), np.float32), {}, threshold=0.4).any()


@pytest.mark.parametrize("axis", [0, 1])
def test_looked_up_aside_objects_are_the_same_cut_into_slabs_along_any_axis(axis: int) -> None:
    scores = scores_of(blobs(6, (97, 97), 12))
    shape, parameters = scores.shape[1:], {"aside": 1.0}
    whole = flows.decode(scores, {**parameters, "size_0": 97.0, "size_1": 97.0})
    turn = Turn(axis, 2)
    decoder = Objects(turn.decoder(find_decoder("cellpose")), parameters, classes=["background", "cell"], shape=shape)
    turned = scores.transpose(0, *(1 + place for place in turn.order))
    found = np.full(shape, -1, np.int32)
    pieces = []
    for top in range(0, 97, 10):
        part = torch.from_numpy(turned[:, top : top + 10].copy())
        pieces += list(decoder.add(Tile((top, 0), (top + part.shape[1], 97)), part))
    for region, given in [*pieces, *decoder.finish()]:
        found[region.slices] = given
    found = found.transpose(turn.inverse)
    assert np.array_equal(found > 0, whole > 0)
    assert len(np.unique(np.stack([found.ravel(), whole.ravel()]), axis=1).T) == len(np.unique(whole)) > 5
    assert not np.array_equal(whole, flows.decode(scores, {}))
