"""What waits for a shared model call: rows of states, put together by shape and by conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .context import Prediction
from .state import Leaves, check_output, flatten, flatten_like, rebuild

if TYPE_CHECKING:
    from .request import Request


class Pending:
    """An evaluation that a request waits for.

    Attributes:
        request: The request.
        size: Its batch size.
        key: Equal for evaluations that may share a call.
        since: Number of model calls before it was asked for.
        left: Rows that no call has taken yet.
        error: What the model raised for it.
    """

    def __init__(
        self, request: Request, method: str, x: Any, sigma: Any, cond: dict[str, Any], since: int
    ) -> None:
        self.request, self.method, self.x, self.sigma, self.cond = request, method, x, sigma, cond
        self.size = self.left = len(sigma)
        self.since = since
        self.key: Hashable = (method, _kind(x, self.size), _kind(cond, self.size))
        self.error: BaseException | None = None
        self.parts: list[list[Leaves]] = []

    def take(self, rows: int) -> Share:
        """Take some of the rows that are left for a call."""
        start = self.size - self.left
        self.left -= rows
        return Share(self, start, rows)

    def output(self) -> Any:
        """What the model returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        outputs = [rebuild(self.x, joined(list(leaves))) for leaves in zip(*self.parts, strict=True)]
        return Prediction(*outputs) if self.method else outputs[0]


class Share(NamedTuple):
    """Rows of an evaluation that are part of one call."""

    pending: Pending
    start: int
    rows: int

    def give_back(self) -> None:
        """Undo `Pending.take`: the call was not made."""
        self.pending.left += self.rows

    def of(self, value: Any) -> Leaves:
        """Of a state or of conditions the tensors that have a row for each sample, these rows of them."""
        found: Leaves = []
        map_rows(value, self.pending.size, lambda leaf: found.append(leaf) or leaf)  # type: ignore[func-returns-value]
        if self.rows == self.pending.size:
            return found
        return [leaf[self.start : self.start + self.rows] for leaf in found]


def answer(denoiser: Any, shares: list[Share]) -> None:
    """Call the model once, and give each evaluation its rows of the outputs.

    Raises:
        DenoiserError: An output that is not like the state.
    """
    first = shares[0].pending
    x, cond, sigma = (_merged(shares, name) for name in ("x", "cond", "sigma"))
    result = getattr(denoiser, first.method)(x, sigma, **cond) if first.method else denoiser(x, sigma, **cond)
    outputs = [getattr(result, name) for name in Prediction._fields] if first.method else [result]
    leaves = flatten(x)
    whole = [rebuild(x, check_output(output, x, leaves)) for output in outputs]
    end, parts = 0, []
    for share in shares:
        rows, end = slice(end, end + share.rows), end + share.rows
        # In the order of its own state. Copies, since a slice would hold the memory of the whole call.
        found = [flatten_like(share.pending.x, output) for output in whole]
        alone = len(shares) == 1
        parts.append(found if alone else [[leaf[rows].clone() for leaf in output] for output in found])
    for share, part in zip(shares, parts, strict=True):
        share.pending.parts.append(part)


def _merged(shares: list[Share], name: str) -> Any:
    """The states, levels or conditions of all rows; what has no rows is the first's."""
    first = shares[0]
    value = getattr(first.pending, name)
    if len(shares) == 1 and first.rows == first.pending.size:
        return value
    whole = iter(joined([share.of(getattr(share.pending, name)) for share in shares]))
    return map_rows(value, first.pending.size, lambda leaf: next(whole))


def joined(parts: list[Leaves]) -> Leaves:
    """Lists of tensors, put together row by row."""
    return [torch.cat(column) for column in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]


def _has_rows(value: Tensor, size: int) -> bool:
    return value.ndim > 0 and len(value) == size


def _kind(value: Any, size: int) -> Hashable:
    """What two values that are put together have in common."""
    if isinstance(value, Tensor) and _has_rows(value, size):
        return ("rows", value.shape[1:], value.dtype, value.device)
    if isinstance(value, dict):
        return (type(value), *((key, _kind(value[key], size)) for key in sorted(value)))
    if isinstance(value, (list, tuple)):
        return (type(value), *(_kind(item, size) for item in value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return (type(value), *(_kind(getattr(value, f.name), size) for f in dataclasses.fields(value)))
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return (type(value), value)
    return ("same object", id(value))


def map_rows(value: Any, size: int, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest, its tensors that have a row for each sample changed, in a fixed order."""
    if isinstance(value, Tensor):
        return change(value) if _has_rows(value, size) else value
    if isinstance(value, dict):
        return type(value)((key, map_rows(value[key], size, change)) for key in sorted(value))
    if isinstance(value, (list, tuple)):
        items = [map_rows(item, size, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        return dataclasses.replace(value, **{n: map_rows(getattr(value, n), size, change) for n in names})
    return value
