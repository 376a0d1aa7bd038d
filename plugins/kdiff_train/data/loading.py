"""From a data set and an order to batches: the same ones for any number of workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdiff_core.errors import ParameterError
from kdiff_core.training import Dataset


def loader(
    dataset: Dataset, indices: Iterable[int], batch: int, workers: int = 0, pin_memory: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Yield batches of samples in the order of `indices`, which is all that decides what is in them.

    Args:
        dataset: The samples. For workers it must be picklable where processes are spawned.
        indices: Numbers of samples; may be endless.
        batch: Samples in a batch, at least 1. The last one may have fewer.
        workers: Processes that read ahead; 0 reads in this one.
        pin_memory: Whether batches lie in page-locked memory, from which copies to a GPU are faster.

    Returns:
        Batches by name: ``x`` ``(B, ...)``, ``label`` ``(B,)`` int64, and other conditions, stacked.

    Raises:
        ParameterError: `batch` or `workers` is out of range; or, while reading, samples of a batch have
            other conditions or shapes than the first.
    """
    if type(batch) is not int or batch < 1:
        raise ParameterError(f"batch={batch!r}: give a whole number of at least 1")
    if type(workers) is not int or workers < 0:
        raise ParameterError(f"workers={workers!r}: give a whole number of at least 0")
    found: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=_Batches(indices, batch),
        num_workers=workers,
        collate_fn=stack,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # or it would draw from the global one
    )
    return iter(found)


class _Batches:
    """Lists of `batch` indices, one after another."""

    def __init__(self, indices: Iterable[int], batch: int) -> None:
        self.indices, self.batch = indices, batch

    def __iter__(self) -> Iterator[list[int]]:
        numbers = iter(self.indices)
        while chosen := [int(number) for number in islice(numbers, self.batch)]:
            yield chosen


def stack(samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return samples as a batch: tensors stacked, numbers as a tensor.

    Raises:
        ParameterError: One lacks what another has, or has another shape.
    """
    names = list(samples[0])
    for number, sample in enumerate(samples):
        if set(sample) != set(names):
            raise ParameterError(
                f"sample {number} of a batch has {sorted(sample)}, the first one {sorted(names)}; "
                "all samples of a data set need the same conditions"
            )
    return {name: _column(name, [sample[name] for sample in samples]) for name in names}


def _column(name: str, values: list[Any]) -> Tensor:
    if not isinstance(values[0], Tensor):
        return torch.tensor(values)
    for number, value in enumerate(values):
        if value.shape != values[0].shape:
            raise ParameterError(
                f"{name} of sample {number} of a batch has the shape {tuple(value.shape)}, that of the first "
                f"one {tuple(values[0].shape)}; give the data set a size"
            )
    return torch.stack(values)


def take(dataset: Dataset, indices: Iterable[int], batch: int = 256, workers: int = 0) -> dict[str, Tensor]:
    """Return some samples at once, as one batch.

    Raises:
        ParameterError: There is no index, or samples do not fit together.
    """
    batches = list(loader(dataset, indices, batch, workers))
    if not batches:
        raise ParameterError("take: no index is given")
    return {name: torch.cat([each[name] for each in batches]) for name in batches[0]}
