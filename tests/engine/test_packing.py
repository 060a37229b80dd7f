"""Convolutions with packed weights give what torch's own give, for every tile that comes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_tileseg.engine import packing
from napari_tileseg.engine.convolutions import quick_convolutions
from napari_tileseg.engine.packing import pack_convolutions

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not packing._types(), reason="oneDNN packs no weights here")

FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
PLAIN = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return the shapes of the tiles that weights were packed for, as they come."""
    shapes: list[tuple[int, ...]] = []
    pack = packing._Packed._pack

    def note(self: packing._Packed, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        before = dict(self._packs)
        found = pack(self, image)
        if self._packs != before:
            shapes.append(tuple(image.shape))
        return found

    monkeypatch.setattr(packing._Packed, "_pack", note)
    return shapes


@settings(max_examples=80, deadline=None)
@given(
    ndim=st.sampled_from([2, 3]),
    batch=st.integers(1, 2),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    groups=st.sampled_from([1, 1, 2]),
    sides=st.lists(st.integers(6, 12), min_size=3, max_size=3),
    kernel=st.sampled_from([1, 2, 3]),
    stride=st.sampled_from([1, 2]),
    padding=st.integers(0, 1),
    dilation=st.sampled_from([1, 2]),
    transposed=st.booleans(),
    bias=st.booleans(),
    last=st.booleans(),
    short=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_convolution_gives_what_torch_gives(
    ndim: int,
    batch: int,
    channels: tuple[int, int],
    groups: int,
    sides: list[int],
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    bias: bool,
    last: bool,
    short: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    into, out = (count * groups for count in channels)
    make = (TRANSPOSED if transposed else PLAIN)[ndim]
    more = {"output_padding": stride - 1} if transposed else {}
    own = make(into, out, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias, **more)
    image = torch.randn(batch, into, *sides[:ndim])
    if last:
        image = image.contiguous(memory_format=FORMATS[ndim])
    replaced = pack_convolutions(nn.Sequential(copy.deepcopy(own)))
    assert isinstance(replaced[0], packing._Packed)
    with torch.inference_mode():
        expected = own(image)
        with torch.autocast("cpu", torch.bfloat16, enabled=short):
            for _ in range(2):
                found = replaced(image)
                assert found.dtype == (torch.bfloat16 if short else torch.float32)
                apart = 2e-2 if short else 1e-5
                torch.testing.assert_close(found.float(), expected, rtol=apart, atol=apart * float(expected.abs().max()) + 1e-6)
    assert not last or found.is_contiguous(memory_format=FORMATS[ndim])


def test_weights_are_packed_once_for_each_size_and_type(packed: list[tuple[int, ...]]) -> None:
    network = pack_convolutions(nn.Sequential(nn.Conv2d(3, 8, 3)))
    tile, small = torch.zeros(2, 3, 20, 20), torch.zeros(1, 3, 16, 16)
    with torch.inference_mode():
        for image in (tile, tile, tile[:1], small, small):
            network(image)
        with torch.autocast("cpu", torch.bfloat16):
            network(small)
        network(small)
    assert packed == [(2, 3, 20, 20), (1, 3, 16, 16), (1, 3, 16, 16)][: 1 + len(packing._types())]


def test_what_cannot_be_packed_is_torchs_own(packed: list[tuple[int, ...]]) -> None:
    network = pack_convolutions(nn.Sequential(nn.ConvTranspose2d(3, 8, 3, stride=2)))
    image = torch.randn(1, 3, 8, 8)
    network(image).sum().backward()
    assert network[0].original.weight.grad is not None
    with torch.inference_mode():
        assert network[0](image, output_size=(18, 18)).shape == (1, 8, 18, 18)
        assert network(image[0]).shape == (8, 17, 17)
        assert network.double()(image.double()).dtype == torch.float64
        assert network.to("meta")(image.to("meta")).shape == (1, 8, 17, 17)
    assert packed == []


def test_it_goes_before_other_ways_to_compute_a_convolution(packed: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(48, 32, 3, padding=1))
    tile = torch.randn(1, 48, 8, 12, 8)
    with torch.inference_mode():
        expected = network(tile)
        replaced = quick_convolutions(pack_convolutions(copy.deepcopy(network)))
        torch.testing.assert_close(replaced(tile), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(replaced[0].original(tile), expected, rtol=1e-4, atol=1e-4)
    assert packed == [tuple(tile.shape)]


def _hooked() -> nn.Module:
    convolution = nn.Conv2d(4, 4, 3)
    convolution.register_forward_hook(lambda module, given, result: result + 1)
    return convolution


class _Derived(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    "make",
    [
        _hooked,
        lambda: _Derived(4, 4, 3),
        lambda: nn.Conv2d(4, 4, 3, padding="same"),
        lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        lambda: nn.Conv1d(4, 4, 3),
    ],
    ids=["hook", "derived", "same", "reflect", "1D"],
)
def test_others_are_left_alone(make: Callable[[], nn.Module]) -> None:
    network = pack_convolutions(nn.Sequential(make()))
    assert not isinstance(network[0], packing._Packed)


def test_where_nothing_is_packed_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_types", tuple)
    assert isinstance(pack_convolutions(nn.Sequential(nn.Conv2d(4, 4, 3)))[0], nn.Conv2d)
