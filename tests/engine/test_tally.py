"""A map summed up piece by piece: the same numbers in any order and from any pieces."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.tally import Tally, summary


@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=200),
    cuts=st.lists(st.integers(0, 200), max_size=5),
    saved=st.integers(0, 5),
)
def test_pieces_and_order_do_not_matter(values: list[float], cuts: list[int], saved: int) -> None:
    whole, parts = Tally(), Tally()
    array = np.array(values, np.float32)
    whole.add(array)
    for number, piece in enumerate(reversed(np.split(array, sorted(min(cut, len(values)) for cut in cuts)))):
        parts.add(piece)
        if number == saved:
            parts = Tally.from_dict(json.loads(json.dumps(parts.to_dict())))
    assert summary(parts) == summary(whole)
    assert whole.count == len(values)
    assert whole.mean == pytest.approx(math.fsum(array.tolist()) / len(values), rel=1e-15, abs=0)


def test_the_smallest_and_the_largest_numbers_are_summed_exactly() -> None:
    tally = Tally()
    tally.add(np.array([2e-38, 3e38, -3e38], np.float32))
    assert tally.mean == float(np.float32(2e-38)) / 3


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), size=st.integers(100, 5000))
def test_percentiles_are_those_of_numpy(seed: int, size: int) -> None:
    values = np.random.default_rng(seed).gamma(2.0, size=size).astype(np.float32)
    tally = Tally()
    tally.add(values.reshape(-1, 1))
    assert tally.percentile(99) == pytest.approx(float(np.percentile(values, 99)), rel=1e-3)


def test_what_is_not_finite_is_left_out_and_nothing_gives_nothing() -> None:
    tally = Tally()
    assert summary(tally) == summary(None) == {}
    tally.add(np.array([np.nan, np.inf, 2.0], np.float32))
    assert (tally.count, tally.mean) == (1, 2.0)


@pytest.mark.parametrize("damage", [{"bins": "AAAA"}, {"bins": 3}, {"digits": [[1]]}])
def test_damage_is_noticed(damage: dict[str, object]) -> None:
    tally = Tally()
    tally.add(np.ones(3, np.float32))
    with pytest.raises((ValueError, TypeError, LookupError)):
        Tally.from_dict({**tally.to_dict(), **damage})
