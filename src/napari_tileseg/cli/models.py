"""``tileseg models``: which models are here, and bringing, checking, trusting, giving on and removing them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_tileseg.cli.arguments import Lines
from napari_tileseg.cli.console import complain, emit, guarded
from napari_tileseg.cli.program import models
from napari_tileseg.cli.values import numbers
from napari_tileseg.errors import OptionsError, TileSegError

if TYPE_CHECKING:
    from napari_tileseg.models.checks import Check
    from napari_tileseg.models.imports import Standing
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.models.trust import Trusted

__all__ = ["export", "import_", "list_", "remove", "revoke", "show", "trust", "verify"]

Reference = Annotated[str, typer.Argument(metavar="REF", help="Name or path of a model, or scheme:PATH (onnx:, torchscript:, ...).")]

_UNITS = {"um": "micrometer", "µm": "micrometer", "micrometer": "micrometer", "mm": "millimeter", "millimeter": "millimeter"}


@models.command("list")
def list_(json_lines: Lines = False) -> None:
    """List the models that are here, with their kind and whether they need trust."""
    from napari_tileseg.models.archive import printable
    from napari_tileseg.models.registry import list_models

    with guarded(json_lines):
        found = [(spec, _standing(spec)) for spec in list_models()]
        if json_lines:
            for spec, facts in found:
                emit({"event": "model", **spec.model_dump(mode="json", exclude={"training"}), **vars(facts)})
            return
        width = max((len(spec.name) for spec, _ in found), default=0)
        kinds = max((len(facts.kind) for _, facts in found), default=0)
        for spec, facts in found:
            note = {"needed": "  [needs trust]", "trusted": "  [trusted]"}.get(facts.trust, "")
            typer.echo(
                f"{spec.name:<{width}}  {spec.axes:<4}  {facts.kind:<{kinds}}  {printable(spec.description or spec.label, most=300)}{note}"
            )
        if not found:
            complain("There are no models here.")


def _standing(spec: ModelSpec) -> Standing:
    """Return what is known besides the card; a model that is damaged hides no other."""
    from napari_tileseg.models.imports import Standing, standing

    try:
        return standing(spec)
    except (TileSegError, OSError):
        return Standing("damaged", "not needed", 0, "own")


@models.command()
def show(ref: Reference, json_lines: Lines = False) -> None:
    """Print a model's card, what was measured of it on this computer, and what its source does not say."""
    from napari_tileseg.models.facts import facts, sentence
    from napari_tileseg.models.registry import card, find_spec

    with guarded(json_lines):
        spec = find_spec(ref)
        known = [sentence(fact) for fact in facts(spec.weights_sha256)]
        text = card(ref).rstrip() + "\n" + "".join(f"\n- Measured on {line}" for line in known) + ("\n" if known else "")
        unknown = spec.unknown
        if json_lines:
            return emit({"event": "card", **spec.model_dump(mode="json", exclude={"training"}), "card": text})
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.markdown import Markdown

            Console().print(Markdown(text))
        else:
            typer.echo(text)
        if unknown:
            complain(f"Not said by its source, hence assumed: {', '.join(unknown)}. Say it once with tileseg models import.")


