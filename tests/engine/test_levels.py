"""The resolution that is read: the coarsest that loses nothing the model would see; and where boxes lie there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.engine.grid import SAME
from napari_tileseg.engine.levels import choose_level, choose_view
from napari_tileseg.engine.parts import Part
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import estimate, segment
from napari_tileseg.volume import Volume


class Threshold(torch.nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        bright = batch[:, :1] - 0.5
        return torch.cat([-bright, bright], dim=1)


def spec(spacing: tuple[float, ...] | None, axes: str = "CYX") -> ModelSpec:
    window = (16,) * (len(axes) - 1)
    return ModelSpec.model_validate(
        {
            **{"name": "t", "axes": axes, "channels": 1, "classes": ["background", "cell"], "window": window},
            **({"spacing": spacing, "spacing_unit": "micrometer"} if spacing else {}),
        }
    )


def pyramid(image: np.ndarray, steps: tuple[int, ...], spacing: float = 0.25) -> Volume:
    """Return an image with coarser levels that are means of its pixels."""

    def level(step: int) -> Volume:
        rows, columns = (size // step for size in image.shape)
        data = image[: rows * step, : columns * step].reshape(rows, step, columns, step).mean((1, 3)) if step > 1 else image
        return Volume.from_scale(data.astype(np.float32), "YX", (spacing * step,) * 2, units=("micrometer",) * 2)

    finest = level(1)
    return Volume(finest.data, "YX", finest.affine, finest.units, levels=tuple(level(step) for step in steps))


ratio = st.floats(0.01, 20)


@given(finest=st.tuples(ratio, ratio), steps=st.lists(st.tuples(st.floats(1, 5), st.floats(1, 5)), max_size=5))
def test_no_level_is_read_that_is_coarser_than_the_model(finest: tuple[float, float], steps: list[tuple[float, float]]) -> None:
    ratios = [dict(zip("YX", finest, strict=True))]
    for step in steps:
        ratios.append({axis: ratios[-1][axis] * by for axis, by in zip("YX", step, strict=True)})
    chosen = choose_level(ratios)
    lossless = [all(level[axis] <= max(1 + SAME, ratios[0][axis] * 1.001) for axis in "YX") for level in ratios]
    assert lossless[chosen]
    assert not any(lossless[chosen + 1 :])


@pytest.mark.parametrize(("model", "level"), [(0.25, 0), (0.4, 0), (0.5, 1), (0.46, 1), (0.9, 1), (1.0, 2), (8.0, 2), (0.1, 0)])
def test_the_level_nearest_to_the_model_is_read(model: float, level: int) -> None:
    image = pyramid(np.zeros((64, 64), np.float32), (2, 4))
    view = choose_view(image, spec((model, model)), "YX", rescale=True)
    assert view.level == level
    assert choose_view(image, spec((model, model)), "YX", rescale=False).level == 0
    assert choose_view(image, spec(None), "YX", rescale=True).level == 0


def test_levels_that_are_other_images_are_not_read() -> None:
    image = Volume.from_scale(np.zeros((3, 64, 64)), "ZYX", (1, 1, 1), units=("micrometer",) * 3)
    other = Volume.from_scale(np.zeros((2, 32, 32)), "ZYX", (1, 2, 2), units=("micrometer",) * 3)
    image = Volume(image.data, "ZYX", image.affine, image.units, levels=(other,))
    assert choose_view(image, spec((4, 4)), "YX", rescale=True).level == 0


@given(size=st.integers(40, 300), step=st.sampled_from([2, 3, 4]), start=st.integers(0, 30), length=st.integers(1, 300))
def test_a_box_grows_to_whole_pixels_of_the_level(size: int, step: int, start: int, length: int) -> None:
    coarse = -(-size // step)
    image = Volume.from_scale(np.zeros((size, size)), "YX", (1, 1), units=("micrometer",) * 2)
    level = Volume.from_scale(np.zeros((coarse, coarse)), "YX", (step, step), units=("micrometer",) * 2)
    image = Volume(image.data, "YX", image.affine, image.units, levels=(level,))
    view = choose_view(image, spec((step, step)), "YX", rescale=True)
    assert view.level == 1
    stop = min(size, start + length)
    part = Part({}, (start, start), (stop, stop), (((start, stop),) * 2,))
    outer, read = view.snapped(part, "YX")
    assert 0 <= outer.start[0] <= start
    assert stop <= outer.stop[0] <= size
    assert outer.wanted == part.wanted
    assert 0 <= read.start[0] < read.stop[0] <= coarse
    assert outer.start[0] == pytest.approx(read.start[0] * size / coarse, abs=0.51)
    assert outer.stop[0] == pytest.approx(read.stop[0] * size / coarse, abs=0.51)


@pytest.mark.parametrize(("model", "level"), [(0.25, 0), (0.5, 1), (1.0, 2), (1.3, 2)])
def test_labels_lie_on_the_finest_grid(model: float, level: int) -> None:
    blocks = np.random.default_rng(0).integers(0, 2, (12, 13)).astype(np.float32)
    blocks = blocks.repeat(16, 0).repeat(16, 1)
    predictor = from_module(Threshold(), spec((model, model)), device="cpu")
    result = segment(pyramid(blocks, (2, 4)), predictor)
    assert result.labels.shape == blocks.shape
    assert result.provenance["settings"]["level"] == level
    agreement = (result.labels == blocks).mean()
    assert agreement == 1 if model <= 1 else agreement > 0.9


@pytest.mark.parametrize("region", [((33, 70), (5, 111)), ((0, 16), (0, 16)), ((100, 192), (191, 208))])
def test_a_region_is_that_part_of_the_whole(region: tuple[tuple[int, int], tuple[int, int]]) -> None:
    blocks = np.random.default_rng(0).integers(0, 2, (12, 13)).astype(np.float32).repeat(16, 0).repeat(16, 1)
    predictor = from_module(Threshold(), spec((0.5, 0.5)), device="cpu")
    whole = segment(pyramid(blocks, (2, 4)), predictor).labels
    part = segment(pyramid(blocks, (2, 4)), predictor, region=region).labels
    place = tuple(slice(*span) for span in region)
    np.testing.assert_array_equal(part[place], whole[place])
    assert part.sum() == part[place].sum()


def test_the_estimate_counts_the_tiles_that_are_run() -> None:
    image = pyramid(np.random.default_rng(0).random((192, 208)).astype(np.float32), (2, 4))
    model = spec((0.5, 0.5))
    seen: list[int] = []
    segment(
        image,
        from_module(Threshold(), model, device="cpu"),
        options=SegmentOptions(),
        on_event=lambda event: seen.append(event.tiles) if hasattr(event, "tiles") else None,
    )
    assert estimate(image, model).tiles == seen[0]
    assert estimate(image, model, options=SegmentOptions(rescale=False)).tiles > 3 * seen[0]


def test_huge_images_are_measured_where_that_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_tileseg.engine import levels

    image = pyramid(np.zeros((64, 64), np.float32), (2, 4))
    assert choose_view(image, spec((0.25, 0.25)), "YX", rescale=True).measured[0] == 0
    monkeypatch.setattr(levels, "_MEASURED", 1024)
    assert choose_view(image, spec((0.25, 0.25)), "YX", rescale=True).measured[0] == 1
    assert choose_view(image, spec((1.0, 1.0)), "YX", rescale=True).measured[0] == 2
    assert choose_view(image, spec(None), "YX", rescale=True).measured[0] == 1
