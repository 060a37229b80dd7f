"""A run that is cut off anywhere goes on to the labels it would have had, and computes little twice."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_tileseg.engine import journal as journal_module
from napari_tileseg.engine import scan
from napari_tileseg.engine.events import Progress, SlabDone
from napari_tileseg.errors import Cancelled, OutputError, PredictorError
from napari_tileseg.io import read_volume
from napari_tileseg.io.mapped import lock
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor, from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment
from napari_tileseg.unfinished import tidy
from napari_tileseg.volume import Volume

OBJECTS = {"output": "instances", "decoder": "watershed", "heads": ["foreground", "border", "distance"], "classes": ["background", "cell"]}


class CutOff(BaseException):
    """Stands for the end of the process: nothing may catch it."""


class Network(torch.nn.Module):
    """Three channels that depend on the pixel, its neighbours and its place in the window; counts its tiles."""

    def __init__(self) -> None:
        super().__init__()
        self.tiles = 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.tiles += len(batch)
        smooth = torch.nn.functional.avg_pool2d(batch, 3, stride=1, padding=1)
        ramp = torch.linspace(-0.3, 0.3, batch[0, 0].numel()).reshape(batch.shape[2:])
        return torch.cat([smooth - 0.1, -smooth + ramp, batch * 0.5], dim=1)


def model(**changes: Any) -> Predictor:
    values = {"name": "m", "axes": "CYX", "channels": 1, "classes": ["background", "a", "b"], "window": (8, 8), **changes}
    return from_module(Network(), ModelSpec.model_validate(values), device="cpu")


def image_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cut_at(count: int) -> Any:
    """Return a listener that ends the run at an event."""
    seen = itertools.count(1)

    def listen(event: object) -> None:
        if next(seen) == count:
            raise CutOff

    return listen


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 50), st.integers(1, 20)),
    kind=st.sampled_from([{}, {"output": "sigmoid"}, OBJECTS, OBJECTS]),
    overlap=st.sampled_from([0.0, 0.5, 0.8]),
    cuts=st.lists(st.integers(2, 60), min_size=1, max_size=4),
    turned=st.booleans(),
    wide=st.booleans(),
)
def test_wherever_it_is_cut_off_it_goes_on(
    seed: int,
    shape: tuple[int, int, int],
    kind: dict[str, Any],
    overlap: float,
    cuts: list[int],
    turned: bool,
    wide: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    image = image_of(seed, shape)
    spacing = {"spacing": (1.0, 1.0)} if wide else {}
    volume = Volume.from_scale(image, "TYX", (1, 1, 1.7), units=("second", "micrometer", "micrometer"))
    options = SegmentOptions(overlap=overlap, scores=True, batch=1)
    budget, scan.BUDGET = scan.BUDGET, 1 if turned else scan.BUDGET
    try:
        whole_model = model(**kind, **spacing)
        whole = segment(volume, whole_model, options=options)
        predictor = model(**kind, **spacing)
        out = np.zeros(whole.labels.shape, whole.labels.dtype)
        kept = np.zeros_like(whole.scores)
        arguments = {"options": options, "out": out, "scores_out": kept, "journal": folder / "journal"}
        broken = 0
        for cut in cuts:
            try:
                segment(volume, predictor, on_event=cut_at(cut), **arguments)
            except CutOff:
                broken += 1
        result = segment(volume, predictor, **arguments)
    finally:
        scan.BUDGET = budget
    np.testing.assert_array_equal(result.labels, whole.labels)
    np.testing.assert_array_equal(result.scores, whole.scores)
    assert result.counts == whole.counts
    assert dict(result.provenance) == dict(whole.provenance), "an interruption leaves no trace in the result"
    assert not any(folder.iterdir())
    # At most one depth of a window is computed twice for each time it was cut off.
    step = max(1, int(8 * (1 - overlap)))
    tiles_per_row = math.ceil(max(*shape[1:], shape[2] * 1.7) / step) + 1
    if broken == len(cuts):  # else a finished run was begun again
        again = predictor.module.tiles - whole_model.module.tiles
        assert again <= broken * math.ceil(8 / step) * tiles_per_row


def test_what_is_computed_twice_is_the_rows_that_were_open(tmp_path: Path) -> None:
    image = image_of(1, (80, 24))
    for kind in ({}, OBJECTS):
        whole = model(**kind)
        segment(image, whole, axes="YX")
        predictor = model(**kind)
        counted: list[int] = []
        for slabs in (4, 7, 9):
            told: list[object] = []

            def stop(event: object, told: list[object] = told, slabs: int = slabs) -> None:
                told.append(event)
                if isinstance(event, Progress) and event.done % 5 == 4 and len(told) > 5 * slabs:
                    raise CutOff

            with pytest.raises(CutOff):
                segment(image, predictor, axes="YX", out=tmp_path / "a.ome.tif", on_event=stop)
            state = json.loads((tmp_path / ".a.ome.tif.tileseg" / "journal.json").read_text())["state"]
            counted.append(state["rows"])
        assert counted == sorted(set(counted))
        assert counted[0] > 0
        segment(image, predictor, axes="YX", out=tmp_path / "a.ome.tif")
        again = predictor.module.tiles - whole.module.tiles
        assert 3 <= again <= 3 * 2 * 5  # two rows of five tiles: one that reaches below, one that was going on
        (tmp_path / "a.ome.tif").unlink()


def test_tall_objects_are_taken_up_again(tmp_path: Path) -> None:
    """One object reaches over all rows, so that all scores wait for its end."""
    image = np.full((60, 20), -2, np.float32)
    image[2:58, 5:9] = 2
    image[10:14, 13:18] = image[30:33, 12:18] = 2
    whole = segment(image, model(**OBJECTS), axes="YX")
    out = np.zeros_like(whole.labels)
    with pytest.raises(CutOff):
        segment(image, model(**OBJECTS), axes="YX", out=out, journal=tmp_path / "journal", on_event=cut_at(40))
    chunks = sorted((tmp_path / "journal").glob("scores-*.npy"))
    assert len(chunks) > 3
    assert not out[40:].any()
    before = {path.name: path.stat().st_mtime_ns for path in chunks}
    with pytest.raises(CutOff):
        segment(image, model(**OBJECTS), axes="YX", out=out, journal=tmp_path / "journal", on_event=cut_at(16))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "journal").glob("scores-*.npy")}
    assert {name: after.get(name) for name in before} == before, "every score is written once"
    result = segment(image, model(**OBJECTS), axes="YX", out=out, journal=tmp_path / "journal")
    np.testing.assert_array_equal(result.labels, whole.labels)
    assert result.counts == whole.counts


def test_chunks_that_the_system_does_not_let_go_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows deletes no file that another program looks at."""
    image = np.full((60, 20), -2, np.float32)
    image[2:22, 5:9] = image[30:56, 5:9] = 2
    whole = segment(image, model(**OBJECTS), axes="YX")
    unlink = Path.unlink

    def held(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith(("scores-", "open-")):
            raise PermissionError(errno.EACCES, "in use", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    result = segment(image, model(**OBJECTS), axes="YX", journal=tmp_path / "journal")
    np.testing.assert_array_equal(result.labels, whole.labels)


def test_what_was_given_up_stays_given_up(tmp_path: Path) -> None:
    class Scarce(Network):
        room = 1 << 30

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if batch.numel() > self.room:
                raise MemoryError
            return super().forward(batch)

    image, spec = image_of(8, (200, 150)), model(window=(48, 48)).spec
    out = np.zeros((200, 150), np.uint8)
    first = Scarce()

    def scarce(event: object) -> None:
        Scarce.room = 40 * 40 if isinstance(event, SlabDone) and event.region[0][0] >= 48 else Scarce.room
        if isinstance(event, SlabDone) and event.region[0][0] >= 120:
            raise CutOff

    arguments: dict[str, Any] = {"axes": "YX", "options": SegmentOptions(batch=2), "out": out, "journal": tmp_path / "journal"}
    with pytest.raises(CutOff):
        segment(image, from_module(first, spec, device="cpu"), on_event=scarce, **arguments)
    second = Scarce()
    sizes = []
    second.register_forward_pre_hook(lambda _, given: sizes.append(tuple(given[0].shape)))
    result = segment(image, from_module(second, spec, device="cpu"), **arguments)
    assert set(sizes) == {(1, 1, 33, 33)}
    assert [note.partition(": ")[2] for note in result.provenance["adaptations"]] == [
        "the batch is now 1.",
        "the window is now 33 x 33 from row 72 on.",
    ]


def test_lost_places_stay_lost(tmp_path: Path) -> None:
    image = image_of(9, (300, 200))

    class Broken:
        shape, dtype = image.shape, image.dtype

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            if key[0].start < 128 and key[0].stop > 64 and key[1].stop > 128:
                raise OSError(5, "Input/output error")
            return image[key]

    volume = Volume(Broken(), "YX", name="field")
    options = SegmentOptions(unreadable="skip", window=(32, 32))
    whole = segment(volume, model(), options=options)
    out = np.zeros(image.shape, np.uint8)
    with pytest.raises(CutOff):
        segment(volume, model(), options=options, out=out, journal=tmp_path / "journal", on_event=cut_at(150))
    assert not (out[64:128, 128:]).any()
    result = segment(volume, model(), options=options, out=out, journal=tmp_path / "journal")
    np.testing.assert_array_equal(result.labels, whole.labels)
    assert result.provenance == whole.provenance
    assert result.provenance["unreadable"] == ["Y 64 to 128, X 128 to 200"]


def test_a_path_gets_its_journal_beside_it_and_both_go_together(tmp_path: Path) -> None:
    image, target = image_of(2, (50, 20)), tmp_path / "labels.ome.tif"
    whole = segment(image, model(), axes="YX")
    slabs: list[object] = []

    def note(event: object) -> None:
        if isinstance(event, SlabDone):
            slabs.append(event)

    with pytest.raises(Cancelled) as stopped:
        segment(image, model(), axes="YX", out=target, on_event=note, cancel=lambda: len(slabs) > 3)
    assert stopped.value.kept == tmp_path / "labels_unfinished.ome.tif"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".labels.ome.tif.tileseg", "labels_unfinished.ome.tif"]
    result = segment(image, model(), axes="YX", out=target)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.ome.tif"]
    np.testing.assert_array_equal(np.asarray(read_volume(target).data), whole.labels)
    np.testing.assert_array_equal(result.labels, whole.labels)


def test_a_failure_before_the_first_slab_leaves_nothing(tmp_path: Path) -> None:
    class Broken(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    broken = from_module(Broken(), model().spec, device="cpu")
    with pytest.raises(PredictorError):
        segment(image_of(0, (30, 20)), broken, axes="YX", out=tmp_path / "a.ome.tif")
    assert not list(tmp_path.iterdir())


def test_only_saving_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, predictor = image_of(3, (2, 30, 20)), model(**OBJECTS)
    whole = segment(image, model(**OBJECTS), axes="TYX")

    def full(*arguments: object, **more: object) -> None:
        raise OutputError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr("napari_tileseg.pipeline.save_segmentation", full)
        with pytest.raises(OutputError):
            segment(image, predictor, axes="TYX", out=tmp_path / "a.ome.tif")
    tiles = predictor.module.tiles
    result = segment(image, predictor, axes="TYX", out=tmp_path / "a.ome.tif")
    assert predictor.module.tiles == tiles
    np.testing.assert_array_equal(result.labels, whole.labels)
    assert result.counts == whole.counts


def test_a_journal_that_is_kept_gives_the_same_again(tmp_path: Path) -> None:
    image, predictor = image_of(3, (2, 30, 20)), model(**OBJECTS)
    whole = segment(image, model(**OBJECTS), axes="TYX")
    arguments: dict[str, Any] = {"axes": "TYX", "journal": tmp_path / "journal", "keep_journal": True}
    first = segment(image, predictor, **arguments)
    tiles = predictor.module.tiles
    second = segment(image, predictor, **arguments)
    assert predictor.module.tiles == tiles
    for result in (first, second):
        np.testing.assert_array_equal(result.labels, whole.labels)
        assert result.counts == whole.counts
    assert (tmp_path / "journal" / "journal.json").exists()


def test_a_cancelled_run_with_a_kept_journal_leaves_nothing_else(tmp_path: Path) -> None:
    slabs: list[object] = []
    with pytest.raises(Cancelled) as stopped:
        segment(
            image_of(2, (50, 20)),
            model(),
            axes="YX",
            out=tmp_path / "labels.ome.tif",
            journal=tmp_path / "journal",
            keep_journal=True,
            on_event=lambda event: slabs.append(event) if isinstance(event, SlabDone) else None,
            cancel=lambda: len(slabs) > 3,
        )
    assert stopped.value.kept is None
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


@pytest.mark.parametrize("gone", [[], ["labels.npy"], ["labels.npy", "lock", "journal.json"]])
def test_killed_between_saving_and_tidying_up(gone: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, folder = tmp_path / "a.ome.tif", tmp_path / ".a.ome.tif.tileseg"

    def die(*_: object) -> None:
        raise CutOff

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.Journal, "remove", die)
        with pytest.raises(CutOff):
            segment(image_of(0, (30, 20)), model(), axes="YX", out=target)
    assert target.exists()
    for name in gone:
        (folder / name).unlink()
    assert folder.exists()
    tidy(target)
    assert target.exists()
    assert not folder.exists()


def test_an_older_output_is_no_reason_to_forget_a_run(cut: Any, tmp_path: Path) -> None:
    (tmp_path / "a.ome.tif").write_text("older, or of somebody else")
    tidy(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(cut(), cut.whole)


@pytest.fixture
def cut(tmp_path: Path) -> Any:
    """Return what goes on with a run that was cut off."""
    image = image_of(4, (60, 20))
    whole = segment(image, model(), axes="YX").labels
    with pytest.raises(CutOff):
        segment(image, model(), axes="YX", out=tmp_path / "a.ome.tif", on_event=cut_at(40))

    def go_on(image: np.ndarray = image, predictor: Predictor | None = None, **more: Any) -> np.ndarray:
        return segment(image, predictor or model(), axes="YX", out=tmp_path / "a.ome.tif", **more).labels

    go_on.image, go_on.whole = image, whole  # type: ignore[attr-defined]
    return go_on


def other(image: np.ndarray) -> np.ndarray:
    changed = image.copy()
    changed[17, 3] += 0.001
    return changed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda cut: {"image": other(cut.image)}, "the image's content"),
        (lambda cut: {"image": cut.image[:50]}, r"the image's shape \(was \[60, 20\], is \[50, 20\]\)"),
        (lambda cut: {"options": SegmentOptions(overlap=0.25)}, r"the option overlap \(was null, is 0.25\)"),
        (lambda cut: {"options": SegmentOptions(batch=2)}, "the option batch"),
        (lambda cut: {"predictor": model(name="n")}, "the model"),
        (lambda cut: {"predictor": model(overlap=0.6)}, "the model's card"),
        (lambda cut: {"region": ((0, 50), (0, 20))}, "the region"),
    ],
)
def test_another_run_is_never_mixed_in(cut: Any, change: Any, named: str, tmp_path: Path) -> None:
    changed = change(cut)
    before = sorted((path.name, path.stat().st_size) for path in (tmp_path / ".a.ome.tif.tileseg").iterdir())
    with pytest.raises(OutputError, match=rf"has changed: .*{named}.*--restart"):
        cut(**changed)
    assert sorted((path.name, path.stat().st_size) for path in (tmp_path / ".a.ome.tif.tileseg").iterdir()) == before
    np.testing.assert_array_equal(cut(), cut.whole)


