"""Networks that know what is normal: what they return, and that it does not depend on chance."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from napari_tileseg.errors import ModelError
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.nets.anomaly import dissimilarity
from napari_tileseg.models.nets.tiling import tiling

CASES: list[tuple[str, dict[str, Any]]] = [
    ("anomaly_autoencoder", {"network": "autoencoder"}),
    ("anomaly_autoencoder", {"network": "conv_autoencoder", "residual": "ssim"}),
    ("anomaly_autoencoder", {"network": "vae"}),
    ("anomaly_autoencoder", {"network": "vae", "residual": "kl"}),
    ("f_anogan", {"network": "gan"}),
    ("f_anogan", {"network": "dcgan"}),
    ("paired_generator", {"network": "gan", "classes": 3}),
]


@pytest.mark.parametrize(("name", "arguments"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_maps_have_the_size_of_the_tile_and_do_not_depend_on_chance(name: str, arguments: dict[str, Any], channels: int) -> None:
    size = {} if arguments["network"] == "conv_autoencoder" else {"size": (20, 28)}
    network = build_network(name, in_channels=channels, **arguments, **size).eval()
    tiles = torch.rand(3, channels, 20, 28) * 2 - 1
    with torch.no_grad():
        scores = network(tiles)
        assert scores.shape == (3, arguments.get("classes", 1), 20, 28)
        assert torch.equal(scores, network(tiles))
        torch.testing.assert_close(scores[1:2], network(tiles[1:2]))
    if name != "paired_generator":
        assert scores.min() >= 0
        assert scores.max() > 0
    assert network.codes(tiles).shape[0] == 3
    assert tiling(name, arguments)["padding"] == "reflect"


def test_the_map_of_an_autoencoder_is_what_does_not_come_back() -> None:
    network = build_network("anomaly_autoencoder", network="vae", in_channels=2).eval()
    tiles = torch.rand(2, 2, 28, 28)
    with torch.no_grad():
        mean, _ = network.model.encode(tiles)
        torch.testing.assert_close(network(tiles), (tiles - network.model.decode(mean)).abs().mean(1, keepdim=True))


def test_the_gradient_of_the_divergence_is_the_one_that_torch_finds() -> None:
    network = build_network("anomaly_autoencoder", network="vae", residual="kl").double().eval()
    tiles = (torch.rand(3, 1, 28, 28, dtype=torch.float64) * 2 - 1).requires_grad_()
    mean, log_variance = network.model.encode(tiles)
    (-0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()).backward()
    torch.testing.assert_close(network(tiles.detach()), tiles.grad.abs())


def test_dissimilarity_is_that_of_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    x, y = torch.rand(2, 1, 1, 24, 30, dtype=torch.float64) * 2 - 1
    arrays = x[0, 0].numpy(), y[0, 0].numpy()
    _, expected = structural_similarity(*arrays, win_size=7, data_range=2, full=True, use_sample_covariance=False)
    found = 1 - dissimilarity(x, y)[0, 0].numpy()
    assert found[3:-3, 3:-3] == pytest.approx(expected[3:-3, 3:-3], abs=1e-9)
    assert dissimilarity(x, x).max() < 1e-9
    assert dissimilarity(x[..., :2, :4], y[..., :2, :4]).shape == (1, 1, 2, 4)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("anomaly_autoencoder", {"network": "unet2015"}),
        ("anomaly_autoencoder", {"residual": "squared"}),
        ("anomaly_autoencoder", {"residual": "kl"}),
        ("f_anogan", {"network": "vae"}),
        ("f_anogan", {"size": (30, 30)}),
    ],
)
def test_what_cannot_be_built_is_said(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"must be|multiples of 4"):
        build_network(name, **arguments)
