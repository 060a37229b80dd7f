"""BioImage.IO descriptions of version 0.4: axes are letters, sizes are lists."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, Field

from napari_tileseg.models.loaders.bioimageio.shared import Citation, Licence, Person, Source, citations, described, weights_of
from napari_tileseg.models.loaders.bioimageio.tensors import Architecture, Axis, Description, Step, Tensor, Weights

__all__ = ["read_version4"]

_Axes = Annotated[str, Field(pattern=r"^[bitczyx]{1,6}$")]
_Sizes = list[Annotated[int, Field(ge=0, le=10**6)]]


class _Series(BaseModel):
    min: _Sizes
    step: _Sizes


class _Reference(BaseModel):
    reference_tensor: str
    scale: list[float | None]
    offset: list[float | None]


class _Process(BaseModel):
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict, validation_alias=AliasChoices("kwargs"))


class _Input(BaseModel):
    name: str
    axes: _Axes
    data_type: str = "float32"
    data_range: list[float | None] | None = None
    shape: _Sizes | _Series
    preprocessing: list[_Process] | None = None
    description: str | None = None


class _Output(BaseModel):
    name: str
    axes: _Axes
    data_type: str = "float32"
    data_range: list[float | None] | None = None
    shape: _Sizes | _Reference
    halo: list[Annotated[int, Field(ge=0, le=10**6)]] | None = None
    postprocessing: list[_Process] | None = None
    description: str | None = None


class _Weights(BaseModel):
    source: Source
    sha256: str | None = None
    architecture: str | None = None
    architecture_sha256: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict, validation_alias=AliasChoices("kwargs"))


class _Model(BaseModel):
    format_version: str
    name: str
    description: str = ""
    authors: list[Person] | None = None
    cite: list[Citation] | None = None
    license: Licence = None
    documentation: str | None = None
    id: str | None = None
    inputs: list[_Input] = Field(min_length=1, max_length=64)
    outputs: list[_Output] = Field(min_length=1, max_length=64)
    test_inputs: list[Source] = Field(default_factory=list)
    test_outputs: list[Source] = Field(default_factory=list)
    weights: dict[str, _Weights]


def read_version4(values: Any) -> Description:
    """Return what a description of version 0.4 says.

    Raises
    ------
    pydantic.ValidationError
        If something is missing or of another kind.
    ValueError
        If parts contradict each other.
    """
    model = _Model.model_validate(values)
    inputs = tuple(_input(tensor, _nth(model.test_inputs, index)) for index, tensor in enumerate(model.inputs))
    weights, others = weights_of({kind: _weights(kind, entry) for kind, entry in model.weights.items()})
    return Description(
        version=model.format_version,
        name=model.name,
        inputs=inputs,
        outputs=tuple(_output(tensor, inputs, _nth(model.test_outputs, index)) for index, tensor in enumerate(model.outputs)),
        weights=weights,
        other_weights=others,
        text=model.description,
        licence=model.license or "",
        authors=tuple(person.name for person in model.authors or ()),
        citations=citations(model.cite),
        documentation=model.documentation or "",
        identifier=model.id or "",
    )


def _input(tensor: _Input, test: str) -> Tensor:
    letters = tensor.axes.upper()
    shape = tensor.shape
    least, steps = (shape.min, shape.step) if isinstance(shape, _Series) else (shape, [0] * len(shape))
    _check(tensor.name, letters, least, steps)
    axes = tuple(
        Axis(letter, size, step, names=_channels(size) if letter == "C" else ())
        for letter, size, step in zip(letters, least, steps, strict=True)
    )
    return Tensor(
        tensor.name,
        axes,
        tensor.data_type,
        _span(tensor.data_range),
        tuple(_step(entry, letters) for entry in tensor.preprocessing or ()),
        test,
        description=described(tensor.description),
    )


def _output(tensor: _Output, inputs: tuple[Tensor, ...], test: str) -> Tensor:
    letters = tensor.axes.upper()
    halo = tensor.halo or [0] * len(letters)
    if isinstance(tensor.shape, _Reference):
        _check(tensor.name, letters, tensor.shape.scale, tensor.shape.offset, halo)
        named = tensor.shape.reference_tensor
        of = next((channels.least for given in inputs if given.name == named and (channels := given.axis("C"))), 1)
        axes = tuple(
            _follows(letter, scale, offset or 0.0, lost, of)
            for letter, scale, offset, lost in zip(letters, tensor.shape.scale, tensor.shape.offset, halo, strict=True)
        )
    else:
        _check(tensor.name, letters, tensor.shape, halo)
        axes = tuple(
            Axis(letter, size, halo=lost, names=_channels(size) if letter == "C" else ())
            for letter, size, lost in zip(letters, tensor.shape, halo, strict=True)
        )
    return Tensor(
        tensor.name,
        axes,
        tensor.data_type,
        _span(tensor.data_range),
        tuple(_step(entry, letters) for entry in tensor.postprocessing or ()),
        test,
        description=described(tensor.description),
    )


def _follows(letter: str, scale: float | None, offset: float, halo: int, channels: int) -> Axis:
    if letter == "C":
        count = round(channels * (scale or 0.0) + 2 * offset)
        return Axis("C", count, names=_channels(count))
    return Axis(letter, offset=offset, factor=1.0 if scale is None else scale, halo=halo)


def _step(entry: _Process, letters: str) -> Step:
    values = {key: value for key, value in entry.arguments.items() if key not in ("axes", "mode")}
    given, mode = entry.arguments.get("axes"), entry.arguments.get("mode", "per_sample")
    name = entry.name
    if name == "zero_mean_unit_variance" and entry.arguments.get("mode", "fixed") == "fixed":
        name = "fixed_zero_mean_unit_variance"
    reduced = None if given is None else "".join(given).upper()
    rest = [letter for letter in letters if letter not in (reduced or letters) and letter != "B"]
    if reduced is not None and mode == "per_dataset":
        reduced += "B"
    return Step(name, values, reduced, rest[0] if len(rest) == 1 else "")


def _weights(kind: str, entry: _Weights) -> Weights:
    architecture = None
    if entry.architecture:
        before, _, name = entry.architecture.rpartition(":" if ":" in entry.architecture else ".")
        from_file = ":" in entry.architecture
        architecture = Architecture(
            name, "" if from_file else before, before if from_file else "", entry.architecture_sha256 or "", entry.arguments
        )
    return Weights(kind, entry.source, entry.sha256 or "", architecture)


def _check(name: str, letters: str, *lists: list[Any]) -> None:
    if any(len(values) != len(letters) for values in lists):
        raise ValueError(f'the tensor "{name}" has the axes {letters.lower()}, but lists of another length')
    if len(set(letters)) < len(letters):
        raise ValueError(f'the tensor "{name}" has the axes {letters.lower()}; each letter may stand once')


def _channels(count: int) -> tuple[str, ...]:
    return tuple(f"channel {index + 1}" for index in range(min(count, 4096)))


def _span(given: list[float | None] | None) -> tuple[float | None, float | None]:
    return (given[0], given[1]) if given is not None and len(given) == 2 else (None, None)


def _nth(files: list[str], index: int) -> str:
    return files[index] if index < len(files) else ""