def test_other_weights_and_versions_are_noticed(cut: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = model()
    changed.module.register_buffer("more", torch.ones(1))
    with pytest.raises(OutputError, match="the model's weights"):
        cut(predictor=changed)
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.raises(OutputError, match=r"the version of torch \(was .*, is 1.0\)"):
        cut()


def test_a_journal_that_lacks_something_is_refused(cut: Any, tmp_path: Path) -> None:
    path = tmp_path / ".a.ome.tif.tileseg" / "journal.json"
    body = json.loads(path.read_text())
    del body["checksum"], body["state"]["relief"]
    path.write_text(json.dumps({**body, "checksum": journal_module._checksum(body)}))
    with pytest.raises(OutputError, match="damaged or of a newer version"):
        cut()


def test_it_begins_anew_where_that_is_wanted(cut: Any) -> None:
    changed = other(cut.image)
    np.testing.assert_array_equal(cut(changed, resume=False), segment(changed, model(), axes="YX").labels)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "labels"])
def test_a_damaged_journal_is_refused(cut: Any, damage: str, tmp_path: Path) -> None:
    folder = tmp_path / ".a.ome.tif.tileseg"
    path = folder / ("labels.npy" if damage == "labels" else "journal.json")
    text = path.read_bytes()
    path.write_bytes({"cut": text[:-9], "flip": text.replace(b'"rows": ', b'"rows": 1'), "empty": b"", "labels": text[:90]}[damage])
    with pytest.raises(OutputError, match="damaged"):
        cut()
    np.testing.assert_array_equal(cut(resume=False), cut.whole)


