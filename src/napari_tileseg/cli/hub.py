"""``tileseg models hub`` and ``download``: which models the hubs have, and fetching them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from napari_tileseg.cli.arguments import Lines
from napari_tileseg.cli.console import complain, emit, guarded, interrupts
from napari_tileseg.cli.fetching import fetching
from napari_tileseg.cli.program import models
from napari_tileseg.errors import DownloadError, ModelNotFoundError

if TYPE_CHECKING:
    from napari_tileseg.models.hubs.entry import Entry

__all__ = ["download", "hub"]


@models.command()
def hub(
    name: Annotated[str, typer.Argument(metavar="[HUB]", help="monai or bioimageio; all of them by default.")] = "",
    search: Annotated[str, typer.Option(help="Only models whose name, title, description or tags hold these words.")] = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="Fetch the lists anew; otherwise once a day.")] = False,
    json_lines: Lines = False,
) -> None:
    """List the models that can be downloaded."""
    from napari_tileseg.models.hubs.catalog import HUBS, catalog, dated

    with guarded(json_lines), interrupts() as stopping:
        found: list[Entry] = []
        failures: list[DownloadError] = []
        for each in [name] if name else HUBS:
            try:
                found += _matching(catalog(each, refresh=refresh, cancel=stopping), search)
            except DownloadError as error:
                failures.append(error)
                continue
            if not json_lines and (date := dated(each)) is not None:
                complain(f"{HUBS[each]}, as of {date.astimezone():%d %B %Y, %H:%M}")
        for entry in found:
            if json_lines:
                emit({"event": "offer", "ref": entry.ref, **asdict(entry)})
            else:
                typer.echo(_told(entry))
        if failures and (len(failures) == len(HUBS) or name):
            raise failures[0]
        for failure in failures:
            complain(str(failure))
        if not found and not json_lines:
            words = f' matches "{search}"' if search else " is offered"
            raise ModelNotFoundError(f"No model{words}. See tileseg models hub without --search for all.")


@models.command()
def download(
    ref: Annotated[str, typer.Argument(metavar="REF", help="hub:monai/NAME, hub:bioimageio/NAME, or an address (https://...).")],
    sha256: Annotated[str, typer.Option(help="SHA-256 that the file must have.")] = "",
    json_lines: Lines = False,
) -> None:
    """Download a model and bring it into the folder of your own models. What could run code still needs trust."""
    from napari_tileseg.models.hubs.download import download as fetch
    from napari_tileseg.models.hubs.record import read_record
    from napari_tileseg.models.registry import find_spec

    with guarded(json_lines), interrupts() as stopping:
        with fetching(json_lines) as tell:
            place = fetch(ref, sha256=sha256, on_progress=tell, cancel=stopping)
        spec, record = find_spec(str(place)), read_record(place)
        checked = record.checked if record else ""
        if json_lines:
            return emit({"event": "downloaded", "name": place.name, "ref": ref, "checked": checked, "unknown": spec.unknown})
        typer.echo(f"{place.name} is here now: {spec.axes}, {len(spec.channels)} in, {', '.join(spec.classes)} out.")
        if not checked:
            complain("Neither the hub nor you gave a checksum, so only its size could be compared. --sha256 compares it.")
        if spec.unknown:
            complain(f"Not said by its source, hence assumed: {', '.join(spec.unknown)}. Say it once: tileseg models answer {place.name}.")


def _matching(entries: list[Entry], search: str) -> list[Entry]:
    """Return the models in which each of the words occurs."""
    words = search.lower().split()
    texts = {entry: " ".join((entry.name, entry.title, entry.description, entry.task, entry.dimensions, *entry.tags)) for entry in entries}
    return [entry for entry, text in texts.items() if all(word in text.lower() for word in words)]


def _told(entry: Entry) -> str:
    """Say on one line what a model is."""
    facts = ", ".join(fact for fact in (entry.dimensions, entry.task, entry.licence, entry.version) if fact)
    words = entry.description or (entry.title if entry.title != entry.name else "")
    words = words if len(words) <= 100 else words[:97].rstrip() + "..."
    return "  ".join(part for part in (f"{entry.ref:<48}", words, f"[{facts}]" if facts else "") if part)
