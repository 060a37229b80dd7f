"""``tileseg train`` for networks that need no labels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from napari_tileseg.cli.console import complain, duration, emit, interrupts
from napari_tileseg.errors import OptionsError
from napari_tileseg.training.toml_config import read_toml
from napari_tileseg.training.unsupervised.config import UNSUPERVISED, UnsupervisedConfig

if TYPE_CHECKING:
    from napari_tileseg.training.unsupervised.events import UnsupervisedEvent

__all__ = ["train_without_labels", "without_labels"]

_NAMES = {"window": "tile", "epochs": "steps"}
"""Options of ``tileseg train`` that are called otherwise where there are no labels."""


def without_labels(file: Path | None, changes: dict[str, Any]) -> bool:
    """Tell whether what is asked for is the training of a network that needs no labels.

    Parameters
    ----------
    file : Path or None
        The TOML file, which may name the network.
    changes : dict
        What the command line says, which counts more.
    """
    if "network" in changes:
        return changes["network"] in UNSUPERVISED
    if file is None or not file.is_file():
        return False
    return read_toml(file).get("network") in UNSUPERVISED


def train_without_labels(
    file: Path | None, changes: dict[str, Any], *, json_lines: bool, dry_run: bool, resume: bool, overwrite: bool
) -> None:
    """Train, and tell on the console how it goes.

    Parameters
    ----------
    file, changes
        As of `without_labels`.
    json_lines : bool
        Print one JSON record for each event.
    dry_run : bool
        Only say what would be trained.
    resume, overwrite : bool
        As of `train_unsupervised`.
    """
    if "epochs" in changes:
        raise OptionsError("There are no epochs without labels. Give --set steps=2000 instead of --epochs.")
    given = {_NAMES.get(field, field): value for field, value in changes.items()}
    if "name" not in given and (last := _last(str(given.get("output", "")))):
        given["name"] = last
    config = UnsupervisedConfig.read(file, **given) if file is not None else UnsupervisedConfig.parse(**given)
    if dry_run:
        _preview(config, json_lines)
        return
    from napari_tileseg.training.unsupervised.train import train_unsupervised

    with interrupts() as cancel:
        train_unsupervised(config, resume=resume, overwrite=overwrite, on_event=_tell_json if json_lines else _tell, cancel=cancel)


def _preview(config: UnsupervisedConfig, json_lines: bool) -> None:
    from napari_tileseg.training.unsupervised.live import preview_live

    found = preview_live(config)
    settings = config.model_dump(mode="json")
    if json_lines:
        emit({"event": "preview", "report": list(found.report), "warnings": list(found.warnings), "settings": settings})
        return
    for line in found.report:
        typer.echo(line)
    for warning in found.warnings:
        complain(f"Note: {warning}")
    for field, value in settings.items():
        typer.echo(f"{field} = {json.dumps(value)}")


def _last(output: str) -> str:
    """Return the name of a model's folder, empty where it is none that a model may have."""
    last = Path(output).name.removesuffix(".zip").removesuffix(".tileseg")
    return last if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", last) else ""


def _tell(event: UnsupervisedEvent) -> None:
    from napari_tileseg.training.unsupervised.events import Finished, Learned, Started

    match event:
        case Started(images, held_out, left_out, stages):
            steps = " and ".join(f"{count} steps of the {name}" for name, count in stages)
            held = f", {len(held_out)} of them held out for the threshold" if held_out else ""
            typer.echo(f"{images} image{'s' * (images != 1)}{held}; {steps}.")
            for name, reason in left_out:
                complain(f"{name} is left out: {reason}")
        case Learned():
            losses = ", ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
            left = f", about {duration(event.seconds_left)} left" if event.seconds_left else ""
            typer.echo(f"{event.stage} {event.step} of {event.steps}: {losses}{left}")
        case Finished(spec, path, seconds):
            limit = f", threshold {spec.decoder_parameters['threshold']:.4g}" if spec.output == "anomaly" else ""
            typer.echo(f'The model is in "{path}"{limit}, after {duration(seconds)}.')


def _tell_json(event: UnsupervisedEvent) -> None:
    from napari_tileseg.training.unsupervised.events import CheckpointSaved, Finished, Learned, Started

    match event:
        case Started():
            emit({"event": "training started", **vars(event)})
        case Learned():
            emit({"event": "step", **vars(event)})
        case CheckpointSaved():
            emit({"event": "checkpoint", **vars(event), "path": str(event.path)})
        case Finished():
            told = {"output": str(event.path), "seconds": event.seconds, "parameters": event.spec.decoder_parameters}
            emit({"event": "training ended", **told})
