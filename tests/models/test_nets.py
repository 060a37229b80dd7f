"""Architectures by name: the registry, and shapes that hold for any permitted input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import ModelError
from napari_tileseg.models.nets import NETWORKS, build_network


@given(
    spatial_dims=st.sampled_from([2, 3]),
    levels=st.integers(1, 3),
    blocks=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    channels=st.integers(1, 3),
    classes=st.integers(1, 4),
)
@settings(max_examples=20)
def test_scores_have_the_size_of_the_input(spatial_dims: int, levels: int, blocks: list[int], channels: int, classes: int) -> None:
    network = build_network(
        "residual_unet",
        spatial_dims=spatial_dims,
        in_channels=channels,
        out_channels=classes,
        channels=[4, 6, 8][:levels],
        stem_channels=2,
    ).eval()
    size = [count * 2**levels for count in blocks[:spatial_dims]]
    with torch.no_grad():
        scores = network(torch.rand(2, channels, *size))
    assert scores.shape == (2, classes, *size)
    assert torch.isfinite(scores).all()


def test_every_level_and_the_stem_reach_the_scores() -> None:
    network = build_network("residual_unet", in_channels=1, out_channels=1, channels=[4, 4], stem_channels=2)
    network(torch.rand(2, 1, 8, 8)).sum().backward()
    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not silent


def test_scores_are_raw() -> None:
    torch.manual_seed(0)
    network = build_network("residual_unet", in_channels=1, out_channels=2, channels=[4], stem_channels=2).eval()
    with torch.no_grad():
        scores = network(100 * torch.randn(1, 1, 16, 16))
    assert scores.min() < 0
    assert scores.max() > 1


def test_every_registered_network_says_what_it_needs() -> None:
    """Build each by default; where it must be told its size, that is a sentence, and its own tests build it."""
    for name in NETWORKS:
        try:
            assert isinstance(build_network(name), torch.nn.Module)
        except ModelError as error:
            assert "missing" in str(error)


def test_networks_of_monai_have_a_prefix() -> None:
    network = build_network("monai.BasicUNet", spatial_dims=2, in_channels=1, out_channels=2, features=[4, 4, 4, 4, 4, 4])
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 2, 32, 32)


@pytest.mark.parametrize("name", ["unknown", "", "monai", "monai.", "torch.nn.Linear"])
def test_unknown_names_are_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(ModelError, match="residual_unet"):
        build_network(name)


@pytest.mark.parametrize("name", ["monai.NoSuchNet", "monai.basic_unet"])
def test_unknown_networks_of_monai_are_named(name: str) -> None:
    with pytest.raises(ModelError, match=name.split(".")[1]):
        build_network(name)


@pytest.mark.parametrize("arguments", [{"colour": 3}, {"spatial_dims": 4}, {"channels": []}])
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=f"cannot be built with {next(iter(arguments))}="):
        build_network("residual_unet", **arguments)
