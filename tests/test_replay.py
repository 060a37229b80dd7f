"""A saved result tells how it was made, and is made again from that alone, bit for bit."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_tileseg import cli
from napari_tileseg.errors import ModelError, OptionsError
from napari_tileseg.io import read_volume, write_labels
from napari_tileseg.io.samples import sample
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.settings import Settings, write_settings
from napari_tileseg.pipeline import save_segmentation, segment
from napari_tileseg.replay import differences, find_image, read_provenance, recall

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.segmentation import Segmentation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an image and its labels."""
    place = tmp_path_factory.mktemp("replay")
    image, _ = sample("nuclei-fluorescence")
    tifffile.imwrite(place / "cells.ome.tif", np.asarray(image.data)[100:196, 100:164], metadata={"axes": "YX", "PhysicalSizeX": 0.5})
    assert command("segment", place / "cells.ome.tif", "-o", place / "labels.ome.tif", *OPTIONS) == 0
    return place


OPTIONS = ("--model", "nuclei-2d", "--window", "64,64", "--device", "cpu", "--min-size", "40", "--region", "0:96,8:64")


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    assert isinstance(end.value.code, int)
    return end.value.code


def small(**changes: Any) -> Segmentation:
    image, _ = sample("nuclei-fluorescence")
    part = replace(image, data=np.asarray(image.data)[:64, :64], **changes)
    return segment(part, "nuclei-2d", options=SegmentOptions(device="cpu", window=(64, 64)))


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii.gz", ".png"])
def test_a_result_is_made_again_from_its_own_file(folder: Path, tmp_path: Path, suffix: str) -> None:
    shutil.copy(folder / "cells.ome.tif", tmp_path)
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    assert command("segment", tmp_path / "cells.ome.tif", "-o", first, *OPTIONS) == 0
    assert command("run", first, "-o", second) == 0
    assert first.read_bytes() == second.read_bytes()


def test_a_store_is_made_again_too(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "cells.ome.tif", tmp_path)
    first, second = tmp_path / "first.ome.zarr", tmp_path / "second.ome.zarr"
    assert command("segment", tmp_path / "cells.ome.tif", "-o", first, *OPTIONS) == 0
    assert command("run", first, "-o", second) == 0
    files = {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert files == {path.relative_to(second): path.read_bytes() for path in second.rglob("*") if path.is_file()}


def test_labels_inside_their_image_find_it(tmp_path: Path) -> None:
    store = tmp_path / "image.ome.zarr"
    inner = store / "labels" / "nuclei"
    shutil.copytree(_stored_image(tmp_path), store)
    assert command("segment", store, "-o", inner, "--model", "nuclei-2d", "--window", "64,64", "--device", "cpu") == 0
    assert find_image(inner, "anything") == store
    assert command("run", inner, "-o", tmp_path / "again.ome.tif") == 0
    np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / "again.ome.tif").data), np.asarray(read_volume(inner).data))


def _stored_image(folder: Path) -> Path:
    from napari_tileseg.io.ome_zarr_labels import write_zarr

    image, _ = sample("nuclei-fluorescence")
    path = folder / "made.ome.zarr"
    write_zarr(replace(image, data=np.asarray(image.data)[:64, :64]), path, classes=(), colors=(), provenance=None)
    return path


def test_the_provenance_holds_what_a_run_needs_and_no_place(folder: Path) -> None:
    told = read_provenance(folder / "labels.ome.tif")
    again = recall(told)
    assert again.image == "cells" and not again.notes
    assert again.job.model == "nuclei-2d" and again.job.region == ((0, 96), (8, 64)) and again.job.axes == "YX"
    assert again.job.options == SegmentOptions(window=(64, 64), device="cpu", min_size=40)
    assert again.job.input is None and str(folder) not in json.dumps(told)


def test_an_image_elsewhere_is_asked_for(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "labels.ome.tif", tmp_path / "lonely.ome.tif")
    assert command("run", tmp_path / "lonely.ome.tif", "-o", tmp_path / "again.ome.tif") == 2
    assert '"cells", which does not lie beside it. Give it with --input.' in capsys.readouterr().err
    assert command("run", tmp_path / "lonely.ome.tif", "-o", tmp_path / "again.ome.tif", "--input", folder / "cells.ome.tif") == 0
    assert (tmp_path / "again.ome.tif").read_bytes() == (folder / "labels.ome.tif").read_bytes()


