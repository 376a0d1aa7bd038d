"""Validators of parameters: what they accept, and that a form can be made of them."""

from __future__ import annotations

import attrs
import pytest
from attrs import field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.parameters import OneOf, Whole, one_of, whole


@frozen
class Settings:
    mode: object = field(default="a", validator=one_of("a", 1, False))
    count: object = field(default=2, validator=whole(2))


@pytest.mark.parametrize("given", [{"mode": 1}, {"mode": False}, {"count": 7}])
def test_what_is_meant_is_accepted(given):
    """A choice, and a whole number from the least on, are taken as they are."""
    made = Settings(**given)
    assert {name: getattr(made, name) for name in given} == given


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mode": True}, "mode=True must be one of 'a', 1, False"),
        ({"mode": 1.0}, "mode=1.0 must be one of 'a', 1, False"),
        ({"mode": 0}, "mode=0 must be one of"),
        ({"count": 1}, "count=1 must be a whole number of at least 2"),
        ({"count": 2.0}, "count=2.0 must be a whole number"),
        ({"count": True}, "count=True must be a whole number"),
    ],
)
def test_what_only_looks_alike_is_refused(given, says):
    """1 is not True and 2.0 is no whole number: who means something else is told."""
    with pytest.raises(ParameterError, match=says):
        Settings(**given)


def test_choices_and_bounds_can_be_read():
    """What makes a form of a class finds the choices and the least number in its fields."""
    fields = attrs.fields(Settings)
    assert fields.mode.validator == OneOf(("a", 1, False))
    assert fields.count.validator == Whole(2)
