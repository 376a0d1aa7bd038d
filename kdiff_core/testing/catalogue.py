"""The catalogue of checks: plain functions of a subject and an example, registered by `law`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from attrs import field, frozen

from ..errors import ParameterError
from ..names import nearest, quoted

F = TypeVar("F", bound=Callable[..., Any])
KINDS = ("sampler", "schedule", "process", "noise", "denoiser", "path")
# Modules that register checks on import, in the order in which they are run.
_MODULES = (
    "order", "exactness", "distribution", "plans", "running", "compiling", "values",
    "schedules", "noise", "denoisers", "paths",
)  # fmt: skip


class LawBroken(AssertionError):  # noqa: N818  # it is a finding, not an error
    """A subject does not keep a law.

    Attributes:
        numbers: What was measured, and what it should be.
    """

    def __init__(self, message: str, **numbers: Any) -> None:
        super().__init__(message)
        self.numbers = numbers


def require(holds: bool, message: str, **numbers: Any) -> None:
    """Raise `LawBroken` unless something holds."""
    if not holds:
        raise LawBroken(message, **numbers)


@frozen
class Check:
    """A law and how it is tried.

    Attributes:
        name: The function's name.
        kind: What it is about, one of `KINDS`.
        function: ``function(subject, **example)``: returns what it measured, by name, or None; raises
            `LawBroken` where the law does not hold. Anyone may call it by hand.
        strategies: Hypothesis strategies of the example's arguments, or functions of the path that make one.
        when: Whether it applies to a subject.
        share: Part of the examples that it gets, by its cost.
        slow: Whether it is left out by default.
    """

    name: str
    kind: str
    function: Callable[..., Mapping[str, float] | None] = field(repr=False)
    strategies: Mapping[str, Any] = field(factory=dict, repr=False)
    when: Callable[[Any], bool] = field(default=lambda subject: True, repr=False)
    share: float = 1.0
    slow: bool = False

    @property
    def law(self) -> str:
        """The law in a sentence: the first line of the docstring."""
        return self._paragraphs()[0]

    @property
    def reason(self) -> str:
        """Why it must hold, and what breaks it: the rest of the docstring."""
        return "\n\n".join(self._paragraphs()[1:])

    def _paragraphs(self) -> list[str]:
        return [" ".join(part.split()) for part in (inspect.getdoc(self.function) or "").split("\n\n")]

    def takes(self, name: str) -> bool:
        """Whether the function has a parameter of this name."""
        return name in inspect.signature(self.function).parameters


_CATALOGUE: dict[tuple[str, str], Check] = {}


def law(
    kind: str,
    /,
    *,
    when: Callable[[Any], bool] = lambda subject: True,
    share: float = 1.0,
    slow: bool = False,
    **strategies: Any,
) -> Callable[[F], F]:
    """Register a function as a check; it stays a plain function.

    A parameter named `path`, `device` or `dtype` is filled in from the settings; the others have a strategy
    or a default. The docstring's first line is the law, the rest is the reason.

    Args:
        kind: What it is about, one of `KINDS`.
        when: Whether it applies to a subject.
        share: Part of the examples that it gets.
        slow: Whether it is left out by default.
        **strategies: Strategy of each argument, or a function that makes one of the path.

    Raises:
        ParameterError: Another kind, a name that is taken, or a function without a docstring.
    """

    def register(function: F) -> F:
        name = function.__name__
        if kind not in KINDS:
            raise ParameterError(f"law({kind!r}): the kinds are {quoted(KINDS)}")
        if not inspect.getdoc(function):
            raise ParameterError(f"the check {name} needs a docstring: its law, then the reason")
        other = _CATALOGUE.get((kind, name))
        if other is not None and other.function.__module__ != function.__module__:
            raise ParameterError(f"there is a check {name!r} of a {kind} in {other.function.__module__}")
        _CATALOGUE[kind, name] = Check(name, kind, function, strategies, when, share, slow)
        return function

    return register


@cache
def _load() -> None:
    for module in _MODULES:
        import_module(f".laws.{module}", __package__)


def all_checks(kind: str | None = None) -> list[Check]:
    """Every check, or those of a kind."""
    _load()
    return [check for check in _CATALOGUE.values() if kind in (None, check.kind)]


def find_check(kind: str, name: str) -> Check:
    """The check of a name.

    Raises:
        ParameterError: There is none; the message has the nearest names.
    """
    names = {check.name: check for check in all_checks(kind)}
    if name not in names:
        close = quoted(nearest(name, {n: n for n in names}), "or") or quoted(sorted(names))
        raise ParameterError(f"there is no check {name!r} of a {kind}; did you mean {close}?")
    return names[name]


def checks_for(subject: Any, kind: str = "sampler") -> Iterator[Check]:
    """Yield the checks that apply to a subject, according to what it declares."""
    for check in all_checks(kind):
        if check.when(subject):
            yield check
