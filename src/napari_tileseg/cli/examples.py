"""``EXAMPLES``: how each command is used, below its help."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

__all__ = ["EXAMPLES", "attach"]

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("tileseg demo",),
    "segment": (
        "tileseg segment cells.tif -o cells_labels.ome.tif --model nuclei-2d",
        "tileseg segment stack.tif -o labels.ome.tif --model nuclei-2d --axes TYX --min-size 30",
        "tileseg segment brain.nii.gz -o labels.nii.gz --model hippocampus-3d --tta flips",
        "tileseg segment cells.tif -o corner.ome.tif --model nuclei-2d --region 0:128,0:128",
    ),
    "batch": (
        "tileseg batch raw -o labels --model nuclei-2d",
        "tileseg batch raw -o labels --model nuclei-2d --pattern '*.tif' --recursive --dry-run",
    ),
    "run": ("tileseg run job.json", "tileseg run job.json --input other.tif -o other_labels.ome.tif"),
    "convert": ("tileseg convert labels.ome.tif -o labels.geojson",),
    "estimate": ("tileseg estimate cells.tif --model nuclei-2d",),
    "train": ("tileseg train --images raw --labels truth -o mine", "tileseg train config.toml"),
    "evaluate": ("tileseg evaluate labels truth", "tileseg evaluate labels truth --metrics ap50,object_f1 -o scores.csv"),
    "generate": ("tileseg generate my-generator -n 16 -o synthetic",),
    "embed": ("tileseg embed my-autoencoder cells.tif -o features.csv",),
    "info": ("tileseg info",),
    "models list": ("tileseg models list",),
    "models show": ("tileseg models show nuclei-2d",),
    "models import": (
        "tileseg models import nnunet:Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres",
        "tileseg models import cells.onnx --axes YX --classes background,cell --window 256,256",
    ),
    "models answer": ("tileseg models answer cells --normalization percentile:1,99.8",),
    "models remove": ("tileseg models remove cells",),
    "models verify": ("tileseg models verify nuclei-2d",),
    "models trust": ("tileseg models trust downloads/cells.pt",),
    "models revoke": ("tileseg models revoke", "tileseg models revoke downloads/cells.pt"),
    "models export": ("tileseg models export cells cells.tileseg.zip",),
    "models hub": ("tileseg models hub", "tileseg models hub bioimageio --search nuclei"),
    "models download": ("tileseg models download hub:monai/spleen_ct_segmentation",),
    "settings show": ("tileseg settings show",),
    "settings set": ("tileseg settings set offline true",),
    "settings unset": ("tileseg settings unset proxy",),
}
"""Lines for a terminal, by command."""


def attach(commands: typer.Typer, before: str = "") -> None:
    """Put the examples below the help of every command, and of those of its groups.

    Parameters
    ----------
    commands : typer.Typer
        All of its commands are there.
    before : str
        Name of the group, and a space.
    """
    for command in commands.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", ""))
        command.epilog = _below(EXAMPLES[before + name])
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            attach(group.typer_instance, f"{before}{group.name} ")


def _below(lines: Sequence[str]) -> str:
    """Return the end of a help: Typer begins a new line where one is empty."""
    return "\n\n".join([f"Example{'s' * (len(lines) > 1)}:", *lines])
