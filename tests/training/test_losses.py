"""Losses by name: values, gradients, limits and identities, all of which were computed independently."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import monai.losses
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.training.losses import LOSSES, AdversarialLoss, get_loss

VECTORS = json.loads((Path(__file__).parent / "loss_vectors.json").read_text())
DISTANCES = ("boundary", "hausdorff", "log_hausdorff")


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


INPUTS: dict[str, tuple[Tensor, Tensor]] = {
    "B1": (tensor([[[[2.0, -1.0, 0.5], [-0.5, 3.0, -2.0]]]]), tensor([[[[1, 0, 1], [0, 1, 1]]]])),
    "B2": (
        tensor([[[[1.5, -0.5], [0.25, -2.0]]], [[[-1.0, -3.0], [0.75, -0.25]]]]),
        tensor([[[[1, 0], [1, 0]]], [[[0, 0], [0, 0]]]]),
    ),
    "B3": (tensor([[[[12, -12], [-12, 12]]]]), tensor([[[[1, 0], [0, 1]]]])),
    "M1": (
        tensor([[[[2.0, 0.1], [-1.0, 0.5]], [[0.0, 1.5], [0.3, -0.5]], [[-1.0, -0.2], [1.2, 0.4]]]]),
        torch.tensor([[[0, 1], [2, 0]]]),
    ),
    "M2": (
        tensor(
            [
                [[[0.5, -0.3, 1.0]], [[1.2, 0.0, -0.7]], [[-0.4, 0.9, 0.2]]],
                [[[2.0, 0.0, -1.5]], [[-1.0, 0.5, 0.25]], [[0.0, -0.5, 1.0]]],
            ]
        ),
        torch.tensor([[[1, 2, 0]], [[0, 0, 2]]]),
    ),
    "M3": (
        tensor([[[[1.0, -1.0, 0.0]], [[0.0, 2.0, 0.5]], [[-0.5, 0.0, 1.5]], [[0.25, -0.75, -1.0]]]]),
        torch.tensor([[[0, 1, 2]]]),
    ),
}

GRADIENTS: list[tuple[str, dict[str, Any], list[float]]] = [
    ("dice", {}, [-0.01598820, 0.01788900, -0.03578586, 0.02138212, -0.00687940, -0.01598820]),
    ("bce", {}, [-0.01986715, 0.04482357, -0.06292344, 0.06292344, -0.00790431, -0.14679951]),
    ("lovasz_hinge", {}, [0, 0, -0.25, 0.10, 0, -0.25]),
    ("combo", {}, [-0.01296089, 0.02015039, -0.03362379, 0.02642192, -0.00541578, -0.04469398]),
    ("focal", {"alpha": 0.25}, [-0.00020296, 0.00657264, -0.00574737, 0.01724212, -0.00001312, -0.04486307]),
]

AT_HALF = {
    "dice": 0.375, "dice_squared": 0.272727, "bce_dice": 1.068147, "iou": 0.5, "focal": 0.173287, "tversky": 0.333333,
    "focal_tversky": 0.466405, "lovasz_hinge": 1.0, "combo": -0.139213, "log_cosh_dice": 0.068724,
}  # fmt: skip
"""Loss of scores of 0 on B1; the weights of Tversky are equal in the first, and the paper's in the second."""

INVERTED = {"dice": 0.857143, "dice_squared": 1.0, "iou": 0.857143, "tversky": 0.75, "focal_tversky": 0.824175, "log_cosh_dice": 0.329588}
"""Loss of sure and wrong answers on B1, with the same weights."""


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: f"{row['loss']}-{row['arguments']}-{next(iter(row['values']))}")
def test_values(row: dict[str, Any]) -> None:
    loss = get_loss(row["loss"], **row["arguments"])
    for name, expected in row["values"].items():
        logits, target = INPUTS[name]
        assert loss(logits, target).item() == pytest.approx(expected, abs=1e-8, rel=0), name
        assert loss(logits.float(), target).item() == pytest.approx(expected, abs=1e-5, rel=0), name


