"""``Unfinished``: labels so far and the journal of a run, in a folder that goes away when the result is in place."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.journal import Journal, disk_error
from napari_tileseg.errors import OutputError
from napari_tileseg.io.files import zarr_root
from napari_tileseg.io.mapped import allocate, lock
from napari_tileseg.io.own_labels import is_label_place
from napari_tileseg.io.zarr_store import ZarrLabels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.volume import Volume

__all__ = ["FIRST_STAGE", "Unfinished", "folder_beside", "tidy"]

FIRST_STAGE = "first_stage"
"""Folder, inside that of a cascade's run, where its first model keeps labels and a journal of its own."""

_COPIED_BYTES = 1 << 28
"""Results up to this size are taken into memory when the folder goes; larger ones stay in their deleted files."""


def folder_beside(output: Path) -> Path:
    """Return the folder where the run for an output keeps its journal: beside it, or beside the store that it goes into."""
    if is_label_place(output) and (root := zarr_root(output)) is not None:
        return root.with_name(f".{'.'.join((root.name, *output.relative_to(root).parts))}.tileseg")
    return output.with_name(f".{output.name}.tileseg")


def tidy(output: Path) -> None:
    """Delete what a run has left that was killed in the moment between putting its result in place and deleting its folder."""
    folder = folder_beside(output)
    if not folder.is_dir() or not Journal.over(folder, output):
        return
    try:
        with (folder / "lock").open("a+b") as guard:
            lock(guard)
    except OSError:
        return  # it belongs to a program that has only just begun
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Unfinished:
    """One run's folder. Made by `open`."""

    journal: Journal
    _lock: IO[bytes]

    @classmethod
    def open(cls, folder: Path, fingerprint: Mapping[str, str], *, resume: bool) -> Unfinished:
        """Begin a run in a folder, or go on with the one that is there.

        Raises
        ------
        OutputError
            If another program runs it, it was another run, or the disk refuses.
        """
        try:
            folder.mkdir(exist_ok=True)
            guard = (folder / "lock").open("a+b")
        except OSError as error:
            raise disk_error(error, folder) from error
        try:
            try:
                lock(guard)
            except (BlockingIOError, PermissionError):
                raise OutputError(
                    f'Another program is writing this result right now (it holds "{folder}"). Wait for it, or end it.'
                ) from None
            except OSError:
                pass  # a file system without locks: nobody can tell
            return cls(Journal.open(folder, fingerprint, resume=resume), guard)
        except BaseException:
            guard.close()
            raise

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the array of an earlier run, or a new one full of zeros.

        Raises
        ------
        OutputError
            If there is no room for it, or the earlier one is gone.
        """
        path = self.journal.folder / f"{name}.npy"
        if not self.journal.resumed:
            return allocate(path, shape, dtype)
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r+")
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{array.shape} {array.dtype}")
        except (OSError, ValueError) as error:
            raise OutputError(
                f'"{path}" of the unfinished run is missing or damaged. Begin anew (--restart on the command line, resume=False in Python).'
            ) from error
        return array

    def store(self, target: Path, axis_map: AxisMap, image: Volume) -> ZarrLabels:
        """Return the store of an earlier run, or a new one; it ends at `target`.

        Raises
        ------
        OutputError
            If it cannot be made, or the earlier one is gone.
        """
        path = self.journal.folder / "labels.zarr"
        if self.journal.resumed and self.journal.state.get("complete") and target.exists():
            return ZarrLabels.open(target)  # all is done, and the journal was kept
        if self.journal.resumed:
            labels = ZarrLabels.open_unfinished(path)
        else:
            shape, dtype, axes = axis_map.result_shape, axis_map.result_dtype, axis_map.result_axes
            labels = ZarrLabels.create(path, shape, dtype, axes, spatial=axis_map.spatial, spacing=image.spacing)
        labels.target = target
        return labels

    def attach(self, *arrays: Any) -> None:
        """Have these brought to the disk before the journal speaks of them, as far as they are on one."""
        stored = [array for array in arrays if hasattr(array, "flush")]

        def sync() -> None:
            for array in stored:
                array.flush()

        self.journal.sync = sync

    def close(self) -> None:
        """Leave the folder as it is, for a run that goes on later; without anything finished there is nothing to leave."""
        self._lock.close()
        if not self.journal.begun and not (self.journal.folder / FIRST_STAGE).exists():
            self.journal.remove()

    def taken(self, array: Any) -> Any:
        """Return an array that outlives the folder: a copy if it is small, else itself (its file lives on without a name)."""
        inside = isinstance(array, np.memmap) and str(array.filename).startswith(str(self.journal.folder.absolute()))
        return np.array(array) if inside and array.nbytes <= _COPIED_BYTES else array

    def remove(self) -> None:
        """Delete the folder: the result is in place."""
        self.journal.sync = lambda: None  # it holds the arrays
        self._lock.close()
        self.journal.remove()
