"""What a training learns from is what the engine shows to the network, for every way in which a model prepares its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_tileseg import SegmentOptions, Volume, from_module, segment
from napari_tileseg.models.object_cards import flow_card, star_card
from napari_tileseg.models.resampling import Interpolation, Resampling
from napari_tileseg.models.spec import ModelSpec, Normalization, NormalizationStep
from napari_tileseg.training.samples import samples_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

NNUNET: dict[str, Any] = {
    "normalization": Normalization(kind="channels", channels=(Normalization(kind="zscore", masked=True),)),
    "resampling": Resampling(
        tolerance=0,
        image=Interpolation(order=3, antialias=False, slices="auto", clip=True),
        scores=Interpolation(order=1, antialias=False, slices="auto"),
    ),
    "crop": "nonzero",
    "spacing": (1.0, 1.0, 1.0),
}

MONAI: dict[str, Any] = {
    "normalization": Normalization(
        kind="steps",
        steps=(NormalizationStep(kind="mean_std", nonzero=True), NormalizationStep(kind="clip", lower=1.0, upper=99.0)),
    ),
    "resampling": Resampling(tolerance=1e-3, anchor="points", before=True, image=Interpolation(antialias=False)),
    "spacing": (1.0, 1.0, 1.0),
}

WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "own": {"normalization": Normalization(kind="percentile", clip=(-0.2, 1.5)), "spacing": (1.0, 1.0, 1.0)},
    "zoom": {"zoom": (0.8, 1.5, 1.25)},
    "nnU-Net": NNUNET,
    "nnU-Net, turned": NNUNET | {"orientation": "SAR"},
    "MONAI": MONAI,
    "MONAI, turned": MONAI | {"orientation": "RAS"},
}

GRIDS: dict[str, tuple[float, ...]] = {
    "same": (1.0, 1.0, 1.0),
    "coarse": (1.6, 1.3, 1.9),
    "fine": (0.7, 0.8, 0.6),
    "slices": (4.0, 0.9, 0.9),
}

WINDOW = 64


class Spy(nn.Module):
    """Keeps what it is shown, and answers background."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[torch.Tensor] = []
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.shown += list(batch)
        return torch.zeros((len(batch), 2, *batch.shape[2:]))


def card(**told: Any) -> ModelSpec:
    plain = {"name": "m", "axes": "CZYX", "channels": 1, "classes": ["ground", "a"], "spacing_unit": "millimeter"}
    window = (WINDOW,) * (len(told.get("axes", "CZYX")) - 1)
    return ModelSpec.model_validate({**plain, "window": window, **told})


def phantom(spacing: tuple[float, ...], *, turned: bool = False) -> Volume:
    """Make a volume with borders of 0, with a hole; `turned`: its axes lead elsewhere than those of the world."""
    made = np.random.default_rng(1).integers(1, 400, (12, 19, 16)).astype(np.int16)
    made[4:6, 8:10, 5:8] = 0
    image = np.pad(made, ((1, 2), (3, 1), (0, 2)))
    volume = Volume.from_scale(image, "ZYX", spacing, units=("millimeter",) * 3, name="phantom")
    if not turned:
        return volume
    affine = volume.affine.copy()
    affine[:3, :3] = affine[:3, :3][[1, 2, 0]]
    affine[1] *= -1
    return Volume(image, "ZYX", affine, volume.units, "turned")


def shown_to_the_network(image: Volume, spec: ModelSpec) -> list[NDArray[np.float32]]:
    spy = Spy()
    segment(image, from_module(spy, spec, device="cpu"), options=SegmentOptions(device="cpu", batch=1))
    return [tile.numpy() for tile in spy.shown]


