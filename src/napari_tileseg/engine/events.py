"""What a run tells while it goes on: plain frozen records that travel as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from napari_tileseg.errors import InputError

__all__ = ["Event", "Finished", "Planned", "Progress", "Record", "SlabDone", "Warned", "from_dict"]


class Record:
    """Base of the events: their dictionary form; ``"event"`` holds the kind."""

    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return {"event": self.kind, **asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """Return the event of this class that `to_dict` (and JSON) made `data` of."""
        return cls(**{name: _frozen(value) for name, value in data.items() if name != "event"})


@dataclass(frozen=True)
class Planned(Record):
    """The run is about to start.

    Parameters
    ----------
    tiles : int
        Number of tiles to compute.
    window : tuple of int
        Size of a tile.
    shape : tuple of int
        Spatial size of the image on the model's grid.
    device : str
        Where the model runs.
    batch : int
        Tiles at once.
    memory_bytes : int
        What the engine itself needs on the device and the host, without the network's own.
    """

    kind: ClassVar[str] = "planned"
    tiles: int
    window: tuple[int, ...]
    shape: tuple[int, ...]
    device: str
    batch: int
    memory_bytes: int


@dataclass(frozen=True)
class SlabDone(Record):
    """A part of the labels is final and in the sink; `region` holds start and stop of each axis of the labels' grid."""

    kind: ClassVar[str] = "slab"
    region: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Progress(Record):
    """`done` of `total` tiles are computed; `seconds_left` is None while nothing is known about the speed."""

    kind: ClassVar[str] = "progress"
    done: int
    total: int
    seconds_left: float | None = None


@dataclass(frozen=True)
class Warned(Record):
    """Something the user should know; one sentence or two."""

    kind: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True)
class Finished(Record):
    """The run is done.

    Parameters
    ----------
    objects : int or None
        Number of objects found by this run; None where classes are predicted, not objects.
    seconds : float
        Wall time of the run.
    voxels : dict of str to int
        Number of pixels of each class, background included where it is a class.
    windows : int
        Windows that were computed: fewer than tiles where background was skipped, more where seams were looked at again.
    """

    kind: ClassVar[str] = "finished"
    objects: int | None
    seconds: float
    voxels: dict[str, int] = field(default_factory=dict)
    windows: int = 0


Event = Planned | SlabDone | Progress | Warned | Finished
"""Any event of a run."""

_KINDS: dict[str, type[Record]] = {record.kind: record for record in (Planned, SlabDone, Progress, Warned, Finished)}


def from_dict(data: dict[str, Any]) -> Event:
    """Return the event that ``to_dict`` made `data` of.

    Raises
    ------
    InputError
        If ``data["event"]`` names no event.
    """
    kind = data.get("event")
    if kind not in _KINDS:
        raise InputError(f"{kind!r} is no event of a run. Known are {', '.join(_KINDS)}.")
    event: Event = _KINDS[kind].from_dict(data)
    return event


def _frozen(value: Any) -> Any:
    """Turn lists (JSON knows no tuples) into tuples, all the way down."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
