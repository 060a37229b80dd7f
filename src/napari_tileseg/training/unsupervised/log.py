"""``UnsupervisedLog``: losses and samples, written for TensorBoard."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Self

from napari_tileseg.training.event_file import EventFile
from napari_tileseg.training.training_log import samples_of
from napari_tileseg.training.unsupervised.events import Learned, Samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.training.unsupervised.events import UnsupervisedEvent

__all__ = ["UnsupervisedLog"]


class UnsupervisedLog(contextlib.ExitStack):
    """Numbers in one folder, samples in another; stages follow each other.

    Parameters
    ----------
    folder : str
        Of all logs; nothing is written if empty.
    name : str
        Of the model, whose own folder is in it.
    stages : sequence of (str, int)
        Names and steps.
    """

    def __init__(self, folder: str, name: str, stages: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self._folder = Path(folder).expanduser() / name if folder else None
        self._before = {name: sum(steps for _, steps in stages[:number]) for number, (name, _) in enumerate(stages)}
        self._files: dict[str, EventFile] = {}

    def __enter__(self) -> Self:
        return self

    def tell(self, event: UnsupervisedEvent) -> None:
        """Write the numbers or the samples of an event."""
        match event:
            case Learned(stage, step, _, losses):
                step += self._before[stage]
                if (file := self._file("numbers", step)) is not None:
                    file.numbers(step, {f"{stage}/{name}": value for name, value in losses.items()})
            case Samples(stage, step, images):
                step += self._before[stage]
                if (file := self._file("pictures", step)) is not None:
                    file.picture(step, stage, samples_of(images))

    def _file(self, name: str, step: int) -> EventFile | None:
        if self._folder is None:
            return None
        if name not in self._files:
            self._files[name] = self.enter_context(EventFile(self._folder / name, step))
        return self._files[name]
