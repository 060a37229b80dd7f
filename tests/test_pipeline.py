"""The one path from an image to its labels: every kind of axes, interruption, regions, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.events import Event, Finished, Planned, Progress, SlabDone, Warned
from napari_tileseg.errors import AxesError, Cancelled, InputError, OptionsError
from napari_tileseg.image import refuse_guesses
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor, from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import estimate, segment
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path


class Threshold(torch.nn.Module):
    """Class 1 where the first channel is above one half: what a network would do if it were perfect."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        bright = batch[:, :1] - 0.5
        return torch.cat([-bright, bright], dim=1)


def _spec(axes: str = "CYX", window: int = 8, **more: object) -> ModelSpec:
    values = {"name": "threshold", "axes": axes, "channels": 1, "classes": ["background", "cell"], "window": (window,) * (len(axes) - 1)}
    return ModelSpec.model_validate({**values, **more})


@pytest.fixture
def predictor() -> Predictor:
    return from_module(Threshold(), _spec(), device="cpu")


def _image(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) > 0.5).astype(np.float32)


@given(axes=st.sampled_from(["YX", "XY", "TYX", "YXT", "ZYX", "TZYX", "CYX", "YXC", "TCZYX", "ZCTXY"]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_labels_lie_where_the_image_is_bright_whatever_the_axes(axes: str, seed: int) -> None:
    sizes = {"T": 2, "C": 1, "Z": 3, "Y": 11, "X": 17}
    image = _image(tuple(sizes[axis] for axis in axes), seed)
    result = segment(image, from_module(Threshold(), _spec(), device="cpu"), axes=axes)
    expected = image.squeeze(axes.index("C")) if "C" in axes else image
    np.testing.assert_array_equal(result.labels, expected)
    assert result.axes == axes.replace("C", "")
    assert result.counts == {"background": int((expected == 0).sum()), "cell": int((expected == 1).sum())}


def test_a_volume_model_sees_volumes() -> None:
    image = _image((2, 9, 10, 11))
    result = segment(image, from_module(Threshold(), _spec("CZYX"), device="cpu"), axes="TZYX")
    np.testing.assert_array_equal(result.labels, image)


def test_events_cover_every_pixel_once_and_count_every_tile(predictor: Predictor) -> None:
    events: list[Event] = []
    image = _image((2, 30, 20))
    segment(image, predictor, axes="TYX", on_event=events.append)
    covered = np.zeros(image.shape, int)
    for event in events:
        if isinstance(event, SlabDone):
            covered[tuple(slice(*span) for span in event.region)] += 1
    assert (covered == 1).all()
    planned = next(event for event in events if isinstance(event, Planned))
    progress = [event for event in events if isinstance(event, Progress)]
    assert isinstance(events[0], Planned)
    assert isinstance(events[-1], Finished)
    assert progress[-1].done == progress[-1].total == planned.tiles
    assert [event.done for event in progress] == sorted({event.done for event in progress})


def test_a_cancelled_run_keeps_what_is_finished_and_goes_on_from_there(predictor: Predictor, tmp_path: Path) -> None:
    image = _image((3, 40, 20))
    mapped = map_axes("TYX", image.shape, predictor.spec)
    labels = np.full(mapped.result_shape, 7, mapped.result_dtype)
    slabs: list[SlabDone] = []

    def note(event: Event) -> None:
        if isinstance(event, SlabDone):
            slabs.append(event)

    with pytest.raises(Cancelled):
        segment(image, predictor, axes="TYX", out=labels, journal=tmp_path / "journal", on_event=note, cancel=lambda: len(slabs) == 6)
    rows = mapped.rows_until(slabs[-1].region)
    assert 0 < rows < 3 * 40
    np.testing.assert_array_equal(labels.reshape(-1, 20)[:rows], image.reshape(-1, 20)[:rows])
    assert (labels.reshape(-1, 20)[rows:] == 7).all()

    seen: list[Event] = []
    resumed = segment(image, predictor, axes="TYX", out=labels, journal=tmp_path / "journal", on_event=seen.append)
    np.testing.assert_array_equal(resumed.labels, image)
    first = next(event for event in seen if isinstance(event, SlabDone))
    assert mapped.rows_until(first.region) > rows
    progress = [event for event in seen if isinstance(event, Progress)]
    assert progress[0].done > 1
    assert progress[-1].done == progress[-1].total
    assert resumed.counts == {"background": int((image == 0).sum()), "cell": int((image == 1).sum())}


@given(data=st.data())
@settings(deadline=None, max_examples=15)
def test_a_region_is_computed_with_its_surroundings_and_nothing_else_is_touched(data: st.DataObject) -> None:
    image = np.random.default_rng(1).random((25, 33)).astype(np.float32)
    blur = torch.nn.Conv2d(1, 2, 5, padding=2, bias=False)
    torch.nn.init.constant_(blur.weight, 0.04)
    blur.weight.data[0] *= -1
    model = from_module(blur, _spec(window=16, overlap=0.75), device="cpu")
    y0, x0 = data.draw(st.integers(0, 24)), data.draw(st.integers(0, 32))
    region = ((y0, data.draw(st.integers(y0 + 1, 25))), (x0, data.draw(st.integers(x0 + 1, 33))))
    result = segment(image, model, axes="YX", region=region)
    outside = np.ones(image.shape, bool)
    outside[tuple(slice(*span) for span in region)] = False
    assert (result.labels[outside] == 0).all()
    assert result.provenance["region"] == [list(span) for span in region]


def test_scores_are_the_networks_own(predictor: Predictor) -> None:
    image = np.random.default_rng(0).random((3, 12, 12)).astype(np.float32)
    result = segment(image, predictor, axes="ZYX", options=SegmentOptions(scores=True))
    assert result.scores is not None
    assert result.scores.shape == (2, 3, 12, 12)
    np.testing.assert_allclose(result.scores[1], image - 0.5, atol=1e-6)


def test_overlapping_classes_come_as_masks() -> None:
    spec = _spec(output="sigmoid", classes=["dark", "bright"])
    image = _image((2, 12, 12))
    result = segment(image, from_module(Threshold(), spec, device="cpu"), axes="TYX")
    np.testing.assert_array_equal(result.labels, np.stack([image == 0, image == 1]).astype(np.uint8))
    assert result.labels_volume().axes == "CTYX"


def test_object_numbers_are_unique_over_planes() -> None:
    spec = _spec(output="instances", decoder="watershed", heads=["foreground", "border", "distance"], decoder_parameters={})

    class Heads(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.cat([20 * batch - 10, torch.full_like(batch, -10), batch], dim=1)

    image = np.zeros((3, 40, 40), np.float32)
    image[0, 3:20, 3:20] = image[1, 20:36, 5:20] = image[1, 2:12, 25:38] = image[2, 10:30, 10:30] = 1
    result = segment(image, from_module(Heads(), spec, device="cpu"), axes="ZYX")
    assert [sorted(set(np.unique(plane)) - {0}) for plane in result.labels] == [[1], [2, 3], [4]]
    assert result.counts == {"cell": 4}


@pytest.mark.parametrize("dtype", ["bool", "u1", "<i2", ">u2", "<u4", "<i8", "<f2", ">f4", "<f8"])
def test_every_type_of_number_gives_the_same_labels(dtype: str) -> None:
    image = _image((20, 20))
    spec = _spec(normalization={"kind": "percentile", "lower": 0, "upper": 100})
    result = segment(image.astype(dtype), from_module(Threshold(), spec, device="cpu"), axes="YX")
    np.testing.assert_array_equal(result.labels, image)


def test_warnings_say_what_was_odd(predictor: Predictor) -> None:
    spec = _spec(normalization={"kind": "zscore"})
    model = from_module(Threshold(), spec, device="cpu")
    image = np.ones((12, 12), np.float32)
    events: list[Event] = []
    result = segment(image, model, axes="YX", on_event=events.append)
    assert any("same value" in text for text in result.warnings)
    assert [event.message for event in events if isinstance(event, Warned)] == list(result.warnings)
    image[:3, 0] = np.nan
    assert any("3 values are NaN or infinite. They count as 0." in text for text in segment(image, model, axes="YX").warnings)


def test_one_pixel_is_an_image(predictor: Predictor) -> None:
    result = segment(np.ones((1, 1)), predictor, axes="YX")
    np.testing.assert_array_equal(result.labels, [[1]])


@pytest.mark.parametrize(
    ("image", "more", "error", "message"),
    [
        pytest.param(np.zeros((0, 4)), {"axes": "YX"}, InputError, "empty", id="empty"),
        pytest.param(np.zeros(9), {}, AxesError, "1 dimension", id="1D"),
        pytest.param(np.zeros((1,) * 6), {"axes": "TCZYXT"}, AxesError, "6 dimensions", id="6D"),
        pytest.param(np.zeros((4, 9, 9)), {}, AxesError, "can mean several things", id="ambiguous"),
        pytest.param(np.zeros((9, 9), complex), {"axes": "YX"}, InputError, "complex", id="complex numbers"),
        pytest.param(np.zeros((3, 9, 9)), {"axes": "CYX"}, InputError, "takes 1 channel; the image has 3", id="channels"),
        pytest.param(np.zeros((9, 9)), {"axes": "YX", "region": ((0, 10), (0, 9))}, OptionsError, "within 0 to 9", id="region"),
        pytest.param(np.zeros((9, 9)), {"axes": "YX", "options": SegmentOptions(window=(8, 8, 8))}, OptionsError, "8 x 8 x 8", id="window"),
    ],
)
def test_bad_input_gets_one_sentence(
    predictor: Predictor, image: np.ndarray, more: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        segment(image, predictor, **more)


def test_the_provenance_is_json_and_tells_neither_who_nor_when(predictor: Predictor) -> None:
    image = Volume.from_scale(_image((12, 12)), "YX", (0.5, 0.5), units=("micrometer", "micrometer"), name="field 7")
    first, second = (segment(image, predictor).provenance for _ in range(2))
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(second))
    assert first["input"]["name"] == "field 7"
    assert first["settings"]["window"] == [8, 8]


def test_the_estimate_is_what_the_run_does(predictor: Predictor) -> None:
    image = Volume(_image((2, 30, 20)), "TYX")
    events: list[Event] = []
    segment(image, predictor, on_event=events.append)
    planned = next(event for event in events if isinstance(event, Planned))
    guess = estimate(image, predictor.spec)
    assert guess.tiles == planned.tiles
    assert guess.disk_bytes == 2 * 30 * 20


def test_the_estimate_counts_the_tiles_that_hold_something() -> None:
    """What a run computes is known before it: exactly, where background is skipped."""
    image = np.full((4, 400, 300), 5, np.float32)
    image[:, 60:150, 40:120] = np.random.default_rng(0).integers(60, 200, (4, 90, 80))
    volume, model = Volume(image, "TYX"), from_module(Threshold(), _spec(window=32), device="cpu")
    options = SegmentOptions(skip_background=True)
    found = estimate(volume, model.spec, options=options)
    assert found.tiles == segment(volume, model, options=options).windows
    every = estimate(volume, model.spec).tiles
    assert 0 < found.tiles < every / 2
    assert found.notes == (f"{every - found.tiles} of {every} tiles hold no tissue or cells and are left out.",)


@pytest.mark.parametrize("shape", [(400, 300), (40, 33), (3, 90, 400)])
def test_the_estimate_of_adaptive_overlap_is_never_exceeded(shape: tuple[int, ...]) -> None:
    volume, model = Volume(_image(shape), "TYX"[-len(shape) :]), from_module(Threshold(), _spec(window=32), device="cpu")
    options = SegmentOptions(adaptive=True)
    found = estimate(volume, model.spec, options=options)
    assert segment(volume, model, options=options).windows <= found.tiles
    assert found.tiles <= max(estimate(volume, model.spec, options=SegmentOptions(overlap=0.1)).tiles, estimate(volume, model.spec).tiles)
    if len(shape) == 2 and shape[0] > 100:
        (note,) = found.notes
        assert note.startswith("Up to ")


def test_a_huge_image_is_not_read_to_say_what_a_run_needs() -> None:
    class Huge:
        shape, dtype = (40_000, 40_000), np.dtype(np.uint8)

        def __getitem__(self, key: object) -> np.ndarray:
            raise AssertionError("nobody has asked for pixels")

    found = estimate(Volume(Huge(), "YX"), _spec(window=512), options=SegmentOptions(skip_background=True))
    assert "is seen only when the run looks at the image" in found.notes[0]


def test_a_lazy_image_gives_the_same_labels_and_is_never_read_whole(predictor: Predictor) -> None:
    image = _image((64, 48))
    largest = 0

    class Lazy:
        shape, dtype = image.shape, image.dtype

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            nonlocal largest
            block = image[key]
            largest = max(largest, block.size)
            return block

    np.testing.assert_array_equal(segment(Volume(Lazy(), "YX"), predictor).labels, image)
    assert largest < image.size / 4


def test_thick_slices_are_resampled_to_the_models_pixels_and_labels_come_back() -> None:
    spec = _spec("CZYX", spacing=(1, 1, 1), spacing_unit="millimeter")
    model = from_module(Threshold(), spec, device="cpu")
    image = np.zeros((6, 20, 20), np.float32)
    image[2:5, 6:15, 3:9] = 1
    volume = Volume.from_scale(image, "ZYX", (3000, 1000, 1000), units=("micrometer",) * 3)
    slabs: list[SlabDone] = []
    result = segment(volume, model, on_event=lambda event: slabs.append(event) if isinstance(event, SlabDone) else None)
    assert result.provenance["settings"]["grid"] == [18, 20, 20]
    np.testing.assert_array_equal(result.labels, image)
    assert [slab.region[0] for slab in slabs][-1][1] == 6
    assert estimate(volume, spec).tiles == estimate(np.zeros((18, 20, 20)), spec).tiles
    plain = segment(volume, model, options=SegmentOptions(rescale=False))
    assert plain.provenance["settings"]["grid"] == [6, 20, 20]
    assert any("not resampled" in text for text in plain.warnings)


def test_the_fast_way_is_tried_once_for_all_planes_and_noted() -> None:
    calls = 0

    class Counting(Threshold):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return super().forward(batch)

    model = from_module(Counting(), _spec(window=16), device="cpu")
    image = np.random.default_rng(0).random((60, 16, 16)).astype(np.float32)
    result = segment(image, model, axes="ZYX", options=SegmentOptions(precision="auto"))
    np.testing.assert_array_equal(result.labels, image > 0.5)
    settings = result.provenance["settings"]
    assert settings["precision"] in ("exact", "bfloat16", "bfloat16, channels last", "channels last")
    assert settings["precision_reason"]
    # Four ways are warmed up and timed three times each, then looked at; afterwards every plane is computed once.
    assert calls <= 4 * 4 + 4 + 60


def test_the_provenance_tells_how_many_tiles_went_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_tileseg.engine import precision

    image, model = _image((64, 64)), from_module(Threshold(), _spec(window=16), device="cpu")

    def batch(fast: bool, **options: Any) -> int:
        monkeypatch.setattr(precision, "decide", lambda *given, **more: precision.Verdict(fast, "told so", batch=3))
        result = segment(Volume(image, "YX"), model, options=SegmentOptions(precision="auto", **options))
        found: int = result.provenance["settings"]["batch"]
        return found

    assert [batch(True), batch(False), batch(True, batch=2)] == [3, 1, 2]


@pytest.mark.parametrize(
    ("shape", "axes", "guessed", "examples"),
    [
        ((4, 8, 8), "ZYX", "Z", ["ZYX", "TYX", "CYX"]),
        ((2, 3, 8, 8), "TZYX", "TZ", ["TZYX", "ZTYX", "ZCYX"]),
        ((2, 3, 4, 8, 8), "TCZYX", "TCZ", ["TCZYX", "ZTCYX", "ZCTYX"]),
    ],
)
def test_axes_that_were_guessed_are_asked_for_with_examples_that_fit(
    shape: tuple[int, ...], axes: str, guessed: str, examples: list[str]
) -> None:
    volume = Volume.from_scale(np.zeros(shape, np.uint8), axes, (1,) * len(axes))
    volume = replace(volume, metadata={"guessed_axes": guessed})
    spec = ModelSpec(name="m", axes="CYX", channels=1, classes=["background", "cell"], window=(8, 8))
    with pytest.raises(AxesError) as refused:
        refuse_guesses(volume, "a.tif", spec, how="Give --axes")
    found = str(refused.value).rpartition("for example ")[2].rstrip(".").split(" or ")
    assert set(examples) <= set(found)
    assert all(len(set(example)) == len(example) == len(shape) for example in found)
