"""From a folder to its tasks: names, outputs, what is left out and why."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.listing import list_tasks
from napari_tileseg.batch.task import Task
from napari_tileseg.errors import InputError, OptionsError

if TYPE_CHECKING:
    from collections.abc import Callable

links = pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own there")
bytes_in_names = pytest.mark.skipif(sys.platform != "linux", reason="other systems keep text only in names")


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".png", ".bmp", ".jpg"):
        Image.new("L", (4, 4)).save(path)
    elif path.name.endswith(".zarr"):
        import zarr

        zarr.save_array(str(path), np.zeros((4, 4), np.uint8))
    else:
        tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    return path


def job(*inputs: Path, output: Path | None = None, **more: Any) -> BatchJob:
    where = output or inputs[0].parent / "out"
    return BatchJob(**{"models": ("nuclei-2d",), "inputs": tuple(map(str, inputs)), "output": str(where), **more})


def outputs(made: BatchJob) -> list[str]:
    return [Path(task.output).relative_to(made.output).as_posix() for task in list_tasks(made).tasks]


def names(made: BatchJob) -> list[str]:
    return [task.name for task in list_tasks(made).tasks]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def test_folder_gives_a_task_for_every_image_in_natural_order(raw: Path) -> None:
    for name in ("s10.tif", "s2.tif", "S1.png", "notes.txt", ".hidden.tif", ".DS_Store"):
        image(raw / name) if not name.endswith(("txt", "Store")) else (raw / name).write_text("x")
    listing = list_tasks(job(raw))
    assert [task.name for task in listing.tasks] == ["S1.png", "s2.tif", "s10.tif"]
    assert [task.number for task in listing.tasks] == [0, 1, 2]
    assert sorted(listing.left_out) == [(".hidden.tif", "it is hidden"), ("notes.txt", "it is no image")]
    assert listing.size == sum((raw / name).stat().st_size for name in ("s10.tif", "s2.tif", "S1.png"))
    assert listing.images == 3
    assert listing.summary.startswith("3 images, ")
    assert listing.summary.endswith("; 2 files left out (1: it is hidden; 1: it is no image)")


def test_tree_is_mirrored(raw: Path) -> None:
    for name in ("a.tif", "one/a.tif", "one/two/b.ome.tif"):
        image(raw / name)
    assert outputs(job(raw)) == ["a.ome.tif"]
    assert outputs(job(raw, recursive=True)) == ["a.ome.tif", "one/a.ome.tif", "one/two/b.ome.tif"]
    assert names(job(raw, recursive=True)) == ["a.tif", "one/a.tif", "one/two/b.ome.tif"]
    assert outputs(job(raw, recursive=True, exclude=("ONE",))) == ["a.ome.tif"]
    assert outputs(job(raw, recursive=True, exclude=("one/two",))) == ["a.ome.tif", "one/a.ome.tif"]
    assert ("one/", "it is excluded by one/") in list_tasks(job(raw, recursive=True, exclude=("one/",))).left_out
    assert outputs(job(raw, recursive=True, pattern=("A.TIF",))) == ["a.ome.tif", "one/a.ome.tif"]
    assert outputs(job(raw, recursive=True, pattern=("one/*",))) == ["one/a.ome.tif", "one/two/b.ome.tif"]


def test_format_follows_the_image_unless_chosen(raw: Path) -> None:
    (raw / "head.nii.gz").write_bytes(b"")
    (raw / "head2.NII").write_bytes(b"")
    image(raw / "cells.png")
    assert outputs(job(raw)) == ["cells.ome.tif", "head.nii.gz", "head2.nii.gz"]
    assert outputs(job(raw, format=".ome.zarr")) == ["cells.ome.zarr", "head.ome.zarr", "head2.ome.zarr"]


def test_list_of_files_mirrors_the_folder_they_share(raw: Path) -> None:
    first, second = image(raw / "a" / "x.tif"), image(raw / "b" / "x.tif")
    assert outputs(job(first, second, output=raw / "out")) == ["a/x.ome.tif", "b/x.ome.tif"]
    assert names(job(first, output=raw / "out")) == ["x.tif"]
    (raw / "notes.txt").write_text("x")
    listing = list_tasks(job(raw / "a", second, raw / "notes.txt", raw / "gone.tif", first, output=raw / "out"))
    assert [task.name for task in listing.tasks] == ["a/x.tif", "b/x.tif", "gone.tif"]
    assert listing.left_out == (("notes.txt", "it is of no known format"),)


def test_store_is_one_image(raw: Path) -> None:
    image(raw / "x.ome.zarr")
    image(raw / "deep" / "y.zarr")
    listing = list_tasks(job(raw, recursive=True))
    assert [task.name for task in listing.tasks] == ["deep/y.zarr", "x.ome.zarr"]
    assert all(task.size for task in listing.tasks)
    assert names(job(raw / "x.ome.zarr")) == ["x.ome.zarr"]
    assert names(job(raw)) == ["x.ome.zarr"]


def test_results_of_an_earlier_run_are_no_images(raw: Path) -> None:
    image(raw / "a.tif")
    inner = job(raw, output=raw / "labels", recursive=True)
    image(Path(list_tasks(inner).tasks[0].output))
    assert names(inner) == ["a.tif"]
    beside = job(raw, output=raw, template="{stem}_labels", overlays=True)
    for path in ("a_labels.ome.tif", "a_labels_overlay.png"):
        image(raw / path)
    listing = list_tasks(beside)
    assert [task.name for task in listing.tasks] == ["a.tif"]
    assert dict(listing.left_out) == dict.fromkeys(("a_labels.ome.tif", "a_labels_overlay.png"), "it is a result of this batch")


def test_results_among_the_images_need_names_of_their_own(raw: Path) -> None:
    image(raw / "a.tif")
    for made in (job(raw, output=raw), job(raw / "a.tif", output=raw)):
        with pytest.raises(OptionsError, match="among the images"):
            list_tasks(made)


def test_two_images_never_share_a_result(raw: Path) -> None:
    for name in ("a.tif", "a.png", "b.tif", "a_png.bmp"):
        image(raw / name)
    assert dict(zip(names(job(raw)), outputs(job(raw)), strict=True)) == {
        "a.tif": "a_tif.ome.tif",
        "a.png": "a_png_2.ome.tif",
        "a_png.bmp": "a_png.ome.tif",
        "b.tif": "b.ome.tif",
    }
    assert outputs(job(raw, template="labels", pattern=("*.tif",))) == ["labels_a.ome.tif", "labels_b.ome.tif"]
    assert outputs(job(raw, template="labels", pattern=("a.*",))) == ["labels_a.ome.tif", "labels_a_2.ome.tif"]


@pytest.mark.skipif(sys.platform != "linux", reason="such files cannot stand side by side there")
def test_names_that_differ_in_case_only_stay_apart_everywhere(raw: Path) -> None:
    for name in ("Cell.tif", "cell.tif", "CELL.tif"):
        image(raw / name)
    made = outputs(job(raw))
    assert len({name.casefold() for name in made}) == 3
    assert made == outputs(job(raw))


def test_side_files_never_replace_results(raw: Path) -> None:
    for name in ("a.tif", "a_overlay.tif"):
        image(raw / name)
    assert outputs(job(raw, format=".png")) == ["a.png", "a_overlay.png"]
    assert outputs(job(raw, format=".png", overlays=True)) == ["a.png", "a_overlay_tif.png"]


def test_template(raw: Path) -> None:
    image(raw / "sub" / "a.tif")
    made = job(raw, recursive=True, template="{model}/{stem}_labels", models=("one", "/models/two.tileseg.zip", "ensemble:one,two"))
    assert outputs(made) == ["sub/one/a_labels.ome.tif", "sub/two/a_labels.ome.tif", "sub/one+two/a_labels.ome.tif"]
    assert names(made) == ["sub/a.tif with one", "sub/a.tif with two", "sub/a.tif with one+two"]
    assert outputs(job(raw, recursive=True, models=("x/m", "y/m"))) == ["sub/a_m.ome.tif", "sub/a_m-2.ome.tif"]
    assert outputs(job(raw, recursive=True, template="{stem}_{series}")) == ["sub/a_.ome.tif"]


@pytest.mark.parametrize(
    "template", ["{name}", "{stem", "{stem!r}", "{stem:>9}", "../{stem}", "/{stem}", ".{stem}", " ", "a\n{stem}", "{}"]
)
def test_template_that_gives_no_names(raw: Path, template: str) -> None:
    image(raw / "a.tif")
    with pytest.raises(OptionsError, match="not accepted"):
        list_tasks(job(raw, template=template))


def test_model_given_twice(raw: Path) -> None:
    image(raw / "a.tif")
    with pytest.raises(OptionsError, match="twice"):
        list_tasks(job(raw, models=("a", "a")))


def test_all_series_of_a_file(raw: Path) -> None:
    with tifffile.TiffWriter(raw / "two.tif") as tif:
        tif.write(np.zeros((4, 4), np.uint8))
        tif.write(np.zeros((5, 6), np.uint16))
    image(raw / "one.tif")
    (raw / "bad.tif").write_text("no image")
    made = job(raw, series="all", level=1, axes="YX", channels=(0,))
    tasks = list_tasks(made).tasks
    assert [(task.name, task.series) for task in tasks] == [
        ("bad.tif", 0),
        ("one.tif", 0),
        ("two.tif series 0", 0),
        ("two.tif series 1", 1),
    ]
    assert outputs(made) == ["bad.ome.tif", "one.ome.tif", "two_0.ome.tif", "two_1.ome.tif"]
    assert {(task.level, task.axes, task.channels) for task in tasks} == {(1, "YX", (0,))}
    assert [task.series for task in list_tasks(job(raw, series=1)).tasks] == [1, 1, 1]


def test_side_files_and_journals(raw: Path) -> None:
    image(raw / "sub" / "a.tif")
    made = job(raw, recursive=True, objects=True, overlays=True)
    (task,) = list_tasks(made).tasks
    assert task.objects == str(Path(made.output) / "sub" / "a_objects.csv")
    assert task.overlay == str(Path(made.output) / "sub" / "a_overlay.png")
    assert Path(task.journal).parent == Path(made.output) / ".tileseg" / "journals"
    moved = job(raw, output=raw.parent / "elsewhere", recursive=True)
    assert Path(list_tasks(moved).tasks[0].journal).name == Path(task.journal).name


@links
def test_links_to_one_file_give_one_task(raw: Path) -> None:
    (raw / "a_link.tif").symlink_to("b.tif")
    (raw / "c_link.tif").symlink_to("b.tif")
    image(raw / "b.tif")
    image(raw.parent / "far.tif")
    (raw / "far1.tif").symlink_to(raw.parent / "far.tif")
    (raw / "far2.tif").symlink_to(raw.parent / "far.tif")
    (raw / "broken.tif").symlink_to("nowhere.tif")
    listing = list_tasks(job(raw))
    assert [task.name for task in listing.tasks] == ["b.tif", "far1.tif"]
    assert dict(listing.left_out) == {
        "a_link.tif": "it is the same file as b.tif",
        "c_link.tif": "it is the same file as b.tif",
        "far2.tif": "it is the same file as far1.tif",
        "broken.tif": "the link leads nowhere",
    }
    assert listing.summary.endswith("(3: it is the same as another; 1: the link leads nowhere)")


@links
def test_links_to_folders_are_followed_once(raw: Path) -> None:
    image(raw / "z" / "a.tif")
    (raw / "again").symlink_to("z")
    (raw / "z" / "loop").symlink_to(raw)
    (raw / "itself").symlink_to("itself")
    image(raw.parent / "elsewhere" / "b.tif")
    (raw / "linked").symlink_to(raw.parent / "elsewhere")
    listing = list_tasks(job(raw, recursive=True))
    assert [task.name for task in listing.tasks] == ["linked/b.tif", "z/a.tif"]
    left = dict(listing.left_out)
    assert left["again/"] == "it is the same folder as z/"
    assert left["z/loop/"].startswith("it is the same folder as ")


@bytes_in_names
def test_names_that_are_no_text_travel_as_json(raw: Path) -> None:
    image(raw / os.fsdecode(b"na\xefve.tif"))
    image(raw / "line\nbreak.tif")
    tasks = list_tasks(job(raw)).tasks
    assert sorted(task.name for task in tasks) == [r"line\nbreak.tif", r"na\xefve.tif"]
    for task in tasks:
        task.name.encode()
        assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
        assert Path(task.input).is_file()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders there")
def test_pipe_is_not_waited_for(raw: Path) -> None:
    os.mkfifo(raw / "pipe.tif")
    image(raw / "a.tif")
    listing = list_tasks(job(raw))
    assert listing.left_out == (("pipe.tif", "it is no file"),)
    assert list_tasks(job(raw / "a.tif", raw / "pipe.tif")).left_out == (("pipe.tif", "it is no file"),)


def test_subfolder_that_may_not_be_read_is_reported(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(raw / "a.tif")
    image(raw / "closed" / "b.tif")
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # the tests may run as somebody who may read everything
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = list_tasks(job(raw, recursive=True))
    assert [task.name for task in listing.tasks] == ["a.tif"]
    assert listing.left_out == (("closed/", "the folder could not be read: Permission denied"),)
    with pytest.raises(InputError, match="Permission denied"):
        list_tasks(job(raw / "closed", output=raw / "out"))


def test_nothing_to_do_is_one_sentence(raw: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file or folder .*gone"):
        list_tasks(job(raw / "gone"))
    with pytest.raises(InputError, match="subfolders too"):
        list_tasks(job(raw))
    with pytest.raises(InputError, match=r"fits \*\.tif"):
        list_tasks(job(raw, pattern=("*.tif",)))
    (raw / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"notes.txt \(it is no image\) left out"):
        list_tasks(job(raw))
    assert list_tasks(job(raw), empty=True).tasks == ()
    (raw.parent / "out").write_text("x")
    with pytest.raises(OptionsError, match="is a file"):
        list_tasks(job(raw))


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_every_field_of_a_plate_is_a_task(make_plate: Callable[..., Path], tmp_path: Path, version: str) -> None:
    plate = make_plate(version=version)
    made = job(plate, output=tmp_path / "out", objects=True)
    tasks = list_tasks(made).tasks
    assert [task.name for task in tasks] == ["A/1 field 0", "A/1 field 1", "B/2 field 0", "B/2 field 1"]
    assert tasks[3].input == str(plate / "B" / "2" / "1")
    assert tasks[3].output == str(plate / "B" / "2" / "1" / "labels" / "nuclei-2d")
    assert tasks[3].objects == str(tmp_path / "out" / "plate" / "B" / "2" / "1_nuclei-2d_objects.csv")
    assert tasks[0].size > 0
    assert len({task.journal for task in tasks}) == 4
    two = job(plate, output=tmp_path / "out", models=("a", "b"), template="{stem}_v2")
    assert [Path(task.output).name for task in list_tasks(two).tasks] == ["v2_a"] * 4 + ["v2_b"] * 4
    chosen = job(plate, output=tmp_path / "out", format=".ome.tif")
    assert outputs(chosen)[0] == "plate/A/1/0.ome.tif"


def test_plate_beside_images(make_plate: Callable[..., Path], tmp_path: Path) -> None:
    make_plate("raw/plate.zarr", wells=("A/1",), fields=1)
    image(tmp_path / "raw" / "a.tif")
    broken = make_plate("raw/broken.zarr", wells=("A/1",), fields=1)
    (broken / "A" / "1" / "0").rename(broken / "A" / "1" / "5")
    listing = list_tasks(job(tmp_path / "raw", output=tmp_path / "out"))
    assert [task.name for task in listing.tasks] == ["a.tif", "plate.zarr A/1 field 0"]
    assert [name for name, _ in listing.left_out] == ["broken.zarr"]
    assert "without a field" in listing.left_out[0][1]
