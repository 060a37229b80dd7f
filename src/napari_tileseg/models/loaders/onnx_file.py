"""What an ONNX file says of itself, and whether all its weights are where it says; no package for ONNX is needed."""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_tileseg.errors import ModelError, WeightsError
from napari_tileseg.models.archive import is_safe_name, printable
from napari_tileseg.models.loaders.protobuf import fields, packed, text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["OnnxFile", "Port", "read_onnx"]

_DEEPEST = 32
_MOST_TENSORS = 200_000
_EXTERNAL = 1
_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2, 17: 1, 18: 1, 19: 1, 20: 1}
"""Size of one number of each type of ONNX; types of half a byte and strings are left out."""
_FLOATS = {1, 10, 11}


@dataclass(frozen=True)
class Port:
    """An input or output: its name, type and axes, of which those that vary have a name or None."""

    name: str
    kind: int
    shape: tuple[int | str | None, ...]


@dataclass
class OnnxFile:
    """Facts of a model.

    Parameters
    ----------
    inputs, outputs : list of Port
        Weights are no inputs.
    external : set of str
        Names of the files beside it that hold weights.
    last : dict of str to str
        The operator that makes each output.
    metadata : dict of str to str
        What its author wrote into it.
    nodes : int
        Number of operators.
    """

    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    external: set[str] = field(default_factory=set)
    last: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    nodes: int = 0


