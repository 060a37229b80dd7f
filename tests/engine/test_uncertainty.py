"""Uncertainty: what its numbers mean, and that the streamed map is that of the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.run import run
from napari_tileseg.engine.uncertainty import disagreement, entropy
from napari_tileseg.errors import OptionsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.ensemble import Ensemble
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment


def spec_of(**changes: Any) -> ModelSpec:
    values = {"name": "m", "axes": "CYX", "channels": 1, "classes": ["background", "a", "b"], "window": (8, 8), **changes}
    return ModelSpec.model_validate(values)


OBJECTS: dict[str, Any] = {
    "output": "instances",
    "decoder": "watershed",
    "heads": ["foreground", "border", "distance"],
    "classes": ["background", "cell"],
    "decoder_parameters": {"foreground_bias": 0.4},
}


def three_scores(batch: torch.Tensor) -> torch.Tensor:
    ramp = torch.linspace(-1, 1, batch.shape[3])
    return torch.cat([batch, -batch + ramp, batch * 0.5], dim=1)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 6), scale=st.floats(0, 50))
def test_entropy_is_that_of_the_probabilities(seed: int, count: int, scale: float) -> None:
    scores = torch.from_numpy(np.random.default_rng(seed).normal(scale=scale, size=(count, 5, 4)))
    before = scores.clone()
    spec = spec_of(classes=[str(index) for index in range(count)])
    share = scores.softmax(0)
    expected = -torch.special.xlogy(share, share).sum(0) / max(np.log(count), 1e-9)
    torch.testing.assert_close(entropy(scores, spec), expected.clamp(0, 1), rtol=0, atol=1e-6)
    torch.testing.assert_close(scores, before)
    masks = spec_of(output="sigmoid", classes=spec.classes)
    bits = torch.distributions.Bernoulli(logits=scores).entropy() / np.log(2)
    torch.testing.assert_close(entropy(scores, masks), bits.amax(0).nan_to_num(0), rtol=0, atol=1e-6)


def test_the_ends_of_the_scale() -> None:
    equal, certain = torch.zeros(3, 1), torch.tensor([[torch.inf], [0.0], [-torch.inf]])
    assert entropy(equal, spec_of()).item() == pytest.approx(1)
    assert entropy(certain, spec_of()).item() == 0
    cut = torch.tensor([[-0.4], [0.0], [0.0]])  # where the decoder's bias puts the border of objects
    assert entropy(cut, spec_of(**OBJECTS)).item() == pytest.approx(1)
    assert disagreement([certain, certain], spec_of()).item() == 0
    other = torch.tensor([[-torch.inf], [0.0], [torch.inf]])
    assert disagreement([certain, other], spec_of()).item() == pytest.approx(np.log(2) / np.log(3))
    assert disagreement([equal, equal], spec_of()).item() == pytest.approx(0, abs=1e-6)  # both doubt, and agree
    sure = torch.tensor([[50.0], [0.0], [0.0]])
    assert disagreement([sure, -sure], spec_of(**OBJECTS)).item() == pytest.approx(1)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 20)),
    blending=st.sampled_from(["gaussian", "constant", "crop"]),
    changes=st.sampled_from([{}, {"output": "sigmoid"}, OBJECTS]),
)
def test_the_streamed_map_is_that_of_the_averaged_scores(seed: int, shape: tuple[int, int], blending: str, changes: dict[str, Any]) -> None:
    image = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    spec = spec_of(**changes)
    sink = ArraySink(shape)
    options = SegmentOptions.parse(scores=True, uncertainty=True, blending=blending)
    for _ in run(ArraySource(image), FunctionPredictor(spec, three_scores), sink, options=options):
        pass
    assert sink.uncertainty is not None
    np.testing.assert_allclose(sink.uncertainty, entropy(torch.from_numpy(sink.scores), spec), rtol=0, atol=1e-5)
    plain = ArraySink(shape)
    for _ in run(ArraySource(image), FunctionPredictor(spec, three_scores), plain, options=SegmentOptions.parse(blending=blending)):
        pass
    if changes:  # the argmax of sums and that of averages may break ties differently
        np.testing.assert_array_equal(plain.labels, sink.labels)
    assert plain.uncertainty is None


def test_disagreement_is_where_members_differ() -> None:
    def member(name: str, sign: float) -> FunctionPredictor:
        right = (torch.arange(8) >= 4).float()
        return FunctionPredictor(spec_of(name=name), lambda batch: torch.cat([batch * 0, batch * 0 - 9, sign * 30 * right + batch * 0], 1))

    image = np.ones((8, 8), np.float32)
    both = Ensemble([member("one", 1.0), member("two", -1.0)])  # type: ignore[list-item]
    result = segment(image, both, axes="YX", options=SegmentOptions.parse(uncertainty="disagreement", scores=True))
    assert result.uncertainty is not None
    assert result.scores is not None
    assert result.scores.shape == (3, 8, 8)
    assert result.uncertainty[:, :4].max() < 1e-3
    np.testing.assert_allclose(result.uncertainty[:, 4:], np.log(2) / np.log(3), atol=1e-2)
    views = segment(image, member("one", 1.0), axes="YX", options=SegmentOptions.parse(uncertainty="disagreement", tta="flips"))  # type: ignore[arg-type]
    assert views.uncertainty is not None
    assert views.uncertainty.min() > 0.1


def test_one_pass_cannot_disagree() -> None:
    predictor = FunctionPredictor(spec_of(), three_scores)
    with pytest.raises(OptionsError, match="needs several passes"):
        segment(np.zeros((8, 8), np.float32), predictor, axes="YX", options=SegmentOptions.parse(uncertainty="disagreement"))  # type: ignore[arg-type]


def test_the_map_lies_on_the_grid_of_the_image() -> None:
    """Planes one by one, axes in another order, another pixel size: the map goes where the labels go."""
    image = np.random.default_rng(0).normal(size=(3, 18, 21)).astype(np.float32)
    result = segment(image, FunctionPredictor(spec_of(), three_scores), axes="ZXY", options=SegmentOptions.parse(uncertainty=True))  # type: ignore[arg-type]
    single = segment(image[1], FunctionPredictor(spec_of(), three_scores), axes="XY", options=SegmentOptions.parse(uncertainty=True))  # type: ignore[arg-type]
    assert result.uncertainty is not None
    np.testing.assert_allclose(result.uncertainty[1], single.uncertainty, atol=1e-6)  # type: ignore[arg-type]
