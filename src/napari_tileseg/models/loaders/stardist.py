"""StarDist's models: a folder with ``config.json``, ``thresholds.json`` and weights of Keras, run on a network of our own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError, OptionsError, WeightsError
from napari_tileseg.models.archive import Archive, parse_json, printable
from napari_tileseg.models.loaders.describe import describe
from napari_tileseg.models.loaders.stardist_config import CONFIG, anisotropy, network_arguments
from napari_tileseg.models.object_cards import star_card

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["detect", "files", "load", "read_spec"]

_THRESHOLDS = "thresholds.json"
_WEIGHTS = ("weights_best.h5", "weights_last.h5", "weights_now.h5")
_LARGEST = 1 << 20


def detect(path: Path) -> bool:
    """Tell whether a folder holds a configuration of StarDist and weights beside it."""
    if not (path / CONFIG).is_file() or not any((path / name).is_file() for name in _WEIGHTS):
        return False
    with (path / CONFIG).open("rb") as stream:
        return b'"n_rays"' in stream.read(_LARGEST)


def files(path: Path) -> list[Path]:
    """Return the files of the model."""
    return [path / name for name in (CONFIG, _THRESHOLDS, _weights(path).name) if (path / name).is_file()]


def read_spec(path: Path, *, scale: str = "", prob_thresh: str = "", nms_thresh: str = "") -> ModelSpec:
    """Describe a model of StarDist.

    Parameters
    ----------
    scale : str
        How much larger the network is to see the image.
    prob_thresh, nms_thresh : str
        Instead of those in ``thresholds.json``.

    Raises
    ------
    ModelError
        If the configuration is none of StarDist, or of a network that is not known here.
    OptionsError
        If an option is no number that can be meant.
    """
    config = _json(path, CONFIG)
    arguments = network_arguments(path, config)
    ndim, grid = arguments["spatial_dims"], arguments["grid"]
    thresholds = _thresholds(path)
    for name, text in (("prob", prob_thresh), ("nms", nms_thresh)):
        if text:
            thresholds[name] = _number(f"{name}_thresh", text, 0, 1)
    zoom = _number("scale", scale, 0.01, 50) if scale else 1.0
    card = star_card(arguments)
    classes = config.get("n_classes")
    known: dict[str, Any] = {
        **card,
        "title": path.name,
        "description": f"StarDist, {ndim}D, {arguments['rays']} rays."
        + (" Classes of objects are not told apart." if isinstance(classes, int) and classes > 1 else ""),
        "channels": ["red", "green", "blue"] if arguments["in_channels"] == 3 and ndim == 2 else arguments["in_channels"],
        "spacing": None,
        "zoom": None if zoom == 1 else (zoom,) * ndim,
        "classes": ["background", "object"],
        "decoder_parameters": {
            "prob_thresh": thresholds["prob"],
            "nms_thresh": thresholds["nms"],
            **card["decoder_parameters"],
            **anisotropy(path, config, ndim),
        },
        "training": {"framework": "StarDist", "rays": arguments["rays"], "grid": list(grid)},
    }
    return describe(path, known)


def load(path: Path, spec: ModelSpec, device: str, **options: str) -> Any:
    """Build the network and give it the weights.

    Raises
    ------
    WeightsError
        If the weights are damaged, or do not fit.
    """
    import torch

    from napari_tileseg.models.loaders.keras_weights import KerasWeights
    from napari_tileseg.models.nets import build_network
    from napari_tileseg.models.nets.shapes import expected_shapes
    from napari_tileseg.models.predictor import from_module

    found = KerasWeights(_weights(path))
    expected = expected_shapes(spec.architecture, spec.arguments)
    places = _places(found.layers, expected, str(spec.arguments.get("prefix", "")), path)
    for name, (layer, kind) in places.items():
        have = found.shapes.get((layer, kind))
        if have is None or _as_torch(have) != expected[name]:
            told = "is missing" if have is None else f"has the shape {have}"
            raise WeightsError(f"The weights in {printable(path.name)} do not fit its configuration: {printable(layer)} {kind} {told}.")
    module = build_network(spec.architecture, **spec.arguments)
    state = {}
    for name, (layer, kind) in places.items():
        array = found.read(layer, kind)
        # Keras: space, input, output. torch: output, input, space.
        state[name] = torch.from_numpy(array if array.ndim == 1 else array.transpose(-1, -2, *range(array.ndim - 2)).copy())
    module.load_state_dict(state, strict=False)  # counters of batches are missing
    return from_module(module, spec, device=device)


def _as_torch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == 1 else (shape[-1], shape[-2], *shape[:-2])


def _weights(path: Path) -> Path:
    found = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
    if found is None:
        raise ModelError(f"{printable(path.name)} holds no {_WEIGHTS[0]}. Give the folder of a trained StarDist model.")
    return found


def _json(path: Path, name: str) -> dict[str, Any]:
    archive = Archive(path)
    if name not in archive:
        raise ModelError(f"{printable(path.name)} holds no {name}. Give the folder of a StarDist model.")
    content = parse_json(archive.read(name, largest=_LARGEST), f"{name} of {printable(path.name)}")
    if not isinstance(content, dict):
        raise ModelError(f"{name} of {printable(path.name)} is no JSON object. Get the model again.")
    return content


def _thresholds(path: Path) -> dict[str, float]:
    told = _json(path, _THRESHOLDS) if (path / _THRESHOLDS).is_file() else {}
    found = {"prob": told.get("prob", 0.5), "nms": told.get("nms", 0.4)}
    if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in found.values()):
        raise ModelError(f"{_THRESHOLDS} of {printable(path.name)} must hold prob and nms from 0 to 1. Get the model again.")
    return {name: float(value) for name, value in found.items()}


def _places(layers: list[str], expected: Mapping[str, Any], prefix: str, path: Path) -> dict[str, tuple[str, str]]:
    """Return for each weight of the network the layer of Keras, and its name there."""
    stems = _numbered(layers, r"conv[23]d")
    norms = iter(_numbered(layers, r"batch_normalization(?:_v\d)?"))
    norm_of: dict[str, str] = {}
    places = {}
    for name in expected:
        block, _, _ = name.partition(".") if not name.startswith(("blocks.", "stem.")) else name.split(".", 1)[1].partition(".")
        kind = name.rpartition(".")[2]
        if kind == "num_batches_tracked":
            continue
        if ".norm." in name:
            if block not in norm_of:
                norm_of[block] = next(norms, "batch_normalization")
            told = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}[kind]
            places[name] = (norm_of[block], told)
            continue
        if name.startswith("stem."):
            if int(block) >= len(stems):
                raise WeightsError(f"The weights in {printable(path.name)} do not fit its configuration: a first convolution is missing.")
            layer = stems[int(block)]
        else:
            layer = prefix + block if name.startswith("blocks.") else block
        places[name] = (layer, "kernel" if kind == "weight" else "bias")
    return places


def _numbered(layers: list[str], pattern: str) -> list[str]:
    """Return the layers that Keras has named itself, in the order in which they were made."""
    found = [(int(match[1] or 0), layer) for layer in layers if (match := re.fullmatch(rf"{pattern}(?:_(\d+))?", layer))]
    return [layer for _, layer in sorted(found)]


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise OptionsError(f'{name}={printable(text)} was given; a number from {low:g} to {high:g} is accepted, as in "?{name}=0.5".')
    return value
