"""The adversarial term: off it changes nothing, on it is learnt, told, saved and gone on with."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scenes import config, folders
from torch import Tensor, nn

from napari_tileseg import train
from napari_tileseg.errors import OptionsError
from napari_tileseg.training.adversary import Adversary
from napari_tileseg.training.events import EpochEnded, StepEnded
from napari_tileseg.training.prepare import IGNORED
from napari_tileseg.training.targets import object_maps, touching

if TYPE_CHECKING:
    from pathlib import Path

PARTS = {"segmentation", "adversarial", "discriminator"}


def equal(one: Path, other: Path) -> bool:
    here, there = load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")
    return here.keys() == there.keys() and all(torch.equal(here[key], there[key]) for key in here)


def adversary(size: tuple[int, ...] = (24, 24), **changes: Any) -> Adversary:
    return Adversary(0.1, **{"kind": "bce", "channels": 1, "classes": 3, "size": size, **changes})


def example(size: tuple[int, ...] = (24, 24)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, *size), generator=generator)
    return torch.randn(2, 1, *size, generator=generator), torch.randn(2, 3, *size, generator=generator), labels


def gradients(judge: Adversary) -> list[Tensor]:
    return [parameter.grad for parameter in judge.network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("objects", [False, True])
def test_off_it_is_plain_training_and_on_it_is_not(tmp_path: Path, *, objects: bool) -> None:
    places: dict[str, Any] = {**folders(tmp_path, objects=objects), **({"task": "instances"} if objects else {})}
    train(config(tmp_path / "plain", **places))
    train(config(tmp_path / "off", **places, adversarial=0.0, adversarial_kind="least_squares"))
    told: list[Any] = []
    train(config(tmp_path / "on", **places, adversarial=0.1), on_event=told.append)
    assert all(event.losses["discriminator"] > 0 for event in told if isinstance(event, EpochEnded))
    assert equal(tmp_path / "plain", tmp_path / "off")
    assert not equal(tmp_path / "plain", tmp_path / "on")


def test_its_first_weights_leave_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other = adversary(), adversary()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["bce", "least_squares"])
@pytest.mark.parametrize("size", [(24, 24), (6, 7), (8, 12, 12)])
def test_each_side_gets_its_own_gradients_only(kind: str, size: tuple[int, ...]) -> None:
    judge = adversary(size, kind=kind)
    image, scores, labels = example(size)
    scores.requires_grad_()
    judge.term(image, scores, labels).backward()
    assert not gradients(judge)
    assert scores.grad is not None and scores.grad.abs().sum() > 0
    scores.grad = None
    judge.learn(image, scores, labels, 1.0)
    assert scores.grad is None
    assert all(gradient.isfinite().all() for gradient in gradients(judge))
    assert len(gradients(judge)) == len(list(judge.network.parameters()))


def test_the_discriminator_learns_to_tell_and_the_network_to_deceive_it() -> None:
    judge = adversary()
    image, scores, labels = example()
    losses = []
    for _ in range(40):
        judge.forget()
        losses.append(judge.learn(image, scores, labels, 1.0))
        judge.step()
    assert losses[-1] < 0.5 * losses[0]
    scores.requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=0.1)
    terms = []
    for _ in range(40):
        optimizer.zero_grad()
        term = judge.term(image, scores, labels)
        term.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        terms.append(float(term.detach()))
    assert terms[-1] < 0.5 * terms[0]


def test_what_nobody_has_labelled_says_nothing() -> None:
    judge = adversary()
    image, scores, labels = example()
    labels[:, :12] = IGNORED
    other = scores.clone()
    other[:, :, :12] += 3
    assert judge.term(image, scores, labels) == judge.term(image, other, labels)
    assert judge.learn(image, scores, labels, 1.0) == judge.learn(image, other, labels, 1.0)


def objects(size: tuple[int, ...] = (24, 24)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return two images of touching objects, good scores, labels and maps."""
    labels = torch.zeros(2, *size, dtype=torch.int64)
    labels[:, 4:12, 4:12], labels[:, 12:20, 6:14], labels[1, 2:4, 16:22] = 1, 2, 3
    maps = torch.from_numpy(np.stack([object_maps(plane.numpy().astype(np.int32)) for plane in labels]))
    masks = torch.stack([labels > 0, touching(labels)], 1).float()
    image = masks[:, :1] + 0.1 * torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))
    return image, torch.cat([4 * masks - 2, maps[:, :1]], 1), labels, maps


