"""What an Apple GPU cannot compute: the processor does it instead, if torch is told so before it is imported, and the user is told."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FALLBACK", "missing_operators"]

FALLBACK = {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}
"""What the environment must hold before torch is imported; a user's own value stays."""

_SENTENCE = re.compile(r"operator '(?:aten::)?([^']+)'.*(?:MPS|mps).*fall back", re.DOTALL)


@contextmanager
def missing_operators(device: str, found: set[str]) -> Iterator[None]:
    """Add the names of operations that the GPU leaves to the processor; other warnings go their way.

    Parameters
    ----------
    device : str
        Only ``"mps"`` has such operations.
    found : set of str
        Gets the names, as torch calls them. Torch tells of each once in the life of a program.
    """
    if device != "mps":
        yield
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if (told := _SENTENCE.search(str(warning.message))) is not None:
            found.add(told[1])
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
