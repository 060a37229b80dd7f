"""What a run was: its provenance to read, a command that repeats it, a job file."""

from __future__ import annotations

import json
import re
import shlex
import sys
from typing import TYPE_CHECKING

from napari_tileseg.job import regions_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_tileseg.job import Job, SegmentOptions
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["DEEDS", "command_line", "details_text", "help_text", "list_words", "option_words", "shell_line"]

DEEDS = ("Copy as command", "Export job", "Run again")
"""Buttons below the details."""


_PLAIN = re.compile(r"[\w.:/\\+=*-]+")
"""Words that no shell of Windows changes."""


def details_text(provenance: Mapping[str, object]) -> str:
    """Write the provenance as people can read it."""
    return json.dumps(provenance, indent=2, ensure_ascii=False)


def command_line(job: Job, spec: ModelSpec, output: str) -> str:
    """Return the command that repeats a run.

    Parameters
    ----------
    job : Job
        With `input` set where the image came from a file; the word ``IMAGE`` stands for it otherwise.
    spec : ModelSpec
    output : str
        File name of the result.
    """
    options = job.options
    words = ["tileseg", "segment", job.input or "IMAGE", "-o", output, "--model", job.model]
    words += ["--axes", job.axes] if job.axes else []
    words += ["--channels", list_words(job.channels, ",")] if job.channels else []
    for region in regions_of(job.region):
        words += ["--region", ",".join(f"{start}:{stop}" for start, stop in region)]
    return shell_line([*words, *option_words(options, spec)])


def shell_line(words: Iterable[str]) -> str:
    """Write words as one line that the system's shell takes apart again.

    Windows' shells know double quotes only. PowerShell would also take commas, braces and ``@`` for its own.
    """
    if sys.platform != "win32":
        return shlex.join(words)
    return " ".join(word if _PLAIN.fullmatch(word) else _quoted(word) for word in words)


def _quoted(word: str) -> str:
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', word)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def option_words(options: SegmentOptions, spec: ModelSpec) -> list[str]:
    """Return the words of a command line for the options that are not the model's own."""
    words = ["--window", list_words(options.window, ",")] if options.window else []
    words += ["--overlap", f"{options.overlap:g}"] if options.overlap is not None else []
    words += ["--adaptive"] if options.adaptive else []
    words += ["--skip-background"] if options.skip_background else []
    words += ["--blending", options.blending] if options.blending else []
    words += ["--sigma", f"{options.sigma:g}"] if "sigma" in options.model_fields_set else []
    words += ["--padding", options.padding] if options.padding else []
    words += ["--precision", options.precision] if options.precision != "exact" else []
    words += ["--threshold", f"{options.threshold:g}"] if options.threshold != 0.5 and spec.output != "softmax" else []
    words += ["--min-size", f"{options.min_size:g}"] if options.min_size else []
    words += ["--device", options.device] if options.device != "auto" else []
    words += ["--tta", options.tta or "none"] if options.tta is not None else []
    words += ["--uncertainty", options.uncertainty] if options.uncertainty else []
    words += ["--scores"] if options.scores else []
    words += [] if options.rescale else ["--no-rescale"]
    return words


def list_words(values: Iterable[int], separator: str = ", ") -> str:
    """Write numbers one after the other."""
    return separator.join(str(value) for value in values)


def help_text(sentence: str) -> str:
    """Say what can be done about a failure, going by the words of its sentence."""
    advice = [
        (("weights", "model"), "Look at the model with `tileseg models show NAME`. If its files are damaged, install the package again."),
        (("memory",), "Use a smaller window under Options, or choose CPU under Device. Closing other programs frees memory too."),
        (("disk", "scratch", "space"), "Free some space, or start napari with TMPDIR pointing to a larger disk."),
        (("axes", "axis", "channel", "dimension"), "Name the axes under Axes, one letter per dimension, or choose another model."),
    ]
    found = [text for words, text in advice if any(word in sentence.lower() for word in words)]
    steps = found or ["Copy the details into a bug report; the image and its layer are unchanged."]
    return "\n\n".join([sentence, *steps])
