"""Values as the Python that makes them: imports, and an expression."""

from __future__ import annotations

import functools
import math
from enum import Enum
from typing import Any

import attrs

from ..path import FLOW, VE

# In place of an import where there is none.
LOCAL = "# run where the subject is defined"


def reseeded(value: Any, seed: Any) -> Any:
    """A noise source with another seed."""
    return attrs.evolve(value, seed=seed)


def source_of(value: Any) -> tuple[tuple[str, ...], str]:
    """Imports, and an expression that makes a value, as well as it can be known from the value."""
    imports: set[str] = set()
    expression = _written_out(value, imports)
    return tuple(sorted(imports)), expression


def _written_out(value: Any, imports: set[str]) -> str:
    """The expression; adds what it needs to `imports`. Parameters at their default are left out."""
    if value is VE or value is FLOW:
        imports.add("import kdiff_core as kd")
        return f"kd.{value.name.upper()}"
    if isinstance(value, functools.partial) and value.func is reseeded:
        imports.add("import attrs")
        return f"lambda seed: attrs.evolve({_written_out(value.args[0], imports)}, seed=seed)"
    if hasattr(value, "__qualname__"):
        return _imported(value, imports)
    if type(value) in (list, tuple, set, frozenset):
        return _written_collection(value, imports)
    return _written_attrs(value, imports) if attrs.has(type(value)) else _written_plain(value, imports)


def _written_plain(value: Any, imports: set[str]) -> str:
    if isinstance(value, Enum):
        return f"{_imported(type(value), imports)}.{value.name}"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if type(value).__module__ != "builtins":
        imports.add(f"from {type(value).__module__} import {type(value).__name__}")
    return repr(value)


def _written_attrs(value: Any, imports: set[str]) -> str:
    given = [
        f"{field.alias}={_written_out(getattr(value, field.name), imports)}"
        for field in attrs.fields(type(value))
        if field.init and not _at_default(value, field)
    ]
    return f"{_imported(type(value), imports)}({', '.join(given)})"


def _written_collection(value: Any, imports: set[str]) -> str:
    items = [_written_out(item, imports) for item in value]
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}([{', '.join(sorted(items))}])"  # in one order in each process
    inside = ", ".join(items)
    return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(items) == 1)})"


def _at_default(value: Any, field: attrs.Attribute[Any]) -> bool:
    held = getattr(value, field.name)
    return type(field.default) is type(held) and bool(held == field.default)


def _imported(thing: Any, imports: set[str]) -> str:
    """The name of a class or function, and its import; from inside a function nothing can be imported."""
    name = str(thing.__qualname__).rpartition("<locals>.")[2]
    local = "<" in thing.__qualname__ or thing.__module__ == "__main__"
    if thing.__module__ != "builtins":
        imports.add(LOCAL if local else f"from {thing.__module__} import {name.partition('.')[0]}")
    return name
