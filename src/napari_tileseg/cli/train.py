"""``tileseg train``: a model of one's own, from images and labels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_tileseg.cli.arguments import Lines, Overwrite
from napari_tileseg.cli.console import complain, duration, emit, guarded, interrupts
from napari_tileseg.cli.program import app
from napari_tileseg.cli.unsupervised import train_without_labels, without_labels
from napari_tileseg.cli.values import numbers
from napari_tileseg.errors import OptionsError
from napari_tileseg.io.files import amount
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.events import EpochEnded, Noted, StepEnded, TrainingEnded, TrainingStarted

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.training.events import TrainEvent

__all__ = ["train"]


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG.toml]", help="What to train and how; options below count more.")] = None,
    images: Annotated[Path | None, typer.Option("--images", metavar="DIR", help="Folder of images, or one image.")] = None,
    labels: Annotated[Path | None, typer.Option("--labels", metavar="DIR", help="Labels of the same names, or one file.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="MODEL_DIR", help="Where the model goes.")] = None,
    name: Annotated[str, typer.Option("--name", help="Without -o: name of the model among your models.")] = "",
    network: Annotated[
        str,
        typer.Option(
            "--arch", metavar="NAME", help="Network: residual_unet, unet2015, vnet2d, monai.UNet, ...; vae, dcgan, ... need no labels."
        ),
    ] = "",
    loss: Annotated[str, typer.Option("--loss", metavar="NAME", help="Loss: ce_dice, dice, focal, tversky, lovasz_softmax, ...")] = "",
    start: Annotated[str, typer.Option("--start", metavar="REF", help="A model to go on from.")] = "",
    task: Annotated[str, typer.Option("--task", help="What labels are: auto, classes, overlapping or instances.")] = "",
    multilabel: Annotated[bool, typer.Option("--multilabel", help="Classes may overlap: the same as --task overlapping.")] = False,
    classes: Annotated[str, typer.Option("--classes", metavar="NAME,...", help="Names of the classes, the background first.")] = "",
    unlabelled: Annotated[int | None, typer.Option("--unlabelled", metavar="VALUE", help="Value of pixels nobody has labelled.")] = None,
    window: Annotated[str | None, typer.Option("--window", metavar="Y,X", help="Size of a crop in pixels.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Crops that are learnt at once.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="How long; 100 by default, less where nothing gets better.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Highest learning rate.")] = None,
    adversarial: Annotated[
        float | None, typer.Option("--adversarial", metavar="WEIGHT", help="How much it counts to deceive a discriminator, such as 0.1.")
    ] = None,
    log: Annotated[Path | None, typer.Option("--log", metavar="DIR", help="Folder for TensorBoard files that stays.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "",
    seed: Annotated[int | None, typer.Option("--seed", help="The same one gives the same weights on the same CPU.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any other field of the config: val_share=0.3, augmentation.elastic=1."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is there, and what would be trained.")] = False,
    try_steps: Annotated[bool, typer.Option("--probe/--no-probe", help="Try a few steps to tell the time (--dry-run).")] = True,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on where an earlier call was interrupted.")] = True,
    overwrite: Overwrite = False,
    json_lines: Lines = False,
) -> None:
    """Train a model on images and labels. Ctrl-C stops and keeps the best so far; the same command goes on."""
    with guarded(json_lines):
        if multilabel and task not in ("", "auto", "overlapping"):
            raise OptionsError(f"--multilabel means that classes overlap; it does not go with --task {task}. Leave one of them out.")
        given: dict[str, Any] = {
            "images": str(images) if images else None,
            "labels": str(labels) if labels else None,
            "output": str(output) if output else None,
            "name": name or None,
            "network": network or None,
            "loss": loss or None,
            "start": start or None,
            "task": "overlapping" if multilabel else task or None,
            "classes": tuple(part.strip() for part in classes.split(",")) if classes else None,
            "unlabelled": unlabelled,
            "window": numbers(window, "--window"),
            "batch": batch,
            "epochs": epochs,
            "learning_rate": rate,
            "adversarial": adversarial,
            "log": str(log) if log else None,
            "device": device or None,
            "seed": seed,
        }
        changes = {field: value for field, value in given.items() if value is not None} | _settings(setting or [])
        if without_labels(config, changes):
            train_without_labels(config, changes, json_lines=json_lines, dry_run=dry_run, resume=resume, overwrite=overwrite)
            return
        chosen = TrainConfig.read(config, **changes) if config is not None else TrainConfig.parse(**changes)
        first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts
        if dry_run:
            if first:
                _preview(chosen, json_lines, try_steps)
            return
        from napari_tileseg.training.train import train as run

        with interrupts() as cancel:
            run(chosen, on_event=_teller(json_lines), cancel=cancel, resume=resume, overwrite=overwrite)
            cancelled = cancel()
    if cancelled:
        if first:
            complain("Stopped. The same command goes on from here.")
        raise typer.Exit(130)


def _settings(texts: list[str]) -> dict[str, Any]:
    """Read ``field=value``; values are those of JSON, and anything else is text."""
    found: dict[str, Any] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise OptionsError(f'--set "{text}" is not accepted. Give field=value.')
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        inside, dot, inner = field.partition(".")
        if dot:
            found.setdefault(inside, {})[inner] = parsed
        else:
            found[field] = parsed
    return found


def _preview(config: TrainConfig, json_lines: bool, try_steps: bool) -> None:
    from napari_tileseg.training.plan import make_plan
    from napari_tileseg.training.probe import probe
    from napari_tileseg.training.report import inspect
    from napari_tileseg.training.work_folder import place_of

    report = inspect(config)
    plan = make_plan(config, report, place_of(config)[1])
    settings = plan.settings()
    if json_lines:
        emit({"event": "preview", "report": list(report.lines), "warnings": list(report.warnings), "settings": settings})
    else:
        for line in report.lines:
            typer.echo(line)
        for warning in report.warnings:
            complain(f"Note: {warning}")
        for field, value in settings.items():
            typer.echo(f"{field} = {json.dumps(value)}")
    if not try_steps:
        return
    expected = probe(config, report, plan)
    if json_lines:
        emit(expected.to_dict())
        return
    steps = f"{plan.epoch_steps} steps of {expected.step_seconds:.2g} s, validation {duration(expected.validation_seconds)}"
    typer.echo(f"An epoch takes about {duration(expected.epoch_seconds)} on {expected.device} ({steps}).")
    typer.echo(f"All {config.epochs} epochs take at most about {duration(expected.seconds)}, and {amount(expected.memory)} of memory.")
    if expected.size:
        complain(f"Note: the device has no memory for the batch; {expected.size} crops would be learnt at once.")


def _teller(json_lines: bool) -> Callable[[TrainEvent], None]:
    if json_lines:
        return lambda event: emit(event.to_dict())
    return _tell


def _tell(event: TrainEvent) -> None:
    match event:
        case TrainingStarted():
            for line in event.report:
                typer.echo(line)
            for warning in event.warnings:
                complain(f"Note: {warning}")
            shown = ("network", "window", "batch", "epoch_steps", "loss", "learning_rate", "spacing")
            typer.echo("; ".join(f"{field} {_short(event.settings[field])}" for field in shown if event.settings[field] is not None))
        case StepEnded(step, steps) if step == 1:
            complain(f"Step 1 of {steps}.")
        case EpochEnded():
            scores = "".join(f", {name} {value:.3f}" for name, value in event.scores.items())
            parts = ", ".join(f"{name} {value:.4f}" for name, value in event.losses.items())
            loss = f"loss {event.loss:.4f}" + (f" ({parts})" if parts else "")
            left = f", at most {duration(event.seconds_left)} left" if event.seconds_left else ""
            typer.echo(f"Epoch {event.epoch} of {event.epochs}: {loss}{scores}{' (best)' * (event.best and event.score != 0)}{left}")
        case Noted(message):
            complain(message)
        case TrainingEnded():
            score = "" if event.score is None else f", score {event.score:.3f}"
            why = {"early": " It did not get better any more.", "stopped": " It was stopped."}.get(event.reason, "")
            typer.echo(f'Model of epoch {event.epoch}{score} in "{event.output}" after {duration(event.seconds)}.{why}')


def _short(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)
