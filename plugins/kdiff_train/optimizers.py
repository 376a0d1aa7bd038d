"""Optimisers by name, and their state as tensors and JSON."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kdiff_core.errors import MissingExtraError, ParameterError
from kdiff_core.names import did_you_mean, quoted

# By import path: what is not installed, or not in this torch, is not asked for.
OPTIMIZERS = {
    "adamw": "torch.optim:AdamW",
    "adam": "torch.optim:Adam",
    "sgd": "torch.optim:SGD",
    "muon": "torch.optim:Muon",
    "adamw_8bit": "bitsandbytes.optim:AdamW8bit",
    "adam_8bit": "bitsandbytes.optim:Adam8bit",
}


def make_optimizer(
    name: str, network: nn.Module, *, lr: float, weight_decay: float = 0.0, **options: Any
) -> Optimizer:
    """Return an optimiser over a network's parameters.

    Args:
        name: A name in `OPTIMIZERS`, or an import path, ``"package.module:Class"``. "muon" (Jordan et al.
            2024) takes the matrices, AdamW with the same rate the other parameters.
        network: If it has ``param_groups(weight_decay)``, that says which parameters decay.
        lr: Learning rate, above 0.
        weight_decay: At least 0.
        **options: Its other arguments, such as ``betas`` or ``fused``.

    Raises:
        ParameterError: An unknown name, or an argument that it does not take.
        MissingExtraError: Its package is not installed, or this torch does not have it.
    """
    if not lr > 0 or not weight_decay >= 0:
        raise ParameterError(f"optimizer: lr={lr} must be above 0, weight_decay={weight_decay} at least 0")
    groups = _groups(network, weight_decay)
    make = _load(name)
    try:
        if name == "muon":
            return _muon(make, groups, lr, options)
        return make(groups, lr=lr, **options)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"optimizer {name!r}: {error}") from error


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    own = getattr(network, "param_groups", None)
    if own is not None:
        return [dict(group) for group in own(weight_decay)]
    return [{"params": [p for p in network.parameters() if p.requires_grad], "weight_decay": weight_decay}]


def _load(name: str) -> Callable[..., Optimizer]:
    if name not in OPTIMIZERS and ":" not in name:
        raise ParameterError(
            f"optimizer {name!r}: there are {quoted(OPTIMIZERS)}, or a class as 'package.module:Class'"
            f"{did_you_mean(name, OPTIMIZERS)}"
        )
    module, _, attribute = OPTIMIZERS.get(name, name).partition(":")
    try:
        found: Callable[..., Optimizer] = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"optimizer {name!r} is {attribute} of {package}, which cannot be imported ({error}): "
            f"pip install {package}"
        ) from error
    except AttributeError as error:
        raise MissingExtraError(
            f"optimizer {name!r}: {module} has no {attribute}"
            + (f" (torch {torch.__version__}; a newer one may)" if module == "torch.optim" else "")
        ) from error
    return found


class Several(Optimizer):
    """Optimisers side by side as one; the rate of each group is its own."""

    def __init__(self, parts: Iterable[Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([p for part in self.parts for g in part.param_groups for p in g["params"]], {})
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step with each."""
        for part in self.parts:
            part.step()


def _muon(
    make: Callable[..., Optimizer], groups: list[dict[str, Any]], lr: float, options: Mapping[str, Any]
) -> Optimizer:
    """Return Muon for matrices and AdamW for the rest."""
    split: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for group in groups:
        for matrix, found in split.items():
            params = [p for p in group["params"] if (p.ndim == 2) == matrix]
            if params:
                found.append({**group, "params": params})
    parts = [make(split[True], lr=lr, **options)] if split[True] else []
    if split[False]:
        parts.append(torch.optim.AdamW(split[False], lr=lr))
    return Several(parts)


def parts(optimizer: Any) -> list[Optimizer]:
    """Return the optimisers of torch that one is made of, without accelerate's wrapper."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return inner.parts if isinstance(inner, Several) else [inner]


def optimizer_state(optimizer: Any) -> tuple[dict[str, Tensor], list[Any]]:
    """Return an optimiser's state as tensors by name, and the rest, which JSON can hold.

    Raises:
        ParameterError: It holds something that is neither.
    """
    tensors: dict[str, Tensor] = {}
    rest: list[Any] = []
    for number, part in enumerate(parts(optimizer)):
        numbers: dict[str, dict[str, Any]] = {}
        for index, state in part.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"{number}.{index}.{key}"] = value
                elif value is None or isinstance(value, bool | int | float | str):
                    numbers.setdefault(str(index), {})[key] = value
                else:
                    raise ParameterError(
                        f"optimizer {type(part).__name__}: its state {key!r} is a {type(value).__name__}; "
                        "a checkpoint holds tensors and numbers"
                    )
        rest.append(numbers)
    return tensors, rest


def load_optimizer_state(optimizer: Any, tensors: Mapping[str, Tensor], rest: list[Any]) -> None:
    """Give an optimiser back what `optimizer_state` returned; rates and other options stay as they are."""
    for number, part in enumerate(parts(optimizer)):
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            owner, index, key = name.split(".", 2)
            if int(owner) == number:
                state.setdefault(int(index), {})[key] = tensor
        for index, numbers in rest[number].items():
            state.setdefault(int(index), {}).update(numbers)
        part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
