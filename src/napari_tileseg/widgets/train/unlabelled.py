"""``unlabelled_config``: what the fields of the Train dock mean where images alone are learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.training.unsupervised.config import ADVERSARIAL, UnsupervisedConfig
from napari_tileseg.widgets.train.choices import told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_tileseg.widgets.train.choices import Choices

__all__ = ["FOLDS", "outlook", "takes_masks", "unlabelled_config", "words_of"]

FOLDS: dict[str, tuple[str, ...]] = {
    "Network": ("network", "arguments", "residual", "tile", "batch"),
    "Steps": ("steps", "encoder_steps", "learning_rate", "kappa", "device", "seed"),
    "Threshold": ("held_out", "percentile", "median", "min_size"),
    "Images": ("normalization", "flips", "axes", "classes"),
}
"""The fields of `UnsupervisedConfig` under each fold."""

_EVERY, _SAVED = 20, 100
"""Steps between two looks, and between two that are safe: somebody looks on."""


def takes_masks(values: Mapping[str, Any]) -> bool:
    """Tell whether the chosen network can learn masks with its images."""
    return values.get("network", UnsupervisedConfig.model_fields["network"].default) in ADVERSARIAL


def unlabelled_config(choices: Choices) -> UnsupervisedConfig:
    """Return the config.

    Raises
    ------
    OptionsError
        One sentence that names the field.
    """
    values = dict(choices.values)
    if choices.images:
        values["images"] = choices.images
        if choices.labels and takes_masks(values):
            values["labels"] = choices.labels
    else:
        values.pop("axes", None)  # the files that layers are saved in say them
    return UnsupervisedConfig.parse(**({"report_every": _EVERY, "checkpoint_every": _SAVED} | values | {"name": choices.name.strip()}))


def outlook(settings: Mapping[str, Any]) -> str:
    """Say what will happen."""
    tile = " x ".join(map(str, settings["tile"]))
    steps = f"{settings['steps']} steps"
    if settings.get("encoder_steps"):
        steps = f"{steps} of generator and discriminator, {settings['encoder_steps']} of the encoder"
    return f"{steps}; {settings['batch']} tiles of {tile} in a step."


def words_of(fold: str, choices: Choices, settings: Mapping[str, Any]) -> str:
    """Say in a folded header what is inside; `settings` is what follows from the data, empty before it is known."""
    held = {name: field.get_default(call_default_factory=True) for name, field in UnsupervisedConfig.model_fields.items()}
    held |= dict(settings) | dict(choices.values)
    match fold:
        case "Network":
            return f"{held['network']}, tile {' x '.join(map(str, held['tile']))}, batch {held['batch']}"
        case "Steps":
            more = held["encoder_steps"] or held["steps"] if takes_masks(held) else 0
            return f"{held['steps']} steps" + (f", encoder {more}" if more else "")
        case "Threshold":
            return f"{told(held['percentile'])} % of held-out pixels below"
    return ("each by its own brightness" if held["normalization"] == "percentile" else "one range of brightness") + (
        "" if held["flips"] else ", no flips"
    )
