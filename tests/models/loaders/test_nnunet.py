"""nnU-Net models give the labels that nnU-Net's own predictor gives, recorded by scripts/record_nnunet.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from nnunet_cases import EQUAL, HERE, SAMPLE, edited, image_of

from napari_tileseg import SegmentOptions, read_volume, segment
from napari_tileseg.models.predictor import load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

CASES: list[dict[str, Any]] = json.loads((HERE / "cases.json").read_text())


@pytest.fixture(scope="module")
def answers() -> dict[str, NDArray[Any]]:
    with np.load(HERE / "answers.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def sample() -> NDArray[np.uint16]:
    return np.round(np.asarray(read_volume(SAMPLE).data)).astype(np.uint16)


def variant(case: dict[str, Any], folder: Path) -> Path:
    """Copy the model of a case and change its plans."""
    target: Path = folder / Path(case["model"]).parent.name / Path(case["model"]).name
    shutil.copytree(HERE / case["model"], target)
    for name in ("plans", "dataset"):
        file = target / f"{name}.json"
        file.write_text(json.dumps(edited(json.loads(file.read_text()), case.get(name, {}))))
    return target


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
    # nnU-Net keeps its sums in half precision, which loses most where weights are small. A model that gets its volumes turned, as
    # it never did in training, is in doubt about more of them.
    assert np.mean(result.labels == expected) >= (EQUAL if "transpose_forward" not in case.get("plans", {}) else 0.9998)
    wide = expected.copy()
    places, values = answers[f"{case['name']}, float32"]
    wide.flat[places] = values
    assert np.count_nonzero(result.labels != wide) <= 1  # of scores that are equal but for the order of additions
    assert result.scores is not None
    raw = result.scores.reshape(len(result.scores), *answers[case["name"]].shape)[:, ::7, ::7, ::7].astype(np.float64)
    found = 1 / (1 + np.exp(-raw)) if model.spec.output == "regions" else np.exp(raw) / np.exp(raw).sum(axis=0)
    inside = (raw != 0).any(axis=0)  # nothing is computed outside of what is not 0
    assert inside.mean() > 0.5
    recorded = answers[f"{case['name']}, probabilities"].astype(np.float64)
    np.testing.assert_allclose(found[:, inside], recorded[:, inside], atol=6e-4)  # of numbers recorded in half precision


@pytest.mark.parametrize("name", ["plain", "coarse", "regions, coarse", "planes, coarse"])
def test_labels_are_the_same_without_scores(name: str, answers: dict[str, NDArray[Any]], sample: NDArray[np.uint16]) -> None:
    case = next(case for case in CASES if case["name"] == name)
    found = segment(image_of(case, sample), f"nnunet:{HERE / case['model']}?folds=0", options=SegmentOptions(device="cpu")).labels
    assert np.mean(found == answers[name]) >= EQUAL


@pytest.mark.parametrize("name", ["slices", "regions, coarse"])
def test_labels_are_those_of_the_predictor_where_it_is_installed(name: str, sample: NDArray[np.uint16]) -> None:
    reason = "nnU-Net is not installed; its answers are recorded"
    nnunet = pytest.importorskip("nnunetv2.inference.predict_from_raw_data", reason=reason, exc_type=ImportError)
    case = next(case for case in CASES if case["name"] == name)
    image = image_of(case, sample)
    predictor = nnunet.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(HERE / case["model"]), use_folds=(0,))
    pixels = np.asarray(image.data)[None].astype(np.float32)
    expected = predictor.predict_single_npy_array(pixels, {"spacing": case["spacing"]}, None, None)
    found = segment(image, f"nnunet:{HERE / case['model']}?folds=0", options=SegmentOptions(device="cpu")).labels
    assert np.mean(found == expected) >= EQUAL
