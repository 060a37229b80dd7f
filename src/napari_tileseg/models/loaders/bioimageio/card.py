"""A BioImage.IO model's card, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.models.loaders.bioimageio.tensors import FORMATS
from napari_tileseg.models.plain_text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.models.loaders.bioimageio.description import Package
    from napari_tileseg.models.loaders.bioimageio.tensors import Tensor
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["text"]


def text(package: Package, spec: ModelSpec, tests: Sequence[str]) -> str:
    """Return Markdown; what comes from the package is plain text in it.

    Parameters
    ----------
    package : Package
        The model.
    spec : ModelSpec
        What became of its description.
    tests : sequence of str
        How its test tensors came out here; empty where they were not run.
    """
    description = package.description
    facts = {
        "Source": f"BioImage.IO {description.version}" + (f", {description.identifier}" if description.identifier else ""),
        "Input": _tensor(description.inputs[0]),
        "Outputs": "; ".join(_tensor(tensor) for tensor in description.outputs),
        "Read as": {"softmax": "one class per pixel", "sigmoid": "one mask per channel"}.get(spec.output, spec.output)
        + (" (the description does not say; chosen by the values of its test output)" if "output" in spec.unknown else ""),
        "Tiles": f"{' x '.join(map(str, spec.window))}, their borders thrown away as the halo says",
        "Weights": ", ".join(FORMATS[weights.kind] for weights in description.weights),
        "Licence": description.licence,
        "Authors": ", ".join(description.authors),
        "Tests": "; ".join(tests) or "not run yet",
    }
    lines = [f"# {plain(spec.label)}", "", plain(spec.description), ""]
    lines += [f"- {name}: {plain(fact)}" for name, fact in facts.items() if fact]
    lines += [f"- {plain(remark)}" for remark in spec.training.get("remarks", [])]
    lines += [f"- Citation: {plain(citation)}" for citation in description.citations]
    return "\n".join(lines) + "\n"


def _tensor(tensor: Tensor) -> str:
    steps = ", ".join(step.name for step in tensor.steps)
    return f"{tensor.name} ({tensor.letters.lower()}, {tensor.dtype})" + (f", {steps}" if steps else "")
