"""Functions of the tensors in a state, for samplers that are not linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def per_leaf(function: Callable[..., Any], *states: Any) -> Any:
    """Apply a function of tensors to states: to the tensors themselves, or to each one of their nests.

    Args:
        function: Of as many tensors as there are states; returns one of their shape, or one that broadcasts.
        *states: What a step is given and what `ctx` gives it, all of one structure.
    """
    from kdiff_core.state import Nest

    first = states[0]
    if not isinstance(first, Nest):
        return function(*states)
    return Nest(first.like, [function(*leaves) for leaves in zip(*(s.leaves for s in states), strict=True)])
