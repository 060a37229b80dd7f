"""Models of what is normal: one score, a map of it, and the places where it is too high."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_tileseg.engine.abnormal import whole
from napari_tileseg.errors import Cancelled, OptionsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor, from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from pathlib import Path


class Residual(torch.nn.Module):
    """Knows that normal pixels are one half: the score is the square of what is left."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return (batch - 0.5) ** 2


def model(window: tuple[int, ...] = (24, 24), **parameters: float) -> Predictor:
    axes = "CZYX" if len(window) == 3 else "CYX"
    known: dict[str, Any] = {"name": "odd", "axes": axes, "channels": 1, "classes": ["normal", "anomaly"], "window": window}
    spec = ModelSpec(**known, output="anomaly", decoder_parameters={"threshold": 0.04, **parameters})
    return from_module(Residual(), spec, device="cpu")


def image_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    return (0.5 + 0.12 * noise / noise.std()).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    shape=st.one_of(st.tuples(st.integers(3, 80), st.integers(3, 60)), st.tuples(*[st.integers(3, 26)] * 3)),
    median=st.sampled_from([1, 3, 5]),
    least=st.sampled_from([0, 6]),
    threshold=st.sampled_from([0.3, 0.5, 0.8]),
)
@example(seed=8105, shape=(6, 13), median=3, least=6, threshold=0.5)
def test_places_are_those_of_the_whole_map(seed: int, shape: tuple[int, ...], median: int, least: int, threshold: float) -> None:
    image = image_of(seed, shape)
    window = (16,) * len(shape)
    result = segment(
        image,
        model(window, median=median, min_size=least),
        axes="ZYX"[-len(shape) :],
        options=SegmentOptions(scores=True, threshold=threshold),
    )
    assert result.scores is not None
    assert result.scores.shape == (1, *shape)
    np.testing.assert_allclose(result.scores[0], (image - 0.5) ** 2, atol=1e-6)
    high = ndimage.median_filter(result.scores[0], median, mode="reflect") >= np.float32(2 * threshold * 0.04)
    labels, _ = ndimage.label(high, np.ones((3,) * len(shape)))
    expected = high & (np.bincount(labels.ravel())[labels] >= least)
    assert result.labels.dtype == np.uint8
    np.testing.assert_array_equal(result.labels, expected)
    assert result.counts == {"normal": int((~expected).sum()), "anomaly": int(expected.sum())}
    np.testing.assert_array_equal(
        whole(result.scores, {"threshold": 0.04, "median": median}, threshold=threshold, min_size=least), expected
    )


def test_one_half_is_the_models_own_threshold() -> None:
    image = np.array([[0.5, 0.69, 0.71, 0.79, 0.5]], np.float32)  # 0, 0.036, 0.044, 0.084, 0
    for threshold, expected in ((0.5, [0, 0, 1, 1, 0]), (0.4, [0, 1, 1, 1, 0]), (1.0, [0, 0, 0, 1, 0]), (0.0, [1, 1, 1, 1, 1])):
        found = segment(image, model(), axes="YX", options=SegmentOptions(threshold=threshold))
        assert found.labels.tolist() == [expected]
        assert found.warnings == ()


def test_the_least_size_is_the_larger_of_card_and_option() -> None:
    image = np.full((20, 40), 0.5, np.float32)
    for start, size in ((2, 2), (12, 4), (24, 6)):
        image[4 : 4 + size, start : start + size] = 0.9
    for least, card, expected in ((0, 0, 56), (10, 0, 52), (10, 20, 36), (20, 10, 36)):
        found = segment(image, model(min_size=card), axes="YX", options=SegmentOptions(min_size=least))
        assert found.counts["anomaly"] == expected


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    image = image_of(4, (120, 40))
    tool = model((16, 16), median=3, min_size=5)
    expected = segment(image, tool, axes="YX")
    out = np.zeros(expected.labels.shape, np.uint8)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 30

    with pytest.raises(Cancelled):
        segment(image, tool, axes="YX", out=out, journal=tmp_path / "journal", cancel=stop)
    assert out.any()
    found = segment(image, tool, axes="YX", out=out, journal=tmp_path / "journal")
    np.testing.assert_array_equal(out, expected.labels)
    assert found.windows < expected.windows
    assert found.anomaly == expected.anomaly  # to the last bit


@pytest.mark.parametrize("median", [1, 3])
@pytest.mark.parametrize("shape", [(70, 50), (3, 40, 30)])
def test_how_strange_an_image_is_comes_from_its_map(median: int, shape: tuple[int, ...]) -> None:
    image, axes = image_of(7, shape), "ZYX"[-len(shape) :]
    found = segment(image, model(median=median), axes=axes, options=SegmentOptions(scores=True))
    assert found.scores is not None
    assert found.anomaly["mean"] == pytest.approx(float(found.scores.mean(dtype=np.float64)), rel=1e-9)
    assert found.anomaly["percentile_99"] == pytest.approx(float(np.percentile(found.scores, 99)), rel=1e-3)
    assert segment(image, model(median=median), axes=axes).anomaly == found.anomaly  # nobody has to keep the map for it


def test_of_a_region_only_the_region_counts() -> None:
    image = np.full((40, 40), 0.5, np.float32)
    image[:20] = 0.9
    found = segment(image, model((16, 16)), axes="YX", region=((20, 40), (0, 40)))
    assert found.anomaly == {"mean": 0.0, "percentile_99": 0.0}
    assert segment(image, model((16, 16)), axes="YX").anomaly["mean"] == pytest.approx(0.08)


def test_a_journal_of_before_leaves_it_open(tmp_path: Path) -> None:
    image, tool, asked = image_of(4, (120, 40)), model((16, 16)), 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 30

    out = np.zeros(image.shape, np.uint8)
    with pytest.raises(Cancelled):
        segment(image, tool, axes="YX", out=out, journal=tmp_path / "journal", cancel=stop)
    place = tmp_path / "journal" / "journal.json"
    body = json.loads(place.read_text())
    assert body["state"].pop("tally")["digits"]
    body.pop("checksum")
    place.write_text(json.dumps({**body, "checksum": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()}))
    assert segment(image, tool, axes="YX", out=out, journal=tmp_path / "journal").anomaly == {}


@pytest.mark.parametrize("options", [{"adaptive": True}, {"skip_background": True}, {"precision": "auto"}, {"tta": "flips"}])
def test_other_options_work_too(options: dict[str, Any]) -> None:
    image = np.full((60, 60), 0.5, np.float32)
    image[20:30, 20:30] = 0.9
    found = segment(image, model(min_size=4), axes="YX", options=SegmentOptions(**options))
    np.testing.assert_array_equal(found.labels, image > 0.7)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(OptionsError, match="no uncertainty can be told"):
        segment(image_of(0, (20, 20)), model(), axes="YX", options=SegmentOptions(uncertainty="entropy"))
    for wrong in ({"threshold": 0.0}, {"median": 4}, {"median": 0}):
        with pytest.raises(ValueError, match=r"threshold above 0|odd number"):
            model(**wrong)
