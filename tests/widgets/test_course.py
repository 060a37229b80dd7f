"""What is true of batches and trainings alike: how they stand after messages, and what the big button does then."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.widgets.batch import states as batch_states
from napari_tileseg.widgets.batch.states import Batch
from napari_tileseg.widgets.course import Course, View, moved, over, press
from napari_tileseg.widgets.states import Phase, Prospect, queue_bar
from napari_tileseg.widgets.train import states as train_states
from napari_tileseg.widgets.train.states import Training
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Failed, Loading, Queued

every_kind = pytest.mark.parametrize(
    ("course", "states"), [pytest.param(Batch(), batch_states, id="batch"), pytest.param(Training(), train_states, id="training")]
)

GOING = st.lists(st.sampled_from([Queued(1), Queued(3), Loading("small")]), max_size=4)
ENDS = st.sampled_from([Done({}, {}, 1.0, ()), CancelledRun(1, 3), Failed("ModelError", "It is damaged.", "trace"), Died("It died.", 1, 3)])


@every_kind
@given(going=GOING, end=ENDS, cancelling=st.booleans(), ready=st.booleans())
def test_the_button_fits_how_it_stands(course: Course, states: Any, going: list[Any], end: Any, cancelling: bool, ready: bool) -> None:
    prospect = Prospect(ready=ready)
    assert press(prospect, course) == ("start" if ready else "nothing")
    state = moved(course, Phase.LOADING, title="2 files", pausing=True)
    if cancelling:
        state = moved(state, Phase.CANCELLING)
    for message in going:
        state = states.advance(state, message)
        assert press(prospect, state) == ("nothing" if cancelling else course.while_active)
        assert state.folded
        assert (state.phase is Phase.CANCELLING) == cancelling, "a later message does not hide that it is being cancelled"
    state = states.advance(state, end)
    assert not state.phase.active
    assert not state.pausing
    expected = {Done: "new", CancelledRun: "continue", Died: "continue", Failed: "start" if ready else "nothing"}
    assert press(prospect, state) == expected[type(end)]
    assert state.folded == (not isinstance(end, Failed)), "after an error the form is there again"
    if isinstance(end, Failed | Died):
        assert (state.sentence, state.title) == (end.message, "2 files")
    shown = states.view(prospect, state)
    assert isinstance(shown, View)
    assert shown.enabled == (press(prospect, state) != "nothing")


def test_a_share_is_known_once_there_is_something_to_count() -> None:
    assert Course().share is None
    assert Course(done=1, total=4).share == 0.25
    assert over(Course(pausing=True, done=4, total=4), Phase.DONE) == Course(Phase.DONE, done=4, total=4)


@pytest.mark.parametrize(("waiting", "words"), [(0, "another run"), (1, "another run"), (3, "3 other runs")])
def test_what_it_waits_for(waiting: int, words: str) -> None:
    assert queue_bar(waiting).text == f"Waiting for {words}"
    assert queue_bar(waiting).share is None
