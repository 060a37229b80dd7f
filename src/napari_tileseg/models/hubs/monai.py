"""The MONAI Model Zoo: what its index says of its bundles.

The index is ``models/model_info.json`` of Project-MONAI/model-zoo, which MONAI 1.6 reads too (`monai.bundle.get_all_bundles_list`). Its
keys are names with versions, ``spleen_ct_segmentation_v0.5.3``; each has a ``source``, an address at NVIDIA, GitHub or Hugging Face, and
often a ``checksum``, the SHA-1 of the zip.
"""

from __future__ import annotations

import re
from typing import Any

from napari_tileseg.models.hubs.entry import Entry
from napari_tileseg.models.hubs.texts import line

__all__ = ["ADDRESSES", "entries"]

ADDRESSES = ("https://raw.githubusercontent.com/Project-MONAI/model-zoo/dev/models/model_info.json",)
"""Where the index is."""

_KEY = re.compile(r"([A-Za-z0-9][\w.-]{0,99}?)_v(\d[\w.+-]{0,31}?)(?:\.zip)?", re.ASCII)
_SEGMENTS = {"segmentation", "segmentor", "segmentator", "seg", "vista2d", "vista3d", "nuclick", "deepedit", "anatomy", "3label"}
_OTHER = {"classification", "detection", "generative", "gan", "ddpm", "diffusion", "landmarks", "synthesis", "depthmap", "reg", "retinanet"}
"""Words of names of bundles that find no objects; those that hold a word of `_SEGMENTS` too are listed."""

_CAPITALS = {"ct", "mri", "btcv", "unetr", "unest", "mr", "pet"}


def entries(document: Any) -> list[Entry]:
    """Return the newest version of each bundle that segments; whatever is odd in the index is left out."""
    newest: dict[str, tuple[tuple[tuple[int, str], ...], Entry]] = {}
    for key, facts in document.items() if isinstance(document, dict) else ():
        found = _KEY.fullmatch(key) if isinstance(key, str) else None
        if found is None or not isinstance(facts, dict) or not isinstance(facts.get("source"), str):
            continue
        name, version = found[1], found[2]
        words = set(re.split(r"[_.-]", name.lower()))
        if words & _OTHER and not words & _SEGMENTS:
            continue
        digits = facts.get("checksum")
        digits = digits.lower() if isinstance(digits, str) and re.fullmatch(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}", digits) else ""
        entry = Entry(
            "monai",
            name,
            _title(name),
            version=version,
            url=line(facts["source"], most=4096),
            sha256=digits if len(digits) == 64 else "",
            sha1=digits if len(digits) == 40 else "",
            tags=tuple(sorted(words)),
        )
        order = _order(version)
        if name not in newest or newest[name][0] < order:
            newest[name] = (order, entry)
    return [newest[name][1] for name in sorted(newest, key=str.lower)]


def _title(name: str) -> str:
    words = [word.upper() if word.lower() in _CAPITALS else word for word in name.split("_")]
    title = " ".join(words)
    return title[:1].upper() + title[1:]


def _order(version: str) -> tuple[tuple[int, str], ...]:
    """Return what sorts 0.10.0 after 0.9.0."""
    return tuple((int(part[:9]), "") if part.isdecimal() else (-1, part) for part in re.split(r"[.+-]", version))
