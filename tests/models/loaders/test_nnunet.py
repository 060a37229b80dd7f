"""nnU-Net models give the labels that nnU-Net's own predictor gives, recorded by scripts/record_nnunet.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg import SegmentOptions, Volume, read_volume, segment
from napari_tileseg.models.predictor import load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).parent / "nnunet"
SAMPLE = Path(__file__).parents[3] / "sample_data" / "hippocampus_mri.nii.gz"
CASES: list[dict[str, Any]] = json.loads((HERE / "cases.json").read_text())
EQUAL = 0.9999
"""Share of voxels whose labels must be equal."""


@pytest.fixture(scope="module")
def answers() -> dict[str, NDArray[Any]]:
    with np.load(HERE / "answers.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def sample() -> NDArray[np.uint16]:
    return np.round(np.asarray(read_volume(SAMPLE).data)).astype(np.uint16)


def edited(content: dict[str, Any], edits: dict[str, Any]) -> dict[str, Any]:
    """Return a copy with some values exchanged; their places are written with slashes."""
    copy: dict[str, Any] = json.loads(json.dumps(content))
    for place, value in edits.items():
        *parents, last = place.split("/")
        inner = copy
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    return copy


def variant(case: dict[str, Any], folder: Path) -> Path:
    """Copy the model of a case and change its plans."""
    target: Path = folder / Path(case["model"]).parent.name / Path(case["model"]).name
    shutil.copytree(HERE / case["model"], target)
    for name in ("plans", "dataset"):
        file = target / f"{name}.json"
        file.write_text(json.dumps(edited(json.loads(file.read_text()), case.get(name, {}))))
    return target


def image_of(case: dict[str, Any], sample: NDArray[np.uint16]) -> Volume:
    """Make the image of a case as the recording did."""
    if "file" in case:
        return read_volume(HERE / case["file"])
    image = sample[tuple(slice(*part) for part in case.get("part", []))]
    image = np.tile(image, case.get("tile", [1, 1, 1]))
    if "scale" in case:
        image = np.round(image * case["scale"]).astype(image.dtype)
    image = np.pad(image, case.get("pad", 0))
    for hole in case.get("holes", []):
        image[tuple(slice(*part) for part in hole)] = 0
    if len(image) == 1:  # a picture
        return Volume(image[0], "YX", name=case["name"])
    return Volume.from_scale(image, "ZYX", tuple(case["spacing"]), units=("millimeter",) * 3, name=case["name"])


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_labels_and_scores_are_nnunets(
    case: dict[str, Any], answers: dict[str, NDArray[Any]], sample: NDArray[np.uint16], tmp_path: Path
) -> None:
    folds = ",".join(str(fold) for fold in case.get("folds", [0]))
    ref = f"nnunet:{variant(case, tmp_path)}?folds={folds}&checkpoint={case.get('checkpoint', 'final')}"
    model = load_model(ref, device="cpu")
    image = image_of(case, sample)
    result = segment(image, model, options=SegmentOptions(device="cpu", scores=True))
    expected = answers[case["name"]].reshape(result.labels.shape)
    assert result.labels.dtype == expected.dtype
    equal = float(np.mean(result.labels == expected))
    print(f"{case['name']}: {equal:.6f}, {int(np.count_nonzero(expected))} voxels of {expected.size} labelled")
    assert equal >= EQUAL
    assert result.scores is not None
    raw = result.scores.reshape(len(result.scores), *answers[case["name"]].shape)[:, ::5, ::5, ::5].astype(np.float64)
    found = 1 / (1 + np.exp(-raw)) if model.spec.output == "regions" else np.exp(raw) / np.exp(raw).sum(axis=0)
    inside = (raw != 0).any(axis=0)  # nothing is computed outside of what is not 0
    recorded = answers[f"{case['name']} scores"].astype(np.float64)
    np.testing.assert_allclose(found[:, inside], recorded[:, inside], atol=5e-3)


def test_labels_are_the_same_without_scores(answers: dict[str, NDArray[Any]], sample: NDArray[np.uint16], tmp_path: Path) -> None:
    for name in ("plain", "coarse", "regions, coarse", "planes, coarse"):
        case = next(case for case in CASES if case["name"] == name)
        found = segment(image_of(case, sample), f"nnunet:{HERE / case['model']}?folds=0", options=SegmentOptions(device="cpu")).labels
        assert float(np.mean(found == answers[name])) >= EQUAL
