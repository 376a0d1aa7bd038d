"""`digits`: 1,797 handwritten digits, 8 by 8, that come with kdiff."""

from __future__ import annotations

from kdiff_core.lookup import get_denoiser

from .arrays import Arrays
from .splits import split_indices


def digits(split: str = "train") -> Arrays:
    """Return the handwritten digits: ``(1, 8, 8)``, -1 to 1, ten classes of about 180.

    The test part of the UCI data set "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998,
    CC BY 4.0), in the order and with the values of scikit-learn's ``load_digits``; 0 of 16 becomes -1.

    Args:
        split: "train" (1,442), "test" (355, held out: every fifth of each class) or "all".

    Raises:
        ParameterError: Another split.
    """
    exact = get_denoiser("digits-exact")  # which has the data
    chosen = split_indices(exact.labels, len(exact.labels), split)
    x, labels = exact.points[chosen], exact.labels[chosen]
    return Arrays(x, labels, class_names=tuple("0123456789"), name=f"digits, {split}")
