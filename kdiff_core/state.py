"""States as lists of tensors: a tensor, or any nest (dict, list, tuple, dataclass) with one batch size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import DenoiserError, StateError

Leaves = list[Tensor]
_WIDE = (torch.float32, torch.float64)


def flatten(state: Any) -> Leaves:
    """Return the tensors of a state, in a fixed order."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, dict):
        return [leaf for key in state for leaf in flatten(state[key])]
    if isinstance(state, (list, tuple)):
        return [leaf for item in state for leaf in flatten(item)]
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return [leaf for f in dataclasses.fields(state) for leaf in flatten(getattr(state, f.name))]
    raise StateError(
        f"x: {_where(state)} is no state; give a tensor, or a dict, list, tuple or dataclass of tensors"
    )


def flatten_like(like: Any, state: Any) -> Leaves:
    """Return the tensors of a state in the order of another, of which it must have the structure.

    Raises:
        StateError: Another structure: other keys, another length, something else than a tensor.
    """
    if isinstance(like, Tensor) and isinstance(state, Tensor):
        return [state]
    if isinstance(like, dict) and isinstance(state, dict) and like.keys() == state.keys():
        return [leaf for key in like for leaf in flatten_like(like[key], state[key])]
    if isinstance(like, (list, tuple)) and isinstance(state, (list, tuple)) and len(like) == len(state):
        return [leaf for a, b in zip(like, state, strict=True) for leaf in flatten_like(a, b)]
    if dataclasses.is_dataclass(like) and type(state) is type(like):
        names = [f.name for f in dataclasses.fields(like)]
        return [leaf for n in names for leaf in flatten_like(getattr(like, n), getattr(state, n))]
    raise StateError(f"{_where(state)} has not the structure of {_where(like)}")


def rebuild(like: Any, leaves: Sequence[Tensor]) -> Any:
    """Put leaves back into the shape of a nest."""
    if isinstance(like, Tensor):
        return leaves[0]
    remaining = iter(leaves)
    return _rebuild(like, lambda: next(remaining))


def _rebuild(like: Any, take: Callable[[], Tensor]) -> Any:
    if isinstance(like, Tensor):
        return take()
    if isinstance(like, dict):
        return type(like)((key, _rebuild(value, take)) for key, value in like.items())
    if isinstance(like, (list, tuple)):
        items = [_rebuild(item, take) for item in like]
        return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)
    changes = {f.name: _rebuild(getattr(like, f.name), take) for f in dataclasses.fields(like)}
    return dataclasses.replace(like, **changes)


def _where(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.40}"


def check_state(state: Any) -> Leaves:
    """Check an initial state and return its tensors.

    Raises:
        StateError: Not floating point, no batch dimension, several batch sizes or devices, not finite.
    """
    leaves = check_like(state)
    for leaf in leaves:
        if not all_finite(leaf):
            raise StateError("x: the initial state has NaN or infinite values")
    return leaves


def check_like(state: Any) -> Leaves:
    """Check all of a state but its values and return its tensors.

    Raises:
        StateError: Not floating point, no batch dimension, several batch sizes or devices.
    """
    leaves = flatten(state)
    if not leaves:
        raise StateError("x: the state has no tensor in it")
    batch, device = leaves[0].shape[:1], leaves[0].device
    for leaf in leaves:
        shape = tuple(leaf.shape)
        if not leaf.is_floating_point():
            raise StateError(f"x: a state of dtype {leaf.dtype}; samplers need floating point: x.float()")
        if leaf.ndim == 0 or leaf.numel() == 0:
            raise StateError(
                f"x: a state of shape {shape}; it needs a batch dimension first: (B, ...), B > 0"
            )
        if leaf.shape[:1] != batch or leaf.device != device:
            raise StateError(
                f"x: tensors of one state with batch {batch[0]} on {device} and batch {shape[0]} on "
                f"{leaf.device}; all need the same"
            )
    return leaves


def all_finite(leaf: Tensor) -> bool:
    """Whether every value is finite; one read, and a second one only if the sum overflows."""
    total = float(total_of(leaf))
    return total - total == 0 or bool(torch.isfinite(leaf).all())


def wide(leaf: Tensor) -> torch.dtype:
    """The tensor's dtype, or float32 for one in half precision."""
    return leaf.dtype if leaf.dtype in _WIDE else torch.float32


def total_of(leaf: Tensor) -> Tensor:
    """Sum of all values, on the leaf's device; not finite if one of them is not, or if it overflows."""
    leaf = leaf.detach() if leaf.requires_grad else leaf
    return leaf.sum() if leaf.dtype in _WIDE else leaf.sum(dtype=torch.float32)


def check_output(output: Any, x: Any, leaves: Leaves) -> Leaves:
    """Check what a denoiser returned against the state it was given, and cast it to the state's dtype.

    Raises:
        DenoiserError: Another structure, shape or device, or no tensor.
    """
    if isinstance(x, Tensor) and not isinstance(output, Tensor):
        raise DenoiserError(
            f"the denoiser returned a {type(output).__name__}; it returns a tensor of shape "
            f"{tuple(x.shape)}, the denoised state"
        )
    try:
        found = flatten_like(x, output)
    except StateError as error:
        raise DenoiserError(f"the denoiser returned another structure than it was given: {error}") from error
    for i, (new, old) in enumerate(zip(found, leaves, strict=True)):
        if new.shape != old.shape or new.device != old.device:
            raise DenoiserError(
                f"the denoiser returned shape {tuple(new.shape)} on {new.device} for a state of shape "
                f"{tuple(old.shape)} on {old.device}; both must be equal"
            )
        if not new.is_floating_point():
            raise DenoiserError(f"the denoiser returned {new.dtype}; it returns floating point")
        if new.dtype != old.dtype:
            found[i] = new.to(old.dtype)
    return found


class Nest:
    """Arithmetic on a nest, for samplers that run on tensors: sums, and products with numbers.

    Where samples choose their own steps a number may be a vector ``(B,)``, one number for each sample.
    """

    __slots__ = ("leaves", "like")

    def __init__(self, like: Any, leaves: Sequence[Tensor]) -> None:
        self.like = like
        self.leaves = leaves

    def _each(self, other: Any, f: Callable[[Tensor, Any], Tensor]) -> Nest:
        if isinstance(other, Tensor) and other.ndim:
            # In half precision the numbers are as accurate as a single number would be.
            columns = [other.to(leaf.device, wide(leaf)).reshape(-1, *[1] * (leaf.ndim - 1))
                       for leaf in self.leaves]  # fmt: skip
            pairs = zip(self.leaves, columns, strict=True)
            return Nest(self.like, [f(leaf, column).to(leaf.dtype) for leaf, column in pairs])
        others = other.leaves if isinstance(other, Nest) else [other] * len(self.leaves)
        return Nest(self.like, [f(a, b) for a, b in zip(self.leaves, others, strict=True)])

    def __add__(self, other: Any) -> Nest:
        """Add another nest."""
        return self._each(other, torch.add)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Nest:
        """Subtract another nest."""
        return self._each(other, torch.sub)

    def __rsub__(self, other: Any) -> Nest:
        """Subtract from another nest."""
        return (-self)._each(other, torch.add)

    def __neg__(self) -> Nest:
        """Negate."""
        return self * -1.0

    def __mul__(self, factor: Any) -> Nest:
        """Multiply by a number, or by one for each sample."""
        return self._each(factor, torch.mul)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Nest:
        """Divide by a number, or by one for each sample."""
        return self._each(divisor, torch.div)
