"""NIfTI: a voxel stays at the same place of the body, whatever the order and direction of the stored axes."""

from __future__ import annotations

import gc
import gzip
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import InputError
from napari_tileseg.io import medical, read_volume, write_labels
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.napari_hooks import layer_data, layer_volume
from napari_tileseg.segmentation import label_volume
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (5, 6, 7)


def phantom(shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> np.ndarray[Any, Any]:
    """Return an image in which every voxel has its own value: no flip and no swap goes unseen."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def oblique(order: tuple[int, ...] = (0, 1, 2), flips: tuple[int, ...] = (1, 1, 1), angles: tuple[float, ...] = (0.2, -0.1, 0.3)) -> Any:
    """Return an affine with turned, swapped and mirrored axes, as scanners write them."""
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [other for other in range(3) if other != axis]
        step = np.eye(3)
        step[first, first] = step[second, second] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(flips) @ np.eye(3)[:, list(order)] @ np.diag((0.8, 1.0, 2.5))
    affine[:3, 3] = (-31.5, 12.25, 7.125)
    return affine


def save(path: Path, voxels: Any, affine: Any, *, code: int = 1, units: tuple[str, str] = ("mm", "unknown")) -> Path:
    image = nibabel.Nifti1Image(voxels, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units(*units)
    image.to_filename(path)
    return path


grids = {
    "order": st.permutations(range(3)).map(tuple),
    "flips": st.tuples(*[st.sampled_from([-1, 1])] * 3),
    "angles": st.tuples(*[st.floats(-0.6, 0.6)] * 3),
}


@settings(max_examples=30)
@given(**grids)
def test_index_and_world_are_those_of_the_file(tmp_path_factory: pytest.TempPathFactory, order: Any, flips: Any, angles: Any) -> None:
    path = save(tmp_path_factory.mktemp("grid") / "a.nii", phantom(), oblique(order, flips, angles))
    volume, image = read_volume(path), nibabel.load(path)
    assert volume.axes == "ZYX"
    np.testing.assert_array_equal(volume.data, phantom().T)
    for i, j, k in [(0, 0, 0), (4, 5, 6), (1, 3, 2)]:
        right, anterior, superior, _ = image.affine @ (i, j, k, 1)
        assert np.asarray(volume.data)[k, j, i] == phantom()[i, j, k]
        np.testing.assert_allclose(volume.affine @ (k, j, i, 1), (superior, -anterior, -right, 1), atol=1e-4)


@settings(max_examples=30)
@given(code=st.sampled_from([1, 2, 3]), **grids)
def test_labels_have_the_very_grid_of_their_image(
    tmp_path_factory: pytest.TempPathFactory, code: int, order: Any, flips: Any, angles: Any
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    path = save(folder / "a.nii.gz", phantom(), oblique(order, flips, angles), code=code)
    image = read_volume(path)
    labels = (np.asarray(image.data) % 5).astype(np.uint8)
    written = nibabel.load(write_labels(label_volume(labels, "ZYX", image), folder / "labels.nii.gz"))
    source = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(written.dataobj), phantom() % 5)
    np.testing.assert_array_equal(written.affine, source.affine)
    for field in ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "srow_x", "srow_y", "srow_z", "xyzt_units"):
        np.testing.assert_array_equal(written.header[field], source.header[field])


@settings(max_examples=30)
@given(**grids)
def test_labels_made_in_the_viewer_have_the_grid_of_their_file(
    tmp_path_factory: pytest.TempPathFactory, order: Any, flips: Any, angles: Any
) -> None:
    folder = tmp_path_factory.mktemp("viewer")
    path = save(folder / "a.nii", phantom(), oblique(order, flips, angles))
    ((shown, meta, _),) = layer_data(read_volume(path))
    labels = layer_volume((np.asarray(shown) % 5).astype(np.uint8), meta)
    assert np.argmax(np.abs(labels.affine[:3, :3]), axis=0).tolist() == [0, 1, 2] or max(map(abs, angles)) > 0.3
    written = nibabel.load(write_labels(labels, folder / "labels.nii"))
    np.testing.assert_array_equal(np.asarray(written.dataobj), phantom() % 5)
    np.testing.assert_array_equal(written.affine, nibabel.load(path).affine)


def test_labels_that_were_moved_are_written_where_they_lie(tmp_path: Path) -> None:
    image = read_volume(save(tmp_path / "a.nii", phantom(), oblique()))
    moved = image.affine.copy()
    moved[:3, 3] += (1, 2, 3)
    labels = Volume((np.asarray(image.data) % 5).astype(np.uint8), "ZYX", moved, image.units, metadata=image.metadata)
    found = read_volume(write_labels(labels, tmp_path / "b.nii"))
    np.testing.assert_allclose(found.affine, moved, atol=1e-5)


def test_the_qform_counts_where_there_is_no_sform(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(phantom(), None)
    image.set_qform(oblique(), 1)
    image.set_sform(None, 0)
    image.to_filename(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    written = nibabel.load(write_labels(volume.with_data(phantom(dtype=np.uint8).T), tmp_path / "b.nii"))
    np.testing.assert_allclose(written.affine, oblique(), atol=1e-5)
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (1, 0)


@pytest.mark.parametrize(
    ("units", "expected"),
    [(("mm", "sec"), "millimeter"), (("micron", "sec"), "micrometer"), (("meter", "sec"), "meter"), (("unknown", "unknown"), "pixel")],
)
def test_units(tmp_path: Path, units: tuple[str, str], expected: str) -> None:
    assert read_volume(save(tmp_path / "a.nii", phantom(), np.eye(4), units=units)).units == (expected,) * 3


def test_lengths_that_nifti_does_not_know_are_converted(tmp_path: Path) -> None:
    volume = Volume.from_scale(phantom(dtype=np.uint8), "ZYX", (500.0, 250.0, 250.0), units=("nanometer",) * 3)
    image = nibabel.load(write_labels(volume, tmp_path / "a.nii"))
    assert image.header.get_xyzt_units()[0] == "micron"
    np.testing.assert_allclose(image.header.get_zooms(), (0.25, 0.25, 0.5))


def test_time_and_channels(tmp_path: Path) -> None:
    voxels = phantom((3, 4, 5, 2, 6))
    image = nibabel.Nifti1Image(voxels, np.diag((1, 2, 3, 1)))
    image.header.set_xyzt_units("mm", "msec")
    image.header["pixdim"][4] = 250
    image.to_filename(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.axes == "CTZYX"
    assert volume.spacing == pytest.approx({"C": 1, "T": 250, "Z": 3, "Y": 2, "X": 1})
    assert volume.unit["T"] == "millisecond"
    np.testing.assert_array_equal(volume.data, voxels.T)
    image.slicer[..., :1, :].to_filename(tmp_path / "b.nii")
    assert read_volume(tmp_path / "b.nii").axes == "CZYX"


def test_a_flat_image_stays_flat(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(phantom((5, 6)), oblique())
    image.to_filename(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.axes == "YX"
    np.testing.assert_array_equal(volume.data, phantom((5, 6)).T)
    written = nibabel.load(write_labels(volume.with_data(phantom((5, 6), np.uint8).T), tmp_path / "b.nii"))
    np.testing.assert_array_equal(np.asarray(written.dataobj), phantom((5, 6), np.uint8))
    np.testing.assert_array_equal(written.affine, nibabel.load(tmp_path / "a.nii").affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("slope", "inter"), [(1.0, 0.0), (0.5, -10.0)])
def test_values_are_scaled_as_the_header_says(
    tmp_path: Path, suffix: str, lazy: bool, slope: float, inter: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lazy:
        monkeypatch.setattr(medical, "_WHOLE_BYTES", 0)
    image = nibabel.Nifti1Image(phantom().astype(">i2"), np.eye(4))
    image.header.set_data_dtype(">i2")
    image.header.set_slope_inter(slope, inter)
    image.to_filename(tmp_path / f"a{suffix}")
    # nibabel divides what it is given by the slope; the file is compared with what nibabel itself reads.
    expected = np.asarray(nibabel.load(tmp_path / f"a{suffix}").dataobj).T
    volume = read_volume(tmp_path / f"a{suffix}")
    assert isinstance(volume.data, LazyArray) is lazy
    assert volume.dtype.isnative
    assert volume.dtype == (np.int16 if slope == 1 else np.float32)
    np.testing.assert_allclose(np.asarray(volume.data), expected)
    np.testing.assert_allclose(volume.data[2, 1:4, ::2], expected[2, 1:4, ::2])
    del volume
    gc.collect()


def test_unpacked_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medical, "_WHOLE_BYTES", 0)
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "scratch"))
    volume = read_volume(save(tmp_path / "a.nii.gz", phantom(), np.eye(4)))
    assert list((tmp_path / "scratch").iterdir())
    del volume
    gc.collect()
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="nobody tells there what is mapped")
def test_unpacked_files_are_removed_after_their_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows deletes no file that is mapped: it would stay for ever."""
    monkeypatch.setattr(medical, "_WHOLE_BYTES", 0)
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "scratch"))
    mapped: list[list[str]] = []

    def remove(folder: Path, ignore_errors: bool) -> None:
        mapped.append([found.path for found in psutil.Process().memory_maps() if found.path.startswith(str(folder))])

    volume = read_volume(save(tmp_path / "a.nii.gz", phantom(), np.eye(4)))
    monkeypatch.setattr("shutil.rmtree", remove)
    del volume
    gc.collect()
    assert mapped == [[]]


