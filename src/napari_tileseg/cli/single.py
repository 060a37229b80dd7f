"""``perform``: one job on one image, from the file to the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from napari_tileseg.cli.console import complain, emit, interrupts
from napari_tileseg.cli.fetching import bring
from napari_tileseg.errors import OptionsError, RunError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_tileseg.job import Job
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.segmentation import Segmentation
    from napari_tileseg.volume import Volume

__all__ = ["open_image", "perform"]


def open_image(job: Job, spec: ModelSpec) -> Volume:
    """Read the job's image with the job's axes; ask for them where neither the file nor the model says what they are."""
    from napari_tileseg.image import refuse_guesses
    from napari_tileseg.io import read_volume

    volume = read_volume(str(job.input), series=job.series, level=job.level, partial=job.options.unreadable == "skip")
    if job.axes is not None:
        return volume.with_axes(job.axes)
    refuse_guesses(volume, Path(str(job.input)).name, spec, how="Give --axes")
    return volume


def perform(job: Job, *, overwrite: bool, resume: bool, json_lines: bool) -> None:
    """Segment and save; say where the finished part is when the run stops half-way."""
    from napari_tileseg.io import check_writable, write_scores, write_uncertainty
    from napari_tileseg.io.beside import scores_path, uncertainty_path
    from napari_tileseg.models.registry import find_spec
    from napari_tileseg.pipeline import segment as segment_image
    from napari_tileseg.reporting import reporter
    from napari_tileseg.unfinished import folder_beside, tidy

    tidy(Path(str(job.output)))
    target = check_writable(str(job.output), overwrite=overwrite)
    if target.exists() and target.resolve() == Path(str(job.input)).resolve():
        raise OptionsError(f'"{target.name}" is the image itself. Give another name with -o.')
    # What stands beside the labels of an interrupted run is that run's own.
    replacing = overwrite or (resume and folder_beside(target).is_dir())
    scores_place = scores_path(target)
    if job.options.scores:
        check_writable(scores_place, overwrite=replacing)
    unsure_place = uncertainty_path(target)
    if job.options.uncertainty:
        check_writable(unsure_place, overwrite=replacing)
    bring(job.model)
    spec = find_spec(job.model)
    volume = open_image(job, spec)

    def save_maps(result: Segmentation) -> None:
        """Save what goes beside the labels, before they are in place: a disk that is full now loses nothing."""
        if result.scores is not None:
            write_scores(result.scores, volume, spec.score_names, scores_place, provenance=result.provenance, overwrite=replacing)
        if result.uncertainty is not None:
            write_uncertainty(result.uncertainty, volume, unsure_place, provenance=result.provenance, overwrite=replacing)

    with reporter(json_lines) as tell, interrupts() as cancel:
        try:
            result = segment_image(
                volume,
                job.model,
                options=job.options,
                channels=job.channels,
                region=job.region,
                out=target,
                resume=resume,
                on_result=save_maps,
                on_event=tell,
                cancel=cancel,
            )
        except RunError as error:
            if error.kept is not None:
                emit({"event": "kept", "path": str(error.kept)}) if json_lines else complain(f"What was finished is in {error.kept}")
            raise
    if json_lines:
        saved: dict[str, Any] = {"event": "saved", "path": str(target), "counts": dict(result.counts), "seconds": result.seconds}
        saved |= {"anomaly": dict(result.anomaly)} if result.anomaly else {}
        saved |= {"scores": str(scores_place)} if result.scores is not None else {}
        return emit(saved | ({"uncertainty": str(unsure_place)} if result.uncertainty is not None else {}))
    typer.echo(f"{_found(result.counts, spec)} in {result.seconds:.1f} s{_strange(result.anomaly)}. Saved in {target}")


def _found(counts: Mapping[str, int], spec: ModelSpec) -> str:
    """Say what was found: ``"86 objects"``, or ``"anterior 2352, posterior 1963 voxels"``."""
    if spec.finds_objects:
        count = sum(counts.values())
        return f"{count} object{'s' * (count != 1)}"
    parts = ", ".join(f"{name} {counts.get(name, 0)}" for name in spec.foreground_classes)
    return f"{parts} {'voxels' if spec.spatial_ndim == 3 else 'pixels'}"


def _strange(anomaly: Mapping[str, float]) -> str:
    """Say how strange the whole image is: ``"; anomaly map: mean 0.031, 99th percentile 0.17"``; nothing for other models."""
    return f"; anomaly map: mean {anomaly['mean']:.4g}, 99th percentile {anomaly['percentile_99']:.4g}" if anomaly else ""
