"""The command ``tileseg``: a thin shell over the functions that the widgets call too."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_tileseg.errors import AxesError, Cancelled, ModelNotFoundError, OptionsError, RunError, TileSegError
from napari_tileseg.job import Job, SegmentOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["app", "main", "models"]

app = typer.Typer(
    name="tileseg",
    help="Segment images of any size with any model. For research use; no medical device.",
    pretty_exceptions_enable=False,
    add_completion=False,
)
models = typer.Typer(help="The models on this computer.", no_args_is_help=True)
app.add_typer(models, name="models")

_WRONG_ARGUMENTS = (OptionsError, ModelNotFoundError, AxesError)
"""Errors that mean exit status 2; all others mean 1."""


def main(args: list[str] | None = None) -> None:
    """Run the command and end the process: 0 done, 1 an input failed, 2 wrong arguments, 130 cancelled."""
    try:
        status = app(args, prog_name="tileseg", standalone_mode=False)
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        # What Typer raises for wrong arguments has no public base class that all its versions share.
        if not hasattr(error, "format_message"):
            raise
        _complain(f"{error.format_message().rstrip('.')}. See tileseg --help.")
        status = 2
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str) -> None:
    typer.echo(message, err=True)


def _emit(record: dict[str, Any]) -> None:
    """Print one JSON event on one line of stdout."""
    typer.echo(json.dumps(record))


@contextlib.contextmanager
def _guarded(json_lines: bool = False) -> Iterator[None]:
    """Turn the package's errors into one sentence on stderr and an exit status."""
    try:
        yield
    except TileSegError as error:
        if json_lines:
            _emit({"event": "error", "error": type(error).__name__, "message": str(error)})
        _complain(str(error))
        status = 130 if isinstance(error, Cancelled) else 2 if isinstance(error, _WRONG_ARGUMENTS) else 1
        raise typer.Exit(status) from None


def _described(field: str, *names: str) -> Any:
    """Make an option whose help is the field's own description."""
    return typer.Option(*names, help=SegmentOptions.model_fields[field].description)


Input = Annotated[Path, typer.Argument(metavar="IN", help="The image: OME-TIFF, TIFF, NIfTI, PNG, JPEG, BMP.")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Where the labels go; the suffix decides the format.")]
Models = Annotated[
    list[str], typer.Option("--model", metavar="REF", help="Name of a model, or path of a package; again for the mean of several.")
]
Axes = Annotated[str | None, typer.Option("--axes", help="One letter per dimension of the image: T time, C channel, Z Y X space.")]
Channels = Annotated[str | None, typer.Option("--channels", help="Channel for each input of the model, counted from 0: 0,2.")]
Series = Annotated[int, typer.Option("--series", min=0, help="Which image of the file.")]
Level = Annotated[int, typer.Option("--level", min=0, help="Which resolution of the file; 0 is the finest.")]
Window = Annotated[str | None, _described("window", "--window")]
Overlap = Annotated[float | None, _described("overlap", "--overlap")]
Adaptive = Annotated[bool, _described("adaptive", "--adaptive")]
SkipBackground = Annotated[bool, _described("skip_background", "--skip-background")]
Blending = Annotated[str | None, _described("blending", "--blending")]
Sigma = Annotated[float | None, _described("sigma", "--sigma")]
Padding = Annotated[str | None, _described("padding", "--padding")]
Precision = Annotated[str | None, _described("precision", "--precision")]
Device = Annotated[str | None, _described("device", "--device")]
Batch = Annotated[int | None, _described("batch", "--batch")]
Threshold = Annotated[float | None, _described("threshold", "--threshold")]
MinSize = Annotated[float | None, _described("min_size", "--min-size")]
Rescale = Annotated[bool, typer.Option("--rescale/--no-rescale", help=SegmentOptions.model_fields["rescale"].description)]
Views = Annotated[str | None, _described("tta", "--tta")]
Scores = Annotated[bool, typer.Option("--scores", help="Also save the scores, beside the labels, as *_scores.ome.tif.")]
Uncertainty = Annotated[str | None, _described("uncertainty", "--uncertainty")]
MemoryLimit = Annotated[int | None, _described("memory_limit", "--memory-limit")]
Unreadable = Annotated[str | None, _described("unreadable", "--unreadable")]
Resume = Annotated[bool, typer.Option("--resume/--restart", help="Go on with an interrupted run for the same result, or begin anew.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]
Lines = Annotated[bool, typer.Option("--json", help="Print one JSON record per line on stdout, and nothing else.")]


def _version(asked: bool) -> None:
    if asked:
        from napari_tileseg import __version__

        typer.echo(f"tileseg {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the results.")] = Path("tileseg-demo"),
    view: Annotated[
        bool | None, typer.Option("--view/--no-view", help="Open napari at the end; by default where there is a screen.")
    ] = None,
    json_lines: Lines = False,
) -> None:
    """Segment three real images with the bundled models, and show the results."""
    from napari_tileseg.demo import gallery_command, may_show, run_demo

    with _guarded(json_lines):
        outcomes = run_demo(output, say=None if json_lines else typer.echo)
        if json_lines:
            for outcome in outcomes:
                _emit({"event": "sample", **outcome.to_dict()})
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)
    reason = may_show(view)
    if json_lines or reason:
        if reason and not json_lines:
            typer.echo(reason)
        return
    import subprocess

    typer.echo("Opening napari with the first one. Close its window to end; File > Open Sample > TileSeg has the others.")
    raise typer.Exit(subprocess.run(gallery_command(output), check=False).returncode)


