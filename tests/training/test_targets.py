"""Targets made from labels, and the losses that compare with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from napari_tileseg.training.losses import CrossEntropyDice, InstanceLoss, soft_dice
from napari_tileseg.training.sampling import Batch
from napari_tileseg.training.targets import object_maps, touching

LABELS = hnp.arrays(np.int32, st.sampled_from([(9, 7), (5, 4, 6)]), elements=st.integers(0, 3))


def batch(labels: np.ndarray) -> Batch:
    maps = torch.from_numpy(object_maps(labels))[None]
    tensor = torch.from_numpy(labels).long()[None]
    return Batch(torch.zeros(1, 1, *labels.shape), tensor, maps, torch.ones(1))


def two_squares() -> np.ndarray:
    labels = np.zeros((20, 20), np.int32)
    labels[4:12, 2:9] = 1
    labels[4:12, 9:16] = 2
    return labels


@given(labels=LABELS)
def test_distance_is_one_in_the_middle_of_each_object_and_zero_outside(labels: np.ndarray) -> None:
    distance, size = object_maps(labels)
    assert not distance[labels == 0].any()
    assert not size[labels == 0].any()
    for number in set(np.unique(labels)) - {0}:
        inside = labels == number
        assert distance[inside].max() == 1
        assert distance[inside].min() > 0
        np.testing.assert_allclose(np.exp(size[inside]), inside.sum(), rtol=1e-5)
        expected = ndimage.distance_transform_edt(np.pad(inside, 1))[(slice(1, -1),) * labels.ndim]
        np.testing.assert_allclose(distance[inside], (expected / expected.max())[inside], rtol=1e-6)


@given(labels=LABELS, width=st.sampled_from([3, 5]))
def test_touching_equals_a_search_of_every_neighbourhood(labels: np.ndarray, width: int) -> None:
    reach = width // 2
    expected = np.zeros(labels.shape, bool)
    for place in np.ndindex(labels.shape):
        window = labels[tuple(slice(max(0, index - reach), index + reach + 1) for index in place)]
        expected[place] = len(set(window[window > 0].tolist())) > 1
    np.testing.assert_array_equal(touching(torch.from_numpy(labels).long()[None], width)[0], expected)


def test_soft_dice_has_the_published_values() -> None:
    target = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert soft_dice(target, target) == pytest.approx(0)
    assert soft_dice(torch.full((4,), 0.5), target) == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))
    assert soft_dice(1 - target, target) == pytest.approx(1 - 1 / 5)
    assert soft_dice(torch.zeros(4), torch.zeros(4)) == pytest.approx(0)


def test_class_loss_equals_monai() -> None:
    from monai.losses import DiceLoss

    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 6, 5, generator=generator)
    labels = torch.randint(0, 3, (2, 6, 5), generator=generator)
    reference = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=True, smooth_nr=1, smooth_dr=1)
    expected = reference(scores, labels[:, None]) + torch.nn.functional.cross_entropy(scores, labels)
    found = CrossEntropyDice()(scores, Batch(scores[:, :1], labels, torch.zeros(2, 0, 6, 5), torch.ones(2)))
    torch.testing.assert_close(found, expected)


def test_right_instance_scores_cost_almost_nothing_and_wrong_ones_much() -> None:
    labels = two_squares()
    made = batch(labels)
    edge = touching(made.labels)[0].numpy()
    right = np.stack([np.where(labels > 0, 20, -20), np.where(edge, 20, -20), object_maps(labels)[0]]).astype(np.float32)
    loss = InstanceLoss()
    assert loss(torch.from_numpy(right)[None], made) < 1e-3
    for head in range(3):
        wrong = right.copy()
        wrong[head] = -wrong[head]
        assert loss(torch.from_numpy(wrong)[None], made) > 0.05


def test_pixels_of_small_objects_weigh_more() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[3:8, 3:8] = 1
    labels[5:35, 20:55] = 2
    made = batch(labels)
    scores = torch.zeros(1, 3, 40, 60, requires_grad=True)
    InstanceLoss()(scores, made).backward()
    gradient = scores.grad
    assert gradient is not None
    assert gradient[0, 2, 5, 5].abs() > 2 * gradient[0, 2, 20, 37].abs()


@given(labels=hnp.arrays(np.int32, (8, 8), elements=st.integers(0, 3)))
def test_losses_and_gradients_are_finite_for_huge_scores(labels: np.ndarray) -> None:
    made = batch(labels)
    scores = (torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 1e4).requires_grad_()
    InstanceLoss()(scores, made).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
