"""``Reception``: takes runs, batches, trainings and probes in, and gives them their place in the queue."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.orientation import turned_spec
from napari_tileseg.errors import RunError
from napari_tileseg.models.registry import find_spec
from napari_tileseg.worker.batch_run import BatchRun, rooted
from napari_tileseg.worker.interpreter import find_python
from napari_tileseg.worker.probe_run import ProbeRun
from napari_tileseg.worker.run import Run, Store
from napari_tileseg.worker.training_run import TrainingRun, rooted_config

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.job import Job
    from napari_tileseg.volume import Volume
    from napari_tileseg.worker.messages import Message
    from napari_tileseg.worker.scratch import Scratch
    from napari_tileseg.worker.training_run import AnyConfig
    from napari_tileseg.worker.turn import Turn

__all__ = ["Reception"]


class Reception(ABC):
    """Checks what is asked for, so that a refusal is heard at once, and queues it.

    Parameters
    ----------
    python : str, optional
        The interpreter of the model's process; this one by default.
    """

    def __init__(self, python: str | None = None) -> None:
        self._python = python
        self._numbers = itertools.count(1)
        self._closed = False

    @abstractmethod
    def _queue(self, run: Turn) -> None:
        """Put a turn at the end of the queue."""

    @abstractmethod
    def _cancel(self, run: Turn) -> None:
        """Stop a turn."""

    @abstractmethod
    def _folder(self) -> Scratch:
        """Return the folder for the arrays of runs."""

    def _admit(self, otherwise: str) -> None:
        """Refuse where the program ends; make sure of an interpreter."""
        if self._closed:
            raise RunError(f"The program is being closed, so {otherwise}.")
        self._python = self._python or find_python()

    def start(self, job: Job, volume: Volume, *, on_message: Callable[[Message], None], previous: Run | None = None) -> Run:
        """Put a job into the queue.

        Parameters
        ----------
        job : Job
            What to run; its `input` and `output` are not looked at.
        volume : Volume
            The image. Its data is read box by box from another thread while the run goes on.
        on_message : callable
            Gets every message of the run, in order, on one thread of the supervisor's own. What it raises is logged.
        previous : Run, optional
            An interrupted run of the same job on the same image, to be continued in its arrays.

        Returns
        -------
        Run

        Raises
        ------
        ModelError, InputError, AxesError, OptionsError, OutputError, RunError
            If it cannot start; each a sentence for the user.
        """
        self._admit("no run can start")
        spec = find_spec(job.model)
        axis_map = map_axes(job.axes or volume.axes, volume.shape, turned_spec(volume, spec), channels=job.channels)
        if previous is not None:
            store, finished, tiles = previous.hand_over(job, axis_map)
        else:
            store, finished, tiles = Store.make(self._folder(), axis_map, spec, volume, job.options), 0, (0, 0)
        number = next(self._numbers)
        run = Run(number, job, volume, axis_map, store, on_message=on_message, on_cancel=self._cancel, finished_rows=finished, tiles=tiles)
        self._queue(run)
        return run

    def start_batch(
        self,
        job: BatchJob,
        *,
        on_message: Callable[[Message], None],
        retry_failed: bool | tuple[str, ...] = False,
        workers: int = 1,
        cluster: str = "",
    ) -> BatchRun:
        """Put a batch into the queue; a batch with this output folder that was interrupted goes on where it was.

        Parameters
        ----------
        job : BatchJob
        on_message : callable
            As for `start`; the events of the batch come in it too.
        retry_failed : bool or tuple of str
            Whether files that failed before are tried again: all of them, or those of these names.
        workers : int
            Processes to run on.
        cluster : str
            Address of a Dask scheduler; empty for this computer.

        Returns
        -------
        BatchRun

        Raises
        ------
        RunError
            If the program is being closed.
        """
        self._admit("no batch can start")
        run = BatchRun(
            next(self._numbers),
            rooted(job),
            on_message=on_message,
            on_cancel=self._cancel,
            retry_failed=retry_failed,
            workers=workers,
            cluster=cluster,
        )
        self._queue(run)
        return run

    def start_training(
        self,
        config: AnyConfig,
        data: Sequence[tuple[Path, Path | None]] = (),
        *,
        on_message: Callable[[Message], None],
        dry: bool = False,
        resume: bool = True,
        overwrite: bool = False,
        views: Path | None = None,
    ) -> TrainingRun:
        """Put a training into the queue; one with this output folder that was interrupted goes on where it was.

        Parameters
        ----------
        config : TrainConfig or UnsupervisedConfig
            Its images are files: layers without one are saved first.
        data : sequence of (Path, Path or None)
            Images and labels, instead of the config's folders.
        on_message : callable
            As for `start`; the events of the training come in it too.
        dry, resume, overwrite, views
            As of `BeginTraining`.

        Returns
        -------
        TrainingRun

        Raises
        ------
        RunError
            If the program is being closed.
        """
        self._admit("no training can start")
        run = TrainingRun(
            next(self._numbers),
            rooted_config(config),
            data,
            on_message=on_message,
            on_cancel=self._cancel,
            dry=dry,
            resume=resume,
            overwrite=overwrite,
            views=views,
        )
        self._queue(run)
        return run

    def start_probe(self, job: Job, *, on_message: Callable[[Message], None]) -> ProbeRun:
        """Put the timing of one tile into the queue; the model stays loaded for the run that may follow.

        Parameters
        ----------
        job : Job
            Model and options; its `input` and `output` are not looked at.
        on_message : callable
            As for `start`. The last message of one that went well is `Done`, with the seconds of a tile as its `seconds`.

        Returns
        -------
        ProbeRun

        Raises
        ------
        RunError
            If the program is being closed.
        """
        self._admit("nothing can be measured")
        run = ProbeRun(next(self._numbers), job, on_message=on_message, on_cancel=self._cancel)
        self._queue(run)
        return run
