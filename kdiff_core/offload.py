"""`Parking`: keeps states that a run does not need for a while on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from .state import Leaves


class Parking:
    """Moves states between a device and the CPU.

    On CUDA the copies are queued behind the work of the current stream, into pinned memory: nothing waits.

    Args:
        device: Where the run is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def park(self, leaves: Leaves) -> Leaves:
        """Copy a state to the CPU."""
        pinned = self.device.type == "cuda"
        hosts = [torch.empty_like(leaf, device="cpu", pin_memory=pinned) for leaf in leaves]
        return [host.copy_(leaf, non_blocking=pinned) for host, leaf in zip(hosts, leaves, strict=True)]

    def fetch(self, leaf: Tensor) -> Tensor:
        """Copy a tensor back to the device."""
        return leaf.to(self.device, non_blocking=self.device.type == "cuda")  # from pinned memory alone


def parking_for(device: torch.device, wanted: bool) -> Parking | None:
    """Where a run keeps its history, if not where it is; None for a run that is on the CPU already."""
    return Parking(device) if wanted and device.type != "cpu" else None


class Fetching(Sequence[Tensor]):
    """Operands of an update, each fetched when it is read and forgotten after it: never all at once.

    Args:
        operands: The tensors, some of them on the CPU.
        parked: Which those are.
        parking: Fetches them.
    """

    def __init__(self, operands: Sequence[Tensor], parked: frozenset[int], parking: Parking) -> None:
        self.operands, self.parked, self.parking = operands, parked, parking

    def __len__(self) -> int:
        """Number of operands."""
        return len(self.operands)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        """An operand, on the device."""
        if isinstance(index, slice):
            raise TypeError("operands are read one by one")
        found = self.operands[index]
        return self.parking.fetch(found) if index in self.parked else found
