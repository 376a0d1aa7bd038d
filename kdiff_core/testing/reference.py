"""What the problems of the kit share: their base, the check of their fields, a numerical solution.

A problem is a denoiser whose probability flow ``dx/dsigma = (x - D(x, sigma)) / sigma`` has a known
solution. Units: levels `sigma` and states `x` are in the units of the data, which are of order one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import Attribute, field, frozen
from scipy.integrate import solve_ivp

from ..errors import NonFiniteError, ParameterError, StateError
from ..parameters import Validator, one_of
from ..path import FLOW, Path, as_path

if TYPE_CHECKING:
    from ..protocols import Denoiser

_NESTED = ("a finite number", "a tuple of finite numbers", "a tuple of equally long tuples of finite numbers")


def as_numbers(value: Any) -> Any:
    """Return a number as a float, a list, array or tensor of them as tuples; anything else unchanged."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, list | tuple):
        return tuple(as_numbers(part) for part in plain)
    return float(plain) if isinstance(plain, int | float) else value


def rank(value: Any) -> int | None:
    """Depth of nested tuples of finite floats: 0 for a float; None for one that is ragged, empty or other."""
    if not isinstance(value, tuple):
        return 0 if isinstance(value, float) and math.isfinite(value) else None
    depths = {rank(part) for part in value}
    lengths = {len(part) for part in value if isinstance(part, tuple)}
    depth = depths.pop() if len(depths) == 1 and len(lengths) <= 1 else None
    return None if depth is None else depth + 1


def numbers(*ranks: int, positive: bool = False) -> Validator:
    """Accept finite floats nested to one of some depths (`rank`), each above 0 where `positive`."""
    wanted = " or ".join(_NESTED[depth] for depth in ranks) + (", above 0" if positive else "")

    def validate(instance: object, attribute: Attribute[Any], value: Any) -> None:
        if rank(value) not in ranks or (positive and np.min(value) <= 0):
            raise ParameterError(f"{type(instance).__name__}: {attribute.name}={value!r} must be {wanted}")

    return validate