def test_colours_are_the_last_axis(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3)).astype(np.uint8)
    voxels = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.axes == "ZYXC"
    np.testing.assert_array_equal(volume.data, colours.transpose(2, 1, 0, 3))


def test_labels_say_that_they_are_labels(tmp_path: Path) -> None:
    volume = Volume(phantom(dtype=np.uint8), "ZYX", name="cells")
    image = nibabel.load(write_labels(volume, tmp_path / "a.nii.gz"))
    assert image.header.get_intent()[0] == "label"
    assert (float(np.nan_to_num(image.dataobj.slope, nan=1)), float(image.dataobj.inter)) == (1, 0)


# Files that are not what they should be


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def test_cut_off_with_its_size(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", phantom((40, 50, 60)), np.eye(4))
    path.write_bytes(path.read_bytes()[:100_000])
    assert refusal(path) == '"a.nii" ends after 100.0 of 240.4 kB. Copy it again.'


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("lazy", [False, True])
def test_cut_off_while_compressed(tmp_path: Path, share: float, lazy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lazy:
        monkeypatch.setattr(medical, "_WHOLE_BYTES", 0)
    voxels = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", voxels, np.eye(4))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "breaks off inside its compressed data" in refusal(path)


def test_text(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_text("no image at all\n" * 50)
    assert "holds text, not a NIfTI image" in refusal(tmp_path / "a.nii")


def test_not_compressed(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"\x00\x01" * 500)
    assert "is no NIfTI image" in refusal(tmp_path / "a.nii.gz")


def test_compressed_under_the_name_of_a_plain_file(tmp_path: Path) -> None:
    packed = save(tmp_path / "a.nii.gz", phantom(), np.eye(4))
    (tmp_path / "b.nii").write_bytes(packed.read_bytes())
    assert "is no NIfTI image" in refusal(tmp_path / "b.nii")


def test_other_bytes_compressed(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"nothing of the kind" * 100))
    assert "is no NIfTI image" in refusal(tmp_path / "a.nii.gz")


def test_complex_values(tmp_path: Path) -> None:
    nibabel.Nifti1Image(phantom(dtype=np.complex64), np.eye(4)).to_filename(tmp_path / "a.nii")
    assert "complex64" in refusal(tmp_path / "a.nii")


def test_too_many_axes(tmp_path: Path) -> None:
    nibabel.Nifti1Image(phantom((2, 2, 2, 2, 2, 2)), np.eye(4)).to_filename(tmp_path / "a.nii")
    assert "has 6 axes" in refusal(tmp_path / "a.nii")
