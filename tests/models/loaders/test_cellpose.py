"""Cellpose's weights: the scores and the objects that Cellpose itself gives, and files that are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_tileseg.errors import InputError, ModelError, OptionsError, TrustError, WeightsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.loaders.registry import detect
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec
from napari_tileseg.pipeline import segment

HERE = Path(__file__).parent / "cellpose"
ROOT = Path(__file__).parents[3]
CPU = SegmentOptions(device="cpu", scores=True)

CASES = {
    "3: as it is": ([0, 520, 0, 696], 30.0, 0),
    "3: smaller": ([40, 360, 100, 420], 45.0, 0),
    "3: larger": ([300, 431, 310, 490], 18.5, 0),
    "3: one window": ([10, 190, 20, 220], None, 0),
    "3: two channels": ([120, 330, 200, 450], 30.0, 2),
    "4: as it is": ([0, 400, 0, 500], None, 0),
    "4: larger": ([300, 420, 310, 490], 20.0, 0),
    "4: three channels": ([120, 380, 200, 450], None, 3),
}
"""Box of the sample, diameter, and number of channels, as in scripts/record_cellpose.py; the version comes first."""

pytestmark = pytest.mark.usefixtures("own_folder")


def matched(found: np.ndarray, true: np.ndarray) -> float:
    """Return the average precision at a threshold of one half."""
    table = np.histogram2d(found.ravel(), true.ravel(), bins=[np.arange(found.max() + 2), np.arange(true.max() + 2)])[0]
    sizes, others = table.sum(1)[1:, None], table.sum(0)[None, 1:]
    hits = (table[1:, 1:] / (sizes + others - table[1:, 1:]) > 0.5).sum()
    return float(hits / (len(sizes) + others.shape[1] - hits))


def image_of(case: str) -> np.ndarray:
    (top, bottom, left, right), _, channels = CASES[case]
    sample = tifffile.imread(ROOT / "sample_data" / "nuclei_fluorescence.tif")[top:bottom, left:right]
    if not channels:
        return sample
    return np.stack([np.roll(sample, 2 * index, axis=-1) // (8 * index + 1) for index in range(channels)])


@pytest.mark.parametrize("case", CASES)
def test_scores_and_objects_are_cellposes(case: str) -> None:
    version, name = case.split(": ")
    image, diameter = image_of(case), CASES[case][1]
    with np.load(HERE / f"answers{version}.npz") as file:
        true, scores, largest = (file[f"{name}, {what}"] for what in ("labels", "scores", "largest"))
    model = load_model(f"cellpose:{HERE / f'small{version}'}" + (f"?diameter={diameter}" if diameter else ""), device="cpu")
    result = segment(image, model, axes="CYX"[-image.ndim :], options=CPU)
    assert result.scores is not None
    assert np.abs(result.scores[:, ::5, ::5] - scores[[2, 0, 1]]).max() < 1e-4 * largest
    labels, true = np.asarray(result.labels), true.astype(int)
    assert true.max() >= 5
    assert matched(labels, true) >= 0.99
    assert ((labels > 0) == (true > 0)).mean() >= 0.999


def small(**more: object) -> torch.nn.Module:
    arguments = {"channels": [4, 6], "in_channels": 2, **more}
    return build_network("cellpose_unet", **arguments)


def test_weights_are_recognised_whatever_they_are_called(tmp_path: Path) -> None:
    for name in ("cyto3", "CP_20260101", "weights.pth"):
        path = tmp_path / name
        torch.save(small().state_dict(), path)
        found = detect(path)
        assert found is not None
        assert found.scheme == "cellpose"
        spec = find_spec(str(path))
        assert (spec.axes, spec.channels, spec.window, spec.output) == ("CYX", ["cells", "nuclei"], (224, 224), "instances")
        assert (spec.arguments, spec.unknown) == ({"in_channels": 2, "channels": [4, 6], "kernel_size": 3}, ["licence"])
    torch.save({f"module.{key}": value for key, value in small().state_dict().items()}, tmp_path / "parallel")
    assert find_spec(str(tmp_path / "parallel")).decoder == "cellpose"
    load_model(f"cellpose:{tmp_path / 'parallel'}", device="cpu")
    torch.save(small().state_dict(), tmp_path / "old", _use_new_zipfile_serialization=False)
    assert detect(tmp_path / "old") is found


def test_the_diameter_chooses_how_large_the_image_is_seen(tmp_path: Path) -> None:
    state = small().state_dict()
    state["diam_labels"] = torch.tensor([20.0])
    torch.save(state, tmp_path / "own")
    assert find_spec(f"cellpose:{tmp_path / 'own'}").zoom == (1.5, 1.5)
    assert find_spec(f"cellpose:{tmp_path / 'own'}").decoder_parameters["steps"] == 133
    assert find_spec(f"cellpose:{tmp_path / 'own'}?diameter=30").zoom is None
    spec = find_spec(f"cellpose:{tmp_path / 'own'}?diameter=60&flow_threshold=0&niter=99")
    assert (spec.zoom, spec.decoder_parameters["flow_threshold"], spec.decoder_parameters["steps"]) == ((0.5, 0.5), 0, 99)
    without = {name: value for name, value in state.items() if not name.startswith("diam")}
    for name, zoom in (("cytotorch_0", None), ("nucleitorch_0", (17 / 34, 17 / 34))):
        torch.save(without, tmp_path / name)
        diameter = 34 if zoom else 30
        assert find_spec(f"cellpose:{tmp_path / name}?diameter={diameter}").zoom == zoom
        load_model(f"cellpose:{tmp_path / name}", device="cpu")


@pytest.mark.parametrize("option", ["diameter=wide", "diameter=0", "diameter=nan", "flow_threshold=-1", "niter=0"])
def test_options_that_cannot_be_are_refused(option: str) -> None:
    with pytest.raises(OptionsError, match="a number from"):
        find_spec(f"cellpose:{HERE / 'small3'}?{option}")


def test_an_image_may_have_fewer_channels_and_not_more() -> None:
    model = load_model(f"cellpose:{HERE / 'small3'}?diameter=30", device="cpu")
    image = image_of("3: two channels")
    one = segment(image[0], model, axes="YX", options=CPU)
    assert np.array_equal(segment(image[:1], model, axes="CYX", options=CPU).labels, one.labels)
    both = segment(np.stack([image[0], np.zeros_like(image[0])]), model, axes="CYX", options=CPU)
    assert np.array_equal(both.labels, one.labels)
    with pytest.raises(InputError, match="takes 2 channels or fewer; the image has 3"):
        segment(np.concatenate([image, image[:1]]), model, axes="CYX", options=CPU)
    chosen = segment(np.concatenate([image[1:], image[:1], image[1:]]), model, axes="CYX", channels=(1,), options=CPU)
    assert np.array_equal(chosen.labels, one.labels)


@pytest.mark.parametrize("version", ["3", "4"])
def test_a_damaged_file_gets_a_sentence(tmp_path: Path, version: str) -> None:
    whole = (HERE / f"small{version}").read_bytes()
    path = tmp_path / "cyto"
    for size in (1, 50, 2000, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError):
            load_model(f"cellpose:{path}", device="cpu")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"output.2.weight": torch.zeros(2, 4, 1, 1), "output.2.bias": torch.zeros(2)}, "returns 2 channels"),
        ({"output.2.weight": None}, "do not fit"),
        ({"output.0.bias": torch.zeros(9)}, r"do not fit .*output.0.bias: 9 instead of 4"),
        ({"downsample.down.res_down_999999.conv.conv_0.2.weight": torch.zeros(1)}, "do not fit"),
        ({"downsample.down.res_down_0.conv.conv_0.2.weight": torch.zeros(4, 2, 3, 3, 3)}, "for volumes"),
        ({"diam_mean": torch.tensor([float("nan")])}, "which cannot be"),
        ({"diam_labels": torch.zeros(0)}, "missing or empty"),
    ],
)
def test_weights_of_something_else_get_a_sentence(tmp_path: Path, change: dict[str, torch.Tensor | None], sentence: str) -> None:
    state = {**small().state_dict(), **change}
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "cyto")
    with pytest.raises(ModelError, match=sentence):
        load_model(f"cellpose:{tmp_path / 'cyto'}", device="cpu")


def test_a_transformer_that_is_not_known_is_refused(tmp_path: Path) -> None:
    state = torch.load(HERE / "small4", weights_only=True)
    torch.save({**state, "encoder.rope_embed.periods": torch.zeros(3)}, tmp_path / "cpdino")
    with pytest.raises(ModelError, match="on DINO"):
        find_spec(f"cellpose:{tmp_path / 'cpdino'}")
    torch.save({**state, "encoder.pos_embed": torch.zeros(1, 3, 4, 32)}, tmp_path / "cpsam")
    with pytest.raises(WeightsError, match="do not fit"):
        find_spec(f"cellpose:{tmp_path / 'cpsam'}")


def test_a_pickle_that_runs_something_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> object:
            return print, ("run",)

    torch.save({**small().state_dict(), "more": Harm()}, tmp_path / "cyto3")
    with pytest.raises(TrustError, match="print"):
        find_spec(f"cellpose:{tmp_path / 'cyto3'}")


def test_another_file_is_not_taken(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    assert (detect(tmp_path / "other.pth") or detect(HERE / "small3")).scheme == "checkpoint"  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="no weights of Cellpose"):
        find_spec(f"cellpose:{tmp_path / 'other.pth'}")
    shutil.copy(ROOT / "sample_data" / "nuclei_histology.png", tmp_path / "cyto")
    assert detect(tmp_path / "cyto") is None
