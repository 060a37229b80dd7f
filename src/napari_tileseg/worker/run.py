"""``Run``: one job in the hands of the supervisor, and the arrays that it fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.events import Progress, SlabDone
from napari_tileseg.errors import OptionsError, OutputError
from napari_tileseg.models.registry import absolute
from napari_tileseg.results import on_disk
from napari_tileseg.worker.messages import Begin, Evented, Message
from napari_tileseg.worker.remote import BLOCK_BYTES
from napari_tileseg.worker.scratch import allocate, check_space
from napari_tileseg.worker.turn import OVER, Turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.job import Job, SegmentOptions
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume
    from napari_tileseg.worker.scratch import Scratch

__all__ = ["Run", "Store"]

_LARGE = "labels.ome.zarr"


@dataclass
class Store:
    """The files behind a result; it belongs to the last run that fills it.

    Parameters
    ----------
    scratch : Scratch
        Whose folder it is in.
    folder : Path
        Of this result alone.
    labels : memmap or ZarrLabels
        Of the axis map's result shape and dtype; a pyramid of chunks where memory could not hold it.
    scores : memmap of float32 or None
        Shape (K, *grid).
    uncertainty : memmap of float32 or None
        Shape (*grid).
    """

    scratch: Scratch
    folder: Path
    labels: Any
    scores: np.memmap[Any, np.dtype[Any]] | None
    uncertainty: np.memmap[Any, np.dtype[Any]] | None = None

    @classmethod
    def make(cls, scratch: Scratch, axis_map: AxisMap, spec: ModelSpec, volume: Volume, options: SegmentOptions) -> Store:
        """Allocate the arrays of a run.

        Raises
        ------
        OutputError
            If the disk has no room.
        """
        wanted = (len(spec.score_names), *axis_map.grid_shape)
        single = np.dtype(np.float32)
        needed = _bytes(axis_map.result_shape, axis_map.result_dtype) + (_bytes(wanted, single) if options.scores else 0)
        needed += _bytes(axis_map.grid_shape, single) if options.uncertainty else 0
        exchange = min(BLOCK_BYTES, _bytes(volume.shape, volume.dtype))
        check_space(scratch.path, needed + exchange)
        folder = scratch.folder("run")
        try:
            return cls(
                scratch,
                folder,
                _pyramid(folder, axis_map, volume)
                if on_disk(axis_map, options)
                else allocate(folder / "labels.npy", axis_map.result_shape, axis_map.result_dtype),
                allocate(folder / "scores.npy", wanted, single) if options.scores else None,
                allocate(folder / "uncertainty.npy", axis_map.grid_shape, single) if options.uncertainty else None,
            )
        except OutputError:
            scratch.discard(folder)
            raise

    @property
    def large(self) -> bool:
        """Whether the labels are a pyramid of chunks."""
        return not isinstance(self.labels, np.ndarray)

    @property
    def labels_path(self) -> Path:
        """What the model's process opens."""
        return self.folder / (_LARGE if self.large else "labels.npy")

    def reopen(self) -> Any:
        """Return the labels as they are on the disk now, fit to be changed."""
        if self.large:
            from napari_tileseg.io.zarr_store import ZarrLabels

            self.labels = ZarrLabels.open_unfinished(self.labels_path)
        return self.labels