def read_onnx(path: Path) -> OnnxFile:
    """Read an ONNX file's structure, skipping its numbers.

    Raises
    ------
    ModelError
        If it is no ONNX file or damaged.
    WeightsError
        If it declares weights that it does not hold, or that lie outside its folder.
    """
    try:
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                raise ModelError("it is empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                # Views of the map must be gone before it is closed, so nothing of it may stay in a traceback.
                error, found = _guarded(mapped, path)
    except ModelError as reason:
        error, found = reason, None
    except OSError as reason:
        error, found = ModelError(f"it cannot be read ({reason.strerror or reason})"), None
    if error is not None or found is None:
        kind = WeightsError if isinstance(error, WeightsError) else ModelError
        raise kind(f"{printable(path.name)} is no ONNX model that can be used: {error}. Get the model again.")
    return found


def _guarded(mapped: mmap.mmap, path: Path) -> tuple[ModelError | None, OnnxFile | None]:
    try:
        with memoryview(mapped) as view:
            return None, _Reader(path).model(view)
    except (ModelError, BufferError) as error:
        return (type(error) if isinstance(error, ModelError) else ModelError)(str(error)), None


class _Reader:
    """Walks through the messages of a model; numbers of fields are those of onnx.proto."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = OnnxFile()
        self._tensors = 0

    def model(self, data: memoryview) -> OnnxFile:
        graphs = 0
        for number, value in fields(data):
            if number == 7 and isinstance(value, memoryview):
                graphs += 1
                self.graph(value, depth=0)
            elif number == 14 and isinstance(value, memoryview):
                pair = self._pair(value)
                self.file.metadata[pair[0]] = pair[1]
            elif number == 25 and isinstance(value, memoryview):
                self._nodes_of(value, 7, depth=1)
        if graphs != 1 or not self.file.nodes:
            raise ModelError("it holds no network")
        return self.file

    def graph(self, data: memoryview, depth: int) -> None:
        if depth > _DEEPEST:
            raise ModelError("its parts are nested too deeply")
        weights: set[str] = set()
        inputs: list[Port] = []
        for number, value in fields(data):
            if isinstance(value, int):
                continue
            if number == 1:
                self._node(value, depth)
            elif number == 5:
                weights.add(self._tensor(value))
            elif number == 15:  # a sparse tensor: its values and indices
                for part, inner in fields(value):
                    if part in (1, 2) and isinstance(inner, memoryview):
                        self._tensor(inner)
            elif number == 11 and depth == 0:
                inputs.append(self._port(value))
            elif number == 12 and depth == 0:
                self.file.outputs.append(self._port(value))
        if depth == 0:
            self.file.inputs = [port for port in inputs if port.name not in weights]

    def _nodes_of(self, data: memoryview, which: int, depth: int) -> None:
        for number, value in fields(data):
            if number == which and isinstance(value, memoryview):
                self._node(value, depth)

    def _node(self, data: memoryview, depth: int) -> None:
        outputs, kind = [], ""
        for number, value in fields(data):
            if isinstance(value, int):
                continue
            if number == 2:
                outputs.append(text(value))
            elif number == 4:
                kind = text(value)
            elif number == 5:
                self._attribute(value, depth)
        self.file.nodes += 1
        if depth == 0:
            self.file.last.update(dict.fromkeys(outputs, kind))

    def _attribute(self, data: memoryview, depth: int) -> None:
        for number, value in fields(data):
            if isinstance(value, int):
                continue
            if number in (5, 10):
                self._tensor(value)
            elif number in (6, 11):
                self.graph(value, depth + 1)

    def _tensor(self, data: memoryview) -> str:
        """Check that a tensor has the numbers that it declares; return its name."""
        self._tensors += 1
        if self._tensors > _MOST_TENSORS:
            raise ModelError(f"it holds more than {_MOST_TENSORS} tensors")
        sides: list[int] = []
        name, kind, there, place = "", 0, 0, 0
        outside: dict[str, str] = {}
        for number, value in fields(data):
            if number == 1:
                sides += packed(value)
            elif number == 2 and isinstance(value, int):
                kind = value
            elif number == 8:
                name = text(value)
            elif number == 14 and isinstance(value, int):
                place = value
            elif number == 13 and isinstance(value, memoryview):
                outside.update([self._pair(value)])
            elif number in (4, 5, 6, 7, 9, 10, 11):
                there += len(value) if isinstance(value, memoryview) else 1
        declared = math.prod(sides) * _BYTES.get(kind, 1) if kind in _BYTES else 0
        if place == _EXTERNAL:
            self._external(outside, declared, name)
        elif kind in _BYTES and there * 10 < math.prod(sides):  # numbers may be written shorter or longer than they are
            raise WeightsError(f"it declares weights of {declared} bytes ({printable(name)}), and holds {there} of them")
        return name

    def _external(self, told: dict[str, str], declared: int, name: str) -> None:
        location = told.get("location", "")
        file = self.path.parent / location
        if not is_safe_name(location) or file.is_symlink() or not file.resolve().is_relative_to(self.path.parent.resolve()):
            raise WeightsError(f'its weights {printable(name)} lie in "{printable(location)}", which is not in its folder')
        if not file.is_file():
            raise WeightsError(f'the file "{printable(location)}" that holds its weights is not beside it')
        try:
            start, length = int(told.get("offset", 0)), int(told.get("length", declared))
        except ValueError:
            raise WeightsError(f"it does not say where in {printable(location)} its weights are") from None
        if start < 0 or length < 0 or max(length, declared) > file.stat().st_size - start:
            raise WeightsError(f'it declares weights of {max(length, declared)} bytes, and "{printable(location)}" holds fewer')
        self.file.external.add(location)

    def _pair(self, data: memoryview) -> tuple[str, str]:
        found = {number: text(value) for number, value in fields(data) if number in (1, 2)}
        return found.get(1, ""), found.get(2, "")

    def _port(self, data: memoryview) -> Port:
        name, kind = "", 0
        shape: list[int | str | None] = []
        for number, value in fields(data):
            if number == 1:
                name = text(value)
            elif number == 2 and isinstance(value, memoryview):
                for which, tensor in fields(value):
                    if which == 1 and isinstance(tensor, memoryview):
                        kind, shape = self._tensor_type(tensor)
        return Port(name, kind, tuple(shape))

    def _tensor_type(self, data: memoryview) -> tuple[int, list[int | str | None]]:
        kind = 0
        shape: list[int | str | None] = []
        for number, value in fields(data):
            if number == 1 and isinstance(value, int):
                kind = value
            elif number == 2 and isinstance(value, memoryview):
                for which, dimension in fields(value):
                    if which == 1 and isinstance(dimension, memoryview):
                        shape.append(self._side(dimension))
        return kind, shape

    def _side(self, data: memoryview) -> int | str | None:
        side: int | str | None = None
        for number, value in fields(data):
            if number == 1 and isinstance(value, int):
                side = value if 0 < value < 2**31 else None
            elif number == 2:
                side = text(value) or None
        return side
