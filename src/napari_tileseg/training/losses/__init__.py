"""``get_loss``: losses by name; each is a module called as ``loss(logits, target)``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from napari_tileseg.errors import OptionsError
from napari_tileseg.training.losses.adversarial import AdversarialLoss
from napari_tileseg.training.losses.distance import Distance
from napari_tileseg.training.losses.entropy import Combo, CrossEntropy, Focal
from napari_tileseg.training.losses.flows import FlowLoss
from napari_tileseg.training.losses.instances import CrossEntropyDice, InstanceLoss, soft_dice
from napari_tileseg.training.losses.loss import Loss, WeightedSum
from napari_tileseg.training.losses.lovasz import LovaszHinge, LovaszSoftmax
from napari_tileseg.training.losses.overlap import Dice, FocalTversky, Jaccard, LogCoshDice, Tversky
from napari_tileseg.training.losses.stars import StarLoss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

__all__ = [
    "LOSSES",
    "OBJECT_LOSSES",
    "AdversarialLoss",
    "CrossEntropyDice",
    "FlowLoss",
    "InstanceLoss",
    "Loss",
    "StarLoss",
    "get_loss",
    "get_object_loss",
    "soft_dice",
]


def _entropy_and_dice(
    *,
    ce_weight: float = 1.0,
    dice_weight: float = 1.0,
    ignore_index: int | None = None,
    multi_label: bool | None = None,
    class_weights: Any = None,
    **dice: Any,
) -> Loss:
    parts = [(ce_weight, CrossEntropy(class_weights=class_weights)), (dice_weight, Dice(**dice))]
    return WeightedSum(parts, ignore_index=ignore_index, multi_label=multi_label)


def _distance_and_partner(
    *,
    kind: Literal["boundary", "hausdorff", "log_hausdorff"],
    partner: str = "",
    weight: float = 1.0,
    ignore_index: int | None = None,
    multi_label: bool | None = None,
    **distance: Any,
) -> Loss:
    own = Distance(kind=kind, ignore_index=ignore_index, multi_label=multi_label, **distance)
    if not partner:
        return own if weight == 1 else WeightedSum([(weight, own)], ignore_index=ignore_index, multi_label=multi_label)
    return WeightedSum([(1.0, get_loss(partner)), (weight, own)], ignore_index=ignore_index, multi_label=multi_label)


LOSSES: dict[str, Callable[..., Loss]] = {
    "ce": CrossEntropy,
    "bce": CrossEntropy,
    "dice": Dice,
    "dice_squared": partial(Dice, squared=True, smooth=1e-5),
    "ce_dice": _entropy_and_dice,
    "bce_dice": _entropy_and_dice,
    "iou": Jaccard,
    "focal": Focal,
    "tversky": Tversky,
    "focal_tversky": FocalTversky,
    "lovasz_hinge": LovaszHinge,
    "lovasz_softmax": LovaszSoftmax,
    "lovasz_sigmoid": LovaszSoftmax,
    "combo": Combo,
    "log_cosh_dice": LogCoshDice,
    "brau_hybrid": partial(_entropy_and_dice, ce_weight=0.4, dice_weight=0.6, squared=True, smooth=1e-5),
    "boundary": partial(_distance_and_partner, kind="boundary"),
    "hausdorff": partial(_distance_and_partner, kind="hausdorff"),
    "log_hausdorff": partial(_distance_and_partner, kind="log_hausdorff"),
}
"""How each loss is made; whether it compares classes or masks follows from scores and labels."""


def get_loss(name: str, **arguments: Any) -> Loss:
    """Make a loss.

    Parameters
    ----------
    name : str
        A key of `LOSSES`.
    **arguments
        Its own, and for all ``ignore_index``, ``multi_label`` and ``class_weights``.

    Returns
    -------
    Loss
        Called with raw scores (B, C, *spatial) and class numbers (B, *spatial) or (B, 1, *spatial), or masks in the shape of the scores.

    Raises
    ------
    OptionsError
        If there is no such loss, or it does not take the arguments.
    """
    found: Loss = _made(LOSSES, name, arguments)
    return found


OBJECT_LOSSES: dict[str, Callable[..., nn.Module]] = {"instances": InstanceLoss, "stars": StarLoss, "flows": FlowLoss}
"""How the losses of objects are made; which one it is follows from the decoder."""


def get_object_loss(name: str, **arguments: Any) -> nn.Module:
    """Make a loss of objects, called with raw scores (B, C, *spatial) and a `Batch`.

    Parameters
    ----------
    name : str
        A key of `OBJECT_LOSSES`.
    **arguments
        Its own.

    Raises
    ------
    OptionsError
        If there is no such loss, or it does not take the arguments.
    """
    found: nn.Module = _made(OBJECT_LOSSES, name, arguments)
    return found


def _made(losses: Mapping[str, Callable[..., Any]], name: str, arguments: Mapping[str, Any]) -> Any:
    if name not in losses:
        raise OptionsError(f'There is no loss "{name}". Use one of {", ".join(losses)}.')
    try:
        return losses[name](**arguments)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise OptionsError(f'The loss "{name}" cannot be made with {given}: {error}') from error
