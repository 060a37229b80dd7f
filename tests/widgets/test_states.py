"""What the dock shows follows from the form and the run alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from napari_tileseg.engine.events import Planned, Progress, SlabDone, Warned
from napari_tileseg.widgets.progress import advance
from napari_tileseg.widgets.states import Action, Form, Phase, Run, duration, press, progress_words, summary, view
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Evented, Failed, Loaded, Loading, Queued

READY = Form("u2os_007", estimate="12 tiles of 256 x 256. About 3 s.")
EMPTY = Form()
ASKING = Form("stack", question="What is the first axis (12 entries)?")
WRONG = Form("stack", problem="Waiting for a change in Options.")
RUNNING = Run(Phase.RUNNING, image="u2os_007", model="Nuclei 2D", done=5, total=12, seconds_left=14)

FORMS = (EMPTY, READY, ASKING, WRONG)
MESSAGES = (
    Queued(2),
    Loading("m"),
    Loaded("m", "cpu", 10),
    Evented(Planned(12, (8, 8), (64, 64), "cpu", 1, 10)),
    Evented(Progress(3, 12, 5.0)),
    Evented(SlabDone(((0, 8), (0, 64)))),
    Evented(Warned("Beware.")),
)
ENDS = (Done({}, {"nucleus": 86}, 2.8), CancelledRun(5, 12), Failed("InputError", "No.", "trace"), Died("It died.", 5, 12, "trace"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("phase", Phase)
def test_every_state_has_words_and_a_button_that_does_what_it_says(form: Form, phase: Phase) -> None:
    run = replace(RUNNING, phase=phase, sentence="86 objects in 2.8 s.", layer=True)
    shown = view(form, run)
    deed = press(form, run)
    assert shown.box
    assert shown.enabled == (deed != "nothing")
    assert shown.button == {"segment": "Segment", "cancel": "Cancel", "continue": "Continue"}.get(deed, shown.button)
    assert shown.button in ("Segment", "Cancel", "Continue", "Cancelling...")
    assert shown.primary == (deed in ("segment", "continue"))
    assert (shown.bar is not None) == phase.active
    if phase.active:
        assert shown.message is None, "the bar tells it all"


@pytest.mark.parametrize(
    ("form", "run", "button", "enabled", "words"),
    [
        pytest.param(EMPTY, Run(), "Segment", False, "No image is open.", id="empty"),
        pytest.param(READY, Run(), "Segment", True, "12 tiles of 256 x 256. About 3 s.", id="ready"),
        pytest.param(ASKING, Run(), "Segment", False, "Waiting for the meaning of the first axis.", id="ambiguous"),
        pytest.param(replace(READY, estimate=""), Run(), "Segment", True, "Working out tiles, time, memory", id="estimating"),
        pytest.param(READY, RUNNING, "Cancel", True, "5 of 12 tiles, 14 s left", id="running"),
        pytest.param(READY, RUNNING, "Cancel", True, "u2os_007 with Nuclei 2D. Changes apply to the next run.", id="running-box"),
        pytest.param(READY, replace(RUNNING, phase=Phase.LOADING), "Cancel", True, "Loading model", id="loading"),
        pytest.param(
            READY,
            replace(RUNNING, phase=Phase.DOWNLOADING, megabytes=(31, 96)),
            "Cancel",
            True,
            "Downloading 31 of 96 MB",
            id="downloading",
        ),
        pytest.param(
            READY, replace(RUNNING, phase=Phase.CANCELLING), "Cancelling...", False, "Finishing the current tile", id="cancelling"
        ),
        pytest.param(
            READY,
            replace(RUNNING, phase=Phase.CANCELLED, layer=True),
            "Continue",
            True,
            "Cancelled. 5 of 12 tiles are in the layer.",
            id="cancelled",
        ),
        pytest.param(READY, Run(Phase.DONE, sentence="86 objects in 2.8 s."), "Segment", True, "86 objects in 2.8 s.", id="done"),
        pytest.param(READY, Run(Phase.FAILED, sentence="It is broken."), "Segment", True, "It is broken.", id="failed"),
        pytest.param(
            READY,
            Run(Phase.FAILED, sentence="a.pt can run any program. Trust it only if you know its author: do.", error="TrustError"),
            "Segment",
            True,
            "a.pt can run any program.",
            id="untrusted",
        ),
        pytest.param(
            READY,
            Run(Phase.DIED, sentence="The model's process ended, most likely for lack of memory."),
            "Continue",
            True,
            "The model's process ended, most likely for lack of memory.",
            id="died",
        ),
        pytest.param(READY, Run(Phase.REMOVED), "Segment", True, "Result removed, run cancelled.", id="removed"),
    ],
)
def test_the_table_of_states(form: Form, run: Run, button: str, enabled: bool, words: str) -> None:
    shown = view(form, run)
    assert (shown.button, shown.enabled) == (button, enabled)
    read = [shown.box, shown.bar.text if shown.bar else "", shown.message.text if shown.message else ""]
    assert words in read


@pytest.mark.parametrize(
    ("run", "links"),
    [
        (replace(RUNNING, phase=Phase.CANCELLED, layer=True), (Action.AGAIN, Action.REMOVE)),
        (replace(RUNNING, phase=Phase.CANCELLED), (Action.AGAIN,)),
        (Run(Phase.DONE), (Action.REFINE, Action.SAVE, Action.DETAILS)),
        (Run(Phase.FAILED, details="trace"), (Action.HELP, Action.COPY)),
        (Run(Phase.FAILED, details="trace", error="TrustError"), (Action.TRUST, Action.COPY)),
        (Run(Phase.DIED), (Action.SMALLER, Action.CPU, Action.COPY)),
        (Run(Phase.REMOVED), (Action.RESTORE,)),
    ],
)
def test_links_offer_the_next_steps(run: Run, links: tuple[Action, ...]) -> None:
    message = view(READY, run).message
    assert message is not None
    assert message.links == links


def test_warnings_stand_beside_the_result() -> None:
    message = view(READY, Run(Phase.DONE, sentence="86 objects in 2.8 s.", warnings=("412 pixels are NaN. They count as 0.",) * 2)).message
    assert message is not None
    assert message.kind == "warning"
    assert message.text == "86 objects in 2.8 s. 412 pixels are NaN. They count as 0."


@pytest.mark.parametrize("end", ENDS)
def test_whatever_comes_before_an_end_the_run_is_over_then(end: object) -> None:
    for first, second in product(MESSAGES, repeat=2):
        run = advance(advance(advance(Run(Phase.LOADING), first), second), end)  # type: ignore[arg-type]
        assert not run.phase.active
        assert run.phase in (Phase.DONE, Phase.CANCELLED, Phase.FAILED, Phase.DIED)


@pytest.mark.parametrize("phase", [Phase.CANCELLING, Phase.REMOVED])
@pytest.mark.parametrize("message", MESSAGES)
def test_late_messages_do_not_call_off_a_cancel(phase: Phase, message: object) -> None:
    assert advance(replace(RUNNING, phase=phase), message).phase is phase  # type: ignore[arg-type]


def test_a_removed_result_stays_removed_when_its_run_has_stopped() -> None:
    assert advance(replace(RUNNING, phase=Phase.REMOVED), CancelledRun(6, 12)).phase is Phase.REMOVED


def test_progress_is_counted() -> None:
    run = Run(Phase.LOADING)
    for message in MESSAGES:
        run = advance(run, message)  # type: ignore[arg-type]
    assert (run.done, run.total, run.seconds_left) == (3, 12, 5.0)
    assert run.warnings == ("Beware.",)
    assert progress_words(run) == "3 of 12 tiles, 5.0 s left"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (2.84, "2.8 s"), (14.2, "14 s"), (77, "77 s"), (100, "2 min"), (3600, "60 min"), (36000, "10 h")]
)
def test_times_are_written_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("counts", "objects", "words"),
    [
        ({"nucleus": 86}, True, "86 objects in 2.8 s."),
        ({"nucleus": 1}, True, "1 object in 2.8 s."),
        ({"nucleus": 0}, True, "No objects were found in 2.8 s."),
        ({"background": 900, "anterior": 5, "posterior": 7}, False, "2 classes in 2.8 s: anterior, posterior."),
        ({"background": 900, "anterior": 0}, False, "Nothing but background was found in 2.8 s."),
    ],
)
def test_results_are_summed_up(counts: dict[str, int], objects: bool, words: str) -> None:
    assert summary(counts, objects=objects, seconds=2.84, background="background") == words


@pytest.mark.parametrize(
    ("form", "run", "links"),
    [
        pytest.param(replace(READY, timed=False), Run(), (Action.MEASURE,), id="unknown"),
        pytest.param(READY, Run(), (), id="known"),
        pytest.param(replace(READY, timed=False, estimate=""), Run(), (), id="estimating"),
        pytest.param(replace(READY, timed=False, measuring="Timing one tile"), Run(), (Action.STOP,), id="measuring"),
        pytest.param(replace(READY, timed=False), RUNNING, (), id="running"),
        pytest.param(replace(WRONG, timed=False), Run(), (), id="refused"),
        pytest.param(replace(READY, timed=False), replace(RUNNING, phase=Phase.CANCELLED), (Action.MEASURE,), id="cancelled"),
    ],
)
def test_the_box_offers_to_measure_what_it_does_not_know(form: Form, run: Run, links: tuple[Action, ...]) -> None:
    shown = view(form, run)
    assert shown.links == links
    if form.measuring:
        assert shown.box == f"{form.estimate}\n{form.measuring}"
