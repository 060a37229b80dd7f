"""``Entry``: one model that could be downloaded, as its hub tells of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SCHEME", "URL", "Entry"]

SCHEME = "hub:"
"""How references to models of hubs start: ``hub:monai/spleen_ct_segmentation``."""

URL = "url"
"""What stands for the hub where somebody gave a plain address."""


@dataclass(frozen=True)
class Entry:
    """One model that could be downloaded; what the hub does not say is empty.

    Texts have one line and no control characters; they may hold HTML, so whoever shows them treats them as plain text.

    Parameters
    ----------
    hub : str
        ``"monai"``, ``"bioimageio"`` or ``"url"``.
    name : str
        Identifier inside the hub: ``"spleen_ct_segmentation"``, ``"affable-shark"``.
    title : str
        For people.
    description : str
    version : str
    url : str
        Of a file, or of a repository at Hugging Face, whose files are fetched one by one.
    sha256 : str
        Of that file, 64 digits; empty where the hub does not say.
    size : int, optional
        Bytes of that file.
    licence : str
    task : str
        ``"semantic"``, ``"multi-label"``, ``"instances"``, or empty.
    dimensions : str
        ``"2D"``, ``"3D"``, or empty.
    tags : tuple of str
    sha1 : str
        Of that file, 40 digits: what the MONAI Model Zoo gives.
    """

    hub: str
    name: str
    title: str
    description: str = ""
    version: str = ""
    url: str = ""
    sha256: str = ""
    size: int | None = None
    licence: str = ""
    task: str = ""
    dimensions: str = ""
    tags: tuple[str, ...] = ()
    sha1: str = ""

    @property
    def ref(self) -> str:
        """What `load_model` and the command line take for this model."""
        return self.url if self.hub == URL else f"{SCHEME}{self.hub}/{self.name}"
