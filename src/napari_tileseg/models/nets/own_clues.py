"""``PROPOSALS``: which of this project's own networks weights may belong to, by their names and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.models.nets.match import Match, count
from napari_tileseg.models.nets.tiling import tiling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Shapes = Mapping[str, tuple[int, ...]]

__all__ = ["PROPOSALS"]


def _unet2015(shapes: Shapes) -> Iterator[Match]:
    start = shapes["downs.0.0.weight"]
    arguments = {
        "in_channels": start[1],
        "out_channels": shapes["head.weight"][0],
        "features": [shapes[f"downs.{level}.0.weight"][0] for level in range(count(shapes, r"downs\.(\d+)\."))],
        "padding": "valid",
        "norm": "downs.0.1.running_mean" in shapes,
        "spatial_dims": len(start) - 2,
    }
    step = tiling("unet2015", arguments)["multiple_of"]
    yield Match("unet2015", dict(arguments), step, ("padding",))
    del arguments["padding"]
    yield Match("unet2015_same", arguments, step)  # for those who name it


def _vnet2d(shapes: Shapes) -> Iterator[Match]:
    start = shapes["stem.0.weight"]
    arguments = {
        "in_channels": start[1],
        "out_channels": shapes["head.weight"][0],
        "stages": count(shapes, r"left\.(\d+)\."),
        "features": start[0],
        "bias": "stem.0.bias" in shapes,
    }
    yield Match("vnet2d", arguments, 2 ** (arguments["stages"] - 1))


def _vnet_paper(shapes: Shapes) -> Iterator[Match]:
    start = shapes["left.0.0.weight"]
    arguments = {
        "in_channels": start[1],
        "out_channels": shapes["head.weight"][0],
        "spatial_dims": len(start) - 2,
        "norm": "left.0.1.running_mean" in shapes,
    }
    yield Match("vnet_paper", dict(arguments), 16)
    if arguments.pop("spatial_dims") == 2:
        yield Match("vnet2d_paper", arguments, 16)


def _brau_net_pp(shapes: Shapes) -> Iterator[Match]:
    start = shapes["downsample_layers.0.0.weight"]
    below = "stages.3.0.pos_embed.weight" in shapes
    depths = [count(shapes, rf"stages\.{level}\.(\d+)\.") for level in range(4 if below else 3)]
    arguments = {
        "in_channels": start[1],
        "out_channels": shapes["output.weight"][0],
        "legacy": True,
        "bottleneck": below,
        "width": 2 * start[0],
        "depths": depths if below else [*depths, 2],
    }
    # The official program and the paper differ in what they compute, not in the weights; files in circulation are the program's.
    yield Match("brau_net_pp", arguments, 32, ("legacy", "regions"))


PROPOSALS = (_unet2015, _vnet2d, _vnet_paper, _brau_net_pp)
