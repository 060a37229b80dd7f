"""``Predictor``: a loaded model behind the one small protocol that the engine knows."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, cast

from napari_tileseg.errors import DeviceMemoryError, OptionsError
from napari_tileseg.models.ensemble import Ensemble, combine, split
from napari_tileseg.models.facts import remember
from napari_tileseg.models.registry import find_spec, locate, spec_of

if TYPE_CHECKING:
    import torch

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["Predictor", "from_module", "load_model", "pick_device"]


class Predictor:
    """A torch module on its device, with the spec that says how to feed it.

    Parameters
    ----------
    module : torch.nn.Module
        Maps float32 (N, C, *window) to raw scores (N, K, *out).
    spec : ModelSpec
        What the module takes and returns.
    device : str
        ``"cpu"``, ``"cuda:0"`` or ``"mps"``.
    """

    def __init__(self, module: Any, spec: ModelSpec, device: str) -> None:
        self.spec = spec
        self.device = device
        self.module = module.to(device).eval()
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)
        self._warm = False
        self.previous: Predictor | Ensemble | None = None
        """The first model of a cascade, where this is the second."""

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return raw scores.

        Parameters
        ----------
        batch : Tensor of float32, shape (N, C, *window)
            Normalised tiles.

        Returns
        -------
        Tensor, shape (N, K, *out)
            On the predictor's device.
        """
        if not self._warm:
            return self._first(batch)
        scores: torch.Tensor = self.module(batch.to(self.device))
        return scores

    def _first(self, batch: torch.Tensor) -> torch.Tensor:
        """Compute the first tiles, and remember how long that took and what they needed."""
        if self.spec.weights_sha256:  # nothing is remembered otherwise, and others may be measuring
            _begin(self.device)
        began = time.perf_counter()
        scores: torch.Tensor = self.module(batch.to(self.device))
        taken = _taken(self.device)
        remember(self.spec.weights_sha256, self.device, memory=taken, tile_seconds=time.perf_counter() - began)
        self._warm = True
        return scores

    @property
    def size(self) -> int:
        """Bytes of the weights on the device."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _begin(device: str) -> None:
    """Forget what earlier models have taken on a device; what is there stays counted."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def _taken(device: str) -> int | None:
    """Return the most bytes that were taken on a device, when all that it was told is done; None for the CPU."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    if device.startswith("mps"):
        torch.mps.synchronize()
        return int(torch.mps.driver_allocated_memory())
    return None


def load_model(ref: str, *, device: str = "auto") -> Predictor | Ensemble:
    """Load a model, or several that answer together.

    Parameters
    ----------
    ref : str
        Name of a bundled or own model, path of a model of any kind, or ``"scheme:PATH"``; ``"ensemble:REF,REF"`` for the mean
        of several.
    device : str
        ``"auto"`` (the fastest there is), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    Raises
    ------
    ModelNotFoundError, WeightsError
        If there is no such model, or its weights are missing, damaged or do not fit.
    TrustError
        If the file could run code, and the user has not trusted it.
    ModelError
        If the members of an ensemble differ in what they take or give, or a package is not installed that the model needs.
    OptionsError
        If the device is not there.
    """
    place = pick_device(device)
    if members := split(ref):
        combine([find_spec(member) for member in members])  # before any weights are read
        return Ensemble([_one(member, place) for member in members])
    return _one(ref, place)


def _one(ref: str, device: str) -> Predictor:
    found = locate(ref)
    spec = spec_of(found)
    began = time.perf_counter()
    predictor = cast("Predictor", found.loader.call("load", found.path, spec, device, **found.options))
    remember(spec.weights_sha256, device, load_seconds=time.perf_counter() - began)
    return predictor


def from_module(module: Any, spec: ModelSpec, *, device: str = "auto") -> Predictor:
    """Put any torch module that returns raw scores behind the engine's protocol.

    Raises
    ------
    DeviceMemoryError
        If the weights do not fit on the device.
    """
    import torch

    place = pick_device(device)
    try:
        return Predictor(module, spec, place)
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"The weights of {spec.label} do not fit into the memory of {place}. Use the CPU or close other programs."
        ) from error


def pick_device(device: str = "auto") -> str:
    """Return the torch device that a choice stands for; ``"auto"`` passes over GPUs that this torch was not built for.

    Raises
    ------
    OptionsError
        If it is not there; the sentence names the devices there are.
    """
    import torch

    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    there = [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]  # the fastest first
    if device == "auto":
        return next(name for name in there if not name.startswith("cuda") or _has_code(name))
    name = "cuda:0" if device == "cuda" else device
    if name not in there:
        raise OptionsError(f'There is no device "{device}" here. Choose one of: auto, {", ".join(there)}.')
    return name


def _has_code(device: str) -> bool:
    """Say whether this torch was built for a GPU of NVIDIA: newer builds leave old ones out, on which every call would fail."""
    import torch

    here = torch.cuda.get_device_capability(torch.device(device))
    built = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name) for name in torch.cuda.get_arch_list()]
    codes = [(found[1], (int(found[2]), int(found[3]))) for found in built if found]
    # Programs serve later GPUs of the same generation; what "compute" stands for is translated for all later ones.
    return not codes or any(code <= here and (kind == "compute" or code[0] == here[0]) for kind, code in codes)