def test_two_programs_do_not_write_one_result(cut: Any, tmp_path: Path) -> None:
    with (tmp_path / ".a.ome.tif.tileseg" / "lock").open("a+b") as file:
        lock(file)
        with pytest.raises(OutputError, match="Another program"):
            cut()
    np.testing.assert_array_equal(cut(), cut.whole)


@pytest.mark.parametrize("kind", [{}, OBJECTS], ids=["classes", "objects"])
@pytest.mark.parametrize("at", [1, 2, 5, 9])
def test_a_full_disk_stops_the_run_cleanly(kind: dict[str, Any], at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(5, (60, 20))
    whole = segment(image, model(**kind), axes="YX")
    calls = itertools.count(1)

    def refuse(descriptor: int) -> None:
        if next(calls) >= at:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "fsync", refuse)
        with pytest.raises(OutputError, match=r"is full\. Free some space and start the same run again"):
            segment(image, model(**kind), axes="YX", out=tmp_path / "a.ome.tif")
    predictor = model(**kind)
    result = segment(image, predictor, axes="YX", out=tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(result.labels, whole.labels)
    if at == 9:
        assert predictor.module.tiles < 14 * 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.tif"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """Mount a file system of one megabyte; only the administrator may."""
    place = tmp_path / "disk"
    place.mkdir()
    if sys.platform != "linux" or os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]).returncode:
        pytest.skip("only the administrator of a Linux may mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    image = np.full((400, 300), -2, np.float32)
    image[2:390, 5:20] = 2  # one tall object: all scores wait for its end
    spec = {**OBJECTS, "window": (32, 32)}
    whole, first = model(**spec), model(**spec)
    expected = segment(image, whole, axes="YX").labels
    with pytest.raises(OutputError, match=r"is full\. Free some space"):
        segment(image, first, axes="YX", out=small_disk / "a.ome.tif")
    assert 0 < first.module.tiles < whole.module.tiles
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    second = model(**spec)
    np.testing.assert_array_equal(segment(image, second, axes="YX", out=small_disk / "a.ome.tif").labels, expected)
    assert second.module.tiles < whole.module.tiles
    assert [path.name for path in small_disk.iterdir()] == ["a.ome.tif"]


@pytest.mark.parametrize("kind", [{}, OBJECTS], ids=["classes", "objects"])
@pytest.mark.parametrize("name", ["a.ome.tif", "a.ome.zarr"])
def test_what_is_done_with_a_result_before_it_is_saved_can_be_done_again(kind: dict[str, Any], name: str, tmp_path: Path) -> None:
    image, options = image_of(5, (60, 20)), SegmentOptions(scores=True)
    whole = segment(image, model(**kind), axes="YX", options=options)

    def refuse(result: object) -> None:
        assert not (tmp_path / name).exists()
        raise OutputError("The disk is full.")

    with pytest.raises(OutputError, match="full"):
        segment(image, model(**kind), axes="YX", options=options, out=tmp_path / name, on_result=refuse)
    assert not (tmp_path / name).exists()
    seen: list[Any] = []
    again = model(**kind)
    keep = lambda result: seen.append((np.array(result.scores), np.asarray(result.labels[...])))  # noqa: E731
    segment(image, again, axes="YX", options=options, out=tmp_path / name, on_result=keep)
    assert again.module.tiles == 0
    np.testing.assert_array_equal(seen[0][0], whole.scores)
    np.testing.assert_array_equal(seen[0][1], whole.labels)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_same_number_of_threads_computes(cut: Any, tmp_path: Path) -> None:
    path = tmp_path / ".a.ome.tif.tileseg" / "journal.json"
    body = json.loads(path.read_text())
    before = torch.get_num_threads()
    assert body["state"]["settings"]["threads"] == before
    del body["checksum"]
    body["state"]["settings"]["threads"] = before + 1
    path.write_text(json.dumps({**body, "checksum": journal_module._checksum(body)}))
    seen = set()

    class Looking(Network):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            seen.add(torch.get_num_threads())
            return super().forward(batch)

    cut(predictor=from_module(Looking(), model().spec, device="cpu"))
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


def test_a_lazy_image_is_known_by_its_file_and_by_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", image_of(6, (300, 200)))
    volume = Volume(np.load(tmp_path / "image.npy", mmap_mode="r"), "YX")
    arguments: dict[str, Any] = {"options": SegmentOptions(window=(64, 64)), "out": tmp_path / "a.ome.tif"}
    with pytest.raises(CutOff):
        segment(volume, model(), on_event=cut_at(30), **arguments)
    changed = np.load(tmp_path / "image.npy", mmap_mode="r+")
    changed[5, 5] += 1
    changed.flush()
    with pytest.raises(OutputError, match="the image's content"):
        segment(volume, model(), **arguments)
    changed[5, 5] -= 1
    os.utime(tmp_path / "image.npy")
    segment(volume, model(), **arguments)
