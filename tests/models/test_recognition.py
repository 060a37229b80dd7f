"""Networks known again from their weights alone: the same scores, or, where weights do not tell, the user is asked."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_tileseg.errors import WeightsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.imports import import_model
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.nets.recognize import recognize
from napari_tileseg.models.nets.transfer import load_matching
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from pathlib import Path

IO: dict[str, Any] = {"in_channels": 2, "out_channels": 3}
SMALL = {"width": 32, "depths": (1, 1, 2, 1)}
HIGH = [
    {"name": "conv_0", "n_features": 4, "kernel_size": 3},
    {"name": "res_1", "n_features": 4, "kernels": [3, 3], "repeat": 2},
    {"name": "res_2", "n_features": 6, "kernels": [3, 1], "repeat": 1},
    {"name": "conv_1", "n_features": 8, "kernel_size": 1},
    {"name": "conv_2", "kernel_size": 1},
]
NEXT = {"init_filters": 4, "kernel_size": 3, "blocks_down": [1, 2], "blocks_up": [1, 1], "blocks_bottleneck": 2}
SEG = {"init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}
FLEX = {"decoder_channels": [16, 8, 8, 4, 4]}
CODES = {
    "2D": [[[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1]], [[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]]],
    "3D": [[[1, 1, 1, 1], [1, 0, 1, 1]], [[1, 2, 3, 4], [4, 0, 0, 1]]],
}
DINTS = {"in_channels": 2, "num_classes": 3, "channel_mul": 0.1, "num_depths": 2}

CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "U-Net 2015": ("unet2015", {**IO, "features": [2, 3, 4]}, (52, 60)),
    "U-Net 2015, 3D, normalised": ("unet2015", {**IO, "features": [2, 3], "norm": True, "spatial_dims": 3}, (28, 28, 30)),
    "V-Net": ("vnet2d", {**IO, "features": 3}, (32, 48)),
    "V-Net, shallow, without bias": ("vnet2d", {**IO, "features": 3, "stages": 3, "bias": False}, (32, 48)),
    "V-Net of the paper": ("vnet_paper", {**IO}, (16, 16, 32)),
    "V-Net of the paper, 2D, not normalised": ("vnet_paper", {**IO, "spatial_dims": 2, "norm": False}, (32, 48)),
    "BRAU-Net++": ("brau_net_pp", {**IO, **SMALL, "legacy": True}, (64, 32)),
    "BRAU-Net++ without its lowest blocks": ("brau_net_pp", {**IO, **SMALL, "legacy": True, "bottleneck": False}, (64, 32)),
    "SegResNetVAE": ("monai.SegResNetVAE", {**IO, **SEG, "spatial_dims": 2, "input_image_size": [32, 32], "vae_nz": 4}, (32, 32)),
    "SegResNetVAE, oblong": ("monai.SegResNetVAE", {**IO, **SEG, "spatial_dims": 2, "input_image_size": [32, 64]}, (32, 64)),
    "HighResNet": ("monai.HighResNet", {**IO, "spatial_dims": 2, "layer_params": HIGH}, (20, 24)),
    "HighResNet, projected": (
        "monai.HighResNet",
        {**IO, "spatial_dims": 2, "layer_params": HIGH, "channel_matching": "project", "bias": True, "norm_type": "instance"},
        (20, 24),
    ),
    "AHNet": ("monai.AHNet", {**IO, "spatial_dims": 2, "layers": [1, 2, 1, 1], "psp_block_num": 2}, (64, 64)),
    "FlexibleUNet, EfficientNet": ("monai.FlexibleUNet", {**IO, **FLEX, "backbone": "efficientnet-b1"}, (32, 64)),
    "FlexibleUNet, ResNet": ("monai.FlexibleUNet", {**IO, **FLEX, "backbone": "resnet18", "upsample": "deconv"}, (32, 64)),
    "FlexibleUNet, bottlenecks": ("monai.FlexibleUNet", {**IO, **FLEX, "backbone": "resnet50", "decoder_bias": True}, (32, 64)),
    "MedNeXt": ("monai.MedNeXt", {**IO, **NEXT, "spatial_dims": 2, "encoder_expansion_ratio": [2, 3]}, (32, 32)),
    "MedNeXt, residual": (
        "monai.MedNeXt",
        {**IO, **NEXT, "use_residual_connection": True, "global_resp_norm": True, "deep_supervision": True},
        (16, 16, 16),
    ),
    "DiNTS": ("monai.DiNTS", {**DINTS, "arch_code": CODES["2D"], "num_blocks": 3, "spatial_dims": 2}, (32, 32)),
    "DiNTS, 3D": ("monai.DiNTS", {**DINTS, "arch_code": CODES["3D"], "num_blocks": 2, "use_downsample": False}, (16, 16, 16)),
    "VISTA3D": ("monai.VISTA3D", {"classes": [3, 7], "encoder_embed_dim": 8}, (32, 32, 32)),
}
ASKED = {
    "U-Net 2015": "padding",
    "U-Net 2015, 3D, normalised": "padding",
    "BRAU-Net++": "legacy",
    "HighResNet": "layer_params",
    "DiNTS": "arch_code",
    "VISTA3D": "classes",
}


def build(case: str) -> torch.nn.Module:
    name, arguments, _ = CASES[case]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own
        module = build_network(name, **arguments)
    for value in module.state_dict().values():  # normalisations that do nothing would hide a wrong one
        if value.is_floating_point() and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    return module.eval()


LARGE = ("V-Net of the paper",)


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) if case in LARGE else case for case in CASES])
def test_a_network_is_known_again_by_its_weights(case: str) -> None:
    name, arguments, sides = CASES[case]
    module = build(case)
    match = recognize({f"module.{key}": value for key, value in module.state_dict().items()})
    assert match is not None
    assert match.architecture == name
    assert match.spatial_dims == len(sides)
    told = {"classes": arguments["classes"]} if "classes" in arguments else {}
    match = match.told(told)
    assert match.scores == (2 if told else 3)
    assert json.loads(json.dumps(match.arguments))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = build_network(match.architecture, **match.arguments).eval()
    again.load_state_dict(module.state_dict())
    batch = torch.rand(1, arguments.get("in_channels", 1), *sides)
    with torch.inference_mode():
        assert torch.equal(again(batch), module(batch))


@pytest.mark.parametrize(("case", "argument"), ASKED.items())
def test_what_weights_do_not_tell_is_said_to_be_assumed(case: str, argument: str) -> None:
    match = recognize(build(case).state_dict())
    assert match is not None
    assert argument in match.assumed
    assert argument not in match.told({argument: CASES[case][1].get(argument, True)}).assumed


@pytest.mark.parametrize(("case", "name"), [("U-Net 2015", "unet2015_same"), ("V-Net of the paper, 2D, not normalised", "vnet2d_paper")])
def test_a_network_of_two_names_goes_by_the_one_that_is_given(case: str, name: str) -> None:
    match = recognize(build(case).state_dict(), name)
    assert match is not None
    assert (match.architecture, match.spatial_dims, match.assumed) == (name, 2, ())
    build_network(name, **match.arguments).load_state_dict(build(case).state_dict())


def test_a_path_without_weights_is_open_where_the_next_cell_needs_it() -> None:
    """Both paths of the first block keep what they are given, and have no weights; without them the second would have no input."""
    codes = [[[1, 0, 0, 1], [1, 0, 0, 1]], [[0, 0, 0, 0], [1, 0, 0, 1]]]
    module = build_network("monai.DiNTS", **{**DINTS, "arch_code": codes, "num_blocks": 2, "spatial_dims": 2})
    match = recognize(module.state_dict())
    assert match is not None
    assert match.arguments["arch_code"] == codes
    assert not match.assumed


def save_official(module: torch.nn.Module, path: Path, prefix: str) -> Path:
    torch.save({f"{prefix}{name}": value for name, value in module.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "bra_unet.", "module.bra_unet."])
@pytest.mark.parametrize("named", [False, True])
def test_official_checkpoints_of_brau_net_open(prefix: str, named: bool, tmp_path: Path) -> None:
    module = build("BRAU-Net++")
    path = save_official(module, tmp_path / "epoch_199.pth", prefix)
    ref = f"checkpoint:{path}" + ("?architecture=brau_net_pp" if named else "")
    predictor = load_model(ref, device="cpu")
    assert predictor.spec.architecture == "brau_net_pp"
    assert predictor.spec.arguments["legacy"] is True
    assert (predictor.spec.multiple_of, predictor.spec.padding, len(predictor.spec.classes)) == (32, "reflect", 3)
    assert "arguments" in predictor.spec.unknown
    batch = torch.rand(1, 2, 64, 96)
    with torch.inference_mode():
        assert torch.equal(predictor(batch), module(batch))


def test_the_official_checkpoint_has_524_entries_that_all_load() -> None:
    with torch.device("meta"):
        module = build_network("brau_net_pp", out_channels=9, legacy=True).to("meta")
    state = {f"module.bra_unet.{name}": value for name, value in module.state_dict().items()}
    assert len(state) == 524
    match = recognize(state)
    assert match is not None
    assert match.arguments == {
        "in_channels": 3,
        "out_channels": 9,
        "legacy": True,
        "bottleneck": True,
        "width": 96,
        "depths": [2, 2, 8, 2],
    }
    fit = load_matching(module, state)
    assert fit.exact


@pytest.mark.filterwarnings("ignore:for .*copying")  # torch makes counters that are missing, on the CPU
def test_the_encoder_of_a_biformer_is_taken_over() -> None:
    """BiFormer-B has the same stages, some of them deeper, and a head for a thousand classes."""
    with torch.device("meta"):
        module = build_network("brau_net_pp", out_channels=9).to("meta")
        deeper = build_network("brau_net_pp", depths=(4, 4, 18, 4)).to("meta")
    encoder = {name: value for name, value in deeper.state_dict().items() if name.startswith(("downsample_layers.", "stages."))}
    state = {**encoder, **{f"norm.{name}": torch.empty(768) for name in ("weight", "bias")}, "head.weight": torch.empty(1000, 768)}
    names = module.state_dict()
    shared = [name for name, value in state.items() if name in names and names[name].shape == value.shape]
    assert (len(names), len(shared)) == (524, 257)
    assert (
        sum(names[name].numel() for name in shared if not name.endswith(("running_mean", "running_var", "batches_tracked"))) == 28_289_664
    )
    fit = load_matching(module, state)
    counters = sum(name.endswith("num_batches_tracked") for name in names if name not in shared)
    assert len(fit.missing) + counters == 524 - 257
    assert len(fit.unexpected) == 254 + 3
    assert not fit.shapes


def test_what_agrees_is_copied_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    source, target = (build_network("unet2015_same", features=(2, 3), out_channels=classes) for classes in (2, 5))
    head = target.head.weight.clone()
    fit = load_matching(target, {f"module.{name}": value for name, value in source.state_dict().items()})
    assert [name for name, _, _ in fit.shapes] == ["head.bias", "head.weight"]
    assert torch.equal(target.head.weight, head)
    assert torch.equal(target.downs[0][0].weight, source.downs[0][0].weight)


def test_one_argument_that_is_said_completes_what_was_recognised(tmp_path: Path) -> None:
    module = build("BRAU-Net++")
    path = save_official(module, tmp_path / "own.pth", "")
    ref = f'checkpoint:{path}?architecture=brau_net_pp&arguments={{"legacy":false,"regions":2}}'
    predictor = load_model(ref, device="cpu")
    assert predictor.spec.arguments["legacy"] is False
    assert predictor.spec.arguments["depths"] == [1, 1, 2, 1]
    batch = torch.rand(1, 2, 64, 96)
    expected = build_network("brau_net_pp", **{**IO, **SMALL, "regions": 2}).eval()
    expected.load_state_dict(module.state_dict())
    with torch.inference_mode():
        assert torch.allclose(predictor(batch), expected(batch), atol=1e-5)
        assert not torch.equal(predictor(batch), module(batch))


@pytest.mark.parametrize("said", [{}, {"padding": "same"}])
def test_a_checkpoint_of_the_u_net_segments(said: dict[str, str], tmp_path: Path) -> None:
    module = build_network("unet2015", in_channels=1, out_channels=3, features=[2, 3, 4])
    path = tmp_path / "unet.safetensors"
    save_file({f"net.{name}": value for name, value in module.state_dict().items()}, path)
    options = f"?architecture=unet2015&arguments={json.dumps(said)}" if said else ""
    spec = find_spec(f"checkpoint:{path}{options}")
    assert spec.output_offset == (None if said else (20, 20))
    assert (spec.multiple_of, spec.remainder, spec.steps) == ((4, 0, "fixed") if said else (4, 0, "aligned"))
    image = np.random.default_rng(0).random((70, 90), np.float32)
    labels = segment(image, f"checkpoint:{path}{options}", axes="YX", options=SegmentOptions(device="cpu")).labels
    assert labels.shape == image.shape


def test_weights_that_do_not_fit_the_named_network_are_listed(tmp_path: Path) -> None:
    path = save_official(build("V-Net"), tmp_path / "vnet.pth", "")
    with pytest.raises(WeightsError, match=r"do not fit brau_net_pp: .* missing"):
        find_spec(f"checkpoint:{path}?architecture=brau_net_pp")


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("link", [False, True])
def test_an_imported_network_keeps_what_was_said_and_what_was_recognised(link: bool, tmp_path: Path) -> None:
    module = build_network("unet2015_same", features=[2, 3, 4], norm=True).eval()
    path = tmp_path / "unet.pth"
    torch.save({"state_dict": module.state_dict()}, path)
    import_model(str(path), {"architecture": "unet2015", "arguments": {"padding": "same"}}, name="mine", link=link)
    predictor = load_model("mine", device="cpu")
    assert predictor.spec.arguments["padding"] == "same"
    assert predictor.spec.arguments["features"] == [2, 3, 4]
    assert predictor.spec.arguments["norm"] is True
    assert "arguments" not in predictor.spec.unknown
    batch = torch.rand(1, 1, 32, 40)
    with torch.inference_mode():
        assert torch.allclose(predictor(batch), module(batch), atol=1e-6)


def test_what_is_said_beside_the_file_is_completed_too(tmp_path: Path) -> None:
    path = save_official(build("BRAU-Net++"), tmp_path / "net.pth", "")
    beside = {"architecture": "brau_net_pp", "arguments": {"legacy": False}, "classes": ["ground", "a", "b"]}
    (tmp_path / "net.tileseg.json").write_text(json.dumps(beside))
    spec = find_spec(f"checkpoint:{path}")
    assert spec.arguments["legacy"] is False
    assert spec.arguments["depths"] == [1, 1, 2, 1]
    assert spec.classes == ["ground", "a", "b"]
    assert "arguments" in spec.unknown  # nobody has said the regions


def test_a_grey_image_is_enough_for_three_channels(tmp_path: Path) -> None:
    module = build_network("brau_net_pp", **SMALL, out_channels=1)
    path = save_official(module, tmp_path / "net.pth", "")
    image = np.random.default_rng(0).random((40, 50), np.float32)
    labels = segment(image, f"checkpoint:{path}", axes="YX", options=SegmentOptions(device="cpu", window=(64, 64))).labels
    assert labels.shape[-2:] == image.shape
