"""``write_card``: what ``CARD.md`` of a trained model says, and the curves beside it."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.plan import Plan
    from napari_tileseg.training.report import Report

__all__ = ["write_card", "write_curves"]

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


def write_card(
    spec: ModelSpec, plan: Plan, report: Report, history: Sequence[Mapping[str, Any]], rows: Mapping[str, Mapping[str, float]]
) -> str:
    """Return Markdown: what the model is, what it was trained on and how, how it learnt, and how good it is.

    Parameters
    ----------
    history : sequence of mapping
        One for each epoch: epoch, loss, rate, score, and scores by name.
    rows : mapping of str to mapping
        Scores of each validation image with these weights.
    """
    facts = spec.training
    found = ", ".join(f"{name} {value:.3f}" for name, value in facts.get("scores", {}).items()) or "nothing was kept for validation"
    curves = {"loss": [row["loss"] for row in history], "score": [row["score"] for row in history if row["score"] is not None]}
    curves |= {name: [row[name] for row in history] for name in facts.get("curves", {}) if name not in curves}
    wide = max(map(len, curves))
    lines = [
        f"# {spec.label}",
        "",
        f"Trained with napari-tileseg on a user's own data. Classes: {', '.join(spec.classes)}.",
        f"Best epoch: {facts.get('epoch')} of {len(history)} (validation: {found}).",
        "",
        "## Data",
        "",
        *(f"- {line}" for line in report.lines),
        *(f"- Note: {line}" for line in report.warnings),
        "",
        "## Training",
        "",
        *(f"- {name}: {_plain(value)}" for name, value in plan.settings().items() if name not in ("augmentation", "classes")),
        *(f"- {name}: {_plain(value)}" for name, value in facts.get("options", {}).items()),
        "",
        "## Curves",
        "",
        "All numbers are in `curves.csv`.",
        "",
        "```text",
        *(f"{name:{wide}}  {_curve(values)}" for name, values in curves.items()),
        "```",
        "",
    ]
    if rows:
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        lines += ["## Validation images", "", f"| image | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
        for name, row in sorted(rows.items(), key=lambda item: item[1].get(names[0], 1.0)):
            lines.append(f"| {name} | {' | '.join(f'{row[column]:.3f}' if column in row else '-' for column in names)} |")
        lines.append("")
    lines += ["For research use; no medical device.", ""]
    return "\n".join(lines)


def write_curves(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the history as CSV."""
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    return text.getvalue().encode()


def _curve(values: Sequence[float]) -> str:
    if not values:
        return "-"
    step = max(1, -(-len(values) // _WIDTH))
    means = [sum(values[start : start + step]) / len(values[start : start + step]) for start in range(0, len(values), step)]
    low, high = min(means), max(means)
    bars = "".join(_BARS[round((value - low) / (high - low) * 7) if high > low else 0] for value in means)
    return f"{bars}  {values[0]:.3f} to {values[-1]:.3f}"


def _plain(value: Any) -> str:
    match value:
        case None:
            return "none"
        case dict():
            return ", ".join(f"{name} {list(inner) if isinstance(inner, tuple) else inner}" for name, inner in value.items()) or "none"
        case list() | tuple():
            return " x ".join(map(str, value))
    return str(value)
