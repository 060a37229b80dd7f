"""The training loop: it learns, it can be stopped at any step, and what it saves is enough to go on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import nn

from napari_tileseg.errors import ModelError, OptionsError, RunError
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.fit import CheckpointSaved, Finished, FitOptions, Step, fit, learning_rate
from napari_tileseg.training.losses import CrossEntropyDice
from napari_tileseg.training.objective import brought
from napari_tileseg.training.plan import Plan
from napari_tileseg.training.sampling import Batch
from napari_tileseg.training.trainer import layout

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = FitOptions(steps=6, learning_rate=0.01, precision="float32", checkpoint_every=3, average=0.5)


def batches(number: int) -> Batch:
    """Squares, brighter than their ground."""
    generator = torch.Generator().manual_seed(number)
    labels = torch.zeros(2, 16, 16, dtype=torch.long)
    for image in labels:
        top, left = torch.randint(0, 10, (2,), generator=generator).tolist()
        image[top : top + 6, left : left + 6] = 1
    image = labels[:, None].float() + 0.2 * torch.randn(2, 1, 16, 16, generator=generator)
    return Batch(image, labels, torch.zeros(2, 0, 16, 16), torch.ones(2))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))


def run(options: FitOptions = OPTIONS, **arguments: object) -> tuple[list[object], Finished]:
    events = list(fit(network(), CrossEntropyDice(), batches, options, report_every=2, **arguments))  # type: ignore[arg-type]
    assert isinstance(events[-1], Finished)
    return events, events[-1]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_it_learns() -> None:
    events, finished = run(FitOptions(steps=60, learning_rate=0.02, precision="float32", average=0.8))
    losses = [event.loss for event in events if isinstance(event, Step)]
    assert losses[-1] < 0.3 * losses[0]
    learnt = network()
    learnt.load_state_dict(finished.state)
    batch = batches(1000)
    with torch.no_grad():
        assert (learnt.eval()(batch.image).argmax(1) == batch.labels).float().mean() > 0.95


def test_the_same_seed_gives_the_same_weights() -> None:
    assert same(run()[1].state, run()[1].state)


def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    straight = run()[1]
    checkpoint = tmp_path / "new" / "checkpoint.pt"
    stops = iter([False, False, False, True])
    events, stopped = run(checkpoint=checkpoint, cancel=lambda: next(stops))
    assert stopped.cancelled
    assert stopped.step == 4
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [3, 4]
    events, resumed = run(checkpoint=checkpoint, resume=True)
    assert not resumed.cancelled
    assert resumed.step == 6
    assert resumed.seconds >= stopped.seconds
    assert same(resumed.state, straight.state)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.pt"]


def test_a_finished_run_has_nothing_to_add(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    first = run(checkpoint=checkpoint)[1]
    again = run(checkpoint=checkpoint, resume=True)[1]
    assert again.step == first.step
    assert same(again.state, first.state)


class PixelLoss(nn.Module):
    """A mean over pixels, so that parts of a batch add up to the whole."""

    def forward(self, scores: torch.Tensor, batch: Batch) -> torch.Tensor:
        return nn.functional.cross_entropy(scores, batch.labels)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_a_batch_and_learn_the_same(workers: int) -> None:
    states = []
    threads = torch.get_num_threads()
    for count in (1, workers):
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
        *_, finished = fit(plain, PixelLoss(), batches, replace(OPTIONS, workers=count))
        assert isinstance(finished, Finished)
        states.append(finished.state)
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-5)
    assert torch.get_num_threads() == threads


def test_the_clock_ends_a_run_that_is_too_slow() -> None:
    finished = run(replace(OPTIONS, steps=10**6, time_limit=0.3))[1]
    assert 0 < finished.step < 10**6
    assert 0.3 <= finished.seconds < 30


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match=r"checkpoint\.pt cannot be resumed from"):
        run(checkpoint=checkpoint, resume=True)


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    def poisoned(number: int) -> Batch:
        batch = batches(number)
        return replace(batch, image=batch.image * float("nan")) if number == 2 else batch

    with pytest.raises(RunError, match="at step 3"):
        list(fit(network(), CrossEntropyDice(), poisoned, OPTIONS))


def test_errors_of_the_data_reach_the_caller() -> None:
    def broken(number: int) -> Batch:
        raise OSError(f"batch {number} is gone")

    with pytest.raises(OSError, match="batch 0 is gone"):
        list(fit(network(), CrossEntropyDice(), broken, OPTIONS))


def test_the_rate_rises_falls_and_ends_at_zero() -> None:
    options = FitOptions(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step / 100, options) for step in range(101)]
    assert rates[0] == 0
    assert rates[10] == pytest.approx(1)
    assert rates[100] == pytest.approx(0)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("precision", "float8")])
def test_options_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(OptionsError, match=field):
        replace(OPTIONS, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "version", "precision"),
    [("cuda:0", (9, 0), "bfloat16"), ("cuda:1", (7, 5), "float32"), ("cuda", (6, 1), "float32"), ("mps", (0, 0), "float32")],
)
def test_a_gpu_learns_in_bfloat16_only_if_it_computes_in_it(
    device: str, version: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda place: version)
    plan: Any = SimpleNamespace(learning_rate=1e-3, epoch_steps=5)
    config = TrainConfig(output=str(tmp_path), images="images", labels="labels")
    assert Plan.fit_options(cast("Plan", plan), config, device).precision == precision


@pytest.mark.parametrize(("device", "waits"), [("cpu", True), ("mps", True), ("cuda:1", False)])
def test_labels_are_there_before_their_memory_may_go(device: str, waits: bool) -> None:
    """An Apple GPU reads the memory of what it was told to copy later, when something else may be in it."""
    asked: list[bool] = []

    class Labels:
        def to(self, place: torch.device, *, non_blocking: bool) -> None:
            asked.append(non_blocking)

    brought(cast("torch.Tensor", Labels()), torch.device(device))
    assert asked == [not waits]


def test_an_apple_gpu_learns_with_each_channel_by_itself() -> None:
    """Otherwise gradients of batch normalisation are wrong there (torch's own list of faults), and the training diverges."""
    assert [layout("mps", ndim) for ndim in (4, 5)] == [torch.contiguous_format] * 2
    assert [layout(device, 4) for device in ("cpu", "cuda")] == [torch.channels_last] * 2
    assert layout("cuda", 5) == torch.channels_last_3d
    image = torch.zeros(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    assert image.contiguous(memory_format=layout("mps", 4)).is_contiguous()
