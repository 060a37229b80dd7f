"""Which axis of an image feeds which axis of a model, and what the result looks like."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.errors import AxesError, InputError
from napari_tileseg.volume import SPATIAL_AXES, check_ndim, parse_axes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["AxisMap", "guess_axes", "map_axes"]

_NAMES = {
    **{"t": "T", "time": "T", "frame": "T", "frames": "T"},
    **{"c": "C", "ch": "C", "channel": "C", "channels": "C", "s": "C", "rgb": "C"},
    **{"z": "Z", "depth": "Z", "slice": "Z", "plane": "Z", "y": "Y", "height": "Y", "row": "Y", "x": "X", "width": "X", "column": "X"},
}
"""What people call their axes, in lower case."""


@dataclass(frozen=True)
class AxisMap:
    """How an image's axes meet a model's: a decision, made once and shown before the run.

    Parameters
    ----------
    axes : str
        Letters of the image.
    shape : tuple of int
        Its shape.
    channels : tuple of int or None
        For each input channel of the model the index along C; None where the image has no C. Fewer than the model has where
        the image lacks the last ones, and the model takes 0 for them.
    spatial : str
        Letters the model sees as space, ``"YX"`` or ``"ZYX"``.
    iterated : str
        Letters that are run one by one, in the image's order.
    output : str
        The model's output kind.
    classes : int
        Number of classes, the background included where there is one.
    """

    axes: str
    shape: tuple[int, ...]
    channels: tuple[int | None, ...]
    spatial: str
    iterated: str
    output: str
    classes: int

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(self.axes, self.shape, strict=True))

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape of one sample without channels."""
        return tuple(self.sizes[axis] for axis in self.spatial)

    @property
    def grid_axes(self) -> str:
        """The image's axes without C, run axes first: what labels are indexed by, classes aside."""
        return "".join(axis for axis in self.axes if axis != "C")

    @property
    def grid_shape(self) -> tuple[int, ...]:
        return tuple(self.sizes[axis] for axis in self.grid_axes)

    @property
    def result_axes(self) -> str:
        """Axes of the labels: the image's without C; one mask per class (C first) for overlapping classes."""
        return ("C" if self.output == "sigmoid" else "") + self.grid_axes

    @property
    def result_shape(self) -> tuple[int, ...]:
        return ((self.classes,) if self.output == "sigmoid" else ()) + self.grid_shape

    @property
    def finds_objects(self) -> bool:
        """Whether labels are the numbers of objects rather than of classes."""
        return self.output in ("instances", "labels")

    @property
    def result_dtype(self) -> np.dtype[np.generic]:
        """int32 for objects, else the smallest unsigned type that holds the classes."""
        if self.finds_objects:
            return np.dtype(np.int32)
        return np.dtype(np.uint8 if self.classes <= 256 else np.uint16)

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(np.prod([self.sizes[axis] for axis in self.iterated], dtype=np.int64))

    def samples(self) -> Iterator[dict[str, int]]:
        """Yield the position of every plane, frame or volume along the run axes, the last one fastest."""
        for position in product(*(range(self.sizes[axis]) for axis in self.iterated)):
            yield dict(zip(self.iterated, position, strict=True))

    def rows_until(self, region: Sequence[tuple[int, int]]) -> int:
        """Count the rows that are finished for certain once a slab is: samples in order, rows along the first axis of space.

        A slab that does not reach the end of the other axes belongs to a scan along one of them: no row is complete before its
        last slab.

        Parameters
        ----------
        region : sequence of (start, stop)
            Of the slab, along `result_axes`.
        """
        spans = dict(zip(self.result_axes, region, strict=True))
        sample = self.ordinal({axis: spans[axis][0] for axis in self.iterated})
        across = all(spans[axis][1] == self.sizes[axis] for axis in self.spatial[1:])
        return sample * self.spatial_shape[0] + spans[self.spatial[0]][across]

    def ordinal(self, position: Mapping[str, int]) -> int:
        """Return the place of a sample in the order of `samples`."""
        ordinal = 0
        for axis in self.iterated:
            ordinal = ordinal * self.sizes[axis] + position[axis]
        return ordinal

    @property
    def sentence(self) -> str:
        """What a person reads before the run."""
        target = " ".join(self.spatial)
        space = ", ".join(f"{axis} {self.sizes[axis]}" for axis in self.spatial)
        picked = [index for index in self.channels if index is not None]
        channels = ""
        if "C" in self.axes:
            total = self.sizes["C"]
            used = "all" if len(set(picked)) == total > 1 else ", ".join(str(index) for index in dict.fromkeys(picked))
            channels = f"C = {used} of {total}, "
        return f"{channels}{space} → model {target}. {self._runs()}"

    def _runs(self) -> str:
        whole = "plane" if len(self.spatial) == 2 else "volume"
        if not self.iterated:
            return f"One {whole}."
        parts = [f"{axis} = {self.sizes[axis]} {'frames' if axis == 'T' else 'planes'}" for axis in self.iterated]
        return f"{', '.join(parts)}, each by itself."


