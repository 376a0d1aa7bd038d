"""Counting what a run does to tensors: state-sized kernels, reads of values, live state-sized memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

VIEWS = {"aten::detach", "aten::alias", "aten::view", "aten::split.Tensor", "aten::slice.Tensor",
         "aten::select.int", "aten::unsqueeze", "aten::expand", "aten::unbind.int", "aten::_unsafe_view",
         "aten::lift_fresh"}  # fmt: skip
ALLOCATIONS = {"aten::empty_like", "aten::empty.memory_format", "aten::empty_strided"}


class Counting(TorchDispatchMode):
    """While it is entered: every dispatched operation, and the most state-sized memory alive at once.

    Attributes:
        size: Number of elements of a state.
        kernels: Operations that write a state, by name; neither views nor bare allocations.
        all: All operations.
        peak: Most state-sized storages alive after an operation, those of `known` included.
    """

    def __init__(self, size: int, known: tuple[Tensor, ...] = ()) -> None:
        super().__init__()
        self.size = size
        self.kernels: Counter[str] = Counter()
        self.all: Counter[str] = Counter()
        self.peak = 0
        self._storages: dict[int, StorageWeakRef] = {}
        for tensor in known:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        name = func.name()
        self.all[name] += 1
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if any(leaf.numel() == self.size for leaf in outputs) and name not in VIEWS | ALLOCATIONS:
            self.kernels[name] += 1
        for leaf in outputs:
            self._see(leaf)
        alive = {key: ref for key, ref in self._storages.items() if not ref.expired()}
        self._storages = alive
        self.peak = max(self.peak, len(alive))
        return result

    def _see(self, tensor: Tensor) -> None:
        if tensor.numel() == self.size:
            ref = StorageWeakRef(tensor.untyped_storage())
            self._storages.setdefault(ref.cdata, ref)


def total(counter: Counter[str]) -> int:
    """Number of operations."""
    return sum(counter.values())


def new_tensor_model(x: Tensor, sigma: Any, **kwargs: Any) -> Tensor:
    """A model that returns a fresh tensor and keeps nothing: one kernel a call."""
    return torch.mul(x, 0.5)
