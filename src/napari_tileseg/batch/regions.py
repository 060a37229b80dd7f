"""One large image on all workers of a cluster: labels equal to those of one process, the objects joined across its parts.

::

    measure once  ->  shares, each a box of the image with all tiles that touch it  ->  labels in whole chunks of one store
                                                                                   ->  objects that end in their box; scores of others
                      join: coarser levels; or objects, row by row  ->  the result, as one process would have written it

The folder of the journal notes what is settled and which shares are done, so that a run that was cut off goes on.
"""

from __future__ import annotations

import math
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.batch.events import TaskProgress
from napari_tileseg.batch.shares import StoredPiece, open_image, prepare
from napari_tileseg.division import Share, divide, join_objects, tiles_of
from napari_tileseg.engine.events import Event, Finished, Planned, Progress
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.errors import Cancelled, ModelError, OptionsError, OutputError, WorkerDiedError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.registry import find_spec
from napari_tileseg.pipeline import save_segmentation
from napari_tileseg.results import is_zarr_name
from napari_tileseg.unfinished import Unfinished, folder_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_tileseg.batch.crew import Crew
    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.batch.task import Outcome, Task
    from napari_tileseg.execution import Run
    from napari_tileseg.io.zarr_store import ZarrLabels
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.segmentation import Segmentation

__all__ = ["LARGE", "segment_on_cluster", "segment_task", "worth_dividing"]

LARGE = 1 << 26
"""Images of at least so many pixels (8192 x 8192) are divided, if there are fewer of them than workers."""

_SHARES = 4
"""Shares for each worker, so that a slow one does not keep all others waiting at the end."""


def can_divide(spec: ModelSpec, options: SegmentOptions, output: str | Path) -> str:
    """Return why an image cannot be divided; nothing if it can."""
    if not is_zarr_name(Path(output)):
        return "only a result that is an OME-Zarr of its own (.ome.zarr) can be written by several processes at once"
    if options.adaptive:
        return "adaptive overlap looks at whole rows of tiles"
    if options.scores or options.uncertainty:
        return "scores and uncertainty are kept by one process only"
    if spec.output == "labels":
        return f"{spec.label} gives labels, whose objects are joined row by row"
    if spec.output == "anomaly" and (options.min_size or len(spec.decoder_parameters) > 1):
        return f"{spec.label} looks at whole places, not at single pixels"
    if spec.previous is not None:
        return f"{spec.label} is a cascade, whose first model sees the image as a whole"
    if spec.crop != "none" or spec.resampling.scores is not None:
        return f"{spec.label} cuts or resamples images as a whole"
    return ""


def worth_dividing(task: Task, *, tasks: int, workers: int) -> bool:
    """Say whether all workers should do one image together: it is large, there are fewer images than workers, and it can be divided.

    Parameters
    ----------
    task : Task
        The image; its header is read.
    tasks, workers : int
        How many there are.
    """
    if workers < 2 or tasks >= workers:
        return False
    try:
        if can_divide(find_spec(task.model), task.options, task.output):
            return False
        volume = open_image(_image(task))
    except Exception:
        return False  # the worker that gets it says what is wrong
    return math.prod(size for axis, size in zip(volume.axes, volume.shape, strict=True) if axis != "C") >= LARGE