def map_axes(axes: str, shape: Sequence[int], spec: ModelSpec, *, channels: Sequence[int] | None = None) -> AxisMap:
    """Decide which axis of an image feeds which axis of a model.

    Parameters
    ----------
    axes : str
        One letter of TCZYX per dimension of the image.
    shape : sequence of int
        The image's shape.
    spec : ModelSpec
        The model.
    channels : sequence of int, optional
        Index along C for each input channel of the model. By default the first ones, where their number fits.

    Returns
    -------
    AxisMap

    Raises
    ------
    AxesError
        If an axis is unknown, or the model needs one that the image lacks.
    InputError
        If the channels do not fit.
    """
    shape = tuple(int(size) for size in shape)
    if 0 in shape:
        raise InputError(f"The image is empty: its shape is {shape}. Choose an image with at least one pixel.")
    check_ndim(len(shape))
    if "?" in axes:
        place = axes.replace(" ", "").index("?")
        raise AxesError(f"What is the {_ordinal(place)} axis ({shape[place]} entries)?", axis=place)
    letters = parse_axes(axes, len(shape))
    missing = [axis for axis in spec.spatial_axes if axis not in letters]
    if missing:
        wanted, given = " ".join(spec.spatial_axes), " ".join(letters)
        raise AxesError(f"{spec.label} needs volumes ({wanted}); the image has {given}. Choose another model, or name the depth axis Z.")
    sizes = dict(zip(letters, shape, strict=True))
    return AxisMap(
        axes=letters,
        shape=shape,
        channels=_map_channels(sizes.get("C"), spec, channels, colour=letters.endswith("C")),
        spatial="".join(axis for axis in SPATIAL_AXES if axis in spec.spatial_axes),
        iterated="".join(axis for axis in letters if axis not in "C" + spec.spatial_axes),
        output=spec.output,
        classes=len(spec.classes),
    )


def guess_axes(shape: Sequence[int], *, rgb: bool = False, axis_labels: Sequence[str] = (), spec: ModelSpec | None = None) -> str:
    """Name the axes of an array as far as that is safe; "?" stands where only the user can know.

    Parameters
    ----------
    shape : sequence of int
        The array's shape.
    rgb : bool
        The last axis holds red, green and blue (and perhaps alpha).
    axis_labels : sequence of str
        What the layer calls its axes; names such as ``"z"`` or ``"time"`` are believed, others are not.
        An RGB array has one more axis than labels.
    spec : ModelSpec, optional
        The model that is going to be used: a 3D array is a volume for a 3D model, but could be
        a stack, a film or channels for a 2D model.
    """
    shape = tuple(shape)
    labels = [_NAMES.get(str(label).strip().lower(), "?") for label in axis_labels]
    if rgb:
        return guess_axes(shape[:-1], axis_labels=axis_labels, spec=spec) + "C"
    if len(labels) == len(shape) and "?" not in labels and len(set(labels)) == len(labels) and {"Y", "X"} <= set(labels):
        return "".join(labels)
    if len(shape) < 2:
        return "X"[: len(shape)]
    lead = len(shape) - 2
    known = labels[:lead] if len(labels) == len(shape) else ["?"] * lead
    if lead == 1 and known == ["?"] and spec is not None:
        if spec.spatial_ndim == 3:
            known = ["Z"]
        elif len(spec.channels) > 1 and shape[0] == len(spec.channels) and spec.grey == "refuse":
            known = ["C"]
    return "".join(known) + "YX"


def _map_channels(available: int | None, spec: ModelSpec, chosen: Sequence[int] | None, *, colour: bool) -> tuple[int | None, ...]:
    needed = len(spec.channels)
    if available is None:
        if needed > 1 and spec.grey == "refuse":
            names = ", ".join(spec.channels)
            raise InputError(f"{spec.label} needs {needed} channels ({names}); the image has 1. Choose another model or image.")
        return (None,) * (needed if spec.grey == "repeat" else 1)
    if chosen is not None:
        return _check_channels(available, spec, chosen)
    if spec.grey == "repeat" and 1 < available <= needed and not colour:
        # Three stains, one plane each, are no colours: the model must be told which one to look at.
        raise InputError(
            f"Which of the {available} channels should {spec.label} look at? "
            f"Choose one (0 to {available - 1}), or all if they are {', '.join(spec.channels)}."
        )
    if available == needed or (available == 4 and needed == 3 and colour):
        return tuple(range(needed))  # a fourth channel beside three colours is alpha
    if available == 1 and (needed == 1 or spec.grey == "repeat"):
        return (0,) * needed
    if spec.grey == "fewer" and available <= needed:
        return tuple(range(available))
    less = {"repeat": " or 1", "fewer": " or fewer"}.get(spec.grey, "") if needed > 1 else ""
    takes = f"{needed} channel{'s' * (needed > 1)}{less}"
    raise InputError(f"{spec.label} takes {takes}; the image has {available}. Choose which channel to use, or another model.")


def _check_channels(available: int, spec: ModelSpec, chosen: Sequence[int]) -> tuple[int, ...]:
    needed = len(spec.channels)
    wrong = [index for index in chosen if not 0 <= index < available]
    if wrong:
        raise InputError(f"Channel {wrong[0]} was chosen; the image has channels 0 to {available - 1}.")
    if len(chosen) == 1 and spec.grey == "repeat":
        return (int(chosen[0]),) * needed
    if spec.grey == "fewer" and 0 < len(chosen) <= needed:
        return tuple(int(index) for index in chosen)
    if len(chosen) != needed:
        raise InputError(
            f"{len(chosen)} channels were chosen; {spec.label} takes {needed}. Choose one for each: {', '.join(spec.channels)}."
        )
    return tuple(int(index) for index in chosen)


def _ordinal(index: int) -> str:
    return ("first", "second", "third", "fourth", "fifth")[index]