def test_of_objects_it_sees_what_the_loss_compares() -> None:
    judge = adversary(objects=True)
    image, scores, labels, maps = objects()
    right = judge.learn(image, scores, labels, 1.0, maps=maps)
    masks = torch.stack([labels > 0, touching(labels)], 1).float()
    sure = torch.cat([math.log(0.9 / 0.1) * (2 * masks - 1), maps[:, :1]], 1)
    made, real = judge._pairs(image, sure, labels, maps)
    torch.testing.assert_close(made, real)
    assert right != judge.learn(image, sure, labels, 1.0, maps=maps)
    below = sure - torch.tensor([0.0, 0.0, 0.5]).view(1, 3, 1, 1) * (labels == 0)[:, None]
    assert judge.term(image, below, labels, maps) == judge.term(image, sure, labels, maps), "a distance below 0 means 0"


@pytest.mark.parametrize("head", range(3))
def test_every_head_of_objects_can_deceive_it(head: int) -> None:
    judge = adversary(objects=True)
    image, scores, labels, maps = objects()
    scores[:, 2] = scores[:, 2].clamp(0.1, 0.9)
    scores.requires_grad_()
    judge.term(image, scores, labels, maps).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad[:, head].abs().sum() > 0
    assert not gradients(judge)


def test_objects_that_nobody_has_drawn_say_nothing() -> None:
    judge = adversary(objects=True)
    image, scores, labels, maps = objects()
    labels[:, :12] = IGNORED
    other = scores.clone()
    other[:, :, :12] += 1
    assert judge.term(image, scores, labels, maps) == judge.term(image, other, labels, maps)
    assert judge.learn(image, scores, labels, 1.0, maps=maps) == judge.learn(image, other, labels, 1.0, maps=maps)


def test_scores_without_their_border_are_judged_with_the_middle_of_the_image() -> None:
    judge = adversary()
    image, scores, labels = example()
    wide = nn.functional.pad(image, (4, 4, 4, 4))
    assert judge.term(wide, scores, nn.functional.pad(labels, (4, 4, 4, 4))) == judge.term(image, scores, labels)


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings: dict[str, Any] = {**folders(tmp_path), "adversarial": 0.1, "epochs": 3}
    told: list[Any] = []
    train(config(tmp_path / "straight", **settings), on_event=told.append)
    steps: list[int] = []

    def listen(event: Any) -> None:
        if isinstance(event, StepEnded):
            steps.append(event.step)

    train(config(tmp_path / "m", **settings), on_event=listen, cancel=lambda: len(steps) >= 6)
    assert steps[-1] == 6
    spec = train(config(tmp_path / "m", **settings))
    assert equal(tmp_path / "m", tmp_path / "straight")
    epochs = [event for event in told if isinstance(event, EpochEnded)]
    assert all(set(event.losses) == PARTS for event in epochs)
    for event in epochs:
        assert event.loss == pytest.approx(event.losses["segmentation"] + 0.1 * event.losses["adversarial"], rel=1e-5)
    first = next(event for event in told if isinstance(event, StepEnded))
    assert first.losses["adversarial"] == 0, "it does not count during the warm-up"
    rows = list(csv.DictReader((tmp_path / "m" / "curves.csv").read_text().splitlines()))
    assert [float(row["discriminator"]) for row in rows] == [event.losses["discriminator"] for event in epochs]
    assert set(spec.training["curves"]) == {"loss", "score", *PARTS}
    assert "discriminator" in (tmp_path / "m" / "CARD.md").read_text()


def test_what_it_cannot_judge_is_one_sentence() -> None:
    with pytest.raises(OptionsError, match="6 pixels or more"):
        adversary((5, 40))