@frozen
class Problem:
    """A denoiser with a known solution. Two with the same fields are equal; `repr` evaluates to an equal one.

    Where a field of a problem is a tuple, the last dimension of a state has its length `dims`, and the
    dimensions between batch and last hold independent vectors; otherwise states have any shape.

    The work on one sample does not depend on the others in the batch, to the bit.

    Args:
        path: ``"ve"`` or ``"flow"``.
    """

    path: str = field(default="ve", validator=one_of("ve", "flow"))

    @property
    def dims(self) -> int:
        """Length of the last dimension of a state; 1 where a state has any shape."""
        return self._length or 1

    @property
    def _length(self) -> int | None:
        """The same, None where a state has any shape."""
        return None

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **cond: Any) -> torch.Tensor:
        """Return the denoised state; half precision is worked on in float32.

        Args:
            x: State, ``(B, ...)``, floating point.
            sigma: Level of each sample, ``(B,)``.
            **cond: Ignored.

        Returns:
            A fresh tensor like `x`.

        Raises:
            StateError: `x` is not floating point, not of this problem's shape, or not of `sigma`'s batch.
        """
        self._check(x)
        if sigma.numel() not in (1, len(x)):
            raise StateError(
                f"{type(self).__name__}: {sigma.numel()} levels for {len(x)} samples; give one each"
            )
        work = x if x.dtype in (torch.float32, torch.float64) else x.float()
        level = sigma.to(work).reshape(-1).expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))
        alpha = torch.ones_like(level) if self.path == "ve" else 1 - level
        return self._denoise(work, alpha, level).to(x.dtype)

    def exact(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        """Return the solution of the probability flow at `sigma_next` that passes through `x` at `sigma`.

        Args:
            x: State at `sigma`, ``(B, ...)``; the work is done in float64.
            sigma: Level of the state, above 0; at most 1 on the flow path.
            sigma_next: Level of the result, below or above `sigma`, at least 0.

        Returns:
            A fresh tensor like `x`.

        Raises:
            ParameterError: A level is out of range, or there is no finite solution there.
            StateError: `x` is not floating point or not of this problem's shape.
        """
        self._check(x)
        levels = checked_levels(type(self).__name__, as_path(self.path), sigma, sigma_next)
        return self._solution(x.double(), *levels).to(x.dtype)

    def _denoise(self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Return D for `x` ``(B, ...)``, float32 or float64; `alpha` and `sigma` are ``(B, 1, ...)``."""
        raise NotImplementedError

    def _solution(self, x: torch.Tensor, sigma: float, sigma_next: float) -> torch.Tensor:
        """Return the solution for `x` in float64 and levels that are checked."""
        raise NotImplementedError

    def _check(self, x: torch.Tensor) -> None:
        name = type(self).__name__
        if not x.is_floating_point() or x.ndim == 0:
            raise StateError(f"{name}: x is {x.dtype} {tuple(x.shape)}; give a floating-point (B, ...)")
        if self._length is not None and (x.ndim < 2 or x.shape[-1] != self._length):
            raise StateError(f"{name}: x has the shape {tuple(x.shape)}; needed is (B, ..., {self._length})")


def checked_levels(name: str, path: Path, sigma: float, sigma_next: float) -> tuple[float, float]:
    """Return two levels as floats, the first above 0, the second at least 0.

    Raises:
        ParameterError: A level is out of range on the path.
    """
    start, end = float(sigma), float(sigma_next)
    highest = 1.0 if path is FLOW else math.inf
    if not (0 < start <= highest and 0 <= end <= highest and math.isfinite(start + end)):
        limit = ", at most 1 on the flow path" if path is FLOW else ""
        raise ParameterError(
            f"{name}: sigma={start}, sigma_next={end}; levels are finite, sigma > 0, sigma_next >= 0{limit}"
        )
    return start, end


def row_by_row(
    function: Callable[..., torch.Tensor], first: torch.Tensor, *others: torch.Tensor
) -> torch.Tensor:
    """Apply a function to each sample alone and stack the results, like `first` where there is no sample.

    A vectorised ``exp`` or sum may give other bits in another position of a batch; alone it cannot.
    """
    rows = [function(*parts) for parts in zip(first, *others, strict=True)]
    return torch.stack(rows) if rows else torch.empty_like(first)


def solve(
    problem: Denoiser,
    x: torch.Tensor,
    sigma: float,
    sigma_next: float,
    *,
    rtol: float = 1e-13,
    atol: float = 1e-15,
) -> torch.Tensor:
    """Return the solution of the probability flow at `sigma_next`, by numerical integration.

    DOP853 (Hairer, Norsett and Wanner 1993, "Solving Ordinary Differential Equations I", II.5) on
    ``dx/dt = x - D``, ``t = log sigma``: smooth on both paths, also at 1 on the flow path, where lambda is
    infinite. One integration for the whole batch; all calls of the denoiser are in float64.

    Args:
        problem: Any denoiser on tensors; it is on the VE path unless its attribute `path` says flow.
        x: State at `sigma`, ``(B, ...)``, floating point.
        sigma: Level of the state, above 0; at most 1 on the flow path.
        sigma_next: Level of the result, below or above `sigma`, above 0.
        rtol: Largest error of a step relative to the state, at least 3e-14.
        atol: The same, absolute, in units of the data.

    Returns:
        A fresh tensor like `x`.

    Raises:
        ParameterError: A level is out of range.
        NonFiniteError: A value on the way is not finite, or the integration stopped.
    """
    name = type(problem).__name__
    start, end = checked_levels(name, as_path(getattr(problem, "path", "ve")), sigma, sigma_next)
    if end == 0:
        raise ParameterError(
            f"{name}: sigma_next=0 is infinitely far in log(sigma), in which the numerical solution is made; "
            "end above 0, such as at 1e-4"
        )
    lowest, highest = min(start, end), max(start, end)

    def slope(time: float, flat: np.ndarray) -> np.ndarray:
        state = torch.tensor(flat, device=x.device).reshape(x.shape)
        # exp(log(sigma)) may be beyond the end by a rounding error, and above 1 on the flow path.
        level = min(max(math.exp(time), lowest), highest)
        denoised = problem(state, torch.full((len(x),), level, dtype=state.dtype, device=x.device))
        change: np.ndarray = (state - denoised).detach().cpu().numpy().ravel()
        if not np.isfinite(change).all():  # on which the integrator would go on for ever
            raise NonFiniteError(f"{name}: x - D is not finite at sigma={level}, from sigma={start} to {end}")
        return change

    span = (math.log(start), math.log(end))
    flat = x.detach().double().cpu().numpy().ravel()
    found = solve_ivp(slope, span, flat, method="DOP853", rtol=rtol, atol=atol)
    if not found.success:
        raise NonFiniteError(f"{name}: no solution from sigma={start} to {end}: {found.message}")
    return torch.tensor(found.y[:, -1]).reshape(x.shape).to(x)


def random_state(
    seed: int = 0,
    batch: int = 3,
    shape: Sequence[int] = (4,),
    scale: float = 10.0,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float64",
) -> torch.Tensor:
    """Return normal noise that depends on the arguments alone; the global generator is left alone.

    It is drawn on the CPU in float64, so that every device and dtype gets the same numbers.

    Args:
        seed: From 0 to 2^64 - 1.
        batch: Number of samples.
        shape: Shape of one sample.
        scale: Standard deviation, in units of the data.
        device: Where the result lives.
        dtype: Floating-point type of the result, or its name in torch.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((batch, *shape), generator=generator, dtype=torch.float64) * scale
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ParameterError(f"random_state: dtype={dtype!r} is no floating-point type; such as 'float32'")
    return x.to(device, found)
