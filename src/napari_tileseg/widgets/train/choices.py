"""``Choices``: what the fields of the Train dock hold, and the config that they make."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from napari_tileseg.errors import OptionsError
from napari_tileseg.folders import model_folder
from napari_tileseg.training.config import Strengths, TrainConfig
from napari_tileseg.training.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

    from napari_tileseg.models.spec import ModelSpec

__all__ = [
    "FOLDS",
    "LOSSES",
    "NETWORKS",
    "Choices",
    "config_of",
    "default_name",
    "outlook",
    "overlapping",
    "read_value",
    "startable",
    "told",
    "words_of",
]

Source = Literal["layers", "folder", "sparse", "images"]

FOLDS: dict[str, tuple[str, ...]] = {
    "Network": ("network", "arguments", "dimensions", "window", "batch", "freeze"),
    "Loss": ("loss", "loss_arguments", "foreground", "adversarial", "adversarial_kind"),
    "Augment": tuple(f"augmentation.{name}" for name in Strengths.model_fields),
    "Steps": (
        *("epochs", "epoch_steps", "learning_rate", "optimizer", "schedule", "warmup", "weight_decay", "patience"),
        *("precision", "device", "seed"),
    ),
    "Labels": ("task", "classes", "values", "regions", "unlabelled", "axes", "split", "val_share", "spacing", "spacing_unit"),
}
"""The fields of `TrainConfig` under each fold."""

NETWORKS = (
    *("residual_unet", "unet2015_same", "unet2015", "plain_conv_unet", "residual_conv_unet", "residual_encoder_unet"),
    *("vnet2d", "vnet2d_paper", "vnet_paper", "brau_net_pp"),
    *("monai.UNet", "monai.BasicUNet", "monai.SegResNet", "monai.DynUNet", "monai.AttentionUnet", "monai.VNet"),
    *("stardist_unet", "cellpose_unet"),
)
"""Networks that are offered; a command takes others too."""

LOSSES = (
    *("auto", "ce_dice", "bce_dice", "ce", "bce", "dice", "dice_squared", "iou", "focal", "tversky", "focal_tversky"),
    *("lovasz_hinge", "lovasz_softmax", "lovasz_sigmoid", "combo", "log_cosh_dice", "brau_hybrid"),
    *("boundary", "hausdorff", "log_hausdorff"),
)
"""Losses that are offered: torch-free names of all there are."""

_DERIVED = ("window", "batch", "epoch_steps", "learning_rate", "spacing", "classes", "task", "loss")


@dataclass(frozen=True)
class Choices:
    """What the fields hold.

    Parameters
    ----------
    source : {"layers", "folder", "sparse", "images"}
        Where the examples are: layers, two folders, layers in which 0 is unlabelled, or images without labels.
    images, labels : str
        Folders, where they count; without labels, empty ones mean layers.
    start : str
        Name of the model to go on from; empty for a new one.
    name : str
    values : mapping
        Fields of `TrainConfig` (of `UnsupervisedConfig` without labels) that differ from its defaults; ``augmentation.x`` for those of
        `Strengths`.
    """

    source: Source = "layers"
    images: str = ""
    labels: str = ""
    start: str = ""
    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def config_of(choices: Choices) -> TrainConfig:
    """Return the config.

    Raises
    ------
    OptionsError
        One sentence that names the field.
    """
    values = {name: value for name, value in choices.values.items() if not name.startswith("augmentation.")}
    strengths = {name.partition(".")[2]: value for name, value in choices.values.items() if name.startswith("augmentation.")}
    if strengths:
        values["augmentation"] = strengths
    if choices.source == "sparse":
        values.setdefault("unlabelled", 0)
    if choices.source == "folder":
        values |= {"images": choices.images, "labels": choices.labels}
    else:
        values.pop("axes", None)  # the files that layers are saved in say them
    if choices.start:
        values.pop("network", None)
        values.pop("arguments", None)
        values["start"] = choices.start
    else:
        values.pop("freeze", None)
    return TrainConfig.parse(name=choices.name.strip(), **values)


def overlapping(choices: Choices, unknown: int) -> Choices:
    """Return the choices where an image has several labels, each of which is the mask of a class.

    Parameters
    ----------
    choices : Choices
    unknown : int
        What is in masks where nobody has labelled anything.

    Raises
    ------
    OptionsError
        If something else was said of the labels.
    """
    task = choices.values.get("task", "auto")
    if choices.source == "sparse" or task not in ("auto", "overlapping"):
        said = "Sparse labels" if choices.source == "sparse" else {"instances": "Objects", "classes": "Classes"}[task]
        raise OptionsError(
            f"Several labels of one image are classes that may overlap. {said} need one Labels layer for each image: take the others away."
        )
    return replace(choices, values={**choices.values, "task": "overlapping", "unlabelled": unknown})


def read_value(name: str, text: str, config: type[BaseModel] = TrainConfig) -> Any:
    """Turn what stands in a line into a field's value; what cannot be read is left for the config to refuse.

    ``"256, 256"`` becomes a tuple, ``"channels=[4, 8]"`` a dictionary.
    """
    text = text.strip()
    default = config.model_fields[name].get_default(call_default_factory=True)
    if isinstance(default, dict):
        return _arguments(text)
    if isinstance(default, tuple) or name in ("window", "spacing"):
        return tuple(part.strip() for part in text.replace(" x ", ",").replace(";", ",").split(",") if part.strip())
    return text


def _arguments(text: str) -> Any:
    """Read ``a=1, b=[2, 3]``, or the same as JSON."""
    if text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in ")}]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    found: dict[str, Any] = {}
    for part in (part.strip() for part in parts):
        name, equals, value = part.partition("=")
        if not part:
            continue
        if not equals:
            return text
        try:
            found[name.strip()] = json.loads(value.replace("(", "[").replace(")", "]"))
        except ValueError:
            found[name.strip()] = value.strip()
    return found


def startable(specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Return the models that a training can go on from."""
    return [spec for spec in specs if not refusal(spec)]


