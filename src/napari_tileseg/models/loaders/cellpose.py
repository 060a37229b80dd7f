"""Cellpose's weights, versions 1 to 4: recognised by their names, run on networks of our own, tiled and decoded as Cellpose does it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError, OptionsError, WeightsError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.loaders.describe import describe
from napari_tileseg.models.object_cards import flow_card

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["detect", "load", "read_spec"]

_HEAD = 1 << 22
"""Bytes at the start of a file among which the names of its weights lie: before the weights, in every version of the format."""

_UNET, _SAM = b"downsample.down.res_down_0.conv.conv_0.0.weight", b"encoder.patch_embed.proj.weight"
_EVERY_SAM = b"W2"

_DIAMETER = 30.0
_NUCLEI = 17.0
"""Diameter for which the nuclei model of the first versions was trained; its file does not say so."""

_STEPS = 200
_SMALLEST, _LARGEST = 1.0, 2000.0
"""Diameters, in pixels, that can be meant."""


def detect(path: Path) -> bool:
    """Tell whether a file holds weights with the names of Cellpose's; what they are called does not count."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        if stream.read(1) not in (b"P", b"\x80"):
            return False
        head = stream.read(_HEAD)
    return _UNET in head or (_SAM in head and _EVERY_SAM in head)


def read_spec(path: Path, *, diameter: str = "", flow_threshold: str = "", niter: str = "") -> ModelSpec:
    """Describe weights of Cellpose.

    Parameters
    ----------
    diameter : str
        Of the objects in the image, in pixels; by default what the weights were trained for.
    flow_threshold : str
        Largest difference between an object's flow and the network's; 0 keeps all.
    niter : str
        Steps that pixels follow the flow for.

    Raises
    ------
    ModelError, WeightsError, TrustError
        If these are no such weights, or weights that are not safe.
    OptionsError
        If an option is no number that can be meant.
    """
    state = _state(path)
    network = _transformer(path, state) if "W2" in state else _unet(path, state)
    trained, usual = (_DIAMETER, _DIAMETER) if "W2" in state else _diameters(path, state)
    wanted = _number("diameter", diameter, _SMALLEST, _LARGEST) or usual
    zoom = trained / wanted
    four = "W2" in state
    steps = _number("niter", niter, 1, 100_000) or int(_STEPS / zoom)
    threshold = _number("flow_threshold", flow_threshold, 0, 100)
    card = flow_card(four=four)
    if threshold is not None:
        card["decoder_parameters"]["flow_threshold"] = threshold
    known: dict[str, Any] = {
        **card,
        **network,
        "title": path.stem,
        "description": f"Cellpose {4 if four else '1 to 3'}. Objects of {wanted:g} pixels across are looked for.",
        "spacing": None,
        "zoom": None if abs(zoom - 1) < 1e-6 else (zoom, zoom),
        "classes": ["background", "cell"],
        "decoder_parameters": {"steps": float(steps), **card["decoder_parameters"]},
        "training": {"framework": "Cellpose", "diameter": trained, "diameter_of_images": usual},
    }
    return describe(path, known)


def load(path: Path, spec: ModelSpec, device: str, **options: str) -> Any:
    """Build the network and give it the weights.

    Raises
    ------
    TrustError
        If the file names globals that are not harmless.
    WeightsError
        If the weights do not fit.
    """
    from napari_tileseg.models.nets import build_network
    from napari_tileseg.models.nets.shapes import expected_shapes
    from napari_tileseg.models.predictor import from_module
    from napari_tileseg.models.weights import compare

    state = _state(path, shapes_only=False)
    expected = expected_shapes(spec.architecture, spec.arguments)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    # The first versions did not keep diameters.
    fit = compare({name: shape for name, shape in expected.items() if name in shapes or not name.startswith("diam_")}, shapes)
    if not fit.exact:
        raise WeightsError(f"The weights in {printable(path.name)} do not fit the network of Cellpose: {fit}. Get the model again.")
    module = build_network(spec.architecture, **spec.arguments)
    module.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()}, strict=False)
    return from_module(module, spec, device=device)


def _state(path: Path, *, shapes_only: bool = True) -> dict[str, Any]:
    from napari_tileseg.models.loaders.checkpoint import load_state
    from napari_tileseg.models.weights import variants

    for state in variants(load_state(path, shapes_only=shapes_only)):
        if "W2" in state or "downsample.down.res_down_0.conv.conv_0.0.weight" in state:
            return state
    some = ", ".join(printable(name) for name in list(state)[:3]) or "nothing"
    raise ModelError(f"{printable(path.name)} holds {some} ..., no weights of Cellpose. Give a file such as cyto3 or cpsam.")


