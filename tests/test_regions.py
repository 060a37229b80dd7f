"""Several regions in one run: each as if it were asked for alone, nothing else, no pixel twice, and it can be interrupted."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_tileseg.engine import scan, tissue
from napari_tileseg.engine.events import Event, Finished, Planned, Progress, SlabDone
from napari_tileseg.engine.parts import frame
from napari_tileseg.errors import Cancelled, OptionsError, OutputError
from napari_tileseg.job import Job, SegmentOptions, regions_of, told
from napari_tileseg.models.predictor import Predictor, from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import estimate, segment
from napari_tileseg.replay import recall
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.job import Region

SIZES = {"T": 2, "Z": 7, "Y": 34, "X": 45}
KINDS: dict[str, dict[str, Any]] = {
    "softmax": {"classes": ["background", "a", "b"]},
    "sigmoid": {"output": "sigmoid", "classes": ["a", "b", "c"]},
    "instances": {
        "output": "instances",
        "decoder": "watershed",
        "heads": ["foreground", "border", "distance"],
        "classes": ["background", "cell"],
    },
    "anomaly": {"output": "anomaly", "classes": ["normal", "strange"], "decoder_parameters": {"threshold": 0.1}},
}


class CutOff(BaseException):
    """Stands for the end of the process: nothing may catch it."""


class Placed(torch.nn.Module):
    """Three channels that depend on the pixel, its neighbours and its place in the window, so that the tiling can be seen."""

    heads = 3

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        pool = torch.nn.functional.avg_pool2d if batch.ndim == 4 else torch.nn.functional.avg_pool3d
        smooth = pool(batch, 3, stride=1, padding=1)
        ramp = torch.linspace(-0.3, 0.3, batch[0, 0].numel()).reshape(batch.shape[2:])
        return torch.cat([smooth - 0.1, -smooth + ramp, batch * 0.5], dim=1)[:, : self.heads]


class Pixel(torch.nn.Module):
    """Returns what it gets: the same wherever the tiles lie."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([-batch, batch, batch - 1], dim=1)


class Counting(np.ndarray[Any, Any]):
    """Labels that count how often each pixel is written."""

    counts: np.ndarray

    def __setitem__(self, key: Any, value: Any) -> None:
        self.counts[key] += 1
        super().__setitem__(key, value)


def counting(shape: tuple[int, ...], dtype: Any = np.uint8) -> Counting:
    found = np.zeros(shape, dtype).view(Counting)
    found.counts = np.zeros(shape, int)
    return found


def model(kind: str = "softmax", *, module: torch.nn.Module | None = None, ndim: int = 2, **changes: Any) -> Predictor:
    base = {"name": "m", "axes": "C" + "ZYX"[-ndim:], "channels": 1, "window": (4, 8, 8)[-ndim:], "overlap": 0.5}
    network = module or Placed()
    if kind == "anomaly":
        network.heads = 1
    return from_module(network, ModelSpec.model_validate({**base, **KINDS[kind], **changes}), device="cpu")


def image_of(axes: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=[SIZES[axis] for axis in axes]).astype(np.float32)


def covered(shape: tuple[int, ...], regions: Any) -> np.ndarray:
    inside = np.zeros(shape, bool)
    for region in regions:
        inside[place(region)] = True
    return inside


def place(region: Region) -> tuple[slice, ...]:
    return tuple(slice(*span) for span in region)


def far(one: Region, other: Region, window: int = 8) -> bool:
    """Whether two regions do not see the same pixels."""
    return any(begin - stop > window or start - end > window for (start, stop), (begin, end) in zip(one[-2:], other[-2:], strict=True))


@st.composite
def several(draw: st.DrawFn, axes: str) -> tuple[Region, ...]:
    def span(axis: str) -> tuple[int, int]:
        start = draw(st.integers(0, SIZES[axis] - 1))
        return start, draw(st.integers(start + 1, min(SIZES[axis], start + 12)))

    return tuple(tuple(span(axis) for axis in axes) for _ in range(draw(st.integers(2, 4))))


