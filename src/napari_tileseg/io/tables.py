"""Tables as CSV (RFC 4180, UTF-8): one for each image, and one of the whole batch."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any

from napari_tileseg.io.output import put_in_place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["combine_tables", "write_rows", "write_table"]


def write_table(table: Mapping[str, NDArray[Any]], path: Path, *, image: str) -> Path:
    """Write columns of one length, with the name of the image before them.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    columns = [values.tolist() for values in table.values()]
    return write_rows(["image", *table], ([image, *row] for row in zip(*columns, strict=True)), path)


def write_rows(header: Sequence[str], rows: Iterable[Sequence[Any]], path: Path) -> Path:
    """Write rows below a header; numbers with nine digits at most, nothing for what is not known.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    with put_in_place(path, overwrite=True) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([_written(value) for value in row] for row in rows)
    return path


def combine_tables(tables: Iterable[Path], path: Path) -> Path | None:
    """Put tables below each other; columns that some lack are empty there. Those that cannot be read are left out.

    Returns
    -------
    Path or None
        None if there was no table.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    readable: list[Path] = []
    header: dict[str, None] = {}
    for table in tables:
        try:
            with table.open(encoding="utf-8", newline="") as stream:
                header |= dict.fromkeys(next(csv.reader(stream), []))
            readable.append(table)
        except (OSError, ValueError, csv.Error):
            continue
    if not readable:
        return None
    return write_rows(list(header), (row for table in readable for row in _rows(table, list(header))), path)


def _rows(table: Path, header: list[str]) -> Iterable[list[str]]:
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream, restval=""):
                yield [row.get(name) or "" for name in header]
    except (OSError, ValueError, csv.Error):
        return


def _written(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.9g}" if math.isfinite(value) else ""
    return value
