"""Orders in which objects are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.review import by_disagreement, by_outlier, by_size, by_uncertainty, disagreement, mean_uncertainty

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def test_orders_hold_every_row_once_and_the_strangest_first() -> None:
    assert by_uncertainty([0.1, np.nan, 0.9, 0.1]).tolist() == [2, 0, 3, 1]
    assert by_disagreement([0.9, 0.0, 0.5]).tolist() == [1, 2, 0]
    assert by_size([100, 110, 90, 1000, 10, 105]).tolist()[:2] in ([3, 4], [4, 3])
    assert by_size([]).tolist() == []
    assert sorted(by_size([0, 5, 5]).tolist()) == [0, 1, 2]


def test_outliers_are_those_that_are_strange_in_any_column() -> None:
    table: dict[str, Any] = {"solidity": [0.9, 0.91, 0.4, 0.92, 0.9], "area": [10, 11, 10, 12, 900], "name": ["a"] * 5}
    assert by_outlier(table, ["solidity", "area", "missing"]).tolist()[:2] in ([2, 4], [4, 2])
    with pytest.raises(OptionsError, match="none of the columns"):
        by_outlier(table, ["missing"])


def test_uncertainty_is_the_mean_over_each_object(scene: Callable[..., NDArray[Any]]) -> None:
    labels = scene((2, 6, 20, 30), 12, seed=1)
    values = np.random.default_rng(0).random(labels.shape).astype(np.float32)
    canvas = Canvas(labels)
    for at in ((0,), (1,)):
        ids, means = mean_uncertainty(canvas, values, at=at)
        np.testing.assert_allclose(means, [values[at][labels[at] == i].mean() for i in ids], rtol=1e-5)
    with pytest.raises(InputError, match="shape"):
        mean_uncertainty(canvas, values[0])


@pytest.mark.parametrize("classes", [True, False])
def test_disagreement_is_intersection_over_union(scene: Callable[..., NDArray[Any]], classes: bool) -> None:
    labels, other = (scene((6, 20, 30), 8, seed=seed, largest=10) for seed in (1, 2))
    canvas = Canvas(labels, classes=classes)
    ids, overlaps = disagreement(canvas, other)
    for value, overlap in zip(ids.tolist(), overlaps, strict=True):
        mine = labels == value
        candidates = [value] if classes else np.unique(other[mine & (other > 0)]).tolist()
        best = max(((mine & (other == i)).sum() / (mine | (other == i)).sum() for i in candidates), default=0)
        assert overlap == pytest.approx(best)
    assert disagreement(canvas, labels)[1].tolist() == [1.0] * len(ids)
    with pytest.raises(InputError, match="same image"):
        disagreement(canvas, other[:3])