@settings(max_examples=15, deadline=None)
@given(axes=st.sampled_from(["YX", "TYX", "ZYX"]), ndim=st.sampled_from([2, 3]), data=st.data())
def test_a_model_of_pixels_gives_the_pixels_of_the_regions_once(axes: str, ndim: int, data: st.DataObject) -> None:
    regions, image = data.draw(several(axes)), image_of(axes)
    predictor, out = model(module=Pixel(), ndim=ndim if axes == "ZYX" else 2), counting(image.shape)
    events: list[Event] = []
    result = segment(image, predictor, axes=axes, region=regions, out=out, on_event=events.append)
    inside = covered(image.shape, regions)
    np.testing.assert_array_equal(result.labels, np.where(inside, np.argmax([-image, image, image - 1], axis=0), 0))
    np.testing.assert_array_equal(out.counts, inside)
    planned = next(event.tiles for event in events if isinstance(event, Planned))
    done = [event.done for event in events if isinstance(event, Progress)]
    assert planned == done[-1] == result.windows == estimate(Volume(image, axes), predictor.spec, region=regions).tiles
    assert done == sorted(set(done))


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["softmax", "sigmoid", "anomaly"]),
    axes=st.sampled_from(["YX", "XY", "TYX"]),
    ratio=st.sampled_from([None, 0.5, 1.6]),
    restored=st.booleans(),
    data=st.data(),
)
def test_regions_that_are_far_apart_are_those_of_runs_of_their_own(
    kind: str, axes: str, ratio: float | None, restored: bool, data: st.DataObject
) -> None:
    regions = data.draw(several(axes))
    spacing: dict[str, Any] = {"spacing": (ratio, ratio)} if ratio else {}
    if ratio and restored:
        spacing["resampling"] = {"scores": {}}
    predictor = model(kind, **spacing)
    units = tuple("second" if axis == "T" else "micrometer" for axis in axes)
    volume = Volume.from_scale(image_of(axes), axes, (1,) * len(axes), units=units)
    options = SegmentOptions(scores=True)
    together = segment(volume, predictor, options=options, region=regions)
    assert together.scores is not None
    for region in regions:
        others = [other for other in regions if other is not region]
        if far(region, frame(others), pixels(ratio)):
            alone = segment(volume, predictor, options=options, region=region)
            assert alone.scores is not None
            inside = (..., *place(region))
            np.testing.assert_array_equal(together.labels[inside], alone.labels[inside])
            np.testing.assert_array_equal(together.scores[inside], alone.scores[inside])
    outside = ~covered(volume.shape, regions)
    assert not together.labels[..., outside].any()
    assert not together.scores[..., outside].any()


def pixels(ratio: float | None) -> int:
    """Return how many pixels of the image a window of 8 takes, and some for rounding."""
    return 8 if ratio is None else int(8 * ratio) + 3