@models.command("import")
def import_(
    ref: Reference,
    axes: Annotated[str | None, typer.Option(help="Axes of one tile: YX or ZYX.")] = None,
    channels: Annotated[str | None, typer.Option(help="Names of the input channels with commas between them, or their number.")] = None,
    classes: Annotated[str | None, typer.Option(help="Names of the classes with commas between them, the background first.")] = None,
    window: Annotated[str | None, typer.Option(help="Size of one tile: 256,256.")] = None,
    multiple_of: Annotated[str | None, typer.Option(help="What the sides of a tile must be multiples of: 16, or 4,16,16.")] = None,
    normalization: Annotated[
        str | None, typer.Option(help="none, zscore, percentile, percentile:1,99.8 or range:LOW,HIGH: how intensities are scaled.")
    ] = None,
    spacing: Annotated[str | None, typer.Option(help="Pixel size it was trained at, with its unit: 0.5,0.5um or 1,1,1mm.")] = None,
    output: Annotated[str | None, typer.Option(help="softmax (one class for each pixel) or sigmoid (classes may overlap).")] = None,
    architecture: Annotated[str | None, typer.Option(help="Checkpoints: name of the network, such as monai.UNet.")] = None,
    arguments: Annotated[str | None, typer.Option(help="Checkpoints: arguments of the network as JSON.")] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX expression, such as CC-BY-4.0.")] = None,
    name: Annotated[str, typer.Option(help="Under which it is kept.")] = "",
    link: Annotated[bool, typer.Option("--link", help="Leave the files where they are.")] = False,
    json_lines: Lines = False,
) -> None:
    """Bring a model into the folder of your own models; what is said here is remembered."""
    from napari_tileseg.models.checks import sentence
    from napari_tileseg.models.imports import import_model
    from napari_tileseg.models.registry import find_spec

    with guarded(json_lines):
        answers: dict[str, Any] = {
            "axes": None if axes is None else f"C{axes.upper().lstrip('C')}",
            "channels": _names(channels),
            "classes": None if classes is None else [part.strip() for part in classes.split(",")],
            "window": numbers(window, "--window"),
            "multiple_of": steps[0] if (steps := numbers(multiple_of, "--multiple-of")) and len(steps) == 1 else steps,
            "normalization": _normalization(normalization),
            **_spacing(spacing),
            "output": output,
            "architecture": architecture,
            "arguments": _arguments(arguments),
            "licence": licence,
        }
        place = import_model(ref, {key: value for key, value in answers.items() if value is not None}, name=name, link=link)
        spec = find_spec(str(place))
        tests, reason = _tested(str(place))
        if json_lines:
            told = [vars(test) for test in tests]
            return emit({"event": "imported", "name": place.name, "unknown": spec.unknown, "tests": told, "not_tested": reason})
        typer.echo(f"{place.name} is here now: {spec.axes}, {len(spec.channels)} in, {', '.join(spec.classes)} out.")
        for test in tests:
            typer.echo(f"Test {sentence(test)}.")
        if reason:
            complain(f"The tests that came with it were not run: {reason}")
        if spec.unknown:
            complain(f"Not said, hence assumed: {', '.join(spec.unknown)}. Remove it and import it again with the options that say it.")


def _tested(ref: str) -> tuple[list[Check], str]:
    """Run the tests that a model brings along; where it cannot be loaded yet, say why."""
    from napari_tileseg.verification import verify as run_tests

    try:
        return run_tests(ref), ""
    except TileSegError as error:
        return [], str(error)


@models.command()
def remove(ref: Reference, json_lines: Lines = False) -> None:
    """Delete a model of your own folder."""
    from napari_tileseg.models.imports import remove_model

    with guarded(json_lines):
        name = remove_model(ref).name
        if json_lines:
            return emit({"event": "removed", "name": name})
        typer.echo(f"{name} is gone.")


@models.command()
def verify(ref: Reference, json_lines: Lines = False) -> None:
    """Check that a model's files are whole, its weights fit, and one tile goes through."""
    from napari_tileseg.models.checks import sentence
    from napari_tileseg.models.imports import verify_model
    from napari_tileseg.verification import verify as run_tests

    with guarded(json_lines):
        found = verify_model(ref)
        tests = run_tests(ref)
        if json_lines:
            return emit({"event": "verified", **vars(found), "tests": [vars(test) for test in tests]})
        typer.echo(
            f"{ref} works: SHA-256 {found.sha256[:12]}..., loaded in {found.seconds_to_load:.1f} s, one tile in "
            f"{found.seconds_for_tile:.1f} s, {found.scores[1]} scores."
        )
        for test in tests:
            typer.echo(f"Test {sentence(test)}.")


