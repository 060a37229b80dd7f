"""``ProbeRun``: one tile that is timed in the model's process, in the hands of the supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.models.registry import absolute
from napari_tileseg.worker.messages import BeginProbe
from napari_tileseg.worker.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.job import Job
    from napari_tileseg.worker.messages import Message

__all__ = ["ProbeRun"]


class ProbeRun(Turn):
    """One probe: queued, running or over.

    Parameters
    ----------
    job : Job
        Model and options.
    """

    def __init__(self, number: int, job: Job, *, on_message: Callable[[Message], None], on_cancel: Callable[[Turn], None]) -> None:
        super().__init__(number, on_message=on_message, on_cancel=on_cancel)
        self.job = job

    def __repr__(self) -> str:
        return f"<ProbeRun {self.number} of {self.job.model}: {self.state}>"

    @property
    def tiles(self) -> tuple[int, int]:
        """No tile of a probe belongs to a result."""
        return (0, 0)

    @property
    def left(self) -> str:
        return "Only a tile of noise was being timed."

    def begin(self, backend: str) -> BeginProbe:
        return BeginProbe(model=absolute(self.job.model), options=self.job.options.model_dump(mode="json"), backend=backend)
