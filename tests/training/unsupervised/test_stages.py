"""What each stage of training changes, and what it must leave alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_tileseg.models.nets import build_network
from napari_tileseg.training.losses.adversarial import AdversarialLoss
from napari_tileseg.training.unsupervised.adversarial import Adversarial, Inversion
from napari_tileseg.training.unsupervised.reconstruction import Reconstruction, divergence, squared_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.models.nets.anomaly import AnomalyMap, FAnoGAN
    from napari_tileseg.training.unsupervised.tiles import Tiles


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def gan(network: str = "dcgan") -> FAnoGAN:
    torch.manual_seed(0)
    return build_network("f_anogan", network=network, noise=8)  # type: ignore[return-value]


@pytest.mark.parametrize("network", ["autoencoder", "conv_autoencoder", "vae"])
def test_the_loss_falls_by_half_on_one_batch(network: str, make_tiles: Callable[..., Tiles]) -> None:
    torch.manual_seed(0)
    model: AnomalyMap = build_network("anomaly_autoencoder", network=network)  # type: ignore[assignment]
    stage, batch = Reconstruction(model, 2e-3), make_tiles()(0)
    losses = [stage.learn(batch)["loss"] for _ in range(200)]
    assert losses[-1] < 0.5 * losses[0]


def test_losses_of_a_vae_are_those_of_the_paper() -> None:
    """Values worked out by hand for two images of three pixels and codes of two numbers."""
    x, back = torch.tensor([[0.2, -0.4, 0.9], [1, -1, 0]]), torch.tensor([[0.1, -0.2, 0.5], [0.7, -0.9, 0.3]])
    mean, log_variance = torch.tensor([[0.3, -0.5], [0, 1.2]]), torch.tensor([[-0.2, 0.1], [0.4, -1]])
    assert squared_error(x, back).item() == pytest.approx(0.2)
    assert divergence(mean, log_variance).item() == pytest.approx(0.56590145)


def test_a_step_of_the_discriminator_leaves_the_generator_without_gradients(make_tiles: Callable[..., Tiles]) -> None:
    network = gan()
    before = copied(network.discriminator)
    weights = [value.clone() for value in network.generator.parameters()]
    Adversarial(network, AdversarialLoss(), 1e-3).learn_discriminator(make_tiles(4)(0))
    assert all(value.grad is None for value in network.generator.parameters())
    assert all(torch.equal(value, old) for value, old in zip(network.generator.parameters(), weights, strict=True))
    assert not same(network.discriminator, before)


def test_a_step_of_the_generator_leaves_the_discriminator_as_it_was() -> None:
    network = gan()
    discriminator, generator = copied(network.discriminator), copied(network.generator)
    Adversarial(network, AdversarialLoss(), 1e-3).learn_generator(4, torch.device("cpu"))
    assert same(network.discriminator, discriminator)
    assert all(value.grad is None for value in network.discriminator.parameters())
    assert all(value.requires_grad for value in network.discriminator.parameters())
    assert not same(network.generator, generator)


@pytest.mark.parametrize("kind", ["bce", "least_squares"])
def test_both_learn(kind: Any, make_tiles: Callable[..., Tiles]) -> None:
    network = gan("gan")
    stage, batch = Adversarial(network, AdversarialLoss(kind), 1e-3), make_tiles()(0)
    first = stage.learn_discriminator(batch)
    assert [stage.learn_discriminator(batch) for _ in range(20)][-1] < first
    first = stage.learn_generator(16, torch.device("cpu"))
    assert [stage.learn_generator(16, torch.device("cpu")) for _ in range(20)][-1] < first


def test_training_the_encoder_leaves_generator_and_discriminator_to_the_bit(make_tiles: Callable[..., Tiles]) -> None:
    network = gan()
    Adversarial(network, AdversarialLoss(), 1e-3).learn(make_tiles(8)(0))
    generator, discriminator, encoder = copied(network.generator), copied(network.discriminator), copied(network.encoder)
    stage, batch = Inversion(network, 1e-3), make_tiles(8)(1)
    losses = [stage.learn(batch)["loss"] for _ in range(30)]
    assert same(network.generator, generator)
    assert same(network.discriminator, discriminator)
    assert not same(network.encoder, encoder)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kappa", [0.0, 2.0])
def test_kappa_weighs_the_features(kappa: float, make_tiles: Callable[..., Tiles]) -> None:
    losses = Inversion(gan("gan"), 1e-3, kappa).learn(make_tiles(4)(0))
    assert losses["loss"] == pytest.approx(losses["pixels"] + kappa * losses["features"])
    assert losses["features"] > 0


def test_an_encoder_finds_the_mask_that_belongs_to_an_image() -> None:
    """A generator whose first number says which half is bright, and marked: the encoder finds that number."""

    class Halves(torch.nn.Module):
        def forward(self, code: torch.Tensor) -> torch.Tensor:
            side = torch.linspace(-1, 1, 12).expand(len(code), 1, 12, 12) * code[:, :1, None, None] * 4
            return torch.cat([side, -side, side], 1).tanh()

    torch.manual_seed(0)
    network: FAnoGAN = build_network("paired_generator", network="gan", classes=2, size=(12, 12), noise=4)  # type: ignore[assignment]
    network.generator = Halves()  # type: ignore[assignment]
    stage, codes = Inversion(network, 3e-3), torch.rand(64, 4) * 2 - 1
    pairs = network.decode(codes)
    for _ in range(60):
        stage.learn(pairs)
    with torch.no_grad():
        found = network(pairs[:, :1]).argmax(1)
    assert (found == pairs[:, 1:].argmax(1)).float().mean() > 0.95
