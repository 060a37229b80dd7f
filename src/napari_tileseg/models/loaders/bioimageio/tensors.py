"""The words of a BioImage.IO description: tensors, their axes, steps of processing, weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["FORMATS", "Architecture", "Axis", "Description", "Step", "Tensor", "Weights"]

FORMATS: dict[str, str] = {
    "onnx": "ONNX",
    "pytorch_state_dict": "PyTorch state dict",
    "torchscript": "TorchScript",
    "keras_hdf5": "Keras HDF5",
    "keras_v3": "Keras 3",
    "tensorflow_js": "TensorFlow.js",
    "tensorflow_saved_model_bundle": "TensorFlow",
}
"""Kinds of weights that a description may name."""


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor.

    Parameters
    ----------
    letter : str
        B (batch), C, Z, Y, X, T (time) or I (index).
    least : int
        Its size, or its least size; 0 where that follows from another axis, or is any.
    step : int
        Its size is `least` plus any multiple of this; 0 where the size is fixed.
    offset : float
        Pixels that the network adds at each side (negative: that it loses), where the size follows from the input's.
    factor : float
        Its size as a multiple of the input's, where it follows from that.
    names : tuple of str
        Of channels.
    scale : float
        Pixel size in `unit`.
    unit : str
    halo : int
        Pixels at each side of the output that are to be thrown away.
    """

    letter: str
    least: int = 0
    step: int = 0
    offset: float = 0.0
    factor: float = 1.0
    names: tuple[str, ...] = ()
    scale: float = 1.0
    unit: str = ""
    halo: int = 0


@dataclass(frozen=True)
class Step:
    """One step of the processing before or after the network.

    Parameters
    ----------
    name : str
        As the description calls it.
    values : dict
        Its keyword arguments.
    reduced : str or None
        Letters of the axes that share one measurement, the batch's B among them where that is the whole data set.
    along : str
        Letter of the axis that lists of numbers go along; empty for none.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    reduced: str | None = None
    along: str = ""


@dataclass(frozen=True)
class Tensor:
    """An input or output of the network."""

    name: str
    axes: tuple[Axis, ...]
    dtype: str = "float32"
    span: tuple[float | None, float | None] = (None, None)
    steps: tuple[Step, ...] = ()
    test: str = ""
    test_sha256: str = ""
    description: str = ""

    @property
    def letters(self) -> str:
        """Letters of the axes in the tensor's own order."""
        return "".join(axis.letter for axis in self.axes)

    @property
    def space(self) -> tuple[Axis, ...]:
        """The axes of space, slowest first."""
        return tuple(sorted((axis for axis in self.axes if axis.letter in "ZYX"), key=lambda axis: "ZYX".index(axis.letter)))

    def axis(self, letter: str) -> Axis | None:
        """Return the axis with that letter."""
        return next((axis for axis in self.axes if axis.letter == letter), None)


@dataclass(frozen=True)
class Architecture:
    """Which class or function builds the network."""

    name: str
    module: str = ""
    file: str = ""
    sha256: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Weights:
    """One file of weights."""

    kind: str
    file: str
    sha256: str = ""
    architecture: Architecture | None = None


@dataclass(frozen=True)
class Description:
    """A model as its description tells it; files are named relative to the package."""

    version: str
    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weights: tuple[Weights, ...]
    other_weights: tuple[str, ...] = ()
    text: str = ""
    licence: str = ""
    authors: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()
    documentation: str = ""
    identifier: str = ""
