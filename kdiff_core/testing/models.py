"""The laws of networks: `check_model` tries them on an architecture, of this project or of anyone's.

What a network is: called as ``network(x, time, **cond)``; it has ``name``, ``config``, ``param_groups`` and
``set_checkpointing``, and conditions that are absent, None or null say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..lookup import get_model
from .catalogue import LawBroken
from .laws.networks import LAWS
from .trial import Trial

# What stands for nothing, of conditions with the usual names.
NULLS: dict[str, Callable[[Tensor], Tensor]] = {
    "label": lambda value: torch.full_like(value, -1),
    "token_mask": torch.zeros_like,
}


def trial_of(
    model: str | Callable[[], Any],
    x: Tensor,
    cond: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    **options: Any,
) -> Trial:
    """Return what the laws are tried on; see `check_model`."""
    build = (lambda: get_model(model, **options)) if isinstance(model, str) else model
    cond = dict(cond or {})
    nulls = {name: NULLS.get(name, torch.zeros_like)(value) for name, value in cond.items()}
    if "tokens" in cond and "token_mask" not in cond:
        nulls["token_mask"] = torch.zeros(cond["tokens"].shape[:2], dtype=torch.bool, device=x.device)
    time = torch.linspace(-1, 0.8, x.shape[0], device=x.device)
    return Trial(build, x, time, cond, {**nulls, **(null or {})})


def check_model(
    model: str | Callable[[], Any],
    x: Tensor,
    cond: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    skip: Iterable[str] = (),
    **options: Any,
) -> list[str]:
    """Try the laws of networks on an architecture.

    Args:
        model: Name of a registered model, or a function that makes a network.
        x: A state, ``(B, C, *spatial)``, of two samples or more and of a size that suits the architecture.
        cond: Values of all its conditions by name, none of them null.
        null: Values that stand for nothing, where they are neither zeros nor, of ``label``, -1.
        skip: Names of laws that do not hold by design.
        **options: Of the model's name.

    Returns:
        The names of the laws that hold.

    Raises:
        LawBroken: Some do not; the message has each.
    """
    trial = trial_of(model, x, cond, null, **options)
    held, faults = [], []
    for name, law in LAWS.items():
        if name in skip:
            continue
        try:
            law(trial)
            held.append(name)
        except LawBroken as error:
            faults.append(f"{name}: {error}" + "".join(f"; {k} = {v:.4g}" for k, v in error.numbers.items()))
    if faults:
        raise LawBroken("\n".join([f"{model} breaks {len(faults)} of the laws of networks:", *faults]))
    return held