def _unet(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the shapes of a U-Net of Cellpose say."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        first = shapes["downsample.down.res_down_0.conv.conv_0.2.weight"]
        outputs = shapes["output.2.weight"][0]
        levels = 1 + max(int(found[1]) for name in shapes if (found := re.match(r"downsample\.down\.res_down_(\d+)\.", name)))
        if levels > 16:
            raise ValueError
        channels = [shapes[f"downsample.down.res_down_{level}.conv.conv_0.2.weight"][0] for level in range(levels)]
        inputs, size = first[1], first[2]
    except (KeyError, IndexError, ValueError):
        raise WeightsError(f"The weights in {printable(path.name)} do not fit the network of Cellpose. Get the model again.") from None
    if len(first) != 4:
        raise ModelError(f"{printable(path.name)} is a Cellpose network for volumes, which is not known here. Use one for planes.")
    if outputs != 3:
        raise ModelError(f"{printable(path.name)} returns {outputs} channels, so it restores images or sorts cells. Use one that segments.")
    multiple = 2 ** (levels - 1)
    return {
        "architecture": "cellpose_unet",
        "arguments": {"in_channels": inputs, "channels": channels, "kernel_size": size},
        "channels": ["cells", "nuclei"] if inputs == 2 else inputs,
        "window": (-(-224 // multiple) * multiple,) * 2,
        "multiple_of": multiple,
    }


def _transformer(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the shapes of Cellpose's transformer say."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    if any("rope_embed" in name or "storage_tokens" in name for name in shapes):
        raise ModelError(f"{printable(path.name)} is a Cellpose network on DINO, which is not known here. Use cpsam.")
    try:
        _, side, across, width = shapes["encoder.pos_embed"]
        _, inputs, patch, _ = shapes["encoder.patch_embed.proj.weight"]
        outputs = shapes["W2"][1]
        count = 1 + max(int(found[1]) for name in shapes if (found := re.match(r"encoder\.blocks\.(\d+)\.", name)))
        if side != across or count > 200 or not 1 <= side * patch <= 4096:
            raise ValueError
        relative = [shapes.get(f"encoder.blocks.{block}.attn.rel_pos_h", (0, 0)) for block in range(count)]
        each = next((size for _, size in relative if size), 64)  # features of a head, in all encoders of Segment Anything
        arguments = {
            "window": side * patch,
            "patch": patch,
            "in_channels": inputs,
            "out_channels": outputs,
            "width": width,
            "heads": width // each,
            "hidden": shapes["encoder.blocks.0.mlp.lin1.weight"][0],
            "neck": shapes["out.weight"][1],
            "relative": [distances for distances, _ in relative],
        }
    except (KeyError, IndexError, ValueError):
        raise WeightsError(f"The weights in {printable(path.name)} do not fit the network of Cellpose. Get the model again.") from None
    if outputs != 3:
        raise ModelError(f"{printable(path.name)} returns {outputs} channels; segmentation takes 3. Use a model that segments.")
    return {
        "architecture": "cellpose_sam",
        "arguments": arguments,
        "channels": inputs,
        "window": (side * patch,) * 2,
        "fixed_window": True,
        "multiple_of": patch,
    }


def _diameters(path: Path, state: Mapping[str, Any]) -> tuple[float, float]:
    """Return the diameter of objects in the network's view, and that in the images it was trained with."""
    if "diam_mean" not in state:
        known = _NUCLEI if "nuclei" in path.name.lower() else _DIAMETER
        return known, known
    values = _state(path, shapes_only=False)
    try:
        trained, usual = (float(values[name].reshape(-1)[0]) for name in ("diam_mean", "diam_labels"))
    except (KeyError, IndexError, RuntimeError):
        raise WeightsError(f"The diameters in {printable(path.name)} are missing or empty. Get the model again.") from None
    if not all(_SMALLEST <= value <= _LARGEST for value in (trained, usual)):
        raise WeightsError(f"{printable(path.name)} was trained for diameters of {trained:g} and {usual:g} pixels, which cannot be.")
    return trained, usual


def _number(name: str, text: str, low: float, high: float) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise OptionsError(f"{name}={printable(text)} was given; a number from {low:g} to {high:g} is accepted.")
    return value
