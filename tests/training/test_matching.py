"""Files are put together by their names, whatever people append to them, and never the wrong ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.errors import InputError
from napari_tileseg.training.matching import list_files, match


def paired(first: list[str], second: list[str]) -> dict[str, str]:
    found = match([Path(name) for name in first], [Path(name) for name in second])
    return {one.name: another.name for one, another in found.pairs}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("cell_1.tif", "cell_1.png"),
        ("cell_1.tif", "cell_1_labels.tif"),
        ("cell_1.tif", "cell_1_mask.ome.tif"),
        ("cell_1.tif", "cell_1-seg.nii.gz"),
        ("testA_3.bmp", "testA_3_anno.bmp"),
        ("brain.nii.gz", "brain_GT.nii.gz"),
        ("cell_1.tif", "cell_1_nuclei-2d.ome.tif"),
        ("cell_1_nuclei-2d.ome.tif", "cell_1.png"),
    ],
)
def test_what_belongs_together(image: str, label: str) -> None:
    assert paired([image], [label]) == {image: label}


def test_numbers_are_not_beginnings_of_longer_numbers() -> None:
    assert paired(["cell_1.tif"], ["cell_10_labels.tif"]) == {}
    assert paired(["cell_1.tif", "cell_10.tif"], ["cell_10_a.tif", "cell_1_a.tif"]) == {
        "cell_1.tif": "cell_1_a.tif",
        "cell_10.tif": "cell_10_a.tif",
    }


def test_what_could_belong_to_two_belongs_to_none() -> None:
    found = match([Path("cell.tif")], [Path("cell_a.tif"), Path("cell_b.tif")])
    assert not found.pairs and len(found.second_only) == 2


def test_the_place_below_the_folders_decides_first() -> None:
    first = [Path("in/a/image.tif"), Path("in/b/image.tif")]
    second = [Path("out/b/image.png"), Path("out/a/image.png")]
    assert match(first, second, root=Path("in"), other=Path("out")).pairs == [(first[0], second[1]), (first[1], second[0])]


@given(names=st.lists(st.from_regex(r"[a-z]{1,3}[0-9]{0,2}", fullmatch=True), unique=True, min_size=1, max_size=8), data=st.data())
def test_equal_names_always_find_each_other_and_nothing_is_used_twice(names: list[str], data: st.DataObject) -> None:
    there = data.draw(st.permutations(names))
    found = match([Path(f"{name}.tif") for name in names], [Path(f"{name}_labels.png") for name in there])
    assert {one.stem: another.name for one, another in found.pairs} == {name: f"{name}_labels.png" for name in names}
    assert not found.first_only and not found.second_only


def test_files_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a10.tif", "a2.tif", "deep/a1.tif", ".hidden.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 4), np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    assert [path.name for path in list_files(tmp_path)] == ["a2.tif", "a10.tif", "a1.tif"]
    with pytest.raises(InputError, match="There is no folder"):
        list_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        list_files(tmp_path / "empty")
