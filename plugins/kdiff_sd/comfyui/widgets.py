"""Widgets of ComfyUI for the parameters that a sampler, a modifier or a schedule declares, and back."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import attrs

from kdiff_core import parameters as declared
from kdiff_core.building import factory_of, parameters
from kdiff_core.registry import ResolvedEntry

Widget = tuple[Any, dict[str, Any]]
# Least and greatest value that a validator accepts; an end that it excludes is refused with a message.
_RANGES: dict[Any, tuple[float, float]] = {
    declared.positive: (0.0, math.inf),
    declared.not_negative: (0.0, math.inf),
    declared.level: (0.0, math.inf),
    declared.below_one: (0.0, 1.0),
    declared.fraction: (0.0, 1.0),
}
_FAR = 1e6  # ComfyUI's numbers have ends
_STEP = 0.01


class _Parameter(NamedTuple):
    """What is declared of a parameter."""

    default: Any
    validators: list[Any]
    tooltip: str

    @property
    def choices(self) -> dict[str, Any]:
        """What it can be, by its text; empty where that is not one of a few values."""
        found = next((each.choices for each in self.validators if isinstance(each, declared.OneOf)), ())
        return {str(choice): choice for choice in found} if self.default in found else {}


def widgets_of(entry: ResolvedEntry, leave: int = 0) -> dict[str, Widget]:
    """Return a widget for each parameter.

    A number, a choice and a switch become such; everything else is text: empty for the default, else a Python
    literal, or a name.

    Args:
        entry: What is made.
        leave: How many of the first parameters get none.
    """
    return {name: _widget(parameter) for name, parameter in _parameters(entry, leave).items()}


def options_of(entry: ResolvedEntry, values: Mapping[str, Any], leave: int = 0) -> dict[str, Any]:
    """Return the options that the values of the widgets of `widgets_of` stand for; defaults are left out."""
    found = {}
    for name, parameter in _parameters(entry, leave).items():
        kind, more = _widget(parameter)
        value = values.get(name, more["default"])
        if value == more["default"]:
            continue
        if isinstance(kind, list):
            value = parameter.choices[value]
        found[name] = _read(value) if kind == "STRING" else value
    return found


def _parameters(entry: ResolvedEntry, leave: int) -> dict[str, _Parameter]:
    told, fields = _told(entry), _fields(entry)
    return {
        name: _Parameter(
            entry.defaults.get(name, known.default), _validators(fields.get(name)), told.get(name, "")
        )
        for name, known in list((parameters(entry) or {}).items())[leave:]
    }


def _widget(parameter: _Parameter) -> Widget:
    default, validators, tooltip = parameter
    more: dict[str, Any] = {"tooltip": tooltip} if tooltip else {}
    if isinstance(default, bool):
        return "BOOLEAN", {"default": default, **more}
    if choices := parameter.choices:
        return list(choices), {"default": str(default), **more}
    if isinstance(default, int):
        least = next((each.least for each in validators if isinstance(each, declared.Whole)), -int(_FAR))
        return "INT", {"default": default, "min": least, "max": int(_FAR), **more}
    if isinstance(default, float) and math.isfinite(default):
        low, high = next((_RANGES[each] for each in validators if each in _RANGES), (-_FAR, _FAR))
        ends = {"min": low, "max": min(high, _FAR), "step": _STEP, "round": False}
        return "FLOAT", {"default": default, **ends, **more}
    made = default is None or default is inspect.Parameter.empty or default is attrs.NOTHING
    return "STRING", {"default": "" if made else str(default), **more}


def _validators(field: Any) -> list[Any]:
    """Return the single validators of a field."""
    todo, found = [getattr(field, "validator", None)], []
    while todo:
        each = todo.pop(0)
        inner = getattr(each, "_validators", None) or getattr(each, "validator", None)
        if inner is None:
            found.append(each)
        else:
            todo += list(inner) if isinstance(inner, tuple) else [inner]
    return found


def _fields(entry: ResolvedEntry) -> dict[str, Any]:
    factory = factory_of(entry)
    if not (inspect.isclass(factory) and attrs.has(factory)):
        return {}
    return {field.alias or field.name: field for field in attrs.fields(factory)}


def _told(entry: ResolvedEntry) -> dict[str, str]:
    """Return what the docstrings of a class, and of those it comes from, say of the parameters."""
    factory, found = factory_of(entry), dict[str, str]()
    for kind in reversed(inspect.getmro(factory)) if inspect.isclass(factory) else (factory,):
        text = (
            inspect.cleandoc(vars(kind).get("__doc__") or "") if inspect.isclass(kind) else kind.__doc__ or ""
        )
        part = re.search(r"^(?:Attributes|Args):\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
        for name, what in re.findall(r"^    (\w+): ((?:.|\n {8,})*)", part[1] if part else "", re.MULTILINE):
            found[name] = " ".join(what.split())
    return found


def _read(text: str) -> Any:
    """Return the value of a text: a number, a literal, else the text itself."""
    text = text.strip()
    try:
        return float(text) if text.lstrip("+-") == "inf" else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