def segment_task(
    task: Task,
    crew: Crew,
    *,
    tell: Callable[[BatchEvent], None] = lambda event: None,
    cancel: Callable[[], bool] = lambda: False,
    paused: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Do one task on all workers; as `work.process`, which says what is raised."""
    from napari_tileseg.batch.stamps import input_stamp
    from napari_tileseg.batch.work import Computed, check_axes, failed, recover, staged_name, store

    began = time.monotonic()

    def listen(event: Event) -> None:
        if isinstance(event, Progress):
            tell(TaskProgress(task.number, event.done, event.total))

    try:
        found = recover(task)
        if found is not None:
            return found
        stamp = input_stamp(Path(task.input))
        folder, spec = Path(task.journal), find_spec(task.model)
        check_axes(task, open_image(_image(task)), spec)
        target = folder / staged_name(task)
        if target.exists():  # cut off between the last chunk and the note of the outcome
            shutil.rmtree(folder)
        result = _Divided(_image(task), task.model, task.options, folder, target, crew, listen, cancel, paused).segment()
        return store(task, Computed(result, stamp, time.monotonic() - began, spec, target))
    except (Cancelled, ModelError):
        raise
    except Exception as error:
        return failed(task, error, time.monotonic() - began)


def segment_on_cluster(
    image: str | Path,
    model: str,
    out: str | Path,
    *,
    options: SegmentOptions | None = None,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    series: int = 0,
    level: int = 0,
    workers: int = 0,
    scheduler: str = "",
    on_event: Callable[[Event], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Segmentation:
    """Segment one image on all workers of a Dask cluster; labels are those that `napari_tileseg.segment` gives.

    Parameters
    ----------
    image : path
        On a disk that all workers see, as `out` must be.
    model : str
        Name of a model, or path of a package.
    out : path
        Ends in ``.ome.zarr``. A run that is killed goes on when it is started again.
    options, axes, channels
        As for `segment`; without adaptive overlap, scores and uncertainty.
    series, level : int
        As for `read_volume`.
    workers, scheduler
        As for `make_executor`; one of them is needed.
    on_event : callable, optional
        Receives `Planned`, `Progress`, `Warned`, `SlabDone` (objects only) and `Finished`.
    cancel : callable, optional
        True stops the run.

    Raises
    ------
    OptionsError
        If the image cannot be divided, or the cluster cannot be used.
    InputError, AxesError, ModelError, OutputError, Cancelled, RunError
        As for `segment`.
    """
    from napari_tileseg.batch.connection import check_greetings, connect, wait_for_workers
    from napari_tileseg.batch.crew import Crew
    from napari_tileseg.io import check_writable

    options, stop = options or SegmentOptions(), cancel or (lambda: False)
    target, source = check_writable(Path(out).absolute()), Path(image).absolute()
    if reason := can_divide(find_spec(model), options, target):
        raise OptionsError(f"This cannot be done by several workers together: {reason}. Change that, or use one process.")
    facts = {"input": str(source), "series": series, "level": level, "axes": axes, "channels": list(channels) if channels else None}
    facts["partial"] = options.unreadable == "skip"
    open_image(facts)  # what is wrong with it is said before a cluster is started
    with connect(workers=workers, scheduler=scheduler, device=options.device) as client:
        crew = Crew(client)
        wait_for_workers(client, cancel=stop)
        check_greetings(client, [str(source), str(target.parent)])
        divided = _Divided(facts, model, options, folder_beside(target), target, crew, on_event or (lambda event: None), stop)
        result = divided.segment()
    shutil.rmtree(folder_beside(target), ignore_errors=True)
    return result


def _image(task: Task) -> dict[str, Any]:
    """Return what `open_image` needs."""
    return {
        "input": task.input,
        "series": task.series,
        "level": task.level,
        "axes": task.axes,
        "channels": list(task.channels) if task.channels is not None else None,
        "partial": task.options.unreadable == "skip",
    }


@dataclass(frozen=True)
class _Card:
    """Stands for a model that others have loaded."""

    spec: ModelSpec
    device: str = "cluster"

    def __call__(self, batch: Any, /) -> Any:
        raise WorkerDiedError("The model is on the workers, not here.")


@dataclass
class _Divided:
    """One image on its way through a cluster."""

    image: dict[str, Any]
    model: str
    options: SegmentOptions
    folder: Path
    target: Path
    crew: Crew
    tell: Callable[[Event], None]
    cancel: Callable[[], bool]
    paused: Callable[[], bool] = lambda: False
    shares: list[Share] = field(default_factory=list)
    done: set[int] = field(default_factory=set)

    def segment(self) -> Segmentation:
        """Do it, or go on with it."""
        began = time.monotonic()
        run = prepare(open_image(self.image), _Card(find_spec(self.model)), self.options, self.image["channels"], self.tell, self._stop)
        with ExitStack() as stack:
            unfinished = self._open(run)
            stack.callback(unfinished.close)
            store = unfinished.store(self.target, run.axis_map, run.image)
            self._take_up(run, unfinished, store)
            for layout in run.layouts:
                run.measured(layout.part.position.get("T"))
            self._decide(run)
            self._compute(run, unfinished, store.path)
            self._join(run, store)
            run.seconds = time.monotonic() - began
            run.count(store)
            result = run.result(store)
            objects = run.objects if run.axis_map.output == "instances" else None
            save_segmentation(result, self.target, overwrite=True)
            self.tell(Finished(objects=objects, seconds=run.seconds, voxels=run.counts, windows=run.windows))
        return result

    def _stop(self) -> bool:
        while self.paused() and not self.cancel():
            time.sleep(0.1)
        return self.cancel()

    def _check(self) -> None:
        if self._stop():
            raise Cancelled("The run was cancelled while its parts were put together. What was finished is kept.")

    def _open(self, run: Run) -> Unfinished:
        from napari_tileseg.engine.fingerprint import fingerprint

        told = fingerprint(run.image, run.axis_map, run.predictor, self.options, None) | {"the way it is computed": "in shares"}
        try:
            return Unfinished.open(self.folder, told, resume=True)
        except OutputError as error:
            if "Another program" in str(error):
                raise
            return Unfinished.open(self.folder, told, resume=False)  # what is there was begun by one process, or for another image

    def _take_up(self, run: Run, unfinished: Unfinished, store: ZarrLabels) -> None:
        """Find out what is done, and have that noted from now on."""
        journal = unfinished.journal
        run.take_up(journal)
        run.objects = 0  # joining begins anew
        if journal.resumed and "shares" in journal.state:
            self.shares = [Share.from_list(values) for values in journal.state["shares"]]
            self.done = set(journal.state["done"])
            run.windows = int(journal.state["windows"])
        else:
            layout = store.layout
            chunks = tuple(layout.chunks[layout.stored_axes.index(axis)] for axis in run.axis_map.spatial)
            self.shares = divide(run, chunks=chunks, shares=_SHARES * max(1, self.crew.size()))
        collect = journal.collect

        def state() -> dict[str, Any]:
            mine = {"shares": [share.to_list() for share in self.shares], "done": sorted(self.done), "windows": run.windows}
            return {**collect(), **mine, "rows": 1}

        journal.collect = state

    def _order(self, run: Run, kind: str, **more: Any) -> dict[str, Any]:
        return {
            "kind": kind,
            "number": 0,
            "model": self.model,
            "image": self.image,
            "options": self.options.model_dump(mode="json"),
            "statistics": [[frame, measured.to_dict()] for frame, measured in run.statistics.items()],
            "verdict": vars(run.verdict) if run.verdict else None,
            "threads": run.settings.get("threads"),
            **more,
        }

    def _decide(self, run: Run) -> None:
        """Have one worker choose the precision for all."""
        if self.options.precision != "auto" or run.verdict is not None:
            return
        from napari_tileseg.engine.precision import Verdict

        for answer in self.crew.do([self._order(run, "survey")], cancel=self.cancel, paused=self.paused):
            _check_alive(answer, self.image)
            run.verdict = Verdict(**answer["verdict"]) if answer["verdict"] else None
            run.settings |= answer["settings"]

    def _compute(self, run: Run, unfinished: Unfinished, store: Path) -> None:
        tiles = {share.number: tiles_of(run, share) for share in self.shares}
        total, part = sum(tiles.values()), dict.fromkeys(tiles, 0)
        part |= {number: tiles[number] for number in self.done}
        began, before = time.monotonic(), sum(part.values())
        self.tell(Planned(total, run.recipe.window, run.axis_map.spatial_shape, run.predictor.device, self.options.batch or 1, 0))

        def progress(number: int, done: int) -> None:
            part[number] = max(part[number], done)
            now = sum(part.values())
            left = (time.monotonic() - began) / (now - before) * (total - now) if now > before else None
            self.tell(Progress(now, total, left))

        def hear(message: dict[str, Any]) -> None:
            if "done" in message:
                progress(message["number"], message["done"])

        for answer in self.crew.do(self._orders(run, store), hear=hear, cancel=self.cancel, paused=self.paused):
            _check_alive(answer, self.image)
            for message in answer["warnings"]:
                run.warn(message)
            for note in answer["notes"]:
                if note not in run.relief.notes:
                    run.relief.note(note)
            run.damage.add(answer["damage"])
            run.windows += answer["windows"]
            for name, value in answer["settings"].items():
                run.settings.setdefault(name, value)
            self.done.add(answer["number"])
            unfinished.journal.save()
            progress(answer["number"], tiles[answer["number"]])

    def _orders(self, run: Run, store: Path) -> Iterator[dict[str, Any]]:
        pieces = self.folder / "pieces"
        pieces.mkdir(exist_ok=True)
        for share in self.shares:
            if share.number not in self.done:
                place = pieces / f"{share.number}.zarr" if run.axis_map.output == "instances" else store
                yield self._order(run, "share", number=share.number, share=share.to_list(), place=str(place))

    def _join(self, run: Run, store: ZarrLabels) -> None:
        self._check()
        if run.axis_map.output != "instances":
            store.rebuild()
            return
        for sample in range(len(run.layouts)):
            pieces = [
                StoredPiece(self.folder / "pieces" / f"{share.number}.zarr", Tile(*(tuple(ends) for ends in zip(*share.box, strict=True))))
                for share in self.shares
                if share.sample == sample
            ]
            join_objects(run, sample, pieces, store, check=self._check)


def _check_alive(answer: dict[str, Any], image: dict[str, Any]) -> None:
    if answer.get("killed") or answer.get("cancelled"):
        name = Path(image["input"]).name
        raise WorkerDiedError(
            f'One part of "{name}" has ended several workers, perhaps for want of memory. Use a smaller window or larger workers.'
        )
