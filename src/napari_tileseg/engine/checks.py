"""What is looked at before a run: whether the image fits the model, and the run the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.errors import AxesError, InputError, OptionsError

if TYPE_CHECKING:
    from napari_tileseg.engine.memory import Estimate
    from napari_tileseg.engine.protocols import Source
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["check_labels", "check_limit", "check_source"]


def check_source(source: Source, spec: ModelSpec) -> None:
    """Make sure that an image has the axes and channels that a model needs.

    Raises
    ------
    AxesError, InputError
        One sentence each.
    """
    channels, *spatial = source.shape
    if len(spatial) != spec.spatial_ndim:
        raise AxesError(f"The image has {len(spatial)} spatial axes, the model needs {spec.spatial_axes}. Choose which axes it works on.")
    if channels != spec.inputs and not (spec.grey == "fewer" and 0 < channels < spec.inputs):
        raise InputError(f"The image has {channels} channels, the model needs {spec.inputs} ({', '.join(spec.channels)}).")


def check_labels(spec: ModelSpec, options: SegmentOptions) -> None:
    """Refuse what needs scores of a model that gives labels itself, or probabilities of one that gives none.

    Raises
    ------
    OptionsError
    """
    if spec.output == "anomaly" and options.uncertainty:
        raise OptionsError(f"{spec.label} gives a score without an upper end, from which no uncertainty can be told. Run it without.")
    if spec.output != "labels":
        return
    asked = {
        "keep scores": options.scores,
        "uncertainty": options.uncertainty,
        "tta": options.tta,
        "adaptive overlap": options.adaptive,
        "blending": options.blending,
    }
    name = next((name for name, value in asked.items() if value), None)
    if name is not None:
        raise OptionsError(f"{spec.label} gives labels, not scores, so there is nothing to average or to keep. Run it without {name}.")


def check_limit(needs: Estimate, limit: int | None) -> None:
    """Make sure that a run needs no more host memory than it may have.

    Raises
    ------
    OptionsError
        With both numbers.
    """
    if limit is not None and needs.host_bytes > limit:
        raise OptionsError(
            f"The run needs {needs.host_bytes / 1e9:.2f} GB of host memory, the limit is {limit / 1e9:.2f} GB. "
            "Use a smaller window, a part of the image, or a higher limit."
        )
