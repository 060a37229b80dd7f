"""The process that holds the model, and the supervisor that napari talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_tileseg.worker.run import Run
    from napari_tileseg.worker.supervisor import Supervisor

__all__ = ["Run", "Supervisor"]


def __getattr__(name: str) -> Any:
    # The child imports this package first; it needs neither of them.
    if name == "Supervisor":
        from napari_tileseg.worker.supervisor import Supervisor

        return Supervisor
    if name == "Run":
        from napari_tileseg.worker.run import Run

        return Run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
