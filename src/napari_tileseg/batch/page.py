"""The page ``report.html``: all of a batch on one sheet that needs no network, sorts by a click and is readable by day and night."""

from __future__ import annotations

import os
from collections import Counter
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from napari_tileseg.batch.walk import natural
from napari_tileseg.io.files import amount

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_tileseg.batch.report import ReportRow

__all__ = ["SCORES", "duration", "found", "page"]

SCORES = {"mean": "anomaly mean", "percentile_99": "anomaly 99th percentile"}
"""Columns for how strange an image is, by the names that `Segmentation.anomaly` has for them."""

_STATES = {
    "failed": ("✕", "failed"),
    "waiting": ("…", "waiting"),
    "running": ("…", "waiting"),
    "skipped": ("–", "skipped"),
    "done": ("✓", "done"),
}
"""Sign and word of each state, in the order in which they sort."""

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1d1d22; --faint: #63636e; --line: #dcdce2; --raised: #f5f5f8;
  --failed: #c62828; --done: #2e7d32; --waiting: #8a6d00; --skipped: #63636e; --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root { --ground: #18181b; --ink: #ebebf0; --faint: #a0a0ab; --line: #3a3a42; --raised: #222227;
  --failed: #ff8a80; --done: #81c784; --waiting: #ffd54f; --skipped: #a0a0ab; --link: #8ab4f8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 1.5rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
