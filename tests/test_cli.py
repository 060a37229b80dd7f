"""The command line: exit status, one sentence per error, nothing but JSON with --json, and the functions' own results."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

import napari_tileseg
from napari_tileseg import cli, reporting
from napari_tileseg.engine.events import SlabDone
from napari_tileseg.errors import OutputError
from napari_tileseg.io import read_volume
from napari_tileseg.io.samples import sample
from napari_tileseg.job import Job, SegmentOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., tuple[int, str, str]]

SMALL = ("--model", "nuclei-2d", "--window", "64,64", "--device", "cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command in this process and returns status, stdout and stderr."""

    def call(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    return call


@pytest.fixture
def crop(tmp_path: Path) -> Path:
    """Return a corner of the fluorescence sample, as a file with spacing."""
    image, _ = sample("nuclei-fluorescence")
    path = tmp_path / "crop.ome.tif"
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, np.asarray(image.data)[100:196, 100:164], metadata=metadata)
    return path


def assert_sentence(text: str) -> None:
    assert len(text.strip().splitlines()) == 1, text
    assert text.strip().endswith((".", "?")), text
    assert "Traceback" not in text


def test_segment_saves_what_the_function_returns(run: Run, crop: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.ome.tif"
    status, said, told = run("segment", crop, "-o", out, *SMALL, "--scores")
    assert status == 0, told
    expected = napari_tileseg.segment(crop, "nuclei-2d", options=SegmentOptions(window=(64, 64), device="cpu", scores=True))
    found = read_volume(out)
    np.testing.assert_array_equal(found.data, expected.labels)
    assert found.spacing == {"Y": 0.5, "X": 0.5}
    assert found.units == ("micrometer", "micrometer")
    assert found.metadata["provenance"]["model"]["name"] == "nuclei-2d"
    count = len(np.unique(expected.labels)) - 1
    assert re.fullmatch(rf"{count} objects? in [\d.]+ s\. Saved in .*labels\.ome\.tif\n", said)
    scores = read_volume(tmp_path / "labels_scores.ome.tif")
    assert expected.scores is not None
    np.testing.assert_allclose(np.asarray(scores.data), expected.scores, rtol=1e-5)


def test_json_is_all_that_is_printed(run: Run, crop: Path, tmp_path: Path) -> None:
    status, said, told = run("segment", crop, "-o", tmp_path / "a.nii.gz", *SMALL, "--json")
    assert (status, told) == (0, "")
    events = [json.loads(line) for line in said.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "planned"
    assert kinds[-2:] == ["finished", "saved"]
    assert {"progress", "slab"} <= set(kinds)
    progress = [event for event in events if event["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == events[0]["tiles"]
    assert events[-1]["path"] == str(tmp_path / "a.nii.gz")


def test_plain_lines_where_there_is_no_terminal(run: Run, crop: Path, tmp_path: Path) -> None:
    _, _, told = run("segment", crop, "-o", tmp_path / "a.ome.tif", *SMALL)
    lines = told.splitlines()
    assert re.fullmatch(r"\d+ tiles of 64 x 64 on cpu", lines[0])
    assert re.match(r"(\d+) of \1 tiles", lines[-1])
    assert len(lines) <= 12


def test_a_bar_on_a_terminal(run: Run, crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, said, _ = run("segment", crop, "-o", tmp_path / "a.ome.tif", *SMALL)
    assert status == 0
    assert "Saved in" in said


WRONG = [
    (("--model", "nuclei-9d"), 2, 'no model "nuclei-9d".*nuclei-2d'),
    (("--model", "nuclei-2d", "--window", "64,many"), 2, "whole numbers"),
    (("--model", "nuclei-2d", "--window", "64"), 2, "must be two or three positive numbers, such as 256, 256"),
    (("--model", "nuclei-2d", "--overlap", "1.5"), 2, "overlap = 1.5 is not accepted: it must be below 1"),
    (("--model", "nuclei-2d", "--device", "abacus"), 2, "device = 'abacus' is not accepted: it must be auto, cpu, mps, cuda"),
    (("--model", "nuclei-2d", "--precision", "fast"), 2, "precision = 'fast' is not accepted: it must be 'exact' or 'auto'"),
    (("--model", "nuclei-2d", "--axes", "ZYX"), 2, "2 dimensions"),
    (("--model", "nuclei-2d", "--axes", "QX"), 2, 'Axis "Q" is unknown'),
    (("--model", "nuclei-2d", "--region", "0-32,0-32"), 2, "start:stop for each axis"),
    (("--model", "nuclei-2d", "--region", "0:32"), 2, "The region has 1 axis, the labels have 2"),
    (("--model", "nuclei-2d", "--region", "0:32,0:999"), 2, "must lie within 0 to 64"),
    (("--model", "nuclei-2d", "--nonsense"), 2, "--nonsense"),
    ((), 2, "--model"),
    (("--model", "hippocampus-3d"), 2, "Z"),
]


@pytest.mark.parametrize(
    ("arguments", "expected", "sentence"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else None
)
def test_wrong_arguments_end_with_2(run: Run, crop: Path, tmp_path: Path, arguments: tuple[str, ...], expected: int, sentence: str) -> None:
    status, said, told = run("segment", crop, "-o", tmp_path / "a.ome.tif", *arguments)
    assert (status, said) == (expected, "")
    assert_sentence(told)
    assert re.search(sentence, told)
    assert not (tmp_path / "a.ome.tif").exists()


def test_inputs_that_fail_end_with_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no image")
    for name in ("missing.tif", "text.tif", "table.csv"):
        status, said, told = run("segment", tmp_path / name, "-o", tmp_path / "a.ome.tif", *SMALL)
        assert (status, said) == (1, "")
        assert_sentence(told.replace(". ", ", "))
        assert name in told


def test_errors_are_json_too(run: Run, tmp_path: Path) -> None:
    status, said, told = run("segment", tmp_path / "a.tif", "-o", tmp_path / "b.tif", *SMALL, "--json")
    assert status == 1
    assert json.loads(said) == {"event": "error", "error": "InputError", "message": told.strip()}


def test_a_result_that_is_there_is_not_overwritten(run: Run, crop: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.ome.tif"
    out.write_text("mine")
    status, _, told = run("segment", crop, "-o", out, *SMALL)
    assert (status, out.read_text()) == (1, "mine")
    assert "--overwrite" in told
    assert run("segment", crop, "-o", out, *SMALL, "--overwrite")[0] == 0
    assert read_volume(out).shape == (96, 64)


def test_an_interrupted_run_goes_on_or_begins_anew(run: Run, crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, rows = tmp_path / "a.ome.tif", ("--model", "nuclei-2d", "--window", "32,32", "--device", "cpu")
    slabs: list[SlabDone] = []
    assert run("segment", crop, "-o", tmp_path / "b.ome.tif", *rows)[0] == 0
    tell = reporting._print_json

    def interrupt(event: Any) -> None:
        tell(event)
        slabs.extend([event] if isinstance(event, SlabDone) else [])
        if len(slabs) == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(reporting, "_print_json", interrupt)
        assert run("segment", crop, "-o", out, *rows, "--json")[0] == 130
    status, _, told = run("segment", crop, "-o", out, *rows, "--overlap", "0.3")
    assert status == 1
    assert re.search(r"the option overlap \(was null, is 0\.3\).*--restart", told)
    _, said, _ = run("segment", crop, "-o", out, *rows, "--json")
    first = next(json.loads(line) for line in said.splitlines() if '"progress"' in line)
    assert first["done"] > 1
    assert out.read_bytes() == (tmp_path / "b.ome.tif").read_bytes()
    out.unlink()
    slabs.clear()
    with monkeypatch.context() as patch:
        patch.setattr(reporting, "_print_json", interrupt)
        assert run("segment", crop, "-o", out, *rows, "--json")[0] == 130
    assert run("segment", crop, "-o", out, *rows, "--overlap", "0.3", "--restart")[0] == 0
    assert not (tmp_path / ".a.ome.tif.tileseg").exists()


@pytest.mark.parametrize("which", ["write_scores", "write_uncertainty"])
def test_a_disk_that_is_full_when_scores_are_saved_loses_nothing(
    run: Run, crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    out, more = tmp_path / "a.ome.tif", (*SMALL, "--scores", "--uncertainty", "entropy", "--json")
    assert run("segment", crop, "-o", tmp_path / "b.ome.tif", *more)[0] == 0

    def refuse(*arguments: object, **others: object) -> None:
        raise OutputError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(f"napari_tileseg.io.{which}", refuse)
        status, _, told = run("segment", crop, "-o", out, *more)
    assert (status, told) == (1, "The disk is full.\n")
    assert not out.exists()
    status, said, _ = run("segment", crop, "-o", out, *more)
    assert status == 0
    assert not [line for line in said.splitlines() if json.loads(line)["event"] == "slab"], "nothing is computed again"
    for end in (".ome.tif", "_scores.ome.tif", "_uncertainty.ome.tif"):
        assert (tmp_path / f"a{end}").read_bytes() == (tmp_path / f"b{end}").read_bytes()
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith((".", "a_unf"))} == set()


def test_the_image_itself_is_never_overwritten(run: Run, crop: Path) -> None:
    before = crop.read_bytes()
    status, _, told = run("segment", crop, "-o", crop, *SMALL, "--overwrite")
    assert (status, crop.read_bytes()) == (2, before)
    assert "is the image itself" in told


def test_the_place_is_checked_before_the_work(run: Run, crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_tileseg.io.registry.read_volume", lambda *_, **__: pytest.fail("the image was opened first"))
    for out in (tmp_path / "no" / "a.ome.tif", tmp_path / "a.xyz", tmp_path):
        assert run("segment", crop, "-o", out, *SMALL)[0] == 1


def test_axes_are_asked_for_where_nobody_says_them(run: Run, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 99, (3, 64, 64)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", image, metadata=None, photometric="minisblack")
    status, _, told = run("segment", tmp_path / "stack.tif", "-o", tmp_path / "a.ome.tif", *SMALL)
    assert status == 2
    assert "axis 1 (3 entries)" in told
    assert "--axes, for example ZYX or TYX or CYX" in told
    assert run("segment", tmp_path / "stack.tif", "-o", tmp_path / "a.ome.tif", *SMALL, "--axes", "TYX")[0] == 0
    assert read_volume(tmp_path / "a.ome.tif").axes == "TYX"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_with_130_and_keeps_what_is_finished(
    run: Run, crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    tell = reporting._print_json
    seen: list[SlabDone] = []

    def interrupt(event: Any) -> None:
        tell(event)
        if isinstance(event, SlabDone):
            seen.append(event)
            if len(seen) == 1:
                signal.raise_signal(number)

    monkeypatch.setattr(reporting, "_print_json", interrupt)
    before = signal.getsignal(number)
    status, said, _ = run("segment", crop, "-o", tmp_path / "a.ome.tif", *SMALL, "--json")
    events = [json.loads(line) for line in said.splitlines()]
    assert status == 130
    assert not (tmp_path / "a.ome.tif").exists()
    assert [event["event"] for event in events[-2:]] == ["kept", "error"]
    assert events[-1]["error"] == "Cancelled"
    kept = read_volume(events[-2]["path"])
    (region,) = (event["region"] for event in events if event["event"] == "slab")
    whole = napari_tileseg.segment(crop, "nuclei-2d", options=SegmentOptions(window=(64, 64), device="cpu")).labels
    stop = region[0][1]
    np.testing.assert_array_equal(np.asarray(kept.data)[:stop] > 0, whole[:stop] > 0)
    assert not np.asarray(kept.data)[stop:].any()
    assert kept.metadata["provenance"]["state"] == "unfinished"
    assert signal.getsignal(number) is before


def test_a_job_repeats_a_run(run: Run, crop: Path, tmp_path: Path) -> None:
    run("segment", crop, "-o", tmp_path / "a.ome.tif", *SMALL, "--overlap", "0.25")
    options = SegmentOptions(window=(64, 64), overlap=0.25, device="cpu")
    job = Job(model="nuclei-2d", options=options, input=str(crop), output=str(tmp_path / "b.ome.tif"))
    (tmp_path / "job.json").write_text(job.model_dump_json())
    assert run("run", tmp_path / "job.json")[0] == 0
    first, second = (read_volume(tmp_path / name) for name in ("a.ome.tif", "b.ome.tif"))
    np.testing.assert_array_equal(first.data, second.data)
    assert first.metadata["provenance"] == second.metadata["provenance"]
    assert run("run", tmp_path / "job.json", "-o", tmp_path / "c.ome.tif")[0] == 0
    assert (tmp_path / "c.ome.tif").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "is no job: model"),
        ("nothing", "is no job"),
        ('{"model": "nuclei-2d"}', "does not say where the image is. Give it with --input"),
        ('{"model": "m", "colour": 1}', "colour"),
    ],
)
def test_a_file_that_is_no_job(run: Run, tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "job.json").write_text(text)
    status, said, told = run("run", tmp_path / "job.json")
    assert (status, said) == (2, "")
    assert sentence in told
    assert run("run", tmp_path / "nowhere.json")[0] == 2


def test_a_region_alone_is_segmented(run: Run, crop: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.ome.tif"
    assert run("segment", crop, "-o", out, *SMALL, "--region", "60:96,20:64")[0] == 0
    options = SegmentOptions(window=(64, 64), device="cpu")
    expected = napari_tileseg.segment(crop, "nuclei-2d", options=options, region=((60, 96), (20, 64))).labels
    found = np.asarray(read_volume(out).data)
    np.testing.assert_array_equal(found, expected)
    assert found[60:96, 20:64].any()
    found[60:96, 20:64] = 0
    assert not found.any()


def test_several_regions_are_given_one_after_the_other(run: Run, crop: Path, tmp_path: Path) -> None:
    out, corners = tmp_path / "parts.ome.tif", ("--region", "80:96,0:8", "--region", "0:8,56:64")
    assert run("segment", crop, "-o", out, *SMALL, *corners)[0] == 0
    found = np.asarray(read_volume(out).data)
    found[80:96, :8] = found[:8, 56:] = 0
    assert not found.any()
    status, said, _ = run("estimate", crop, "--model", "nuclei-2d", "--window", "64,64", "--no-probe", "--json", *corners)
    assert (status, json.loads(said)["tiles"]) == (0, 2), "one tile in each corner, of six"


def test_estimate_says_what_the_plan_is(run: Run, crop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))  # nothing is known of the model's speed yet
    status, said, _ = run("estimate", crop, "--model", "nuclei-2d", "--window", "64,64", "--json")
    needs = json.loads(said)
    assert (status, needs["window"], needs["disk_bytes"]) == (0, [64, 64], 96 * 64 * 4)
    assert needs["seconds"] > 0
    status, said, _ = run("estimate", crop, "--model", "nuclei-2d", "--window", "64,64", "--no-probe")
    assert f"{needs['tiles']} tiles of 64 x 64." in said.splitlines()
    assert f"About {needs['seconds']:.1f} s." in said.splitlines()  # as the probe has found
    status, said, _ = run("estimate", crop, "--model", "nuclei-2d", "--window", "32,32", "--no-probe")
    assert "--probe measures it" in said


def test_several_models_and_uncertainty(run: Run, crop: Path, tmp_path: Path) -> None:
    target = tmp_path / "labels.ome.tif"
    again = ("--model", "nuclei-2d", "--tta", "flips", "--uncertainty", "disagreement", "--json")
    status, said, _ = run("segment", crop, "-o", target, *SMALL, *again)
    assert status == 0
    saved = json.loads(said.splitlines()[-1])
    assert saved["uncertainty"] == str(tmp_path / "labels_uncertainty.ome.tif")
    unsure = np.asarray(read_volume(saved["uncertainty"]).data[...])
    assert unsure.shape == (96, 64)
    assert 0 < unsure.max() <= 1
    provenance = read_volume(target).metadata["provenance"]
    assert len(provenance["model"]["members"]) == 2
    status, _, error = run("segment", crop, "-o", tmp_path / "b.tif", "--model", "nuclei-2d", "--model", "hippocampus-3d")
    assert status == 1
    assert "they differ in their axes" in error


def test_models(run: Run) -> None:
    status, said, _ = run("models", "list")
    assert status == 0
    assert {line.split()[0] for line in said.splitlines()} >= {"nuclei-2d", "hippocampus-3d"}
    records = [json.loads(line) for line in run("models", "list", "--json")[1].splitlines()]
    assert {record["name"] for record in records} >= {"nuclei-2d", "hippocampus-3d"}
    assert run("models", "show", "nuclei-2d")[1].startswith("#")
    status, said, told = run("models", "show", "nothing")
    assert (status, said) == (2, "")
    assert_sentence(told.replace(". ", ", ").replace("? ", ", "))


def test_info_tells_versions_and_no_paths(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(Path.home() / "models"))
    status, said, _ = run("info")
    assert status == 0
    for word in (f"napari-tileseg: {napari_tileseg.__version__}", "torch: ", "cpu: ", "nuclei-2d: ", "TILESEG_MODELS: set"):
        assert word in said
    assert str(Path.home()) not in said
    assert str(Path(napari_tileseg.__file__).parent) not in said
    assert str(Path.home()) in run("info", "--paths")[1]
    assert set(json.loads(run("info", "--json")[1])) == {"event", "versions", "devices", "models", "settings"}


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"tileseg {napari_tileseg.__version__}\n", "")


def test_no_command_prints_the_help(run: Run) -> None:
    status, said, _ = run()
    assert status == 2
    for command in ("demo", "segment", "run", "estimate", "models", "info"):
        assert command in said


def test_every_option_is_explained_by_the_one_parameter_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    _, said, _ = run("segment", "--help")
    for name, field in SegmentOptions.model_fields.items():
        assert f"--{name.replace('_', '-')}" in said
        if name != "scores":  # the command line adds where the scores go
            assert str(field.description) in said


def test_help_loads_neither_torch_nor_napari() -> None:
    code = """
import sys
from napari_tileseg import cli
for arguments in (["--help"], ["segment", "--help"], ["batch", "--help"], ["run", "--help"], ["models", "list"], ["--version"]):
    try:
        cli.main(arguments)
    except SystemExit as end:
        assert end.code == 0
loaded = {"torch", "monai", "napari", "qtpy", "scipy", "tifffile"} & sys.modules.keys()
assert not loaded, loaded
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment, stdout=subprocess.DEVNULL)
