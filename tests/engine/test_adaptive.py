"""Adaptive overlap: sums with their actual weights, windows only over seams that disagree, few of them, the same ones every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.adaptive import Refinement, codes
from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.events import Finished
from napari_tileseg.engine.journal import Keeper
from napari_tileseg.engine.run import run
from napari_tileseg.engine.tiles import Placed, plan_tiles
from napari_tileseg.engine.weights import importance
from napari_tileseg.errors import OptionsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.spec import ModelSpec


def spec_of(**changes: Any) -> ModelSpec:
    values = {"name": "m", "axes": "CYX", "channels": 1, "classes": ["background", "a", "b"], "window": (8, 8), **changes}
    return ModelSpec.model_validate(values)


def by_place(batch: torch.Tensor) -> torch.Tensor:
    """Three scores that depend on the place in the window, so that tiles disagree."""
    ramp = torch.linspace(-1, 1, batch[0, 0].numel()).reshape(batch.shape[2:])
    return torch.cat([batch * 0.3, ramp - batch, batch * 0 - ramp * ramp], dim=1)


def by_pixel(batch: torch.Tensor) -> torch.Tensor:
    return torch.cat([batch, -batch, batch * 0.5], dim=1)


def collect(
    image: np.ndarray, function: Any, spec: ModelSpec, *, skip: int = 0, wanted: Any = None, **options: Any
) -> tuple[ArraySink, int]:
    sink = ArraySink(image.shape[1:])
    predictor = FunctionPredictor(spec, function)
    *_, last = run(ArraySource(image), predictor, sink, options=SegmentOptions.parse(**options), keeper=Keeper(skip), wanted=wanted)
    assert isinstance(last, Finished)
    return sink, last.windows


def image_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


CASES = st.sampled_from([((41, 30), (8, 8)), ((16, 50), (8, 8)), ((50, 9), (8, 10)), ((23, 18, 15), (8, 6, 8)), ((5, 7), (8, 8))])


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), case=CASES, data=st.data())
def test_scores_are_the_mean_over_the_windows_that_were_computed(seed: int, case: Any, data: st.DataObject) -> None:
    shape, window = case
    image = image_of(seed, shape)
    spec = spec_of(window=window, axes="CZYX" if len(shape) == 3 else "CYX")
    chosen: list[Placed] = []
    with pytest.MonkeyPatch.context() as patch:
        choose = Refinement.choose

        def noted(self: Refinement, row: Any) -> list[Placed]:
            found = choose(self, row)
            chosen.extend(found)
            return found

        patch.setattr(Refinement, "choose", noted)
        batch = data.draw(st.integers(1, 4))
        sink, windows = collect(image, by_place, spec, scores=True, adaptive=True, batch=batch)
    plan = plan_tiles(shape, window, overlap=0.125, steps="even")
    tiles = [tile for row in plan.rows() for tile in plan.tiles(row.index)] + chosen
    assert windows == len(tiles)
    assert windows <= max(len(plan), len(plan_tiles(shape, window, overlap=0.5)) // 2)
    weights = importance(window, "gaussian", 0.125)
    padded = np.pad(image, ((0, 0), *plan.padding))
    sums, counts = np.zeros((3, *padded.shape[1:])), np.zeros(padded.shape[1:])
    for tile in tiles:
        place = tile.seen.relative_to(plan.seen.start).slices
        seen = torch.from_numpy(padded[(slice(None), *place)])[None]
        sums[(slice(None), *place)] += by_place(seen)[0].numpy() * weights
        counts[place] += weights
    inside = tuple(slice(before, before + size) for (before, _), size in zip(plan.padding, shape, strict=True))
    np.testing.assert_allclose(sink.scores, (sums / counts)[(slice(None), *inside)], rtol=0, atol=2e-5)
    again, _ = collect(image, by_place, spec, adaptive=True)
    np.testing.assert_array_equal(again.labels, sink.labels)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), skip=st.integers(0, 45), data=st.data())
def test_an_adaptive_run_goes_on_where_another_stopped(seed: int, skip: int, data: st.DataObject) -> None:
    image = image_of(seed, data.draw(st.sampled_from([(41, 20), (44, 9), (30, 30)])))
    whole, _ = collect(image, by_place, spec_of(), scores=True, adaptive=True)
    rest, _ = collect(image, by_place, spec_of(), scores=True, adaptive=True, skip=skip)
    if skip < image.shape[1]:
        np.testing.assert_allclose(rest.scores[:, skip:], whole.scores[:, skip:], rtol=0, atol=1e-6)  # type: ignore[index]
        np.testing.assert_array_equal(rest.labels[skip:], whole.labels[skip:])  # type: ignore[index]


def test_tiles_that_agree_need_no_more_windows() -> None:
    image = image_of(0, (60, 60))
    adaptive, few = collect(image, by_pixel, spec_of(), scores=True, adaptive=True)
    dense, many = collect(image, by_pixel, spec_of(), scores=True, overlap=0.5)
    np.testing.assert_allclose(adaptive.scores, dense.scores, rtol=0, atol=1e-5)
    assert (few, many) == (81, 196)
    _, more = collect(image, by_place, spec_of(), adaptive=True)
    assert few < more <= many // 2
    objects = spec_of(output="instances", decoder="watershed", heads=["f", "b", "d"], classes=["background", "cell"])
    assert collect(image, by_pixel, objects, adaptive=True)[1] == 81


@given(st.integers(0, 2**31))
def test_codes_tell_what_labels_tell(seed: int) -> None:
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 6, 5)).astype(np.float32))
    assert torch.equal(codes(scores, spec_of(), 0.5), scores.argmax(0).to(torch.int16))
    masks = codes(scores, spec_of(output="sigmoid"), 0.5)
    for place in range(3):
        assert torch.equal((masks >> place) & 1, (scores[place] >= 0).to(torch.int16))
    objects = spec_of(output="instances", decoder="watershed", heads=["f", "b", "d"], classes=["background", "cell"])
    assert torch.equal(codes(scores, objects, 0.5) > 0, scores[0] >= 0)


def test_cropped_tiles_have_no_seams_to_average() -> None:
    with pytest.raises(OptionsError, match="Adaptive overlap averages tiles"):
        collect(image_of(0, (20, 20)), by_place, spec_of(), adaptive=True, blending="crop")


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 30)),
    blending=st.sampled_from(["gaussian", "constant", "nnunet", "crop"]),
    output=st.sampled_from(["softmax", "sigmoid"]),
)
def test_leaving_tiles_out_changes_nothing_where_none_is_missing(seed: int, shape: tuple[int, int], blending: str, output: str) -> None:
    image = image_of(seed, shape)
    plain, every = collect(image, by_place, spec_of(output=output), scores=True, blending=blending)
    kept = np.random.default_rng(seed).random((shape[0] // 4 + 3, shape[1] // 4 + 3)) < 0.5

    def wanted(tile: Any) -> bool:
        return bool(kept[tile.start[0] // 4 + 1, tile.start[1] // 4 + 1])

    missing = np.zeros(shape, bool)
    covered = np.zeros(shape, bool)
    plan = plan_tiles(shape, (8, 8), overlap=0.5, blending=blending)
    for row in plan.rows():
        for tile in plan.tiles(row.index):
            (covered if wanted(tile.kept) else missing)[tile.kept.clipped(shape).slices] = True
    sink, windows = collect(image, by_place, spec_of(output=output), scores=True, blending=blending, wanted=wanted)
    assert sink.labels is not None
    assert sink.scores is not None
    np.testing.assert_allclose(sink.scores[:, ~missing], plain.scores[:, ~missing], rtol=0, atol=1e-6)  # type: ignore[index]
    assert not sink.labels[..., ~covered].any()
    assert windows <= every
    partly = covered & missing  # averages of the tiles that are there stay inside what these say
    assert np.abs(sink.scores[:, partly]).max(initial=0) <= np.abs(image).max() + 1


class Far(torch.Tensor):
    """On another device: of no use together with what is here, until it is brought."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == torch.Tensor.device.__get__:
            return torch.device("meta")
        if func is torch.Tensor.to:
            return args[0] if args[1].type == "meta" else args[0].as_subclass(torch.Tensor)
        if any(type(value) is torch.Tensor for value in args) and func is not torch.Tensor.as_subclass:
            raise RuntimeError("Expected all tensors to be on the same device")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_tiles_that_went_to_the_host_are_compared_with_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(3, (60, 40))
    expected, windows = collect(image, by_place, spec_of(), adaptive=True)
    note, noted = Refinement.note, []

    def far(self: Refinement, tile: Placed, scores: torch.Tensor) -> None:
        note(self, tile, scores)
        noted.append(tile)
        if len(noted) < 20:
            self._said[tile.kept] = self._said[tile.kept].as_subclass(Far)

    monkeypatch.setattr(Refinement, "note", far)
    found, again = collect(image, by_place, spec_of(), adaptive=True)
    assert again == windows
    np.testing.assert_array_equal(found.labels, expected.labels)
