"""What is frozen stays bit by bit, with what it has measured; every network is taken apart, or refused in a sentence."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from scenes import config, folders
from torch import nn

from napari_tileseg import train
from napari_tileseg.errors import OptionsError
from napari_tileseg.models.nets import NETWORKS, build_network
from napari_tileseg.models.nets.halves import ENCODERS, encoder_names
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.training.fit import Epoch, Finished, FitOptions, fit
from napari_tileseg.training.freezing import freeze, set_learning
from napari_tileseg.training.head import result_weights
from napari_tileseg.training.sampling import Batch

if TYPE_CHECKING:
    from pathlib import Path

PLANE: dict[str, Any] = {"spatial_dims": 2}
LEVELS: dict[str, Any] = {"spatial_dims": 2, "channels": [4, 8, 8], "strides": [2, 2]}
FEATURES = [4, 4, 8, 8, 16, 4]
RESIDUAL: dict[str, Any] = {"spatial_dims": 2, "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "norm": "batch"}
DYNAMIC: dict[str, Any] = {
    "spatial_dims": 2,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [4, 8, 8],
    "norm_name": "batch",
}
PLANS: dict[str, Any] = {
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": "torch.nn.Conv2d",
    "kernel_sizes": [3, 3],
    "strides": [1, 2],
    "n_conv_per_stage": 1,
    "n_blocks_per_stage": 1,
    "n_conv_per_stage_decoder": 1,
    "conv_bias": True,
    "norm_op": "torch.nn.BatchNorm2d",
    "nonlin": "torch.nn.LeakyReLU",
    "deep_supervision": True,
}
SWIN: dict[str, Any] = {"spatial_dims": 2, "feature_size": 12, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 3}
SAM: dict[str, Any] = {"window": 32, "width": 8, "heads": 2, "hidden": 8, "neck": 4, "relative": [0]}

SMALL: dict[str, dict[str, Any]] = {
    "brau_net_pp": {"width": 32, "depths": [1, 1, 1, 1]},
    "cellpose_sam": SAM,
    "cellpose_unet": {"channels": [4, 8]},
    "plain_conv_unet": PLANS,
    "residual_conv_unet": PLANS,
    "residual_encoder_unet": PLANS,
    "residual_unet": {"channels": [4, 8], "stem_channels": 4},
    "stardist_unet": {"depth": 2, "filters": 4, "rays": 4, "features": 4, "batch_norm": True, "last_activation": "linear", "grid": [2, 2]},
    "unet2015": {"features": [2, 4], "norm": True},
    "unet2015_same": {"features": [2, 4], "norm": True},
    "vnet2d": {"stages": 2, "features": 2},
    "vnet2d_paper": {},
    "vnet_paper": PLANE,
    "monai.AHNet": {**PLANE, "layers": [1, 1, 1, 1], "psp_block_num": 1, "upsample_mode": "transpose"},
    "monai.AttentionUnet": LEVELS,
    "monai.BasicUNet": {**PLANE, "features": FEATURES, "norm": "batch"},
    "monai.BasicUNetPlusPlus": {**PLANE, "features": FEATURES, "norm": "batch"},
    "monai.DynUNet": DYNAMIC | {"deep_supervision": True, "deep_supr_num": 1, "res_block": True},
    "monai.FlexibleUNet": {**PLANE, "backbone": "resnet10", "decoder_channels": [8, 8, 4, 4, 4]},
    "monai.MedNeXt": {**PLANE, "init_filters": 4, "blocks_down": [1], "blocks_up": [1], "blocks_bottleneck": 1, "kernel_size": 3}
    | {"encoder_expansion_ratio": [2], "decoder_expansion_ratio": [2], "bottleneck_expansion_ratio": 2},
    "monai.SegResNet": RESIDUAL,
    "monai.SegResNetDS": {"spatial_dims": 2, "init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1], "dsdepth": 2},
    "monai.SegResNetDS2": {"spatial_dims": 2, "init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1], "dsdepth": 2},
    "monai.SegResNetVAE": RESIDUAL | {"norm": ["group", {"num_groups": 8}], "input_image_size": [32, 32], "vae_nz": 4},
    "monai.SwinUNETR": SWIN,
    "monai.UNETR": {**PLANE, "img_size": [32, 32], "feature_size": 4, "hidden_size": 8, "mlp_dim": 8, "num_heads": 2},
    "monai.UNet": LEVELS | {"num_res_units": 2, "norm": "batch"},
    "monai.VISTA3D": {},
    "monai.VNet": PLANE,
}
"""An example of each, with batch normalisation where it has a choice."""

WITHOUT = {"anomaly_autoencoder", "autoencoder", "conv_autoencoder", "dcgan_discriminator", "dcgan_generator", "f_anogan"}
WITHOUT |= {"gan_discriminator", "gan_generator", "paired_generator", "vae"}
"""Networks that learn from images alone."""

CROSSED = {
    "monai.HighResNet": {**PLANE, "layer_params": [{"name": f"conv_{k}", "n_features": 4, "kernel_size": 1} for k in range(3)]},
    "monai.DiNTS": {**PLANE, "arch_code": [[[1] * 4] * 2, [[1] * 4] * 2], "channel_mul": 0.1, "num_blocks": 2, "num_depths": 2},
}
"""Networks without a way down."""

SIDE = {"unet2015": 44, "monai.SwinUNETR": 64, "monai.AHNet": 64}
IMPORTED = {"monai.HyenaNDUNETR", "monai.VISTA3D"}
"""The first needs a package that is not installed; the second is asked for classes, and has a million weights for clicks besides."""


def build(name: str) -> tuple[nn.Module, ModelSpec]:
    arguments = dict(SMALL.get(name) or CROSSED.get(name) or {})
    if name == "monai.VISTA3D":
        arguments |= {"classes": [1, 3], "encoder_embed_dim": 8}
    elif name != "stardist_unet":
        inputs = "input_channels" if "n_stages" in arguments else "in_channels"
        results = "num_classes" if "n_stages" in arguments or name == "monai.DiNTS" else "out_channels"
        arguments |= {inputs: 1, results: 3}
    torch.manual_seed(0)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # MONAI's own
        network = build_network(name, **arguments)
        side = SIDE.get(name, 32)
        spec = ModelSpec(
            name="m", architecture=name, arguments=arguments, axes="CYX", channels=1, classes=["background", "a", "b"], window=(side, side)
        )
    return network, spec


class AnyLoss(nn.Module):
    def forward(self, scores: torch.Tensor, drawn: Batch) -> torch.Tensor:
        return (scores - 1).square().mean()


def learnt(network: nn.Module, side: int) -> dict[str, torch.Tensor]:
    """Return the averaged weights after two steps of an epoch each."""

    def draw(number: int) -> Batch:
        image = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(number))
        labels = torch.zeros(2, side, side, dtype=torch.int64)
        return Batch(image, labels, torch.zeros(2, 0, side, side), torch.ones(2))

    options = FitOptions(steps=2, epoch_steps=1, warmup=0.0, schedule="constant", precision="float32", average=0.5, decay=0.1)
    *events, finished = fit(network, AnyLoss(), draw, options)
    assert sum(isinstance(event, Epoch) for event in events) == 2
    assert isinstance(finished, Finished)
    return finished.state


def copied(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def test_every_network_that_learns_from_labels_has_an_example() -> None:
    own = set(NETWORKS) - WITHOUT
    assert own <= set(ENCODERS) | set(CROSSED)
    assert set(ENCODERS) - {"monai.HyenaNDUNETR"} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_both_halves_are_there_and_the_head_is_not_frozen(name: str) -> None:
    network, spec = build(name)
    down = encoder_names(name, network)
    names = {key for key, weight in network.named_parameters() if weight.requires_grad}
    assert down
    assert names - down
    assert down <= {key for key, _ in network.named_parameters()}
    assert not down & result_weights(spec).keys()
    assert list(network.state_dict())[-1] not in down or name == "cellpose_unet", "what comes last leads up"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "encoder") for name in SMALL if name not in IMPORTED),
        *((name, "backbone") for name in ("residual_unet", "plain_conv_unet", "cellpose_unet", "monai.UNet", "monai.SwinUNETR")),
    ],
)
def test_what_is_frozen_stays_bit_by_bit_and_the_rest_learns(name: str, part: Any) -> None:
    network, spec = build(name)
    freeze(network, spec, part)
    kept = {key for key, weight in network.named_parameters() if not weight.requires_grad}
    before = copied(network)
    average = learnt(network, spec.window[0])
    after = network.state_dict()
    learning = {key for key, weight in network.named_parameters() if weight.grad is not None}
    assert learning
    assert not learning & kept
    for key in learning:
        assert not same(before[key], after[key]) or not network.get_parameter(key).grad.any(), key  # type: ignore[union-attr]
    assert sum(not same(before[key], after[key]) for key in learning) >= len(learning) / 2
    owners = {key.rpartition(".")[0] for key in kept}
    for key, value in before.items():
        if key in kept or (key.rpartition(".")[0] in owners and not key.rpartition(".")[0] == ""):
            assert same(value, after[key]), key
            assert same(value, average[key]), key


def test_a_frozen_part_is_used_as_it_will_be() -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, affine=False), nn.Dropout()), nn.Conv2d(2, 2, 1))
    network[0].requires_grad_(False)
    assert [module.training for module in set_learning(network.eval()).modules()] == [True, False, False, False, False, True]


def test_nothing_frozen_is_plain_training() -> None:
    network, spec = build("residual_unet")
    freeze(network, spec, "none")
    assert all(weight.requires_grad for weight in network.parameters())
    assert all(module.training for module in set_learning(network.eval()).modules())


@pytest.mark.parametrize("name", CROSSED)
def test_a_network_without_a_way_down_is_refused_but_its_head_can_learn(name: str) -> None:
    network, spec = build(name)
    with pytest.raises(OptionsError, match=f'Which part of the network "{name}" is its encoder is not known'):
        freeze(network, spec, "encoder")
    assert all(weight.requires_grad for weight in network.parameters())
    freeze(network, spec, "backbone")
    learning = {key for key, weight in network.named_parameters() if weight.requires_grad}
    assert learning
    assert learning <= result_weights(spec).keys()


def test_a_head_that_is_not_known_is_refused() -> None:
    network, spec = build("stardist_unet")
    with pytest.raises(OptionsError, match="make up its head is not known"):
        freeze(network, spec, "backbone")


def test_other_names_of_a_network_are_the_same_network() -> None:
    arguments = LEVELS | {"in_channels": 1, "out_channels": 2}
    assert encoder_names("monai.Unet", build_network("monai.Unet", **arguments)) == encoder_names(
        "monai.UNet", build_network("monai.UNet", **arguments)
    )


def test_a_new_network_has_nothing_to_freeze(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="A new network has learnt nothing yet"):
        train(config(tmp_path / "m", **folders(tmp_path), freeze="backbone"))
