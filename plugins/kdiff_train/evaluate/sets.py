"""Which data a model is compared with: held-out data, and other real data of the same number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from kdiff_core.building import parameters
from kdiff_core.errors import ParameterError
from kdiff_core.lookup import default_registry, get_dataset
from kdiff_core.training import Dataset

from ..data.loading import take

MOST = 10_000  # samples, where no number is given


class Sets(NamedTuple):
    """Real data of equal number, and what a model was trained on.

    Attributes:
        name: Name of the data.
        reals: Held-out data, a batch by name.
        others: Other data: of what was trained on, or of what is held out where that is not known.
        train: What was trained on, or None.
    """

    name: str
    reals: dict[str, Tensor]
    others: dict[str, Tensor]
    train: Dataset | None


def sets(dataset: Any, train: Any, n: int | None, options: Mapping[str, Any]) -> Sets:
    """Return the data; `n` of a data set are those at equal distances in it.

    Args:
        dataset: Held-out data; or a name, whose split "test" is taken, and "train" for `train`.
        train: What was trained on, or None.
        n: Number of samples, or None.
        options: Options of the name.

    Raises:
        ParameterError: There are not enough data, or a data set has no splits.
    """
    name = dataset if isinstance(dataset, str) else getattr(dataset, "name", type(dataset).__name__)
    if isinstance(dataset, str):
        known = parameters(default_registry().entry("dataset", dataset)) or {}
        if "split" not in known:
            raise ParameterError(f"{dataset}: has no splits; give held-out data and train=")
        train = get_dataset(dataset, **{**options, "split": "train"}) if train is None else train
        dataset = get_dataset(dataset, **{"split": "test", **options})
    most = len(dataset) // 2 if train is None else min(len(dataset), len(train))
    n = min(most, MOST) if n is None else n
    if not 2 <= n <= most:
        raise ParameterError(
            f"n={n}: needed are 2 to {most}: there are {len(dataset)} held out"
            + (", of which half are the floor" if train is None else f" and {len(train)} to train on")
        )
    places = _spread(len(dataset), n if train is not None else 2 * n)
    if train is None:
        return Sets(name, take(dataset, places[::2]), take(dataset, places[1::2]), None)
    return Sets(name, take(dataset, places), take(train, _spread(len(train), n)), train)


def _spread(total: int, n: int) -> list[int]:
    return [number * total // n for number in range(n)]
