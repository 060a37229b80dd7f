"""A MONAI bundle's card, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.models.plain_text import plain

if TYPE_CHECKING:
    from napari_tileseg.models.loaders.monai_bundle.bundle import Bundle
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["text"]


def text(bundle: Bundle, spec: ModelSpec) -> str:
    """Return Markdown; what comes from the bundle is plain text in it."""
    metadata = bundle.metadata
    size = " x ".join(f"{side:g}" for side in spec.spacing) + " mm (Z, Y, X)" if spec.spacing else ""
    facts = {
        "Source": f"MONAI bundle {metadata.get('version', '')}, for MONAI {metadata.get('monai_version', 'of any version')}",
        "Task": str(metadata.get("task", "")),
        "Channels": ", ".join(spec.channels),
        "Classes": ", ".join(spec.classes),
        "Orientation": spec.orientation and f"{spec.orientation} (Z, Y, X), volumes are turned to it and labels back",
        "Pixel size": size,
        "Values": ", ".join(step.kind for step in spec.normalization.steps),
        "Tiles": f"{' x '.join(map(str, spec.window))}, overlap {spec.overlap:g}, {spec.blending}",
        "Intended use": str(metadata.get("intended_use", "")),
        "Data": str(metadata.get("data_source", "")),
        "Licence": spec.licence,
        "Copyright": str(metadata.get("copyright", "")),
        "Authors": spec.attribution,
    }
    lines = [f"# {plain(spec.label)}", "", plain(spec.description), ""]
    lines += [f"- {name}: {plain(fact)}" for name, fact in facts.items() if fact]
    lines += [f"- {plain(remark)}" for remark in spec.training.get("remarks", [])]
    lines += [f"- Citation: {plain(citation)}" for citation in spec.citation.split("\n") if citation]
    return "\n".join(lines) + "\n"