a { color: var(--link); } p { margin: .25rem 0; } .faint { color: var(--faint); }
.totals { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; padding: 0; list-style: none; }
.totals li { background: var(--raised); border: 1px solid var(--line); border-radius: 8px; padding: .5rem 1rem; }
.totals b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.name { overflow-wrap: anywhere; min-width: 12rem; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.says { white-space: pre-line; overflow-wrap: anywhere; min-width: 14rem; }
thead th { position: sticky; top: 0; background: var(--ground); z-index: 1; padding: 0; }
thead button { all: unset; box-sizing: border-box; width: 100%; cursor: pointer; padding: .4rem .6rem; font-weight: 600;
  white-space: nowrap; }
thead button:focus-visible { outline: 2px solid var(--link); } thead th.plain { padding: .4rem .6rem; font-weight: 600; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
td.state { white-space: nowrap; } .failed .sign { color: var(--failed); } .done .sign { color: var(--done); }
.waiting .sign { color: var(--waiting); } .skipped .sign { color: var(--skipped); }
tr.failed td:first-child { box-shadow: inset 3px 0 var(--failed); }
img { display: block; width: 72px; height: 72px; object-fit: contain; background: var(--raised); border-radius: 4px; }
select { font: inherit; padding: .2rem .4rem; } details { margin: .75rem 0; } summary { cursor: pointer; font-weight: 600; }
details td:first-child { white-space: nowrap; color: var(--faint); }
@media print { thead th { position: static; } select { display: none; } }
"""

_SCRIPT = """
"use strict";
const table = document.getElementById("images"), body = table.tBodies[0];
for (const button of table.querySelectorAll("thead button")) button.addEventListener("click", () => {
  const head = button.parentElement, column = head.cellIndex, numeric = head.dataset.kind === "number";
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => { const text = row.cells[column].dataset.key; return numeric ? (text === "" ? -1 : Number(text)) : text; };
  const rows = Array.from(body.rows).map(row => [key(row), row]);
  rows.sort((a, b) => (numeric ? a[0] - b[0] : a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0) * (up ? 1 : -1));
  body.append(...rows.map(pair => pair[1]));
});
const show = document.getElementById("show");
show.addEventListener("change", () => { for (const row of body.rows) row.hidden = show.value !== "" && row.className !== show.value; });
"""


def page(
    rows: Sequence[ReportRow],
    *,
    title: str,
    lines: Sequence[str] = (),
    links: Sequence[tuple[str, str]] = (),
    left_out: Sequence[tuple[str, str]] = (),
    settings: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return the page.

    Parameters
    ----------
    rows : sequence of ReportRow
    title : str
    lines : sequence of str
        Sentences below the title.
    links : sequence of (text, path)
        To what stands beside the page; paths as the file system spells them, below the page's folder.
    left_out : sequence of (name, reason)
    settings, versions : mapping of str to str
    """
    several = len({row.model for row in rows}) > 1
    scored = [name for name in SCORES if any(name in row.anomaly for row in rows)]
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>",
        *(f'<p class="faint">{escape(line)}</p>' for line in lines),
        _totals(rows),
        _links(links),
        _choice(rows),
        '<div class="scroll"><table id="images">',
        _head(several, scored),
        "<tbody>",
        *(_row(row, several, scored) for row in rows),
        "</tbody></table></div>",
        _fold(f"Left out ({len(left_out):,})", left_out),
        _fold("Settings", list((settings or {}).items())),
        _fold("Versions", list((versions or {}).items())),
        '<p class="faint">For research use; no medical device.</p>',
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def found(row: ReportRow) -> str:
    """Say what was found: ``"86 objects"``, or ``"left 2352, right 1963 pixels"``."""
    if row.state != "done" or not row.counts:
        return ""
    if row.instances:
        count = sum(row.counts.values())
        return f"{count:,} object{'s' * (count != 1)}"
    return f"{', '.join(f'{name} {count:,}' for name, count in row.counts.items())} pixels"


def duration(seconds: float) -> str:
    """Write a time for people: ``"2.9 s"``, ``"5 min"``, ``"3.4 h"``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _totals(rows: Sequence[ReportRow]) -> str:
    states = Counter(_STATES[row.state][1] for row in rows)
    facts = [(f"{count:,}", word) for _, word in _STATES.values() if (count := states.pop(word, 0))]
    objects = sum(sum(row.counts.values()) for row in rows if row.instances and row.state == "done")
    facts += [(f"{objects:,}", "objects")] if any(row.instances for row in rows) else []
    facts += [(amount(sum(row.size for row in rows)), "of images"), (duration(sum(row.seconds for row in rows)), "of work")]
    return f'<ul class="totals">{"".join(f"<li><b>{escape(value)}</b>{escape(what)}</li>" for value, what in facts)}</ul>'


def _links(links: Sequence[tuple[str, str]]) -> str:
    made = " · ".join(f'<a href="{_address(path)}">{escape(text)}</a>' for text, path in links)
    return f"<p>{made}</p>" if made else ""


def _choice(rows: Sequence[ReportRow]) -> str:
    words = dict.fromkeys(_STATES[row.state][1] for row in rows)
    options = "".join(f'<option value="{word}">{word}</option>' for word in words)
    return f'<p><label>Show <select id="show"><option value="">all ({len(rows):,})</option>{options}</select></label></p>'


def _head(several: bool, scored: Sequence[str]) -> str:
    columns = [
        ("Image", ""),
        *([("Model", "")] if several else []),
        ("State", ""),
        ("Found", "number"),
        *((SCORES[name].capitalize(), "number") for name in scored),
        ("Time", "number"),
        ("Size", "number"),
    ]
    cells = [f'<th scope="col" data-kind="{kind}"><button type="button">{name}</button></th>' for name, kind in columns]
    return f'<thead><tr><th class="plain" scope="col">Result</th>{"".join(cells)}<th class="plain" scope="col">Message</th></tr></thead>'


def _row(row: ReportRow, several: bool, scored: Sequence[str]) -> str:
    sign, word = _STATES[row.state]
    rank = list(_STATES).index(row.state)
    name = f'<a href="{_address(row.output)}">{escape(row.name)}</a>' if row.output else escape(row.name)
    picture = f'<img src="{_address(row.picture)}" alt="" loading="lazy">' if row.picture else ""
    picture = f'<a href="{_address(row.overlay)}">{picture or "picture"}</a>' if row.overlay else picture
    counted = sum(row.counts.values()) if row.state == "done" and row.counts else ""
    told = f'<a href="{_address(row.table)}">{escape(found(row))}</a>' if row.table else escape(found(row))
    cells = [
        f"<td>{picture}</td>",
        f'<td class="name" data-key="{escape(_sortable(row.name))}">{name}</td>',
        f'<td data-key="{escape(row.model)}">{escape(row.model)}</td>' if several else "",
        f'<td class="state" data-key="{rank}"><span class="sign" aria-hidden="true">{sign}</span> {word}</td>',
        f'<td class="number" data-key="{counted}">{told}</td>',
        *(f'<td class="number" data-key="{row.anomaly.get(name, "")}">{_score(row.anomaly.get(name))}</td>' for name in scored),
        f'<td class="number" data-key="{row.seconds:.3f}">{duration(row.seconds) if row.seconds else ""}</td>',
        f'<td class="number" data-key="{row.size}">{amount(row.size)}</td>',
        f'<td class="says">{escape(row.message)}</td>',
    ]
    return f'<tr class="{word}">{"".join(cells)}</tr>'


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _fold(title: str, entries: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in entries)
    return f'<details><summary>{title}</summary><div class="scroll"><table>{rows}</table></div></details>' if rows else ""


def _sortable(name: str) -> str:
    """Write a name so that plain comparison sorts it as people do: numbers at one width."""
    parts, _ = natural(name)
    return "".join(f"{rank + 1}{number:012d}{text}" for rank, number, text in parts)


def _address(path: str) -> str:
    """Return a path below the page's folder as an address, whatever bytes it holds."""
    return escape(quote(os.fsencode(path.replace(os.sep, "/"))))
