"""The real pipeline with a hand on it: stops, hangs, crashes and prints where a test says so.

The plan is JSON in the environment variable TILESEG_STAND_IN:

    pause     number of finished slabs after which the run waits for the file `gate`, or for being cancelled
    until_cancelled   number of progress events after which the run makes the file `reached` and waits for being cancelled
    deaf      the run is not told that it was cancelled
    print     the model prints wherever it can
    at        which call of the model does what `do` says: "hang", "exit", "abort", "raise", "sys.exit", "memory"
    calls     file that gets a line for each call of the model
    loads     file that gets a line for each loading of a model
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from napari_tileseg import pipeline
from napari_tileseg.engine.events import Progress, SlabDone
from napari_tileseg.models import predictor as predictors

PLAN = json.loads(os.environ.get("TILESEG_STAND_IN", "{}"))


def load_model(ref: str, *, device: str = "auto") -> Any:
    _note("loads")
    if "print" in PLAN:
        _shout()
    return _Hand(predictors.load_model(ref, device=device))


def segment(volume: Any, model: Any, *, on_event: Any, cancel: Any, **more: Any) -> Any:
    counts = {SlabDone: 0, Progress: 0}

    def watch(event: Any) -> None:
        on_event(event)
        counts[type(event)] = counts.get(type(event), 0) + 1
        if isinstance(event, SlabDone) and counts[SlabDone] == PLAN.get("pause"):
            _wait(lambda: Path(PLAN["gate"]).exists() or cancel())
        if isinstance(event, Progress) and counts[Progress] == PLAN.get("until_cancelled"):
            _note("reached")
            _wait(cancel)
            _note("calls", "cancelled")

    return pipeline.segment(volume, model, on_event=watch, cancel=(lambda: False) if "deaf" in PLAN else cancel, **more)


class _Hand:
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        _note("calls")
        if "print" in PLAN:
            _shout()
        if self._calls == PLAN.get("at"):
            _do(PLAN["do"])
        return self._inner(batch)


def _do(what: str) -> None:
    match what:
        case "hang":
            matrix = torch.ones(600, 600)
            while True:
                torch.mm(matrix, matrix)
        case "exit":
            os._exit(3)
        case "abort":
            os.abort()
        case "raise":
            raise ZeroDivisionError("the model divides by zero")
        case "sys.exit":
            sys.exit(7)
        case "memory":
            raise MemoryError


def _shout() -> None:
    print('{"message": "CancelledRun", "run": 1, "content": {"done": 1, "total": 2}}', flush=True)
    print("naïve €")
    os.write(1, b"\xff\x00 no line end")
    print("to stderr", file=sys.stderr)
    subprocess.run([sys.executable, "-c", "import sys; print('from a process', sys.stdin.read())"], check=True)
    assert sys.stdin.read() == ""


def _note(key: str, text: str = "call") -> None:
    if key in PLAN:
        with Path(PLAN[key]).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def _wait(condition: Any) -> None:
    while not condition():
        time.sleep(0.01)
