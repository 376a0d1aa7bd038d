"""A host's model in a run by k-diffusion's signature: calls the callback, moves the progress bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from torch import Tensor

from kdiff_core.errors import CapabilityError
from kdiff_core.protocols import PathName, Process
from kdiff_core.stepper import Mark


@define
class Watched:
    """A host's model as a denoiser, which says when a step begins and what its first evaluation was.

    Attributes:
        model: ``model(x, sigma, **extra_args)``, which returns the denoised state.
        callback: k-diffusion's callback, or None.
        begins: Numbers of the evaluations with which steps begin.
        shown: What the callback gets for ``i`` and ``sigma``, by the number of the evaluation.
        advance: Called when a step begins.
    """

    model: Callable[..., Any]
    callback: Callable[[dict[str, Any]], Any] | None
    begins: frozenset[int] = frozenset()
    shown: Mapping[int, tuple[int, Tensor]] = field(factory=dict)
    advance: Callable[[], Any] | None = None
    calls: int = 0

    @property
    def path(self) -> PathName:
        """The model's path where it has one; every k-diffusion model is on VE."""
        return "flow" if getattr(self.model, "path", "ve") == "flow" else "ve"

    @property
    def process(self) -> Process | None:
        """The model's noise process, if what it calls so is one."""
        process = getattr(self.model, "process", None)
        return process if isinstance(process, Process) else None

    def __call__(self, x: Tensor, sigma: Tensor, **cond: Any) -> Any:
        """Call the model."""
        return self._watch(self.model, x, sigma, cond)

    def __getattr__(self, name: str) -> Any:
        """Find ``predict`` on a guided denoiser, for samplers that need its parts."""
        if name != "predict":
            raise AttributeError(name)
        predict = getattr(self.model, name)
        return lambda x, sigma, **cond: self._watch(predict, x, sigma, cond)

    def _watch(self, model: Callable[..., Any], x: Tensor, sigma: Tensor, cond: dict[str, Any]) -> Any:
        call, self.calls = self.calls, self.calls + 1
        if self.advance is not None and (not self.begins or call in self.begins):
            self.advance()
        found = model(x, sigma, **cond)
        if self.callback is not None and call in self.shown:
            index, level = self.shown[call]
            denoised = getattr(found, "denoised", found)
            tell(self.callback, x.clone(), index, level, sigma[0].clone(), denoised.clone())
        return found


def tell(callback: Any, x: Tensor, index: int, sigma: Tensor, sigma_hat: Tensor, denoised: Any) -> None:
    """Call a callback with k-diffusion's dictionary; its states are the callback's own.

    Raises:
        CapabilityError: It wrote into a state, which would change nothing.
    """
    marks = [Mark.of(tensor) for tensor in (x, denoised) if isinstance(tensor, Tensor)]
    callback({"x": x, "i": index, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised})
    if not all(mark.unchanged(mark.leaf) for mark in marks):
        raise CapabilityError(
            "the callback wrote into d['x'] or d['denoised'], which are copies: the run would go on as if it "
            "had not; change what the model returns instead"
        )