@pytest.mark.parametrize(("name", "arguments", "expected"), GRADIENTS)
def test_gradients(name: str, arguments: dict[str, Any], expected: list[float]) -> None:
    logits, target = INPUTS["B1"]
    logits = logits.clone().requires_grad_()
    get_loss(name, **arguments)(logits, target).backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx(expected, abs=6e-9, rel=0)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in DISTANCES])
@pytest.mark.parametrize("kind", ["B2", "M2"])
def test_gradients_are_those_of_small_differences(name: str, kind: str) -> None:
    if name == "lovasz_hinge" and kind == "M2":
        return
    logits, target = INPUTS[kind]
    generator = torch.Generator().manual_seed(5)
    shaken = (logits + 0.1 * torch.randn(logits.shape, generator=generator, dtype=torch.float64)).requires_grad_()  # no ties
    assert torch.autograd.gradcheck(lambda scores: get_loss(name)(scores, target), (shaken,))


def sure(target: Tensor, classes: int = 1) -> Tensor:
    if classes == 1:
        return 40 * (2 * target - 1)
    return 40 * torch.nn.functional.one_hot(target, classes).movedim(-1, 1).double()


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in DISTANCES])
def test_a_perfect_answer_costs_nothing(name: str) -> None:
    expected = -0.5 if name == "combo" else 0.0
    for kind in ("B1", "B2", "M1", "M2"):
        logits, target = INPUTS[kind]
        if name == "lovasz_hinge" and kind.startswith("M"):
            continue
        assert get_loss(name)(sure(target, logits.shape[1]), target).item() == pytest.approx(expected, abs=1e-6), kind


@pytest.mark.parametrize(("name", "expected"), AT_HALF.items())
def test_an_answer_of_one_half(name: str, expected: float) -> None:
    target = INPUTS["B1"][1]
    arguments = {"fp": 0.5, "fn": 0.5} if name == "tversky" else {}
    assert get_loss(name, **arguments)(torch.zeros_like(target), target).item() == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize(("name", "expected"), INVERTED.items())
def test_a_wrong_answer(name: str, expected: float) -> None:
    target = INPUTS["B1"][1]
    arguments = {"fp": 0.5, "fn": 0.5} if name == "tversky" else {}
    assert get_loss(name, **arguments)(-sure(target), target).item() == pytest.approx(expected, abs=2e-5)


def test_nothing_found_where_nothing_is_and_everything() -> None:
    empty = torch.zeros(1, 1, 2, 3, dtype=torch.float64)
    for name in ("dice", "iou", "tversky", "focal_tversky", "lovasz_hinge", "lovasz_sigmoid"):
        assert get_loss(name)(-40 + empty, empty).item() == pytest.approx(0, abs=1e-9), name
    for name, expected in (("dice", 0.857143), ("tversky", 0.642857), ("lovasz_hinge", 41), ("lovasz_sigmoid", 1)):
        assert get_loss(name)(40 + empty, empty).item() == pytest.approx(expected, abs=6e-7), name


def test_one_versus_rest_is_not_nothing_where_other_classes_are_in_doubt() -> None:
    logits, target = INPUTS["M1"]
    assert get_loss("focal", one_vs_rest=True)(sure(target, 3), target).item() == pytest.approx(0.115525, abs=6e-7)
    uniform = get_loss("lovasz_softmax")(torch.zeros_like(logits), torch.tensor([[[0, 1], [2, 0]]]))
    assert uniform.item() == pytest.approx(0.666667, abs=6e-7)


