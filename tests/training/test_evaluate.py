"""Labels compared with the truth: every metric by hand, whole folders, the command, what does not fit."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_tileseg import cli, evaluate
from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.io.registry import write_labels
from napari_tileseg.training.evaluate import METRICS, compare
from napari_tileseg.training.metrics import dice, gland_scores, jaccard, panoptic_quality
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

LABELS = hnp.arrays(np.int32, (5, 6), elements=st.integers(0, 4))


def glands_by_hand(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Compute F1 and object Dice pair by pair, as the challenge describes them; where two partners are equally good, any is right."""
    predicted = [prediction == number for number in np.unique(prediction) if number]
    true = [reference == number for number in np.unique(reference) if number]

    def partner(one: np.ndarray, others: list[np.ndarray]) -> np.ndarray | None:
        shared = [(one & other).sum() for other in others]
        return others[int(np.argmax(shared))] if shared and max(shared) else None

    found, detected = 0, set()
    for one in predicted:
        other = partner(one, true)
        if other is not None and 2 * (one & other).sum() >= other.sum():
            found += 1
            detected.add(other.tobytes())
    total = 2 * found + len(predicted) - found + len(true) - len(detected)

    def side(ones: list[np.ndarray], others: list[np.ndarray]) -> float:
        area = sum(one.sum() for one in ones)
        value = 0.0
        for one in ones:
            other = partner(one, others)
            if other is not None:
                value += one.sum() / area * 2 * (one & other).sum() / (one.sum() + other.sum())
        return value

    return 2 * found / total, (side(predicted, true) + side(true, predicted)) / 2


@given(prediction=LABELS, reference=LABELS)
def test_gland_scores_are_those_of_the_definition(prediction: np.ndarray, reference: np.ndarray) -> None:
    scores = gland_scores(prediction, reference)
    if not prediction.any() and not reference.any():
        assert math.isnan(scores.f1) and math.isnan(scores.object_dice)
        return
    f1, object_dice = glands_by_hand(prediction, reference)
    assert scores.f1 == pytest.approx(f1)
    assert scores.object_dice == pytest.approx(object_dice)


@given(reference=LABELS)
def test_the_truth_itself_is_perfect(reference: np.ndarray) -> None:
    scores, _ = compare(Volume(reference, "YX"), Volume(reference.copy(), "YX"), metrics=METRICS)
    for name, value in scores.items():
        assert math.isnan(value) or value == pytest.approx(0.0 if name.startswith(("hd95", "assd")) else 1.0), name


@given(prediction=LABELS, reference=LABELS)
def test_panoptic_quality_by_hand(prediction: np.ndarray, reference: np.ndarray) -> None:
    predicted = [prediction == number for number in np.unique(prediction) if number]
    true = [reference == number for number in np.unique(reference) if number]
    overlaps = [(one & other).sum() / (one | other).sum() for one in predicted for other in true]
    good = [overlap for overlap in overlaps if overlap > 0.5]
    count = (len(predicted) + len(true)) / 2
    assert panoptic_quality(prediction, reference) == pytest.approx(sum(good) / count if count else 1.0)


def test_an_empty_class_says_nothing_and_a_missed_one_is_nought() -> None:
    here, there = np.array([[1, 0], [0, 0]]), np.array([[1, 0], [2, 0]])
    scores = dice(here, there, (1, 2, 3), empty=math.nan)
    assert scores[:2].tolist() == [1.0, 0.0] and math.isnan(scores[2])
    np.testing.assert_allclose(jaccard(np.array([0.5, 1.0, 0.0])), [1 / 3, 1.0, 0.0])
    values, _ = compare(Volume(here, "YX"), Volume(there, "YX"), classes=("background", "a", "b", "c"))
    assert values["dice a"] == 1.0 and values["dice b"] == 0.0 and math.isnan(values["dice c"])
    assert math.isnan(values["hd95 b [px]"])


