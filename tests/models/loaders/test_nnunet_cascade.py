"""The two stages of a cascade of nnU-Net give its predictor's labels, recorded by scripts/record_nnunet_cascade.py."""

from __future__ import annotations

import json
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import nnunet_regions
import numpy as np
import pytest
from nnunet_cases import EQUAL, HERE, SAMPLE, edited, image_of

from napari_tileseg import SegmentOptions, Volume, read_volume, segment
from napari_tileseg.engine.events import Event, Planned, Progress, SlabDone
from napari_tileseg.errors import Cancelled, ModelError
from napari_tileseg.estimation import estimate
from napari_tileseg.models.ensemble import combine
from napari_tileseg.models.imports import export_model, import_model
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DATASET = HERE / "Dataset903_HippocampusCascade"
FIRST, SECOND = (f"nnUNetTrainer__nnUNetPlans__{name}" for name in ("3d_lowres", "3d_cascade_fullres"))
CASES: list[dict[str, Any]] = json.loads((HERE / "cascade_cases.json").read_text())
QUICK = ("plain", "slices", "padded and holed, coarse")
CPU = SegmentOptions(device="cpu")


@pytest.fixture(scope="module")
def answers() -> dict[str, NDArray[Any]]:
    with np.load(HERE / "cascade.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def sample() -> NDArray[np.uint16]:
    return np.round(np.asarray(read_volume(SAMPLE).data)).astype(np.uint16)


def variant(case: dict[str, Any], folder: Path) -> Path:
    """Copy both stages and change their plans."""
    target = folder / DATASET.name
    shutil.copytree(DATASET, target)
    for stage in (FIRST, SECOND):
        file = target / stage / "plans.json"
        file.write_text(json.dumps(edited(json.loads(file.read_text()), case.get("plans", {}))))
    return target


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case["name"], marks=[pytest.mark.slow] * (case["name"] not in QUICK)) for case in CASES]
)
def test_labels_of_both_stages_are_nnunets(
    case: dict[str, Any], answers: dict[str, NDArray[Any]], sample: NDArray[np.uint16], tmp_path: Path
) -> None:
    model = load_model(f"nnunet:{variant(case, tmp_path)}?folds=0", device="cpu")
    image = image_of(case, sample)
    expected, first = answers[case["name"]], answers[f"{case['name']}, first stage"]
    assert np.count_nonzero(expected != first) > 50, "the second stage changes what the first one says"
    assert np.mean(segment(image, model.previous, options=CPU).labels == first) >= EQUAL
    result = segment(image, model, options=CPU)
    wide = expected.copy()
    places, values = answers[f"{case['name']}, float32"]
    wide.flat[places] = values
    assert np.count_nonzero(result.labels != wide) <= 1  # of scores that are equal but for the order of additions
    # Two stages round twice: where nnU-Net differs from itself with sums in single precision, it may differ from us.
    assert np.count_nonzero(result.labels != expected) <= max(1 + len(places), (1 - EQUAL) * expected.size)
    assert np.mean(result.labels == expected) >= 0.9997


@pytest.mark.parametrize("case", nnunet_regions.CASES, ids=lambda case: str(case["name"]))
def test_the_second_stage_sees_the_labels_of_regions(case: dict[str, Any], sample: NDArray[np.uint16], tmp_path: Path) -> None:
    with np.load(HERE / "regions_cascade.npz") as stored:
        expected, wide = stored[case["name"]], stored[f"{case['name']}, float32"]
    spec = find_spec(f"nnunet:{nnunet_regions.write(tmp_path)}?configuration=3d_cascade_fullres")
    assert (spec.output, spec.inputs, spec.previous.labels if spec.previous else ()) == ("regions", 3, (1, 2))
    model = load_model(f"nnunet:{tmp_path / nnunet_regions.NAME}?configuration=3d_cascade_fullres", device="cpu")
    found = np.asarray(segment(image_of(case, sample), model, options=CPU).labels)
    assert np.count_nonzero(found != wide) <= 1
    assert np.mean(found == expected) >= EQUAL


@pytest.fixture(scope="module")
def tall(sample: NDArray[np.uint16]) -> Volume:
    return Volume.from_scale(np.tile(sample[:, 8:40, 4:30], (2, 1, 1)), "ZYX", (1.0,) * 3, units=("millimeter",) * 3, name="tall")