def within(tile: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a tile without what lies beyond an image that is smaller."""
    starts = [(size - length) // 2 for size, length in zip(tile.shape[1:], shape, strict=True)]
    return tile[(slice(None), *(slice(start, start + length) for start, length in zip(starts, shape, strict=True)))]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_volume_is_learnt_as_it_is_seen(way: str, grid: str) -> None:
    image, spec = phantom(GRIDS[grid], turned="turned" in way), card(**WAYS[way])
    (sample,) = samples_of(image, spec)
    pixels = sample.pixels()
    (tile,) = shown_to_the_network(image, spec)
    seen = within(tile, pixels.shape[1:])
    np.testing.assert_array_equal(pixels, seen.astype(np.float16))
    assert np.count_nonzero(tile) == np.count_nonzero(seen), "nothing of the image lies outside"
    assert sample.labels(np.ones(image.shape, np.uint8), "ZYX").shape == pixels.shape[1:]


@pytest.mark.parametrize("axes", ["CYX", "CZX"])
def test_planes_are_learnt_as_they_are_seen(axes: str) -> None:
    told = {name: value[1:] if name == "spacing" else value for name, value in NNUNET.items()}
    image, spec = phantom((1.0, 1.4, 0.8)), card(**told, axes=axes)
    samples = list(samples_of(image, spec))
    tiles = shown_to_the_network(image, spec)
    kept = {"CYX": range(1, 13), "CZX": range(3, 22)}[axes]
    assert [sample.number for sample in samples] == list(kept), "planes that are 0 teach nothing"
    assert len(tiles) == len(samples)
    for sample, tile in zip(samples, tiles, strict=True):
        pixels = sample.pixels()
        np.testing.assert_array_equal(pixels, within(tile, pixels.shape[1:]).astype(np.float16))


def found_by(name: str, zoom: float) -> dict[str, Any]:
    """Return how a model of StarDist or Cellpose prepares planes; what its scores mean does not matter here."""
    stars = {"spatial_dims": 2, "grid": (2, 2), "pool": (2, 2), "depth": 2, "kernel_size": (3, 3), "convolutions": 2, "features": 8}
    card = flow_card() if name == "Cellpose" else star_card({**stars, "in_channels": 1, "rays": 32})
    kept = ("axes", "grey", "normalization", "resampling", "steps", "blending", "overlap", "multiple_of")
    return {field: card[field] for field in kept if field in card} | {"zoom": (zoom, zoom)}


@pytest.mark.parametrize("zoom", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("name", ["StarDist", "Cellpose"])
def test_objects_are_learnt_at_the_size_at_which_they_are_seen(name: str, zoom: float) -> None:
    image, spec = phantom((1.0, 1.4, 0.8)), card(**found_by(name, zoom))
    samples, tiles = list(samples_of(image, spec)), shown_to_the_network(image, spec)
    assert len(samples) == len(tiles) == len(image.data)
    for sample, tile in zip(samples, tiles, strict=True):
        pixels = sample.pixels()
        assert pixels.shape[1:] == pytest.approx([zoom * side for side in image.shape[1:]], abs=1)
        # Each has its own way to lay an image that is smaller than a tile.
        seen = within(tile, pixels.shape[1:]) if name == "Cellpose" else tile[:, : pixels.shape[1], : pixels.shape[2]]
        np.testing.assert_array_equal(pixels, seen.astype(np.float16))


def test_a_coarse_resolution_is_learnt_where_it_is_seen() -> None:
    fine = phantom((0.5, 0.5, 0.5))
    coarse = Volume.from_scale(np.asarray(fine.data)[::2, ::2, ::2], "ZYX", (1.0,) * 3, units=("millimeter",) * 3)
    image = Volume(fine.data, "ZYX", fine.affine, fine.units, "pyramid", levels=(coarse,))
    spec = card(**WAYS["own"])
    (sample,) = samples_of(image, spec)
    (tile,) = shown_to_the_network(image, spec)
    np.testing.assert_array_equal(sample.pixels(), within(tile, coarse.shape).astype(np.float16))
    assert sample.labels(np.asarray(image.data), "ZYX").shape == coarse.shape


@pytest.mark.parametrize("turned", [False, True])
def test_labels_go_where_the_image_goes(turned: bool) -> None:
    image = phantom((1.0, 1.0, 1.0), turned=turned)
    spec = card(**NNUNET | {"normalization": Normalization(), "orientation": "SAR"})
    (sample,) = samples_of(image, spec)
    numbers = np.asarray(image.data)  # as if they were labels
    found = sample.labels(numbers, "ZYX")
    np.testing.assert_array_equal(found, sample.pixels()[0])
    assert found.shape == ((19, 16, 12) if turned else (12, 19, 16)), "nothing but what is not 0 is seen, as the network wants it"
    masks = np.stack([numbers > 100, numbers > 200])
    np.testing.assert_array_equal(sample.labels(masks, "CZYX"), np.stack([found > 100, found > 200]))
    np.testing.assert_array_equal(np.sort(found[found > 0]), np.sort(numbers[numbers > 0]), "none is lost")


@pytest.mark.parametrize("grid", ["coarse", "fine"])
@pytest.mark.parametrize("way", ["nnU-Net, turned", "MONAI, turned", "own"])
def test_labels_stay_on_their_object(way: str, grid: str) -> None:
    image = phantom(GRIDS[grid], turned="turned" in way)
    ball = sum((axis - centre) ** 2 for axis, centre in zip(np.ogrid[:15, :23, :18], (7, 12, 8), strict=True)) < 25
    drawn = Volume(np.where(ball, 1000, 1).astype(np.int16), "ZYX", image.affine, image.units)
    (sample,) = samples_of(drawn, card(**WAYS[way] | {"normalization": Normalization()}))
    bright, labels = sample.pixels()[0] > 500, sample.labels(ball.astype(np.uint8), "ZYX") > 0
    assert 2 * (bright & labels).sum() / (bright.sum() + labels.sum()) > 0.93
