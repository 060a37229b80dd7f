"""Packages of others bring models, decoders and formats; ``tests/extensions`` holds one of each, as the documentation shows them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

from napari_tileseg import ModelSpec, from_module, read_volume, segment
from napari_tileseg.cli import main
from napari_tileseg.engine.objects import renumber
from napari_tileseg.models.predictor import load_model

HERE = Path(__file__).parent / "extensions"
PACKAGES = ("example_models", "example_decoder", "example_format")
PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def run(*words: str) -> int:
    try:
        main(list(words))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def blobs(shape: tuple[int, int] = (300, 260)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), 4)
    return (noise / noise.std()).astype(np.float32)


def test_a_model_that_gives_labels(extensions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = blobs()
    (tmp_path / "cells.bright.json").write_text('{"least": 1.2}')
    tifffile.imwrite(tmp_path / "cells.tif", image)
    out = tmp_path / "labels.tif"
    assert run("segment", str(tmp_path / "cells.tif"), "-o", str(out), "--model", str(tmp_path / "cells.bright.json")) == 0
    expected, count = renumber(ndimage.label(image > 1.2)[0])
    np.testing.assert_array_equal(np.asarray(read_volume(out).data), expected)
    assert f"{count} objects" in capsys.readouterr().out
    assert run("models", "show", f"bright:{tmp_path / 'cells.bright.json'}") == 0
    assert "cells" in capsys.readouterr().out


def test_a_model_that_gives_an_anomaly_score(extensions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.full((150, 130), 0.5, np.float32)
    image[30:50, 60:70] = 0.9
    image[100, 100] = 0.9  # too small
    (tmp_path / "tissue.ordinary.json").write_text('{"mean": 0.5, "threshold": 0.1}')
    tifffile.imwrite(tmp_path / "tissue.tif", image)
    out, model = tmp_path / "labels.ome.tif", str(tmp_path / "tissue.ordinary.json")
    assert run("segment", str(tmp_path / "tissue.tif"), "-o", str(out), "--model", model, "--scores", "--json") == 0
    saved = json.loads(capsys.readouterr().out.splitlines()[-1])
    labels = np.asarray(read_volume(out).data)
    expected = ndimage.median_filter(image, 3) > 0.8
    np.testing.assert_array_equal(labels, expected)
    assert saved["counts"] == {"normal": int((~expected).sum()), "anomaly": int(expected.sum())}
    scores = np.asarray(read_volume(saved["scores"]).data)
    np.testing.assert_allclose(scores.reshape(image.shape), (image - 0.5) ** 2, atol=1e-6)


def test_a_decoder(extensions: Path) -> None:
    image = blobs((120, 100))
    known = {"axes": "CYX", "channels": 1, "classes": ["background", "cell"], "window": (48, 48), "heads": ["foreground"]}
    spec = ModelSpec(name="scores", output="instances", decoder="components", **known)
    found = segment(image, from_module(torch.nn.Identity(), spec, device="cpu"), axes="YX")
    np.testing.assert_array_equal(found.labels, renumber(ndimage.label(image > 0, np.ones((3, 3)))[0])[0])


def test_a_format(extensions: Path, tmp_path: Path) -> None:
    (tmp_path / "cells.bright.json").write_text('{"least": 0.5}')
    image = blobs((90, 80))
    np.save(tmp_path / "cells.stack.npy", image)
    assert read_volume(tmp_path / "cells.stack.npy").name == "cells"
    out = tmp_path / "labels.stack.npy"
    assert run("segment", str(tmp_path / "cells.stack.npy"), "-o", str(out), "--model", str(tmp_path / "cells.bright.json")) == 0
    np.testing.assert_array_equal(np.load(out), renumber(ndimage.label(image > 0.5)[0])[0])


def test_they_are_gone_when_their_packages_are(tmp_path: Path) -> None:
    (tmp_path / "cells.bright.json").write_text('{"least": 0.5}')
    with pytest.raises(Exception, match="no model that is known here"):
        load_model(str(tmp_path / "cells.bright.json"))


def test_the_documentation_shows_their_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in PACKAGES:
        code = (HERE / name / f"{name}.py").read_text()
        shown = [block for block in re.findall(r"(?ms)^```python\n(.*?)^```$", page) if block in code]
        assert shown, f"docs/extending.md shows nothing of {name}.py"
        table = (HERE / name / "pyproject.toml").read_text().partition("\n[project.entry-points.")[2].partition("\n\n")[0]
        assert f"[project.entry-points.{table}\n```" in page, f"docs/extending.md does not show the entry points of {name}"


@pytest.mark.slow
def test_a_new_process_finds_them(extensions: Path, tmp_path: Path) -> None:
    (tmp_path / "cells.bright.json").write_text('{"least": 1.2}')
    tifffile.imwrite(tmp_path / "cells.tif", blobs())
    words = ["segment", "cells.tif", "-o", "labels.tif", "--model", "cells.bright.json"]
    done = subprocess.run(
        [sys.executable, "-m", "napari_tileseg.cli", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "labels.tif").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_they_can_be_installed(name: str, tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="builds a wheel")
    source = tmp_path / name
    source.mkdir()
    for path in (HERE / name).glob("*.*"):
        (source / path.name).write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(tmp_path / "there")]
    done = subprocess.run([*pip, str(source)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there" / f"{name}.py").is_file()
    assert list((tmp_path / "there").glob("tileseg_example_*.dist-info/entry_points.txt"))
