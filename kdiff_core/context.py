"""`StepContext`: what a step sees of its run. The tracer and the eager engine each complete it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import ParameterError
from .numerics import Number, sqrt
from .path import Path

if TYPE_CHECKING:
    from .protocols import Process
    from .sampler import StepSampler


class Prediction(NamedTuple):
    """The outputs of a guided denoiser, each a state."""

    denoised: Any
    cond: Any
    uncond: Any


class Point:
    """An earlier point of the trajectory, as a step finds it in ``ctx.past``.

    It has `sigma`; `x`, the state that its step began with or kept in its place; `denoised`, the last
    evaluation at `sigma`; and under its name each value that the step gave to ``ctx.keep``.
    """

    __slots__ = ("_kept", "_resolve", "sigma")

    def __init__(
        self, sigma: Number, kept: Mapping[str, Any], resolve: Callable[[Any], Any] = lambda value: value
    ) -> None:
        self.sigma = sigma
        self._kept = kept
        self._resolve = resolve

    def __getattr__(self, name: str) -> Any:
        """Return a kept value."""
        if name in Point.__slots__:  # a point that is being copied has nothing yet
            raise AttributeError(name)
        if name not in self._kept:
            raise AttributeError(
                f"the point at sigma={self.sigma:.6g} has no {name!r}; its step kept {sorted(self._kept)}"
            )
        return self._resolve(self._kept[name])


class Past(tuple[Point, ...]):
    """The points that a step may look at; asking for more says how to get them."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        """Return a point, the newest being 0."""
        try:
            return super().__getitem__(index)
        except IndexError:
            raise IndexError(
                f"ctx.past[{index}]: this step has {len(self)} earlier points; a sampler that reads n of "
                "them declares `memory = n`, and finds fewer on its first steps"
            ) from None


class StepContext:
    """What a step can ask for. States are symbols, tensors or nests; a step cannot tell.

    Attributes:
        grid: The levels that the run visits, the highest first.
        index: Number of this step, from 0.
        past: Earlier points, the newest first; as many as the sampler's `memory`.
        path: The noise path.
        process: What the model was trained on, or None.
    """

    def __init__(self, grid: Sequence[Number], path: Path, process: Process | None, memory: int) -> None:
        self.grid = grid
        self.path = path
        self.process = process
        self.index = 0
        self.past = Past()
        self._memory = memory
        self._points: list[Point] = []
        self._kept: dict[str, Any] = {}

    @property
    def steps_left(self) -> int:
        """Steps left, this one included."""
        return len(self.grid) - 1 - self.index

    @property
    def finite_past(self) -> list[Point]:
        """The points of `past` but a flow path's start at 1, where log-SNR is infinite."""
        return [point for point in self.past if self.alpha(point.sigma) > 0]

    def alpha(self, sigma: Number) -> Number:
        """Factor of the data at level `sigma`."""
        return self.path.alpha(sigma)

    def lambda_(self, sigma: Number) -> Number:
        """Log-SNR at level `sigma`; infinite at the ends of the path."""
        return self.path.lambda_(sigma)

    def between(self, sigma: Number, sigma_next: Number, fraction: Number) -> Number:
        """Level of a stage inside a step: at a fraction of the way from `sigma` in log-SNR."""
        start = self.path.inner_lambda(sigma, sigma_next)
        return self.path.sigma(start + fraction * (self.path.lambda_(sigma_next) - start))

    def to(self, x: Any, denoised: Any, sigma: Number, sigma_next: Number) -> Any:
        """Move a state to another level as if the data were `denoised`; exact if it is.

        The exponential Euler (DDIM) step, the same on every path. Its weights sum to 1.
        """
        ratio = sigma_next / sigma
        return x * ratio + denoised * (1.0 - ratio)

    def eps(self, x: Any, denoised: Any, sigma: Number) -> Any:
        """The noise in a state whose data are `denoised`: ``(x - alpha D) / sigma``."""
        return (x - denoised * self.alpha(sigma)) / sigma

    def denoise(self, x: Any, sigma: Number) -> Any:
        """Evaluate the denoiser on a state at a level above 0."""
        raise NotImplementedError

    def predict(self, x: Any, sigma: Number) -> Prediction:
        """Evaluate a guided denoiser: its guided, conditional and unconditional outputs."""
        raise NotImplementedError

    def noise(self, sigma_from: Number, sigma_to: Number, stream: str = "step") -> Any:
        """Unit noise of an interval of levels.

        Overlapping intervals of one stream are increments of one Brownian path within a step.

        Args:
            sigma_from: Level at which the interval begins.
            sigma_to: Level at which it ends.
            stream: Name that tells independent uses of one interval apart.
        """
        raise NotImplementedError

    def renoise(
        self,
        x: Any,
        down: Number,
        up: Number,
        noise: Any,
        s_noise: Number = 1.0,
    ) -> Any:
        """Raise a state from level `down` to level `up` with fresh unit noise, keeping its marginal.

        Args:
            x: State at level `down`.
            down: Its level.
            up: Level to raise it to, not below `down`.
            noise: Unit noise.
            s_noise: Factor of the noise; 1 keeps the marginal.
        """
        scale = self.alpha(up) / self.alpha(down)
        return x * scale + noise * (s_noise * sqrt(up * up - (scale * down) ** 2))

    def ancestral(
        self, x: Any, denoised: Any, sigma: Number, sigma_next: Number, eta: Number, s_noise: Number = 1.0
    ) -> Any:
        """Move a state as `to` does, a share of its noise being fresh; one SDE on every path.

        With ``eta = 1`` the exact posterior (DDPM, Ho et al. 2020, arXiv:2006.11239, eq. 7); ``eta`` below 1
        is DDIM's (Song et al. 2020, arXiv:2010.02502, eq. 16).

        Args:
            x: State at `sigma`.
            denoised: Data estimate.
            sigma: Its level.
            sigma_next: Level to reach.
            eta: Share of fresh noise; 0 asks for none.
            s_noise: Factor of the fresh noise.
        """
        down = self.path.ratio_down(sigma, sigma_next, eta)
        x = self.to(x, denoised, sigma, down)
        return self.renoise(x, down, sigma_next, self.noise(sigma, sigma_next), s_noise) if eta else x

    def keep(self, **values: Any) -> None:
        """Hand values to later steps, which find them in ``ctx.past`` by these names.

        `x` replaces the state that the step began with, as a corrector does.

        Raises:
            ParameterError: The name `sigma`, which a point has of its own.
        """
        if "sigma" in values:
            raise ParameterError("ctx.keep(sigma=...): a point has its own sigma; choose another name")
        self._kept.update(values)

    def advance(self, solver: StepSampler, x: Any, sigma: Number, sigma_next: Number) -> Any:
        """Take a step of a solver; into 0 with ``D(x, sigma)``, unless the solver reaches 0 itself.

        Into 1 on a flow path, where log-SNR is infinite and only a run to noise goes, with Euler's step.
        """
        if sigma_next == 0 and not solver.reaches_zero:
            return self.denoise(x, sigma)
        if self.alpha(sigma_next) == 0:
            return self.to(x, self.denoise(x, sigma), sigma, sigma_next)
        return solver.step(self, x, sigma, sigma_next)

    def _begin(self, index: int, x: Any) -> None:
        """Start step `index` at the state `x`."""
        self.index = index
        self.past = Past(self._points[: self._memory])
        self._kept = {"x": x}

    def _evaluated(self, sigma: Number, denoised: Any) -> None:
        """Note an evaluation: the last one at the step's own level is its point's `denoised`."""
        if sigma == self.grid[self.index]:
            self._kept["denoised"] = denoised

    def _finish(self, resolve: Callable[[Any], Any]) -> None:
        """End the step: it becomes the newest point."""
        if self._memory:
            self._points.insert(0, Point(self.grid[self.index], self._kept, resolve))
            del self._points[self._memory :]


class InnerContext(StepContext):
    """A context around another one, for samplers that wrap samplers and change what those see of their run.

    It shares what its step keeps, and asks the context around it for outputs and noise; a subclass overrides
    what differs. It lives for one step.

    Args:
        outer: The context around it.
        points: How many earlier points are seen at most. Default: all.
    """

    def __init__(self, outer: StepContext, points: int | None = None) -> None:
        self.__dict__.update(outer.__dict__)
        self._outer = outer
        if points is not None:
            self.past = Past(self.past[:points])

    def denoise(self, x: Any, sigma: Number) -> Any:
        """The outer context's output."""
        return self._outer.denoise(x, sigma)

    def predict(self, x: Any, sigma: Number) -> Prediction:
        """The outer context's outputs."""
        return self._outer.predict(x, sigma)

    def noise(self, sigma_from: Number, sigma_to: Number, stream: str = "step") -> Any:
        """The outer context's noise."""
        return self._outer.noise(sigma_from, sigma_to, stream)
