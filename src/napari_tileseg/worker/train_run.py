"""``TrainRun``: one training, or a look at what it would learn from, in the hands of the supervisor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.folders import model_folder
from napari_tileseg.training.events import EpochEnded, TrainingEnded
from napari_tileseg.worker.messages import BeginTrain, Evented, Pause
from napari_tileseg.worker.turn import OVER, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.worker.messages import Message

__all__ = ["TrainRun"]


class TrainRun(Turn):
    """One training: queued, running or over.

    Parameters
    ----------
    config : TrainConfig
    data : sequence of (Path, Path)
        Images and labels, instead of the config's folders.
    dry : bool
        Whether it only says what would be learnt.
    resume : bool
        Whether it goes on where an earlier one was interrupted.
    views : Path, optional
        Folder for the labels of validation images.

    Attributes
    ----------
    paused : bool
        Whether somebody has asked it to pause.
    """

    patience = 120.0  # a large step ends, and the model is written

    def __init__(
        self,
        number: int,
        config: TrainConfig,
        data: Sequence[tuple[Path, Path]] = (),
        *,
        on_message: Callable[[Message], None],
        on_cancel: Callable[[Turn], None],
        dry: bool = False,
        resume: bool = True,
        views: Path | None = None,
    ) -> None:
        super().__init__(number, on_message=on_message, on_cancel=on_cancel)
        self.config = config
        self.data = tuple(data)
        self.dry = dry
        self.resume = resume
        self.views = views
        self.paused = False
        self._epochs = (0, 0)
        self._written = False

    def __repr__(self) -> str:
        done, total = self.tiles
        return f"<TrainRun {self.number} of {self.config.name}: {self.state}, {done} of {total} epochs>"

    @property
    def tiles(self) -> tuple[int, int]:
        """Epochs that are over, and epochs there are; (0, 0) before the first is over."""
        return self._epochs

    @property
    def left(self) -> str:
        done, total = self._epochs
        if self._written:
            return "The model is written."
        return f"{done} of {total} epochs are safe." if done else "No epoch was over yet."

    def begin(self, backend: str) -> BeginTrain:
        return BeginTrain(
            config=_rooted(self.config).model_dump(mode="json", exclude_unset=True),
            data=tuple((_full(str(image)), _full(str(labels))) for image, labels in self.data),
            dry=self.dry,
            resume=self.resume,
            views=_full(str(self.views)) if self.views is not None else "",
            paused=self.paused,
            backend=backend,
        )

    def pause(self, paused: bool = True) -> None:
        """Wait before the next step until this is called with False."""
        self.paused = paused
        process = self.process
        if process is not None and self.state not in OVER:
            process.send(Pause(paused), self.number)

    def note(self, message: Message) -> None:
        super().note(message)
        match message:
            case Evented(EpochEnded(epoch=epoch, epochs=epochs)):
                self._epochs = (epoch, epochs)
            case Evented(TrainingEnded()):
                self._written = True


def _rooted(config: TrainConfig) -> TrainConfig:
    """Return a config whose paths mean the same in every folder, and that names the folder of the model."""
    names = ("images", "labels", "val_images", "val_labels", "output")
    paths = {name: _full(getattr(config, name)) for name in names if getattr(config, name)}
    if not config.output and config.name:
        paths["output"] = _full(str(model_folder() / config.name))
    if config.start and Path(config.start).expanduser().exists():
        paths["start"] = _full(config.start)
    return config.model_copy(update=paths)


def _full(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
