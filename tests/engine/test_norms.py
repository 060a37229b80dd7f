"""Normalisations that are replaced give what they gave."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_tileseg.engine import norms
from napari_tileseg.engine.compiled import Compiled
from napari_tileseg.engine.norms import quick_norms

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
INSTANCE = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def quick(module: nn.Module) -> bool:
    return any(isinstance(part, norms._QuickNorm) for part in module.modules())


@settings(max_examples=40)
@given(
    ndim=st.sampled_from([2, 3]),
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 2, 3, 6, 16, 20]),
    side=st.integers(2, 9),
    group=st.sampled_from([0, 1, 2, 3]),
    learnt=st.booleans(),
    last=st.booleans(),
    short=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_quick_norm_gives_what_the_norm_gives(
    ndim: int, batch: int, channels: int, side: int, group: int, learnt: bool, last: bool, short: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    norm = nn.GroupNorm(group, channels, affine=learnt) if group and not channels % group else INSTANCE[ndim](channels, affine=learnt)
    for weights in norm.parameters():
        nn.init.normal_(weights)
    image = torch.randn(batch, channels, *[side] * (ndim - 1), side + 1) * 3 + 1
    if last:
        image = image.contiguous(memory_format=FORMATS[ndim])
    replaced = quick_norms(nn.Sequential(copy.deepcopy(norm)))
    assert quick(replaced)
    kind, apart = (torch.bfloat16, 0.02) if short else (torch.float32, 1e-4)
    with torch.inference_mode():
        found = replaced(image.to(kind))
        torch.testing.assert_close(found.float(), norm(image.to(kind).float()), rtol=apart, atol=apart)
    assert found.dtype == kind
    assert not last or found.is_contiguous(memory_format=FORMATS[ndim])


@pytest.mark.parametrize("channels", [2, 3, 15])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_few_channels_far_from_zero_keep_their_digits(channels: int, kind: torch.dtype) -> None:
    norm = nn.InstanceNorm2d(channels)
    image = (torch.randn(1, channels, 128, 128) + 100).to(kind).contiguous(memory_format=torch.channels_last)
    found = quick_norms(nn.Sequential(norm))(image)
    expected = norm(image.double().contiguous()).float()
    # torch's own loop in this order of pixels is wrong by nearly 0.1 here, and by more in short types.
    apart = 1e-4 if kind.itemsize == 4 else 1e-2
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=apart)


def _hooked() -> nn.Module:
    norm = nn.GroupNorm(1, 4)
    norm.register_forward_hook(lambda module, given, result: result + 1)
    return norm


class _Derived(nn.GroupNorm):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + 1


@pytest.mark.parametrize(
    "make",
    [_hooked, lambda: _Derived(1, 4), lambda: nn.InstanceNorm2d(4, track_running_stats=True), lambda: nn.BatchNorm2d(4)],
    ids=["hook", "derived", "statistics", "batch"],
)
def test_others_are_left_alone(make: Callable[[], nn.Module]) -> None:
    assert not quick(quick_norms(nn.Sequential(make())))


def test_a_norm_that_two_places_share_is_replaced_in_both() -> None:
    shared = nn.GroupNorm(2, 4)
    module = quick_norms(nn.Sequential(shared, nn.Conv2d(4, 4, 1), shared))
    assert isinstance(module[0], norms._QuickNorm)
    assert isinstance(module[2], norms._QuickNorm)


def test_another_device_computes_as_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    module = quick_norms(nn.Sequential(nn.InstanceNorm2d(4)))
    monkeypatch.setattr(norms.functional, "group_norm", None)
    assert module(torch.zeros(2, 4, 5, 6, device="meta")).shape == (2, 4, 5, 6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_compiled_networks_call_it_for_groups_and_few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    normalized = norms._normalized

    def count(image: torch.Tensor, groups: int, *more: Any) -> torch.Tensor:
        called.append(groups)
        return normalized(image, groups, *more)

    layers = nn.Conv2d(1, 16, 3), nn.InstanceNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.GroupNorm(2, 32)
    few = nn.ReLU(), nn.Conv2d(32, 3, 3), nn.InstanceNorm2d(3)
    network = nn.Sequential(*layers, *few).eval()
    image = torch.randn(1, 1, 16, 16)
    expected = network(image)
    forward = Compiled(quick_norms(copy.deepcopy(network)))
    with torch.no_grad():
        forward(image)
        monkeypatch.setattr(norms, "_normalized", count)
        torch.testing.assert_close(forward(image), expected, rtol=1e-4, atol=1e-4)
    assert called == [2, 3]
