"""BioImage.IO descriptions of version 0.5: axes are objects with names of their own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field

from napari_tileseg.models.loaders.bioimageio.shared import Citation, Licence, Person, Source, citations, described, weights_of
from napari_tileseg.models.loaders.bioimageio.tensors import Architecture, Axis, Description, Step, Tensor, Weights

__all__ = ["read_version5"]

_Count = Annotated[int, Field(ge=0, le=10**6)]


class _Series(BaseModel):
    min: _Count
    step: _Count


class _Reference(BaseModel):
    tensor_id: str
    axis_id: str
    offset: float = 0.0


class _Free(BaseModel):
    min: int = 1
    max: int | None = None


class _Axis(BaseModel):
    type: Literal["batch", "channel", "space", "time", "index"]
    id: str = ""
    size: _Count | _Series | _Reference | _Free | None = None
    channel_names: list[str] = Field(default_factory=list, max_length=4096)
    scale: float = Field(1.0, gt=0)
    unit: str | None = None
    halo: _Count = 0

    @property
    def name(self) -> str:
        return self.id or {"space": "x"}.get(self.type, self.type)


class _File(BaseModel):
    source: Source
    sha256: str | None = None


class _Data(BaseModel):
    type: str = "float32"
    range: tuple[float | None, float | None] | None = None


class _Process(BaseModel):
    id: str = Field(validation_alias=AliasChoices("id", "name"))
    arguments: dict[str, Any] = Field(default_factory=dict, validation_alias=AliasChoices("kwargs"))


class _Tensor(BaseModel):
    id: str = ""
    description: str | None = None
    axes: list[_Axis] = Field(min_length=1, max_length=8)
    test_tensor: _File | None = None
    data: _Data | list[_Data] = _Data()
    preprocessing: list[_Process] = Field(default_factory=list)
    postprocessing: list[_Process] = Field(default_factory=list)


class _Architecture(BaseModel):
    callable: str
    arguments: dict[str, Any] = Field(default_factory=dict, validation_alias=AliasChoices("kwargs"))
    import_from: str = ""
    source: str = ""
    sha256: str | None = None


class _Weights(BaseModel):
    source: Source
    sha256: str | None = None
    architecture: _Architecture | None = None


class _Model(BaseModel):
    format_version: str
    name: str
    description: str = ""
    authors: list[Person] | None = None
    cite: list[Citation] | None = None
    license: Licence = None
    documentation: str | _File | None = None
    id: str | None = None
    inputs: list[_Tensor] = Field(min_length=1, max_length=64)
    outputs: list[_Tensor] = Field(min_length=1, max_length=64)
    weights: dict[str, _Weights | None]


def read_version5(values: Any) -> Description:
    """Return what a description of version 0.5 says.

    Raises
    ------
    pydantic.ValidationError
        If something is missing or of another kind.
    ValueError
        If parts contradict each other.
    """
    model = _Model.model_validate(values)
    scales = {(tensor.id or "input", axis.name): axis for tensor in model.inputs for axis in tensor.axes}
    weights, others = weights_of({kind: _weights(kind, entry) for kind, entry in model.weights.items() if entry is not None})
    document = model.documentation
    return Description(
        version=model.format_version,
        name=model.name,
        inputs=tuple(_tensor(tensor, tensor.id or "input", tensor.preprocessing, scales) for tensor in model.inputs),
        outputs=tuple(_tensor(tensor, tensor.id or "output", tensor.postprocessing, scales) for tensor in model.outputs),
        weights=weights,
        other_weights=others,
        text=model.description,
        licence=model.license or "",
        authors=tuple(person.name for person in model.authors or ()),
        citations=citations(model.cite),
        documentation=document.source if isinstance(document, _File) else document or "",
        identifier=model.id or "",
    )


def _tensor(tensor: _Tensor, name: str, steps: list[_Process], inputs: dict[tuple[str, str], _Axis]) -> Tensor:
    letters = {axis.name: _letter(axis, name) for axis in tensor.axes}
    if len(set(letters.values())) < len(tensor.axes):
        raise ValueError(f'the tensor "{name}" has two axes of one kind: {", ".join(letters)}')
    data = tensor.data if isinstance(tensor.data, _Data) else (tensor.data or [_Data()])[0]
    test = tensor.test_tensor
    return Tensor(
        name,
        tuple(_axis(axis, letters[axis.name], inputs) for axis in tensor.axes),
        data.type,
        data.range or (None, None),
        tuple(_step(entry, letters) for entry in steps),
        test.source if test else "",
        (test.sha256 or "") if test else "",
        described(tensor.description),
    )


def _letter(axis: _Axis, tensor: str) -> str:
    if axis.type != "space":
        return {"batch": "B", "channel": "C", "time": "T", "index": "I"}[axis.type]
    letter = axis.name.upper()
    if letter not in ("X", "Y", "Z"):
        raise ValueError(f'the axis "{axis.name}" of the tensor "{tensor}" is none of x, y and z')
    return letter


def _axis(axis: _Axis, letter: str, inputs: dict[tuple[str, str], _Axis]) -> Axis:
    common: dict[str, Any] = {"scale": axis.scale, "unit": axis.unit or "", "halo": axis.halo}
    match axis.size:
        case _ if letter == "C":
            return Axis("C", len(axis.channel_names), names=tuple(axis.channel_names))
        case int(size):
            return Axis(letter, size, **common)
        case _Series(min=least, step=step):
            return Axis(letter, least, step, **common)
        case _Reference(tensor_id=tensor, axis_id=name, offset=offset):
            of = inputs.get((tensor, name))
            factor = of.scale / axis.scale if of is not None else 1.0
            return Axis(letter, offset=offset / 2, factor=factor, **common)
    return Axis(letter, **common)


def _step(entry: _Process, letters: dict[str, str]) -> Step:
    values = {key: value for key, value in entry.arguments.items() if key not in ("axes", "axis")}
    given, along = entry.arguments.get("axes"), entry.arguments.get("axis")
    reduced = None if given is None else "".join(letters.get(str(name), "?") for name in given)
    return Step(entry.id, values, reduced, letters.get(str(along), "?") if along is not None else "")


def _weights(kind: str, entry: _Weights) -> Weights:
    given = entry.architecture
    architecture = Architecture(given.callable, given.import_from, given.source, given.sha256 or "", given.arguments) if given else None
    return Weights(kind, entry.source, entry.sha256 or "", architecture)