@app.command()
def segment(
    image: Input,
    output: Output,
    model: Models,
    axes: Axes = None,
    channels: Channels = None,
    series: Series = 0,
    level: Level = 0,
    window: Window = None,
    overlap: Overlap = None,
    adaptive: Adaptive = False,
    skip_background: SkipBackground = False,
    blending: Blending = None,
    sigma: Sigma = None,
    padding: Padding = None,
    precision: Precision = None,
    device: Device = None,
    batch: Batch = None,
    threshold: Threshold = None,
    min_size: MinSize = None,
    rescale: Rescale = True,
    tta: Views = None,
    scores: Scores = False,
    uncertainty: Uncertainty = None,
    memory_limit: MemoryLimit = None,
    unreadable: Unreadable = None,
    overwrite: Overwrite = False,
    resume: Resume = True,
    json_lines: Lines = False,
) -> None:
    """Segment one image. If it is interrupted, even by a power cut, the same command goes on where it stopped."""
    with _guarded(json_lines):
        options = _options(
            window=_numbers(window, "--window"),
            overlap=overlap,
            adaptive=adaptive,
            skip_background=skip_background,
            blending=blending,
            sigma=sigma,
            padding=padding,
            precision=precision,
            device=device,
            batch=batch,
            threshold=threshold,
            min_size=min_size,
            rescale=rescale,
            tta=tta,
            scores=scores,
            uncertainty=uncertainty,
            memory_limit=memory_limit,
            unreadable=unreadable,
        )
        job = Job(
            model=_ref(model),
            options=options,
            input=str(image),
            output=str(output),
            axes=axes,
            channels=_numbers(channels, "--channels"),
            series=series,
            level=level,
        )
        _run(job, overwrite=overwrite, resume=resume, json_lines=json_lines)