def test_a_cascade_is_one_run_that_can_be_interrupted_anywhere(tall: Volume, tmp_path: Path) -> None:
    model = load_model(f"nnunet:{DATASET}?configuration=3d_cascade_fullres", device="cpu")
    options = SegmentOptions(device="cpu", tta=False)
    events: list[Event] = []
    whole = segment(tall, model, options=options, on_event=events.append)
    planned = [event.tiles for event in events if isinstance(event, Planned)]
    progress = [event for event in events if isinstance(event, Progress)]
    assert len(set(planned)) == 1
    assert {event.total for event in progress} == set(planned)
    assert [event.done for event in progress] == list(range(1, planned[0] + 1))
    assert estimate(tall, model.spec, options=options).tiles == planned[0]
    rows = [event.region[0] for event in events if isinstance(event, SlabDone)]  # of the second stage alone
    assert [0, *(stop for _, stop in rows)] == [*(start for start, _ in rows), len(whole.labels)]
    assert whole.provenance["model"]["name"].endswith("3d_cascade_fullres")
    assert whole.provenance["previous"]["model"]["name"].endswith("3d_lowres")

    first = estimate(tall, model.spec.previous.model, options=options).tiles
    out = tmp_path / "labels.nii.gz"
    done: list[int] = []
    for stop in (first // 2 + 1, first + 1, first + 2, 10**6):
        counted: list[int] = []

        def note(event: Event, counted: list[int] = counted) -> None:
            if isinstance(event, Progress):
                counted.append(event.done)

        try:
            result = segment(tall, model, options=options, out=out, on_event=note, cancel=lambda stop=stop, c=counted: len(c) >= stop)
        except Cancelled:
            done.append(max(counted))
            assert (tmp_path / ".labels.nii.gz.tileseg" / "first_stage").is_dir()
            continue
        done.append(counted[0])
    assert done[0] <= first < done[1]
    assert done[-1] > first + 1  # the first stage is not computed again
    np.testing.assert_array_equal(result.labels, whole.labels)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.nii.gz"]


def test_a_region_gets_the_first_stage_around_it(tall: Volume) -> None:
    model = load_model(f"nnunet:{DATASET / SECOND}", device="cpu")  # the first stage lies beside it
    options = SegmentOptions(device="cpu", tta=False)
    found = segment(tall, model, options=options, region=((10, 30), (5, 25), (0, 26))).labels
    assert found[10:30, 5:25].any()
    assert not found[30:].any()


def test_which_stages_belong_together(tmp_path: Path) -> None:
    spec = find_spec(f"nnunet:{DATASET}?configuration=3d_cascade_fullres")
    assert (len(spec.channels), spec.inputs) == (1, 3)
    assert spec.previous is not None
    assert spec.previous.labels == (1, 2)
    assert spec.previous.model.training["folds"] == ["all"]
    beside = find_spec(f"nnunet:{DATASET / SECOND / 'fold_0'}").previous
    assert beside is not None
    assert beside.model.training == spec.previous.model.training
    with pytest.raises(ModelError, match="runs with its first stage alone"):
        combine([spec, spec])
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    shutil.copytree(DATASET / SECOND, tmp_path / DATASET.name / SECOND)
    with pytest.raises(ModelError, match=r'second stage of a cascade.*Put the folder "nnUNetTrainer__nnUNetPlans__3d_lowres" beside'):
        find_spec(f"nnunet:{tmp_path / DATASET.name}")
    shutil.copytree(DATASET / FIRST, tmp_path / DATASET.name / FIRST)
    assert find_spec(f"nnunet:{tmp_path / DATASET.name}").previous is not None


def zipped(target: Path) -> Path:
    """Write both stages as nnU-Net exports them."""
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(DATASET.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(DATASET.parent).as_posix())
    return target


@pytest.mark.parametrize("source", ["second stage", "fold", "dataset", "zip"])
def test_a_cascade_is_given_on_whole(source: str, tall: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "own"))
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    place = {"second stage": DATASET / SECOND, "fold": DATASET / SECOND / "fold_0", "dataset": DATASET}.get(source)
    path = place or zipped(tmp_path / "export.zip")
    ref = f"nnunet:{path}?configuration=3d_cascade_fullres" if source in ("dataset", "zip") else str(path)
    options = SegmentOptions(device="cpu", tta=False)
    expected = np.asarray(segment(tall, ref, options=options).labels)
    package = import_model(ref, name="both")
    given = export_model("both", tmp_path / "given.tileseg.zip")
    shutil.rmtree(package)
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "other computer"))
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "other cache"))
    import_model(str(given), name="there")
    for model in (str(given), "there"):
        np.testing.assert_array_equal(segment(tall, model, options=options).labels, expected)
    if source != "zip":
        copied = {file.parent.parent.name for file in (tmp_path / "other computer" / "there").rglob("*.pth")}
        assert copied == {FIRST, SECOND}
