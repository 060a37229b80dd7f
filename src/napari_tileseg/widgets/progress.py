"""How a run's messages change what is known about it: a pure function."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_tileseg.engine.events import Planned, Progress, Warned
from napari_tileseg.widgets.states import Phase, Run
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Evented, Failed, Loaded, Loading, Queued

if TYPE_CHECKING:
    from napari_tileseg.worker.messages import Message

__all__ = ["advance"]


def advance(run: Run, message: Message) -> Run:
    """Return the run after a message; a run that is being cancelled, or whose result was removed, keeps saying so."""
    match message:
        case Queued(position):
            return _step(run, Phase.QUEUED, waiting=position)
        case Loading():
            return _step(run, Phase.LOADING)
        case Loaded():
            return _step(run, Phase.RUNNING)
        case Evented(event):
            return _event(run, event)
        case Done(warnings=warnings):
            return replace(run, phase=Phase.DONE, done=run.total, seconds_left=None, warnings=tuple(warnings))
        case CancelledRun(done, total):
            phase = run.phase if run.phase is Phase.REMOVED else Phase.CANCELLED
            return replace(run, phase=phase, done=done, total=total or run.total, seconds_left=None)
        case Failed(kind, sentence, details):
            return replace(run, phase=Phase.FAILED, sentence=sentence, details=details, error=kind, seconds_left=None)
        case Died(sentence, done, total, details):
            total = total or run.total
            return replace(run, phase=Phase.DIED, sentence=sentence, done=done, total=total, details=details, seconds_left=None)
    return run


def _event(run: Run, event: object) -> Run:
    match event:
        case Planned(tiles=tiles):
            return _step(run, Phase.RUNNING, total=tiles)
        case Progress(done, total, seconds_left):
            return _step(run, Phase.RUNNING, done=done, total=total, seconds_left=seconds_left)
        case Warned(message) if message not in run.warnings:
            return replace(run, warnings=(*run.warnings, message))
    return run


def _step(run: Run, phase: Phase, **values: object) -> Run:
    kept = run.phase in (Phase.CANCELLING, Phase.REMOVED)
    return replace(run, phase=run.phase if kept else phase, **values)  # type: ignore[arg-type]
