"""The fast way is taken only where the labels of this run's own tiles stay the same, and only where it is faster."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.events import Warned
from napari_tileseg.engine.precision import Verdict, agreement, contrast_tiles, decide, object_agreement
from napari_tileseg.engine.run import run
from napari_tileseg.engine.tiles import plan_tiles
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AUTO = SegmentOptions(precision="auto")


def spec_of(**changes: Any) -> ModelSpec:
    values = {"name": "m", "axes": "CYX", "channels": 1, "classes": ["background", "cell"], "window": (16, 16), **changes}
    return ModelSpec.model_validate(values)


def fast_is(*, faster: bool) -> Callable[[], float]:
    """Return a clock on which exact passes take 2 s and fast ones 1 s, or the other way round."""
    # Exact and fast passes take turns, and each looks at the clock twice.
    lengths = (2.0, 1.0) if faster else (1.0, 2.0)
    ticks = count()
    now = 0.0

    def clock() -> float:
        nonlocal now
        number = next(ticks)
        if number % 2:
            now += lengths[number // 2 % 2]
        return now

    return clock


def bright(batch: torch.Tensor) -> torch.Tensor:
    """Scores with a wide gap around their decision, in whatever arithmetic is on."""
    kernel = torch.ones((1, 1, 1, 1))
    return torch.cat([batch * 0 + 0.5, torch.nn.functional.conv2d(batch, kernel)], 1)


def offset_in_bfloat16(by: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a network whose scores move when it computes in bfloat16."""

    def scores(batch: torch.Tensor) -> torch.Tensor:
        product = torch.nn.functional.conv2d(batch, torch.ones((1, 1, 1, 1)))
        moved = product + by if product.dtype == torch.bfloat16 else product
        return torch.cat([batch * 0 + 0.5, moved], 1)

    return scores


def blocks(*, cell: float = 1.0) -> np.ndarray:
    image = np.zeros((1, 64, 64), dtype=np.float32)
    image[0, 10:30, 10:30] = cell
    image[0, 40:60, 36:50] = cell
    return image


def test_equal_labels_and_more_speed_are_taken() -> None:
    verdict = decide(ArraySource(blocks()), FunctionPredictor(spec_of(), bright), AUTO, timer=fast_is(faster=True))
    assert verdict == Verdict(True, "bfloat16: 2.0 times as fast, agreement 1.0000 on 4 tiles.", "bfloat16", batch=7)


