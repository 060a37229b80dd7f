"""The tools of the Refine dock, as data: their names, keys and sentences."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KEYS", "TOOLS", "Tool", "tool_of"]


@dataclass(frozen=True)
class Tool:
    """One button that says what the mouse does.

    Parameters
    ----------
    name : str
        How edits made with it are counted: ``"merge"``.
    label : str
        What the button says.
    key : str
        The key that takes it up, on the labels layer; empty for none.
    sentence : str
        What to do with the mouse.
    drags : bool
        Whether it draws lines, so that dragging does not move the view.
    """

    name: str
    label: str
    key: str
    sentence: str
    drags: bool = False


TOOLS = (
    Tool("merge", "Merge", "G", "Merge: draw a line across objects, or click one after the other.", drags=True),
    Tool("split", "Split", "K", "Split: click two seeds in one object, or draw a line through it.", drags=True),
    Tool("remove", "Remove", "Q", "Remove: click an object."),
    Tool("fill", "Fill", "H", "Fill: click an object to fill its holes."),
    Tool(
        "wand",
        "Wand",
        "W",
        "Wand: click a spot; pixels like it around there become an object. Drag to the right for more of them.",
        drags=True,
    ),
    Tool("outline", "Outline", "", "Outline: draw around an object; the line moves to the edge of the image nearby.", drags=True),
    Tool("slices", "Slices", "U", "Slices: paint an object on some slices, then click it; those between are filled in."),
)

KEYS = (
    *((tool.key, tool.sentence.split(":")[0].lower()) for tool in TOOLS if tool.key),
    ("N", "review: the next object that is not checked"),
    ("Shift+N", "review: the object before"),
    ("J", "review: accept the object"),
    ("Shift+J", "review: reject the object"),
    ("Ctrl+Z", "undo: tools and painting, in the order they were made"),
    ("Ctrl+Shift+Z", "redo"),
    ("Space", "hold it to move the view while a tool draws lines"),
    ("Esc", "put the tool away, or stop what goes on"),
    ("?", "these keys"),
)


def tool_of(name: str) -> Tool | None:
    """Return the tool of that name."""
    return next((tool for tool in TOOLS if tool.name == name), None)
