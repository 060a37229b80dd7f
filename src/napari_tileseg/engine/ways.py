"""``Ways``: the ways to compute one tile of a model on this computer, timed, the fastest first."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from napari_tileseg.engine.allocator import kept_memory
from napari_tileseg.engine.backends import RECORDED, backends, is_short, starts_slowly
from napari_tileseg.engine.timings import EXACT, recall, remember
from napari_tileseg.errors import DeviceMemoryError, PredictorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_tileseg.engine.predict import Network
    from napari_tileseg.engine.protocols import Predictor
    from napari_tileseg.engine.tiles import Tile

__all__ = ["WORTH", "Ways", "compute", "measure"]

WORTH = 120.0
"""Seconds that a run must take for a network to be compiled that was never timed so: compiling takes up to half a minute."""

_START = "start "
"""Put before the name of a way: seconds on the wall until it can be used. Infinite where it cannot."""


class Ways:
    """The ways to compute a tile, each timed once for a model and computer.

    Parameters
    ----------
    network : Network
        What to call; left in exact mode.
    predictor : Predictor
        Its model.
    tile : (Tile, ndarray of float32 of shape (C, *window))
        What to compute.
    key : str
        By which times are remembered, see `timings.timing_key`.
    timer : callable
        The clock.
    batch : int
        How many tiles the run computes at once: on a GPU one by itself says little about several.
    """

    def __init__(
        self,
        network: Network,
        predictor: Predictor,
        tile: tuple[Tile, NDArray[Any]],
        key: str,
        timer: Callable[[], float],
        *,
        batch: int = 1,
    ) -> None:
        self._network, self._tile, self._timer, self._batch = network, tile, timer, batch
        self._key = f"{key}|batches of {batch}" if key and batch > 1 else key
        offered = backends(predictor)
        self.first = offered[0]
        """The name of the way that is there for every model."""
        self._compiled = [name for name in offered if starts_slowly(name)]
        ready = [name for name in offered if name not in self._compiled]
        known = recall(self._key)
        self.seconds = {name: known[name] for name in (EXACT, *ready) if name in known}
        """Seconds for one tile by the name of the way, ``"exact"`` among them."""
        if len(self.seconds) < 2:
            self.seconds = measure(network, tile, ready, timer=timer, batch=batch)
            remember(self._key, self.seconds)

    def faster(self, tiles: int) -> Iterator[str]:
        """Yield the ways that are faster than exact arithmetic for so many tiles, those of the faster arithmetic before the others.

        A network is compiled where that pays, and only when its arithmetic's turn has come.
        """
        exact = self.seconds[EXACT]
        short = {name for name in self.seconds if is_short(name)}
        kinds = [short, set(self.seconds) - short - {EXACT}]
        for kind in sorted((kind for kind in kinds if kind), key=lambda kind: min(self.seconds[name] for name in kind)):
            best = min(self.seconds[name] for name in kind)
            compiled = [name for name in self._compiled if is_short(name) == (kind is short)]
            kind |= {name for name in compiled if best < 1.5 * exact and self._pays(name, best, tiles)}
            yield from sorted((name for name in kind if self.seconds[name] < exact), key=lambda name: self.seconds[name])

    def _pays(self, name: str, otherwise: float, tiles: int) -> bool:
        """Say whether a run should prepare a way; what is not known yet is measured, if the run is long enough."""
        known = recall(self._key)
        start = known.get(_START + name)
        if start is None:
            if tiles * otherwise < WORTH:
                return False
            began = time.perf_counter()
            found = measure(self._network, self._tile, [name], timer=self._timer, batch=self._batch)
            start = time.perf_counter() - began if name in found else math.inf
            remember(self._key, {_START + name: start} | ({name: found[name]} if name in found else {}))
            if name in found:
                self.seconds[name] = found[name] * self.seconds[EXACT] / found[EXACT]  # other programs may have begun meanwhile
            return name in found
        if name not in known:
            return False
        self.seconds[name] = known[name]
        return tiles * (otherwise - known[name]) > start


def measure(
    network: Network,
    tile: tuple[Tile, NDArray[Any]],
    names: list[str],
    *,
    rounds: int = 3,
    timer: Callable[[], float] = time.perf_counter,
    batch: int = 1,
) -> dict[str, float]:
    """Time one tile in exact arithmetic and in other ways, in turns; a way that fails is left out.

    Parameters
    ----------
    network : Network
        What to call; left in exact mode.
    tile : (Tile, ndarray of float32 of shape (C, *window))
        What to compute.
    names : list of str
        Ways to try, of `napari_tileseg.engine.backends.backends`.
    rounds : int
        How often each of them is timed.
    timer : callable
        The clock.
    batch : int
        How many of them are computed at once; fewer where memory is short.

    Returns
    -------
    dict of str to float
        Seconds for one tile in the fastest round, by the name of the way; ``"exact"`` is always there.
    """
    place, pixels = tile
    one = torch.from_numpy(pixels)[None]
    ways = [EXACT]
    with kept_memory():  # as in a run
        tiles = _warmed(network, one, place, batch)
        for name in names:
            # What a library cannot compute in this way is no fault of the run; exact arithmetic is still there.
            with suppress(PredictorError, DeviceMemoryError):
                compute(network, tiles, place, name)
                ways.append(name)
        try:
            return _timed(network, tiles, place, ways, rounds, timer)
        except DeviceMemoryError:
            others = [name for name in ways if not name.endswith(RECORDED)]
            if others == ways:
                raise
            network.release()  # recordings hold what the others need
            return _timed(network, tiles, place, others, rounds, timer)


def _timed(
    network: Network, tiles: torch.Tensor, place: Tile, names: list[str], rounds: int, timer: Callable[[], float]
) -> dict[str, float]:
    """Return the seconds for one tile of a batch in the fastest round, by the name of the way; the ways take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, times in seconds.items():
            start = timer()
            compute(network, tiles, place, name)
            times.append(timer() - start)
    return {name: min(times) / len(tiles) for name, times in seconds.items()}


def _warmed(network: Network, tile: torch.Tensor, place: Tile, batch: int) -> torch.Tensor:
    """Return as many copies of a tile as the device has memory for, at most `batch`, computed once: warming up is not speed."""
    while True:
        tiles = tile.expand(batch, *tile.shape[1:]).contiguous()
        try:
            compute(network, tiles, place, EXACT)
        except DeviceMemoryError:
            if batch == 1:
                raise
            batch //= 2  # as the run will do
        else:
            return tiles


def compute(network: Network, batch: torch.Tensor, tile: Tile, name: str) -> torch.Tensor:
    """Return the scores of the first of a batch of tiles, all of which lie in the same place, computed in a way by its name."""
    network.fast, before = name != EXACT, network.backend
    network.backend = before if name == EXACT else name
    try:
        return network(batch, [tile] * len(batch))[0]
    finally:
        network.fast, network.backend = False, before
