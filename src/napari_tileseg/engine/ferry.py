"""``Ferry``: takes batches of tiles to the network and scores back, the next batch under way while one is computed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.engine.predict import largest, out_of_memory
from napari_tileseg.errors import DeviceMemoryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from napari_tileseg.engine.predict import Network
    from napari_tileseg.engine.streams import Mark, Streams
    from napari_tileseg.engine.tiles import Placed, Row, Tile

__all__ = ["Ferry", "Flight"]


@dataclass(eq=False)
class Flight:
    """One batch under way.

    Parameters
    ----------
    number : int
        Counts up from 1.
    row : Row
        Of the tiles.
    tiles : list of Placed
        What is in it.
    places : list of Tile
        Where that lies in the image, for messages.
    scores : torch.Tensor or None
        Raw scores, shape (N, K, *output), on the device, or in a buffer of the host if that was asked for: valid when it has
        landed and until the next batch goes. None once they are used.
    largest : torch.Tensor of float32, shape (N,)
        Largest score of each tile; NaN where one of them is.
    mark : Mark
        When all of it is there.
    """

    number: int
    row: Row
    tiles: list[Placed]
    places: list[Tile]
    scores: torch.Tensor | None
    largest: torch.Tensor
    mark: Mark


class Ferry:
    """Buffers are allocated once, as many as batches may be under way.

    Parameters
    ----------
    network : Network
        What to call.
    streams : Streams
        How to speak with its device.
    window : tuple of int
        Spatial size of a tile.
    batch : int
        Most tiles at once.
    """

    def __init__(self, network: Network, streams: Streams, window: tuple[int, ...], batch: int) -> None:
        self._network, self._streams, self._window = network, streams, window
        self.batch = batch
        """Most tiles at once; buffers follow when `forget` is called."""
        self._pixels: dict[int, torch.Tensor] = {}
        self._scores: dict[int, torch.Tensor] = {}
        self._largest: dict[int, torch.Tensor] = {}
        self._under_way: deque[Flight] = deque()
        self.sent = 0
        self.landed = 0

    def send(
        self, row: Row, tiles: list[Placed], pixels: torch.Tensor, origin: tuple[int, ...], places: Sequence[Tile], *, home: bool
    ) -> Flight:
        """Tell the device to compute some tiles; `land` must have made room before.

        Parameters
        ----------
        row : Row
            Of the tiles.
        tiles : list of Placed
            At most `batch`.
        pixels : torch.Tensor of float32, shape (C, *size)
            What they see; may be overwritten as soon as this returns.
        origin : tuple of int
            Where the pixels begin.
        places : sequence of Tile
            Where the tiles lie in the image.
        home : bool
            Bring the scores to the host.

        Raises
        ------
        DeviceMemoryError
            If memory ran out before, in or after the network.
        PredictorError
            If the network raises, or returns another shape.
        """
        slot = self.sent % self._streams.depth
        try:
            batch = self._streams.upload(slot, self._fill(slot, tiles, pixels, origin))
            scores = self._network.raw(batch, places)
            highest = self._judged(slot, scores)
            if home:
                scores = self._brought(slot, scores)
        except (MemoryError, RuntimeError) as error:  # not the network, which says so itself, but a copy before or after it
            if not out_of_memory(error):
                raise
            raise DeviceMemoryError("The computer has no memory left for the next tile. Close other programs.") from None
        self.sent += 1
        flight = Flight(self.sent, row, tiles, list(places), scores, highest, self._streams.mark())
        self._under_way.append(flight)
        return flight

    def land(self, *, leave: int = 0) -> Iterator[Flight]:
        """Wait for batches, the oldest first, until at most so many are under way; each is looked at.

        Raises
        ------
        PredictorError
            If the network has returned NaN, or the device says now that it failed.
        """
        while len(self._under_way) > leave:
            flight = self._under_way.popleft()
            self._network.wait(flight.mark, flight.places, self._window)
            self._network.judge(flight.largest, flight.places)
            self.landed = flight.number
            yield flight

    def forget(self) -> None:
        """Let all buffers go; nothing may be under way but what has failed, which is waited for."""
        self._streams.mark().synchronize()
        for buffers in (self._pixels, self._scores, self._largest):
            buffers.clear()

    def _fill(self, slot: int, tiles: list[Placed], pixels: torch.Tensor, origin: tuple[int, ...]) -> torch.Tensor:
        """Copy the pixels of some tiles into the slot's buffer."""
        if slot not in self._pixels:
            self._pixels[slot] = self._streams.buffer((self.batch, pixels.shape[0], *self._window))
        buffer = self._pixels[slot]
        for index, tile in enumerate(tiles):
            buffer[index] = pixels[(slice(None), *tile.seen.relative_to(origin).slices)]
        return buffer[: len(tiles)]

    def _judged(self, slot: int, scores: torch.Tensor) -> torch.Tensor:
        """Return what tells whether scores are numbers, where the host will find it."""
        found = largest(scores)
        if self._streams.depth == 1:
            return found
        if slot not in self._largest:
            self._largest[slot] = self._streams.buffer((self.batch,))
        into = self._largest[slot][: len(found)]
        self._streams.download(found, into)
        return into

    def _brought(self, slot: int, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores in the slot's buffer on the host."""
        if slot not in self._scores or self._scores[slot].dtype != scores.dtype:
            self._scores[slot] = self._streams.buffer((self.batch, *scores.shape[1:]), scores.dtype)
        into = self._scores[slot][: len(scores)]
        self._streams.download(scores, into)
        return into
