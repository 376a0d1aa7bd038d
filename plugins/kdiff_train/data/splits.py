"""Which samples are held out: of each class every fifth, in the order of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from kdiff_core.errors import ParameterError

Split = Literal["train", "test", "all"]
EVERY = 5


def split_indices(labels: Sequence[int] | Tensor | None, n: int, split: str) -> Tensor:
    """Return the numbers of the samples of a split, rising, int64.

    Held out are the samples whose place among those of their class, counted from 0, is 4, 9, 14, ...: the
    split is the same for everyone, and each class has its share of both parts.

    Args:
        labels: Class of each sample; None: all are of one.
        n: Number of samples.
        split: "train", "test" (what is held out) or "all".

    Raises:
        ParameterError: Another split, or one without a sample.
    """
    if split not in ("train", "test", "all"):
        raise ParameterError(f"split={split!r}: give 'train', 'test' (every fifth of a class) or 'all'")
    classes = torch.zeros(n, dtype=torch.int64) if labels is None else torch.as_tensor(labels)
    held = torch.zeros(n, dtype=torch.bool)
    for value in set(classes.tolist()):
        held[(classes == value).nonzero()[EVERY - 1 :: EVERY, 0]] = True
    chosen = {"train": ~held, "test": held, "all": torch.ones_like(held)}[split]
    if not bool(chosen.any()):
        raise ParameterError(f"split={split!r} has no sample: the data have {n}, of each class every fifth")
    return chosen.nonzero()[:, 0]
