"""Convolutions that oneDNN computes give what torch's own loop gives, and only those are handed to it that pay."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from napari_tileseg.engine import convolutions
from napari_tileseg.engine.compiled import Compiled
from napari_tileseg.engine.convolutions import quick, quick_convolutions

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return the shapes of the tiles that are handed to oneDNN, as they come."""
    shapes: list[tuple[int, ...]] = []
    convolve = convolutions._convolve

    def note(image: torch.Tensor, *more: Any) -> torch.Tensor:
        shapes.append(tuple(image.shape))
        return convolve(image, *more)

    monkeypatch.setattr(convolutions, "_convolve", note)
    return shapes


@settings(max_examples=60, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    sides=st.lists(st.integers(5, 12), min_size=3, max_size=3),
    kernel=st.sampled_from([2, 3, 5]),
    stride=st.sampled_from([1, 2]),
    padding=st.integers(0, 2),
    dilation=st.sampled_from([1, 2]),
    bias=st.booleans(),
    last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_convolution_gives_what_torch_gives(
    channels: tuple[int, int],
    sides: list[int],
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    bias: bool,
    last: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    own = nn.Conv3d(*channels, kernel, stride=stride, padding=padding, dilation=dilation, bias=bias)
    image = torch.randn(1, channels[0], *sides)
    if last:
        image = image.contiguous(memory_format=torch.channels_last_3d)
    if dilation * (kernel - 1) >= min(image.shape[2:]) + 2 * padding:
        return  # the kernel is larger than the tile
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(convolutions, "_WORTH", 0)
        expected = own(image)
        replaced = quick_convolutions(nn.Sequential(copy.deepcopy(own)))
        assert isinstance(replaced[0], convolutions._QuickConvolution)
        torch.testing.assert_close(replaced(image), expected, rtol=1e-4, atol=1e-5)
        with quick(image):
            torch.testing.assert_close(own(image), expected, rtol=1e-4, atol=1e-5)


DEEP = (48, 8, 12, 8)
"""A tile of a deep level: few values, many products."""


@pytest.mark.parametrize("way", ["a block", "replaced"])
@pytest.mark.parametrize(
    ("shape", "count"),
    [((1, *DEEP), 1), ((2, *DEEP), 0), ((1, 48, 24, 32, 8), 0), ((1, 2, 8, 8, 8), 0)],
    ids=["deep", "several", "large", "tiny"],
)
def test_only_what_torch_overlooks_and_what_pays_is_handed_over(way: str, shape: tuple[int, ...], count: int, handed: list[Any]) -> None:
    network = nn.Sequential(nn.Conv3d(shape[1], 16, 3, padding=1)).eval()
    if way == "replaced":
        quick_convolutions(network)
    tile = torch.zeros(shape)
    with quick(tile if way == "a block" else tile[0]), torch.inference_mode():
        network(tile)
    assert len(handed) == count


def test_a_shorter_type_is_left_to_torch(handed: list[Any]) -> None:
    network = quick_convolutions(nn.Sequential(nn.Conv3d(48, 16, 3, padding=1)))
    tile = torch.zeros(1, *DEEP)
    with torch.inference_mode(), quick(tile), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(tile).dtype == torch.bfloat16
    with torch.inference_mode(), quick(tile):
        assert network.bfloat16()(tile.bfloat16()).dtype == torch.bfloat16
    assert handed == []


@pytest.mark.parametrize(
    "call",
    [
        lambda image, weight: functional.conv3d(image, weight, padding="same"),
        lambda image, weight: functional.conv3d(image, weight[:, :24], groups=2),
        lambda image, weight: functional.conv3d(image[0], weight),
        lambda image, weight: functional.conv3d(image, weight[..., :1, :1, :1]),
        lambda image, weight: functional.conv3d(image.double(), weight.double()),
    ],
    ids=["same", "groups", "no batch", "single pixels", "double"],
)
def test_other_calls_are_torchs_own(call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], handed: list[Any]) -> None:
    torch.manual_seed(0)
    image, weight = torch.randn(1, *DEEP), torch.randn(32, 48, 3, 3, 3)
    with torch.inference_mode():
        expected = call(image, weight)
        with quick(image):
            assert torch.equal(call(image, weight), expected)
    assert handed == []


def test_named_arguments_and_single_numbers_are_understood(handed: list[Any]) -> None:
    torch.manual_seed(0)
    image, weight, bias = torch.randn(1, *DEEP), torch.randn(32, 48, 3, 3, 3), torch.randn(32)
    with torch.inference_mode():
        expected = functional.conv3d(image, weight, bias, 2, 1)
        with quick(image):
            found = functional.conv3d(input=image, weight=weight, bias=bias, padding=1, stride=2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert len(handed) == 1


def test_what_learns_is_torchs_own(handed: list[Any]) -> None:
    network = nn.Conv3d(48, 16, 3)
    tile = torch.zeros(1, *DEEP)
    with quick(tile):
        network(tile).sum().backward()
    assert handed == []
    assert network.weight.grad is not None


def _hooked() -> nn.Module:
    convolution = nn.Conv3d(4, 4, 3)
    convolution.register_forward_hook(lambda module, given, result: result + 1)
    return convolution


class _Derived(nn.Conv3d):
    pass


@pytest.mark.parametrize(
    "make",
    [
        _hooked,
        lambda: _Derived(4, 4, 3),
        lambda: nn.Conv3d(4, 4, 3, groups=2),
        lambda: nn.Conv3d(4, 4, 3, padding="same"),
        lambda: nn.Conv3d(4, 4, 3, padding=1, padding_mode="reflect"),
        lambda: nn.Conv3d(4, 4, 1),
        lambda: nn.Conv2d(4, 4, 3),
        lambda: nn.ConvTranspose3d(4, 4, 3),
    ],
    ids=["hook", "derived", "groups", "same", "reflect", "single pixels", "2D", "transposed"],
)
def test_others_are_left_alone(make: Callable[[], nn.Module]) -> None:
    network = quick_convolutions(nn.Sequential(make()))
    assert not isinstance(network[0], convolutions._QuickConvolution)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_compiled_networks_hand_it_over_too(handed: list[Any]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(48, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Conv3d(32, 2, 1)).eval()
    tile = torch.randn(1, *DEEP)
    expected = network(tile)
    forward = Compiled(quick_convolutions(copy.deepcopy(network)).to(memory_format=torch.channels_last_3d))
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(forward(tile), expected, rtol=1e-4, atol=1e-4)
    assert handed == [tuple(tile.shape)] * 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # those who make the compiler warn each other
def test_a_network_that_its_author_has_compiled_runs_inside_of_the_block() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(48, 32, 3, padding=1), nn.ReLU()).eval()
    tile = torch.randn(1, *DEEP)
    with torch.inference_mode():
        expected = network(tile)
        with quick(tile):
            torch.testing.assert_close(torch.compile(network)(tile), expected, rtol=1e-4, atol=1e-4)
