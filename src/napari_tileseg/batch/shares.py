"""A worker's part in one large image: labels of a box into the store of the result, or the objects of a box into a store beside it."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.division import Share, find_objects, label_box
from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.events import Event, Progress
from napari_tileseg.engine.normalize import Statistics
from napari_tileseg.engine.orientation import turned
from napari_tileseg.execution import Run
from napari_tileseg.image import check_dtype
from napari_tileseg.job import SegmentOptions
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.batch.work import Models
    from napari_tileseg.engine.pieces import Found
    from napari_tileseg.engine.protocols import Predictor
    from napari_tileseg.engine.tiles import Tile
    from napari_tileseg.volume import Volume

    Say = Callable[[dict[str, Any]], None]

__all__ = ["StoredPiece", "open_image", "prepare", "share", "survey"]

_SIDE = 512
"""Most pixels along a side of a chunk of labels that wait to be joined."""


def open_image(image: dict[str, Any]) -> Volume:
    """Open the image that an order names: ``input``, ``series``, ``level``, ``axes``, and ``partial``."""
    from napari_tileseg.io import read_volume

    volume = read_volume(image["input"], series=image["series"], level=image["level"], partial=image["partial"])
    volume = volume if image["axes"] is None else volume.with_axes(image["axes"])
    check_dtype(volume)
    return volume


def prepare(
    volume: Volume,
    predictor: Predictor,
    options: SegmentOptions,
    channels: list[int] | None,
    tell: Callable[[Event], None],
    cancel: Callable[[], bool],
) -> Run:
    """Return the run of the whole image, with its tiles laid."""
    predictor, options = turned(volume, predictor, options)
    axis_map = map_axes(volume.axes, volume.shape, predictor.spec, channels=channels)
    run = Run(volume, axis_map, predictor, options, (), tell, cancel)
    run.prepare()
    return run


def _run(order: dict[str, Any], models: Models, tell: Callable[[Event], None], stop: Callable[[], bool]) -> Run:
    from napari_tileseg.engine.precision import Verdict

    options = SegmentOptions(**order["options"])
    run = prepare(open_image(order["image"]), models.get(order["model"], options.device), options, order["image"]["channels"], tell, stop)
    run.statistics = {frame: Statistics.from_dict(values) for frame, values in order["statistics"]}
    run.verdict = Verdict(**order["verdict"]) if order["verdict"] else None
    return run


def survey(order: dict[str, Any], models: Models, say: Say, stop: Callable[[], bool]) -> dict[str, Any]:
    """Choose the precision for all workers, on tiles of the whole image."""
    run = _run(order, models, lambda event: None, stop)
    verdict = run.decided(run.source(run.layout.part, run.layout.read))
    return {"verdict": asdict(verdict) if verdict else None, "settings": _settings(run)}


def share(order: dict[str, Any], models: Models, say: Say, stop: Callable[[], bool]) -> dict[str, Any]:
    """Compute one share and put what it gives where `place` says; a share that is computed twice is put there twice, alike."""
    from napari_tileseg.engine.fingerprint import threads
    from napari_tileseg.io.zarr_store import ZarrLabels

    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            say({"done": event.done, "total": event.total})

    run = _run(order, models, tell, stop)
    part, place = Share.from_list(order["share"]), Path(order["place"])
    with threads(order["threads"]) as count:
        run.settings["threads"] = count
        if run.axis_map.output == "instances":
            StoredPiece.write(place, find_objects(run, part))
        else:
            ZarrLabels.put_part(place, *label_box(run, part))
    return {
        "windows": run.windows,
        "warnings": run.warnings,
        "damage": run.damage.state(),
        "notes": run.relief.notes,
        "settings": _settings(run),
    }


def _settings(run: Run) -> dict[str, Any]:
    names = ("device", "batch", "precision", "precision_reason", "threads")
    return {name: run.settings[name] for name in names if name in run.settings}


@dataclass(frozen=True)
class StoredPiece:
    """What `find_objects` gave for one share, in a Zarr group of its own.

    Parameters
    ----------
    path : Path
    box : Tile
        Where it lies on the model's grid.
    """

    path: Path
    box: Tile

    @staticmethod
    def write(path: Path, found: Found) -> None:
        """Put it there, whole."""
        import zarr
        from zarr.codecs import BloscCodec

        beside = path.with_name(f".{secrets.token_hex(6)}.{path.name}")
        group = zarr.create_group(beside, zarr_format=3, attributes={"count": found.count})
        for name, array in (("labels", found.labels), ("index", found.index), ("scores", found.scores)):
            size = array.dtype.itemsize
            side = _SIDE if name == "labels" else _SIDE * _SIDE
            group.create_array(
                name,
                data=np.ascontiguousarray(array),
                chunks=tuple(max(1, min(side, length)) for length in array.shape),
                compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=size),
            )
        shutil.rmtree(path, ignore_errors=True)
        move(beside, path)

    @property
    def count(self) -> int:
        """Number of settled objects."""
        return int(self._group().attrs["count"])

    def labels(self, region: Tile) -> NDArray[np.int32]:
        """Return the settled objects in a part of the box."""
        return np.asarray(self._group()["labels"][region.relative_to(self.box.start).slices])

    def opened(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return places and scores of pixels whose components go on outside."""
        group = self._group()
        return np.asarray(group["index"][:]), np.asarray(group["scores"][:])

    def _group(self) -> Any:
        import zarr

        return zarr.open_group(self.path, mode="r")
