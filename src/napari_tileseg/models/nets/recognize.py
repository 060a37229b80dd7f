"""Which network weights belong to, told from their names and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.nets import monai_clues, own_clues
from napari_tileseg.models.nets.match import Match, count, norms
from napari_tileseg.models.nets.shapes import expected_shapes
from napari_tileseg.models.weights import best_fit, variants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Match", "recognize", "sizes_of"]


def recognize(state: Mapping[str, Any], architecture: str = "", arguments: Mapping[str, Any] | None = None) -> Match | None:
    """Return the network whose names and shapes are exactly those of the weights; None where none of those known is.

    Parameters
    ----------
    state : mapping of str to tensor
        The weights; wrappers' prefixes may be there. Only shapes are looked at.
    architecture : str
        The only one that comes into question, where it is known.
    arguments : mapping, optional
        What is known of its arguments.
    """
    for names in variants(state):
        shapes = {name: tuple(value.shape) for name, value in names.items()}
        for proposed in _candidates(shapes):
            if architecture and proposed.architecture != architecture:
                continue
            candidate = proposed.told(arguments or {})
            try:
                fit, _ = best_fit(expected_shapes(candidate.architecture, candidate.arguments), names)
            except ModelError:
                continue
            if fit.exact:
                return candidate
    return None


def sizes_of(state: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Return the shapes of weights in their order."""
    return [tuple(value.shape) for value in state.values()]


