"""An image computed in shares is the image computed as a whole: every pixel, every object, every number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_tileseg import division
from napari_tileseg.division import Share, divide, find_objects, join_objects, label_box
from napari_tileseg.engine import scan
from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.execution import Run
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor, from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from napari_tileseg.engine.pieces import Found

OBJECTS = {"output": "instances", "decoder": "watershed", "heads": ["foreground", "border", "distance"], "classes": ["background", "cell"]}


class Network(torch.nn.Module):
    """Three channels that depend on the pixel, its neighbours and its place in the window."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        pool = torch.nn.functional.avg_pool2d if batch.ndim == 4 else torch.nn.functional.avg_pool3d
        smooth = pool(batch, 3, stride=1, padding=1)
        ramp = torch.linspace(-0.1, 0.1, batch[0, 0].numel()).reshape(batch.shape[2:])
        return torch.cat([smooth * 3 + ramp, -smooth, smooth * 0.7 + ramp], dim=1)


def model(ndim: int, output: str, **changes: Any) -> Predictor:
    kinds: dict[str, dict[str, Any]] = {
        "softmax": {"classes": ["background", "a", "b"]},
        "sigmoid": {"output": "sigmoid", "classes": ["a", "b", "c"]},
        "instances": OBJECTS,
    }
    base = {
        "name": "m",
        "axes": "C" + "ZYX"[3 - ndim :],
        "channels": 1,
        "window": (12, 16, 16)[3 - ndim :],
        "normalization": {"kind": "zscore"},
    }
    return from_module(Network(), ModelSpec.model_validate({**base, **kinds[output], **changes}), device="cpu")


def image_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return blobs of many sizes, some of which touch."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (0,) * (len(shape) - 2) + (1.5, 1.5) if len(shape) > 2 else 1.5)
    return (smooth / smooth.std()).astype(np.float32)


@dataclass(frozen=True)
class Kept:
    """A piece in memory."""

    share: Share
    found: Found

    @property
    def box(self) -> Tile:
        return Tile(*(tuple(ends) for ends in zip(*self.share.box, strict=True)))

    @property
    def count(self) -> int:
        return self.found.count

    def labels(self, region: Tile) -> np.ndarray:
        return self.found.labels[region.relative_to(self.box.start).slices]

    def opened(self) -> tuple[np.ndarray, np.ndarray]:
        return self.found.index, self.found.scores


def in_shares(volume: Volume, predictor: Predictor, options: SegmentOptions, *, seed: int = 0, **cut: Any) -> tuple[np.ndarray, Run, int]:
    """Compute every share with a run of its own, in another order than theirs."""

    def prepared() -> Run:
        axis_map = map_axes(volume.axes, volume.shape, predictor.spec)
        run = Run(volume, axis_map, predictor, options, (), lambda event: None, lambda: False)
        run.prepare()
        return run

    whole = prepared()
    for layout in whole.layouts:
        whole.measured(layout.part.position.get("T"))
    shares = divide(whole, **cut)
    labels = np.full(whole.axis_map.result_shape, 77, whole.axis_map.result_dtype)
    pieces: dict[int, Kept] = {}
    for index in np.random.default_rng(seed).permutation(len(shares)):
        share = Share.from_list(shares[index].to_list())
        run = prepared()
        run.statistics = dict(whole.statistics)
        if whole.axis_map.output == "instances":
            pieces[int(index)] = Kept(share, find_objects(run, share))
        else:
            box, part = label_box(run, share)
            labels[tuple(slice(*span) for span in box)] = part
    for sample in range(len(whole.layouts) if pieces else 0):
        mine = [pieces[share.number] for share in shares if share.sample == sample]
        join_objects(whole, sample, mine, labels)
    return labels, whole, len(shares)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    output=st.sampled_from(["softmax", "sigmoid", "instances"]),
    axes=st.sampled_from(["YX", "TYX", "XY", "ZYX"]),
    blending=st.sampled_from(["gaussian", "crop"]),
    ratio=st.sampled_from([None, 0.5, 0.7, 1.6]),
    pieces=st.integers(1, 9),
    most=st.sampled_from([None, 500, 2000]),
    chunks=st.sampled_from([None, (16, 16), (7, 30)]),
)
def test_shares_make_up_the_whole(
    seed: int, output: str, axes: str, blending: str, ratio: float | None, pieces: int, most: int | None, chunks: tuple[int, int] | None
) -> None:
    ndim = 3 if axes == "ZYX" else 2
    random = np.random.default_rng(seed)
    sizes = {"T": 2, "Z": int(random.integers(5, 25)), "Y": int(random.integers(10, 90)), "X": int(random.integers(10, 70))}
    shape = tuple(sizes[axis] for axis in axes)
    spacing = {"spacing": [ratio] * ndim} if ratio else {}
    predictor = model(ndim, output, blending=blending, **spacing)
    affine, units = np.eye(len(axes) + 1), tuple("pixel" if axis == "T" else "micrometer" for axis in axes)
    volume = Volume(image_of(seed, shape), axes, affine, units)
    options = SegmentOptions()
    grid = None if chunks is None else (8, *chunks)[-ndim:]
    found, run, _count = in_shares(volume, predictor, options, seed=seed, shares=pieces, most=most, chunks=grid)
    expected = segment(volume, predictor, options=options)
    np.testing.assert_array_equal(found, expected.labels)
    run.count(found)
    assert run.counts == expected.counts


