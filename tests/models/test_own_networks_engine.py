"""This project's own networks on the engine: tiles that fit their sides, and, for valid convolutions, no seams at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import OptionsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.nets import NETWORKS, build_network
from napari_tileseg.models.nets.tiling import tiling
from napari_tileseg.models.predictor import Predictor, from_module
from napari_tileseg.models.sides import next_side, previous_side
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment

UNET: dict[str, Any] = {"features": (4, 4, 6, 6, 8), "out_channels": 3}


def predictor_of(name: str, arguments: dict[str, Any], **changes: Any) -> Predictor:
    torch.manual_seed(1)
    module = build_network(name, **arguments).eval()
    dims = arguments.get("spatial_dims", 3 if name == "vnet_paper" else 2)
    classes = arguments.get("out_channels", 1 if name.endswith(("autoencoder", "vae")) else 2)
    card = {
        "name": "net",
        "axes": "CYX" if dims == 2 else "CZYX",
        "channels": arguments.get("in_channels", 1),
        "classes": [f"class {number}" for number in range(classes)],
        "output": "softmax" if classes > 1 else "sigmoid",
        "window": (64,) * dims,
        **tiling(name, arguments),
        **changes,
    }
    return from_module(module, ModelSpec.model_validate(card), device="cpu")


def image_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def centred(predictor: Predictor, image: np.ndarray) -> Predictor:
    """Shift the scores of a network so that every class wins somewhere."""
    with torch.no_grad():
        scores = predictor(torch.from_numpy(np.pad(image, 92 + (-image.shape[0] - 172) % 16, mode="reflect"))[None, None])
        predictor.module.head.bias -= scores.mean((0, 2, 3))
    return predictor


def test_tiles_of_valid_convolutions_equal_one_big_tile() -> None:
    image = image_of(180, 228)
    predictor = centred(predictor_of("unet2015", UNET), image_of(180, 180))
    # The middle of the paper's picture: the image, 92 mirrored pixels around it, and what fills the last side.
    sides = [next_side(size + 184, 16, 12) for size in image.shape]
    padded = np.pad(image, [(92, side - size - 92) for side, size in zip(sides, image.shape, strict=True)], mode="reflect")
    with torch.inference_mode():
        expected = predictor(torch.from_numpy(padded)[None, None])[0, :, :180, :228].numpy()
    assert len(np.unique(expected.argmax(0))) == 3
    for window in ((204, 204), (220, 252), (284, 220), (412, 460)):
        options = SegmentOptions(device="cpu", window=window, scores=True)
        result = segment(image, predictor, axes="YX", options=options)
        assert np.allclose(result.scores, expected, rtol=0, atol=1e-5 * np.abs(expected).max()), window
        assert np.array_equal(result.labels, expected.argmax(0)), window


def test_unaligned_tiles_of_valid_convolutions_would_show_seams() -> None:
    image = image_of(100, 100)
    predictor = centred(predictor_of("unet2015", UNET, steps="fixed"), image_of(180, 180))
    tiled, whole = (
        segment(image, predictor, axes="YX", options=SegmentOptions(device="cpu", window=(side, side), scores=True)).scores
        for side in (220, 284)
    )
    assert np.abs(tiled - whole).max() > 1e-3 * np.abs(whole).max()


def test_volumes_too() -> None:
    arguments = {"features": (2, 3, 4), "spatial_dims": 3}
    predictor = predictor_of("unet2015", arguments)
    assert predictor.spec.window == (84, 84, 84)
    image = image_of(12, 30, 26)
    runs = [
        segment(image, predictor, axes="ZYX", options=SegmentOptions(device="cpu", window=(side,) * 3, scores=True)) for side in (52, 76)
    ]
    largest = np.abs(runs[1].scores).max()
    assert np.allclose(runs[0].scores, runs[1].scores, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("unet2015", UNET, (10, 7)),
        ("unet2015_same", UNET, (90, 75)),
        ("vnet2d", {"features": 2, "in_channels": 2, "out_channels": 3}, (2, 90, 75)),
        ("vnet2d_paper", {}, (90, 75)),
        ("vnet_paper", {}, (20, 40, 30)),
        ("brau_net_pp", {"width": 32, "depths": (1, 1, 1, 1), "out_channels": 1}, (90, 75)),
        ("conv_autoencoder", {}, (300, 75)),
        ("autoencoder", {}, (60, 75)),
        ("vae", {"size": (32, 20)}, (60, 75)),
    ],
)
def test_every_network_with_an_image_as_result_runs(name: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
    channels = {"channels": 1} if name == "brau_net_pp" else {}
    options = SegmentOptions(device="cpu", scores=True, window=(32, 48, 32) if name == "vnet_paper" else None)
    image = image_of(*shape)
    axes = {(2, False): "YX", (3, False): "ZYX", (3, True): "CYX"}[image.ndim, "in_channels" in arguments]
    result = segment(image, predictor_of(name, arguments, **channels), axes=axes, options=options)
    spatial = shape[1:] if "in_channels" in arguments else shape
    assert result.labels.shape[-len(spatial) :] == spatial
    assert result.scores.shape[1:] == spatial
    assert np.isfinite(result.scores).all()


def test_windows_that_do_not_fit_are_answered_with_one_that_does() -> None:
    with pytest.raises(OptionsError, match=r"no multiple of 16 plus 12\. Use 204"):
        segment(image_of(20, 20), predictor_of("unet2015", UNET), axes="YX", options=SegmentOptions(window=(200, 204), device="cpu"))
    with pytest.raises(ValueError, match="multiples of 16 plus 12"):
        predictor_of("unet2015", UNET, window=(200, 200))


@given(size=st.integers(1, 1000), multiple=st.integers(1, 40), remainder=st.integers(0, 39))
def test_sides_are_the_nearest_that_fit(size: int, multiple: int, remainder: int) -> None:
    remainder %= multiple
    after, before = next_side(size, multiple, remainder), previous_side(size, multiple, remainder)
    assert after % multiple == before % multiple == remainder
    assert size <= after < size + multiple
    assert before > 0
    assert size - multiple < before <= size or before == (remainder or multiple)


@given(levels=st.integers(2, 5), extra=st.integers(0, 3))
@settings(max_examples=10, deadline=None)
def test_cards_say_what_networks_take(levels: int, extra: int) -> None:
    arguments = {"features": (1,) * levels}
    card = tiling("unet2015", arguments)
    side = card["window"][0] + extra * card["multiple_of"]
    with torch.no_grad():
        scores = build_network("unet2015", **arguments)(torch.zeros(1, 1, side, side))
    assert scores.shape[2] == side - 2 * card["output_offset"][0]
    assert scores.shape[2] >= 388
    assert card["window"][0] == 572 or levels < 5


def test_every_network_of_ours_that_segments_has_a_card() -> None:
    foreign = {"plain_conv_unet", "residual_conv_unet", "residual_encoder_unet", "cellpose_sam", "cellpose_unet", "stardist_unet"}
    without = {name for name in NETWORKS if not tiling(name, {})}
    assert {name for name in without if not name.startswith("monai.")} - foreign == {
        "gan_generator",
        "gan_discriminator",
        "dcgan_generator",
        "dcgan_discriminator",
    }