@given(st.integers(0, 2**31 - 1), st.sampled_from([1, 3]), st.floats(0.01, 3))
@settings(max_examples=25, deadline=None)
def test_identities(seed: int, classes: int, smooth: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, 4, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(max(2, classes), (2, 4, 5), generator=generator)

    def value(name: str, **arguments: Any) -> float:
        return get_loss(name, **arguments)(logits, target).item()

    assert value("tversky", fp=1, fn=1, smooth=smooth) == pytest.approx(value("iou", smooth=smooth))
    assert value("tversky", fp=0.5, fn=0.5, smooth=smooth) == pytest.approx(value("dice", smooth=2 * smooth))
    assert value("focal_tversky", gamma=1) == pytest.approx(value("tversky"))
    assert value("focal", gamma=0) == pytest.approx(value("ce"))
    assert value("combo", non_negative=True) == pytest.approx(value("combo") + 0.5)
    assert value("log_cosh_dice") == pytest.approx(math.log(math.cosh(value("dice"))))
    assert value("ce_dice") == pytest.approx(value("ce") + value("dice"))
    assert value("brau_hybrid") == pytest.approx(0.4 * value("ce") + 0.6 * value("dice_squared"))


def test_combo_grows_with_everything_found_where_nothing_is() -> None:
    logits, target = INPUTS["B1"]
    combo = get_loss("combo")
    order = [combo(scores, target).item() for scores in (sure(target), 0 * target, -sure(target))]
    assert order == sorted(order)
    for place in (target == 0).nonzero():
        more = logits.clone()
        more[tuple(place)] += 0.5
        assert combo(more, target) > combo(logits, target)


def test_monai_gives_the_same() -> None:
    binary, multi = INPUTS["B2"], (INPUTS["M2"][0], INPUTS["M2"][1][:, None])
    sums = {"batch": True, "smooth_nr": 1, "smooth_dr": 1}
    classes = {"softmax": True, "to_onehot_y": True}
    for name, ours, theirs, (logits, target) in (
        ("bce_dice", {}, monai.losses.DiceCELoss(sigmoid=True, **sums), binary),
        ("tversky", {}, monai.losses.TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, **sums), binary),
        ("focal", {"alpha": 0.25}, monai.losses.FocalLoss(gamma=2, alpha=0.25), binary),
        ("dice", {}, monai.losses.DiceLoss(**classes, **sums), multi),
        ("ce_dice", {}, monai.losses.DiceCELoss(**classes, **sums), multi),
        (
            "brau_hybrid",
            {},
            monai.losses.DiceCELoss(
                **classes, squared_pred=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5, lambda_dice=0.6, lambda_ce=0.4
            ),
            multi,
        ),
    ):
        assert get_loss(name, **ours)(logits, target).item() == pytest.approx(theirs(logits, target).item(), abs=1e-7), name


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in DISTANCES])
@pytest.mark.parametrize("kind", ["B2", "M2"])
def test_ignored_pixels_do_not_count(name: str, kind: str) -> None:
    """What is ignored may hold anything; where sums go over all pixels, it might as well not be there."""
    if name == "lovasz_hinge" and kind == "M2":
        return
    logits, target = INPUTS[kind]
    full = torch.cat([logits, 7 * torch.ones_like(logits)], dim=-1)
    labels = torch.cat([target, torch.full_like(target, 255)], dim=-1)
    loss = get_loss(name, ignore_index=255)
    assert loss(full, labels).item() == pytest.approx(get_loss(name)(logits, target).item(), abs=1e-12)
    nothing = loss(full, torch.full_like(labels, 255))
    assert torch.isfinite(nothing)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in DISTANCES])
def test_labels_of_any_form_mean_the_same(name: str) -> None:
    logits, target = INPUTS["B2"]
    loss = get_loss(name)
    assert loss(logits, target) == loss(logits, target[:, 0].long()) == loss(logits, target.bool())
    if name == "lovasz_hinge":
        return
    logits, target = INPUTS["M2"]
    hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    assert loss(logits, target).item() == pytest.approx(loss(logits, target[:, None].to(torch.uint8)).item(), abs=1e-12)
    assert loss(logits, target).item() == pytest.approx(get_loss(name, multi_label=False)(logits, hot).item(), abs=1e-12)


def test_masks_that_overlap_are_compared_one_by_one() -> None:
    logits = INPUTS["M2"][0]
    masks = (logits > 0.2).double()
    for name in ("dice", "iou", "tversky", "lovasz_sigmoid", "log_cosh_dice"):
        alone = [get_loss(name)(logits[:, [channel]], masks[:, [channel]]) for channel in range(3)]
        together = get_loss(name)(logits, masks).item()
        if name != "log_cosh_dice":
            assert together == pytest.approx(torch.stack(alone).mean().item()), name
    for name in ("bce", "focal"):
        flat = get_loss(name)(logits.reshape(2, 1, 3, 3), masks.reshape(2, 1, 3, 3)).item()
        assert get_loss(name)(logits, masks).item() == pytest.approx(flat)


