"""What a pickle would import and call, read from its opcodes without running any of them."""

from __future__ import annotations

import io
import pickletools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import WeightsError
from napari_tileseg.models.archive import Archive, is_zip, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import IO

__all__ = ["Finding", "check_pickle", "scan", "tensor_shapes"]

_MOST_OPCODES = 20_000_000
_LARGEST_PICKLE = 2**28
_LONGEST = 2**12
_LONGEST_TUPLE = 16
_TORCH = 0x1950A86A20F9469CFC6C
"""What the first pickle of torch's older format makes."""
_ROOMS = ("Storage", "Tensor", "builtins.bytearray", "builtins.bytes")
"""What makes as much room as it is asked for."""
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_OLD_PICKLES = 5
"""So many pickles that format has, one after the other, before the numbers."""
_MARK = object()
_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_INTEGERS = {"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Finding:
    """Something that a pickle names.

    Parameters
    ----------
    name : str
        The global, as ``"os.system"``; ``"?"`` where it is computed while the pickle runs.
    position : int
        Byte of the opcode in its file.
    member : str
        File inside the zip; empty for a plain file.
    """

    name: str
    position: int
    member: str = ""

    def __str__(self) -> str:
        place = f"byte {self.position}" + (f" of {printable(self.member)}" if self.member else "")
        return f"{'something that it computes' if self.name == '?' else printable(self.name)} ({place})"


def check_pickle(path: Path, *, allowed: Iterable[str] = ()) -> list[Finding]:
    """Return the globals of a pickle, or of a file that torch saved, that are not harmless.

    Nothing is run or imported. What `load_torch` allows is not listed.

    Parameters
    ----------
    path : Path
        A pickle, a file of ``torch.save`` in its old or new format, or a TorchScript archive.
    allowed : iterable of str
        Further harmless globals.

    Raises
    ------
    WeightsError
        If it is damaged, or declares a tensor larger than the file.
    """
    from napari_tileseg.models.trust import HARMLESS, is_harmless

    known = HARMLESS | set(allowed)
    return [finding for finding in scan(path) if finding.name not in known and not is_harmless(finding.name)]


def scan(path: Path) -> list[Finding]:
    """Return every global that a pickle, or a file that torch saved, names, in the order of their positions.

    Raises
    ------
    WeightsError
        If it is damaged, or declares a tensor larger than the file.
    """
    if is_zip(path):
        return _scan_zip(path)
    found: list[Finding] = []
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            first, top = _follow_all(stream, "", size, path.name)
            found += first
            if top == _TORCH:
                for _ in range(_OLD_PICKLES - 1):
                    found += _follow_all(stream, "", size, path.name)[0]
    except OSError as error:
        raise WeightsError(f'"{path.name}" cannot be read: {error.strerror or error}. Check the file and its permissions.') from None
    return found


def tensor_shapes(path: Path) -> list[tuple[int, ...]]:
    """Return the sizes of the tensors of a file that torch saved, in their order; the numbers themselves are not read.

    Raises
    ------
    WeightsError
        If it is damaged, or declares a tensor larger than the file.
    """
    shapes: list[tuple[int, ...]] = []
    archive = Archive(path)
    total = sum(archive.size(name) for name in archive.names)
    for name in archive.names:
        if name.endswith("/data.pkl"):
            with archive.open(name) as stream:
                _follow_all(io.BytesIO(stream.read(_LARGEST_PICKLE)), name, total, path.name, shapes)
    return shapes


def _scan_zip(path: Path) -> list[Finding]:
    archive = Archive(path)
    found: list[Finding] = []
    total = sum(archive.size(name) for name in archive.names)
    for name in archive.names:
        if name.endswith(".pkl"):
            with archive.open(name) as stream:
                found += _follow_all(io.BytesIO(stream.read(_LARGEST_PICKLE)), name, total, path.name)[0]
    return found


class _Global(str):
    """Name of a global on the stack, which is no string of the pickle's."""

    __slots__ = ()


def _follow_all(
    stream: IO[bytes], member: str, size: int, label: str, shapes: list[tuple[int, ...]] | None = None
) -> tuple[list[Finding], Any]:
    """Follow one pickle to its end, as far as names, numbers and tuples go; return what it names and what it makes."""
    shapes = [] if shapes is None else shapes
    found: list[Finding] = []
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    try:
        for count, (opcode, argument, position) in enumerate(_opcodes(stream)):
            if count > _MOST_OPCODES:
                raise WeightsError(f"{label} holds a pickle of more than {_MOST_OPCODES} steps, which no model needs.")
            name = opcode.name
            where = position or 0
            if name in ("GLOBAL", "INST"):
                found.append(Finding(_dotted(argument), where, member))
            elif name == "STACK_GLOBAL":
                module, attribute = stack[-2], stack[-1]
                known = type(module) is str and type(attribute) is str
                found.append(Finding(f"{module}.{attribute}" if known else "?", where, member))
            elif name == "REDUCE":
                _note_shape(stack, shapes)
                _check_call(stack, size, label)
                if not isinstance(stack[-2], _Global):
                    found.append(Finding("?", where, member))
            elif name in ("EXT1", "EXT2", "EXT4"):
                found.append(Finding(f"copyreg extension {argument}", where, member))
            elif name == "NEWOBJ" and not isinstance(stack[-2], _Global):
                found.append(Finding("?", where, member))
            elif name == "BINPERSID":
                _check_storage(stack[-1], size, label, member)
            _follow(opcode, argument, stack, memo)
        return found, stack[-1] if stack else _last(memo)
    except WeightsError:
        raise
    except (ValueError, IndexError, KeyError, UnicodeError, OverflowError, MemoryError, EOFError) as error:
        what = printable(member) + " in " if member else ""
        reason = printable(str(error)) or type(error).__name__
        raise WeightsError(f"{what}{label} is no intact file of weights: {reason}. Get the model again.") from None


def _opcodes(stream: IO[bytes]) -> Iterator[Any]:
    """Yield the opcodes of a pickle; what Python says of odd escapes in old strings is of no interest here."""
    opcodes = pickletools.genops(stream)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = next(opcodes, None)
        if found is None:
            return
        yield found


def _follow(opcode: Any, argument: Any, stack: list[Any], memo: dict[Any, Any]) -> None:
    """Do to the stack what an opcode would do, with a blank for everything that is neither name, number nor tuple."""
    name = opcode.name
    if name == "STOP":
        return  # what was made stays on the stack
    if name == "GLOBAL":
        stack.append(_Global(_dotted(argument)))
    elif name == "STACK_GLOBAL":
        module, attribute = stack.pop(-2), stack.pop()
        stack.append(_Global(f"{module}.{attribute}") if type(module) is type(attribute) is str else None)
    elif name in _STRINGS or name in _INTEGERS:
        stack.append(argument if not isinstance(argument, str) or len(argument) <= _LONGEST else "")
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "MARK":
        stack.append(_MARK)
    elif name == "DUP":
        stack.append(stack[-1])
    elif name in _TUPLES:
        items = stack[-_TUPLES[name] :]
        del stack[-_TUPLES[name] :]
        stack.append(tuple(items))
    elif pickletools.markobject in opcode.stack_before:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        before = opcode.stack_before.index(pickletools.markobject)
        for _ in range(before):
            stack.pop()
        plain = name == "TUPLE" and len(items) <= _LONGEST_TUPLE
        stack.extend([tuple(reversed(items))] if plain else [None] * len(opcode.stack_after))
    else:
        for _ in opcode.stack_before:
            stack.pop()
        stack.extend([None] * len(opcode.stack_after))


def _note_shape(stack: list[Any], shapes: list[tuple[int, ...]]) -> None:
    """Note the size of a tensor that is about to be made."""
    function, arguments = stack[-2], stack[-1]
    if isinstance(function, _Global) and function.startswith("torch._utils._rebuild_tensor") and isinstance(arguments, tuple):
        size = arguments[2] if len(arguments) > 2 else None
        if isinstance(size, tuple) and all(isinstance(side, int) for side in size):
            shapes.append(size)


def _dotted(argument: Any) -> str:
    """Return ``"os.system"`` for ``"os system"``; Python 2's names, which old protocols use, become today's."""
    module, _, name = str(argument).partition(" ")
    return f"{_OLD_MODULES.get(module, module)}.{name}"


def _check_call(stack: list[Any], size: int, label: str) -> None:
    """Refuse to make room for more than the file holds, as ``bytearray(10**11)`` would."""
    function, arguments = stack[-2], stack[-1]
    if isinstance(function, _Global) and function.endswith(_ROOMS) and isinstance(arguments, tuple):
        biggest = max((item for item in arguments if isinstance(item, int)), default=0)
        if biggest > size:
            raise WeightsError(f"{label} asks for room for {biggest} numbers, but has only {size} bytes. It was not loaded.")


def _last(memo: dict[Any, Any]) -> Any:
    return next(reversed(memo.values()), None)


def _check_storage(reference: Any, size: int, label: str, member: str) -> None:
    """Refuse a tensor with more numbers than the file has bytes: ("storage", type, key, place, count, ...)."""
    if not isinstance(reference, tuple) or reference[:1] != ("storage",):
        raise WeightsError(f"{label} refers to something that is no storage of numbers. It was not loaded.")
    biggest = max((item for item in reference[4:5] if isinstance(item, int)), default=0)
    if biggest > size:
        raise WeightsError(f"{label} declares a tensor of {biggest} numbers, but has only {size} bytes. It was not loaded.")