@pytest.mark.parametrize("output", ["softmax", "instances"])
def test_a_volume_that_is_scanned_along_another_axis(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BUDGET", 1)
    volume = Volume(image_of(3, (20, 30, 80)), "ZYX")
    predictor = model(3, output)
    found, run, count = in_shares(volume, predictor, SegmentOptions(), most=9000)
    assert run.layout.turn.axis == 2
    assert count > 3
    np.testing.assert_array_equal(found, segment(volume, predictor).labels)


def test_one_object_over_all_shares_is_one_object() -> None:
    image = np.zeros((120, 120), np.float32)
    image[5:115, 60] = image[60, 5:115] = image[100, 3:117] = 9
    predictor = model(2, "instances", decoder_parameters={"depth": 1e9})
    found, _, count = in_shares(Volume(image, "YX"), predictor, SegmentOptions(), most=1000)
    assert count >= 9
    expected = segment(image, predictor, axes="YX").labels
    assert expected.max() == 1
    np.testing.assert_array_equal(found, expected)


def test_options_that_look_at_objects_and_tiles_hold_in_shares() -> None:
    volume = Volume(image_of(5, (150, 140)), "YX")
    for options in (SegmentOptions(min_size=40, threshold=0.6), SegmentOptions(skip_background=True), SegmentOptions(tta="flips")):
        for output in ("instances", "softmax"):
            predictor = model(2, output)
            found, _, count = in_shares(volume, predictor, options, shares=4)
            assert count >= 4
            np.testing.assert_array_equal(found, segment(volume, predictor, options=options).labels)


def test_a_decoder_that_looks_beyond_the_foreground_gets_everything_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_tileseg.engine import watershed

    volume = Volume(image_of(6, (90, 80)), "YX")
    predictor = model(2, "instances")
    expected = segment(volume, predictor).labels
    monkeypatch.setattr(watershed, "margin", lambda parameters: 3)
    np.testing.assert_array_equal(in_shares(volume, predictor, SegmentOptions(), shares=4)[0], expected)


def test_shares_fill_chunks_cover_all_and_are_many_enough() -> None:
    volume = Volume(np.zeros((1000, 700), np.float32), "YX")
    axis_map = map_axes("YX", volume.shape, model(2, "softmax").spec)
    run = Run(volume, axis_map, model(2, "softmax"), SegmentOptions(), (), lambda event: None, lambda: False)
    run.prepare()
    shares = divide(run, chunks=(64, 128), shares=10)
    assert len(shares) >= 10
    seen = np.zeros(volume.shape, int)
    for share in shares:
        assert all(start % side == 0 for (start, _), side in zip(share.box, (64, 128), strict=True))
        assert all(stop % side == 0 or stop == size for (_, stop), side, size in zip(share.box, (64, 128), volume.shape, strict=True))
        seen[tuple(slice(*span) for span in share.box)] += 1
    assert (seen == 1).all()
    assert len(divide(run, shares=10**6)) < 1000, "no share is thinner than two windows"
    assert division.MOST_SCORES < division.MOST_LABELS
