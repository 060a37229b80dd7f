"""Every error this package raises on purpose, and nothing else.

Each message is one sentence or two: what was given, what is accepted, what to do. ::

    TileSegError
    ├── InputError            the image cannot be used as it is
    │   └── AxesError         its axes do not fit the model, or are ambiguous
    ├── OptionsError          an option is out of its range or contradicts another
    ├── ModelError            the model cannot be used
    │   ├── ModelNotFoundError
    │   ├── DownloadError     it could not be fetched: no network, a wrong checksum, no room
    │   ├── WeightsError      weights are missing, damaged or do not fit the network
    │   └── TrustError        the file could run code and nobody has trusted it
    ├── OutputError           the result cannot be written there
    └── RunError              the run stopped half-way; the finished part is kept
        ├── PredictorError    the network raised, or returned something unusable
        ├── DeviceMemoryError the device is out of memory
        ├── UnreadableError   a part of the image cannot be read
        ├── WorkerDiedError   the process that held the model ended by itself
        └── Cancelled         somebody asked the run to stop
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "AxesError",
    "Cancelled",
    "DeviceMemoryError",
    "DownloadError",
    "InputError",
    "ModelError",
    "ModelNotFoundError",
    "OptionsError",
    "OutputError",
    "PredictorError",
    "RunError",
    "TileSegError",
    "TrustError",
    "UnreadableError",
    "WeightsError",
    "WorkerDiedError",
]


class TileSegError(Exception):
    """Base of all errors of this package; ``str(error)`` is fit to be shown to a user.

    Attributes
    ----------
    told : bool
        Whether another process has shown it already.
    """

    told: bool = False


class InputError(TileSegError):
    """The image cannot be used as it is."""


class AxesError(InputError):
    """The image's axes do not fit the model's, or their meaning is not known.

    Parameters
    ----------
    message : str
        The sentence to show.
    axis : int, optional
        The first axis of the image whose meaning is in doubt.
    """

    def __init__(self, message: str, *, axis: int | None = None) -> None:
        super().__init__(message)
        self.axis = axis


class OptionsError(TileSegError):
    """An option is out of its range, or two options contradict each other."""


class ModelError(TileSegError):
    """The model cannot be used."""


class ModelNotFoundError(ModelError):
    """No model has that name, and no file or folder stands there."""


class DownloadError(ModelError):
    """The model, or a list of models, could not be fetched."""


class WeightsError(ModelError):
    """The weights are missing, damaged, or do not fit the network."""


class TrustError(ModelError):
    """The file can run code when it is opened, and nobody has trusted it yet.

    Parameters
    ----------
    message : str
        The sentence to show.
    path : Path, optional
        The file to trust.
    what : str
        What would run.
    findings : tuple
        All globals that would be called, see `napari_tileseg.models.pickles.Finding`.
    """

    def __init__(self, message: str, *, path: Path | None = None, what: str = "", findings: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.what = what
        self.findings = findings


class OutputError(TileSegError):
    """The result cannot be written there."""


class RunError(TileSegError):
    """The run stopped half-way; what was finished is kept.

    Attributes
    ----------
    kept : Path or None
        File that holds the finished part, where the result was to be saved by path.
    """

    kept: Path | None = None


class PredictorError(RunError):
    """The network raised an error, or returned scores that cannot be used."""


class DeviceMemoryError(RunError):
    """The device has no memory left for the next tile."""


class UnreadableError(RunError):
    """A part of the image cannot be read."""


class WorkerDiedError(RunError):
    """The process that held the model ended by itself."""


class Cancelled(RunError):
    """The run was asked to stop; what was finished is kept."""
