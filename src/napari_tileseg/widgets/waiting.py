"""napari asks before it closes while one of its own workers is busy: so one of them waits for each run."""

from __future__ import annotations

from typing import Any

from napari.qt.threading import create_worker

__all__ = ["ask_before_closing"]


class _Waiting:
    """Waits for a run in a thread of napari's; its words stand in napari's question."""

    def __init__(self, run: Any, words: str) -> None:
        self._run = run
        self._words = words
        self.asked: Any = lambda: False

    def __call__(self) -> None:
        while not self._run.wait(0.2):
            if self.asked():
                self._run.cancel()
                return

    def __str__(self) -> str:
        return self._words


def ask_before_closing(run: Any, words: str) -> None:
    """Have napari ask whether it may close, until a run is over.

    Parameters
    ----------
    run : Turn
    words : str
        What goes on, in the question: ``"segmentation of noise with Nuclei 2D"``.
    """
    waiting = _Waiting(run, words)
    worker = create_worker(waiting, _ignore_errors=True)
    waiting.asked = lambda: bool(worker.abort_requested)
    worker.start()