class Run(Turn):
    """One job: queued, running or over.

    Attributes
    ----------
    job : Job
    volume : Volume
        The image.
    map : AxisMap
        How its axes meet the model's.
    finished_rows : int
        Rows of the labels that are final, as ``AxisMap.rows_until`` counts them; of several regions, up to the lowest slab of any.
    total_rows : int
        Rows there are.
    """

    volume: Volume

    def __init__(
        self,
        number: int,
        job: Job,
        volume: Volume,
        axis_map: AxisMap,
        store: Store,
        *,
        on_message: Callable[[Message], None],
        on_cancel: Callable[[Turn], None],
        finished_rows: int = 0,
        tiles: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(number, on_message=on_message, on_cancel=on_cancel)
        self.job = job
        self.volume = volume
        self.map = axis_map
        self.finished_rows = finished_rows
        self.total_rows = axis_map.count * axis_map.spatial_shape[0]
        self._store: Store | None = store
        self._safe, total = tiles
        self._progress = Progress(self._safe, total)

    def __repr__(self) -> str:
        return f"<Run {self.number} of {self.job.model}: {self.state}, {self.finished_rows} of {self.total_rows} rows>"

    @property
    def labels(self) -> Any:
        """The result, of ``map.result_shape`` and ``map.result_dtype``; it fills while the run goes on.

        A memmap, or `ZarrLabels` where it is large.

        Raises
        ------
        OutputError
            After `remove`.
        """
        return self.store.labels

    @property
    def scores(self) -> np.memmap[Any, np.dtype[Any]] | None:
        """Raw scores, float32 of shape (K, *grid), if the job asks for them.

        Raises
        ------
        OutputError
            After `remove`.
        """
        return self.store.scores

    @property
    def uncertainty(self) -> np.memmap[Any, np.dtype[Any]] | None:
        """How unsure the model is, float32 of shape (*grid), if the job asks for it; see `scores`."""
        return self.store.uncertainty

    @property
    def store(self) -> Store:
        """The files behind `labels` and `scores`."""
        if self._store is None:
            raise OutputError("The result of this run was removed, or another run continues it.")
        return self._store

    @property
    def removed(self) -> bool:
        """Whether the result is gone from here."""
        return self._store is None

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles whose labels are in the result so far, and tiles of the run; (0, 0) before the plan."""
        return self._safe, self._progress.total

    @property
    def left(self) -> str:
        done, total = self.tiles
        if total == 0:
            return "No tile was computed yet."
        if done == 0:
            return f"None of the {total} tiles is in the layer yet."
        return f"{done} of {total} tiles {'is' if done == 1 else 'are'} safe in the layer."

    def begin(self, backend: str) -> Begin:
        volume, store = self.volume, self.store
        return Begin(
            job=self.job.model_dump(mode="json"),
            model=absolute(self.job.model),
            axes=volume.axes,
            shape=volume.shape,
            dtype=volume.dtype.str,
            affine=tuple(tuple(float(value) for value in row) for row in volume.affine),
            units=volume.units,
            name=volume.name,
            channel_names=tuple(volume.channel_names),
            metadata=dict(volume.metadata),
            labels=str(store.labels_path),
            levels=tuple(level.shape for level in volume.levels),
            scores=str(store.folder / "scores.npy") if store.scores is not None else "",
            uncertainty=str(store.folder / "uncertainty.npy") if store.uncertainty is not None else "",
            journal=str(store.folder / "journal"),
            backend=backend,
        )

    def remove(self) -> None:
        """Forget the result and delete its files; a run that goes on is cancelled first.

        Layers that show the arrays keep them: on Windows the files then stay until those are gone.
        """
        if self.state not in OVER and self.state != "cancelling":
            self.cancel()
        store, self._store = self._store, None
        if store is not None:
            scratch, folder = store.scratch, store.folder
            del store
            scratch.discard(folder)

    def hand_over(self, job: Job, axis_map: AxisMap) -> tuple[Store, int, tuple[int, int]]:
        """Give the arrays to a run that continues this one.

        Returns
        -------
        Store, int, (int, int)
            The arrays with their journal, the rows in them that are final, and `tiles` as the next run begins with them.

        Raises
        ------
        OptionsError
            If this run is not over yet, or is another job on another image.
        OutputError
            If the result was removed.
        """
        if self.state not in OVER:
            raise OptionsError("This run is still going on. Cancel it before you continue it.")
        if job != self.job or axis_map != self.map:
            raise OptionsError("Only the same job on the same image can be continued. Start a new run instead.")
        store, self._store = self.store, None
        return store, self.finished_rows, self.tiles

    def note(self, message: Message) -> None:
        super().note(message)
        match message:
            case Evented(SlabDone(region)):
                self.finished_rows = max(self.finished_rows, self.map.rows_until(region))
                self._safe = max(self._safe, self._progress.done)
            case Evented(Progress() as progress):
                self._progress = progress


def _pyramid(folder: Path, axis_map: AxisMap, volume: Volume) -> Any:
    from napari_tileseg.io.zarr_store import ZarrLabels

    shape, dtype, axes = axis_map.result_shape, axis_map.result_dtype, axis_map.result_axes
    return ZarrLabels.create(folder / _LARGE, shape, dtype, axes, spatial=axis_map.spatial, spacing=volume.spacing)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