@app.command()
def run(
    job: Annotated[Path, typer.Argument(metavar="JOB.json", help="A job exported from the Segment widget, or written by hand.")],
    image: Annotated[Path | None, typer.Option("--input", metavar="IN", help="Another image than the job's.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="OUT", help="Another place for the labels.")] = None,
    overwrite: Overwrite = False,
    resume: Resume = True,
    json_lines: Lines = False,
) -> None:
    """Repeat exactly what a saved job says."""
    with _guarded(json_lines):
        given = {"input": str(image) if image else None, "output": str(output) if output else None}
        loaded = _load_job(job).model_copy(update={key: value for key, value in given.items() if value})
        for field, option in (("input", "--input"), ("output", "-o")):
            if not getattr(loaded, field):
                raise OptionsError(f'"{job.name}" names no {field}. Give it with {option}.')
        _run(loaded, overwrite=overwrite, resume=resume, json_lines=json_lines)


@app.command()
def estimate(
    image: Input,
    model: Models,
    axes: Axes = None,
    channels: Channels = None,
    series: Series = 0,
    level: Level = 0,
    window: Window = None,
    overlap: Overlap = None,
    precision: Precision = None,
    device: Device = None,
    batch: Batch = None,
    tta: Views = None,
    scores: Scores = False,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Load the model and time one tile.")] = True,
    json_lines: Lines = False,
) -> None:
    """Say what a run would need: tiles, memory, disk, time."""
    from dataclasses import asdict

    from napari_tileseg.pipeline import estimate as estimate_run

    with _guarded(json_lines):
        options = _options(
            window=_numbers(window, "--window"), overlap=overlap, precision=precision, device=device, batch=batch, tta=tta, scores=scores
        )
        job = Job(model=_ref(model), input=str(image), axes=axes, channels=_numbers(channels, "--channels"), series=series, level=level)
        volume = _open(job, _spec(job.model))
        needs = estimate_run(volume, job.model, options=options, channels=job.channels, probe=probe)
        if json_lines:
            return _emit({"event": "estimate", **asdict(needs)})
        size = " x ".join(str(side) for side in needs.window)
        typer.echo(needs.sentence)
        typer.echo(f"{needs.tiles} tiles of {size}.")
        typer.echo(f"{_bytes(needs.device_bytes)} on the device and {_bytes(needs.host_bytes)} of memory, beside the model itself.")
        typer.echo(f"{_bytes(needs.disk_bytes)} for the result, before compression.")
        typer.echo(
            f"About {_duration(needs.seconds)}." if needs.seconds is not None else "How long it takes is not known; --probe measures it."
        )
        for note in needs.notes:
            typer.echo(note)


@models.command("list")
def list_(json_lines: Lines = False) -> None:
    """List the models that are here."""
    from napari_tileseg.models.registry import list_models

    with _guarded(json_lines):
        specs = list_models()
        if json_lines:
            for spec in specs:
                _emit({"event": "model", **spec.model_dump(mode="json", exclude={"training"})})
            return
        width = max((len(spec.name) for spec in specs), default=0)
        for spec in specs:
            typer.echo(f"{spec.name:<{width}}  {spec.axes}  {spec.description}")
        if not specs:
            _complain("There are no models here.")


@models.command()
def show(ref: Annotated[str, typer.Argument(metavar="REF", help="Name of a model, or path of a model package.")]) -> None:
    """Print a model's card."""
    from napari_tileseg.models.registry import card

    with _guarded():
        text = card(ref)
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.markdown import Markdown

            Console().print(Markdown(text))
        else:
            typer.echo(text)


@app.command()
def info(
    paths: Annotated[bool, typer.Option("--paths", help="Also print where things are on this computer.")] = False,
    json_lines: Lines = False,
) -> None:
    """Print what a bug report needs: versions, devices, models, settings."""
    from napari_tileseg.about import facts

    with _guarded(json_lines):
        found = facts(paths=paths)
        if json_lines:
            return _emit({"event": "info", **found})
        for title, entries in found.items():
            typer.echo(f"{title}:")
            for key, value in entries.items():
                typer.echo(f"  {key}: {value}")


def _options(**given: Any) -> SegmentOptions:
    """Build options from what was given; everything else keeps its default."""
    return SegmentOptions.parse(**{key: value for key, value in given.items() if value is not None})


def _numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Read ``"96,96"`` (or ``96x96``) as numbers."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise OptionsError(f'{option} "{text}" is not accepted. Give whole numbers with commas between them: 96,96.') from None


def _load_job(path: Path) -> Job:
    from pydantic import ValidationError

    from napari_tileseg.job import sentence

    try:
        return Job.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionsError(f'The job "{path}" could not be read: {error.strerror}.') from None
    except (ValidationError, UnicodeDecodeError) as error:
        reason = sentence(error) if isinstance(error, ValidationError) else "it is no text file."
        raise OptionsError(f'"{path.name}" is no job: {reason}') from None


def _ref(models: list[str]) -> str:
    """Make one reference of one model or several."""
    from napari_tileseg.models.ensemble import join

    return join(models) if len(models) > 1 else models[0]


def _spec(model: str) -> ModelSpec:
    from napari_tileseg.models.registry import find_spec

    return find_spec(model)


def _open(job: Job, spec: ModelSpec) -> Volume:
    """Read the job's image with the job's axes; ask for them where neither the file nor the model says what they are."""
    from napari_tileseg.io import read_volume

    volume = read_volume(str(job.input), series=job.series, level=job.level, partial=job.options.unreadable == "skip")
    if job.axes is not None:
        return volume.with_axes(job.axes)
    guessed = str(volume.metadata.get("guessed_axes", ""))
    if guessed and not (guessed == "Z" and spec.spatial_ndim == 3):
        place = volume.axes.index(guessed[0])
        others = [
            volume.axes.replace(guessed, letters) for letters in (guessed, *"TC") if not set(letters) & (set(volume.axes) - set(guessed))
        ]
        raise AxesError(
            f'"{Path(str(job.input)).name}" does not say what axis {place + 1} ({volume.shape[place]} entries) means. '
            f"Give --axes, for example {' or '.join(dict.fromkeys(others))}.",
            axis=place,
        )
    return volume


def _run(job: Job, *, overwrite: bool, resume: bool, json_lines: bool) -> None:
    """Segment and save; say where the finished part is when the run stops half-way."""
    from napari_tileseg.io import check_writable
    from napari_tileseg.pipeline import segment as segment_image
    from napari_tileseg.reporting import reporter
    from napari_tileseg.unfinished import tidy

    tidy(Path(str(job.output)))
    target = check_writable(str(job.output), overwrite=overwrite)
    if target.exists() and target.resolve() == Path(str(job.input)).resolve():
        raise OptionsError(f'"{target.name}" is the image itself. Give another name with -o.')
    scores_path = _beside(target, "_scores", ".ome.tif")
    if job.options.scores:
        check_writable(scores_path, overwrite=overwrite)
    nifti = target.name.lower().endswith((".nii", ".nii.gz"))
    unsure_path = _beside(target, "_uncertainty", ".nii.gz" if nifti else ".ome.tif")
    if job.options.uncertainty:
        check_writable(unsure_path, overwrite=overwrite)
    spec = _spec(job.model)
    volume = _open(job, spec)
    with reporter(json_lines) as tell, _interrupts() as cancel:
        try:
            result = segment_image(
                volume,
                job.model,
                options=job.options,
                channels=job.channels,
                region=job.region,
                out=target,
                resume=resume,
                on_event=tell,
                cancel=cancel,
            )
        except RunError as error:
            if error.kept is not None:
                _emit({"event": "kept", "path": str(error.kept)}) if json_lines else _complain(f"What was finished is in {error.kept}")
            raise
    if result.scores is not None:
        from napari_tileseg.io import write_scores

        write_scores(result.scores, volume, spec.score_names, scores_path, provenance=result.provenance, overwrite=overwrite)
    if result.uncertainty is not None:
        from napari_tileseg.io import write_uncertainty

        write_uncertainty(result.uncertainty, volume, unsure_path, provenance=result.provenance, overwrite=overwrite)
    if json_lines:
        saved = {"event": "saved", "path": str(target), "counts": dict(result.counts), "seconds": result.seconds}
        saved |= {"scores": str(scores_path)} if result.scores is not None else {}
        return _emit(saved | ({"uncertainty": str(unsure_path)} if result.uncertainty is not None else {}))
    typer.echo(f"{_found(result.counts, spec)} in {result.seconds:.1f} s. Saved in {target}")


def _found(counts: Mapping[str, int], spec: ModelSpec) -> str:
    """Say what was found: ``"86 objects"``, or ``"anterior 2352, posterior 1963 voxels"``."""
    if spec.output == "instances":
        count = sum(counts.values())
        return f"{count} object{'s' * (count != 1)}"
    parts = ", ".join(f"{name} {counts.get(name, 0)}" for name in spec.foreground_classes)
    return f"{parts} {'voxels' if spec.spatial_ndim == 3 else 'pixels'}"


def _beside(path: Path, addition: str, suffix: str) -> Path:
    from napari_tileseg.io import suffix_of

    ending = suffix_of(path, purpose="write")
    return path.with_name(path.name[: len(path.name) - len(ending)] + addition + suffix)


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a wish to stop after the current tile; the second one stops at once."""
    asked: list[int] = []

    def on_interrupt(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def _bytes(size: int) -> str:
    from napari_tileseg.io.files import amount

    return amount(size)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
