"""The loader of BioImage.IO models: recognise, describe, load, test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import is_zip, printable
from napari_tileseg.models.checks import Case, remembered, sentence
from napari_tileseg.models.loaders.bioimageio.arrays import read_array
from napari_tileseg.models.loaders.bioimageio.card import text
from napari_tileseg.models.loaders.bioimageio.description import NAMES, Package
from napari_tileseg.models.loaders.bioimageio.spec import by_risk, image_tensors, meaning_of, spec_of
from napari_tileseg.models.loaders.strange import sensible

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.models.loaders.bioimageio.tensors import Tensor
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["card", "cases", "code", "detect", "load", "read_spec"]


def detect(path: Path) -> bool:
    """Tell whether a folder, a zip or a description is a BioImage.IO model."""
    if path.is_dir():
        return any((path / name).is_file() for name in NAMES[:4])
    if path.name in NAMES[:4]:
        return True
    return is_zip(path) and _lists_description(path)


def _lists_description(path: Path) -> bool:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] in NAMES[:4] and name.count("/") <= 1 for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def read_spec(path: Path) -> ModelSpec:
    """Return the card; torch is not needed.

    Raises
    ------
    ModelError
        If the model cannot be used as it is described; the sentence says why.
    """
    with sensible(f"The description of {printable(path.name)}"):
        return spec_of(Package(path))


def load(path: Path, spec: ModelSpec, device: str) -> Any:
    """Load the network.

    Raises
    ------
    TrustError
        If its weights or its architecture could run code, and nobody has trusted them.
    WeightsError
        If the weights are damaged, or do not fit.
    ModelError
        If there are none that can be read here.
    """
    from napari_tileseg.models.loaders.bioimageio.network import Adapted, load_network
    from napari_tileseg.models.loaders.bioimageio.steps import pointwise
    from napari_tileseg.models.predictor import from_module

    package = Package(path)
    given, output = image_tensors(package.description)
    _, network = load_network(package)
    module = Adapted(
        network,
        given,
        output,
        index=package.description.outputs.index(output),
        meaning=meaning_of(package, output),
        steps=pointwise(output),
    )
    return from_module(module, spec, device=device)


def cases(path: Path) -> list[Case]:
    """Return the test that a model brings along: its test tensors.

    Raises
    ------
    ModelError
        If they are damaged, or do not fit the description.
    """
    package = Package(path)
    given, output = image_tensors(package.description)
    if not given.test or not output.test:
        return []
    images, expected = (_samples(package, tensor) for tensor in (given, output))
    return [Case(printable(output.test), image, answer) for image, answer in zip(images, expected, strict=True)]


def code(path: Path) -> list[Path]:
    """Return the files that `load` asks trust for: none where weights can be read that run no code."""
    import importlib.util

    package = Package(path)
    for weights in by_risk(package.description):
        if weights.kind == "onnx" and importlib.util.find_spec("onnxruntime") is None:
            continue
        if weights.kind == "torchscript":
            return [package.file(weights.file)]
        return [package.file(weights.architecture.file)] if weights.architecture and weights.architecture.file else []
    return []


def card(path: Path) -> str:
    """Return the card as Markdown, with how the model's tests came out here, if they were run."""
    from napari_tileseg.models.registry import find_spec

    spec = find_spec(f"bioimageio:{path}")
    return text(Package(path), spec, [sentence(check) for check in remembered(spec.weights_sha256)])


def _samples(package: Package, tensor: Tensor) -> NDArray[Any]:
    """Return a test tensor as (N, C, *spatial)."""
    import numpy as np

    values = read_array(package.file(tensor.test, tensor.test_sha256))
    letters = tensor.letters
    if values.ndim != len(letters):
        raise ModelError(f"{printable(tensor.test)} has {values.ndim} axes; its description names {letters.lower()}. Get the model again.")
    for letter in [letter for letter in letters if letter in "TI"]:
        values = values.take(0, axis=letters.index(letter))
        letters = letters.replace(letter, "")
    want = "BC" + "".join(axis.letter for axis in tensor.space)
    missing = "".join(letter for letter in want if letter not in letters)
    letters = missing + letters
    return np.ascontiguousarray(values[(None,) * len(missing)].transpose([letters.index(letter) for letter in want]))