def sizes_of(image: np.ndarray, options: SegmentOptions, verdict: Verdict | None = None, *, most: int = 99) -> list[int]:
    """Segment an image with a network that takes no more tiles at once; return how many it was given in the run itself."""

    def scores(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > most:
            raise ValueError("one at a time, please")
        sizes.append(len(batch))
        return bright(batch)

    sizes: list[int] = []
    sink, predictor = ArraySink(image.shape[1:]), FunctionPredictor(spec_of(), scores)
    verdict = verdict or decide(ArraySource(image), predictor, options, timer=fast_is(faster=True))
    assert verdict.fast or options.precision == "exact"
    sizes.clear()
    list(run(ArraySource(image), predictor, sink, options=options, verdict=verdict))
    np.testing.assert_array_equal(sink.labels, image[0] > 0.5)
    return sizes


def test_small_tiles_are_computed_together_where_that_is_faster() -> None:
    assert sizes_of(blocks(), AUTO) == [7] * 7
    assert sizes_of(blocks(), AUTO.model_copy(update={"batch": 2})) == [2, 2, 2, 1] * 7
    assert sizes_of(blocks(), AUTO.model_copy(update={"precision": "exact"}), Verdict(False)) == [1] * 49
    assert sizes_of(blocks(), AUTO, Verdict(True, "told by an earlier run")) == [1] * 49


def test_a_network_that_takes_one_tile_only_gets_one() -> None:
    assert sizes_of(blocks(), AUTO, most=1) == [1] * 49


def test_no_speed_no_risk() -> None:
    verdict = decide(ArraySource(blocks()), FunctionPredictor(spec_of(), bright), AUTO, timer=fast_is(faster=False))
    assert not verdict.fast
    assert "no faster" in verdict.reason


def test_changed_labels_are_refused() -> None:
    predictor = FunctionPredictor(spec_of(), offset_in_bfloat16(-0.6))
    verdict = decide(ArraySource(blocks()), predictor, AUTO, timer=fast_is(faster=True))
    assert not verdict.fast
    assert "agreement 0.000" in verdict.reason


def test_agreement_of_the_background_does_not_count() -> None:
    predictor = FunctionPredictor(spec_of(), bright)
    verdict = decide(ArraySource(blocks(cell=0.1)), predictor, AUTO, timer=fast_is(faster=True))
    assert not verdict.fast
    assert "nothing to compare" in verdict.reason


def test_masks_are_compared_one_by_one() -> None:
    spec = spec_of(output="sigmoid")
    assert decide(ArraySource(blocks() * 9 - 4), FunctionPredictor(spec, bright), AUTO, timer=fast_is(faster=True)).fast
    moved = FunctionPredictor(spec, offset_in_bfloat16(-9))
    assert not decide(ArraySource(blocks() * 9 - 4), moved, AUTO, timer=fast_is(faster=True)).fast


def test_objects_are_matched() -> None:
    spec = spec_of(output="instances", decoder="watershed", heads=["foreground", "border", "distance"])

    def scores(batch: torch.Tensor) -> torch.Tensor:
        product = torch.nn.functional.conv2d(batch, torch.ones((1, 1, 1, 1)))
        return torch.cat([product * 9 - 4, batch * 0 - 9, product], 1)

    assert decide(ArraySource(blocks()), FunctionPredictor(spec, scores), AUTO, timer=fast_is(faster=True)).fast


def test_the_run_says_that_it_stays_exact_and_does() -> None:
    image, predictor = blocks(), FunctionPredictor(spec_of(), offset_in_bfloat16(-0.6))
    sink = ArraySink(image.shape[1:])
    events = list(run(ArraySource(image), predictor, sink, options=AUTO))
    (warning,) = [event.message for event in events if isinstance(event, Warned)]
    assert "stays exact" in warning
    np.testing.assert_array_equal(sink.labels, image[0] > 0.5)


@pytest.mark.parametrize("fast", [False, True])
def test_a_verdict_given_is_followed(fast: bool) -> None:
    image, predictor = blocks(), FunctionPredictor(spec_of(), offset_in_bfloat16(-0.6))
    sink = ArraySink(image.shape[1:])
    list(run(ArraySource(image), predictor, sink, options=AUTO, verdict=Verdict(fast, "told so")))
    np.testing.assert_array_equal(sink.labels, (image[0] > 0.5) & (not fast))


def test_tiles_with_contrast_are_chosen() -> None:
    image = np.zeros((1, 160, 160), dtype=np.float32)
    image[0, 100:130, 100:130] = np.random.default_rng(0).normal(size=(30, 30))
    plan = plan_tiles((160, 160), (32, 32), overlap=0.0)
    chosen = contrast_tiles(ArraySource(image), plan, count=2, candidates=len(plan))
    assert {tile.start for tile, _ in chosen} == {(96, 96)} | {tile.start for tile, _ in chosen}
    assert all(pixels.std() > 0 for _, pixels in chosen)
    assert chosen[0][0].start == (96, 96)


def test_agreement_is_that_of_the_worst_class() -> None:
    exact = np.array([0, 0, 1, 1, 2, 2])
    assert agreement(exact, exact, [1, 2]) == 1
    assert agreement(exact, np.array([0, 0, 1, 1, 2, 0]), [1, 2]) == pytest.approx(2 / 3)
    assert agreement(exact * 0, exact * 0, [1, 2]) is None
    assert agreement(exact, exact * 0, [1, 2]) == 0


def test_object_agreement_counts_matches() -> None:
    exact = np.array([1, 1, 1, 0, 2, 2, 0, 3])
    assert object_agreement(exact, exact[::-1].copy()[::-1]) == 1
    found = np.array([7, 7, 0, 0, 5, 5, 0, 0])
    assert object_agreement(exact, found, least=0.6) == pytest.approx(2 * 2 / 5)
    assert object_agreement(exact, found) == pytest.approx(2 * 1 / 5)  # two thirds of the first object are not enough
    assert object_agreement(exact * 0, exact * 0) is None


def test_random_weights_on_noise_are_never_computed_in_bfloat16() -> None:
    torch.manual_seed(0)
    network = UNet(2, 1, 3, (8, 16, 32), (2, 2), num_res_units=1)
    predictor = from_module(network, spec_of(classes=["a", "b", "c"], window=(64, 64)), device="cpu")
    noise = np.random.default_rng(0).normal(size=(1, 192, 192)).astype(np.float32)
    slower = count(step=-1.0)  # every look at the clock is earlier: each way seems faster than the one before
    verdict = decide(ArraySource(noise), predictor, AUTO, timer=lambda: -(float(next(slower)) ** 2))
    assert not verdict.fast or verdict.backend == "channels last"


def test_a_check_that_costs_more_than_it_saves_is_not_made() -> None:
    predictor = FunctionPredictor(spec_of(), bright)
    few = decide(ArraySource(blocks()), predictor, AUTO, tiles=5, timer=fast_is(faster=True))
    assert not few.fast
    assert "5 tiles" in few.reason
    assert decide(ArraySource(blocks()), predictor, AUTO, tiles=500, timer=fast_is(faster=True)).fast


def test_a_way_that_fails_is_left_out() -> None:
    def scores(batch: torch.Tensor) -> torch.Tensor:
        product = torch.nn.functional.conv2d(batch, torch.ones((1, 1, 1, 1)))
        if product.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for BFloat16")
        return torch.cat([batch * 0 + 0.5, product], 1)

    assert not decide(ArraySource(blocks()), FunctionPredictor(spec_of(), scores), AUTO).fast


def test_speed_is_measured_once_and_agreement_every_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path))
    calls = 0

    def counted(batch: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return bright(batch)

    spec, source = spec_of(weights_sha256="0" * 64), ArraySource(blocks())
    first = decide(source, FunctionPredictor(spec, counted), AUTO, timer=fast_is(faster=True))
    assert first.fast
    calls = 0
    assert decide(source, FunctionPredictor(spec, counted), AUTO, timer=fast_is(faster=False)) == first
    assert calls == 2 * 4  # the four tiles in both ways, no timing
    assert not decide(source, FunctionPredictor(spec, offset_in_bfloat16(-0.6)), AUTO).fast