def test_objects_of_regions_are_numbered_through_and_whole_where_regions_overlap() -> None:
    image = np.full((60, 90), -2, np.float32)
    for y, x in ((5, 5), (5, 70), (40, 10), (40, 70)):
        image[y : y + 8, x : x + 8] = 2
    image[20:24, 20:70] = 2  # long: through two regions that overlap
    predictor = model("instances")
    first, second = ((0, 18), (0, 20)), ((36, 60), (60, 90))
    result = segment(image, predictor, axes="YX", region=[first, second])
    for region, centre in ((first, (9, 9)), (second, (44, 74))):
        alone = segment(image, predictor, axes="YX", region=region).labels
        np.testing.assert_array_equal(result.labels[place(region)] > 0, alone[place(region)] > 0)
        assert result.labels[centre] > 0
    assert result.labels[9, 9] != result.labels[44, 74]
    assert result.counts == {"cell": 2}, "what is seen of others around them does not count"
    wide = segment(image, predictor, axes="YX", region=[((15, 30), (15, 45)), ((18, 28), (40, 75))])
    assert wide.labels[22, 22] == wide.labels[22, 42] == wide.labels[22, 68] > 0


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["softmax", "instances"]),
    cuts=st.lists(st.integers(2, 40), min_size=1, max_size=2),
    turned=st.booleans(),
    data=st.data(),
)
def test_wherever_it_is_cut_off_it_goes_on(
    kind: str, cuts: list[int], turned: bool, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    regions, image = data.draw(several("TYX")), image_of("TYX")
    options = SegmentOptions(batch=1)
    budget, scan.BUDGET = scan.BUDGET, 1 if turned else scan.BUDGET
    try:
        whole = segment(image, model(kind), axes="TYX", options=options, region=regions)
        out = np.zeros(whole.labels.shape, whole.labels.dtype)
        arguments: dict[str, Any] = {"axes": "TYX", "options": options, "region": regions, "out": out, "journal": folder / "journal"}
        for cut in cuts:
            count = itertools.count(1)

            def listen(event: Event, count: Any = count, cut: int = cut) -> None:
                if next(count) == cut:
                    raise CutOff

            try:
                segment(image, model(kind), on_event=listen, **arguments)
            except CutOff:
                continue
        result = segment(image, model(kind), **arguments)
    finally:
        scan.BUDGET = budget
    np.testing.assert_array_equal(result.labels, whole.labels)
    assert dict(result.provenance) == dict(whole.provenance)
    assert not any(folder.iterdir())


def test_cancelled_in_the_second_the_first_stays_and_the_run_goes_on(tmp_path: Path) -> None:
    image, predictor = image_of("YX"), model(module=Pixel())
    regions = (((0, 12), (0, 12)), ((20, 34), (30, 45)))
    out = np.zeros(image.shape, np.uint8)
    slabs: list[SlabDone] = []

    def note(event: Event) -> None:
        if isinstance(event, SlabDone):
            slabs.append(event)

    arguments: dict[str, Any] = {"axes": "YX", "region": regions, "out": out, "journal": tmp_path / "journal"}
    with pytest.raises(Cancelled):
        segment(image, predictor, on_event=note, cancel=lambda: bool(slabs) and slabs[-1].region[0][0] >= 20, **arguments)
    expected = (image > 0).astype(np.uint8)
    np.testing.assert_array_equal(out[place(regions[0])], expected[place(regions[0])])
    assert not (out[place(regions[1])] == expected[place(regions[1])]).all()
    with pytest.raises(OutputError, match="the region"):
        segment(image, predictor, **{**arguments, "region": regions[::-1]})
    events: list[Event] = []
    result = segment(image, predictor, on_event=events.append, **arguments)
    np.testing.assert_array_equal(result.labels, np.where(covered(image.shape, regions), expected, 0))
    assert all(event.region[0][0] >= 20 for event in events if isinstance(event, SlabDone)), "the first is not computed again"
    assert isinstance(events[-1], Finished)


def test_background_is_looked_for_once_for_all_regions_of_a_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    look = tissue.tissue_mask
    monkeypatch.setattr(tissue, "tissue_mask", lambda *given, **more: looked.append(given[2]) or look(*given, **more))
    image = np.zeros((2, 80, 90), np.float32)
    image[:, 5:15, 5:15] = 1
    regions = (((0, 2), (0, 20), (0, 20)), ((0, 2), (60, 80), (60, 90)))
    result = segment(image, model(module=Pixel()), axes="TYX", region=regions, options=SegmentOptions(skip_background=True))
    assert looked == [{"T": 0}, {"T": 1}]
    np.testing.assert_array_equal(result.labels, image)
    assert result.windows < segment(image, model(module=Pixel()), axes="TYX", region=regions).windows


def test_a_result_says_its_regions_and_can_be_repeated() -> None:
    regions = (((0, 12), (0, 12)), ((20, 34), (30, 45)))
    image = image_of("YX")
    several_ = segment(image, model(), axes="YX", region=regions)
    assert several_.provenance["region"] == [[[0, 12], [0, 12]], [[20, 34], [30, 45]]]
    one = segment(image, model(), axes="YX", region=[regions[0]])
    assert one.provenance["region"] == [[0, 12], [0, 12]], "one of several is one"
    again = recall(several_.provenance, model="nuclei-2d").job
    assert again.region == regions
    assert Job.model_validate_json(again.model_dump_json()) == again
    assert recall(one.provenance, model="nuclei-2d").job.region == regions[0]


@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=3).map(tuple), max_size=3))
def test_regions_survive_being_told(regions: list[Region]) -> None:
    assert regions_of(told(tuple(regions))) == tuple(regions)  # type: ignore[arg-type]


@pytest.mark.parametrize("region", [[], (3, 4), [[1]], [[["a", "b"]]], [((0, 1), (0, 1)), (0, 1)], 7])
def test_what_is_no_region_is_refused_in_one_sentence(region: Any) -> None:
    with pytest.raises(OptionsError, match="start and stop for each axis"):
        regions_of(region)
