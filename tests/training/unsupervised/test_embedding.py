"""Codes travel as a table: what is written is read, and the command writes what the function returns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.cli import main
from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.training.unsupervised.embed import embed
from napari_tileseg.training.unsupervised.embedding import Embedding, read_embedding, write_embedding

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIELDS = ("positions", "codes", "points", "labels", "scores")


@given(rows=st.integers(1, 6), axes=st.sampled_from(["YX", "ZYX", "TZYX", ""]), codes=st.integers(1, 5), seed=st.integers(0, 99))
def test_what_is_written_is_read(rows: int, axes: str, codes: int, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    generator = np.random.default_rng(seed)
    made = Embedding(
        generator.normal(size=(rows, len(axes) or 2)) * 1e4,
        generator.normal(size=(rows, codes)).astype(np.float32),
        generator.normal(size=(rows, 2)).astype(np.float32) * np.float32(1e-6),
        generator.integers(0, 2**40, rows),
        generator.random(rows).astype(np.float32),
        axes,
    )
    path = tmp_path_factory.mktemp("codes") / "codes.csv"
    write_embedding(made, path)
    found = read_embedding(path)
    assert found.axes == axes
    for name in FIELDS:
        before, after = getattr(made, name), getattr(found, name)
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)
    with pytest.raises(OutputError, match="already"):
        write_embedding(made, path)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "position Y,label\nx,1\n"])
def test_what_is_no_table_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="no table of codes"):
        read_embedding(path)
    with pytest.raises(InputError, match="no table of codes"):
        read_embedding(tmp_path / "nothing.csv")


def test_the_command_writes_what_the_function_returns(
    train: Callable[..., Any], make_texture: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train()
    labels = np.zeros((96, 96), np.uint8)
    labels[10:30, 10:30], labels[50:80, 50:90] = 1, 2
    tifffile.imwrite(tmp_path / "image.tif", make_texture(5))
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    words = ["embed", str(tmp_path / "model"), str(tmp_path / "image.tif"), "-o", str(tmp_path / "codes.csv"), "--device", "cpu", "--json"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--labels", str(tmp_path / "labels.tif")])
    assert not end.value.code
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 2
    found, expected = (
        read_embedding(tmp_path / "codes.csv"),
        embed(str(tmp_path / "model"), make_texture(5), labels, axes="YX", device="cpu"),
    )
    assert found.axes == expected.axes == "YX"
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)
    with pytest.raises(SystemExit) as end:
        main([*words[:3], str(tmp_path / "image.tif"), "-o", str(tmp_path / "both.csv"), "--by", "tiles", "--device", "cpu"])
    assert not end.value.code
    both = read_embedding(tmp_path / "both.csv")
    assert both.images == ("image",) * 18
    np.testing.assert_array_equal(both.codes[:9], both.codes[9:])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code and "already" in capsys.readouterr().out
