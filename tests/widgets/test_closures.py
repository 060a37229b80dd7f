"""No dock ties itself to a signal: one that is taken out of its window goes, with every binding of Qt."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import napari_tileseg.widgets

FILES = sorted(path for path in Path(napari_tileseg.widgets.__file__).parent.rglob("*.py"))


def docks(tree: ast.Module) -> list[ast.ClassDef]:
    """Classes of docks."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return [node for node in classes if any(isinstance(base, ast.Name) and base.id == "Dock" for base in node.bases)]


def tied(dock: ast.ClassDef) -> list[int]:
    """Lines where a signal is given a function that holds the dock: PySide keeps it as long as the signal's owner, which the dock owns."""
    found = []
    for call in ast.walk(dock):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or call.func.attr != "connect":
            continue
        for given in call.args:
            lasting = isinstance(given, ast.Lambda) or (isinstance(given, ast.Call) and getattr(given.func, "id", "") == "partial")
            if lasting and any(isinstance(name, ast.Name) and name.id == "self" for name in ast.walk(given)):
                found.append(call.lineno)
    return found


def test_the_rule_sees_what_it_forbids() -> None:
    code = """
class A(Dock):
    def f(self):
        self.x.connect(lambda _: self.g())
        self.x.connect(partial(self.g, 1))
        self.x.connect(self.g)
        self.x.connect(Late(self, "g"))
"""
    (dock,) = docks(ast.parse(code))
    assert tied(dock) == [4, 5]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_dock_is_tied(path: Path) -> None:
    for dock in docks(ast.parse(path.read_text(encoding="utf-8"))):
        assert tied(dock) == []
