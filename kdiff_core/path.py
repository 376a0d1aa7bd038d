"""The two noise paths, VE and flow: ``x = alpha(sigma) * x0 + sigma * noise``.

On VE ``alpha = 1`` (the k-diffusion convention, to which eps, v and x0 models are brought); on flow
``alpha = 1 - sigma`` (SD3, Flux: rectified flow). Both share ``dx/dsigma = (x - D) / sigma``. The
log signal-to-noise ratio is ``lambda = log(alpha / sigma)``; its inverse is `Path.sigma`.
"""

from __future__ import annotations

import math
from typing import Any

from .errors import GridError, ParameterError
from .grid import Grid
from .numerics import Number, elementwise, exp, log, sqrt

# On a flow path lambda is -inf at sigma = 1; a stage inside a step from there is placed from here.
FLOW_INNER_START = 1 - 1e-4


class Path:
    """One way from data to noise. Use the constants `VE` and `FLOW`."""

    name: str

    def alpha(self, sigma: Number) -> Number:
        """Factor of the data in a state at level `sigma`."""
        raise NotImplementedError

    def lambda_(self, sigma: Number) -> Number:
        """Log-SNR ``log(alpha / sigma)``; ``inf`` at 0 and, on flow, ``-inf`` at 1."""
        raise NotImplementedError

    def sigma(self, lambda_: Number) -> Number:
        """Level with the log-SNR `lambda_`, the inverse of `Path.lambda_`."""
        raise NotImplementedError

    def ratio(self, sigma: Number) -> Number:
        """Noise-to-signal ratio ``sigma / alpha``, the level in VE coordinates; ``inf`` at 1 on flow."""
        raise NotImplementedError

    def from_ratio(self, ratio: Number) -> Number:
        """Level with the noise-to-signal ratio `ratio`, the inverse of `Path.ratio`."""
        raise NotImplementedError

    def ancestral_down(self, sigma: Number, sigma_next: Number, eta: Number) -> Number:
        """Level to which the deterministic part of an ancestral step goes; see `ancestral_down`."""
        raise NotImplementedError

    def ratio_down(self, sigma: Number, sigma_next: Number, eta: Number) -> Number:
        """The same, taken in VE coordinates: one SDE on every path."""
        return self.from_ratio(ancestral_down(self.ratio(sigma), self.ratio(sigma_next), eta))

    def inner_lambda(self, sigma: Number, sigma_next: Number = 0.0) -> Number:
        """Log-SNR from which the stages inside a step are placed: finite also where a flow path begins.

        A step from 1 on flow has its stages behind 0.9999, or where it ends above, behind the middle of it.
        """
        return self.lambda_(sigma)

    def __repr__(self) -> str:
        """Return the name, as the user writes it."""
        return f"Path({self.name!r})"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Pickle by name: there is one object for each path."""
        return as_path, (self.name,)


class _VE(Path):
    name = "ve"

    def alpha(self, sigma: Number) -> Number:
        return 1.0

    def lambda_(self, sigma: Number) -> Number:
        return -log(sigma)

    def sigma(self, lambda_: Number) -> Number:
        return exp(-lambda_)

    def ratio(self, sigma: Number) -> Number:
        return sigma

    def from_ratio(self, ratio: Number) -> Number:
        return ratio

    def ancestral_down(self, sigma: Number, sigma_next: Number, eta: Number) -> Number:
        return ancestral_down(sigma, sigma_next, eta)


class _Flow(Path):
    name = "flow"

    def alpha(self, sigma: Number) -> Number:
        return 1.0 - sigma

    @elementwise
    def lambda_(self, sigma: Number) -> Number:
        return log((1.0 - sigma) / sigma) if sigma != 0 else math.inf

    def sigma(self, lambda_: Number) -> Number:
        return 1.0 / (1.0 + exp(lambda_))

    @elementwise
    def ratio(self, sigma: Number) -> Number:
        return sigma / (1.0 - sigma) if sigma != 1 else math.inf

    @elementwise
    def from_ratio(self, ratio: Number) -> Number:
        return ratio / (1.0 + ratio) if ratio != math.inf else 1.0

    @elementwise
    def ancestral_down(self, sigma: Number, sigma_next: Number, eta: Number) -> Number:
        # With eta = 1 both paths go down to sigma_next^2 / sigma. In between, flow hosts interpolate the
        # level itself: sigma_next (1 - eta (1 - sigma_next / sigma)).
        return max(sigma_next * (1.0 - eta * (1.0 - sigma_next / sigma)), sigma_next * 0)

    @elementwise
    def inner_lambda(self, sigma: Number, sigma_next: Number = 0.0) -> Number:
        return self.lambda_(sigma if sigma < 1.0 else max(FLOW_INNER_START, (1.0 + sigma_next) / 2.0))


VE: Path = _VE()
FLOW: Path = _Flow()
_PATHS = {"ve": VE, "flow": FLOW}


def as_path(path: str | Path) -> Path:
    """Return the path of a name.

    Raises:
        ParameterError: Neither ``"ve"`` nor ``"flow"``.
    """
    if isinstance(path, Path):
        return path
    if path not in _PATHS:
        raise ParameterError(f"path={path!r}: no such noise path; use 've' (eps, v, x0 models) or 'flow'")
    return _PATHS[path]


def path_grid(sigmas: Any, path: Path) -> Grid:
    """Return the grid of some levels, checked against a path.

    Raises:
        GridError: Not a grid, or levels above 1 on a flow path.
    """
    return path_levels(Grid.of(sigmas), path)


def path_levels(grid: Grid, path: Path) -> Grid:
    """Return the grid, its levels checked against a path.

    Raises:
        GridError: Levels above 1 on a flow path.
    """
    if path is FLOW and (highest := max(grid)) > 1:
        raise GridError(
            f"noise levels: {highest} on a flow path, where levels lie in [0, 1]; is the model on VE?"
        )
    return grid


def ancestral_down(sigma: Number, sigma_next: Number, eta: Number) -> Number:
    """Level to which the deterministic part of an ancestral step goes on VE.

    The rest, a noise of variance ``sigma_next^2 - down^2``, is added afresh. With ``eta = 1`` this is
    the exact posterior of DDPM (Ho et al. 2020, arXiv:2006.11239, eq. 7) in VE coordinates, with
    ``eta`` between 0 and 1 that of DDIM (Song et al. 2020, arXiv:2010.02502, eq. 16).

    Args:
        sigma: Level of the state, above `sigma_next`.
        sigma_next: Level to reach.
        eta: Share of the fresh noise; 0 is deterministic, values above 1 are cut where `down` reaches 0.
    """
    ratio = sigma_next / sigma
    return sigma_next * sqrt(1.0 - eta * eta * (1.0 - ratio * ratio))
