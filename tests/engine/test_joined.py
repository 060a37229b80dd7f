"""Models that give labels themselves: objects of overlapping tiles become those of the whole image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_tileseg.engine.events import Event, SlabDone
from napari_tileseg.engine.joined import Joined, same
from napari_tileseg.engine.objects import renumber
from napari_tileseg.engine.tiles import Tile, plan_tiles
from napari_tileseg.errors import Cancelled, ModelError, OptionsError, PredictorError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.ensemble import combine
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from pathlib import Path


class Components:
    """A model without a network: numbers the bright components of each tile, in another order each time."""

    device = "cpu"

    def __init__(self, spec: ModelSpec, dtype: torch.dtype = torch.int32) -> None:
        self.spec, self.dtype, self.calls = spec, dtype, 0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        found = []
        for tile in batch[:, 0].numpy():
            self.calls += 1
            labels, count = ndimage.label(tile > 0.5, np.ones((3,) * tile.ndim))
            order = np.random.default_rng(self.calls).permutation(count) + 1
            found.append(np.concatenate([[0], 3 * order])[labels])
        return torch.from_numpy(np.stack(found)[:, None]).to(self.dtype)


def card(window: tuple[int, ...], **more: Any) -> ModelSpec:
    axes = "CZYX" if len(window) == 3 else "CYX"
    values = {"name": "parts", "axes": axes, "channels": 1, "classes": ["background", "cell"], "window": window, "output": "labels"}
    return ModelSpec.model_validate({**values, **more})


def blobs(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    return (noise > 0.9 * noise.std()).astype(np.float32)


def components(image: np.ndarray) -> np.ndarray:
    return renumber(ndimage.label(image, np.ones((3,) * image.ndim))[0])[0]


CASES = st.one_of(
    st.tuples(st.tuples(st.integers(5, 150), st.integers(5, 90)), st.just((40, 32))),
    st.tuples(st.tuples(*[st.integers(5, 50)] * 3), st.just((24, 28, 24))),
)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), case=CASES, overlap=st.sampled_from([0.5, 0.7]), steps=st.sampled_from(["fixed", "even"]))
def test_objects_of_tiles_are_those_of_the_whole_image(
    seed: int, case: tuple[tuple[int, ...], tuple[int, ...]], overlap: float, steps: str
) -> None:
    shape, window = case
    image = blobs(seed, shape)
    result = segment(image, Components(card(window, steps=steps)), axes="ZYX"[-len(shape) :], options=SegmentOptions(overlap=overlap))
    expected = components(image)
    np.testing.assert_array_equal(result.labels, expected)
    assert result.counts == {"cell": int(expected.max())}
    assert result.labels.dtype == np.int32


def test_an_object_may_wind_through_all_tiles() -> None:
    image = np.zeros((200, 120), np.float32)
    for start in range(10, 190, 40):
        image[start : start + 8, 10:110] = 1
    for index, start in enumerate(range(10, 150, 40)):
        image[start : start + 48, slice(102, 110) if index % 2 else slice(10, 18)] = 1
    image[100:104, 60:64] = 1  # another one, beside it
    result = segment(image, Components(card((32, 32))), axes="YX")
    np.testing.assert_array_equal(result.labels, components(image))


def test_the_longest_axis_may_be_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_tileseg.engine.scan.BUDGET", 1)
    image = blobs(3, (40, 180))
    result = segment(image, Components(card((32, 32))), axes="YX")
    expected = components(image)
    np.testing.assert_array_equal(renumber(result.labels)[0], expected)
    assert result.labels[:, :20].max() < expected.max() / 2  # numbered along X


def test_small_objects_go_and_planes_go_on_counting() -> None:
    image = np.stack([blobs(5, (70, 60)), blobs(6, (70, 60))])
    result = segment(image, Components(card((32, 32), decoder_parameters={"match": 0.4})), axes="TYX", options=SegmentOptions(min_size=30))
    kept = 0
    for plane, found in zip(image, result.labels, strict=True):
        expected = components(plane)
        expected[np.bincount(expected.ravel())[expected] < 30] = 0
        expected, count = renumber(expected)
        np.testing.assert_array_equal(found, np.where(expected > 0, expected + kept, 0))
        kept += count
    assert result.counts == {"cell": kept}
    assert result.warnings == ()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_labels_come_in_any_type_and_valid_convolutions_lose_pixels(dtype: torch.dtype) -> None:
    class Valid(Components):
        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            return super().__call__(batch[:, :, 4:-4, 4:-4])

    image = blobs(7, (90, 70))
    image = np.where(components(image) % 2, image, 0)  # few enough for 8 bits times 3
    result = segment(image, Valid(card((40, 40), output_offset=(4, 4)), dtype), axes="YX")
    found = renumber(result.labels)[0]
    np.testing.assert_array_equal(found, components(image))


def test_a_killed_run_goes_on_with_the_same_objects(tmp_path: Path) -> None:
    image = blobs(11, (160, 60))
    image[20:140, 30] = 1  # one that is open most of the time
    whole = segment(image, Components(card((32, 32))), axes="YX").labels
    out = np.zeros(whole.shape, np.int32)
    calls = total = 0
    for allowed in (12, 13, 9, 1000):
        model = Components(card((32, 32)))

        def tired(model: Components = model, allowed: int = allowed) -> bool:
            return model.calls >= allowed

        try:
            segment(image, model, axes="YX", out=out, journal=tmp_path / "journal", cancel=tired)
        except Cancelled:
            calls += model.calls
            continue
        total = calls + model.calls
    np.testing.assert_array_equal(out, whole)
    assert total < 3 * 9 + 3 * 12  # of the 27 tiles only those of a broken row are computed again


def test_an_object_without_end_is_given_in_part() -> None:
    shape, plan = (400, 20), plan_tiles((400, 20), (20, 20), overlap=0.5, blending="seam")
    joined = Joined(shape, classes=["background", "cell"], limit=50)
    held, base = [], 0
    for row in plan.rows():
        for tile in plan.tiles(row.index):
            labels = np.zeros((20, 20), np.int64)
            labels[:, 5:9] = 4
            labels[:, 12:14] = 2
            drawn = joined.place(tile.seen, tile.kept, labels)
        joined.end_row(plan.row(row.index + 1).seen[0] if row.index + 1 < plan.n_rows else None)
        for region, found in joined.add(Tile((row.kept[0], 0), (row.kept[1], 20)), torch.from_numpy(drawn)):
            assert region.start[0] == base
            base = region.stop[0]
            held.append(found)
        assert row.kept[1] - base <= 50
    held += [found for _, found in joined.finish()]
    found = np.concatenate(held)
    assert found.shape == shape
    assert (found[:, 5:9] == 1).all()
    assert (found[:, 12:14] == 2).all()
    assert joined.objects == 2
    assert joined.voxels == {"background": 400 * 14, "cell": 400 * 6}
    (warning,) = joined.warnings()
    assert "more than 50 rows" in warning


def test_slabs_lie_side_by_side() -> None:
    events: list[Event] = []
    image = blobs(2, (120, 50))
    segment(image, Components(card((32, 32))), axes="YX", on_event=events.append)
    rows = [event.region[0] for event in events if isinstance(event, SlabDone)]
    assert len(rows) > 3
    assert [0, *(stop for _, stop in rows)] == [*(start for start, _ in rows), 120]


def test_which_objects_are_one() -> None:
    first = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 2, 2, 0]])
    second = np.array([[5, 5, 5, 5, 0, 9], [5, 5, 5, 5, 0, 9]])
    assert same(first, second, 0.5) == [(1, 5)]  # 2 shares half of itself with 5, which fits 1 better
    cut = (np.array([2]), np.array([], int))
    assert same(first, second, 0.5, cut=cut) == [(1, 5), (2, 5)]  # 2 goes on in the other tile
    assert same(first, second, 0.6, cut=cut) == [(1, 5)]
    assert same(first, np.zeros_like(first), 0.5) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"scores": True}, "keep scores"),
        ({"uncertainty": "entropy"}, "uncertainty"),
        ({"tta": "flips"}, "tta"),
        ({"adaptive": True}, "adaptive"),
    ],
)
def test_what_needs_scores_is_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionsError, match=f"gives labels, not scores.*{word}"):
        segment(np.zeros((40, 40)), Components(card((32, 32))), axes="YX", options=SegmentOptions.parse(**options))


def test_labels_are_neither_averaged_nor_interpolated() -> None:
    with pytest.raises(ModelError, match="no mean"):
        combine([card((32, 32)), card((32, 32))])
    with pytest.raises(ValueError, match="neither be averaged nor interpolated"):
        card((32, 32), tta="flips")


def test_more_than_one_channel_is_refused() -> None:
    class Two(Components):
        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            return super().__call__(batch).expand(-1, 2, -1, -1)

    with pytest.raises(PredictorError, match="shape"):
        segment(np.zeros((40, 40)), Two(card((32, 32))), axes="YX")


def test_precision_auto_stays_exact_and_says_so() -> None:
    image = blobs(2, (60, 50))
    result = segment(image, Components(card((32, 32))), axes="YX", options=SegmentOptions(precision="auto"))
    np.testing.assert_array_equal(result.labels, components(image))
    assert any("stays exact" in warning for warning in result.warnings)


def test_without_overlap_objects_are_cut_and_that_is_said() -> None:
    image = np.zeros((64, 40), np.float32)
    image[28:36, 10:20] = 1
    whole = segment(image, Components(card((32, 40))), axes="YX")
    assert (whole.counts, whole.warnings) == ({"cell": 1}, ())
    cut = segment(image, Components(card((32, 40))), axes="YX", options=SegmentOptions(overlap=0))
    assert cut.counts == {"cell": 2}
    assert "objects are cut where tiles meet" in cut.warnings[0]