def default_name(start: str, *, own: bool = True) -> str:
    """Propose a name that no model has yet: ``"nuclei-2d-mine"``; without `own` as it is given, if it is free."""
    stem = (f"{start}-mine" if own else start) if start else "my-model"
    taken = model_folder()
    number = 1
    while (taken / (name := stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return name


def outlook(settings: Mapping[str, Any], epochs: int) -> str:
    """Say what will happen."""
    window = " x ".join(map(str, settings["window"]))
    return f"{epochs} epochs of {settings['epoch_steps']} steps; {settings['batch']} crops of {window} in a step."


def told(value: Any) -> str:
    """Put a value into the words of a line."""
    if value is None or value == "":
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name}={json.dumps(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def words_of(fold: str, choices: Choices, settings: Mapping[str, Any]) -> str:
    """Say in a folded header what is inside: what follows from the data, and what the user changed.

    Parameters
    ----------
    fold : str
        A key of `FOLDS`.
    choices : Choices
    settings : mapping
        What was derived from the data; empty before it is known.
    """
    changed = {name: value for name, value in choices.values.items() if name in FOLDS[fold]}
    shown = {name: settings.get(name) for name in _DERIVED} | changed
    match fold:
        case "Network":
            network = str(settings.get("network") or changed.get("network") or NETWORKS[0])
            window = f", window {' x '.join(map(str, shown['window']))}" if shown["window"] else ""
            return network + window + (f", batch {shown['batch']}" if shown["batch"] else "")
        case "Loss":
            loss = str(settings.get("loss") or changed.get("loss") or "auto")
            return loss + (f", adversarial {told(changed['adversarial'])}" if changed.get("adversarial") else "")
        case "Augment":
            return ", ".join(f"{name.partition('.')[2]} {told(value)}" for name, value in changed.items()) or "usual"
        case "Steps":
            epochs = f"{changed.get('epochs', TrainConfig.model_fields['epochs'].default)} epochs"
            return epochs + (f" of {shown['epoch_steps']} steps" if shown["epoch_steps"] else "")
    found = {"instances": "objects"}.get(str(shown["task"]), str(shown["task"] or "as found"))
    names = shown["classes"] or ()
    return f"{found}: {', '.join(map(str, names))}" if names and found == "classes" else found
