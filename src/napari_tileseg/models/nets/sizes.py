"""``check_sides``: the lengths that a network takes, said where another is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.errors import ModelError
from napari_tileseg.models.sides import next_side

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_sides"]


def check_sides(name: str, sides: Sequence[int], multiple: int, remainder: int = 0, *, least: int = 1) -> None:
    """Refuse an image whose sides are not a multiple of a number plus a remainder.

    Parameters
    ----------
    name : str
        Of the network.
    sides : sequence of int
    multiple, remainder : int
        Sides are ``multiple * k + remainder``.
    least : int
        No side is shorter.

    Raises
    ------
    ModelError
        Says which lengths are taken.
    """
    if all(side >= least and side % multiple == remainder for side in sides):
        return
    first = next_side(least, multiple, remainder)
    some = ", ".join(str(first + multiple * count) for count in range(3))
    raise ModelError(f"An image of {' x '.join(map(str, sides))} was given to {name}, which takes sides of {some}, ... Pad it or crop it.")
