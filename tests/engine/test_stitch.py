"""Stitched scores equal MONAI's, an identity model returns its input, and the slab stays small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference

from napari_tileseg.engine.arrays import ArraySource, sliding_scores
from napari_tileseg.engine.feed import Feed
from napari_tileseg.engine.stitch import Slab
from napari_tileseg.engine.tiles import plan_tiles
from napari_tileseg.engine.weights import importance

if TYPE_CHECKING:
    from collections.abc import Iterator

BLENDINGS = ["gaussian", "constant", "nnunet", "crop"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Keep torch from starting threads for a few pixels: they cost more than they give, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Network(torch.nn.Module):
    """A convolution plus a ramp over the window, so that the scores of a pixel depend on where in the window it lies."""

    def __init__(self, channels: int, heads: int, ndim: int, seed: int, *, padding: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn((heads, channels, *(3,) * ndim), generator=generator)
        self.convolve = torch.nn.functional.conv2d if ndim == 2 else torch.nn.functional.conv3d
        self.padding = padding

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        scores = self.convolve(batch, self.weight, padding=self.padding)
        return scores + torch.linspace(-1, 1, scores[0, 0].numel()).reshape(scores.shape[2:])


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    ndim = draw(st.integers(2, 3))
    window = tuple(draw(st.integers(2, 24 if ndim == 2 else 10)) for _ in range(ndim))
    return {
        # At most four windows long, which is enough for every case of a grid and keeps the number of tiles down.
        "shape": tuple(draw(st.integers(1, 4 * size if ndim == 2 else 2 * size + 3)) for size in window),
        "window": window,
        "overlap": draw(st.sampled_from([0.0, 0.25, 0.5, 0.6, *([0.75, 0.85] if ndim == 2 else [])])),
        "channels": draw(st.integers(1, 3)),
        "heads": draw(st.integers(1, 4)),
        "batch": draw(st.integers(1, 5)),
        "sigma": draw(st.sampled_from([0.125, 0.25])),
        "seed": draw(st.integers(0, 2**31)),
    }


def image_of(case: dict[str, Any]) -> np.ndarray:
    rng = np.random.default_rng(case["seed"])
    return rng.normal(size=(case["channels"], *case["shape"])).astype(np.float32)


@pytest.mark.parametrize("blending", ["gaussian", "constant"])
@settings(max_examples=60)
@given(case=cases())
def test_scores_equal_monais(blending: str, case: dict[str, Any]) -> None:
    image = image_of(case)
    network = Network(case["channels"], case["heads"], len(case["shape"]), case["seed"])
    arguments = {"overlap": case["overlap"], "mode": blending, "sigma_scale": case["sigma"]}
    expected = sliding_window_inference(torch.from_numpy(image)[None], case["window"], case["batch"], network, **arguments)[0].numpy()
    found = sliding_scores(
        image,
        network,
        case["window"],
        heads=case["heads"],
        overlap=case["overlap"],
        blending=blending,  # type: ignore[arg-type]
        sigma=case["sigma"],
        batch=case["batch"],
    )
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("steps", ["fixed", "even"])
@pytest.mark.parametrize("blending", BLENDINGS)
@settings(max_examples=25)
@given(case=cases())
def test_an_identity_model_returns_its_input(blending: Any, steps: Any, case: dict[str, Any]) -> None:
    image = image_of(case)
    found = sliding_scores(
        image,
        lambda batch: batch,
        case["window"],
        heads=case["channels"],
        overlap=case["overlap"],
        blending=blending,
        steps=steps,
        batch=case["batch"],
    )
    np.testing.assert_allclose(found, image, rtol=0, atol=1e-5 * np.abs(image).max())


@pytest.mark.parametrize("blending", BLENDINGS)
@settings(max_examples=25)
@given(case=cases(), lost=st.integers(1, 3))
def test_valid_convolutions_see_a_mirrored_border(blending: Any, case: dict[str, Any], lost: int) -> None:
    image = image_of(case)
    ndim = len(case["shape"])
    window = tuple(size + 2 * lost for size in case["window"])

    def box_mean(batch: torch.Tensor) -> torch.Tensor:
        pool = torch.nn.functional.avg_pool2d if ndim == 2 else torch.nn.functional.avg_pool3d
        return pool(batch, 2 * lost + 1, stride=1)

    found = sliding_scores(
        image, box_mean, window, heads=case["channels"], overlap=case["overlap"], blending=blending, output_offset=(lost,) * ndim
    )
    mirrored = np.pad(image, ((0, 0), *((lost, lost),) * ndim), mode="reflect")
    expected = box_mean(torch.from_numpy(mirrored)[None])[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("blending", BLENDINGS)
def test_no_buffer_grows_with_the_first_axis(blending: str) -> None:
    window = (8, 8)
    sizes = set()
    for length in (8, 64, 4096):
        plan = plan_tiles((length, 30), window, overlap=0.5, blending=blending)
        slab = Slab(plan, importance(plan.output, blending), 3)
        source = ArraySource(np.broadcast_to(np.float32(0), (1, length, 30)))
        with Feed(source, plan) as feed:
            sizes.add((slab.nbytes, max(feed.take(row).nbytes for row in plan.rows())))
    assert len(sizes) == 1
