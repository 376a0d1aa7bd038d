"""Validators for the parameters of samplers and schedules (attrs), whose refusals are `ParameterError`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attrs import Attribute, frozen

from .errors import ParameterError

Validator = Callable[[Any, "Attribute[Any]", Any], None]


def _refuse(instance: object, attribute: Attribute[Any], value: Any, wanted: str) -> ParameterError:
    return ParameterError(f"{type(instance).__name__}: {attribute.name}={value!r} must be {wanted}")


def positive(instance: object, attribute: Attribute[Any], value: float) -> None:
    """Accept a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise _refuse(instance, attribute, value, "a finite number above 0")


def not_negative(instance: object, attribute: Attribute[Any], value: float) -> None:
    """Accept a finite number of at least 0."""
    if not (math.isfinite(value) and value >= 0):
        raise _refuse(instance, attribute, value, "a finite number of at least 0")


def level(instance: object, attribute: Attribute[Any], value: float) -> None:
    """Accept a noise level: a number of at least 0, also infinite."""
    if not value >= 0:
        raise _refuse(instance, attribute, value, "a noise level, a number of at least 0")


def finite(instance: object, attribute: Attribute[Any], value: float) -> None:
    """Refuse numbers that are not finite."""
    if not math.isfinite(value):
        raise _refuse(instance, attribute, value, "finite")


def below_one(instance: object, attribute: Attribute[Any], value: float) -> None:
    """Accept a number between 0 and 1, both excluded."""
    if not 0 < value < 1:
        raise _refuse(instance, attribute, value, "between 0 and 1")


def fraction(instance: object, attribute: Attribute[Any], value: float) -> None:
    """Accept a number above 0 and at most 1."""
    if not 0 < value <= 1:
        raise _refuse(instance, attribute, value, "above 0 and at most 1")


@frozen
class Whole:
    """Accepts a whole number (an int, no bool) of at least `least`; `whole` makes it."""

    least: int

    def __call__(self, instance: object, attribute: Attribute[Any], value: Any) -> None:
        """Accept the value, or raise."""
        if type(value) is not int or value < self.least:
            raise _refuse(instance, attribute, value, f"a whole number of at least {self.least}")


@frozen
class OneOf:
    """Accepts one of some values, of their very type (1, not True or 1.0); `one_of` makes it."""

    choices: tuple[Any, ...]

    def __call__(self, instance: object, attribute: Attribute[Any], value: Any) -> None:
        """Accept the value, or raise."""
        if not any(type(value) is type(choice) and value == choice for choice in self.choices):
            raise _refuse(instance, attribute, value, "one of " + ", ".join(map(repr, self.choices)))


def whole(least: int) -> Whole:
    """Accept a whole number (an int, no bool) of at least `least`."""
    return Whole(least)


def one_of(*choices: Any) -> OneOf:
    """Accept one of some values, of their very type (1, not True or 1.0)."""
    return OneOf(choices)
