"""This project's own networks: sizes, counts of parameters, and values that were computed independently."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import ModelError
from napari_tileseg.models.nets import build_network

PARAMETERS: list[tuple[str, dict[str, Any], int, int]] = [
    ("vnet2d", {"in_channels": 3, "out_channels": 1}, 9_007_777, 5_632),
    ("vnet2d", {"in_channels": 1, "out_channels": 1}, 9_006_977, 5_632),
    ("vnet2d", {"in_channels": 3, "out_channels": 2}, 9_007_794, 5_632),
    ("vnet2d", {"in_channels": 1, "out_channels": 2}, 9_006_994, 5_632),
    ("vnet2d", {"in_channels": 3, "out_channels": 1, "bias": False}, 9_004_961, 5_632),
    ("vnet2d_paper", {"norm": False}, 13_275_346, 0),
    ("vnet2d_paper", {}, 13_282_258, 6_912),
    ("vnet_paper", {"spatial_dims": 2}, 13_282_258, 6_912),
    ("unet2015", {}, 31_030_658, 0),
    ("unet2015", {"out_channels": 1}, 31_030_593, 0),
    ("unet2015", {"in_channels": 3, "out_channels": 1}, 31_031_745, 0),
    ("unet2015", {"in_channels": 3}, 31_031_810, 0),
    ("unet2015_same", {}, 31_030_658, 0),
    ("unet2015_same", {"norm": True}, 31_030_658 + 11_776, 11_776),
    ("autoencoder", {}, 219_891, 0),
    ("conv_autoencoder", {}, 5_729, 0),
    ("vae", {}, 652_824, 0),
    ("gan_discriminator", {}, 267_009, 0),
    ("gan_generator", {}, 1_952_528, 0),
    ("dcgan_discriminator", {}, 1_102_721, 0),
    ("dcgan_generator", {}, 6_675_009, 14_720),
    ("brau_net_pp", {"out_channels": 9, "legacy": True}, 62_629_248, 6_336),
    ("brau_net_pp", {"out_channels": 9}, 62_629_248, 6_336),
    ("brau_net_pp", {"out_channels": 1, "legacy": True}, 62_628_480, 6_336),
    ("brau_net_pp", {"out_channels": 9, "bottleneck": False}, 50_763_648, 6_336),
    ("brau_net_pp", {"out_channels": 1, "bottleneck": False}, 50_762_880, 6_336),
]

VALUES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], tuple[float, ...]]] = {
    "V-Net": (
        "vnet2d",
        {"in_channels": 3, "out_channels": 1},
        (1, 3, 64, 64),
        (28.91072025, 10.16694461, 8.66264922, 17.60934684, 9.27860285),
    ),
    "V-Net, rectangular": ("vnet2d", {}, (1, 1, 48, 80), (22.14083059, 6.57960123, 7.48010229, 7.48010229, 7.33623500)),
    "V-Net of the paper": ("vnet2d_paper", {}, (1, 1, 64, 64), (12.23511805, 5.66733807, 3.54882704, 3.54882704, 3.49207279)),
    "U-Net": ("unet2015", {}, (1, 1, 188, 188), (0.92783731, 0.00033883, 0.92755487, 0.92755487, 0.92758579)),
    "U-Net, larger": ("unet2015", {}, (1, 1, 204, 204), (1.04303250, 0.00633301, 1.04095852, 1.04095852, 1.05279157)),
    "AE": ("autoencoder", {}, (2, 784), (0.66399347, 0.01393765, 0.67793112, 0.65005581, 0.65005581)),
    "conv-AE": ("conv_autoencoder", {}, (2, 1, 28, 28), (0.88254814, 0.12636169, 0.60394222, 0.59795526, 0.59795526)),
    "VAE": ("vae", {}, (2, 784), (0.38003377, 0.02133183, 0.40136560, 0.35870194, 0.35870194)),
    "MLP D": ("gan_discriminator", {}, (2, 784), (0.30033553, 0.02494017, 0.32527570, 0.27539536, 0.27539536)),
    "MLP G": ("gan_generator", {}, (2, 96), (0.33267501, 0.13529969, 0.46797470, 0.19737532, 0.19737532)),
    "DCGAN D": ("dcgan_discriminator", {}, (2, 1, 28, 28), (0.49035225, 0.00182777, 0.48852448, 0.49218001, 0.49218001)),
    "DCGAN G": ("dcgan_generator", {}, (2, 96), (0.94930143, 0.10615440, 0.54234220, 0.29131124, 0.29131124)),
}  # fmt: skip
"""Mean, standard deviation, first, middle and last value of the result."""

CODES = {
    "AE": (0.40033553, 0.02494017, 0.42527570, 0.37539536, 0.37539536),
    "conv-AE": (0.39464410, 0.00468573, 0.39932983, 0.38995837, 0.38995837),
    "VAE": (0.20033553, 0.02494017, 0.22527570, 0.17539536, 0.17539536),
}

BRAU: dict[tuple[int, int, bool], tuple[float, ...]] = {
    (224, 9, True): (0.02038794, 1.04914352, -0.94927834, -0.55770675, 0.12537425),
    (256, 1, True): (0.01162320, 1.01304796, -1.42402368, 0.43295494, 0.14641268),
    (224, 9, False): (0.02180575, 1.04589819, -1.14298105, 1.56774592, 0.04041959),
    (256, 1, False): (0.10729193, 0.97961910, -1.08901285, 1.16111959, -0.01687136),
}
"""By side, classes and ``legacy``: mean, standard deviation, and the values at [0, 0], [100, 50] and the end of the last class."""


def simple_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Give every filter the same sum, so that values do not depend on names or order."""
    module = module.double().eval()
    for name, value in module.named_parameters():
        owner = module.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, torch.nn.PReLU):
            torch.nn.init.constant_(value, 0.25)
        elif isinstance(owner, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.constant_(value, float(name.endswith("weight")))
        elif name.endswith("bias"):
            torch.nn.init.constant_(value, 0.1)
        else:
            transposed = isinstance(owner, torch.nn.modules.conv._ConvTransposeNd)
            torch.nn.init.constant_(value, 1 / (value.shape[0] if transposed else value[0].numel()))
    return module


def waves(*shape: int) -> torch.Tensor:
    return torch.sin(0.1 * torch.arange(math.prod(shape), dtype=torch.float64)).reshape(shape)


def summary(values: torch.Tensor) -> list[float]:
    flat = values.flatten()
    return [float(value) for value in (flat.mean(), flat.std(correction=0), flat[0], flat[len(flat) // 2], flat[-1])]


def numbered_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Give every weight a value made of its name and its number."""
    module = module.double().eval()
    for name, value in module.state_dict().items():
        count = torch.arange(value.numel(), dtype=torch.float64)
        if name.endswith(("running_mean", "num_batches_tracked")):
            value.zero_()
        elif name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            value.fill_(1)
        elif name.endswith("bias"):
            value.copy_((0.02 * torch.cos(0.9 * count + len(name))).reshape(value.shape))
        else:
            scale = 1.5 / math.sqrt(value[0].numel())
            value.copy_((scale * torch.sin(0.7 * count**1.1 + len(name))).reshape(value.shape))
    return module


def slopes(side: int) -> torch.Tensor:
    down = torch.arange(side, dtype=torch.float64)[:, None]
    across = down.T
    planes = [torch.sin(0.05 * down + 0.03 * across + c) + 0.5 * torch.cos(0.11 * down * (1 + c) - 0.07 * across) for c in range(3)]
    return torch.stack(planes)[None]


@pytest.mark.parametrize(("name", "arguments", "count", "statistics"), PARAMETERS)
def test_counts_of_parameters(name: str, arguments: dict[str, Any], count: int, statistics: int) -> None:
    with torch.device("meta"):
        module = build_network(name, **arguments)
    assert sum(value.numel() for value in module.parameters() if value.requires_grad) == count
    assert sum(value.numel() for key, value in module.named_buffers() if "running" in key) == statistics


@given(channels=st.integers(1, 4), height=st.integers(4, 12), width=st.integers(4, 12))
@settings(max_examples=10, deadline=None)
def test_counts_of_parameters_follow_from_the_size(channels: int, height: int, width: int) -> None:
    size, pixels = (4 * height, 4 * width), channels * 16 * height * width
    with torch.device("meta"):
        found = {
            name: sum(value.numel() for value in build_network(name, size=size, **{side: channels}).parameters())
            for name, side in (
                ("autoencoder", "in_channels"),
                ("vae", "in_channels"),
                ("gan_discriminator", "in_channels"),
                ("gan_generator", "out_channels"),
            )
        }
    assert found == {
        "autoencoder": 257 * pixels + 18_403,
        "vae": 801 * pixels + 24_840,
        "gan_discriminator": 256 * pixels + 66_305,
        "gan_generator": 1_025 * pixels + 1_148_928,
    }


@pytest.mark.parametrize("case", VALUES)
@torch.no_grad()
def test_values_are_those_computed_independently(case: str) -> None:
    name, arguments, shape, expected = VALUES[case]
    module, batch = simple_weights(build_network(name, **arguments)), waves(*shape)
    # The references have eight decimals.
    assert summary(module(batch)) == pytest.approx(expected, rel=1e-6, abs=6e-9)
    if case in CODES:
        code = module.encode(batch)
        for part in code if isinstance(code, tuple) else (code,):
            assert summary(part) == pytest.approx(CODES[case], rel=1e-6, abs=6e-9)


@pytest.mark.parametrize(
    ("side", "classes", "legacy"),
    [key if key == (224, 9, True) else pytest.param(*key, marks=pytest.mark.slow) for key in BRAU],
)
@torch.no_grad()
def test_values_of_brau_net_are_those_of_the_official_program(side: int, classes: int, legacy: bool) -> None:
    module = numbered_weights(build_network("brau_net_pp", out_channels=classes, legacy=legacy))
    scores = module(slopes(side))
    assert scores.shape == (1, classes, side, side)
    found = [scores.mean(), scores.std(correction=0), scores[0, 0, 0, 0], scores[0, 0, 100, 50], scores[0, -1, -1, -1]]
    assert [float(value) for value in found] == pytest.approx(BRAU[side, classes, legacy], rel=1e-6, abs=6e-9)


@given(k=st.tuples(st.integers(11, 16), st.integers(11, 16)), levels=st.integers(2, 5), dims=st.sampled_from([2, 2, 3]))
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_valid_convolutions_lose_the_same_border_everywhere(k: tuple[int, int], levels: int, dims: int) -> None:
    levels = min(levels, 3) if dims == 3 else levels
    step = 2 ** (levels - 1)
    lost = 6 * step - 4
    sides = [2 * lost + 4 + step * (number - 11) for number in k] + [2 * lost + 4] * (dims - 2)
    network = build_network("unet2015", features=(1, 1, 1, 1, 1)[:levels], spatial_dims=dims)
    assert network(torch.zeros(1, 1, *sides)).shape[2:] == tuple(side - 2 * lost for side in sides)
    if levels == 5:
        assert [side % 16 for side in sides] == [12, 12]


@pytest.mark.parametrize(
    ("name", "arguments", "sides", "first"),
    [
        ("unet2015", {"features": (1, 1, 1, 1, 1)}, (188, 187), "188, 204, 220"),
        ("unet2015", {"features": (1, 1, 1, 1, 1)}, (172, 188), "188, 204, 220"),
        ("unet2015_same", {"features": (1, 1, 1, 1, 1)}, (24, 32), "16, 32, 48"),
        ("vnet2d", {"features": 1}, (40, 32), "16, 32, 48"),
        ("vnet2d_paper", {}, (16, 8), "16, 32, 48"),
        ("brau_net_pp", {"width": 32, "depths": (1, 1, 1, 1)}, (64, 48), "32, 64, 96"),
    ],
)
def test_sides_that_do_not_fit_are_answered_with_those_that_do(
    name: str, arguments: dict[str, Any], sides: tuple[int, int], first: str
) -> None:
    network = build_network(name, **arguments)
    with pytest.raises(ModelError, match=f"{sides[0]} x {sides[1]} .* takes sides of {first}"):
        network(torch.zeros(1, network_channels(arguments, name), *sides))


def network_channels(arguments: dict[str, Any], name: str) -> int:
    return int(arguments.get("in_channels", 3 if name == "brau_net_pp" else 1))


@given(blocks=st.tuples(st.integers(1, 3), st.integers(1, 3)), channels=st.integers(1, 5), classes=st.integers(1, 3))
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_scores_have_the_size_of_the_image(blocks: tuple[int, int], channels: int, classes: int) -> None:
    io = {"in_channels": channels, "out_channels": classes}
    for name, step, small in (
        ("unet2015_same", 16, {"features": (2, 2, 2, 2, 2)}),
        ("vnet2d", 16, {"features": 2}),
        ("vnet2d", 4, {"features": 2, "stages": 3}),
        ("vnet2d_paper", 16, {}),
        ("brau_net_pp", 32, {"width": 32, "depths": (1, 1, 1, 1)}),
        ("brau_net_pp", 32, {"width": 32, "depths": (1, 1, 1, 1), "regions": 3, "legacy": True}),
    ):
        size = [step * block for block in blocks]
        scores = build_network(name, **io, **small).eval()(torch.rand(1, channels, *size))
        assert scores.shape == (1, classes, *size), name
        assert torch.isfinite(scores).all()


@torch.no_grad()
def test_the_v_net_of_the_paper_takes_volumes() -> None:
    network = build_network("vnet_paper").eval()
    assert network(torch.rand(1, 1, 16, 32, 16)).shape == (1, 2, 16, 32, 16)
    assert sum(value.numel() for value in network.parameters()) == 65_182_226


@torch.no_grad()
def test_an_image_of_one_channel_is_repeated_for_brau_net() -> None:
    network = build_network("brau_net_pp", width=32, depths=(1, 1, 1, 1)).eval()
    image = torch.rand(1, 1, 32, 64)
    assert torch.equal(network(image), network(image.repeat(1, 3, 1, 1)))


@torch.no_grad()
def test_regions_counted_as_in_the_paper_are_those_of_the_default() -> None:
    torch.manual_seed(0)
    network = build_network("brau_net_pp", width=32, depths=(1, 1, 1, 1), regions=4).double().eval()
    same = build_network("brau_net_pp", width=32, depths=(1, 1, 1, 1)).double().eval()
    same.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 128, 128, dtype=torch.float64)
    assert torch.allclose(network(image), same(image), rtol=0, atol=1e-12)


def test_the_lowest_blocks_of_the_official_program_are_never_used() -> None:
    for legacy in (True, False):
        network = build_network("brau_net_pp", width=32, depths=(1, 1, 1, 1), legacy=legacy)
        network(torch.rand(2, 3, 32, 32)).sum().backward()
        unused = [name for name, value in network.named_parameters() if value.grad is None]
        assert bool(unused) == legacy
        assert all(name.startswith("stages.3.") for name in unused)


@given(height=st.integers(1, 60), width=st.integers(1, 60))
@settings(max_examples=20, deadline=None)
@torch.no_grad()
def test_a_convolutional_autoencoder_takes_any_size(height: int, width: int) -> None:
    network = build_network("conv_autoencoder", in_channels=2)
    assert network(torch.rand(1, 2, height, width)).shape == (1, 2, height, width)


@given(channels=st.integers(1, 3), height=st.integers(4, 10), width=st.integers(4, 10))
@settings(max_examples=8, deadline=None)
@torch.no_grad()
def test_images_of_any_size_are_made_and_told_apart(channels: int, height: int, width: int) -> None:
    size = (4 * height, 4 * width)
    for kind in ("gan", "dcgan"):
        generator = build_network(f"{kind}_generator", out_channels=channels, size=size, noise=5).eval()
        discriminator = build_network(f"{kind}_discriminator", in_channels=channels, size=size).eval()
        images = generator(torch.rand(2, 5))
        assert images.shape == (2, channels, *size)
        assert images.abs().max() <= 1
        assert discriminator(images).shape == (2, 1)
        assert discriminator.head(discriminator.features(images)).equal(discriminator(images))


@pytest.mark.parametrize("name", ["autoencoder", "conv_autoencoder", "vae"])
@torch.no_grad()
def test_an_autoencoder_brings_images_back_in_their_shape(name: str) -> None:
    images = torch.rand(3, 1, 28, 28)
    network = build_network(name).eval()
    assert network(images).shape == images.shape
    assert network(images).equal(network(images))


@torch.no_grad()
def test_a_variational_autoencoder_draws_in_training_alone() -> None:
    network, images = build_network("vae"), torch.rand(3, 1, 28, 28)
    assert not network.train()(images).equal(network(images))
    mean, log_variance = network.encode(images)
    drawn = torch.stack([network.draw(mean, log_variance) for _ in range(2000)])
    assert torch.allclose(drawn.mean(0), mean, atol=0.2)
    assert torch.allclose(drawn.std(0), (log_variance / 2).exp(), atol=0.2)


@torch.no_grad()
def test_every_layer_is_left_out_for_a_share_of_the_images() -> None:
    from napari_tileseg.models.nets.layers import DropPath

    torch.manual_seed(0)
    path, ones = DropPath(0.25), torch.ones(4000, 1, 1)
    assert path.eval()(ones).equal(ones)
    dropped = path.train()(ones)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unet2015", {"features": (4,)}),
        ("unet2015", {"padding": "reflect"}),
        ("vnet2d", {"stages": 1}),
        ("vnet_paper", {"in_channels": 17}),
        ("brau_net_pp", {"width": 40}),
        ("dcgan_generator", {"size": (30, 28)}),
        ("dcgan_discriminator", {"size": (12, 28)}),
    ],
)
def test_arguments_that_no_network_has_are_a_sentence(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f'"{name}" cannot be built with {next(iter(arguments))}='):
        build_network(name, **arguments)
