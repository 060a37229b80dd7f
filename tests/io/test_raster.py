"""Pictures: grey stays grey, colours are the last axis, 16 bits stay 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from imagecodecs import png_encode
from PIL import Image

from napari_tileseg.errors import InputError
from napari_tileseg.io import read_volume

if TYPE_CHECKING:
    from pathlib import Path


def pattern(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray[Any, Any]:
    return np.random.default_rng(2).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


@pytest.mark.parametrize(("suffix", "channels"), [(".png", 0), (".png", 2), (".png", 3), (".png", 4), (".bmp", 0), (".bmp", 3)])
def test_grey_colours_and_transparency(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = pattern((20, 30, channels) if channels else (20, 30))
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    volume = read_volume(tmp_path / f"a{suffix}")
    expected = {0: pixels, 2: pixels[..., :1].squeeze(-1), 3: pixels, 4: pixels[..., :3]}[channels]
    assert volume.axes == ("YXC" if expected.ndim == 3 else "YX")
    np.testing.assert_array_equal(volume.data, expected)


@pytest.mark.parametrize("channels", [0, 2, 3, 4])
def test_sixteen_bits(tmp_path: Path, channels: int) -> None:
    pixels = pattern((20, 30, channels) if channels else (20, 30), np.uint16)
    (tmp_path / "a.png").write_bytes(png_encode(pixels))
    volume = read_volume(tmp_path / "a.png")
    assert volume.dtype == np.uint16
    expected = {0: pixels, 2: pixels[..., :1].squeeze(-1), 3: pixels, 4: pixels[..., :3]}[channels]
    np.testing.assert_array_equal(volume.data, expected)


def test_one_bit(tmp_path: Path) -> None:
    pixels = pattern((20, 30)) > 100
    Image.fromarray(pixels).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert (volume.axes, volume.dtype) == ("YX", bool)
    np.testing.assert_array_equal(volume.data, pixels)


@pytest.mark.parametrize(("colours", "axes"), [([9, 9, 9, 200, 200, 200], "YX"), ([255, 0, 0, 0, 0, 255], "YXC")])
def test_palettes_are_resolved(tmp_path: Path, colours: list[int], axes: str) -> None:
    indices = pattern((20, 30)) % 2
    image = Image.fromarray(indices, mode="L").convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colours)
    image.save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    table = np.array(colours, np.uint8).reshape(2, 3)
    assert volume.axes == axes
    np.testing.assert_array_equal(volume.data, table[indices] if axes == "YXC" else table[indices][..., 0])


def test_jpeg(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30, 3), 128, np.uint8)).save(tmp_path / "a.JPG", quality=100)
    volume = read_volume(tmp_path / "a.JPG")
    assert (volume.axes, volume.shape, volume.name) == ("YXC", (20, 30, 3), "a")
    np.testing.assert_allclose(volume.data, 128, atol=2)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_cut_off(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pattern((200, 300, 3))).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f'"a{suffix}" ends too early' in refusal(path)


def test_cut_off_with_sixteen_bits(tmp_path: Path) -> None:
    packed = png_encode(pattern((200, 300, 3), np.uint16))
    (tmp_path / "a.png").write_bytes(packed[: len(packed) // 2])
    assert '"a.png"' in refusal(tmp_path / "a.png")


def test_text(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    assert refusal(tmp_path / "a.png") == '"a.png" holds text, not a PNG image. Save the image itself under that name.'


def test_noise(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\x00\x01\x02" * 99)
    assert "is no JPEG image" in refusal(tmp_path / "a.jpg")


def test_pictures_hold_one_image(tmp_path: Path) -> None:
    Image.fromarray(pattern((2, 2))).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="series 0 and level 0"):
        read_volume(tmp_path / "a.png", series=1)
