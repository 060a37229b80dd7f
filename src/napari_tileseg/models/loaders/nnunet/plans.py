"""``Plans``: what nnU-Net has planned for one configuration, read from ``plans.json`` and ``dataset.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Labels", "Plans", "read_labels"]

_OLD_CLASSES = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
"""Networks of plans from before they named their architecture, and what each calls the convolutions of its stages."""


@dataclass(frozen=True)
class Labels:
    """What the score channels stand for.

    Parameters
    ----------
    classes : list of str
        Name of each value of a label image; index 0 is the background.
    heads : list of str
        Names of the score channels.
    region_values : tuple of int
        The value of each region, in the order in which they are drawn; empty where there are none.
    foreground : tuple of int
        Values of a label image, the background apart: what the second stage of a cascade sees of the first.
    region_labels : tuple of tuple of int
        The values of a label image that lie inside each region.
    ignored : int, optional
        The value of what was not annotated.
    """

    classes: list[str]
    heads: list[str]
    region_values: tuple[int, ...] = ()
    foreground: tuple[int, ...] = ()
    region_labels: tuple[tuple[int, ...], ...] = ()
    ignored: int | None = None


class Plans:
    """One configuration.

    Parameters
    ----------
    plans, dataset : mapping
        Contents of ``plans.json`` and ``dataset.json``.
    configuration : str
        Its name.

    Raises
    ------
    ModelError
        If there is no such configuration, or something it needs is missing.
    """

    def __init__(self, plans: Mapping[str, Any], dataset: Mapping[str, Any], configuration: str) -> None:
        if not isinstance(plans, dict) or not isinstance(dataset, dict) or not isinstance(plans.get("configurations"), dict):
            raise ModelError("plans.json or dataset.json is not what nnU-Net v2 writes. Give a results folder of nnU-Net v2.")
        self._plans, self.dataset, self.configuration = plans, dataset, configuration
        self._values = _resolved(plans["configurations"], configuration)

    def __getitem__(self, name: str) -> Any:
        """Return a value of the configuration.

        Raises
        ------
        ModelError
            If it has none.
        """
        if name not in self._values:
            raise ModelError(f'plans.json says nothing of "{name}" for {self.configuration}. Train or export the model again.')
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value of the configuration, or something else where it has none."""
        return self._values.get(name, default)

    @property
    def ndim(self) -> int:
        return len(self["patch_size"])

    @property
    def order(self) -> tuple[int, ...]:
        """For each axis of the preprocessed volume the axis of the image, both three."""
        order = tuple(int(axis) for axis in self._plans.get("transpose_forward", (0, 1, 2)))
        if sorted(order) != [0, 1, 2]:
            raise ModelError(f"plans.json has transpose_forward {order}; an order of 0, 1 and 2 is accepted. Get the model again.")
        return order

    @property
    def reader(self) -> str:
        """Name of the class that read the images."""
        return str(self._plans.get("image_reader_writer", "SimpleITKIO"))

    @property
    def name(self) -> str:
        """Name of the data set."""
        return str(self._plans.get("dataset_name", ""))

    @property
    def label_manager(self) -> str:
        return str(self._plans.get("label_manager", "LabelManager"))

    @property
    def previous_stage(self) -> str:
        """The configuration whose labels this one sees beside the image; empty where it sees none."""
        return str(self.get("previous_stage") or "")

    @property
    def channels(self) -> list[str]:
        """Names of the input channels, in order."""
        names = self.dataset.get("channel_names") or self.dataset.get("modality")
        if not isinstance(names, dict) or not names:
            raise ModelError("dataset.json names no channels (channel_names). Get the model again.")
        return [str(names[key]) for key in sorted(names, key=int)]

    def intensities(self, channel: int) -> Mapping[str, float]:
        """Return what nnU-Net has measured in the foreground of the training images."""
        known = self._plans.get("foreground_intensity_properties_per_channel")
        known = known or self._plans.get("foreground_intensity_properties_by_modality") or {}
        found = known.get(str(channel))
        if not isinstance(found, dict):
            raise ModelError(f"plans.json lacks the intensities of channel {channel}, which CT normalisation needs. Get the model again.")
        return found

    @property
    def network(self) -> tuple[str, dict[str, Any]]:
        """Dotted name of the network's class, and its arguments."""
        architecture = self.get("architecture")
        if architecture is not None:
            return str(architecture["network_class_name"]), dict(architecture["arch_kwargs"])
        kind = str(self["UNet_class_name"])
        if kind not in _OLD_CLASSES:
            raise ModelError(f'plans.json names the network "{printable(kind)}"; {" and ".join(_OLD_CLASSES)} are known in plans so old.')
        counts = self["n_conv_per_stage_encoder"]
        base, most = self["UNet_base_num_features"], self["unet_max_num_features"]
        return f"dynamic_network_architectures.architectures.unet.{kind}", {
            "n_stages": len(counts),
            "features_per_stage": [min(base * 2**stage, most) for stage in range(len(counts))],
            "conv_op": f"torch.nn.modules.conv.Conv{self.ndim}d",
            "kernel_sizes": self["conv_kernel_sizes"],
            "strides": self["pool_op_kernel_sizes"],
            _OLD_CLASSES[kind]: counts,
            "n_conv_per_stage_decoder": self["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{self.ndim}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }


def read_labels(dataset: Mapping[str, Any]) -> Labels:
    """Read classes or regions from ``dataset.json``.

    Raises
    ------
    ModelError
        If they are not what nnU-Net accepts.
    """
    labels = dataset.get("labels")
    if not isinstance(labels, dict) or labels.get("background") != 0:
        raise ModelError("dataset.json has no labels with the background 0. Get the model again.")
    ignored = labels.get("ignore")
    ignored = ignored if isinstance(ignored, int) else None
    named = {name: value for name, value in labels.items() if name != "ignore"}  # what was not annotated has no score
    if not any(isinstance(value, list) and len(value) > 1 for value in named.values()):
        values = {int(value[0] if isinstance(value, list) else value): str(name) for name, value in named.items()}
        classes = [values[value] for value in sorted(values)]
        return Labels(classes, classes, foreground=tuple(range(1, len(classes))), ignored=ignored)
    order = dataset.get("regions_class_order")
    values_of = {str(name): value if isinstance(value, list) else [value] for name, value in named.items()}
    regions = [name for name, value in values_of.items() if set(value) != {0}]
    if not isinstance(order, list) or len(order) != len(regions) or not all(isinstance(value, int) and value > 0 for value in order):
        raise ModelError("dataset.json has regions, but no regions_class_order with one label for each. Get the model again.")
    classes = ["background", *(f"label {value}" for value in range(1, max(order) + 1))]
    for value, name in zip(order, regions, strict=True):
        classes[value] = name
    inside = {int(part) for value in values_of.values() for part in value}
    parts = tuple(tuple(sorted(int(part) for part in values_of[name])) for name in regions)
    return Labels(classes, regions, tuple(order), tuple(sorted(inside - {0})), parts, ignored)


def _resolved(configurations: Mapping[str, Any], name: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a configuration with what it inherits."""
    if name not in configurations or name in below:
        known = ", ".join(printable(str(other)) for other in configurations)
        raise ModelError(f'plans.json has no usable configuration "{printable(name)}". It has {known}.')
    values = dict(configurations[name])
    if "inherits_from" in values:
        values = {**_resolved(configurations, str(values["inherits_from"]), (*below, name)), **values}
    return values
