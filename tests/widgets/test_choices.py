"""What the fields mean: options, axes, channels, the model to start with; no viewer is needed."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.errors import OptionsError
from napari_tileseg.job import Job, SegmentOptions
from napari_tileseg.models.registry import BUNDLED, find_spec, list_models
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.widgets.choices import (
    Choices,
    ImageFacts,
    changes,
    default_channels,
    default_settings,
    options_from,
    parse_window,
    pick_model,
    results_words,
)
from napari_tileseg.widgets.details import command_line, details_text, help_text, shell_line
from napari_tileseg.widgets.devices import Device, choices, parse_smi, probe

FLAT = ModelSpec(name="flat", axes="CYX", channels=["r", "g", "b"], grey="repeat", classes=["bg", "a"], window=(256, 256), multiple_of=32)
DEEP = ModelSpec(name="deep", axes="CZYX", channels=["t1"], classes=["bg", "a"], window=(32, 48, 32))
PAIR = ModelSpec(name="pair", axes="CYX", channels=["dapi", "actin"], classes=["bg", "a"], window=(64, 64))


def chosen(spec: ModelSpec, **changed: object) -> Choices:
    return Choices(spec.name, "YX", replace(default_settings(spec), **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [FLAT, DEEP, PAIR])
def test_untouched_fields_leave_everything_to_the_model(spec: ModelSpec) -> None:
    assert options_from(chosen(spec), spec) == SegmentOptions()
    assert changes(default_settings(spec), default_settings(spec)) == "as the model says"


@given(window=st.integers(1, 64).map(lambda number: number * 32), overlap=st.floats(0, 0.95), size=st.floats(0, 1000))
def test_every_value_comes_through(window: int, overlap: float, size: float) -> None:
    options = options_from(chosen(FLAT, window=str(window), overlap=overlap, min_size=size), FLAT, pixel=0.25)
    assert (options.window or FLAT.window) == (window, window)
    assert (FLAT.overlap if options.overlap is None else options.overlap) == pytest.approx(overlap, abs=1e-4)
    assert options.min_size * 0.25 == pytest.approx(size, abs=1e-4)


@pytest.mark.parametrize("text", ["256", "256, 256", "256 256", "256x256", "256 × 256", "256;256"])
def test_windows_are_read_as_people_write_them(text: str) -> None:
    assert parse_window(text, FLAT) == (256, 256)


@pytest.mark.parametrize("text", ["", "big", "-3", "1.5", "256, 256, 256", "0"])
def test_a_wrong_window_is_named_with_what_is_accepted(text: str) -> None:
    with pytest.raises(OptionsError, match=r"256|Give one number"):
        parse_window(text, FLAT)


def test_the_header_says_what_was_changed() -> None:
    defaults = default_settings(FLAT)
    changed = replace(defaults, window="512", overlap=0.25, tta="flips", min_size=12.5)
    assert changes(changed, defaults, unit="µm²") == "window 512, overlap 0.25, min. size 12.5 µm², flips averaged"
    more = replace(defaults, tta="rotations", sigma=0.2, padding="reflect", adaptive=True, skip_background=True)
    assert changes(more, defaults).startswith("flips and turns averaged, sigma 0.2, mirrored at the border, adaptive overlap, background")
    made = options_from(Choices("m", "YX", more, uncertainty="entropy"), FLAT)
    assert (made.tta, made.sigma, made.padding, made.adaptive, made.skip_background) == ("rotations", 0.2, "reflect", True, True)
    assert made.uncertainty == "entropy"
    assert "sigma" not in options_from(Choices("m", "YX", defaults), FLAT).model_fields_set
    assert results_words(Choices("m", "YX", defaults, scores=True, objects=True, keep="disk")) == "labels, scores, objects table, on disk"


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        pytest.param(ImageFacts("cells", (520, 696)), "flat", id="grey plane"),
        pytest.param(ImageFacts("tissue", (256, 320, 3), rgb=True), "flat", id="colour plane"),
        pytest.param(ImageFacts("mri", (35, 52, 34)), "deep", id="volume"),
        pytest.param(ImageFacts("named mri", (35, 52, 34), axis_labels=("z", "y", "x")), "deep", id="named volume"),
        pytest.param(ImageFacts("film", (12, 300, 300), axis_labels=("time", "y", "x")), "flat", id="film"),
    ],
)
def test_the_first_model_is_the_one_that_fits(facts: ImageFacts, name: str) -> None:
    for specs in ((FLAT, DEEP), (DEEP, FLAT)):
        assert pick_model(specs, facts).name == name  # type: ignore[union-attr]


def test_the_last_model_is_kept_while_it_fits() -> None:
    other = FLAT.model_copy(update={"name": "other"})
    plane, volume = ImageFacts("cells", (520, 696)), ImageFacts("mri", (35, 52, 34))
    assert pick_model((FLAT, DEEP, other), plane, "other") is other
    assert pick_model((FLAT, DEEP, other), volume, "other") is DEEP
    named = replace(volume, axis_labels=("z", "y", "x"))
    assert pick_model((FLAT, DEEP, other), named, "other") is DEEP, "a 2D model could go through the planes, but a 3D one fits better"
    assert pick_model((FLAT, other), named, "other") is other
    assert pick_model((FLAT, DEEP, other), None, "other") is other
    assert pick_model((), plane) is None


@pytest.mark.parametrize(
    ("spec", "available", "channels"),
    [
        (FLAT, None, None),
        (FLAT, 3, None),
        (FLAT, 4, None),
        (FLAT, 2, (0,)),
        (FLAT, 7, (0,)),
        (DEEP, 2, (0,)),
        (PAIR, 2, None),
        (PAIR, 5, (0, 1)),
    ],
)
def test_channels_to_start_with(spec: ModelSpec, available: int | None, channels: tuple[int, ...] | None) -> None:
    assert default_channels(spec, available) == channels


def test_sizes_are_in_the_images_unit() -> None:
    facts = ImageFacts("mri", (3, 4, 5), spacing=(2.0, 0.5, 0.5), units=("millimeter",) * 3)
    assert facts.pixel("ZYX", "ZYX") == (0.5, "mm³")
    assert facts.pixel("ZYX", "YX") == (0.25, "mm²")
    assert ImageFacts("plain", (4, 5), spacing=(2.0, 2.0), units=("pixel",) * 2).pixel("YX", "YX") == (1.0, "px")
    assert ImageFacts("mixed", (4, 5), spacing=(2.0, 2.0), units=("micrometer", "millimeter")).pixel("YX", "YX") == (1.0, "px")


def test_every_bundled_model_can_be_started_with_its_own_settings() -> None:
    bundled = [spec for spec in list_models() if (BUNDLED / spec.name).exists()]
    assert {"nuclei-2d", "hippocampus-3d"} <= {spec.name for spec in bundled}
    for spec in bundled:
        assert options_from(chosen(spec), find_spec(spec.name)) == SegmentOptions()


def test_a_run_can_be_repeated_by_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    job = Job(model="flat", input="/data/my cells.tif", axes="TYX", options=SegmentOptions(window=(512, 512), overlap=0.25, device="cpu"))
    words = command_line(job, FLAT, "my cells_flat.ome.tif")
    assert words == (
        "tileseg segment '/data/my cells.tif' -o 'my cells_flat.ome.tif' --model flat --axes TYX "
        "--window 512,512 --overlap 0.25 --device cpu"
    )
    two = Job(model="flat", region=(((0, 5), (1, 6)), ((7, 9), (2, 4))))
    assert command_line(two, FLAT, "x.tif").endswith("--model flat --region 0:5,1:6 --region 7:9,2:4")
    assert command_line(Job(model="flat"), FLAT, "x.ome.tif").startswith("tileseg segment IMAGE -o x.ome.tif")


def test_help_says_more_than_the_sentence() -> None:
    sentence = "The weights of nuclei-2d are damaged."
    assert help_text(sentence).startswith(sentence)
    assert len(help_text(sentence)) > len(sentence) + 20
    assert len(help_text("Something odd.")) > 30
    assert details_text({"a": "µ"}) == '{\n  "a": "µ"\n}'


def test_a_line_is_taken_apart_again_by_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "tileseg",
        r"C:\Users\me\R&D images\a.tif",
        r"C:\a\b.tif",
        "256,256",
        "{stem}_labels",
        "*.tif",
        "D:\\a b\\",
        'say "so"',
        "",
        "Zellen für uns",
    ]
    monkeypatch.setattr("sys.platform", "win32")
    line = shell_line(words)
    assert "'" not in line
    assert line.startswith(r'tileseg "C:\Users\me\R&D images\a.tif" C:\a\b.tif "256,256" "{stem}_labels" *.tif "D:\a b\\" "say \"so\"" ""')


def test_what_nvidia_smi_prints() -> None:
    found = parse_smi("NVIDIA H200, 143000, 143771\nNVIDIA GeForce RTX 3060, 11000, 12288\nrubbish\n")
    assert [device.key for device in found] == ["cuda:0", "cuda:1"]
    assert [device.name for device in found] == ["H200", "RTX 3060"]
    assert found[0].text == "H200, 150 GB free"
    assert parse_smi("") == ()


def test_no_window_of_a_console_flashes_up_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def run(query: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(options)
        return subprocess.CompletedProcess(query, 0, "NVIDIA H200, 143000, 143771\n")

    monkeypatch.setattr("napari_tileseg.widgets.devices.shutil.which", lambda name: name)
    monkeypatch.setattr("napari_tileseg.widgets.devices._torch_has_cuda", lambda: True)
    monkeypatch.setattr("napari_tileseg.widgets.devices.creation_flags", lambda: 0x08000000)
    monkeypatch.setattr(subprocess, "run", run)
    assert probe()[0].key == "cuda:0"
    assert asked[0]["creationflags"] == 0x08000000


def test_the_list_of_devices_starts_with_auto_and_ends_with_the_cpu() -> None:
    devices = probe()
    assert devices[-1].key == "cpu"
    assert devices[-1].free
    listed = choices((Device("cuda:0", "H200", 150 * 10**9), *devices[-1:]))
    assert listed[0] == ("Auto: H200, 150 GB free", "auto")
    assert [key for _, key in listed] == ["auto", "cuda:0", "cpu"]
