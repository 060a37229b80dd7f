"""``segment``: the one path from an image to its labels; widget, command line, batch and worker all take it."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_tileseg.engine.allocator import kept_memory
from napari_tileseg.engine.axes import AxisMap, map_axes
from napari_tileseg.engine.events import Planned, Progress, Warned
from napari_tileseg.engine.journal import disk_error
from napari_tileseg.engine.orientation import turned
from napari_tileseg.errors import OptionsError, OutputError, RunError
from napari_tileseg.estimation import Estimate, estimate
from napari_tileseg.execution import Run
from napari_tileseg.image import as_volume, check_dtype
from napari_tileseg.io.own_labels import is_label_place
from napari_tileseg.io.sidecar import sidecar_path
from napari_tileseg.job import SegmentOptions, regions_of, told
from napari_tileseg.models.settings import publishable
from napari_tileseg.moving import move
from napari_tileseg.provenance import signature
from napari_tileseg.results import finish, is_zarr_name, make_labels, make_maps, stands_at, waits_for
from napari_tileseg.unfinished import FIRST_STAGE, Unfinished, folder_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.events import Event
    from napari_tileseg.engine.parts import Region
    from napari_tileseg.engine.protocols import Predictor
    from napari_tileseg.segmentation import Segmentation
    from napari_tileseg.volume import Volume

__all__ = ["Estimate", "estimate", "save_segmentation", "segment"]


def segment(
    volume: Volume | NDArray[Any] | str | Path,
    model: str | Path | Predictor,
    *,
    options: SegmentOptions | None = None,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    region: Region | Sequence[Region] | None = None,
    out: str | Path | NDArray[Any] | None = None,
    scores_out: NDArray[np.float32] | None = None,
    uncertainty_out: NDArray[np.float32] | None = None,
    journal: str | Path | None = None,
    resume: bool = True,
    keep_journal: bool = False,
    on_result: Callable[[Segmentation], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Segmentation:
    """Segment an image.

    Parameters
    ----------
    volume : Volume, ndarray or path
        The image. An array needs `axes` where they cannot be told from its shape.
    model : str, path or Predictor
        Name of a model, path of a package, ``"ensemble:REF,REF"`` for the mean of several, or a loaded predictor.
    options : SegmentOptions, optional
        How; as the model says by default.
    axes : str, optional
        One letter of TCZYX per dimension of the image; overrides what the file says.
    channels : sequence of int, optional
        Index along C for each input channel of the model.
    region : tuple of (start, stop), or a sequence of these, optional
        Part of the result to compute, one pair for each axis of the image without C. The network still sees
        its surroundings; labels elsewhere are 0. Several parts are computed each by itself, as if it were asked for alone; only those
        that touch, or whose common frame takes no more tiles, are computed together.
    out : path or ndarray, optional
        A path: the result is saved there; ``.ome.zarr`` takes it slab by slab. An array (a memory map, say) of the result's
        shape and dtype: it is filled while the run goes on; with a journal, it must still hold what it held when the run was
        interrupted.
    scores_out : ndarray of float32, optional
        Array for the raw scores, class first; made if `options.scores` and not given: in memory, or as a store on the disk that goes
        away with the result where that would be too large.
    uncertainty_out : ndarray of float32, optional
        Array for the uncertainty, of the result's axes without C; made like that if `options.uncertainty` and not given.
    journal : path, optional
        Folder for a journal, with which the run can be killed at any moment and continued by the same call. Beside `out`, as
        ``.name.tileseg``, if that is a path; none otherwise. It is deleted when the result is in place.
    resume : bool
        Whether to go on with what the journal says; False begins anew.
    keep_journal : bool
        Leave the journal where it is, and nothing beside `out` if the run stops: the caller still has to bring the result to its
        place, and deletes the folder then. Until that the same call gives the same result without computing anything.
    on_result : callable, optional
        Receives the result before it is saved to `out` and the journal is deleted. If it raises an error (the disk is full, and it
        was to save the scores), the journal stays, and the same call comes to this point again without computing anything.
    on_event : callable, optional
        Receives every event of `napari_tileseg.engine.events` as it happens.
    cancel : callable, optional
        Asked before every tile; true stops the run.

    Returns
    -------
    Segmentation

    Raises
    ------
    InputError, AxesError, OptionsError, ModelError, OutputError
        Before the run, each with a sentence that says what to do. OutputError also where a journal is there of a run on another
        image, with another model or other options, and where the disk is full.
    Cancelled, PredictorError, DeviceMemoryError, UnreadableError
        During the run; the finished part is in `out`, or beside it as ``name_unfinished.suffix`` if `out` is a path.
    """
    options = options or SegmentOptions()
    tell = on_event or (lambda event: None)
    target = _output_path(out)
    predictor = loaded = _predictor(model, options)
    image = as_volume(volume, axes=axes, spec=predictor.spec, partial=options.unreadable == "skip")
    if target is not None:
        _check_fits(target, image)
    predictor, options = turned(image, predictor, options)
    axis_map = map_axes(image.axes, image.shape, predictor.spec, channels=channels)
    if target is not None:
        _check_axes(target, axis_map.result_axes)
    check_dtype(image)
    place = Path(journal) if journal is not None else folder_beside(target) if target is not None else None
    run = Run(image, axis_map, predictor, options, regions_of(region), tell, cancel or (lambda: False))
    run.prepare()
    with ExitStack() as stack:
        unfinished = None if place is None else _open_unfinished(place, run, resume=resume)
        if unfinished is not None:
            stack.callback(unfinished.close)
        labels = _arrays(run, out if target is None else None, scores_out, uncertainty_out, target, unfinished)
        try:
            with kept_memory():
                if (first := getattr(loaded, "previous", None)) is not None:
                    _first_stage(run, first, image, channels=channels, place=place, resume=resume)
                run.execute(labels)
        except RunError as error:
            if target is not None and run.begun and not keep_journal:
                error.kept = _keep(run.result(labels), target, str(error))
            raise
        result = _signed(run.result(labels))
        if on_result is not None:
            on_result(result)
        if unfinished is None:
            return result
        if target is not None and not stands_at(labels, target):
            _save(result, target, place)
        if keep_journal:
            return result
        stack.pop_all()
        result = _taken(result, unfinished)
        del labels, run  # Windows deletes no file that is mapped
        _tidy(unfinished, target)
        return result


def _arrays(
    run: Run,
    given: Any,
    scores: NDArray[np.float32] | None,
    uncertainty: NDArray[np.float32] | None,
    target: Path | None,
    unfinished: Unfinished | None,
) -> Any:
    """Return the array for the labels, after giving the run those for what else is wanted, and what an interrupted run has left."""
    options, axis_map = run.options, run.axis_map
    labels = _labels_array(axis_map, run.image, options, given, target, unfinished)
    heads = len(run.predictor.spec.score_names)
    run.scores = _maps("scores", axis_map, options, scores, unfinished, heads) if options.scores else None
    run.uncertainty = _maps("uncertainty", axis_map, options, uncertainty, unfinished) if options.uncertainty else None
    if unfinished is not None:
        unfinished.attach(labels, run.scores, run.uncertainty)
        run.take_up(unfinished.journal)
    return labels


def _taken(result: Segmentation, unfinished: Unfinished) -> Segmentation:
    """Return a result that needs the folder of its journal no more."""
    return replace(
        result,
        labels=unfinished.taken(result.labels),
        scores=unfinished.taken(result.scores),
        uncertainty=unfinished.taken(result.uncertainty),
    )


def _tidy(unfinished: Unfinished, target: Path | None) -> None:
    """Delete the journal, and what an interrupted run has left beside the result."""
    unfinished.remove()
    if target is not None and unfinished.journal.resumed:
        _delete(_unfinished_name(target))
        _delete(sidecar_path(_unfinished_name(target)))


def _signed(result: Segmentation) -> Segmentation:
    """Say who computed a result and when, where the user wants that in files; otherwise equal runs give equal files."""
    signed = {**result.provenance, "run": signature(result.seconds)}
    return replace(result, provenance=publishable(signed))


def _first_stage(
    run: Run, predictor: Predictor, image: Volume, *, channels: Sequence[int] | None, place: Path | None, resume: bool
) -> None:
    """Run the first model of a cascade where the second one will look, as a run of its own with a journal of its own.

    Parameters
    ----------
    run : Run
        Of the second model, prepared; it gets the labels, and tells of both as of one.
    predictor : Predictor
        The first model.
    image, channels
        As for the second model.
    place : Path or None
        Where the second model's journal is.
    resume : bool
        Whether to go on with what the journal says.
    """
    tell, later = run.tell, run.tiles
    tiles = 0

    def first(event: Event) -> None:
        nonlocal tiles
        match event:
            case Planned():
                tiles = event.tiles
                tell(replace(event, tiles=tiles + later))
            case Progress(done, total, left):
                left = None if left is None or total == done else left * (total + later - done) / (total - done)
                tell(Progress(done, total + later, left))
            case Warned(message):
                run.warn(message)

    def second(event: Event) -> None:
        if isinstance(event, Planned):
            event = replace(event, tiles=tiles + event.tiles)
        elif isinstance(event, Progress):
            event = replace(event, done=tiles + event.done, total=tiles + event.total)
        tell(event)

    unused: dict[str, Any] = {"window": None, "scores": False, "uncertainty": False, "min_size": 0.0, "skip_background": False}
    run.previous = segment(
        image,
        predictor,
        options=run.options.model_copy(update=unused),
        channels=channels,
        region=run.seen or None,
        journal=place / FIRST_STAGE if place is not None else None,
        resume=resume,
        keep_journal=True,
        on_event=first,
        cancel=run.cancel,
    )
    run.tell = second


def _save(result: Segmentation, target: Path, folder: Path | None) -> None:
    """Save the result by way of the run's own folder, where a half-written file is in nobody's way after a power cut."""
    from napari_tileseg.io.registry import has_more_files

    if folder is None or folder != folder_beside(target) or is_zarr_name(target) or is_label_place(target) or has_more_files(target):
        save_segmentation(result, target, overwrite=True)
        return
    written = save_segmentation(result, folder / target.name, overwrite=True)
    try:
        move(written, target)
    except OSError as error:
        raise disk_error(error, target) from error


def _open_unfinished(place: Path, run: Run, *, resume: bool) -> Unfinished:
    from napari_tileseg.engine.fingerprint import fingerprint

    facts = fingerprint(run.image, run.axis_map, run.predictor, run.options, told(run.regions))
    return Unfinished.open(place, facts, resume=resume)


def save_segmentation(segmentation: Segmentation, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write labels with spacing, units, class names, colours and provenance; the suffix decides the format.

    Raises
    ------
    OutputError
        If the suffix is unknown, the file is there already, or the disk refuses.
    """
    from napari_tileseg.io import write_labels

    facts: dict[str, Any] = {
        "classes": segmentation.classes,
        "colors": segmentation.colors,
        "provenance": dict(segmentation.provenance),
    }
    if waits_for(segmentation.labels, Path(path)):
        return finish(segmentation.labels, segmentation.labels_volume(), Path(path), **facts)
    return write_labels(segmentation.labels_volume(), path, overwrite=overwrite, image=segmentation.volume, **facts)