def _candidates(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    for propose in (_residual_unet, _unet, _attention_unet, _basic_unet, _basic_unet_plus_plus, _dynunet, _segresnet):
        yield from _quietly(propose, shapes)
    for propose in (_segresnet_ds, _unetr, _swin_unetr, _vnet, *monai_clues.PROPOSALS, *own_clues.PROPOSALS):
        yield from _quietly(propose, shapes)


def _quietly(propose: Any, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    try:
        yield from propose(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError, StopIteration):  # a name that such a network has is not there
        return


def _residual_unet(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    stem = shapes["stem.0.weight"]
    channels = [shapes[f"downs.{level}.weight"][0] for level in range(count(shapes, r"downs\.(\d+)\."))]
    arguments = {
        "spatial_dims": len(stem) - 2,
        "in_channels": stem[1],
        "out_channels": shapes["head.weight"][0],
        "channels": channels,
        "stem_channels": stem[0],
    }
    yield Match("residual_unet", arguments, 2 ** len(channels))


def _unet(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    units = count(shapes, r"model\.0\.conv\.unit(\d+)\.")
    first = "conv.unit0.conv" if units else "conv"
    channels, strides, place = [], [], "model"
    while f"{place}.0.{first}.weight" in shapes:
        channels.append(shapes[f"{place}.0.{first}.weight"][0])
        strides.append(1 if shapes.get(f"{place}.0.residual.weight", (0, 0, 3))[2] == 1 else 2)
        place = f"{place}.1.submodule"
    bottom = shapes[f"{place}.{first}.weight"]
    start = shapes[f"model.0.{first}.weight"]
    up = shapes["model.2.0.conv.weight" if units else "model.2.conv.weight"]
    block = "model.0.conv.unit0" if units else "model.0"
    activation = f"{block}.adn.A.weight" in shapes
    for norm in norms(shapes, f"{block}.adn.N"):
        arguments = {
            "spatial_dims": len(start) - 2,
            "in_channels": start[1],
            "out_channels": up[1],
            "channels": [*channels, bottom[0]],
            "strides": strides,
            "kernel_size": list(start[2:]),
            "up_kernel_size": list(up[2:]),
            "num_res_units": units,
            "act": "PRELU" if activation else "RELU",
            "norm": norm,
            "bias": f"model.0.{first}.bias" in shapes,
        }
        factor = 1
        for stride in strides:
            factor *= stride
        yield Match("monai.UNet", arguments, factor, ("strides",) if activation else ("strides", "act"))


def _attention_unet(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    start = shapes["model.0.conv.0.conv.weight"]
    channels, place = [start[0]], "model.1"
    while f"{place}.attention.psi.0.conv.weight" in shapes:
        inner = f"{place}.submodule.0.conv.0.conv.weight"
        last = inner not in shapes
        channels.append(shapes[f"{place}.submodule.conv.0.conv.weight" if last else inner][0])
        if last:
            break
        place = f"{place}.submodule.1"
    up = shapes["model.1.upconv.up.conv.weight"]
    arguments = {
        "spatial_dims": len(start) - 2,
        "in_channels": start[1],
        "out_channels": shapes["model.2.conv.weight"][0],
        "channels": channels,
        "strides": [2] * (len(channels) - 1),
        "kernel_size": list(start[2:]),
        "up_kernel_size": list(up[2:]),
    }
    yield Match("monai.AttentionUnet", arguments, 2 ** (len(channels) - 1), ("strides",))


def _basic(shapes: Mapping[str, tuple[int, ...]], start: str, levels: list[str], last: str, upper: str) -> Iterator[dict[str, Any]]:
    first = shapes[f"{start}.conv_0.conv.weight"]
    features = [first[0], *(shapes[f"{level}.convs.conv_0.conv.weight"][0] for level in levels), shapes[last][1]]
    for norm in norms(shapes, f"{start}.conv_0.adn.N", (4, 8, 16, 32)):
        yield {
            "spatial_dims": len(first) - 2,
            "in_channels": first[1],
            "out_channels": shapes[last][0],
            "features": features,
            "norm": norm,
            "bias": f"{start}.conv_0.conv.bias" in shapes,
            "upsample": "deconv" if f"{upper}.upsample.deconv.weight" in shapes else "nontrainable",
        }


def _basic_unet(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    levels = [f"down_{level}" for level in range(1, 5)]
    for arguments in _basic(shapes, "conv_0", levels, "final_conv.weight", "upcat_1"):
        yield Match("monai.BasicUNet", arguments, 16, ("act",))


def _basic_unet_plus_plus(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    levels = [f"conv_{level}_0" for level in range(1, 5)]
    for arguments in _basic(shapes, "conv_0_0", levels, "final_conv_0_4.weight", "upcat_0_1"):
        yield Match("monai.BasicUNetPlusPlus", arguments, 16, ("act", "deep_supervision"))


def _dynunet(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    start = shapes["input_block.conv1.conv.weight"]
    downs = count(shapes, r"downsamples\.(\d+)\.")
    ups = count(shapes, r"upsamples\.(\d+)\.")
    blocks = ["input_block", *(f"downsamples.{level}" for level in range(downs)), "bottleneck"]
    weights = [shapes[f"{block}.conv1.conv.weight"] for block in blocks]
    steps = [list(shapes[f"upsamples.{level}.transp_conv.conv.weight"][2:]) for level in reversed(range(ups))]
    heads = count(shapes, r"deep_supervision_heads\.(\d+)\.")
    factor = 1
    for side in zip(*steps, strict=True):
        product = 1
        for stride in side:
            product *= stride
        factor = max(factor, product)
    for norm in norms(shapes, "input_block.norm1"):
        yield Match(
            "monai.DynUNet",
            {
                "spatial_dims": len(start) - 2,
                "in_channels": start[1],
                "out_channels": shapes["output_block.conv.conv.weight"][0],
                "kernel_size": [list(weight[2:]) for weight in weights],
                "strides": [[1] * (len(start) - 2), *steps],
                "upsample_kernel_size": steps,
                "filters": [weight[0] for weight in weights],
                "norm_name": norm,
                "deep_supervision": heads > 0,
                "deep_supr_num": max(heads, 1),
                "res_block": any(".conv3." in name for name in shapes),
                "trans_bias": "upsamples.0.transp_conv.conv.bias" in shapes,
            },
            factor,
            ("act_name",),
        )


def _segresnet(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    start = shapes["convInit.conv.weight"]
    levels = count(shapes, r"down_layers\.(\d+)\.")
    ups = count(shapes, r"up_layers\.(\d+)\.")
    for norm in [["group", {"num_groups": 8}], *norms(shapes, "down_layers.0.1.norm1", ())]:
        for mode in ("nontrainable", "deconv", "pixelshuffle"):
            yield Match(
                "monai.SegResNet",
                {
                    "spatial_dims": len(start) - 2,
                    "init_filters": start[0],
                    "in_channels": start[1],
                    "out_channels": shapes["conv_final.2.conv.weight"][0],
                    "norm": norm,
                    "blocks_down": [count(shapes, rf"down_layers\.{level}\.(\d+)\.norm1") - 1 for level in range(levels)],
                    "blocks_up": [count(shapes, rf"up_layers\.{level}\.(\d+)\.norm1") for level in range(ups)],
                    "upsample_mode": mode,
                },
                2 ** (levels - 1),
                ("act", "norm"),
            )


def _segresnet_ds(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    start = shapes["encoder.conv_init.weight"]
    levels = count(shapes, r"encoder\.layers\.(\d+)\.")
    ups = count(shapes, r"up_layers\.(\d+)\.")
    heads = [level for level in range(ups) if f"up_layers.{level}.head.weight" in shapes]
    for norm in norms(shapes, "encoder.layers.0.blocks.0.norm1"):
        for mode in ("deconv", "nontrainable", "pixelshuffle"):
            yield Match(
                "monai.SegResNetDS",
                {
                    "spatial_dims": len(start) - 2,
                    "init_filters": start[0],
                    "in_channels": start[1],
                    "out_channels": shapes[f"up_layers.{heads[-1]}.head.weight"][0],
                    "norm": norm,
                    "blocks_down": [count(shapes, rf"encoder\.layers\.{level}\.blocks\.(\d+)\.") for level in range(levels)],
                    "blocks_up": [count(shapes, rf"up_layers\.{level}\.blocks\.(\d+)\.") for level in range(ups)],
                    "dsdepth": len(heads),
                    "upsample_mode": mode,
                },
                2 ** (levels - 1),
                ("act", "resolution"),
            )


def _unetr(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    positions = shapes["vit.patch_embedding.position_embeddings"]
    conv = "vit.patch_embedding.patch_embeddings.weight" in shapes
    start = shapes["encoder1.layer.conv1.conv.weight"]
    dims = len(start) - 2
    side = round(positions[1] ** (1 / dims))
    if side**dims != positions[1]:
        raise ValueError("patches that fill no cube")
    hidden = positions[2]
    heads = next(number for number in (12, 8, 6, 4, 2, 1) if hidden % number == 0)
    for norm in norms(shapes, "encoder1.layer.norm1"):
        yield Match(
            "monai.UNETR",
            {
                "in_channels": start[1],
                "out_channels": shapes["out.conv.conv.weight"][0],
                "img_size": [16 * side] * dims,
                "feature_size": start[0],
                "hidden_size": hidden,
                "mlp_dim": shapes["vit.blocks.0.mlp.linear1.weight"][0],
                "num_heads": heads,
                "proj_type": "conv" if conv else "perceptron",
                "norm_name": norm,
                "res_block": "encoder1.layer.conv3.conv.weight" in shapes,
                "spatial_dims": dims,
                "qkv_bias": "vit.blocks.0.attn.qkv.bias" in shapes,
            },
            16 * side,
            ("num_heads", "img_size"),
            (16 * side,) * dims,
        )


def _swin_unetr(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    start = shapes["swinViT.patch_embed.proj.weight"]
    dims = len(start) - 2
    tables = [shapes[f"swinViT.layers{level}.0.blocks.0.attn.relative_position_bias_table"] for level in range(1, 5)]
    side = round(tables[0][0] ** (1 / dims))
    for norm in norms(shapes, "encoder1.layer.norm1"):
        yield Match(
            "monai.SwinUNETR",
            {
                "in_channels": start[1],
                "out_channels": shapes["out.conv.conv.weight"][0],
                "patch_size": start[2],
                "depths": [count(shapes, rf"swinViT\.layers{level}\.0\.blocks\.(\d+)\.") for level in range(1, 5)],
                "num_heads": [table[1] for table in tables],
                "window_size": (side + 1) // 2,
                "qkv_bias": "swinViT.layers1.0.blocks.0.attn.qkv.bias" in shapes,
                "mlp_ratio": shapes["swinViT.layers1.0.blocks.0.mlp.linear1.weight"][0] / start[0],
                "feature_size": start[0],
                "norm_name": norm,
                "spatial_dims": dims,
                "use_v2": any(name.startswith("swinViT.layers1c.") for name in shapes),
            },
            start[2] * 16,
            ("normalize", "downsample"),
        )


def _vnet(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Match]:
    start = shapes["in_tr.conv_block.conv.weight"]
    for act in (["elu", {"inplace": True}], "prelu"):
        yield Match(
            "monai.VNet",
            {
                "spatial_dims": len(start) - 2,
                "in_channels": start[1],
                "out_channels": shapes["out_tr.conv2.weight"][0],
                "act": act,
                "bias": "in_tr.conv_block.conv.bias" in shapes,
            },
            16,
            ("act",),
        )
