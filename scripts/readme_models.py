"""Write the table of bundled models into the README, from the models' own specs: ``python scripts/readme_models.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.models.package import read_spec
from napari_tileseg.models.registry import BUNDLED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_tileseg.models.spec import ModelSpec

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- Written by scripts/readme_models.py from the models themselves. -->"
END = "<!-- models: end -->"


def main() -> None:
    """Replace what stands between the two comments."""
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    README.write_text(f"{head}{BEGIN}\n\n{table()}\n{END}{tail}", encoding="utf-8")


def table() -> str:
    """Return the table in Markdown, one model a row."""
    lines = ["| model | what it does | takes | scores on the validation part | licence |", "|---|---|---|---|---|"]
    for folder in sorted(path.parent for path in BUNDLED.glob("*/model.json")):
        spec = read_spec(folder)
        found = "; ".join(f"{name} {number:.3f}" for name, number in scores(spec)) or "not measured"
        lines.append(f"| `{spec.name}` | {spec.description} | {takes(spec)} | {found} | {spec.licence} |")
    return "\n".join(lines) + "\n"


def takes(spec: ModelSpec) -> str:
    """Say what images a model accepts."""
    channels = "1 channel" if len(spec.channels) == 1 else f"{len(spec.channels)} channels"
    grey = " or grey" if spec.grey == "repeat" else ""
    return f"{spec.spatial_ndim}D, {channels}{grey}"


def scores(spec: ModelSpec) -> Iterator[tuple[str, float]]:
    """Yield the name and the value of each score that the spec holds, nested ones with their names joined."""

    def walk(value: Any, name: str) -> Iterator[tuple[str, float]]:
        if isinstance(value, dict):
            for key, part in value.items():
                yield from walk(part, f"{name} {key}".strip())
        elif isinstance(value, float):
            yield name, value

    yield from walk(spec.training.get("scores", {}), "")


if __name__ == "__main__":
    main()
