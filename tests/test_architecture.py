"""The house stands as it was drawn: seven floors, imports only downward, heavy packages only where they work."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import napari_tileseg

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "napari_tileseg"

FLOORS = (
    ("errors", "folders", "locks", "moving", "units"),
    ("models", "volume", "job"),
    ("engine", "io", "measure", "refine"),
    ("image", "objects", "provenance", "results", "segmentation"),
    ("estimation", "execution", "replay", "unfinished", "verification"),
    ("pipeline", "division"),
    ("training", "batch"),
    ("worker",),
    ("about", "reporting"),
    ("demo",),
    ("cli", "widgets"),
)
"""The rooms of each floor, the lowest first; the pipeline's floor and the shells' floor have three steps.

A new room must be given a floor here.
"""

FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}

GUI = {"napari", "qtpy", "magicgui", "superqt", "vispy", "PyQt5", "PyQt6", "PySide2", "PySide6"}

HEAVY = {"torch", "monai"}

HEAVY_ROOMS = ("engine", "models.nets", "models.loaders", "training", "worker.__main__")
"""Where torch and monai may be imported at module level; these are themselves imported when a job runs."""

MAX_LINES = 500

# What a module may be, and what it says of itself


def name_of(path: Path) -> str:
    """Return ``engine.tiles`` for ``src/napari_tileseg/engine/tiles.py``, and ``""`` for the package itself."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


@cache
def tree_of(name: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@cache
def all_imports(name: str) -> frozenset[str]:
    """Return every module that one imports anywhere."""
    return frozenset(imports(tree_of(name)))


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield every module that is imported anywhere in a tree: at the top, in a function, for types, or by its name.

    ``from a import b`` yields ``a.b``: whether b is a module or a name in one, it lies in the room of ``a.b``.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which room is meant"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant) and isinstance(argument.value, str))


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported, looking into ``try`` and ``if`` but not into type-only blocks."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            waiting += [child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node]


def room_of(module: str) -> str | None:
    """Return the room that an imported module lies in; None for other packages and for the package itself."""
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return room if package == "napari_tileseg" and room in FLOOR else None


def inside(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def test_every_module_is_in_a_room() -> None:
    homeless = [name for name in MODULES if name and name.partition(".")[0] not in FLOOR]
    assert not homeless, f"{homeless} stand on no floor; add them to FLOORS"


# A test looks at all modules: one of each module would be thousands, and take longer than all that they look at.


def test_imports_go_downward() -> None:
    wrong = []
    for name in MODULES:
        room = name.partition(".")[0]
        if not room:
            continue  # the package itself holds lazy names of every floor
        for module in all_imports(name):
            other = room_of(module)
            if other not in (None, room) and FLOOR[other] >= FLOOR[room]:
                wrong.append(f"{name} imports {module}: {other} is not below {room}")
    assert not wrong


def test_only_widgets_know_the_window_system() -> None:
    others = [name for name in MODULES if not inside(name, ("widgets",))]
    found = {name: GUI & {module.partition(".")[0] for module in all_imports(name)} for name in others}
    assert not {name: packages for name, packages in found.items() if packages}


def test_heavy_packages_are_imported_when_they_are_needed() -> None:
    wrong = []
    for name in MODULES:
        if inside(name, HEAVY_ROOMS) or not HEAVY & {module.partition(".")[0] for module in all_imports(name)}:
            continue
        for statement in top_level(tree_of(name)):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                found = HEAVY & {module.partition(".")[0] for module in imports(statement)}
                wrong += [f"{name}, line {statement.lineno}, imports {found} at module level"] if found else []
    assert not wrong


def test_modules_say_what_they_are_and_what_they_offer() -> None:
    wrong = []
    for name in MODULES:
        tree = tree_of(name)
        if not tree.body:
            continue  # the empty __init__ of a room
        docstring = ast.get_docstring(tree)
        if not docstring:
            wrong.append(f"{name} has no docstring")
        elif not docstring.splitlines()[0].endswith((".", ":", "?")):
            wrong.append(f"the first line of {name}'s docstring is no sentence")
        definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        defined = any(isinstance(node, definitions) and not node.name.startswith("_") for node in tree.body)
        assigned = {ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
        if defined and "__all__" not in assigned and not name.endswith("__main__"):
            wrong.append(f"{name} has no __all__")
    assert not wrong


def test_modules_are_short() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > MAX_LINES}, "split them by their nouns"


# What an import costs


def modules_after(code: str) -> set[str]:
    """Run code in a new interpreter and return the names of the top-level packages that it has loaded."""
    report = "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not modules_after("import napari_tileseg") & (HEAVY | GUI | {"numpy", "scipy", "skimage", "pydantic"})


def test_help_of_the_command_loads_nothing_heavy() -> None:
    code = """
import sys
from napari_tileseg.cli import main
sys.argv = ["tileseg", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    assert not modules_after(code) & (HEAVY | GUI)


def test_widgets_load_neither_torch_nor_monai() -> None:
    manifest = yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8"))
    modules = {command["python_name"].partition(":")[0] for command in manifest["contributions"]["commands"]}
    assert any(module.startswith("napari_tileseg.widgets") for module in modules)
    assert not modules_after("import " + ", ".join(sorted(modules))) & HEAVY


def test_light_rooms_load_neither_torch_nor_monai() -> None:
    light = [f"napari_tileseg.{name}".rstrip(".") for name in MODULES if not inside(name, ("widgets", *HEAVY_ROOMS))]
    code = f"""
import importlib, sys
for name in {light!r}:
    importlib.import_module(name)
    loaded = {HEAVY!r} & sys.modules.keys()
    assert not loaded, f"importing {{name}} loads {{loaded}}"
"""
    assert not modules_after(code) & GUI


# The public surface

PUBLIC = {
    "BatchJob",
    "ModelSpec",
    "SegmentOptions",
    "Segmentation",
    "TileSegError",
    "TrainConfig",
    "Volume",
    "__version__",
    "build_network",
    "embed",
    "estimate",
    "evaluate",
    "from_module",
    "generate",
    "get_loss",
    "list_models",
    "load_model",
    "read_volume",
    "run_batch",
    "save_segmentation",
    "segment",
    "train",
    "watch_batch",
}
"""Written out a second time on purpose: a name is added or taken away by changing both places."""


def test_public_names_are_the_promised_ones() -> None:
    assert set(napari_tileseg.__all__) == PUBLIC
    assert list(napari_tileseg.__all__) == sorted(napari_tileseg.__all__)
    assert set(dir(napari_tileseg)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_can_be_reached(name: str) -> None:
    thing: Any = getattr(napari_tileseg, name)
    if name != "__version__":
        assert thing.__module__.startswith("napari_tileseg.")
        assert name in importlib.import_module(thing.__module__).__all__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        napari_tileseg.no_such_name  # noqa: B018  # looking it up is the test


def test_all_names_what_is_there() -> None:
    missing = []
    for name in MODULES:
        if not inside(name, ("widgets", "worker.__main__")):
            module = importlib.import_module(f"napari_tileseg.{name}".rstrip("."))
            missing += [f"{name}.{public}" for public in getattr(module, "__all__", []) if not hasattr(module, public)]
    assert not missing
