"""The statistics of a model that DPM-Solver-v3 works with: as data, in a file, and estimated."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import ArrayLike, NDArray

from kdiff_core.errors import ParameterError
from kdiff_core.files import write_whole

from .statistics_curves import Curve, Curves


def _array(value: ArrayLike) -> NDArray[np.float64]:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"ModelStatistics: {type(value).__name__} is no array of numbers") from error
    array.setflags(write=False)
    return array


def _key(array: NDArray[np.float64]) -> tuple[tuple[int, ...], bytes]:
    """What two arrays are compared and hashed by."""
    return array.shape, array.tobytes()


def _size(array: NDArray[np.float64]) -> str:
    return f"<{' x '.join(map(str, array.shape))}>"


@frozen
class ModelStatistics:
    """The empirical model statistics of DPM-Solver-v3: coefficients of a model as functions of log-SNR.

    Zheng et al. 2023, arXiv:2310.13268, eq. 4 to 11. With ``y = x / alpha`` the probability-flow ODE is
    ``dy/dlambda = -l y - f``, ``f = (1 - l) y - D``, and along its trajectories ``df/dlambda`` is about
    ``s f + b``. Between the lambdas of the table the coefficients are cubics (of Hermite, with slopes from
    differences), outside constant. ``l = 1, s = 0, b = 0`` is the data prediction (DPM-Solver++),
    ``l = 0, s = -1, b = 0`` the noise prediction (DPM-Solver).

    Each coefficient is a number at each lambda, or one for each element of the state. Numbers without a bias
    keep a sampler linear in the state; with a bias, or one for each element, it runs on tensors.

    Attributes:
        lambdas: Log-SNR ``log(alpha / sigma)``, rising, at least one.
        linear: ``l``, at each lambda: ``(K,)``, or ``(K, ...)`` with the shape of one sample.
        scaling: ``s``, of the same shape.
        bias: ``b``, of the same shape, in units of the data.

    Raises:
        ParameterError: Values that are not finite, lambdas that do not rise, or shapes that do not agree.
    """

    lambdas: NDArray[np.float64] = field(converter=_array, eq=_key, repr=_size)
    linear: NDArray[np.float64] = field(converter=_array, eq=_key, repr=_size)
    scaling: NDArray[np.float64] = field(converter=_array, eq=_key, repr=_size)
    bias: NDArray[np.float64] = field(converter=_array, eq=_key, repr=_size)

    def __attrs_post_init__(self) -> None:
        if self.lambdas.ndim != 1 or not len(self.lambdas) or not (np.diff(self.lambdas) > 0).all():
            raise ParameterError("ModelStatistics: lambdas must be one dimension of rising numbers")
        tables = {"linear": self.linear, "scaling": self.scaling, "bias": self.bias}
        for name, table in {"lambdas": self.lambdas, **tables}.items():
            if not np.isfinite(table).all():
                raise ParameterError(f"ModelStatistics: {name} has a value that is not finite")
        for name, table in tables.items():
            if table.shape != self.linear.shape or table.shape[:1] != self.lambdas.shape:
                raise ParameterError(
                    f"ModelStatistics: {name} has shape {table.shape} beside {len(self.lambdas)} lambdas and "
                    f"linear of shape {self.linear.shape}; give each coefficient one value at each lambda"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample if there is a coefficient for each element, else ``()``."""
        return tuple(self.linear.shape[1:])

    @cached_property
    def has_bias(self) -> bool:
        """Whether any bias is not 0."""
        return bool(self.bias.any())

    @cached_property
    def curves(self) -> Curves:
        """``l``, ``s`` and ``b`` as functions of log-SNR."""
        return Curves(*map(self._curve, (self.linear, self.scaling, self.bias)), self.has_bias)

    def _curve(self, table: Any) -> Curve:
        knots = self.lambdas
        slopes = np.gradient(table, knots, axis=0) if len(knots) > 1 else np.zeros_like(table)
        widths = np.diff(knots).reshape(-1, *[1] * (table.ndim - 1))
        areas = widths * ((table[:-1] + table[1:]) / 2 + widths * (slopes[:-1] - slopes[1:]) / 12)
        sums = np.concatenate([np.zeros_like(table[:1]), np.cumsum(areas, 0)])
        return Curve(knots.tolist(), *(self._entries(part) for part in (table, slopes, sums)))

    def _entries(self, table: Any) -> Sequence[Any]:
        """Floats, or tensors with one value for each element."""
        if not self.shape:
            return list(table.tolist())
        import torch

        return list(torch.tensor(table))

    def save(self, file: str | FilePath) -> None:
        """Write to a NumPy file (``.npz``), whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        arrays = {"lambdas": self.lambdas, "l": self.linear, "s": self.scaling, "b": self.bias}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_whole(file, buffer.getvalue())

    @classmethod
    def load(cls, file: str | FilePath) -> ModelStatistics:
        """Read a file that `save` wrote; nothing is unpickled.

        Raises:
            OSError: It cannot be read.
            ParameterError: It holds no statistics.
        """
        try:
            with np.load(file, allow_pickle=False) as stored:
                return cls(*(stored[name] for name in ("lambdas", "l", "s", "b")))
        except (ValueError, KeyError, TypeError) as error:
            raise ParameterError(f"{file}: holds no model statistics: {error}") from error
