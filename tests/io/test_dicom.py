"""DICOM: a voxel is at the place of the body that its file names, whatever the order of the files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid

from napari_tileseg.errors import InputError
from napari_tileseg.io import count_series, dicom, read_volume, suffix_of
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.napari_hooks import get_reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = (20, 6, 7)


def phantom(dtype: Any = np.int16, shape: tuple[int, ...] = SHAPE) -> Any:
    """Return an image in which every voxel has its own value: no flip and no swap goes unseen."""
    return (np.arange(np.prod(shape)).reshape(shape) - (100 if np.dtype(dtype).kind == "i" else 0)).astype(dtype)


def test_slices_lie_as_itk_has_them(scan: Callable[..., Path]) -> None:
    folder = scan(phantom())
    volume = read_volume(folder)
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(files)
    assert (volume.axes, volume.units, volume.name) == ("ZYX", ("millimeter",) * 3, "scan")
    np.testing.assert_array_equal(volume.data, phantom())
    np.testing.assert_array_equal(volume.data, sitk.GetArrayFromImage(image))
    for x, y, z in [(0, 0, 0), (6, 5, 19), (2, 3, 11)]:
        np.testing.assert_allclose((volume.affine @ (z, y, x, 1))[2::-1], image.TransformIndexToPhysicalPoint((x, y, z)), atol=1e-5)
    assert volume.spacing == pytest.approx({"Z": 2.5, "Y": 0.75, "X": 0.5})


def test_one_file_stands_for_its_series(scan: Callable[..., Path]) -> None:
    folder = scan(phantom())
    found = read_volume(sorted(folder.iterdir())[7])
    np.testing.assert_array_equal(found.data, phantom())
    assert found.name == "scan"
    assert found.metadata["stamp"] == read_volume(folder).metadata["stamp"]


def test_names_need_no_suffix(scan: Callable[..., Path]) -> None:
    folder = scan(phantom(), suffix="")
    assert suffix_of(folder) == ".dcm"
    assert suffix_of(next(folder.iterdir())) == ".dcm"
    assert get_reader(str(folder)) is not None
    np.testing.assert_array_equal(read_volume(folder).data, phantom())


def test_a_tilted_scanner_gives_a_sheared_grid(scan: Callable[..., Path]) -> None:
    volume = read_volume(scan(phantom(), tilt=(0.3, 0.0, 0.0)))
    straight = read_volume(scan(phantom(), "straight"))
    np.testing.assert_allclose(volume.affine[:3, 0] - straight.affine[:3, 0], (0, 0, 0.3), atol=1e-6)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype", "result"),
    [(1, 0, np.uint16, np.uint16), (1, -1024, np.int16, np.int32), (2, 0, np.uint8, np.int16), (0.5, 1.25, np.int16, np.float32)],
)
def test_values_are_rescaled(scan: Callable[..., Path], slope: float, intercept: float, dtype: Any, result: Any) -> None:
    def change(data: Any, _: int) -> None:
        data.RescaleSlope, data.RescaleIntercept = slope, intercept

    voxels = phantom(dtype, (4, 6, 7))
    volume = read_volume(scan(voxels, change=change))
    assert volume.dtype == result
    np.testing.assert_array_equal(volume.data, voxels.astype(np.float64) * slope + intercept)


def test_values_of_a_common_ct_fit_16_bits(scan: Callable[..., Path]) -> None:
    def change(data: Any, _: int) -> None:
        data.RescaleSlope, data.RescaleIntercept, data.BitsStored, data.HighBit = 1, -1024, 12, 11

    voxels = phantom(np.uint16)
    overlaid = voxels | (np.uint16(1) << 13)  # bits above the stored ones are no part of the value
    volume = read_volume(scan(overlaid, change=change))
    assert volume.dtype == np.int16
    np.testing.assert_array_equal(volume.data, voxels.astype(np.int16) - 1024)


def test_each_slice_may_have_a_slope_of_its_own(scan: Callable[..., Path]) -> None:
    def change(data: Any, index: int) -> None:
        data.RescaleSlope, data.RescaleIntercept = f"{0.5 + index}", "0"

    volume = read_volume(scan(phantom(), change=change))
    np.testing.assert_allclose(volume.data, phantom() * (0.5 + np.arange(20))[:, None, None])


@pytest.mark.parametrize("lazy", [False, True])
def test_frames_of_one_file_lie_as_those_of_many(scan: Callable[..., Path], enhanced: Callable[..., Path], lazy: bool) -> None:
    path = enhanced(phantom(np.uint16), slope=2.0, intercept=-10.0)
    volume = read_volume(path, lazy=lazy)
    assert isinstance(volume.data, LazyArray) is lazy
    assert (volume.axes, volume.name) == ("ZYX", "enhanced")
    np.testing.assert_array_equal(np.asarray(volume.data), phantom(np.uint16).astype(np.int32) * 2 - 10)
    np.testing.assert_allclose(volume.affine, read_volume(scan(phantom())).affine, atol=1e-6)
    np.testing.assert_array_equal(volume.data[3:9:2, 1:5, -1], np.asarray(volume.data)[3:9:2, 1:5, -1])


def test_large_series_are_read_where_they_are_indexed(scan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scan(phantom())
    monkeypatch.setattr(dicom, "_WHOLE_BYTES", 0)
    opened = []
    monkeypatch.setattr(dicom, "_pixels", lambda frame, read=dicom._pixels: opened.append(frame.file) or read(frame))
    volume = read_volume(folder)
    assert opened == []
    np.testing.assert_array_equal(volume.data[4:6, 2], phantom()[4:6, 2])
    assert len(opened) == 2


def test_moments_are_the_axis_of_time(scan: Callable[..., Path]) -> None:
    voxels = phantom(shape=(3, 5, 6, 7))

    def change(data: Any, index: int) -> None:
        data.TriggerTime = str(40.0 * (index // 5))

    volume = read_volume(scan(voxels.reshape(15, 6, 7), places=np.tile(np.arange(5), 3), change=change))
    assert (volume.axes, volume.units[0], volume.spacing["T"]) == ("TZYX", "millisecond", 40.0)
    np.testing.assert_array_equal(volume.data, voxels)


def test_echoes_are_channels_with_names(scan: Callable[..., Path]) -> None:
    voxels = phantom(shape=(2, 5, 6, 7))

    def change(data: Any, index: int) -> None:
        data.EchoTime = "4.6" if index < 5 else "9.2"

    volume = read_volume(scan(voxels.reshape(10, 6, 7), places=np.tile(np.arange(5), 2), change=change))
    assert (volume.axes, volume.channel_names) == ("CZYX", ("echo 4.6 ms", "echo 9.2 ms"))
    np.testing.assert_array_equal(volume.data, voxels)


def test_colours_are_the_last_axis(scan: Callable[..., Path], retag: Callable[..., None]) -> None:
    colours = phantom(np.uint8, (5, 6, 3))
    path = next(scan(colours[None, ..., 0]).iterdir())
    tags = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    retag(path, **tags, PixelData=colours.tobytes() + b"\0" * (colours.size % 2), Modality="XC")
    data = pydicom.dcmread(path)
    del data.ImagePositionPatient, data.PixelSpacing
    data.save_as(path)
    volume = read_volume(path)
    assert (volume.axes, volume.units) == ("YXC", ("pixel",) * 3)
    np.testing.assert_array_equal(volume.data, colours)


@pytest.mark.parametrize(
    ("syntax", "bits", "encode"),
    [
        (uid.JPEGLosslessSV1, 16, lambda plane: imagecodecs.ljpeg_encode(plane, bitspersample=16)),
        (uid.JPEGLossless, 12, lambda plane: imagecodecs.ljpeg_encode(plane, bitspersample=12)),
        (uid.JPEGLSLossless, 16, imagecodecs.jpegls_encode),
        (uid.JPEG2000Lossless, 16, lambda plane: imagecodecs.jpeg2k_encode(plane, codecformat="j2k", reversible=True)),
    ],
)
def test_packed_without_loss(scan: Callable[..., Path], syntax: str, bits: int, encode: Callable[[Any], bytes]) -> None:
    voxels = np.random.default_rng(0).integers(0, 2**bits, (3, 64, 64)).astype(np.uint16)
    np.testing.assert_array_equal(read_volume(scan(voxels, change=packed(voxels, syntax, bits, encode))).data, voxels)


@pytest.mark.parametrize(("syntax", "bits"), [(uid.JPEGBaseline8Bit, 8), (uid.JPEGExtended12Bit, 12)])
def test_packed_with_loss(scan: Callable[..., Path], syntax: str, bits: int) -> None:
    ramp = np.linspace(0, 2**bits - 1, 64).astype(np.uint16 if bits > 8 else np.uint8)
    voxels = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp, (64, 1)).T])
    encode = lambda plane: imagecodecs.jpeg_encode(plane, level=99, bitspersample=bits)  # noqa: E731
    found = read_volume(scan(voxels, change=packed(voxels, syntax, bits, encode)))
    assert np.abs(np.asarray(found.data, np.float64) - voxels).max() < 2**bits / 64


def packed(voxels: Any, syntax: str, bits: int, encode: Callable[[Any], bytes]) -> Callable[[Any, int], None]:
    def change(data: Any, index: int) -> None:
        data.PixelData = encapsulate([encode(voxels[index])])
        data["PixelData"].is_undefined_length = True
        data["PixelData"].VR = "OB"
        data.BitsStored, data.HighBit = bits, bits - 1
        data.file_meta.TransferSyntaxUID = syntax

    return change


def test_palettes_are_resolved(scan: Callable[..., Path]) -> None:
    indices = phantom(np.uint8, (1, 6, 7)) % 4
    table = np.array([(0, 10, 20), (255, 0, 7), (3, 200, 9), (90, 91, 92)], np.uint8)

    def change(data: Any, _: int) -> None:
        data.PhotometricInterpretation, data.Modality = "PALETTE COLOR", "US"
        for index, name in enumerate(("Red", "Green", "Blue")):
            setattr(data, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
            setattr(data, f"{name}PaletteColorLookupTableData", (table[:, index].astype("<u2") * 257).tobytes())
        del data.ImagePositionPatient, data.ImageOrientationPatient

    volume = read_volume(scan(indices, change=change))
    assert volume.axes == "YXC"
    np.testing.assert_array_equal(volume.data, table[indices[0]])


def test_frames_of_ultrasound_are_moments(enhanced: Callable[..., Path], retag: Callable[..., None]) -> None:
    path = enhanced(phantom(np.uint8, (4, 6, 8)))
    data = pydicom.dcmread(path)
    del data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence
    region = pydicom.Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, 0.03
    data.SequenceOfUltrasoundRegions = pydicom.Sequence([region])
    data.Modality, data.FrameTime = "US", "40"
    data.save_as(path)
    volume = read_volume(path)
    assert (volume.axes, volume.units) == ("TYX", ("millisecond", "millimeter", "millimeter"))
    assert volume.spacing == pytest.approx({"T": 40, "Y": 0.3, "X": 0.2})
    np.testing.assert_array_equal(volume.data, phantom(np.uint8, (4, 6, 8))[::-1])


def test_a_deflated_file(scan: Callable[..., Path]) -> None:
    def change(data: Any, _: int) -> None:
        data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian

    np.testing.assert_array_equal(read_volume(scan(phantom(), change=change)).data, phantom())


def test_run_lengths(scan: Callable[..., Path]) -> None:
    def change(data: Any, _: int) -> None:
        data.compress(uid.RLELossless)

    np.testing.assert_array_equal(read_volume(scan(phantom(), change=change)).data, phantom())


def test_a_packing_that_nobody_knows_is_named(scan: Callable[..., Path]) -> None:
    def change(data: Any, _: int) -> None:
        data.PixelData = encapsulate([b"\0" * 64])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = uid.MPEG2MPML

    assert "MPEG2" in refusal(scan(phantom(), change=change))


def test_files_without_the_usual_beginning(scan: Callable[..., Path]) -> None:
    folder = scan(phantom())
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.file_meta = pydicom.dataset.FileMetaDataset()
        pydicom.dcmwrite(path, data, implicit_vr=True, little_endian=True, enforce_file_format=False)
        path.write_bytes(path.read_bytes()[132:] if path.read_bytes()[128:132] == b"DICM" else path.read_bytes())
    np.testing.assert_array_equal(read_volume(folder).data, phantom())


# Several series


def test_series_of_a_folder_are_told_apart(scan: Callable[..., Path]) -> None:
    def number(value: int, title: str) -> Callable[[Any, int], None]:
        def change(data: Any, _: int) -> None:
            data.SeriesNumber, data.SeriesDescription = value, title

        return change

    folder = scan(phantom(), change=number(5, "late"))
    scan(phantom()[:4] + 7, change=number(2, "early"))
    assert count_series(folder) == 2
    first, second = read_volume(folder), read_volume(folder, series=1)
    assert (first.shape[0], second.shape[0]) == (4, 20)
    assert first.metadata["series"] == 2
    assert first.metadata["series_names"] == ["2: early, 4 slices", "5: late, 20 slices"]
    np.testing.assert_array_equal(first.data, phantom()[:4] + 7)
    assert "0 (2: early, 4 slices); 1 (5: late, 20 slices). Choose series 0 to 1, not 2" in refusal(folder, series=2)


def test_localisers_of_other_directions_are_images_of_their_own(scan: Callable[..., Path]) -> None:
    series = generate_uid()
    folder = scan(phantom(), uid=series)

    def turn(data: Any, _: int) -> None:
        data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    moved = scan(phantom()[:1], "other", uid=series, change=turn)
    next(moved.iterdir()).rename(folder / "localiser.dcm")
    assert [read_volume(folder, series=number).shape[0] for number in range(count_series(folder))] == [20, 1]


def test_a_slice_that_was_copied_twice_counts_once(scan: Callable[..., Path]) -> None:
    folder = scan(phantom())
    path = sorted(folder.iterdir())[3]
    (folder / "copy.dcm").write_bytes(path.read_bytes())
    np.testing.assert_array_equal(read_volume(folder).data, phantom())


def test_no_name_of_the_patient_is_kept(scan: Callable[..., Path]) -> None:
    volume = read_volume(scan(phantom()))
    told = repr((volume.name, volume.channel_names, volume.metadata))
    assert not [word for word in ("Doe", "4711", "1966", "secret") if word in told]


# Files that are not what they should be


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_slice_is_named(scan: Callable[..., Path]) -> None:
    folder = scan(phantom())
    gone = next(path for path in folder.iterdir() if pydicom.dcmread(path).pixel_array[0, 0] == phantom()[8, 0, 0])
    gone.unlink()
    assert refusal(folder) == 'In "scan" a slice is missing, the first behind slice 8 of 19. Copy the whole series again.'
    partial = read_volume(folder, partial=True)
    assert partial.shape == SHAPE
    np.testing.assert_array_equal(partial.data[9:], phantom()[9:])
    with pytest.raises(InputError, match="Slice 9 is missing"):
        partial.data[8]


def test_unequal_steps_are_refused(scan: Callable[..., Path]) -> None:
    message = refusal(scan(phantom()[:4], places=[0, 1, 2.4, 3]))
    assert message.startswith('"scan" has slices 1.5 to 3.5 mm apart; equal steps are accepted.')


def test_a_step_may_be_rounded(scan: Callable[..., Path]) -> None:
    volume = read_volume(scan(phantom()[:4], places=[0, 1.004, 1.996, 3]))
    assert volume.spacing["Z"] == pytest.approx(2.5)


def test_some_slices_at_two_moments_only(scan: Callable[..., Path]) -> None:
    assert "has 1 images of some slices, 2 of others" in refusal(scan(phantom()[:5], places=[0, 1, 2, 0, 1]))


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_cut_off(scan: Callable[..., Path], share: float) -> None:
    folder = scan(phantom(shape=(3, 60, 70)))
    path = sorted(folder.iterdir())[1]
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert path.name in refusal(folder)


def test_a_file_is_opened_whatever_lies_beside_it(scan: Callable[..., Path]) -> None:
    folder = scan(phantom(shape=(3, 60, 70)))
    own, other = sorted(folder.iterdir())[0], sorted(scan(phantom(shape=(1, 60, 70)), "other").iterdir())[0]
    other = other.rename(folder / "other.dcm")
    whole = other.read_bytes()
    other.write_bytes(whole[: len(whole) // 2])
    assert "other.dcm" in refusal(folder)
    assert read_volume(own).shape == (3, 60, 70)  # its header says that it belongs to another series
    other.write_bytes(whole[:200])
    assert "other.dcm" in refusal(own)  # it may be a slice of this one
    for path in sorted(folder.iterdir()):
        if path not in (own, other):
            path.unlink()
    assert read_volume(own).shape == (1, 60, 70)


def test_each_of_two_files_with_the_same_slice_is_opened(scan: Callable[..., Path]) -> None:
    folder = scan(phantom(shape=(3, 60, 70)))
    path = sorted(folder.iterdir())[0]
    copy = path.rename(folder / "zzz.dcm")
    path.write_bytes(copy.read_bytes())
    data = pydicom.dcmread(copy)
    data.PixelData = bytes(len(data.PixelData))
    data.save_as(copy)
    one, other = np.asarray(read_volume(path).data), np.asarray(read_volume(copy).data)
    assert one.shape == other.shape == (3, 60, 70)
    assert [bool(plane.any()) for plane in other].count(False) == 1  # its own pixels
    assert all(plane.any() for plane in one)


def test_colour_that_two_pixels_share_takes_less_room(scan: Callable[..., Path]) -> None:
    path = next(scan(phantom()[:1]).iterdir())
    data = pydicom.dcmread(path)
    data.SamplesPerPixel, data.PlanarConfiguration, data.PhotometricInterpretation = 3, 0, "YBR_FULL_422"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.Rows, data.Columns = 7, 0, 40, 60
    data.PixelData = np.tile(np.array([90, 90, 128, 128], np.uint8), 40 * 30).tobytes()
    data.save_as(path)
    assert path.stat().st_size < 40 * 60 * 3
    colours = np.asarray(read_volume(path).data)
    assert colours.shape[-3:] == (40, 60, 3)
    assert np.ptp(colours) == 0  # grey: no colour at all


def test_text_and_reports(tmp_path: Path, scan: Callable[..., Path]) -> None:
    (tmp_path / "a.dcm").write_text("no image at all\n" * 50)
    assert "holds text, not a DICOM image" in refusal(tmp_path / "a.dcm")
    path = next(scan(phantom()[:1], "report").iterdir())
    data = pydicom.dcmread(path)
    del data.Rows, data.Columns, data.PixelData
    data.save_as(path)
    assert "DICOM without an image" in refusal(path)
    assert "DICOM files without images" in refusal(path.parent)


@pytest.mark.parametrize("spacing", [[0, 0.5], [1e30, 0.5]])
def test_absurd_pixel_sizes(scan: Callable[..., Path], spacing: list[float]) -> None:
    def change(data: Any, _: int) -> None:
        data.PixelSpacing = spacing

    assert "gives a pixel size of" in refusal(scan(phantom(), change=change))


def test_white_that_is_low_is_shown_so_and_keeps_its_values(scan: Callable[..., Path], retag: Callable[..., None]) -> None:
    from napari_tileseg.io.napari_hooks import layer_data

    folder = scan(phantom())
    assert "colormap" not in layer_data(read_volume(folder))[0][1]
    for path in folder.iterdir():
        retag(path, PhotometricInterpretation="MONOCHROME1")
    image = read_volume(folder)
    np.testing.assert_array_equal(image.data, phantom())
    assert layer_data(image)[0][1]["colormap"] == "gray_r"


def test_signed_values_of_twelve_bits(scan: Callable[..., Path], retag: Callable[..., None]) -> None:
    values = np.linspace(-2048, 2047, 4 * 9 * 10).reshape(4, 9, 10).round().astype(np.int16)
    folder = scan((values.view(np.uint16) & 0x0FFF).view(np.int16))  # what lies above the twelve bits says nothing
    for path in folder.iterdir():
        retag(path, BitsStored=12, HighBit=11)
    image = read_volume(folder)
    assert image.dtype == np.int16
    np.testing.assert_array_equal(image.data, values)
