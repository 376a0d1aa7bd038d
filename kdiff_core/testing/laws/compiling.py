"""The law of compilation."""

from __future__ import annotations

from typing import Any

import torch

from ...context import Prediction, StepContext
from ...path import as_path
from ..catalogue import law
from ..measure import smooth_grid
from ..problems import random_state
from .exactness import equal
from .plans import traced


@law("sampler", when=traced, slow=True)
def step_compiles(sampler: Any, *, path: str) -> None:
    """Its steps compile into one graph, and give what they give without.

    A step that branches on a tensor's values, prints, or calls into NumPy breaks the graph, and with it the
    speed of a compiled host. Three steps on tensors, with their history, are one call of torch.compile here.
    """
    ctx, grid, x = _Plain(sampler, path), smooth_grid(path, 3), random_state(0)
    ctx.grid = grid

    def steps(x: Any) -> Any:
        ctx._points = []
        for index in range(len(grid) - 1):
            ctx._begin(index, x)
            x = sampler.step(ctx, x, grid[index], grid[index + 1])
            ctx.remember()
        return x

    torch.compiler.reset()
    compiled = torch.compile(steps, fullgraph=True, backend="eager", dynamic=False)
    equal(compiled(x), steps(x), 1e-9, "compiled and plain steps")


class _Plain(StepContext):
    """A context on tensors in plain containers, as a compiled host has it."""

    class Kept:
        """A point of the history."""

        sigma: float

    def __init__(self, sampler: Any, path: str) -> None:
        super().__init__((), as_path(path), None, sampler.memory)

    def _begin(self, index: int, x: Any) -> None:
        self.index, self._kept = index, {"x": x}
        self.past = tuple(self._points[: self._memory])  # type: ignore[assignment]

    def remember(self) -> None:
        """End the step; a plain object takes the place of a point."""
        point = _Plain.Kept()
        point.sigma = self.grid[self.index]
        for name, value in self._kept.items():
            setattr(point, name, value)
        self._points.insert(0, point)  # type: ignore[arg-type]

    def denoise(self, x: Any, sigma: Any) -> Any:
        alpha = self.alpha(sigma)  # normal data of variance 1; a denoiser of a few plain operations
        output = x * (alpha / (alpha * alpha + sigma * sigma))
        self._evaluated(sigma, output)
        return output

    def predict(self, x: Any, sigma: Any) -> Prediction:
        return Prediction(*[self.denoise(x, sigma)] * 3)

    def noise(self, sigma_from: Any, sigma_to: Any, stream: str = "step") -> Any:
        return torch.ones((), dtype=torch.float64)
