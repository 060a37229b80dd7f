"""What a worker of a cluster does: one order, a task or a share of an image, answered with a dictionary.

Only dictionaries that JSON can hold, and the names of these functions, travel; pixels do not, so that files lie where client and
workers see them. Models stay in the worker's process from order to order.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg import __version__
from napari_tileseg.batch.events import TaskProgress
from napari_tileseg.batch.task import Task
from napari_tileseg.batch.work import Models, process
from napari_tileseg.errors import Cancelled, TileSegError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.batch.events import BatchEvent

__all__ = ["fresh_models", "greet", "obey", "signal", "topic"]

_TOLD_EVERY = 0.25
"""Seconds between two messages about progress."""

_SENT = 0.05
"""Seconds after which a message has left the process."""

_KEPT_SIGNALS = 64
"""Runs whose last signal a worker remembers."""

_signals: dict[str, str] = {}
_busy = threading.Lock()
_models = Models()
_stamps: dict[str, Any] = {}


def greet(folders: list[str]) -> dict[str, Any]:
    """Say who this worker is, and which of some folders it does not see."""
    return {
        "napari-tileseg": __version__,
        "distributed": version("distributed"),
        "torch": version("torch").partition("+")[0],
        "host": socket.gethostname(),
        "unseen": [folder for folder in folders if not Path(folder).exists()],
    }


def topic(run: str) -> str:
    """Return the name under which messages of a run travel."""
    return f"tileseg-{run}"


async def signal(run: str, word: str) -> None:
    """Tell this worker what becomes of a run: ``"stop"``, ``"pause"`` or ``"go"``. Called beside the orders it works on.

    Asynchronous, because Dask waits for other functions, and a worker that has left the network never answers.
    """
    _signals.pop(run, None)
    while len(_signals) >= _KEPT_SIGNALS:
        _signals.pop(next(iter(_signals)))
    _signals[run] = word


def obey(order: dict[str, Any]) -> None:
    """Do one order, and say the answer.

    It travels as a message, before Dask tells that the order is done: an answer that Dask keeps on the worker until it is asked for
    is lost with the worker.

    Parameters
    ----------
    order : dict
        ``run`` and ``number`` name it; ``kind`` is ``"task"``, ``"survey"`` or ``"share"``, see `_do`. ``careful``: a worker has died
        that had this order, so it is told before anything is done who works on it now.
    """
    from distributed import get_worker

    worker = get_worker()
    run, number, key = order["run"], order["number"], worker.get_current_task()
    last = 0.0

    def say(message: dict[str, Any], *, always: bool = False) -> None:
        nonlocal last
        if always or time.monotonic() - last >= _TOLD_EVERY:
            last = time.monotonic()
            worker.log_event(topic(run), {"number": number, **message})

    def stop() -> bool:
        while _signals.get(run) == "pause" and not _forgotten(worker, key):
            time.sleep(0.1)
        return _signals.get(run) == "stop" or _forgotten(worker, key)

    with _busy:  # a worker with several threads would hold several images, and the network would wait for itself
        say({"started": True, "worker": worker.address}, always=True)
        if order.get("careful"):
            time.sleep(_SENT)
        try:
            answer = {"cancelled": True} if stop() else _do(order, say, stop)
        except Cancelled:
            answer = {"cancelled": True}
        except TileSegError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        say({"answer": answer, "process": f"{socket.gethostname()}:{os.getpid()}", "loads": _models.loads}, always=True)


def _forgotten(worker: Any, key: Any) -> bool:
    """Say whether nobody waits for a task any more: it was cancelled, or its client is gone."""
    state = worker.state.tasks.get(key)
    return state is None or state.state == "cancelled"


def _do(order: dict[str, Any], say: Callable[[dict[str, Any]], None], stop: Callable[[], bool]) -> dict[str, Any]:
    models = fresh_models(order["model"])
    if order["kind"] == "task":
        return _task(Task.from_dict(order["task"]), models, say, stop)
    from napari_tileseg.batch.shares import share, survey

    return (share if order["kind"] == "share" else survey)(order, models, say, stop)


def _task(task: Task, models: Models, say: Callable[[dict[str, Any]], None], stop: Callable[[], bool]) -> dict[str, Any]:
    def tell(event: BatchEvent) -> None:
        if isinstance(event, TaskProgress):
            say({"done": event.done, "total": event.total})

    unseen = not Path(task.input).exists()
    outcome = process(task, models, tell=tell, cancel=stop)
    return {"outcome": outcome.to_dict(), "unseen": unseen, "host": socket.gethostname()}


def fresh_models(ref: str) -> Models:
    """Return the models of this process; all are forgotten when the package of one that was loaded has changed meanwhile."""
    global _models
    from napari_tileseg.models.registry import stamp

    found = stamp(ref)
    if _stamps.setdefault(ref, found) != found:
        loads, _models = _models.loads, Models()
        _models.loads = loads
        _stamps.clear()
        _stamps[ref] = found
    return _models
