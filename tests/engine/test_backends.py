"""Faster ways give the same scores up to rounding, and leave the model itself as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from napari_tileseg.engine.arrays import FunctionPredictor
from napari_tileseg.engine.backends import backends, call, fold_batch_norms, is_short
from napari_tileseg.engine.predict import exact_arithmetic
from napari_tileseg.models.predictor import Predictor, from_module, load_model
from napari_tileseg.models.spec import ModelSpec

SPEC = ModelSpec(name="m", axes="CYX", channels=3, classes=["a", "b", "c"], window=(32, 32))


def trained_norms(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
    return module.eval()


def small() -> nn.Module:
    torch.manual_seed(0)
    return trained_norms(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1)))


def test_folding_keeps_the_scores() -> None:
    module, batch = small(), torch.randn(2, 3, 32, 32)
    folded = fold_batch_norms(copy.deepcopy(module))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    expected = module(batch)
    assert (folded(batch) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_what_is_shared_or_out_of_order_is_not_folded() -> None:
    class Backwards(nn.Sequential):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            for part in reversed(list(self)):
                batch = part(batch)
            return batch

    torch.manual_seed(0)
    backwards = trained_norms(Backwards(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    convolution = nn.Conv2d(3, 3, 1)
    shared = trained_norms(nn.Sequential(nn.Sequential(convolution, nn.BatchNorm2d(3)), convolution))
    batch = torch.randn(1, 3, 8, 8)
    for module in (backwards, shared):
        torch.testing.assert_close(fold_batch_norms(copy.deepcopy(module))(batch), module(batch))


@pytest.mark.parametrize("name", ["bfloat16", "bfloat16, channels last", "channels last"])
def test_every_way_is_the_same_network(name: str) -> None:
    predictor, batch = from_module(small(), SPEC, device="cpu"), torch.randn(1, 3, 32, 32)
    assert name in backends(predictor)
    before = {key: value.clone() for key, value in predictor.module.state_dict().items()}
    with torch.inference_mode():
        expected, found = predictor(batch), call(predictor, batch, name)
    assert found.is_contiguous()
    assert (found.float() - expected).abs().max() <= (2e-2 if name.startswith("bfloat16") else 1e-5) * expected.abs().max()
    after = predictor.module.state_dict()
    assert all(torch.equal(after[key], value) and after[key].is_contiguous() for key, value in before.items())


@pytest.mark.parametrize("name", ["bfloat16, channels last", "channels last"])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_lie_side_by_side_from_the_first_layer_on(name: str, channels: int) -> None:
    strides: list[tuple[int, ...]] = []

    class Look(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            strides.append(image.stride())
            return image

    torch.manual_seed(0)
    # A convolution goes by the strides of pixels and weights, which leave both orders open where there is one channel.
    layers = nn.Conv2d(channels, 16, 3, padding=1), Look(), nn.Conv2d(16, 1, 3, padding=1), nn.Conv2d(1, 3, 1)
    network = nn.Sequential(Look(), *layers).eval()
    predictor = from_module(network, SPEC.model_copy(update={"channels": ["a"] * channels}), device="cpu")
    batch = torch.randn(2, channels, 64, 64)
    with torch.inference_mode():
        found, expected = call(predictor, batch, name), network(batch)
    assert strides[0][1:] == (1, 64 * channels, channels)
    assert strides[1][1:] == (1, 64 * 16, 16)
    assert (found.float() - expected).abs().max() <= (2e-2 if is_short(name) else 1e-5) * expected.abs().max()


def test_a_function_has_one_faster_way() -> None:
    assert backends(FunctionPredictor(SPEC, lambda batch: batch)) == ["bfloat16"]


@pytest.mark.parametrize(
    ("device", "version", "types"),
    [
        pytest.param("cuda:0", (9, 0), ["bfloat16", "float16"], id="both"),
        pytest.param("cuda:1", (7, 5), ["float16"], id="an older GPU knows no bfloat16"),
        pytest.param("mps", (0, 0), ["float16"], id="Apple"),
    ],
)
def test_a_gpu_may_compute_in_another_short_type(
    device: str, version: tuple[int, int], types: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: version)
    assert backends(FunctionPredictor(SPEC, lambda batch: batch, device)) == types

    class Loaded(FunctionPredictor):
        module = small()

    ways = backends(Loaded(SPEC, lambda batch: batch, device))
    assert [way for way in ways if is_short(way) and "," not in way] == types
    if device != "mps":
        assert ways[-2:] == ["channels last", "recorded"]
        assert {f"{kind}, {form}" for kind in types for form in ("channels last", "recorded")} <= set(ways)


def test_exact_arithmetic_knows_no_tf32_and_is_restored() -> None:
    cuda: list[Any] = [torch.backends.cuda.matmul]
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        cuda += [torch.backends.cudnn.conv, torch.backends.cudnn.rnn]
        name, exact = "fp32_precision", "ieee"
    else:
        cuda, name, exact = [*cuda, torch.backends.cudnn], "allow_tf32", False
    before = [getattr(owner, name) for owner in cuda]
    with exact_arithmetic():
        assert [getattr(owner, name) for owner in cuda] == [exact] * len(cuda)
    assert [getattr(owner, name) for owner in cuda] == before


def test_float16_is_nearer_to_exact_arithmetic() -> None:
    predictor, batch = from_module(small(), SPEC, device="cpu"), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        expected = predictor(batch)
        half, brain = (call(predictor, batch, name) for name in ("float16", "bfloat16"))
    assert half.dtype == torch.float16
    assert 0 < (half.float() - expected).abs().max() < (brain.float() - expected).abs().max()


def test_the_twin_of_a_bundled_model_has_no_batch_norm_left_in_its_blocks() -> None:
    predictor: Predictor = load_model("nuclei-2d", device="cpu")
    twin = fold_batch_norms(copy.deepcopy(predictor.module))
    left = sum(isinstance(part, nn.BatchNorm2d) for part in twin.modules())
    assert left < sum(isinstance(part, nn.BatchNorm2d) for part in predictor.module.modules()) / 4
