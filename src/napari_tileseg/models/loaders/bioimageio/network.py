"""The network of a BioImage.IO model: its weights, and what stands between its tensors and the engine's."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_tileseg.errors import ModelError, TrustError, WeightsError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.loaders.allowed import harmless, known_network
from napari_tileseg.models.loaders.bioimageio.spec import by_risk
from napari_tileseg.models.loaders.bioimageio.tensors import FORMATS
from napari_tileseg.models.loaders.onnx_file import read_onnx
from napari_tileseg.models.loaders.python_source import load_source
from napari_tileseg.models.loaders.torchscript import open_module
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.trust import load_torch, require_trust
from napari_tileseg.models.weights import compare, find_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_tileseg.models.loaders.bioimageio.description import Package
    from napari_tileseg.models.loaders.bioimageio.spec import Meaning
    from napari_tileseg.models.loaders.bioimageio.tensors import Architecture, Tensor, Weights
    from napari_tileseg.models.spec import NormalizationStep

__all__ = ["Adapted", "load_network"]


class Adapted(nn.Module):
    """A network whose tensors have the axes that its description says, behind the engine's (N, C, *spatial).

    Parameters
    ----------
    network : torch module
        Takes and returns tensors with the axes of `given` and `output`; of several outputs, the one at `index` is used.
    given, output : Tensor
        What it takes and returns.
    index : int
        Which of its outputs.
    meaning : Meaning
        What becomes of its numbers before the engine decodes them.
    steps : sequence of NormalizationStep or str
        All that the description says is done to them.
    """

    def __init__(
        self,
        network: nn.Module,
        given: Tensor,
        output: Tensor,
        *,
        index: int,
        meaning: Meaning,
        steps: Sequence[NormalizationStep | str],
    ) -> None:
        super().__init__()
        self.network = network
        self._given = given.letters
        self._output = output.letters
        self._index = index
        self._meaning = meaning
        self._steps = tuple(steps)
        self._dtype = getattr(torch, given.dtype) if given.dtype in ("float16", "float64") else torch.float32

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return scores for the engine's decoder, shape (N, K, *out), of tiles, shape (N, C, *window)."""
        values = _taken(self._raw(batch), self._meaning.steps)
        if self._meaning.scores == "shifted":
            return values - _numbers(self._meaning.threshold, values)
        if self._meaning.scores == "probabilities":
            # Decoders expect what the last activation gets.
            return values.clamp_min(1e-12).log() if self._meaning.output == "softmax" else torch.logit(values, eps=1e-6)
        return values

    def answer(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what the network and all steps after it give, shape (N, K, *out)."""
        return _taken(self._raw(batch), self._steps)

    def _raw(self, batch: torch.Tensor) -> torch.Tensor:
        letters = "BCZYX" if batch.ndim == 5 else "BCYX"
        batch = batch.to(self._dtype)
        pieces = [batch] if "B" in self._given else batch.split(1)
        return torch.cat([self._one(piece, letters) for piece in pieces]).float()

    def _one(self, batch: torch.Tensor, letters: str) -> torch.Tensor:
        answer = self.network(_arranged(batch, letters, self._given))
        if isinstance(answer, tuple | list):
            answer = answer[self._index]
        return _arranged(answer, self._output, letters)


def _arranged(tensor: torch.Tensor, have: str, want: str) -> torch.Tensor:
    """Bring axes into another order; axes of length 1 come and go."""
    if tensor.ndim != len(have):
        raise ModelError(f"The network returned {tensor.ndim} axes where its description names {have.lower()}. Get the model again.")
    for letter in [letter for letter in have if letter not in want]:
        place = have.index(letter)
        if tensor.shape[place] != 1:
            raise ModelError(f"The network has {tensor.shape[place]} entries along {letter.lower()}; 1 is expected.")
        tensor, have = tensor.squeeze(place), have.replace(letter, "")
    missing = [letter for letter in want if letter not in have]
    tensor = tensor[(None,) * len(missing)]
    have = "".join(missing) + have
    return tensor.permute([have.index(letter) for letter in want])


def _taken(values: torch.Tensor, steps: Sequence[NormalizationStep | str]) -> torch.Tensor:
    for step in steps:
        if isinstance(step, str):
            values = values.softmax(1)
        elif step.kind == "linear":
            values = (values - _numbers(step.offset, values)) / _numbers(step.scale, values)
        elif step.kind == "clip":
            values = values.clamp(step.low, step.high)
        elif step.kind == "binarize":
            values = (values > _numbers(step.threshold, values)).float()
        else:
            values = values.sigmoid()
    return values


def _numbers(given: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(given, dtype=like.dtype, device=like.device).reshape(-1, *(1,) * (like.ndim - 2))


def load_network(package: Package) -> tuple[Weights, nn.Module]:
    """Load the first weights that can be read here: what is safe first, then what the user trusts.

    Raises
    ------
    TrustError
        If only such are left that could run code.
    WeightsError
        If they are damaged, or do not fit the network.
    ModelError
        If there are none that this program reads.
    """
    description = package.description
    if not description.weights:
        others = ", ".join(description.other_weights) or "none"
        known = ", ".join(list(FORMATS.values())[:3])
        raise ModelError(f"{printable(description.name)} has weights for {others}; {known} can be read. Get an export with one of these.")
    refusals: list[ModelError] = []
    for weights in by_risk(description):
        try:
            return weights, _READERS[weights.kind](package, weights)
        except WeightsError:
            raise
        except ModelError as error:
            refusals.append(error)
    raise next((error for error in refusals if isinstance(error, TrustError)), refusals[0])


def _state_dict(package: Package, weights: Weights) -> nn.Module:
    architecture = weights.architecture
    if architecture is None:
        raise ModelError(f"The weights {printable(weights.file)} name no architecture, so their network cannot be built.")
    network = _built(package, architecture)
    path = package.file(weights.file, weights.sha256)
    content = load_torch(path)
    plain = isinstance(content, dict) and all(isinstance(value, torch.Tensor) for value in content.values())
    state = content if plain else find_state(content, printable(weights.file))
    shapes = [{name: tuple(value.shape) for name, value in tensors.items()} for tensors in (network.state_dict(), state)]
    if not (fit := compare(*shapes)).exact:
        raise WeightsError(
            f"The weights in {printable(weights.file)} do not fit {printable(architecture.name)}: {fit}. Get the model again."
        )
    network.load_state_dict(state, strict=False)
    return network


def _built(package: Package, architecture: Architecture) -> nn.Module:
    if architecture.file:
        path = package.file(architecture.file, architecture.sha256)
        return load_source(path, architecture.name, architecture.arguments)
    name = known_network(f"{architecture.module}.{architecture.name}")
    if name is None:
        raise ModelError(
            f"The network is {printable(architecture.module)}.{printable(architecture.name)}, of a package that is not on the list; "
            "classes of monai.networks.nets can be built. Export the model with its source file, as ONNX, or as TorchScript."
        )
    return build_network(name, **harmless(architecture.arguments))


def _torchscript(package: Package, weights: Weights) -> nn.Module:
    path = package.file(weights.file, weights.sha256)
    require_trust(path, "it is a TorchScript archive, a program of its own")
    module: nn.Module = open_module(path, "cpu")
    return module


def _onnx(package: Package, weights: Weights) -> nn.Module:
    from napari_tileseg.models.loaders.bioimageio.onnx_module import OnnxModule

    if importlib.util.find_spec("onnxruntime") is None:
        raise ModelError('Its ONNX weights need onnxruntime, which is not installed. Install it: pip install "napari-tileseg[onnx]".')
    path = package.file(weights.file, weights.sha256)
    folder = weights.file.rpartition("/")[0]
    for name in read_onnx(path).external:
        package.file(f"{folder}/{name}" if folder else name)  # where onnxruntime looks for it
    return OnnxModule(path)


_READERS: dict[str, Callable[[Package, Weights], nn.Module]] = {
    "pytorch_state_dict": _state_dict,
    "onnx": _onnx,
    "torchscript": _torchscript,
}