@models.command()
def trust(path: Annotated[Path, typer.Argument(help="File that may run code, or a folder of them.")]) -> None:
    """Allow exactly this file, as it is now, to run code. Trust only an author you know."""
    from napari_tileseg.models import trust as trusting

    with guarded():
        for entry in trusting.trust(path):
            typer.echo(f"{entry.name} is trusted: SHA-256 {entry.sha256[:12]}....")


@models.command()
def revoke(
    path: Annotated[str, typer.Argument(help="File, folder, SHA-256 or name of what was trusted, or a model; nothing lists it.")] = "",
    json_lines: Lines = False,
) -> None:
    """Take trust back; without a name, list what is trusted."""
    from napari_tileseg.models import trust as trusting

    with guarded(json_lines):
        if not path:
            for entry in trusting.trusted():
                typer.echo(f"{entry.sha256[:12]}  {entry.since}  {entry.name}")
            return
        gone = trusting.revoke(path) or _revoke_model(path)
        if json_lines and gone:
            return emit({"event": "revoked", "names": [entry.name for entry in gone]})
        for entry in gone:
            typer.echo(f"{entry.name} is not trusted any more.")
        if not gone:
            raise OptionsError(f'"{path}" was not trusted. See tileseg models revoke for what is.')


def _revoke_model(ref: str) -> list[Trusted]:
    """Take trust back from the files of a model; from none where there is no such model."""
    from napari_tileseg.models.imports import running_files
    from napari_tileseg.models.trust import revoke

    try:
        files = running_files(ref)
    except TileSegError:
        return []
    return [entry for file in files for entry in revoke(file)]


@models.command()
def export(
    ref: Reference,
    path: Annotated[Path, typer.Argument(help="Folder, or a file that ends with .tileseg.zip.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    json_lines: Lines = False,
) -> None:
    """Write a model in our own format, to give it on."""
    from napari_tileseg.models.imports import export_model

    with guarded(json_lines):
        written = export_model(ref, path, overwrite=overwrite)
        if json_lines:
            return emit({"event": "exported", "path": str(written)})
        typer.echo(f"{ref} is in {written}")


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    if text.isdecimal():
        return [f"channel {index + 1}" for index in range(int(text))]
    return [part.strip() for part in text.split(",")]


def _normalization(text: str | None) -> dict[str, Any] | None:
    """Read ``"percentile:1,99.8"``."""
    if text is None:
        return None
    kind, _, rest = text.partition(":")
    names = {"percentile": ("lower", "upper"), "range": ("low", "high")}.get(kind, ())
    try:
        values = [float(part) for part in rest.split(",")] if rest else []
    except ValueError:
        values = [0.0]
    if kind not in ("none", "zscore", "percentile", "range") or len(values) not in (0, len(names)) or (kind == "range" and not values):
        raise OptionsError(f'--normalization "{text}" is not accepted. Give none, zscore, percentile, percentile:1,99.8 or range:0,255.')
    return {"kind": kind, **dict(zip(names, values, strict=False))}


def _spacing(text: str | None) -> dict[str, Any]:
    """Read ``"0.5,0.5um"``."""
    if text is None:
        return {}
    unit = next((unit for unit in sorted(_UNITS, key=len, reverse=True) if text.endswith(unit)), "")
    try:
        values = [float(part) for part in text.removesuffix(unit).split(",")]
    except ValueError:
        values = []
    if not values or not unit:
        raise OptionsError(f'--spacing "{text}" is not accepted. Give one length for each axis and the unit: 0.5,0.5um or 1,1,1mm.')
    return {"spacing": values, "spacing_unit": _UNITS[unit]}


def _arguments(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise OptionsError(f'--arguments "{text}" is not accepted. Give JSON: {{"spatial_dims": 2, "in_channels": 1}}.')
    return told
