"""Guidance by two or more conditions of one denoiser: which calls are made, one by one or in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core import Prediction
from kdiff_core.errors import ParameterError
from kdiff_core.known_levels import repeated
from kdiff_core.state import check_output, flatten, rebuild

from .guided import Cond, Guidance, copied

Weighted = tuple[tuple[Cond, float], ...]


def weighted(value: Any) -> Weighted:
    """Return pairs of conditions and a weight.

    Raises:
        ParameterError: Something else, or a weight that is no finite number.
    """
    try:
        pairs = tuple((dict(conditions), float(weight)) for conditions, weight in value)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"{value!r:.60}: give pairs of conditions and their weight: [({{'label': ...}}, 1.5), ...]"
        ) from error
    for _, weight in pairs:
        if not weight - weight == 0:
            raise ParameterError(f"a condition's weight={weight} must be finite")
    return pairs


@frozen(eq=False)
class Pairwise(Guidance):
    """Guidance that compares the denoiser's output under the given conditions with that under none.

    Outside of the interval only the conditional call is made, and `predict` returns it three times. The
    interval, `sigma_low` to `sigma_high`, is that of `Guidance`.

    Args:
        uncond: Conditions that replace those of the same name in the unconditional call; the others stay.
            A tensor of batch size 1 serves every sample. Default, for a denoiser with ``classes``: the
            label -1 ("any") for all.
        batched: One call for all conditions, of as many times the batch size, in place of one for each.

    Raises:
        ParameterError: `uncond` is missing and cannot be guessed.
    """

    uncond: Cond | None = field(default=None, kw_only=True)
    batched: bool = field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.uncond is None and getattr(self.denoiser, "classes", None) is None:
            raise ParameterError(
                f"{type(self).__name__}: the denoiser has no classes, so its unconditional conditions are "
                "not known; pass uncond={...}, the conditions that stand for none (an empty prompt's "
                "embedding, ...)"
            )

    @property
    def extra(self) -> Weighted:
        """Further conditions, each with its weight; each is one more output."""
        return ()

    def predict(self, x: Any, sigma: Tensor, **cond: Any) -> Prediction:
        """Return the guided, the conditional and the unconditional output.

        Args:
            x: State, ``(B, ...)``.
            sigma: Noise level of each sample, ``(B,)``.
            **cond: Conditions.

        Raises:
            DenoiserError: An output is not like the state.
            ParameterError: Conditions that cannot be put into one batch.
        """
        return self._predict(x, sigma, **cond)

    def unguided(self, x: Any, sigma: Tensor, cond: Cond) -> Prediction:
        """The conditional output, three times."""
        given = self.denoiser(x, sigma, **cond)
        return Prediction(given, copied(given), copied(given))

    def evaluate(self, x: Any, sigma: Tensor, cond: Cond, in_parts: bool) -> tuple[Prediction, Sequence[Any]]:
        """The outputs under the given conditions, under none, and under each of the further ones."""
        size = len(sigma)
        none = self.uncond
        if none is None:
            none = {"label": torch.full((size,), -1, dtype=torch.int64, device=sigma.device)}
        changes = [none, *(each for each, _ in self.extra)]
        conditions = [cond, *({**cond, **_rows(change, cond, size)} for change in changes)]
        if self.batched:
            outputs = _one_call(self.denoiser, x, sigma, conditions)
        else:
            outputs = [self.denoiser(x, sigma, **each) for each in conditions]
        return Prediction(outputs[0], outputs[0], outputs[1]), outputs


def _rows(change: Cond, cond: Cond, size: int) -> dict[str, Any]:
    """Repeat each tensor of batch size 1 that replaces one with a row for each sample.

    Raises:
        ParameterError: A tensor that does has rows for another number of samples.
    """
    found = dict(change)
    for name, value in change.items():
        old = cond.get(name)
        if not isinstance(value, Tensor) or not isinstance(old, Tensor) or not value.ndim == old.ndim > 0:
            continue
        if len(old) != size or len(value) == size:
            continue
        if len(value) != 1:
            raise ParameterError(
                f"the compared condition {name!r} has {len(value)} rows, in a call of {size} samples; give "
                "it one row, or put guidance around the chunks of a batch: "
                'get_guidance("cfg", Chunked(model, 4), uncond=...)'
            )
        found[name] = value.expand(size, *value.shape[1:])
    return found


def _one_call(denoiser: Any, x: Any, sigma: Tensor, conditions: Sequence[Cond]) -> list[Any]:
    """Call a denoiser once for several conditions, and return the output of each."""
    number, size = len(conditions), len(sigma)
    given = [leaf.repeat(number, *[1] * (leaf.ndim - 1)) for leaf in flatten(x)]
    whole = rebuild(x, given)
    output = denoiser(whole, repeated(sigma, number), **_joined(conditions, size))
    parts = [torch.split(leaf, size) for leaf in check_output(output, whole, given)]
    # Copies, since a slice would hold the memory of the whole call.
    return [rebuild(x, [part[i].clone() for part in parts]) for i in range(number)]


def _joined(conditions: Sequence[Cond], size: int, where: str = "") -> dict[str, Any]:
    if any(each.keys() != conditions[0].keys() for each in conditions):
        raise ParameterError(
            f"batched=True: the conditions {where}have different names, {[sorted(c) for c in conditions]}; "
            "each call needs the same"
        )
    return {name: _together([each[name] for each in conditions], size, name) for name in conditions[0]}


def _together(values: Sequence[Any], size: int, name: str) -> Any:
    """Put the values of one condition into one batch."""
    first = values[0]
    if all(isinstance(value, Mapping) for value in values):
        return _joined(values, size, f"in {name!r} ")
    if all(isinstance(value, Tensor) and value.ndim and len(value) == size for value in values):
        if all(value.shape == first.shape for value in values):
            return torch.cat(list(values))
        shapes = [tuple(value.shape) for value in values]
        raise ParameterError(f"batched=True: the conditions {name!r} have the shapes {shapes}; pad them")
    same = all(value is first for value in values)
    if same or (not any(isinstance(value, Tensor) for value in values) and all(v == first for v in values)):
        return first
    raise ParameterError(
        f"batched=True: the conditions {name!r} differ and have no row for each of the {size} samples; "
        "leave batched out"
    )
