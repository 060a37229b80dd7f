"""Plain checkpoints: weights alone, whose network is named by the user or recognised from names and shapes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError, WeightsError
from napari_tileseg.models.archive import Archive, is_zip, parse_json, printable
from napari_tileseg.models.loaders.describe import describe

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.models.nets.match import Match
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["detect", "load", "load_state", "read_spec"]

_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".tar", ".pkl", ".model", ".th")
_SAFE = ".safetensors"
_LARGEST_HEADER = 100 * 10**6


def detect(path: Path) -> bool:
    """Tell whether a file's name and its first bytes are those of weights."""
    if not path.name.lower().endswith(_SUFFIXES) or not path.is_file():
        return False
    if path.name.lower().endswith(_SAFE):
        return True
    if is_zip(path):
        return any(name == "data.pkl" or name.endswith("/data.pkl") for name in Archive(path).names)
    with path.open("rb") as stream:
        return stream.read(1) == b"\x80"


def read_spec(path: Path, *, architecture: str = "", arguments: str = "") -> ModelSpec:
    """Describe a checkpoint by its network.

    Parameters
    ----------
    architecture : str
        Name for `build_network`; recognised, or from the side-car, where none is given.
    arguments : str
        Its keyword arguments as JSON.

    Raises
    ------
    TrustError
        If the checkpoint names globals that are not harmless.
    ModelError
        If the network was not recognised, or the weights do not fit it.
    """
    from napari_tileseg.models.nets.recognize import recognize

    state = load_state(path, shapes_only=True)
    first = describe(path, _chosen(architecture, arguments), scores=None)
    if first.architecture and not _fits(first, state):
        match = recognize(state, first.architecture, first.arguments)
        if match is None:
            return _of_architecture(path, first, state)  # says what does not fit
        return _of_match(path, match)
    if first.architecture:
        return _of_architecture(path, first, state)
    match = recognize(state)
    if match is None:
        some = ", ".join(printable(name) for name in list(state)[:4])
        raise ModelError(
            f"The network of {printable(path.name)} was not recognised from the names of its {len(state)} weights ({some}, ...). "
            f'Name it: tileseg models import "{path}" --architecture monai.UNet --arguments \'{{"spatial_dims": 2, ...}}\'.'
        )
    return _of_match(path, match)


def load(path: Path, spec: ModelSpec, device: str, *, architecture: str = "", arguments: str = "") -> Any:
    """Build the network and give it the weights.

    Raises
    ------
    TrustError
        If the checkpoint names globals that are not harmless.
    WeightsError
        If the weights do not fit; all that is missing, unexpected or of another shape is counted, and named.
    """
    from napari_tileseg.models.nets.shapes import expected_shapes
    from napari_tileseg.models.package import build_for
    from napari_tileseg.models.predictor import from_module
    from napari_tileseg.models.weights import best_fit

    state = load_state(path)
    fit, named = best_fit(expected_shapes(spec.architecture, spec.arguments), state)
    if not fit.exact:
        raise WeightsError(f"The weights in {printable(path.name)} do not fit {spec.architecture}: {fit}. Name another network.")
    module = build_for(spec, {name: tuple(value.shape) for name, value in named.items()})
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in named.items()}
    module.load_state_dict(tensors, strict=False)  # only counters of batches may be missing
    return from_module(module, spec, device=device)


def load_state(path: Path, *, shapes_only: bool = False) -> dict[str, Any]:
    """Return the weights of a checkpoint by the names they have there, on the CPU.

    Parameters
    ----------
    shapes_only : bool
        Return what has a shape and a type, and no numbers, where that saves reading them.

    Raises
    ------
    TrustError
        If it names globals that are not harmless.
    WeightsError
        If it is damaged, or holds no weights.
    """
    from napari_tileseg.models.trust import load_torch
    from napari_tileseg.models.weights import find_state

    if path.name.lower().endswith(_SAFE):
        return _safetensors(path, shapes_only=shapes_only)
    return find_state(load_torch(path, shapes_only=shapes_only), printable(path.name))


