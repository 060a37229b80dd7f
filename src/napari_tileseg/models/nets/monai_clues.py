"""``PROPOSALS``: which of MONAI's less common networks weights may belong to, by their names and shapes."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Any

from napari_tileseg.models.nets.match import Match, count, norms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Shapes = Mapping[str, tuple[int, ...]]

__all__ = ["PROPOSALS"]

_STEMS = {32: "b0 b1 b2", 40: "b3", 48: "b4 b5", 56: "b6", 64: "b7", 72: "b8", 136: "l2"}
"""EfficientNets by the width of their first layer."""

_RESNETS: dict[tuple[int, ...], tuple[str, ...]] = {
    (1, 1, 1, 1): ("resnet10",),
    (2, 2, 2, 2): ("resnet18",),
    (3, 4, 6, 3): ("resnet34", "resnet50"),
    (3, 4, 23, 3): ("resnet101",),
    (3, 8, 36, 3): ("resnet152",),
    (3, 24, 36, 3): ("resnet200",),
}
"""ResNets by the number of blocks in each layer."""

_OPERATIONS = {(3, 3): 1, (3, 3, 3): 1, (3, 3, 1): 2, (3, 1, 3): 3, (1, 3, 3): 4}
"""What a cell of DiNTS does, by the size of its filters; 0 is nothing."""

_VISTA_CLASSES = 132


def _segresnet_vae(shapes: Shapes) -> Iterator[Match]:
    start = shapes["convInit.conv.weight"]
    dims = len(start) - 2
    levels, ups = count(shapes, r"down_layers\.(\d+)\."), count(shapes, r"up_layers\.(\d+)\.")
    fewest, pixels = shapes["vae_down.2.conv.weight"][0], shapes["vae_fc1.weight"][1]
    side = round((pixels // fewest) ** (1 / dims))
    sides = [side] * dims if side**dims * fewest == pixels else [pixels // fewest, *[1] * (dims - 1)]
    for norm in [["group", {"num_groups": 8}], *norms(shapes, "down_layers.0.1.norm1", ())]:
        for mode in ("nontrainable", "deconv", "pixelshuffle"):
            arguments = {
                "input_image_size": [size * 2**levels for size in sides],
                "vae_nz": shapes["vae_fc1.weight"][0],
                "spatial_dims": dims,
                "init_filters": start[0],
                "in_channels": start[1],
                "out_channels": shapes["conv_final.2.conv.weight"][0],
                "norm": norm,
                "blocks_down": [count(shapes, rf"down_layers\.{level}\.(\d+)\.norm1") - 1 for level in range(levels)],
                "blocks_up": [count(shapes, rf"up_layers\.{level}\.(\d+)\.norm1") for level in range(ups)],
                "upsample_mode": mode,
            }
            yield Match("monai.SegResNetVAE", arguments, 2 ** (levels - 1), ("act", "norm"))


def _highresnet(shapes: Shapes) -> Iterator[Match]:
    last = count(shapes, r"blocks\.(\d+)\.") - 1
    start, before, end = (shapes[f"blocks.{number}.conv.weight"] for number in (0, last - 1, last))
    layers: list[dict[str, Any]] = [{"name": "conv_0", "n_features": start[0], "kernel_size": start[2]}]
    kinds = []
    for number in range(1, last - 1):
        filters = [shapes[f"blocks.{number}.layers.{layer}.conv.weight"] for layer in range(1, 2 * _convs(shapes, number), 2)]
        kinds.append((filters[-1][0], tuple(shape[2] for shape in filters)))
    for index, (kind, alike) in enumerate(groupby(kinds), start=1):
        layers.append({"name": f"res_{index}", "n_features": kind[0], "kernels": list(kind[1]), "repeat": len(list(alike))})
    layers += [
        {"name": "conv_1", "n_features": before[0], "kernel_size": before[2]},
        {"name": "conv_2", "kernel_size": end[2]},
    ]
    for norm in norms(shapes, "blocks.0.adn.N"):
        arguments = {
            "spatial_dims": len(start) - 2,
            "in_channels": start[1],
            "out_channels": end[0],
            "norm_type": norm,
            "bias": "blocks.0.conv.bias" in shapes,
            "layer_params": layers,
            "channel_matching": "project" if any(".chn_pad.project." in name for name in shapes) else "pad",
        }
        # Neighbouring layers of the same width would look like one; they differ in how far apart their pixels are.
        yield Match("monai.HighResNet", arguments, 1, ("layer_params", "acti_type"))


def _convs(shapes: Shapes, number: int) -> int:
    return sum(re.fullmatch(rf"blocks\.{number}\.layers\.\d+\.conv\.weight", name) is not None for name in shapes)


def _ahnet(shapes: Shapes) -> Iterator[Match]:
    start, end = shapes["conv1.weight"], shapes["final.conv.weight"]
    pools = count(shapes, r"psp\.project_modules\.(\d+)\.")
    transposed = "final.up.weight" in shapes
    dims = len(start) - 2
    arguments = {
        "layers": [count(shapes, rf"layer{layer}\.(\d+)\.") for layer in range(1, 5)],
        "spatial_dims": dims,
        "in_channels": start[1],
        "out_channels": end[0],
        "psp_block_num": pools,
        "upsample_mode": "transpose" if transposed else ("trilinear" if dims == 3 else "bilinear"),
    }
    yield Match("monai.AHNet", arguments, max(32, 2 ** (pools + 3)), () if transposed else ("upsample_mode",))


def _flexible_unet(shapes: Shapes) -> Iterator[Match]:
    efficient = "encoder._conv_stem.weight" in shapes
    start = shapes["encoder._conv_stem.weight" if efficient else "encoder.conv1.weight"]
    if efficient:
        backbones: tuple[str, ...] = tuple(f"efficientnet-{name}" for name in _STEMS[start[0]].split())
    else:
        backbones = _RESNETS[tuple(count(shapes, rf"encoder\.layer{layer}\.(\d+)\.") for layer in range(1, 5))]
    levels = count(shapes, r"decoder\.blocks\.(\d+)\.")
    for backbone in backbones:
        for norm in norms(shapes, "decoder.blocks.0.convs.conv_0.adn.N"):
            arguments = {
                "in_channels": start[1],
                "out_channels": shapes["segmentation_head.0.weight"][0],
                "backbone": backbone,
                "decoder_channels": [shapes[f"decoder.blocks.{level}.convs.conv_0.conv.weight"][0] for level in range(levels)],
                "spatial_dims": len(start) - 2,
                # The width of the normalisation's guard against division by zero leaves no trace; this is MONAI's own choice.
                "norm": ["batch", {"eps": 0.001, "momentum": 0.1}] if norm == "batch" else norm,
                "decoder_bias": "decoder.blocks.0.convs.conv_0.conv.bias" in shapes,
                "upsample": "deconv" if any(".upsample.deconv." in name for name in shapes) else "nontrainable",
            }
            yield Match("monai.FlexibleUNet", arguments, 32, ("act", "norm", "interp_mode"))


def _mednext(shapes: Shapes) -> Iterator[Match]:
    stem, kernel = shapes["stem.weight"], shapes["bottleneck.0.conv1.weight"][2]

    def ratio(block: str) -> int:
        wide, narrow = shapes[f"{block}.conv2.weight"][:2]
        return wide // narrow

    downs, ups = count(shapes, r"enc_stages\.(\d+)\."), count(shapes, r"dec_stages\.(\d+)\.")
    for norm in ("group", "layer"):
        arguments = {
            "spatial_dims": len(stem) - 2,
            "init_filters": stem[0],
            "in_channels": stem[1],
            "out_channels": shapes["out_0.conv_out.weight"][1],
            "encoder_expansion_ratio": [ratio(f"enc_stages.{level}.0") for level in range(downs)],
            "decoder_expansion_ratio": [ratio(f"dec_stages.{level}.0") for level in range(ups)],
            "bottleneck_expansion_ratio": ratio("bottleneck.0"),
            "kernel_size": kernel,
            "deep_supervision": "out_blocks.0.conv_out.weight" in shapes,
            "use_residual_connection": any(".res_conv." in name for name in shapes),
            "blocks_down": [count(shapes, rf"enc_stages\.{level}\.(\d+)\.") for level in range(downs)],
            "blocks_bottleneck": count(shapes, r"bottleneck\.(\d+)\."),
            "blocks_up": [count(shapes, rf"dec_stages\.{level}\.(\d+)\.") for level in range(ups)],
            "norm_type": norm,
            "global_resp_norm": any("global_resp_" in name for name in shapes),
        }
        yield Match("monai.MedNeXt", arguments, 2**downs)


def _dints(shapes: Shapes) -> Iterator[Match]:
    start = shapes["stem_down.0.mod.1.weight"]
    depths = count(shapes, r"stem_down\.(\d+)\.")
    shrunk = "stem_down.0.mod.4.weight" in shapes
    widths = [shapes[f"stem_down.{depth}.mod.1.weight"][0] for depth in range(depths)]
    if shrunk:
        widths.append(shapes[f"stem_down.{depths - 1}.mod.4.weight"][0])
    blocks = count(shapes, r"dints_space\.cell_tree\.\((\d+), ")
    paths = 3 * depths - 2
    open_paths = [[0] * paths for _ in range(blocks)]
    operations = [[0] * paths for _ in range(blocks)]
    for name, shape in shapes.items():
        found = re.match(r"dints_space\.cell_tree\.\((\d+), (\d+)\)\.(.*)", name)
        if found:
            block, path = int(found[1]), int(found[2])
            open_paths[block][path] = 1
            if found[3] == "op.ops.0.conv.weight":
                operations[block][path] = _OPERATIONS[shape[2:]]
    sure = _open_silent_paths(open_paths)
    arguments = {
        "arch_code": [open_paths, operations],
        "in_channels": start[1],
        "num_classes": shapes["stem_finals.1.weight"][0],
        "channel_mul": max(width / (32 * 2**level) for level, width in enumerate(widths)),
        "num_blocks": blocks,
        "num_depths": depths,
        "spatial_dims": len(start) - 2,
        "use_downsample": shrunk,
    }
    yield Match("monai.DiNTS", arguments, 2 ** (depths + shrunk), () if sure else ("arch_code",))


def _open_silent_paths(open_paths: list[list[int]]) -> bool:
    """Open paths that keep the resolution and have no weights, where what follows would have no input; tell whether that is sure.

    Path i comes from resolution ``(i + 1) // 3 - 1 + (i + 1) % 3`` and leads to ``(i + 1) // 3``.
    """
    sure = True
    wanted = {path // 3 for path in range(0, len(open_paths[0]), 3)}  # all of the last ones are joined
    for block in reversed(open_paths):
        reached = {(path + 1) // 3 for path, is_open in enumerate(block) if is_open}
        for path in range(0, len(block), 3):
            if not block[path]:
                block[path] = int((path + 1) // 3 in wanted - reached)
                sure = sure and bool(block[path])
        wanted = {(path + 1) // 3 - 1 + (path + 1) % 3 for path, is_open in enumerate(block) if is_open}
    return sure


def _vista3d(shapes: Shapes) -> Iterator[Match]:
    start = shapes["image_encoder.encoder.conv_init.weight"]
    arguments = {"classes": list(range(1, _VISTA_CLASSES + 1)), "encoder_embed_dim": start[0], "in_channels": start[1]}
    yield Match("monai.VISTA3D", arguments, 32, ("classes",))


PROPOSALS = (_segresnet_vae, _highresnet, _ahnet, _flexible_unet, _mednext, _dints, _vista3d)