def test_classes_may_weigh_differently() -> None:
    logits, target = INPUTS["M2"]
    weights = [0.5, 1.0, 3.0]
    theirs = torch.nn.functional.cross_entropy(logits, target, weight=tensor(weights))
    assert get_loss("ce", class_weights=weights)(logits, target).item() == pytest.approx(theirs.item())
    dices = [get_loss("dice", class_weights=[float(k == number) for k in range(3)])(logits, target) for number in range(3)]
    expected = sum(weight * dice for weight, dice in zip(weights, dices, strict=True)) / sum(weights)
    assert get_loss("dice", class_weights=weights)(logits, target).item() == pytest.approx(float(expected))
    without = get_loss("dice", class_weights=weights, include_background=False)(logits, target).item()
    assert without == pytest.approx(float((dices[1] + 3 * dices[2]) / 4))
    binary = INPUTS["B1"]
    assert get_loss("bce", class_weights=[1.0, 1.0])(*binary) == get_loss("bce")(*binary)
    with pytest.raises(InputError, match="2 class weights were given for 4"):
        get_loss("dice", class_weights=[1.0, 2.0])(*INPUTS["M3"])


def test_coarser_results_of_a_network_count_half_each() -> None:
    torch.manual_seed(0)
    fine, coarse = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    target = torch.randint(3, (2, 4, 4)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    loss = get_loss("ce_dice")
    expected = (loss(fine, target) + 0.5 * loss(coarse, target[:, ::2, ::2])) / 1.5
    assert loss([fine, coarse], target).item() == pytest.approx(expected.item())
    assert loss((fine, coarse), target[:, None]).item() == pytest.approx(expected.item())


def test_coarser_labels_need_no_float64() -> None:
    """Which Apple GPUs do not have."""

    class Single(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            assert not isinstance(found, Tensor) or found.dtype != torch.float64
            return found

    scores = [torch.randn(1, 2, side, side) for side in (9, 5, 2)]
    with Single():
        assert get_loss("ce_dice")(scores, torch.randint(2, (1, 9, 9))).isfinite()


@pytest.mark.parametrize("name", LOSSES)
def test_short_types_are_computed_in_float32(name: str) -> None:
    logits = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    target = (logits + 0.3 > 0).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = get_loss(name)(logits.bfloat16(), target)
    assert short.dtype == torch.float32
    assert short.item() == pytest.approx(get_loss(name)(logits.bfloat16().float(), target).item(), rel=1e-6)


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_grow_with_the_distance(name: str) -> None:
    target = torch.zeros(1, 1, 20, 20)
    target[..., 8:12, 2:6] = 1
    near, far = (sure(target.roll(shift, -1)) for shift in (2, 12))
    loss = get_loss(name)
    assert loss(sure(target), target) < loss(near, target) < loss(far, target)
    numbers = target[:, 0].long()
    scores = torch.cat([-near, near], 1).requires_grad_()
    get_loss(name)(scores, numbers).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_added_to_its_partner(name: str) -> None:
    numbers = torch.zeros(2, 12, 12, dtype=torch.long)
    numbers[:, 3:8, 2:6] = 1
    numbers[1, -2:] = 255
    scores = torch.randn(2, 2, 12, 12, generator=torch.Generator().manual_seed(2))
    together, partner, alone = (
        get_loss(chosen, ignore_index=255, **arguments)(scores, numbers)
        for chosen, arguments in ((name, {"partner": "ce_dice", "weight": 0.25}), ("ce_dice", {}), (name, {}))
    )
    assert together.item() == pytest.approx((partner + 0.25 * alone).item(), rel=1e-6)
    assert get_loss(name, weight=0.5, ignore_index=255)(scores, numbers).item() == pytest.approx(alone.item() / 2, rel=1e-6)


@pytest.mark.parametrize("kind", ["M1", "M2", "M3"])
def test_alpha_of_focal_is_the_weight_of_all_classes_but_the_background(kind: str) -> None:
    scores, numbers = INPUTS[kind]
    theirs = monai.losses.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2, alpha=0.8, reduction="none")
    expected = theirs(scores.float(), numbers[:, None]).sum(1).mean().item()
    assert get_loss("focal", alpha=0.8)(scores, numbers).item() == pytest.approx(expected, abs=1e-6)
    assert get_loss("focal", alpha=0.8)(scores[:, :2], numbers.clamp(max=1)).item() == pytest.approx(
        get_loss("focal", alpha=0.8)(scores[:, 1:2] - scores[:, :1], numbers.clamp(max=1)[:, None].double()).item(), abs=1e-12
    )


@pytest.mark.parametrize("batch", [True, False])
def test_the_hinge_of_two_classes_is_that_of_the_mask_of_the_second(batch: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(3, 2, 5, 7, generator=generator, dtype=torch.float64)
    numbers = torch.randint(2, (3, 5, 7), generator=generator)
    numbers[0, 2] = 255
    loss = get_loss("lovasz_hinge", batch=batch, ignore_index=255)
    assert loss(scores, numbers).item() == pytest.approx(loss(scores[:, 1:] - scores[:, :1], numbers[:, None]).item(), abs=1e-12)
    assert loss(20 * (2.0 * torch.stack([numbers != 1, numbers == 1], 1) - 1), numbers).item() == 0


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("unknown", {}, "Use one of ce, bce, dice"),
        ("boundary", {"partner": "unknown"}, "Use one of ce, bce, dice"),
        ("dice", {"gamma": 2}, "cannot be made with gamma=2"),
        ("focal", {"alpha": 2.0}, "share from 0 to 1"),
        ("lovasz_softmax", {"classes": "some"}, '"present" or "all"'),
    ],
)
def test_what_no_loss_takes_is_a_sentence(name: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionsError, match=sentence):
        get_loss(name, **arguments)


