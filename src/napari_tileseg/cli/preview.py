"""``tell_preview``: what a batch would do, on a console."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from napari_tileseg.cli.console import emit, interrupts
from napari_tileseg.cli.sentences import printable

if TYPE_CHECKING:
    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.batch.preview import Forecast

__all__ = ["forecast_line", "tell_preview"]


def tell_preview(job: BatchJob, *, retry_failed: bool, json_lines: bool) -> None:
    """Look through a batch, say what it would do, and end with 0, or with 1 where something would fail."""
    from napari_tileseg.batch.preview import preview

    with interrupts() as cancel:
        found = preview(job, retry_failed=retry_failed, cancel=cancel)
    if json_lines:
        for forecast in found.forecasts:
            emit({"event": "forecast", **asdict(forecast)})
        emit({"event": "preview", **{key: value for key, value in found.to_dict().items() if key != "forecasts"}})
    else:
        for forecast in found.forecasts:
            typer.echo(forecast_line(forecast))
        for name, reason in found.listing.left_out:
            typer.echo(f"{printable(name)} is left out: {printable(reason)}")
        for line in found.lines:
            typer.echo(line)
    if found.problem or found.count("fail"):
        raise typer.Exit(1)


def forecast_line(forecast: Forecast) -> str:
    """Say what would become of one image: ``"a.tif -> a.ome.tif"``, ``"b.tif skipped: done before"``, ``"c.tif will fail: ..."``."""
    name, reason = printable(forecast.name), printable(forecast.reason)
    if forecast.action in ("skip", "fail"):
        return f"{name} {'skipped' if forecast.action == 'skip' else 'will fail'}: {reason}".removesuffix(": ")
    return f"{name} -> {printable(forecast.output)}" + (f" ({reason})" if reason else "")
