"""StarDist's models: the scores and the objects that StarDist itself gives, and files that must not be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_tileseg.errors import ModelError, OptionsError, WeightsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.loaders.registry import detect
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec
from napari_tileseg.pipeline import segment

h5py = pytest.importorskip("h5py")

HERE = Path(__file__).parent / "stardist"
ROOT = Path(__file__).parents[3]
BOXES = [(slice(0, 520), slice(0, 696)), (slice(40, 251), slice(100, 333))]
NAMES = sorted(path.parent.name for path in HERE.glob("*/config.json"))
CASES = [(name, index) for name in NAMES for index in range(1 if name == "volume" else 2)]

pytestmark = pytest.mark.usefixtures("own_folder")


def matched(found: np.ndarray, true: np.ndarray) -> float:
    """Return the average precision at a threshold of one half."""
    table = np.histogram2d(found.ravel(), true.ravel(), bins=[np.arange(found.max() + 2), np.arange(true.max() + 2)])[0]
    sizes, others = table.sum(1)[1:, None], table.sum(0)[None, 1:]
    hits = (table[1:, 1:] / (sizes + others - table[1:, 1:]) > 0.5).sum()
    return float(hits / (len(sizes) + others.shape[1] - hits))


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    with np.load(HERE / "answers.npz") as file:
        return dict(file)


def image_of(name: str, index: int, answers: dict[str, np.ndarray]) -> np.ndarray:
    return answers["balls"] if name == "volume" else tifffile.imread(ROOT / "sample_data" / "nuclei_fluorescence.tif")[BOXES[index]]


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize(("name", "index"), CASES)
def test_scores_and_objects_are_stardists(name: str, index: int, tiles: bool, answers: dict[str, np.ndarray]) -> None:
    image = image_of(name, index, answers)
    # A small window and enough overlap give what the whole image at once gives.
    some: dict[str, Any] = {"window": (256, 256) if image.ndim == 2 else (32, 64, 64), "overlap": 0.75} if tiles else {}
    model = load_model(f"stardist:{HERE / name}", device="cpu")
    result = segment(image, model, axes="ZYX"[-image.ndim :], options=SegmentOptions(device="cpu", scores=True, **some))
    assert result.scores is not None
    on_grid = result.scores[(slice(None), *(slice(None, None, step) for step in model.spec.training["grid"]))]
    likely = 1 / (1 + np.exp(-on_grid[0][(slice(None, None, 5),) * image.ndim]))
    expected = answers[f"{name} {index}, probabilities"][tuple(slice(0, size) for size in likely.shape)]
    assert np.abs(likely - expected).max() < 1e-5
    distances = np.moveaxis(np.maximum(on_grid[1:], 1e-3)[(slice(None, None, 5), *(slice(None, None, 11),) * image.ndim)], 0, -1)
    reference = answers[f"{name} {index}, distances"][tuple(slice(0, size) for size in distances.shape[:-1])]
    assert np.abs(distances - reference).max() < 1e-4 * np.abs(reference).max()
    labels, true = np.asarray(result.labels), answers[f"{name} {index}, labels"].astype(int)
    assert true.max() >= (3 if name == "norms" else 15)
    assert matched(labels, true) >= 0.99
    assert ((labels > 0) == (true > 0)).mean() >= (0.9999 if image.ndim == 2 else 0.999)


@pytest.fixture
def plane(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HERE / "plane", tmp_path / "plane"))


def test_a_folder_is_recognised_and_described(plane: Path) -> None:
    found = detect(plane)
    assert found is not None
    assert found.scheme == "stardist"
    spec = find_spec(str(plane))
    assert (spec.axes, spec.output, spec.decoder, spec.classes) == ("CYX", "instances", "stardist", ["background", "object"])
    assert spec.unknown == ["licence"]
    assert spec.decoder_parameters["prob_thresh"] == json.loads((plane / "thresholds.json").read_text())["prob"]
    assert {path.name for path in found.members(plane)} == {"config.json", "thresholds.json", "weights_best.h5"}
    (plane / "thresholds.json").unlink()
    spec = find_spec(f"stardist:{plane}?nms_thresh=0.6&scale=0.5")
    assert (spec.decoder_parameters["prob_thresh"], spec.decoder_parameters["nms_thresh"], spec.zoom) == (0.5, 0.6, (0.5, 0.5))


@pytest.mark.parametrize("option", ["scale=big", "scale=0", "prob_thresh=2", "nms_thresh=-1"])
def test_options_that_cannot_be_are_refused(plane: Path, option: str) -> None:
    with pytest.raises(OptionsError, match="a number from"):
        find_spec(f"stardist:{plane}?{option}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n_dim": 4}, "n_dim = 4"),
        ({"n_rays": 10**9}, "n_rays"),
        ({"unet_n_depth": 10**6}, "unet_n_depth"),
        ({"unet_n_filter_base": "32"}, "unet_n_filter_base"),
        ({"grid": [3, 3]}, "powers of 2"),
        ({"grid": [[2], 2]}, "grid"),
        ({"unet_kernel_size": [2, 2]}, "odd"),
        ({"unet_activation": "os.system"}, "activation"),
        ({"backbone": "resnet"}, "resnet"),
        ({"unet_n_filter_base": 4096, "unet_n_depth": 10}, "do not fit"),
        ({"unet_n_filter_base": 5}, "do not fit"),
    ],
)
def test_a_configuration_that_cannot_be_used_gets_a_sentence(plane: Path, change: dict[str, Any], sentence: str) -> None:
    config = json.loads((plane / "config.json").read_text())
    (plane / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=sentence):
        load_model(f"stardist:{plane}", device="cpu")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"n_rays": ' + "[" * 5000 + "]" * 5000 + "}", "[]", "{", "\x00", '{"n_rays": 1e999}'])
def test_a_strange_configuration_gets_a_sentence(plane: Path, content: str) -> None:
    (plane / "config.json").write_text(content)
    with pytest.raises(ModelError):
        find_spec(f"stardist:{plane}")


def test_rays_that_are_not_known_are_refused(plane: Path) -> None:
    config = json.loads((plane / "config.json").read_text())
    volume = {"n_dim": 3, "grid": [1, 2, 2], "unet_kernel_size": [3] * 3, "unet_pool": [2] * 3, "rays_json": {"name": "Rays_Explicit"}}
    (plane / "config.json").write_text(json.dumps({**config, **volume}))
    with pytest.raises(ModelError, match="only Rays_GoldenSpiral"):
        find_spec(f"stardist:{plane}")


def huge(file: Any) -> None:
    del file["features"]
    file.create_dataset("features/features/kernel:0", shape=(10**5, 10**5, 100, 100), dtype="f4", chunks=(1, 1, 100, 100))


def elsewhere(file: Any) -> None:
    del file["features"]
    file["features"] = h5py.ExternalLink("/etc/passwd", "/")


def loop(file: Any) -> None:
    file["features/again"] = file["features"]


def outside(file: Any) -> None:
    del file["features"]
    file.create_dataset("features/features/kernel:0", shape=(8,), dtype="f4", external=[("/etc/passwd", 0, 32)])


def many(file: Any) -> None:
    for index in range(10_001):
        file.create_group(f"group{index}")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (huge, "far larger"),
        (elsewhere, "points to another place"),
        (loop, "nested or cut"),
        (outside, "in another file"),
        (many, "nested or cut"),
    ],
)
def test_weights_that_would_harm_are_not_read(plane: Path, harm: Any, sentence: str) -> None:
    with h5py.File(plane / "weights_best.h5", "r+") as file:
        harm(file)
    with pytest.raises(WeightsError, match=sentence):
        load_model(f"stardist:{plane}", device="cpu")


@pytest.mark.parametrize("size", [0, 10, 5000, 60_000])
def test_a_cut_file_gets_a_sentence(plane: Path, size: int) -> None:
    weights = plane / "weights_best.h5"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(WeightsError, match=r"no intact file|holds no weights"):
        load_model(f"stardist:{plane}", device="cpu")
