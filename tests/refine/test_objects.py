"""Whole objects: merged, removed, kept, numbered anew, taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label as connected
from skimage.segmentation import clear_border, relabel_sequential

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.objects import (
    components,
    keep_largest,
    merge,
    reassign,
    relabel,
    remove,
    remove_at_border,
    remove_larger,
    remove_smaller,
    sizes,
)
from napari_tileseg.refine.recolor import recolor
from napari_tileseg.refine.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@pytest.fixture
def labels(scene: Callable[..., NDArray[Any]]) -> NDArray[Any]:
    return scene((10, 20, 30), 20, seed=5)


def test_merged_objects_have_the_smallest_id_or_the_chosen_one(labels: NDArray[Any]) -> None:
    canvas = Canvas(labels.copy())
    first, second, third = canvas.index.ids().tolist()[:3]
    edit = merge(canvas, [third, second, first])
    canvas.apply(edit)
    np.testing.assert_array_equal(canvas.data, np.where(np.isin(labels, [second, third]), first, labels))
    assert edit.note == f"Merged 3 objects into {first}."
    canvas.revert(edit)
    canvas.apply(merge(canvas, [first, third], into=third))
    np.testing.assert_array_equal(canvas.data, np.where(labels == first, third, labels))
    with pytest.raises(InputError, match="two objects"):
        merge(canvas, [third])
    with pytest.raises(InputError, match="Nothing is selected"):
        merge(canvas, [])


def test_a_selection_of_which_some_are_gone_acts_on_the_others(labels: NDArray[Any]) -> None:
    canvas = Canvas(labels.copy())
    there = int(canvas.index.ids()[0])
    edit = remove(canvas, [there, 5000])
    assert edit.note == "Removed 1 object."
    canvas.apply(edit)
    assert there not in canvas.index


def test_values_that_do_not_fit_are_refused(labels: NDArray[Any]) -> None:
    canvas = Canvas(labels.astype(np.uint8))
    with pytest.raises(OptionsError, match=r"256 does not fit.*uint8 \(0 to 255\)"):
        reassign(canvas, int(canvas.index.ids()[0]), 256)


def test_many_objects_are_recolored_as_one_by_one(labels: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    canvas = Canvas(labels.copy())
    ids = canvas.index.ids().tolist()
    single = remove(canvas, ids)
    monkeypatch.setattr(recolor.__module__ + "._FEW", 2)
    together = remove(canvas, ids)
    assert len(together.deltas) < len(single.deltas)
    assert together.pixels == single.pixels == np.count_nonzero(labels)
    canvas.apply(together)
    assert not canvas.data.any()
    large = labels.astype(np.int64) * 2**40  # a table of all values would not fit
    canvas = Canvas(large.copy())
    edit = relabel(canvas)
    canvas.apply(edit)
    np.testing.assert_array_equal(canvas.data, relabel_sequential(labels)[0])
    canvas.revert(edit)
    np.testing.assert_array_equal(canvas.data, large)


def test_sizes_are_physical(labels: NDArray[Any]) -> None:
    canvas = Canvas(labels.copy(), spacing=(2.0, 0.5, 0.5), unit="µm")
    assert canvas.size_unit == "µm³"
    found = sizes(canvas)
    ids = canvas.index.ids().tolist()
    np.testing.assert_allclose(found, [0.5 * np.count_nonzero(labels == i) for i in ids])
    np.testing.assert_allclose(sizes(canvas, ids[:2]), found[:2])
    limit = float(np.median(found))
    edit = remove_smaller(canvas, limit)
    assert edit.note == f"Removed {np.count_nonzero(found < limit)} of {len(ids)} objects."
    canvas.apply(edit)
    kept = [i for i, size in zip(ids, found, strict=True) if size >= limit]
    assert canvas.index.ids().tolist() == kept
    canvas.revert(edit)
    canvas.apply(remove_larger(canvas, limit))
    assert canvas.index.ids().tolist() == [i for i, size in zip(ids, found, strict=True) if size <= limit]


def test_in_a_slice_sizes_are_areas(labels: NDArray[Any]) -> None:
    canvas = Canvas(labels.copy(), spacing=(2.0, 0.5, 0.5))
    in_slice = {i: 0.25 * np.count_nonzero(labels[4] == i) for i in np.unique(labels[4]).tolist() if i}
    scope = Scope.slice(0, 4)
    np.testing.assert_allclose(sizes(canvas, scope), list(in_slice.values()))
    limit = float(np.median(list(in_slice.values())))
    canvas.apply(remove_smaller(canvas, limit, scope))
    expected = labels.copy()
    expected[4][np.isin(labels[4], [i for i, size in in_slice.items() if size < limit])] = 0
    np.testing.assert_array_equal(canvas.data, expected)


def test_of_classes_parts_are_removed() -> None:
    labels = np.zeros((12, 12), np.uint8)
    labels[0:2, 0:2] = labels[6:10, 6:10] = 1
    labels[0:3, 8:11] = 2
    canvas = Canvas(labels.copy(), classes=True)
    assert sorted(sizes(canvas).tolist()) == [4, 9, 16]
    edit = remove_smaller(canvas, 9)
    assert edit.note == "Removed 1 of 3 parts."
    canvas.apply(edit)
    assert canvas.index.size(1) == 16
    assert canvas.index.size(2) == 9
    canvas.revert(edit)
    canvas.apply(remove_at_border(canvas))
    assert canvas.index.size(1) == 16
    assert 2 not in canvas.index


def test_of_each_object_the_largest_part_is_kept(labels: NDArray[Any]) -> None:
    canvas = Canvas(labels.copy())
    canvas.apply(keep_largest(canvas))
    for value in np.unique(labels[labels > 0]).tolist():
        parts, _ = ndimage.label(labels == value, np.ones((3, 3, 3)))
        counts = np.bincount(parts[parts > 0])
        assert canvas.index.size(value) == counts.max()
    canvas.apply(keep_largest(canvas, of="objects"))
    assert len(canvas.index) == 1


def test_objects_at_the_border_are_those_that_scikit_image_removes(labels: NDArray[Any]) -> None:
    canvas = Canvas(labels.copy())
    canvas.apply(remove_at_border(canvas))
    np.testing.assert_array_equal(canvas.data, clear_border(labels))
    plane = Canvas(labels[:1].copy())  # all of a single plane lies at the border of its axis
    plane.apply(remove_at_border(plane))
    np.testing.assert_array_equal(plane.data[0], clear_border(labels[0]))


def test_relabelled_ids_are_in_sequence(labels: NDArray[Any]) -> None:
    canvas = Canvas(labels.copy())
    canvas.apply(relabel(canvas))
    np.testing.assert_array_equal(canvas.data, relabel_sequential(labels)[0])
    assert not relabel(canvas)


def test_relabelling_some_takes_no_id_of_others(labels: NDArray[Any]) -> None:
    canvas = Canvas(labels.copy())
    ids = canvas.index.ids().tolist()
    canvas.apply(relabel(canvas, ids[5:]))
    after = canvas.index.ids().tolist()
    assert len(after) == len(ids)
    np.testing.assert_array_equal(canvas.data[np.isin(labels, ids[:5])], labels[np.isin(labels, ids[:5])])
    sizes_before = sorted(int(np.count_nonzero(labels == i)) for i in ids)
    assert sorted(canvas.index.size(i) for i in after) == sizes_before


def test_an_id_at_two_time_points_stays_one() -> None:
    labels = np.zeros((3, 6, 6), np.uint8)
    labels[0, 1, 1] = labels[1, 2, 2] = 50
    labels[2, 3, 3] = 20
    canvas = Canvas(labels, space=(1, 2))
    canvas.apply(relabel(canvas))
    assert labels[0, 1, 1] == labels[1, 2, 2] == 2
    assert labels[2, 3, 3] == 1
    canvas.apply(relabel(canvas, Scope((2,), (0,))))
    assert labels[1, 2, 2] == 2  # what keeps an id elsewhere keeps it for itself
    assert labels[0, 1, 1] not in (1, 2)


def test_components_are_those_that_scikit_image_finds(labels: NDArray[Any]) -> None:
    canvas = Canvas(labels.copy())
    canvas.apply(components(canvas))
    ours, theirs = canvas.data, connected(labels, connectivity=3)
    pairs = {(int(a), int(b)) for a, b in zip(ours.ravel(), theirs.ravel(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    for value in np.unique(labels[labels > 0]).tolist():  # the largest part keeps the id
        parts = ours[labels == value]
        assert np.count_nonzero(parts == value) == np.bincount(parts).max()


def test_amounts_that_make_no_sense_are_refused(labels: NDArray[Any]) -> None:
    for amount in (-1, float("nan")):
        with pytest.raises(OptionsError, match="from 0 up"):
            remove_smaller(Canvas(labels), amount)
