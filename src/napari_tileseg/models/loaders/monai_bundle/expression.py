"""The small part of Python that configurations of MONAI bundles need, interpreted, never run.

Numbers, texts, lists, tuples and dictionaries; arithmetic, comparisons, ``a if b else c``; items of lists and dictionaries;
references to other parts of the configuration; and the few calls that say on which device or in which type something is.
"""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Component", "NotPlain", "evaluate"]

_LONGEST = 4000
_MOST = 100_000
"""Most entries of a list or letters of a text that an expression may make."""

_REFERENCE = re.compile(r"@(\w+(?:(?:::|#)\w+)*)")

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "len": len,
    "list": list,
    "tuple": tuple,
    "max": max,
    "min": min,
    "abs": abs,
    "round": round,
    "sum": sum,
    "torch.device": lambda name, *index: str(name),
    "torch.cuda.is_available": lambda: False,
}
"""What may be called. Devices are chosen by the run, so their names are all that is left of them."""

_NAMES = {
    **{f"torch.{name}": name for name in ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8")},
    **{"torch.float": "float32", "torch.double": "float64", "torch.half": "float16", "torch.long": "int64", "torch.bool": "bool"},
    **{"np.float32": "float32", "numpy.float32": "float32", "np.uint8": "uint8", "numpy.uint8": "uint8"},
}

_ITSELF = ("to", "cuda", "cpu", "eval", "float")
"""Methods of networks that move them or change how they compute, not what they are."""


class NotPlain(Exception):
    """The expression needs more of Python than is interpreted; the text says what."""


@dataclass(frozen=True)
class Component:
    """What a configuration wants to be built: the name of a class or function, and its arguments."""

    target: str
    arguments: dict[str, Any] = field(default_factory=dict)
    place: str = ""

    @property
    def name(self) -> str:
        """The name without its package."""
        return self.target.rpartition(".")[2]


def evaluate(text: str, refer: Callable[[str], Any]) -> Any:
    """Return the value of an expression.

    Parameters
    ----------
    text : str
        Without the dollar sign.
    refer : callable
        Returns the value of another part of the configuration by its identifier.

    Raises
    ------
    NotPlain
        If it is no expression, or one that needs more of Python.
    """
    if len(text) > _LONGEST:
        raise NotPlain("it is too long")
    found: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        found.append(match[1])
        return f"_reference_{len(found) - 1}_"

    try:
        tree = ast.parse(_REFERENCE.sub(replaced, text).strip(), mode="eval")
        values = {f"_reference_{index}_": name for index, name in enumerate(found)}
        return _value(tree.body, lambda name: refer(values[name]) if name in values else _unknown(name))
    except NotPlain:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotPlain("it is no plain expression") from None
    except (ArithmeticError, TypeError, LookupError) as error:
        raise NotPlain(f"it cannot be computed: {error}") from None


def _unknown(name: str) -> Any:
    raise NotPlain(f"it uses {name}")


def _value(node: ast.expr, name: Callable[[str], Any]) -> Any:
    match node:
        case ast.Constant(value=value) if isinstance(value, int | float | str | bool | None):
            return value
        case ast.List(elts=parts):
            return [_value(part, name) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part, name) for part in parts)
        case ast.Dict(keys=keys, values=values) if all(key is not None for key in keys):
            return {_value(key, name): _value(value, name) for key, value in zip(keys, values, strict=True) if key is not None}
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_value(operand, name))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return _binary(sign, _value(left, name), _value(right, name))
        case ast.BoolOp(op=sign, values=parts):
            return _either(sign, parts, name)
        case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in _COMPARE:
            return _COMPARE[type(sign)](_value(left, name), _value(right, name))
        case ast.IfExp(test=test, body=body, orelse=other):
            return _value(body if _value(test, name) else other, name)
        case ast.Subscript(value=inner, slice=index) if not isinstance(index, ast.Slice):
            return _item(_value(inner, name), _value(index, name))
        case ast.Subscript(value=inner, slice=ast.Slice(lower=lower, upper=upper, step=step)):
            limits = [_value(limit, name) if limit is not None else None for limit in (lower, upper, step)]
            return _item(_value(inner, name), slice(*limits))
        case ast.Call():
            return _call(node, name)
        case ast.Name(id=identifier):
            return name(identifier)
        case ast.Attribute():
            dotted = ast.unparse(node)
            if dotted in _NAMES:
                return _NAMES[dotted]
            raise NotPlain(f"it uses {dotted}")
    raise NotPlain(f"it holds {ast.unparse(node)}")


def _binary(sign: ast.operator, left: Any, right: Any) -> Any:
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if not numbers:
        sequences = isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple)
        repeated = isinstance(left, list | tuple | str) and isinstance(right, int)
        if not ((isinstance(sign, ast.Add) and sequences) or (isinstance(sign, ast.Mult) and repeated)):
            raise NotPlain("it computes with something else than numbers and lists")
        amount = len(left) + len(right) if sequences else len(left) * max(right, 0)
        if amount > _MOST:
            raise NotPlain("it makes a list that is too long")
    elif isinstance(sign, ast.Pow) and (abs(left) > 10**6 or not 0 <= right <= 16):
        raise NotPlain("it computes with numbers that are too large")
    elif abs(left) > 1e100 or abs(right) > 1e100:
        raise NotPlain("it computes with numbers that are too large")
    return _BINARY[type(sign)](left, right)


def _either(sign: ast.boolop, parts: list[ast.expr], name: Callable[[str], Any]) -> Any:
    value: Any = None
    for part in parts:
        value = _value(part, name)
        if bool(value) != isinstance(sign, ast.And):
            break
    return value


def _item(value: Any, index: Any) -> Any:
    if not isinstance(value, list | tuple | dict | str):
        raise NotPlain("it looks into something that is no list or dictionary")
    return value[index]


def _call(node: ast.Call, name: Callable[[str], Any]) -> Any:
    called = ast.unparse(node.func)
    if any(keyword.arg is None for keyword in node.keywords) or any(isinstance(part, ast.Starred) for part in node.args):
        raise NotPlain(f"it calls {called} with arguments that are not written out")
    if called in _CALLS:
        arguments = [_value(part, name) for part in node.args]
        if not all(isinstance(part, int | float | str | bool | list | tuple | dict | None) for part in arguments):
            raise NotPlain(f"it calls {called} with something that is no plain value")
        return _CALLS[called](*arguments, **{str(keyword.arg): _value(keyword.value, name) for keyword in node.keywords})
    if isinstance(node.func, ast.Attribute) and node.func.attr in _ITSELF:
        value = _value(node.func.value, name)
        if isinstance(value, Component):
            return value
    raise NotPlain(f"it calls {called}")