def test_labels_that_do_not_fit_are_a_sentence() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    with pytest.raises(InputError, match="Labels of 2 x 4 x 5 do not fit scores of 2 x 3 x 4 x 4"):
        get_loss("dice")(logits, torch.zeros(2, 4, 5, dtype=torch.long))
    with pytest.raises(InputError, match="hold class 3, but the network has 3 classes, 0 to 2"):
        get_loss("dice")(logits, torch.full((2, 4, 4), 3))
    with pytest.raises(InputError, match="hold class -1"):
        get_loss("ce")(logits, torch.full((2, 4, 4), -1))
    with pytest.raises(InputError, match="at least one axis of space"):
        get_loss("ce")(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(OptionsError, match="use lovasz_softmax"):
        get_loss("lovasz_hinge")(logits, torch.zeros(2, 4, 4))


@pytest.mark.parametrize(
    ("kind", "discriminator", "generator", "at_zero"),
    [("bce", 1.18961182, 0.80765405, (2 * math.log(2), math.log(2))), ("least_squares", 0.58333333, 0.86833333, (0.5, 0.5))],
)
def test_adversarial_losses(kind: Any, discriminator: float, generator: float, at_zero: tuple[float, float]) -> None:
    real, fake = tensor([0.8, -0.3, 1.4]), tensor([0.2, -1.1, 0.6])
    loss = AdversarialLoss(kind)
    assert loss.discriminator(real, fake).item() == pytest.approx(discriminator, abs=6e-9)
    assert loss.generator(fake).item() == pytest.approx(generator, abs=6e-9)
    assert (loss.discriminator(0 * real, 0 * fake).item(), loss.generator(0 * fake).item()) == pytest.approx(at_zero)
    theirs = monai.losses.PatchAdversarialLoss(criterion=kind, **({"no_activation_leastsq": True} if kind == "least_squares" else {}))
    half = 0.5 if kind == "least_squares" else 1.0
    patches = (real.reshape(1, 1, 3).float(), fake.reshape(1, 1, 3).float())
    expected = half * (theirs(patches[0], True, True) + theirs(patches[1], False, True))
    assert loss.discriminator(*patches).item() == pytest.approx(float(expected), rel=1e-5)
    assert AdversarialLoss(kind, real_label=0.9).discriminator(real, fake) != loss.discriminator(real, fake)
    with pytest.raises(OptionsError, match='"bce" or "least_squares"'):
        AdversarialLoss("hinge")  # type: ignore[arg-type]
