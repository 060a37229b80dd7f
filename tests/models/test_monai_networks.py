"""MONAI's segmentation networks by name: each is built, answers with scores at full size, and is recognised from its weights."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from napari_tileseg.errors import ModelError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.nets.recognize import recognize
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment

IO: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3}
FEATURES = [4, 4, 8, 8, 16, 4]
DYN = {
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [4, 8, 16],
    "norm_name": ["INSTANCE", {"affine": True}],
}
SEG = {"init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}
NEXT = {"init_filters": 4, "kernel_size": 3, "blocks_down": [1, 1, 1, 1], "blocks_up": [1, 1, 1, 1], "blocks_bottleneck": 1}
LAYERS = (
    {"name": "conv_0", "n_features": 4, "kernel_size": 3},
    {"name": "res_1", "n_features": 4, "kernels": (3, 3), "repeat": 1},
    {"name": "conv_1", "n_features": 8, "kernel_size": 1},
    {"name": "conv_2", "kernel_size": 1},
)
UNETR = {"img_size": [32, 32], "feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 2}
DINTS = {
    "arch_code": [[[1] * 4] * 4, [[1] * 4] * 4],
    "in_channels": 1,
    "num_classes": 3,
    "channel_mul": 0.1,
    "num_blocks": 4,
    "num_depths": 2,
    "spatial_dims": 2,
}

NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "UNet": ("UNet", {**IO, "channels": [4, 8, 8], "strides": [2, 2], "num_res_units": 1}, 32),
    "UNet, plain": ("UNet", {**IO, "channels": [4, 8, 8], "strides": [2, 2], "norm": "batch", "act": "RELU"}, 32),
    "BasicUNet": ("BasicUNet", {**IO, "features": FEATURES}, 32),
    "BasicUNetPlusPlus": ("BasicUNetPlusPlus", {**IO, "features": FEATURES}, 32),
    "BasicUNetPlusPlus, supervised": ("BasicUNetPlusPlus", {**IO, "features": FEATURES, "deep_supervision": True}, 32),
    "DynUNet": ("DynUNet", {**IO, **DYN}, 32),
    "DynUNet, supervised": ("DynUNet", {**IO, **DYN, "deep_supervision": True, "deep_supr_num": 1, "res_block": True}, 32),
    "SegResNet": ("SegResNet", {**IO, **SEG}, 32),
    "SegResNetDS": ("SegResNetDS", {**IO, **SEG, "dsdepth": 2}, 32),
    "SegResNetVAE": ("SegResNetVAE", {**IO, **SEG, "input_image_size": [32, 32], "vae_nz": 4}, 32),
    "UNETR": ("UNETR", {**IO, **UNETR}, 32),
    "SwinUNETR": ("SwinUNETR", {**IO, "feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 3}, 64),
    "VNet": ("VNet", IO, 32),
    "AttentionUnet": ("AttentionUnet", {**IO, "channels": [4, 8, 8], "strides": [2, 2]}, 32),
    "HighResNet": ("HighResNet", {**IO, "layer_params": LAYERS}, 16),
    "AHNet": ("AHNet", {**IO, "layers": [1, 1, 1, 1], "psp_block_num": 0}, 64),
    "FlexibleUNet": ("FlexibleUNet", {**IO, "backbone": "efficientnet-b0"}, 32),
    "MedNeXt": ("MedNeXt", {**IO, **NEXT}, 32),
    "MedNeXt, supervised": ("MedNeXt", {**IO, **NEXT, "deep_supervision": True}, 32),
    "DiNTS": ("DiNTS", DINTS, 32),
}
RECOGNISED = (
    "UNet", "UNet, plain", "BasicUNet", "BasicUNetPlusPlus", "DynUNet", "DynUNet, supervised", "SegResNet", "SegResNetDS", "UNETR",
    "SwinUNETR", "VNet", "AttentionUnet",
)  # fmt: skip


def build(case: str) -> torch.nn.Module:
    name, arguments, _ = NETWORKS[case]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own
        return build_network(f"monai.{name}", **arguments)


@pytest.mark.parametrize("case", NETWORKS)
def test_a_network_of_monai_gives_scores_at_full_size(case: str) -> None:
    module, side = build(case).eval(), NETWORKS[case][2]
    with torch.inference_mode():
        scores = module(torch.rand(2, 1, side, side))
    assert isinstance(scores, torch.Tensor)
    assert scores.shape == (2, 3, side, side)


@pytest.mark.parametrize("case", ["BasicUNetPlusPlus, supervised", "SegResNetDS", "SegResNetVAE", "DynUNet, supervised"])
def test_networks_with_several_results_run_on_the_engine(case: str) -> None:
    side = NETWORKS[case][2]
    spec = ModelSpec(name="monai", axes="CYX", channels=1, classes=["background", "a", "b"], window=(side, side))
    image = np.random.default_rng(0).random((40, 50), np.float32)
    result = segment(image, from_module(build(case), spec, device="cpu"), axes="YX", options=SegmentOptions(device="cpu"))
    assert result.labels.shape == image.shape


@pytest.mark.parametrize("training", [True, False])
def test_the_same_result_is_taken_while_a_network_is_trained(training: bool) -> None:
    for case in ("DynUNet, supervised", "SegResNetDS", "SegResNetVAE"):
        assert build(case).train(training)(torch.rand(2, 1, 32, 32)).shape == (2, 3, 32, 32)


def test_the_last_and_most_complete_answer_of_unet_plus_plus_is_taken() -> None:
    module = build("BasicUNetPlusPlus, supervised").eval()
    batch = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(module(batch), module.forward(batch)[-1])
        assert not torch.equal(module(batch), module.forward(batch)[0])


@pytest.mark.parametrize("case", RECOGNISED)
def test_a_network_is_recognised_from_its_weights(case: str) -> None:
    name, arguments, _ = NETWORKS[case]
    module = build(case)
    match = recognize({f"module.{key}": value for key, value in module.state_dict().items()})
    assert match is not None
    assert match.architecture == f"monai.{name}"
    assert match.spatial_dims == 2
    assert match.arguments["in_channels"] == 1
    assert match.arguments["out_channels"] == 3
    for key in ("channels", "features", "filters", "blocks_down", "depths", "hidden_size"):
        if key in arguments:
            assert np.array_equal(match.arguments[key], arguments[key]), key
    again = build_network(match.architecture, **match.arguments)
    again.load_state_dict(module.state_dict())
    if not set(match.assumed) - {"act", "act_name", "strides", "norm", "normalize", "downsample", "resolution", "deep_supervision"}:
        side = match.multiple_of * 2
        batch = torch.rand(1, 1, side, side)
        with torch.inference_mode():
            assert torch.equal(again.eval()(batch), module.eval()(batch))


def test_our_own_network_is_recognised() -> None:
    arguments = {"spatial_dims": 3, "in_channels": 2, "out_channels": 4, "channels": [4, 6], "stem_channels": 4}
    match = recognize(build_network("residual_unet", **arguments).state_dict())
    assert match is not None
    assert (match.architecture, match.arguments, match.multiple_of) == ("residual_unet", arguments, 4)


def test_other_weights_are_not_taken_for_a_network() -> None:
    assert recognize({"layer.weight": torch.zeros(3, 1, 3, 3), "layer.bias": torch.zeros(3)}) is None
    state = build("UNet").state_dict()
    state["head.weight"] = torch.zeros(2)
    assert recognize(state) is None


@pytest.mark.slow
def test_vista3d_answers_for_the_classes_that_are_asked_for() -> None:
    module = build_network("monai.VISTA3D", classes=[1, 3], encoder_embed_dim=8).eval()
    with torch.inference_mode():
        assert module(torch.rand(2, 1, 32, 32, 32)).shape == (2, 2, 32, 32, 32)


def test_wrong_arguments_are_a_sentence() -> None:
    with pytest.raises(ModelError, match=r'"monai.UNet" cannot be built with spatial_dims=2: .*missing'):
        build_network("monai.UNet", spatial_dims=2)
