"""Losses of shapes and of flows: least where scores are what they should be, and silent where nothing is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from napari_tileseg.engine.heat import flows_of
from napari_tileseg.engine.rays import circle, golden_spiral
from napari_tileseg.errors import OptionsError
from napari_tileseg.training.losses import FlowLoss, InstanceLoss, StarLoss, get_object_loss
from napari_tileseg.training.prepare import IGNORED
from napari_tileseg.training.ray_distances import ray_distances
from napari_tileseg.training.sampling import Batch
from napari_tileseg.training.targets import object_maps

GRIDS = [(1, 1), (2, 2), (1, 2, 2)]


def scene(ndim: int = 2) -> np.ndarray:
    labels = np.zeros((8, 24, 24)[3 - ndim :], np.int32)
    labels[..., 3:12, 2:11] = 1
    labels[..., 3:12, 11:20] = 2
    labels[..., 15:21, 5:19] = 3
    return labels


def batch(labels: np.ndarray, maps: np.ndarray) -> Batch:
    tensor = torch.from_numpy(labels).long()[None]
    return Batch(torch.zeros(1, 1, *labels.shape), tensor, torch.from_numpy(maps.astype(np.float32))[None], torch.ones(1))


def stars(grid: tuple[int, ...]) -> tuple[StarLoss, Batch, torch.Tensor]:
    labels = scene(len(grid))
    drawn = batch(labels, object_maps(labels)[:1])
    rays = circle(8) if labels.ndim == 2 else golden_spiral(8, (2.0, 1.0, 1.0))
    right = torch.zeros(1, 9, *labels.shape)
    on_grid: Any = (..., *(slice(None, None, step) for step in grid))
    likely = drawn.maps[:, 0].clamp(1e-6, 1 - 1e-6)
    right[:, 0] = (likely / (1 - likely)).log()
    right[on_grid][:, 1:] = ray_distances(drawn.labels, rays, grid)
    return StarLoss(grid=grid, anisotropy=(2.0, 1.0, 1.0)), drawn, right


def flowing() -> tuple[FlowLoss, Batch, torch.Tensor]:
    labels = scene()
    drawn = batch(labels, flows_of(labels))
    return FlowLoss(), drawn, torch.cat([(40.0 * (drawn.labels > 0) - 20)[:, None], 5 * drawn.maps], dim=1)


CASES = [*(pytest.param(stars, grid, id=f"stars {grid}") for grid in GRIDS), pytest.param(lambda _: flowing(), None, id="flows")]


@pytest.mark.parametrize(("make", "grid"), CASES)
def test_right_scores_have_the_least_loss(make: Any, grid: Any) -> None:
    loss, drawn, right = make(grid)
    least = loss(right, drawn)
    generator = torch.Generator().manual_seed(0)
    for size in (0.01, 0.3, 3.0):
        assert loss(right + size * torch.randn(right.shape, generator=generator), drawn) > least
    # As wrong as can be is worse than a bit wrong, and finite.
    assert torch.isfinite(loss(-right, drawn))
    assert loss(-right, drawn) > loss(0.9 * right, drawn)


@pytest.mark.parametrize(("make", "grid"), CASES)
def test_a_step_down_makes_it_less(make: Any, grid: Any) -> None:
    loss, drawn, right = make(grid)
    scores = torch.zeros_like(right, requires_grad=True)
    before = loss(scores, drawn)
    before.backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert loss(scores.detach() - 0.1 * scores.grad, drawn) < before


def test_flows_have_the_published_value() -> None:
    loss, drawn, right = flowing()
    assert loss(right, drawn) < 1e-6
    flows = torch.nn.functional.mse_loss(torch.zeros_like(drawn.maps), 5 * drawn.maps) / 2
    torch.testing.assert_close(loss(torch.cat([right[:, :1], torch.zeros_like(drawn.maps)], 1), drawn), flows, atol=1e-6, rtol=1e-5)


def test_shapes_have_the_published_value() -> None:
    loss, drawn, right = stars((1, 1))
    likely, inside = drawn.maps[:, 0], drawn.maps[:, 0] > 0
    probability = torch.nn.functional.binary_cross_entropy(torch.full_like(likely, 0.5), likely)
    distance = (right[:, 1:].abs().mean(1) * likely).mean() / likely.mean()
    nothing = torch.zeros_like(right)
    torch.testing.assert_close(loss(nothing, drawn), probability + 0.2 * distance)
    far = torch.where(inside[:, None], right, torch.full_like(right, 7.0))
    far[:, 0] = 0
    beside = torch.where(inside[:, None], right[:, 1:], torch.full_like(right[:, 1:], 7.0)).abs().mean(1)
    torch.testing.assert_close(loss(far, drawn), probability + 0.2 * 1e-4 * (beside * (1 - likely)).mean())


@pytest.mark.parametrize(("make", "grid"), CASES)
def test_what_is_unknown_does_not_count(make: Any, grid: Any) -> None:
    loss, drawn, right = make(grid)
    unknown = drawn.labels.clone()
    unknown[..., 13:, :] = IGNORED
    scores = torch.randn(right.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    value = loss(scores, replace(drawn, labels=unknown))
    value.backward()
    assert torch.isfinite(value)
    assert scores.grad is not None
    assert not scores.grad[..., 13:, :].any()
    assert scores.grad[..., :13, :].any()
    other = scores.detach().clone()
    other[..., 13:, :] += 10
    torch.testing.assert_close(loss(other, replace(drawn, labels=unknown)), value.detach())
    nothing = loss(scores, replace(drawn, labels=torch.full_like(unknown, IGNORED)))
    assert torch.isfinite(nothing)


@pytest.mark.parametrize(("make", "grid"), CASES)
def test_a_crop_without_objects_has_a_loss(make: Any, grid: Any) -> None:
    loss, drawn, right = make(grid)
    empty = replace(drawn, labels=torch.zeros_like(drawn.labels), maps=torch.zeros_like(drawn.maps))
    scores = torch.zeros_like(right, requires_grad=True)
    value = loss(scores, empty)
    value.backward()
    assert torch.isfinite(value)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    low = torch.zeros_like(right)
    low[:, 0] = -20
    assert loss(low, empty) < 1e-6


def test_losses_of_objects_are_made_by_name() -> None:
    assert isinstance(get_object_loss("instances", border_weight=2.0), InstanceLoss)
    assert isinstance(get_object_loss("flows", flow_weight=2.0), FlowLoss)
    with pytest.raises(OptionsError, match="cannot be made"):
        get_object_loss("stars", border_weight=2.0)
    with pytest.raises(OptionsError, match="no loss"):
        get_object_loss("dice")