def test_another_image_is_noticed_and_done_all_the_same(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "cells.ome.tif"
    tifffile.imwrite(other, 3 * np.asarray(read_volume(folder / "cells.ome.tif").data), metadata={"axes": "YX"})
    assert command("run", folder / "labels.ome.tif", "--input", other, "-o", tmp_path / "again.ome.tif") == 0
    assert "its intensities differ" in capsys.readouterr().err


def test_a_file_without_provenance_says_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", folder / "cells.ome.tif", "-o", tmp_path / "again.ome.tif") == 2
    assert '"cells.ome.tif" does not say how it was made.' in capsys.readouterr().err


def test_a_provenance_as_json_is_taken_too(folder: Path, tmp_path: Path) -> None:
    told = read_provenance(folder / "labels.ome.tif")
    for name, content in (("bare.json", told), ("labels.stl.json", {"provenance": told})):
        (tmp_path / name).write_text(json.dumps(content))
        assert command("run", tmp_path / name, "-o", tmp_path / f"{name}.ome.tif", "--input", folder / "cells.ome.tif") == 0
        assert (tmp_path / f"{name}.ome.tif").read_bytes() == (folder / "labels.ome.tif").read_bytes()


def test_the_hash_of_the_content_does_not_depend_on_how_the_image_is_held(tmp_path: Path) -> None:
    made = small()
    data = np.asarray(made.volume.data)
    mapped = np.memmap(tmp_path / "raw", dtype=data.dtype.newbyteorder(">"), mode="w+", shape=data.shape)
    mapped[:] = data
    told = made.provenance
    assert not differences(told, made.volume)
    assert not differences(told, made.volume.with_data(mapped))
    assert differences(told, made.volume.with_data(data[::-1].copy())) == [
        "The image is not the one that the result was made from: its intensities differ."
    ]
    assert "shape (32, 64)" in differences(told, replace(made.volume, data=data[:32]))[0]


def test_metadata_count_in_their_own_hash() -> None:
    made, same, moved = small().provenance, small(name="another"), small(units=("micrometer", "micrometer"))
    assert made["input"]["metadata_hash"] == same.provenance["input"]["metadata_hash"] != moved.provenance["input"]["metadata_hash"]
    assert made["input"]["content_hash"] == moved.provenance["input"]["content_hash"]


def test_weights_that_are_not_here_are_named() -> None:
    told = dict(small().provenance)
    unknown = {
        **told,
        "model": {**told["model"], "name": "mine", "weights_sha256": "f" * 64, "source": {"kind": "onnx", "file": "mine.onnx"}},
    }
    with pytest.raises(ModelError, match=r'"mine" with SHA-256 ffffffffffff\.\.\. is not here \(it came from the file mine\.onnx\)'):
        recall(unknown)
    with pytest.raises(ModelError, match="with other weights than ffffffffffff"):
        recall({**told, "model": {**told["model"], "weights_sha256": "f" * 64}})
    again = recall(unknown, model="nuclei-2d")
    assert again.notes == ("nuclei-2d has other weights than the model that the result came from.",)


def test_a_model_under_another_name_is_found_by_its_weights() -> None:
    told = dict(small().provenance)
    assert recall({**told, "model": {**told["model"], "name": "old-name"}}).job.model == "nuclei-2d"


def test_edits_by_hand_and_unfinished_results_are_told(tmp_path: Path) -> None:
    made = small()
    drawn = replace(made, provenance={**made.provenance, "edits": {"merge": 2, "paint": 1}, "state": "unfinished"})
    save_segmentation(drawn, tmp_path / "drawn.ome.tif")
    assert recall(read_provenance(tmp_path / "drawn.ome.tif")).notes == (
        "3 edits made by hand are not repeated.",
        "The result was unfinished; this time all of it is computed.",
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"options": {"overlap": 7}}, id="value"),
        pytest.param({"options": {"from the future": 1}}, id="newer"),
        pytest.param({"input": None}, id="no image"),
        pytest.param({"region": [[1]]}, id="region"),
        pytest.param({"channels": "abc"}, id="channels"),
    ],
)
def test_a_damaged_provenance_is_one_sentence(change: dict[str, Any]) -> None:
    with pytest.raises(OptionsError, match=r"(cannot be repeated by this version|is damaged)"):
        recall({**small().provenance, **change})


def test_files_say_who_and_when_only_if_the_user_wants_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_SETTINGS", str(tmp_path / "settings.json"))
    shutil.copy(folder / "cells.ome.tif", tmp_path)
    write_settings(Settings(identify=True))
    assert command("segment", tmp_path / "cells.ome.tif", "-o", tmp_path / "signed.ome.tif", *OPTIONS) == 0
    run = read_provenance(tmp_path / "signed.ome.tif")["run"]
    assert set(run) == {"finished", "seconds", "user", "computer"} and datetime.datetime.fromisoformat(run["finished"]).tzinfo
    write_settings(Settings())
    signed = read_volume(tmp_path / "signed.ome.tif")
    write_labels(signed, tmp_path / "again.ome.tif", provenance=signed.metadata["provenance"])
    assert "run" not in read_provenance(tmp_path / "again.ome.tif")