def _keep(unfinished: Segmentation, path: Path, reason: str) -> Path | None:
    """Save what an interrupted run has finished, under a name that cannot be taken for the whole; None if the disk refuses."""
    noted = replace(unfinished, provenance={**unfinished.provenance, "state": "unfinished", "reason": reason})
    try:
        return save_segmentation(noted, _unfinished_name(path), overwrite=True)
    except OutputError:
        return None


def _delete(path: Path) -> None:
    """Delete a result, be it a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _unfinished_name(path: Path) -> Path:
    from napari_tileseg.io import suffix_of

    suffix = suffix_of(path, purpose="write")
    return path.with_name(f"{path.name[: len(path.name) - len(suffix)]}_unfinished{path.name[len(path.name) - len(suffix) :]}")


def _predictor(model: str | Path | Predictor, options: SegmentOptions) -> Predictor:
    if isinstance(model, str | Path):
        from napari_tileseg.models.predictor import load_model

        return load_model(str(model), device=options.device)
    return model


def _output_path(out: str | Path | NDArray[Any] | None) -> Path | None:
    if not isinstance(out, str | Path):
        return None
    from napari_tileseg.io import check_writable

    return check_writable(out)


def _check_fits(target: Path, image: Volume) -> None:
    from napari_tileseg.io import check_fits

    check_fits(target, image)


def _check_axes(target: Path, axes: str) -> None:
    from napari_tileseg.io.registry import check_axes

    check_axes(target, axes)


def _labels_array(
    axis_map: AxisMap, image: Volume, options: SegmentOptions, given: Any, target: Path | None, unfinished: Unfinished | None
) -> Any:
    if given is None and target is not None and unfinished is not None and is_zarr_name(target):
        return unfinished.store(target, axis_map, image)
    if given is None and unfinished is not None:
        return unfinished.array("labels", axis_map.result_shape, axis_map.result_dtype)
    if given is None:
        return make_labels(axis_map, image, options)
    if tuple(given.shape) != axis_map.result_shape or given.dtype != axis_map.result_dtype:
        raise OptionsError(
            f"The array for the labels has shape {tuple(given.shape)} and type {given.dtype}; "
            f"{axis_map.result_shape} and {axis_map.result_dtype} are needed."
        )
    return cast("NDArray[Any]", given)


def _maps(
    name: str,
    axis_map: AxisMap,
    options: SegmentOptions,
    given: NDArray[np.float32] | None,
    unfinished: Unfinished | None,
    channels: int = 0,
) -> Any:
    shape = (channels, *axis_map.grid_shape) if channels else axis_map.grid_shape
    if given is None:
        return unfinished.array(name, shape, np.dtype(np.float32)) if unfinished else make_maps(axis_map, options, channels)
    if tuple(given.shape) != shape or given.dtype != np.float32:
        raise OptionsError(
            f"The array for the {name} has shape {tuple(given.shape)} and type {given.dtype}; {shape} and float32 are needed."
        )
    return given
