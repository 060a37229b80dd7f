"""``Match``: a network that weights may belong to, and what several proposals of one look for."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Match", "count", "norms"]

_FLAT = ("unet2015", "unet2015_same", "vnet2d", "vnet2d_paper", "brau_net_pp")
"""Networks for planes unless they are told otherwise."""


@dataclass(frozen=True)
class Match:
    """A network that weights may belong to.

    Parameters
    ----------
    architecture : str
        Name for `build_network`.
    arguments : dict
    multiple_of : int
        What sides of tiles must be multiples of.
    assumed : tuple of str
        Arguments that leave no trace in weights, so that they are only likely.
    window : tuple of int, optional
        The only window that it takes.
    """

    architecture: str
    arguments: dict[str, Any]
    multiple_of: int = 1
    assumed: tuple[str, ...] = ()
    window: tuple[int, ...] | None = None

    @property
    def spatial_dims(self) -> int:
        return int(self.arguments.get("spatial_dims", 2 if self.architecture in _FLAT else 3))

    @property
    def scores(self) -> int:
        """Number of score channels."""
        told = self.arguments.get("out_channels", self.arguments.get("num_classes"))
        return len(self.arguments["classes"]) if told is None else int(told)

    def told(self, arguments: Mapping[str, Any]) -> Match:
        """Return the same with arguments that somebody knows."""
        assumed = tuple(name for name in self.assumed if name not in arguments)
        return replace(self, arguments={**self.arguments, **arguments}, assumed=assumed)


def count(shapes: Mapping[str, Any], pattern: str) -> int:
    """Return one more than the largest number that a pattern finds in the names."""
    return 1 + max((int(found[1]) for name in shapes if (found := re.match(pattern, name))), default=-1)


def norms(shapes: Mapping[str, Any], name: str, groups: tuple[int, ...] = (8,)) -> list[Any]:
    """Return the normalisations that have the weights of the one called `name`."""
    if f"{name}.running_mean" in shapes:
        return ["batch"]
    if f"{name}.weight" in shapes:
        return [("instance", {"affine": True}), *(("group", {"num_groups": number}) for number in groups)]
    return ["instance"]
