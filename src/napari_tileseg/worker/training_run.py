"""``TrainingRun``: one training in the hands of the supervisor; what is needed to go on lies beside the model that it makes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from napari_tileseg.folders import model_folder
from napari_tileseg.training.events import EpochEnded, StepEnded, TrainingStarted
from napari_tileseg.worker.messages import BeginTraining, Evented
from napari_tileseg.worker.turn import Pausable, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.training.unsupervised.config import UnsupervisedConfig
    from napari_tileseg.worker.messages import Message

    AnyConfig = TrainConfig | UnsupervisedConfig

__all__ = ["TrainingRun", "rooted_config"]


class TrainingRun(Pausable):
    """One training: queued, running or over.

    Parameters
    ----------
    config : TrainConfig or UnsupervisedConfig
        With absolute paths: the model's process stands in another folder.
    data : sequence of (Path, Path)
        Images and labels, instead of the config's folders; labels may be None where none are needed.
    dry : bool
        Whether it only says what would be learnt.
    resume : bool
        Whether it goes on with what an interrupted one has left.
    overwrite : bool
        Whether it may replace a model.
    views : Path, optional
        Folder for the labels of validation images.

    Attributes
    ----------
    epoch : int
        The last one that is over and can be gone on from.
    """

    patience = 120.0  # a large step ends, and the model is written

    def __init__(
        self,
        number: int,
        config: AnyConfig,
        data: Sequence[tuple[Path, Path | None]] = (),
        *,
        on_message: Callable[[Message], None],
        on_cancel: Callable[[Turn], None],
        dry: bool = False,
        resume: bool = True,
        overwrite: bool = False,
        views: Path | None = None,
    ) -> None:
        super().__init__(number, on_message=on_message, on_cancel=on_cancel)
        self.config = config
        self.data = tuple(data)
        self.dry = dry
        self.views = views
        self.resume = resume
        self.overwrite = overwrite
        self.epoch = 0
        self._steps = (0, 0)

    def __repr__(self) -> str:
        return f"<TrainingRun {self.number} of {self.config.output or self.config.name}: {self.state}, epoch {self.epoch}>"

    @property
    def tiles(self) -> tuple[int, int]:
        """Steps that are done, and steps there are; (0, 0) before the first."""
        return self._steps

    @property
    def left(self) -> str:
        if self.config.kind == "unsupervised":
            every = self.config.checkpoint_every
            if self._steps[0] < every:
                return "Nothing was kept yet."
            return f"All but the last {every} steps are safe; the same training goes on from there."
        if self.epoch == 0:
            return "No epoch was finished yet."
        return (
            f"{self.epoch} of {self.config.epochs} epochs {'is' if self.epoch == 1 else 'are'} safe; the same training goes on from there."
        )

    def begin(self, backend: str) -> BeginTraining:
        return BeginTraining(
            # A network that nobody named is that of the start; the kind decides what is trained.
            config=self.config.model_dump(mode="json", exclude_unset=True) | {"kind": self.config.kind},
            data=tuple((os.path.abspath(image), os.path.abspath(labels) if labels is not None else "") for image, labels in self.data),
            dry=self.dry,
            resume=self.resume,
            overwrite=self.overwrite,
            views=os.path.abspath(self.views) if self.views is not None else "",
            paused=self.paused,
            backend=backend,
        )

    def note(self, message: Message) -> None:
        super().note(message)
        match message:
            case Evented(TrainingStarted()) if self.state == "loading":
                self.state = "running"
            case Evented(StepEnded(step, steps)):
                self._steps = (step, steps)
            case Evented(EpochEnded(epoch)):
                self.epoch = epoch


def rooted_config(config: AnyConfig) -> AnyConfig:
    """Return a config that means the same in every folder, and in a process that keeps its models elsewhere."""
    paths = {field: os.path.abspath(os.path.expanduser(value)) for field in config.PATHS if (value := getattr(config, field))}
    start = getattr(config, "start", "")
    if start and os.path.exists(os.path.expanduser(start)):
        paths["start"] = os.path.abspath(os.path.expanduser(start))
    if not config.output and config.name:
        paths["output"] = str(model_folder() / config.name)
    return config.model_copy(update=paths)
