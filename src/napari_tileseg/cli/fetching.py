"""How far a download is, told on a console; and models that a command names but that are not here yet, fetched before it begins."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from napari_tileseg.cli.console import complain, emit, interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["bring", "fetching"]

_EVERY = 0.5
"""Seconds between two lines about progress in JSON."""


def bring(*refs: str) -> None:
    """Download the models of hubs and addresses that are not here yet; all else is left alone."""
    from napari_tileseg.models.ensemble import split

    for ref in [member for given in refs for member in split(given) or (given,)]:
        if not ref.startswith(("hub:", "https://", "http://")):
            continue
        from napari_tileseg.models.hubs.download import download
        from napari_tileseg.models.hubs.record import downloaded

        if downloaded(ref) is None:
            complain(f"Downloading {ref}")
            with interrupts() as stopping, fetching() as tell:
                download(ref, on_progress=tell, cancel=stopping)


@contextlib.contextmanager
def fetching(json_lines: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """Give what tells how far a download is: a bar on a terminal, a line now and then in JSON, nothing elsewhere."""
    if json_lines:
        last = [0.0]

        def tell_json(done: int, total: int | None) -> None:
            if time.monotonic() - last[0] >= _EVERY or done == total:
                last[0] = time.monotonic()
                emit({"event": "progress", "bytes": done, "of": total})

        yield tell_json
    elif not sys.stderr.isatty():
        yield lambda done, total: None
    else:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task("Connecting", total=None)

            def tell(done: int, total: int | None) -> None:
                bars.update(bar, completed=done, total=total, description="Importing" if done == total else "Downloading")

            yield tell