def squares(*corners: tuple[int, int], size: int = 6, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    labels = np.zeros(shape, np.uint16)
    for number, (row, column) in enumerate(corners, 1):
        labels[row : row + size, column : column + size] = number
    return labels


def test_distances_are_in_the_unit_of_the_truth() -> None:
    def labels(data: np.ndarray) -> Volume:
        return Volume.from_scale(data, "YX", (0.5, 0.5), units=("micrometer", "micrometer"))

    values, _ = compare(labels(squares((10, 14))), labels(squares((10, 10))), metrics=("hd95",))
    assert list(values) == ["hd95 [µm]"] and values["hd95 [µm]"] == pytest.approx(2.0)


def test_other_pixel_sizes_are_refused() -> None:
    one = Volume.from_scale(squares((1, 1)), "YX", (0.5, 0.5), units=("micrometer", "micrometer"))
    two = Volume.from_scale(squares((1, 1)), "YX", (0.6, 0.5), units=("micrometer", "micrometer"))
    with pytest.raises(InputError, match=r"0\.5 x 0\.5 µm, that of the truth 0\.6 x 0\.5 µm"):
        compare(one, two)
    assert compare(one, Volume(squares((1, 1)), "YX"))[0]["dice"] == 1.0, "an unknown pixel size fits any"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return predictions, of which one is good, one bad, one of another shape, one broken, one alone; and truths, one alone."""
    predictions, truths = tmp_path / "predictions", tmp_path / "truths"
    predictions.mkdir()
    truths.mkdir()
    truth = squares((2, 2), (2, 20), (20, 2))
    for name in ("good", "bad", "shape", "broken", "alone"):
        tifffile.imwrite(truths / f"{name}.tif", truth)
    write_labels(Volume(truth, "YX"), predictions / "good_nuclei-2d.ome.tif")
    tifffile.imwrite(predictions / "bad.tif", squares((2, 2)))
    tifffile.imwrite(predictions / "shape.tif", truth[:-1])
    (predictions / "broken.tif").write_bytes(b"II*\0 no more")
    tifffile.imwrite(predictions / "extra.tif", truth)
    return predictions, truths


def test_folders_are_compared_past_what_does_not_fit(folders: tuple[Path, Path], tmp_path: Path) -> None:
    table = evaluate(*folders, metrics=("ap50", "object_f1"), kind="objects")
    assert [row.name for row in table.rows][2:] == ["bad", "good"], "failed first, then the worst"
    assert {row.name for row in table.failed} == {"shape", "broken"}
    assert (table.missing, table.extra) == (("alone.tif",), ("extra.tif",))
    assert table.rows[2].values["ap50"] == pytest.approx(1 / 3)
    assert table.mean()["ap50"] == pytest.approx(2 / 3)
    assert table.pooled_f1() == pytest.approx(2 * 4 / (2 * 4 + 2))
    with table.write(tmp_path / "report.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line["image"] for line in lines[2:]] == ["bad", "good", "mean"]
    assert lines[0]["ap50"] == "" and lines[0]["problem"]


def test_arrays_mappings_and_files_are_taken_too(folders: tuple[Path, Path]) -> None:
    truth = squares((2, 2), (2, 20), (20, 2))
    assert evaluate([truth], [truth]).mean() == evaluate({"a": truth}, {"a": truth}).mean()
    single = evaluate(folders[0] / "good_nuclei-2d.ome.tif", folders[1] / "good.tif")
    assert single.mean()["dice 1"] == 1.0 and single.rows[0].paths is not None
    with pytest.raises(InputError, match="1 predictions and 2 truths"):
        evaluate([truth], [truth, truth])


def test_objects_are_told_from_classes() -> None:
    many = np.arange(81, dtype=np.uint16).reshape(9, 9)
    assert "ap50" in evaluate([many], [many]).columns
    assert "dice 3" in evaluate([np.minimum(many, 3)], [np.minimum(many, 3)]).columns
    assert evaluate([many], [many], metrics=("dice",)).columns == ("dice",), "of all objects together"


def test_overlapping_classes_have_a_mask_each() -> None:
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[0, 2:5], masks[1, 3:7] = 1, 1
    values, _ = compare(Volume(masks, "CYX"), Volume(masks, "CYX"), classes=("cell", "nucleus"), metrics=("dice", "hd95"))
    assert values == {"dice cell": 1.0, "dice nucleus": 1.0, "hd95 cell [px]": 0.0, "hd95 nucleus [px]": 0.0}


def test_overlapping_classes_are_compared_with_a_folder_of_truths_for_each(tmp_path: Path) -> None:
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[0, 2:5], masks[1, 3:7] = 1, 1
    (tmp_path / "found").mkdir()
    for name in "ab":
        found = Volume(masks, "CYX", metadata={"classes": ["nucleus", "cell"]})
        write_labels(found, tmp_path / "found" / f"{name}_model.ome.tif", classes=["nucleus", "cell"])
    for number, kind in enumerate(("nucleus", "cell")):
        (tmp_path / "truth" / kind).mkdir(parents=True)
        for name in "abc" if kind == "cell" else "b":  # nobody knows the nuclei of a
            tifffile.imwrite(tmp_path / "truth" / kind / f"{name}.tif", masks[number])
    table = evaluate(tmp_path / "found", tmp_path / "truth", metrics=("dice",))
    assert table.mean() == {"dice nucleus": 1.0, "dice cell": 1.0}
    assert {row.name: math.isnan(row.values["dice nucleus"]) for row in table.rows} == {"a_model": True, "b_model": False}
    assert table.missing == ("cell/c.tif",)
    assert not table.failed


def test_images_are_no_labels() -> None:
    with pytest.raises(InputError, match="labels are whole numbers"):
        compare(Volume(np.full((4, 4), 0.5), "YX"), Volume(np.zeros((4, 4), np.uint8), "YX"))
    assert compare(Volume(np.ones((4, 4)), "YX"), Volume(np.ones((4, 4), np.uint8), "YX"))[0]["dice"] == 1.0


def test_an_unknown_metric_names_those_there_are() -> None:
    with pytest.raises(OptionsError, match=r'no metric "accuracy"\. Choose from dice'):
        evaluate([np.ones((2, 2), int)], [np.ones((2, 2), int)], metrics=("accuracy",))


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", *(str(word) for word in words)])
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


def test_the_command(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = command(capsys, *folders, "--kind", "objects", "-o", tmp_path / "report.csv")
    assert status == 1
    assert out.index("bad") < out.index("good") < out.index("mean")
    assert '"alone.tif" has no prediction.' in err and "1 of the predictions have no truth: extra.tif" in err
    assert "shape: The prediction has the shape (39, 40), the truth (40, 40)." in err
    assert (tmp_path / "report.csv").is_file()
    status, out, _ = command(capsys, *folders, "--json", "--metrics", "dice,ap50", "--kind", "objects")
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[-1]["event"] == "mean" and lines[-1]["images"] == 2 and lines[-1]["values"]["ap50"] == pytest.approx(2 / 3, abs=1e-5)


def test_the_command_says_what_is_wrong(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, *folders, "--metrics", "f1")[0] == 2
    assert command(capsys, *folders, "--kind", "things")[0] == 2
    (tmp_path / "report.csv").write_text("mine")
    assert command(capsys, *folders, "-o", tmp_path / "report.csv")[0] == 1
    assert (tmp_path / "report.csv").read_text() == "mine"
    assert command(capsys, tmp_path / "nowhere", folders[1])[0] == 1
