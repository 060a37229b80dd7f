"""TorchScript archives: networks with their code inside, so they run only where the user trusts the file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import Archive, is_zip, printable
from napari_tileseg.models.loaders.describe import describe
from napari_tileseg.models.pickles import tensor_shapes

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["detect", "guess", "load", "open_module", "read_spec"]


def detect(path: Path) -> bool:
    """Tell whether a file is a TorchScript archive."""
    if not is_zip(path):
        return False
    names = Archive(path).names
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def read_spec(path: Path) -> ModelSpec:
    """Describe the network; what its first and last weights suggest of its input and output is marked as not known."""
    if not detect(path):
        raise ModelError(f"{printable(path.name)} is no TorchScript archive. Give a file that torch.jit.save wrote.")
    guessed, scores = guess(tensor_shapes(path))
    return describe(path, {}, scores=scores, guessed=guessed)


def guess(shapes: list[tuple[int, ...]]) -> tuple[dict[str, Any], int | None]:
    """Guess axes, input channels and number of scores from the first and the last convolution.

    Parameters
    ----------
    shapes : list of tuple of int
        Sizes of all weights in the order of the network.
    """
    filters = [shape for shape in shapes if len(shape) in (4, 5)]
    if not filters or min(filters[0]) < 1 or filters[0][1] > 64:
        return {}, None
    scores = filters[-1][0] if len(filters[-1]) == len(filters[0]) and filters[-1][0] <= 256 else None
    return {"axes": "CYX" if len(filters[0]) == 4 else "CZYX", "channels": filters[0][1]}, scores


def load(path: Path, spec: ModelSpec, device: str) -> Any:
    """Load the network.

    Raises
    ------
    TrustError
        Unless the user trusts exactly this file.
    ModelError
        If it is damaged, or does not take what its card says.
    """
    from napari_tileseg.models.loaders.call import CallPredictor, check_scores
    from napari_tileseg.models.trust import require_trust

    require_trust(path, "a TorchScript archive holds a program")
    module = open_module(path, device)
    size = sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])
    predictor = CallPredictor(module, spec, device, size=size)
    check_scores(predictor, path)
    return predictor


def open_module(path: Path, device: str) -> Any:
    """Return the network of a trusted archive in eval mode, float32, on a device.

    Raises
    ------
    ModelError
        If it is damaged.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch prefers its newer format; files remain
            warnings.filterwarnings("ignore", category=FutureWarning)
            module = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = printable(str(error).strip().split("\n")[0])
        raise ModelError(f"{path.name} cannot be opened as TorchScript: {reason}. Get the model again.") from None
    for tensor in module.parameters():
        tensor.requires_grad_(False)
    if any(tensor.is_floating_point() and tensor.dtype != torch.float32 for tensor in module.parameters()):
        module = module.float()
    return module
