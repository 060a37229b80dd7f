"""Events survive the way through JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.engine.events import Event, Finished, Planned, Progress, SlabDone, Warned, from_dict
from napari_tileseg.errors import InputError

NUMBERS = st.integers(0, 2**53)
SIZES = st.lists(NUMBERS, min_size=2, max_size=5).map(tuple)
SECONDS = st.floats(0, 1e9)
EVENTS = st.one_of(
    st.builds(Planned, NUMBERS, SIZES, SIZES, st.text(), NUMBERS, NUMBERS),
    st.builds(SlabDone, st.lists(st.tuples(NUMBERS, NUMBERS), max_size=4).map(tuple)),
    st.builds(Progress, NUMBERS, NUMBERS, st.none() | SECONDS),
    st.builds(Warned, st.text()),
    st.builds(Finished, st.none() | NUMBERS, SECONDS, st.dictionaries(st.text(), NUMBERS)),
)


@given(EVENTS)
def test_an_event_comes_back_equal(event: Event) -> None:
    assert from_dict(json.loads(json.dumps(event.to_dict()))) == event


def test_the_kind_is_named() -> None:
    assert Warned("x").to_dict() == {"event": "warning", "message": "x"}


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="is no event of a run"):
        from_dict({"event": "party"})
