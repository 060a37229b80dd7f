"""``tileseg evaluate``: labels compared with the truth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_tileseg.cli.arguments import Lines, Overwrite
from napari_tileseg.cli.console import complain, emit, guarded, interrupts
from napari_tileseg.cli.program import app
from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from napari_tileseg.training.evaluate import Evaluation, Row

__all__ = ["evaluate"]

_KINDS = ("auto", "classes", "objects")


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="Labels to judge: a folder, or one file.")],
    truths: Annotated[Path, typer.Argument(metavar="TRUTHS", help="The right labels: a folder with files of the same names, or one file.")],
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="NAME,...",
            help="dice, iou, hd95, assd of each class; ap50, ap75, ap, object_f1, object_dice, pq of objects. Those that fit by default.",
        ),
    ] = "",
    kind: Annotated[str, typer.Option("--kind", help="What the numbers stand for: auto, classes or objects.")] = "auto",
    classes: Annotated[str, typer.Option("--classes", metavar="NAME,...", help="Names of the classes, the background first.")] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="CSV", help="Write the whole table there.")] = None,
    overwrite: Overwrite = False,
    json_lines: Lines = False,
) -> None:
    """Compare labels with the truth, image by image, the worst first."""
    with guarded(json_lines):
        if kind not in _KINDS:
            raise OptionsError(f'--kind "{kind}" is not accepted. Give one of {", ".join(_KINDS)}.')
        from napari_tileseg.io.output import check_place
        from napari_tileseg.training.evaluate import evaluate as compare_all

        if output is not None:
            check_place(output, overwrite=overwrite)
        with interrupts() as cancel:
            table = compare_all(
                predictions,
                truths,
                metrics=_words(metrics) or None,
                kind=kind,  # type: ignore[arg-type]
                classes=_words(classes),
                on_row=(lambda row, number, total: emit(_record(row))) if json_lines else None,
                cancel=cancel,
            )
            cancelled = cancel()
        if output is not None:
            table.write(output)
        if json_lines:
            emit(
                {"event": "mean", "images": len(table.rows) - len(table.failed), "values": _known(table.mean()), "path": str(output or "")}
            )
        elif table.columns:
            _show(table)
        for row in table.failed:
            complain(f"{row.name}: {row.problem}")
        for name in table.missing:
            complain(f'"{name}" has no prediction.')
        if table.extra:
            complain(f"{len(table.extra)} of the predictions have no truth: {', '.join(table.extra[:5])}{', ...' * (len(table.extra) > 5)}")
    if cancelled:
        raise typer.Exit(130)
    if table.failed or table.missing:
        raise typer.Exit(1)


def _words(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _record(row: Row) -> dict[str, Any]:
    told: dict[str, Any] = {"event": "image", "name": row.name}
    return told | ({"problem": row.problem} if row.problem else {"values": _known(row.values), "counts": dict(row.counts)})


def _known(values: Any) -> dict[str, float | None]:
    """Return values that JSON can hold: it has no NaN."""
    return {name: None if math.isnan(value) else round(value, 6) for name, value in values.items()}


def _show(table: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("image", box=None, pad_edge=False)
    for name in table.columns:
        shown.add_column(name, justify="right")
    for row in table.rows:
        if not row.problem:
            shown.add_row(row.name, *(_number(row.values.get(name, math.nan)) for name in table.columns))
    means = table.mean()
    shown.add_section()
    shown.add_row("mean", *(_number(means[name]) for name in table.columns), style="bold")
    Console().print(shown)
    if "object_f1" in table.columns:
        typer.echo(f"F1 of all objects together: {_number(table.pooled_f1())}")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
