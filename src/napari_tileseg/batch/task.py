"""``Task`` and ``Outcome``: one image with one model, and how it ended; both travel as JSON to where the model is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from napari_tileseg.job import SegmentOptions

__all__ = ["OVER", "Outcome", "State", "Task"]

State = Literal["waiting", "running", "done", "skipped", "failed"]
"""``skipped``: left out for a reason that is no failure, or done by an earlier run."""

OVER: frozenset[State] = frozenset({"done", "skipped", "failed"})
"""States in which nothing happens to a task any more."""


@dataclass(frozen=True)
class Task:
    """One image and one model.

    Parameters
    ----------
    number : int
        Place in the batch, from 0; the row in every table.
    name : str
        What people read: the path below the input folder, with series and model where there are several.
    input : str
        Path of the image, absolute.
    model : str
        What `load_model` takes.
    output : str
        Path of the labels, absolute; ``plate.zarr/A/1/0/labels/NAME`` for a field of a plate.
    journal : str
        Folder for the journal of an unfinished image, absolute.
    options : SegmentOptions
    axes : str or None
        Of the image; what its file says if None.
    channels : tuple of int or None
    series, level : int
    objects, overlay, scores, uncertainty : str
        Paths of what is wanted beside the labels: the objects table, the picture, the maps; empty if not wanted.
    thumbnail : str
        Path of the small picture for the report; empty if there is none.
    size : int
        Bytes of the input, as far as known.
    """

    number: int
    name: str
    input: str
    model: str
    output: str
    journal: str
    options: SegmentOptions = field(default_factory=SegmentOptions)
    axes: str | None = None
    channels: tuple[int, ...] | None = None
    series: int = 0
    level: int = 0
    objects: str = ""
    overlay: str = ""
    scores: str = ""
    uncertainty: str = ""
    thumbnail: str = ""
    size: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {"options": self.options.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Task:
        """Return the task that `to_dict` (and JSON) made `data` of."""
        channels = data["channels"]
        return cls(**{**data, "options": SegmentOptions(**data["options"]), "channels": None if channels is None else tuple(channels)})


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Parameters
    ----------
    state : str
        ``"done"``, ``"skipped"`` or ``"failed"``.
    message : str
        The sentence of a failure or of the reason to skip; warnings, one a line, where it was done.
    counts : dict of str to int
        Objects, or pixels of each class.
    instances : bool
        Whether `counts` are objects.
    anomaly : dict of str to float
        As in `Segmentation`.
    seconds : float
        Wall time of reading, segmenting and writing.
    digest : str
        Content of the output: equal for equal arrays and equal stable metadata.
    input_digest : str
        `io.files.stamp` of the input when it was read.
    """

    state: State
    message: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    instances: bool = False
    anomaly: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    digest: str = ""
    input_digest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Outcome:
        """Return the outcome that `to_dict` (and JSON) made `data` of."""
        return cls(**data)
