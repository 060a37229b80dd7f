"""``View``: one of the ways in which a tile can be turned over before the network sees it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    import torch

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["AS_IT_IS", "View", "averaged", "check_passes", "check_views", "views"]


@dataclass(frozen=True)
class View:
    """Mirrored axes, and whether the two axes of a plane are exchanged afterwards.

    Parameters
    ----------
    flips : tuple of int
        Axes of the batch.
    swapped : bool
        Flips with an exchange of Y and X make quarter turns.
    """

    flips: tuple[int, ...] = ()
    swapped: bool = False

    def of(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn tiles over; a batch of tiles as they are is returned itself."""
        turned = batch.flip(self.flips) if self.flips else batch
        return turned.transpose(2, 3) if self.swapped else turned

    def back(self, scores: torch.Tensor) -> torch.Tensor:
        """Turn the scores of turned tiles back."""
        turned = scores.transpose(2, 3) if self.swapped else scores
        return turned.flip(self.flips) if self.flips else turned


AS_IT_IS = View()
"""Nothing is turned."""


def averaged(tta: str | bool | None, spec: ModelSpec) -> str | bool:
    """Return which views are averaged: what the user says, or else what the model says."""
    return spec.tta if tta is None else tta


def views(tta: str | bool | None, spec: ModelSpec) -> tuple[View, ...]:
    """Return what scores are averaged over, the tile as it is first.

    Parameters
    ----------
    tta : False, "flips", "rotations" or None
        "flips": all combinations of mirrored axes, 4 in 2D and 8 in 3D. "rotations": the 8 flips and quarter turns of a square.
        None: as the model says.
    spec : ModelSpec
        Axes that its network never saw mirrored are left alone.
    """
    tta = averaged(tta, spec)
    if not tta:
        return (AS_IT_IS,)
    axes = [2 + place for place, axis in enumerate(spec.spatial_axes) if spec.mirror_axes is None or axis in spec.mirror_axes]
    flips = [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]
    return tuple(View(chosen, swapped) for swapped in ((False, True) if tta == "rotations" else (False,)) for chosen in flips)


def check_views(tta: str | bool | None, spec: ModelSpec, window: tuple[int, ...]) -> None:
    """Refuse views that the network does not know, and quarter turns of what is not square.

    Raises
    ------
    OptionsError
    """
    tta = averaged(tta, spec)
    if not tta:
        return
    known = spec.spatial_axes if spec.mirror_axes is None else spec.mirror_axes
    if not known:
        raise OptionsError(f"{spec.label} was not trained on mirror images, so an average over flips would be wrong. Run it without tta.")
    if tta != "rotations":
        return
    if spec.spatial_ndim != 2:
        raise OptionsError('Rotations are for 2D models; this one works on volumes. Use tta "flips".')
    if len(known) < 2:
        raise OptionsError(f'{spec.label} was trained on mirror images along {known} only, not on turned ones. Use tta "flips".')
    if len(set(window)) > 1 or len(set(spec.output_offset or (0,))) > 1:
        size = " x ".join(str(side) for side in window)
        raise OptionsError(
            f'Rotations need a square window; this one is {size}. Set window {max(window)} x {max(window)}, or use tta "flips".'
        )


def check_passes(uncertainty: str | bool, passes: int) -> None:
    """Refuse to ask one pass whether it agrees with itself.

    Raises
    ------
    OptionsError
    """
    if uncertainty == "disagreement" and passes < 2:
        raise OptionsError('Disagreement needs several passes. Set tta, use several models, or ask for uncertainty "entropy".')