def _safetensors(path: Path, *, shapes_only: bool) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > min(_LARGEST_HEADER, path.stat().st_size):
                raise WeightsError(f"{printable(path.name)} is no intact file of weights: its header ends after the file. Get it again.")
            parse_json(stream.read(size), f"The header of {printable(path.name)}")
        with safe_open(path, framework="pt") as file:  # checks every size against the file's before it reads
            names = list(file.keys())
            if shapes_only:
                with torch.device("meta"):
                    return {name: torch.empty(file.get_slice(name).get_shape()) for name in names}
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise WeightsError(f"{printable(path.name)} is no intact file of weights: {printable(str(error))}. Get the model again.") from None
    except OSError as error:
        raise WeightsError(f"{printable(path.name)} cannot be read: {error.strerror or error}. Check its permissions.") from None


def _chosen(architecture: str, arguments: str) -> dict[str, Any]:
    if not architecture:
        return {}
    told = parse_json(arguments, "arguments") if arguments else {}
    if not isinstance(told, dict):
        raise ModelError('arguments must be JSON with a value for each name, such as {"spatial_dims": 2}.')
    return {"architecture": architecture, "arguments": told}


def _of_match(path: Path, match: Match) -> ModelSpec:
    """Describe a checkpoint whose network was recognised."""
    known: dict[str, Any] = {
        "architecture": match.architecture,
        "arguments": _plain(match.arguments),
        "axes": "CYX" if match.spatial_dims == 2 else "CZYX",
        "channels": match.arguments["in_channels"],
        "multiple_of": match.multiple_of,
        **({"window": match.window} if match.window else {}),
    }
    if match.assumed:
        known["training"] = {"assumed_arguments": list(match.assumed)}
    # The side-car may say a part of the arguments, which are in those of the match already.
    spec = _describe(path, known, match.scores).model_copy(update={"arguments": known["arguments"]})
    # What leaves no trace in weights, such as strides, is likely and not certain, unless somebody says it.
    return spec.model_copy(update={"unknown": [*spec.unknown, "arguments"]}) if match.assumed else spec


def _describe(path: Path, known: dict[str, Any], scores: int | None) -> ModelSpec:
    """Describe a checkpoint of a known network, which says how its tiles must be."""
    from napari_tileseg.models.nets.tiling import tiling

    tiles = tiling(known["architecture"], known["arguments"])
    guessed = {"window": tiles.pop("window")} if "window" in tiles and not tiles.get("fixed_window") else {}
    return describe(path, {**tiles, **known}, scores=scores, guessed=guessed)


def _fits(spec: ModelSpec, state: dict[str, Any]) -> bool:
    from napari_tileseg.models.nets.shapes import expected_shapes
    from napari_tileseg.models.weights import best_fit

    try:
        expected = expected_shapes(spec.architecture, spec.arguments)
    except ModelError:  # an argument is missing, which the weights may tell
        return False
    return best_fit(expected, state)[0].exact


def _of_architecture(path: Path, first: ModelSpec, state: dict[str, Any]) -> ModelSpec:
    """Complete the card of a network that was named by what its arguments and its weights say, once they fit."""
    from napari_tileseg.models.nets.recognize import sizes_of
    from napari_tileseg.models.nets.shapes import expected_shapes
    from napari_tileseg.models.weights import best_fit

    fit, _ = best_fit(expected_shapes(first.architecture, first.arguments), state)
    if not fit.exact:
        raise WeightsError(f"The weights in {printable(path.name)} do not fit {first.architecture}: {fit}. Correct the arguments.")
    given = first.arguments
    filters = [shape for shape in sizes_of(state) if len(shape) in (4, 5)]
    dims = given.get("spatial_dims", len(filters[0]) - 2 if filters else 2)
    known: dict[str, Any] = {"architecture": first.architecture, "arguments": given, "axes": "CYX" if dims == 2 else "CZYX"}
    channels = given.get("in_channels", filters[0][1] if filters else 1)
    scores = given.get("out_channels", given.get("num_classes"))
    return _describe(path, {**known, "channels": channels}, scores if isinstance(scores, int) else None)


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments as JSON gives them back."""
    plain: dict[str, Any] = json.loads(json.dumps(arguments))
    return plain
