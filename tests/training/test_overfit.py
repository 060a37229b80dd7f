"""Every network of this project learns: one image by heart, or one batch of images half as badly as at first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_tileseg.models.nets import build_network
from napari_tileseg.training.losses import soft_dice

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SEGMENT: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "U-Net 2015": ("unet2015", {"features": (8, 16, 32, 64, 128)}, (252, 252)),
    "U-Net, padded": ("unet2015_same", {"features": (8, 16, 32, 64, 128)}, (96, 96)),
    "U-Net, padded and normalised": ("unet2015_same", {"features": (8, 16, 32, 64, 128), "norm": True}, (96, 96)),
    "V-Net": ("vnet2d", {}, (96, 96)),
    "V-Net of the paper, 2D": ("vnet2d_paper", {}, (96, 96)),
    "V-Net of the paper, 2D, not normalised": ("vnet2d_paper", {"norm": False}, (64, 64)),
    "V-Net of the paper, 3D": ("vnet_paper", {}, (32, 32, 32)),
    "BRAU-Net++": ("brau_net_pp", {"drop_path": 0.0}, (96, 96)),
    "BRAU-Net++ as published": ("brau_net_pp", {"legacy": True, "width": 32, "drop_path": 0.0}, (96, 96)),
    "residual U-Net": ("residual_unet", {"channels": (16, 24, 32), "stem_channels": 8}, (96, 96)),
    "UNet of MONAI": ("monai.UNet", {"spatial_dims": 2, "channels": (16, 32, 64), "strides": (2, 2), "num_res_units": 2}, (96, 96)),
    "SegResNet of MONAI": ("monai.SegResNet", {"spatial_dims": 2, "init_filters": 8}, (96, 96)),
    "residual U-Net, 3D": ("residual_unet", {"spatial_dims": 3, "channels": (12, 16, 24), "stem_channels": 8}, (32, 32, 32)),
    "UNet of MONAI, 3D": (
        "monai.UNet",
        {"spatial_dims": 3, "channels": (16, 32, 64), "strides": (2, 2), "num_res_units": 2},
        (32, 32, 32),
    ),
    "SegResNet of MONAI, 3D": ("monai.SegResNet", {"spatial_dims": 3, "init_filters": 8}, (32, 32, 32)),
}


def objects(sides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return an image of bright balls on noise (1, 1, *sides), and where they are, as 0 and 1 (1, *sides)."""
    numbers = np.random.default_rng(3)
    grid = np.indices(sides)
    inside = np.zeros(sides, bool)
    for _ in range(12):
        centre = [numbers.integers(0, side) for side in sides]
        radius = numbers.uniform(0.06, 0.14) * max(sides) * len(sides) / 2
        inside |= sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)) < radius**2
    image = inside + numbers.normal(0, 0.4, sides)
    return torch.from_numpy(image[None, None].astype(np.float32)), torch.from_numpy(inside[None].astype(np.int64))


def textures(count: int) -> Tensor:
    numbers = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 1, 7, 7, generator=numbers)
    return 2 * F.interpolate(coarse, size=(28, 28), mode="bilinear") - 1


@pytest.mark.slow
@pytest.mark.parametrize("case", SEGMENT)
def test_one_image_is_learnt_by_heart(case: str) -> None:
    name, arguments, sides = SEGMENT[case]
    torch.manual_seed(0)
    channels = {"in_channels": 1, "out_channels": 2} if name.startswith("monai.") else {}
    network = build_network(name, **channels, **arguments)
    image, truth = objects(sides)
    with torch.no_grad():
        shape = network.eval()(image).shape[2:]
    lost = [(side - left) // 2 for side, left in zip(sides, shape, strict=True)]
    truth = truth[(slice(None), *(slice(less, side - less) for less, side in zip(lost, sides, strict=True)))]
    assert 0.05 < truth.float().mean() < 0.6
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    steps, dice = 0, 0.0
    while dice <= 0.95 and steps < 300:
        for _ in range(20):
            scores = network.train()(image)
            loss = F.cross_entropy(scores, truth) + soft_dice(scores.softmax(1)[:, 1], truth)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            steps += 1
        with torch.no_grad():
            found = network.eval()(image).argmax(1)
        dice = float(2 * (found * truth).sum() / (found.sum() + truth.sum()))
    assert dice > 0.95, f"Dice {dice} after {steps} steps"


def halves(modules: list[torch.nn.Module], loss_of: Callable[[], Tensor], rate: float = 1e-3) -> None:
    """Check that 200 steps halve a loss at least."""
    optimizer = torch.optim.Adam([value for module in modules for value in module.parameters()], lr=rate)
    losses = []
    for _ in range(200):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if losses[-1] < 0.5 * losses[0]:
            return
    pytest.fail(f"from {losses[0]} to {losses[-1]} in 200 steps")


@pytest.mark.parametrize("name", ["autoencoder", "conv_autoencoder"])
def test_an_autoencoder_learns_one_batch(name: str) -> None:
    torch.manual_seed(0)
    network, images = build_network(name), textures(16)
    halves([network], lambda: (network(images) - images).square().sum() / len(images), 3e-3)


def test_a_variational_autoencoder_learns_one_batch() -> None:
    torch.manual_seed(0)
    network, images = build_network("vae"), textures(16)

    def loss_of() -> Tensor:
        mean, log_variance = network.encode(images)
        error = (network.decode(network.draw(mean, log_variance)) - images).square().sum()
        distance = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
        return (error + distance) / len(images)

    halves([network], loss_of)


@pytest.mark.parametrize(("kind", "squares"), [("gan", False), ("gan", True), ("dcgan", False)])
def test_a_discriminator_and_a_generator_learn_one_batch_each(kind: str, squares: bool) -> None:
    torch.manual_seed(0)
    generator, discriminator = build_network(f"{kind}_generator"), build_network(f"{kind}_discriminator")
    real, noise = textures(16), 2 * torch.rand(16, 96) - 1

    def against(scores: Tensor, real: bool) -> Tensor:
        target = torch.full_like(scores, float(real))
        return 0.5 * F.mse_loss(scores, target) if squares else F.binary_cross_entropy_with_logits(scores, target)

    with torch.no_grad():
        fake = generator(noise)
    halves([discriminator], lambda: against(discriminator(real), True) + against(discriminator(fake), False))
    assert all(value.grad is None for value in generator.parameters())
    for value in discriminator.parameters():
        value.requires_grad_(False)
    halves([generator], lambda: against(discriminator(generator(noise)), True))
