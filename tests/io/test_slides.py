"""Slides: every level lies where it should, colours are the file's, what is not scanned is white; no library, one sentence."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_tileseg.errors import InputError
from napari_tileseg.io import read_volume
from napari_tileseg.io import slides as slides_module
from napari_tileseg.io.lazy import LazyArray

if TYPE_CHECKING:
    from pathlib import Path


def slide(path: Path) -> np.ndarray[Any, Any]:
    """Write what OpenSlide takes for a generic slide: tiled, with coarser levels, 0.25 µm a pixel."""
    fine = np.kron(np.random.default_rng(0).integers(0, 255, (40, 52, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    settings: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 2, 4):
            resolution = (40_000 / step, 40_000 / step)
            level = fine[::step, ::step]
            writer.write(level, resolution=resolution, resolutionunit="CENTIMETER", subfiletype=int(step > 1), **settings)
    return fine


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("openslide", reason="the extra [slides] is not installed")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("widest", [4096, 100])
def test_levels_colours_and_pixel_size_arrive(tmp_path: Path, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slides_module, "_WIDEST", widest)
    fine = slide(tmp_path / "a.svs")
    volume = read_volume(tmp_path / "a.svs")
    assert isinstance(volume.data, LazyArray)
    assert (volume.axes, volume.shape, volume.name) == ("YXC", fine.shape, "a")
    np.testing.assert_array_equal(volume.data[100:333, 17:801], fine[100:333, 17:801])
    np.testing.assert_array_equal(volume.data[5:9, 7, 1], fine[5:9, 7, 1])
    assert volume.spacing["X"] == pytest.approx(0.25)
    assert volume.unit["Y"] == "micrometer"
    assert [level.shape[:2] for level in volume.levels] == [(320, 416), (160, 208)]
    for level, step in zip(volume.levels, (2, 4), strict=True):
        np.testing.assert_array_equal(np.asarray(level.data), fine[::step, ::step])
        assert level.spacing["X"] == pytest.approx(0.25 * step)
        assert level.affine[0, -1] == pytest.approx(0.25 * (step - 1) / 2)
    assert read_volume(tmp_path / "a.svs", level=2).shape == (160, 208, 3)


@pytest.mark.usefixtures("library")
def test_choices_and_damage_are_one_sentence(tmp_path: Path) -> None:
    slide(tmp_path / "a.svs")
    with pytest.raises(InputError, match="3 resolutions"):
        read_volume(tmp_path / "a.svs", level=3)
    with pytest.raises(InputError, match="one image"):
        read_volume(tmp_path / "a.svs", series=1)
    (tmp_path / "b.ndpi").write_bytes(b"no slide at all")
    with pytest.raises(InputError, match="no slide that OpenSlide can open"):
        read_volume(tmp_path / "b.ndpi")


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "a.mrxs").write_bytes(b"1")
    with pytest.raises(InputError, match=r'"a\.mrxs" needs OpenSlide\. Install it: pip install "napari-tileseg\[slides\]"'):
        read_volume(tmp_path / "a.mrxs")


def test_what_was_not_scanned_is_background() -> None:
    class Slide:
        def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray[Any, Any]:
            picture = np.zeros((size[1], size[0], 4), np.uint8)
            picture[:, 2:] = (10, 20, 30, 255)
            return picture

    block = slides_module._region(None, Slide(), 0, (0, 0), (3, 5), (1.0, 1.0), (255, 255, 255))  # type: ignore[arg-type]
    assert (block[:, :2] == 255).all()
    assert (block[:, 2:] == (10, 20, 30)).all()
