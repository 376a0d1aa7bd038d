"""The exact denoiser of a data set: the posterior mean under a mixture of its points."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from kdiff_core.errors import ParameterError, StateError
from kdiff_core.path import as_path

from .data import Dataset, as_labels, as_points, load, load_digits

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from kdiff_core.protocols import PathName

# Bounds the temporary of one sample: rows of the data are compared in blocks of this many values.
_BLOCK = 1 << 22


class _Batch(NamedTuple):
    """One call's arguments, checked: states ``(B, d)`` in the dtype of the work, levels ``(B,)``."""

    x: torch.Tensor
    sigma: torch.Tensor
    labels: list[int]


class EmpiricalDenoiser:
    """The posterior mean ``E[x0 | x]`` where ``x0`` is a random data point plus a little Gaussian noise.

    With ``N`` data points ``y_i``, smoothing ``s`` and ``x = alpha x0 + sigma noise``, ``alpha`` being 1
    on the VE path and ``1 - sigma`` on the flow path:

    ``p_i = softmax_i(-|x - alpha y_i|^2 / (2 v))``, ``v = alpha^2 s^2 + sigma^2``,
    ``D = sum_i p_i (y_i + alpha s^2 / v (x - alpha y_i))``.

    For ``s = 0``: Karras et al. 2022, arXiv:2206.00364, eq. 57 (appendix B.3); for ``s > 0`` the same
    with each point a Gaussian. Each sample is computed alone, so its result is the same bits whatever
    else is in the batch. A call costs ``O(B N d)`` operations for samples of ``d`` values.

    Args:
        data: ``(N, *sample_shape)``, finite, in any units (images: usually [-1, 1]). Not uint8.
        labels: Class of each point, ``(N,)`` integers from 0. None: no classes.
        smoothing: Standard deviation ``s`` of each point's Gaussian, in units of the data, at least 0.
        path: ``"ve"`` or ``"flow"``.
        sigma_min: Lowest level to sample at. Default 0.02.
        sigma_max: Highest level. Default 80 on VE, 1 on flow.
        value_range: Lowest and highest value of a sample. Default: the data's.
        class_names: A name for each class, for display.
        name: Name for messages.

    Raises:
        ParameterError: An argument is not as above.
    """

    batch_exact = True

    def __init__(
        self,
        data: ArrayLike | torch.Tensor,
        *,
        labels: Sequence[int] | ArrayLike | torch.Tensor | None = None,
        smoothing: float = 0.1,
        path: PathName = "ve",
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        value_range: tuple[float, float] | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "empirical",
    ) -> None:
        self.name = name
        self.path = as_path(path).name
        points = as_points(data, name)
        self.sample_shape = tuple(points.shape[1:])
        self._points = points.reshape(len(points), -1)
        self._labels = None if labels is None else as_labels(labels, len(points), name)
        self.classes = None if self._labels is None else int(self._labels.max()) + 1
        self.class_names = None if class_names is None else tuple(class_names)
        self.value_range = value_range or (float(points.min()), float(points.max()))
        self.smoothing = float(smoothing)
        if not (math.isfinite(self.smoothing) and self.smoothing >= 0):
            raise ParameterError(f"{name}: smoothing={smoothing} must be finite and at least 0")
        self.sigma_min = 0.02 if sigma_min is None else float(sigma_min)
        self.sigma_max = (80.0 if self.path == "ve" else 1.0) if sigma_max is None else float(sigma_max)
        highest = math.inf if self.path == "ve" else 1.0
        if not 0 < self.sigma_min < self.sigma_max <= highest or math.isinf(self.sigma_max):
            raise ParameterError(
                f"{name}: sigma_min={self.sigma_min}, sigma_max={self.sigma_max} are no range of levels; "
                f"needed: 0 < sigma_min < sigma_max{' <= 1 on the flow path' if highest == 1 else ''}"
            )
        self.replay_options: dict[str, Any] = {}
        self._cache: dict[tuple[torch.device, torch.dtype, int], torch.Tensor] = {}

    @property
    def points(self) -> torch.Tensor:
        """The data, ``(N, *sample_shape)``; not to be changed."""
        return self._points.reshape(len(self._points), *self.sample_shape)

    @property
    def labels(self) -> torch.Tensor | None:
        """The class of each point, ``(N,)`` int64, or None; not to be changed."""
        return self._labels

    @property
    def data_sha256(self) -> str:
        """Hash of the points and their classes, by which a replay knows that they are the same."""
        found = hashlib.sha256(f"{self._points.dtype} {(len(self._points), *self.sample_shape)}".encode())
        found.update(self._points.numpy().tobytes())
        found.update(b"" if self._labels is None else self._labels.numpy().tobytes())
        return found.hexdigest()

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **cond: Any) -> torch.Tensor:
        """Return the posterior mean.

        Args:
            x: State, ``(B, *sample_shape)``, floating point.
            sigma: Noise level of each sample, ``(B,)``, at least 0 (and at most 1 on the flow path).
            **cond: ``label``: ``(B,)`` integers, the class of each sample, -1 for any; None for any.

        Returns:
            The estimate, like `x`. It is computed in `x`'s dtype, but in float32 for half precision.

        Raises:
            StateError: `x` is not floating point or not of the data's shape.
            ParameterError: `sigma`, `label` or another condition does not fit.
        """
        batch = self._check(x, sigma, cond)
        square = self.smoothing**2
        # Only single multiplications and additions run over the batch: those give the same bits in
        # any position, which a vectorised exp or a matrix product does not promise.
        alpha = torch.ones_like(batch.sigma) if self.path == "ve" else 1 - batch.sigma
        variance = alpha * alpha * square + batch.sigma * batch.sigma
        # At sigma = 0 without smoothing the mixture is its nearest point: a tiny variance selects it.
        variance = variance.clamp_min(torch.finfo(variance.dtype).tiny)
        weight = alpha * square / variance
        means = [self._mean(batch.x[i], alpha[i], variance[i], label) for i, label in enumerate(batch.labels)]
        mean = torch.stack(means) if means else torch.zeros_like(batch.x)
        denoised = mean * (1 - weight * alpha)[:, None] + batch.x * weight[:, None]
        return denoised.reshape(x.shape).to(x.dtype)

    def _mean(self, x: torch.Tensor, alpha: torch.Tensor, variance: torch.Tensor, label: int) -> torch.Tensor:
        """Mean ``(d,)`` of the points of a class, weighted by how likely it led to `x` ``(d,)``."""
        points = self._data(x, label)
        rows = max(1, _BLOCK // max(1, points.shape[1]))
        # Differences, not |x|^2 - 2 x.y + |y|^2: at low levels that would lose the digits that decide.
        parts = [(block * alpha - x).square().sum(1) for block in torch.split(points, rows)]
        distance = parts[0] if len(parts) == 1 else torch.cat(parts)
        p = torch.softmax((distance.detach().amin() - distance) / (2 * variance), 0)
        return p @ points

    def _data(self, like: torch.Tensor, label: int) -> torch.Tensor:
        """Points ``(N, d)`` of a class (-1: all) in the device and dtype of `like`; cached."""
        key = (like.device, like.dtype, label)
        if key not in self._cache:
            points = self._points if label < 0 else self._points[self._labels == label]
            self._cache[key] = points.to(like.device, like.dtype)
        return self._cache[key]

    def _check(self, x: torch.Tensor, sigma: torch.Tensor, cond: dict[str, Any]) -> _Batch:
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            raise StateError(f"{self.name}: x is {kind}; pass a floating-point tensor")
        if x.ndim == 0 or tuple(x.shape[1:]) != self.sample_shape:
            shape = ", ".join(map(str, self.sample_shape))
            raise StateError(f"{self.name}: x has the shape {tuple(x.shape)}; needed is (B, {shape})")
        work = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        levels = torch.as_tensor(sigma, device=x.device).to(work)
        if levels.shape not in ((), (1,), (len(x),)):
            raise ParameterError(
                f"{self.name}: sigma has the shape {tuple(levels.shape)}; one level a sample, ({len(x)},)"
            )
        other = sorted(set(cond) - {"label"})
        if other:
            raise ParameterError(f"{self.name}: unknown condition {other[0]!r}; the only one is 'label'")
        labels = self._classes(cond.get("label"), len(x))
        return _Batch(x.reshape(len(x), -1).to(work), levels.expand(len(x)), labels)

    def _classes(self, label: Any, size: int) -> list[int]:
        """Return the class asked for of each sample, -1 for any."""
        if label is None:
            return [-1] * size
        if self.classes is None:
            raise ParameterError(f"{self.name}: label was given, but the data has no classes; leave it out")
        wanted = torch.as_tensor(label)
        if (
            wanted.dtype == torch.bool
            or wanted.is_floating_point()
            or wanted.shape not in ((), (1,), (size,))
        ):
            raise ParameterError(
                f"{self.name}: label has the shape {tuple(wanted.shape)} and dtype {wanted.dtype}; "
                f"needed: ({size},) integers"
            )
        values = wanted.expand(size).tolist()
        for i, value in enumerate(values):
            if not -1 <= value < self.classes:
                raise ParameterError(
                    f"{self.name}: label[{i}] is {value}; classes are 0 to {self.classes - 1}, -1 is any"
                )
        return values

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the copies of the data on other devices."""
        return {**self.__dict__, "_cache": {}}

    def __repr__(self) -> str:
        """Show the data's size and the parameters."""
        return (
            f"EmpiricalDenoiser({self.name!r}, {len(self._points)} points of {self.sample_shape}, "
            f"classes={self.classes}, smoothing={self.smoothing}, path={self.path!r})"
        )


def digits_exact(smoothing: float = 0.1, path: PathName = "ve") -> EmpiricalDenoiser:
    """Return the exact denoiser of the 1,797 handwritten digits that ship, 8 by 8, scaled to [-1, 1].

    Args:
        smoothing: Standard deviation of the noise around each digit, in units of the data. A pixel step
            of the digits is 0.125.
        path: ``"ve"`` (levels 0.02 to 20, above which a state tells next to nothing of its digit) or
            ``"flow"`` (0.02 to 1).
    """
    digits = load_digits()
    return EmpiricalDenoiser(
        digits.data,
        labels=digits.labels,
        smoothing=smoothing,
        path=path,
        sigma_max=20.0 if path == "ve" else None,
        value_range=(-1.0, 1.0),
        class_names=digits.class_names,
        name="digits-exact",
    )


def empirical(
    data: ArrayLike | torch.Tensor | str | PathLike[str],
    *,
    smoothing: float = 0.1,
    labels: Sequence[int] | ArrayLike | torch.Tensor | None = None,
    size: int | tuple[int, int] | None = None,
    path: PathName = "ve",
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> EmpiricalDenoiser:
    """Return the exact denoiser of the user's own data.

    Args:
        data: An array ``(N, ...)``, the path of a .npy or .npz file, or of a folder of images; see
            `kdiff_exact.data.load`.
        smoothing: Standard deviation of the noise around each point, in units of the data.
        labels: Class of each point, for data that does not come with its own.
        size: For a folder: the images' height and width after cropping and scaling.
        path: ``"ve"`` or ``"flow"``.
        sigma_min: Lowest level to sample at. Default 0.02.
        sigma_max: Highest level. Default 80 on VE, 1 on flow.

    Raises:
        ParameterError: The data cannot be read; the message has the offending file.
        MissingExtraError: A folder of images is given and pillow is not installed.
    """
    if isinstance(data, str | PathLike):
        found = load(data, size=size)
    elif size is not None:
        raise ParameterError("empirical: size= is for a folder of images; resize an array yourself")
    else:
        found = Dataset(data)
    if labels is not None and found.labels is not None:
        raise ParameterError(
            f"empirical: labels= was given, but {data!r} has labels of its own; give only one"
        )
    denoiser = EmpiricalDenoiser(
        found.data,
        labels=found.labels if labels is None else labels,
        smoothing=smoothing,
        path=path,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        value_range=found.value_range,
        class_names=found.class_names,
    )
    if isinstance(data, str | PathLike):
        # What a manifest records in place of a path that depends on the folder one is in.
        denoiser.replay_options = {"data": str(Path(data).expanduser().resolve())}
    return denoiser
