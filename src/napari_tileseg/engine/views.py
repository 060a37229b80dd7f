"""``View``: one of the ways in which a tile can be turned over before the network sees it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    import torch

__all__ = ["AS_IT_IS", "View", "check_passes", "check_rotations", "views"]


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


def views(tta: str | bool, ndim: int) -> tuple[View, ...]:
    """Return what scores are averaged over, the tile as it is first.

    Parameters
    ----------
    tta : False, "flips" or "rotations"
        "flips": all combinations of mirrored axes, 4 in 2D and 8 in 3D. "rotations": the 8 flips and quarter turns of a square.
    ndim : int
        Number of spatial axes.
    """
    if not tta:
        return (AS_IT_IS,)
    axes = range(2, 2 + ndim)
    flips = [chosen for count in range(ndim + 1) for chosen in combinations(axes, count)]
    return tuple(View(chosen, swapped) for swapped in ((False, True) if tta == "rotations" else (False,)) for chosen in flips)


def check_rotations(window: tuple[int, ...], offset: tuple[int, ...] | None) -> None:
    """Refuse quarter turns of what does not look the same afterwards.

    Raises
    ------
    OptionsError
    """
    if len(window) != 2:
        raise OptionsError('Rotations are for 2D models; this one works on volumes. Use tta "flips".')
    if len(set(window)) > 1 or len(set(offset or (0,))) > 1:
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
