"""``tileseg models``: which models are here, and bringing, checking, trusting, giving on and removing them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_tileseg.cli.answers import (
    Accept,
    Arguments,
    Axes,
    Channels,
    Classes,
    Licence,
    MultipleOf,
    Normalization,
    Output,
    Spacing,
    Window,
    told,
)
from napari_tileseg.cli.arguments import Lines
from napari_tileseg.cli.console import complain, emit, guarded
from napari_tileseg.cli.program import models
from napari_tileseg.errors import OptionsError, TileSegError

if TYPE_CHECKING:
    from napari_tileseg.models.checks import Check
    from napari_tileseg.models.imports import Standing
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.models.trust import Trusted

__all__ = ["answer", "export", "import_", "list_", "remove", "revoke", "show", "trust", "verify"]

Reference = Annotated[str, typer.Argument(metavar="REF", help="Name or path of a model, or scheme:PATH (onnx:, torchscript:, ...).")]


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
    except Exception:  # a loader of another package may raise anything
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
            complain(f"Not said by its source, hence assumed: {', '.join(unknown)}. Say it once: {_how(ref)}.")


@models.command("import")
def import_(
    ref: Reference,
    axes: Axes = None,
    channels: Channels = None,
    classes: Classes = None,
    window: Window = None,
    multiple_of: MultipleOf = None,
    normalization: Normalization = None,
    spacing: Spacing = None,
    output: Output = None,
    architecture: Annotated[str | None, typer.Option(help="Checkpoints: name of the network, such as monai.UNet.")] = None,
    arguments: Arguments = None,
    licence: Licence = None,
    accept: Accept = False,
    name: Annotated[str, typer.Option(help="Under which it is kept.")] = "",
    link: Annotated[bool, typer.Option("--link", help="Leave the files where they are.")] = False,
    json_lines: Lines = False,
) -> None:
    """Bring a model into the folder of your own models; what is said here is remembered."""
    from napari_tileseg.models.checks import sentence
    from napari_tileseg.models.imports import import_model
    from napari_tileseg.models.registry import find_spec

    with guarded(json_lines):
        answers = told(
            axes=axes,
            channels=channels,
            classes=classes,
            window=window,
            multiple_of=multiple_of,
            normalization=normalization,
            spacing=spacing,
            output=output,
            arguments=arguments,
            licence=licence,
        )
        if architecture is not None:
            answers["architecture"] = architecture
        place = import_model(ref, answers, accept=accept, name=name, link=link)
        spec = find_spec(str(place))
        tests, reason = _tested(str(place))
        if json_lines:
            found = [vars(test) for test in tests]
            return emit({"event": "imported", "name": place.name, "unknown": spec.unknown, "tests": found, "not_tested": reason})
        typer.echo(f"{place.name} is here now: {spec.axes}, {len(spec.channels)} in, {', '.join(spec.classes)} out.")
        for test in tests:
            typer.echo(f"Test {sentence(test)}.")
        if reason:
            complain(f"The tests that came with it were not run: {reason}")
        if spec.unknown:
            complain(f"Not said, hence assumed: {', '.join(spec.unknown)}. Say it once: {_how(place.name)}.")


@models.command()
def answer(
    ref: Reference,
    axes: Axes = None,
    channels: Channels = None,
    classes: Classes = None,
    window: Window = None,
    multiple_of: MultipleOf = None,
    normalization: Normalization = None,
    spacing: Spacing = None,
    output: Output = None,
    arguments: Arguments = None,
    licence: Licence = None,
    accept: Accept = False,
    json_lines: Lines = False,
) -> None:
    """Say of a model that is here already what its source does not say; it is remembered, with its package or for these files."""
    from napari_tileseg.models.imports import answer_model

    with guarded(json_lines):
        answers = told(
            axes=axes,
            channels=channels,
            classes=classes,
            window=window,
            multiple_of=multiple_of,
            normalization=normalization,
            spacing=spacing,
            output=output,
            arguments=arguments,
            licence=licence,
        )
        if not answers and not accept:
            raise OptionsError("Nothing was said. Give what the model does not say, such as --classes background,cell; or --accept.")
        spec = answer_model(ref, answers, accept=accept)
        if json_lines:
            return emit({"event": "answered", "name": spec.name, "unknown": spec.unknown})
        typer.echo(f"Remembered: {spec.name} takes {spec.axes}, {len(spec.channels)} in, {', '.join(spec.classes)} out.")
        if spec.unknown:
            complain(f"Still not said: {', '.join(spec.unknown)}.")


def _how(ref: str) -> str:
    """Return what to type to say what a model does not say."""
    shown = f'"{ref}"' if " " in ref else ref
    return f"tileseg models answer {shown} --classes background,cell ..., or --accept to keep it so"


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
