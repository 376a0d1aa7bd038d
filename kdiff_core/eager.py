"""The context of a step that runs on tensors, for samplers that are not linear in the state."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .brownian import Visits
from .context import Prediction, StepContext
from .draw import StepNoise
from .errors import ParameterError
from .job import Job, Seen
from .numerics import Number
from .state import Leaves, Nest, flatten


class EagerContext(StepContext):
    """Completes `StepContext` with a job's denoiser and noise."""

    def __init__(self, job: Job) -> None:
        assert job.sampler is not None
        super().__init__(job.levels, job.path, job.process, job.sampler.memory)
        self.job = job
        self.visits = Visits()
        self.step_noise: StepNoise | None = None
        self.first: Seen | None = None

    def wrap(self, leaves: Leaves) -> Any:
        """A state that a step can do arithmetic on."""
        return leaves[0] if isinstance(self.job.x, Tensor) else Nest(self.job.x, leaves)

    def unwrap(self, state: Any) -> Leaves:
        """The tensors of such a state."""
        if not isinstance(state, (Nest, Tensor)):
            raise ParameterError(
                f"{self.job.name}: a step gave a {type(state).__name__} for a state; states come from x, "
                "ctx.denoise and ctx.noise"
            )
        return list(state.leaves) if isinstance(state, Nest) else [state]

    def _begin(self, index: int, x: Any) -> None:
        super()._begin(index, x)
        self.first = None
        self.step_noise = StepNoise(self.job.source, self.job.x, self.job.leaves, self.visits, index)

    def denoise(self, x: Any, sigma: Number) -> Any:
        """Call the denoiser."""
        return self._call(x, sigma, ("denoised",))[0]

    def predict(self, x: Any, sigma: Number) -> Prediction:
        """Call the guided denoiser."""
        return Prediction(*self._call(x, sigma, Prediction._fields))

    def _call(self, x: Any, sigma: Number, outputs: tuple[str, ...]) -> list[Any]:
        leaves = self.unwrap(x)
        found = self.job.evaluate(leaves, sigma, outputs)
        self.job.evaluations += 1
        if self._memory:  # the model may write over its output, which a later step reads
            found = [[leaf.clone() for leaf in output] for output in found]
        if self.first is None:
            highest = float(sigma.max()) if isinstance(sigma, Tensor) else sigma
            self.first = Seen(max(highest, self.grid[self.index]), leaves, found[0])
        results = [self.wrap(output) for output in found]
        self._evaluated(sigma, results[0])
        return results

    def noise(self, sigma_from: Number, sigma_to: Number, stream: str = "step") -> Any:
        """Draw from the run's source."""
        assert self.step_noise is not None
        drawn = self.step_noise(sigma_from, sigma_to, stream)
        return self.wrap(flatten(drawn))
