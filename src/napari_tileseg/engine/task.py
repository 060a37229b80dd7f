"""``Task``: what the loop of one image holds while it goes, and the steps it is made of."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_tileseg.engine.adaptive import line_of
from napari_tileseg.engine.backends import backends, release
from napari_tileseg.engine.decode import PerPixel
from napari_tileseg.engine.events import Event, Planned, Progress, SlabDone, Warned
from napari_tileseg.engine.precision import Verdict, decide
from napari_tileseg.engine.predict import out_of_memory
from napari_tileseg.engine.strips import Strips
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.engine.uncertainty import entropy
from napari_tileseg.errors import Cancelled, DeviceMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from numpy.typing import NDArray

    from napari_tileseg.engine.adaptive import Refinement
    from napari_tileseg.engine.counted import CountedSlab
    from napari_tileseg.engine.decode import Decoder
    from napari_tileseg.engine.faults import Relief
    from napari_tileseg.engine.ferry import Ferry, Flight
    from napari_tileseg.engine.memory import Estimate
    from napari_tileseg.engine.patchwork import Patchwork
    from napari_tileseg.engine.predict import Network
    from napari_tileseg.engine.protocols import Predictor, Sink, Source
    from napari_tileseg.engine.restore import Restorer
    from napari_tileseg.engine.scan import Turn
    from napari_tileseg.engine.stitch import Slab
    from napari_tileseg.engine.streams import Streams
    from napari_tileseg.engine.tiles import Placed, Row, TilePlan
    from napari_tileseg.job import SegmentOptions

__all__ = ["Task"]


@dataclass
class Task:
    """What the loop holds while it goes."""

    source: Source
    predictor: Predictor
    options: SegmentOptions
    plan: TilePlan
    needs: Estimate
    network: Network
    streams: Streams
    ferry: Ferry
    slab: Slab | Strips | CountedSlab | Patchwork
    decoder: Decoder
    first: int
    skip: int
    cancel: Callable[[], bool]
    turn: Turn
    relief: Relief
    offset: tuple[int, ...]
    wanted: Callable[[Tile], bool] | None = None
    refinement: Refinement | None = None
    restorer: Restorer | None = None
    verdict: Verdict | None = None
    done: int = 0
    windows: int = 0
    began: float = field(default_factory=time.monotonic)
    _above: NDArray[np.float32] | None = None

    @property
    def total(self) -> int:
        return (self.plan.n_rows - self.first) * self.plan.tiles_per_row

    def check(self) -> None:
        """Stop if somebody wants that."""
        if self.cancel():
            raise Cancelled(f"The run was cancelled after {self.done} of {self.total} tiles. What was finished is kept.")

    def planned(self) -> Planned:
        memory = self.needs.device_bytes + self.needs.host_bytes
        window, shape = self.turn.back(self.plan.window), self.turn.back(self.plan.shape)
        return Planned(self.total, window, shape, self.predictor.device, self.ferry.batch, memory)

    def notes(self) -> Iterator[Event]:
        """Say which options have no effect here."""
        if (
            self.relief.window is None
            and self.options.min_size > 0
            and not (self.predictor.spec.finds_objects or self.predictor.spec.output == "anomaly")
        ):
            yield Warned("Min. size has no effect: this model finds classes, not objects.")
        shared = self.options.overlap if self.options.overlap is not None else self.predictor.spec.overlap
        if self.predictor.spec.output == "labels" and not shared and len(self.plan) > 1:
            yield Warned("Without overlap objects are cut where tiles meet. Use an overlap about as wide as the objects.")

    def choose_precision(self) -> Iterator[Event]:
        """Compute fast if the user allows it and the tiles of this run do not object."""
        if self.options.precision != "auto" or self.total == 0:
            return
        told = self.verdict is not None and self.relief.window is not None  # by the attempt with a larger window
        if self.verdict is None:
            self.verdict = decide(self.source, self.predictor, self.options, check=self.check)
            self.began = time.monotonic()
        self.network.fast = self.verdict.fast or self.relief.fast
        if self.verdict.fast:
            self.network.backend = self.verdict.backend
            if not self.options.batch and not self.relief.notes:
                self.ferry.batch = max(self.ferry.batch, self.verdict.batch)
        if not self.network.fast and not told:
            yield Warned(self.verdict.reason)

    def lines(self, row: Row, block: NDArray[np.float32]) -> Iterator[tuple[Row, NDArray[np.float32], list[Placed]]]:
        """Yield tiles that lie side by side with what they see: those of a row, then the windows over its seams, if any."""
        tiles = [tile for tile in self.plan.tiles(row.index) if self.wanted is None or self.wanted(self._unturned(tile.kept))]
        self.done += self.plan.tiles_per_row - len(tiles)
        yield row, block, tiles
        if self.refinement is None:
            return
        for line, between in groupby(self.refinement.choose(row), line_of):
            if line.seen == row.seen or self._above is None:
                yield line, block, list(between)
            else:  # half in the row above, whose pixels the feed has not kept
                top = line.seen[0] - self.plan.row(row.index - 1).seen[0]
                shared = row.seen[0] - line.seen[0]
                yield line, np.concatenate([self._above[:, top : top + shared], block[:, : block.shape[1] - shared]], 1), list(between)
        self._above = block.copy()

    def _unturned(self, tile: Tile) -> Tile:
        """Return a tile in the order of the image's axes, where it lies in the image."""
        moved = tile.moved(self.offset)
        return Tile(self.turn.back(moved.start), self.turn.back(moved.stop))

    def compute(self, row: Row, block: NDArray[np.float32], origin: tuple[int, ...], tiles: list[Placed]) -> Iterator[Event]:
        """Predict and add tiles that lie side by side; where memory runs out, by other means.

        Where the device works on its own, the last ones may still be under way at the end: `land` waits for them.
        """
        pixels = torch.from_numpy(block)
        waiting = list(tiles)
        while waiting:
            yield from self.land(leave=self.streams.depth - 1)
            tiles = waiting[: self.ferry.batch]
            try:
                flight = self._send(row, tiles, pixels, (row.seen[0], *origin))
            except DeviceMemoryError:
                if len(tiles) == 1 and not self._can_give_way():
                    raise
                flight = None
            if flight is None:  # outside of the except clause nothing holds the failed call's tensors any more
                yield from self.land()
                yield Warned(self.relief.note(f"{self.predictor.device} is short of memory: {self._give_way(len(tiles))}."))
                continue
            del waiting[: len(tiles)]
            while self.network.missing:
                yield Warned(f"The GPU cannot compute {self.network.missing.pop()}; the processor does that part, which takes longer.")
            if self.streams.depth == 1:
                yield from self.land()
            elif not self._home:  # the device adds them when it has them
                self._add(flight)
            del flight
        if self.refinement is not None:  # it chooses by what all tiles say
            yield from self.land()

    def land(self, *, leave: int = 0) -> Iterator[Event]:
        """Wait for tiles until at most so many batches are under way, and tell of them."""
        for flight in self.ferry.land(leave=leave):
            self._add(flight)
            count = len(flight.tiles)
            self.windows += count
            self.done += count if flight.row.index >= 0 else 0
            left = (time.monotonic() - self.began) / self.done * (self.total - self.done)
            del flight  # the next scores take the place of these in memory
            yield Progress(self.done, self.total, left)

    def finish(self, row: Row, *, own: bool) -> Generator[Event, None, tuple[Tile, torch.Tensor] | None]:
        """Return what is final after a row, if anything.

        Parameters
        ----------
        row : Row
            Whose tiles have been computed.
        own : bool
            Whether the values must outlive what comes next.
        """
        if self._home:
            yield from self.land()
        finished = self.slab.finish(row, skip=self.skip)
        if finished is None or not own or isinstance(self.slab, Strips):  # whose labels lie in a buffer of their own
            return finished
        region, values = finished
        try:
            return region, values.clone()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        return region, values.cpu()  # slower, as the network waits for it

    @property
    def _home(self) -> bool:
        """Whether scores of another device are added up on the host."""
        return self.slab.device.type == "cpu" and self.predictor.device != "cpu"

    def _send(self, row: Row, tiles: list[Placed], pixels: torch.Tensor, origin: tuple[int, ...]) -> Flight:
        """Let the network compute some tiles."""
        places = [self._unturned(tile.seen) for tile in tiles]
        return self.ferry.send(row, tiles, pixels, origin, places, home=self._home)

    def _add(self, flight: Flight) -> None:
        """Add the scores of a batch, once."""
        if flight.scores is None:
            return
        scores, flight.scores = flight.scores, None
        for tile, of_tile in zip(flight.tiles, scores, strict=True):
            self.slab.add(tile, of_tile, flight.row, skip=self.skip)
            if self.refinement is not None and flight.row.index >= 0:
                self.refinement.note(tile, of_tile[: len(self.predictor.spec.score_names)])

    def _can_give_way(self) -> bool:
        return self.slab.device.type != "cpu" or (self.options.precision == "auto" and not self.network.fast)

    def _give_way(self, tiles: int) -> str:
        """Do with less memory, one step at a time; say how."""
        self.ferry.forget()
        release(self.predictor)
        if tiles > 1:
            self.ferry.batch = self.relief.batch = tiles // 2
            text = f"the batch is now {self.ferry.batch}"
        elif self.slab.device.type != "cpu":
            self.slab.move("cpu")
            self.relief.host = True
            text = "open scores are now kept in the computer's own memory"
        else:
            self.network.fast = self.relief.fast = True
            self.network.backend = backends(self.predictor)[0]
            text = f"the rest is computed in {self.network.backend}"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return text

    def deliver(self, sink: Sink, region: Tile, values: torch.Tensor) -> Iterator[Event]:
        """Hand finished scores (of a slab) or labels (of strips) to the decoder, and what it gives back to the sink."""
        if isinstance(self.slab, Strips) and isinstance(self.decoder, PerPixel):
            yield from self.write(sink, self.decoder.take(region, values))
        elif self.restorer is None:
            yield from self._decode(sink, region, values)
        else:
            for piece, of_piece in self.restorer.take(region, values):
                yield from self._decode(sink, piece, of_piece)

    def _decode(self, sink: Sink, region: Tile, values: torch.Tensor) -> Iterator[Event]:
        """Write what was asked for beside the labels, then these."""
        if self.options.uncertainty == "disagreement":
            sink.write_uncertainty(region.slices, values[-1].cpu().numpy())
            values = values[:-1]
        elif self.options.uncertainty:
            sink.write_uncertainty(region.slices, entropy(values, self.predictor.spec).cpu().numpy())
        if self.options.scores or self.predictor.spec.output == "anomaly":  # whose map is summed up
            sink.write_scores(region.slices, values.cpu().numpy())
        yield from self.write(sink, self.decoder.add(region, values))

    def write(self, sink: Sink, pieces: Iterable[tuple[Tile, NDArray[Any]]]) -> Iterator[Event]:
        for region, labels in pieces:
            sink.write(region.slices, labels)
            yield SlabDone(self.turn.back(region.moved(self.offset).bounds))
        for message in self.decoder.warnings():
            yield Warned(message)
