"""Rectifiers that read numbers of 16 bits as whole ones give what torch's give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_tileseg.engine import relus
from napari_tileseg.engine.relus import quick_relus


def every_number() -> torch.Tensor:
    return torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)


@pytest.mark.parametrize("inplace", [False, True])
def test_every_number_of_16_bits_becomes_what_torch_makes_of_it(inplace: bool) -> None:
    module, numbers, before = quick_relus(nn.Sequential(nn.ReLU(inplace))), every_number(), every_number()
    with torch.inference_mode():
        expected, found = torch.relu(before), module(numbers)
    assert found.dtype == torch.bfloat16
    assert (found is numbers) == inplace
    assert torch.equal(found.isnan(), expected.isnan()), "what is no number stays none"
    known = ~expected.isnan()
    assert torch.equal(found[known], expected[known])
    assert inplace or torch.equal(numbers.view(torch.int16), before.view(torch.int16))


@pytest.mark.parametrize("size", [(2, 3, 5, 7), (1, 4, 8, 8)])
def test_the_order_of_pixels_stays(size: tuple[int, ...]) -> None:
    image = torch.randn(size).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = quick_relus(nn.Sequential(nn.ReLU()))(image)
    assert torch.equal(found, torch.relu(image))
    assert found.stride() == image.stride()


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.float64])
def test_other_types_and_what_learns_are_torchs_own(kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relus.functional, "threshold", None)
    module = quick_relus(nn.Sequential(nn.ReLU()))
    image = torch.randn(3, 4).to(kind)
    with torch.inference_mode():
        assert torch.equal(module(image), torch.relu(image))
    learning = torch.randn(3, 4, requires_grad=True)
    module(learning.bfloat16()).sum().backward()
    assert torch.equal(learning.grad, (learning > 0).float())


class _Derived(nn.ReLU):
    pass


def test_others_are_left_alone() -> None:
    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda module, given, result: result + 1)
    network = quick_relus(nn.Sequential(hooked, _Derived(), nn.LeakyReLU()))
    assert [type(part) for part in network] == [nn.ReLU, _Derived, nn.LeakyReLU]
