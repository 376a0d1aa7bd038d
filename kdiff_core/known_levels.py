"""What a model call may know of its levels without reading them: that they are one of the run's, and which.

To read a tensor of levels on a GPU is to wait for it, and to compute on it is to launch kernels for a few
numbers. While the engine runs a plan, `known` tells of a tensor whether it is the very one that the run made
for an evaluation, unchanged: then what follows from the level can be computed once, for all evaluations.
Anything else (levels of a host, of training, of another request, changed or made by a wrapper) is not known.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .job import Job


class Known(NamedTuple):
    """Levels that are known.

    Attributes:
        run: The levels of all evaluations of the run.
        evaluation: Number of the evaluation that they are of.
    """

    run: RunLevels
    evaluation: int


class RunLevels:
    """The levels of all evaluations of a run.

    Attributes:
        kept: What was computed of them, until the run is over.
    """

    def __init__(self, job: Job) -> None:
        self.kept: dict[Hashable, Any] = {}
        self._job = job
        self._version = job.sigmas[0]._version  # one for all, which are views of one tensor
        self._repeated: tuple[Tensor, int, int] | None = None

    def values(self) -> Tensor:
        """The level of each evaluation, ``(N,)``, in the dtype and on the device of the state."""
        return torch.stack(list(self._job.sigmas))[:, 0]

    def find(self, sigma: Tensor) -> int | None:
        """The evaluation that levels ``(B,)`` are of; None if that is not known."""
        index, version = self._job.evaluations, self._version
        if self._repeated is not None and sigma is self._repeated[0]:
            _, version, index = self._repeated
        elif index >= len(self._job.sigmas) or sigma is not self._job.sigmas[index]:
            return None
        return None if sigma._version != version or sigma.requires_grad else index

    def note_repeated(self, sigma: Tensor, index: int) -> None:
        """Remember the latest levels that are those of an evaluation, repeated."""
        if not sigma.is_inference():
            self._repeated = sigma, sigma._version, index


_present: ContextVar[RunLevels | None] = ContextVar("kdiff_run_levels", default=None)


@contextmanager
def knowing_levels(job: Job) -> Iterator[None]:
    """Let model calls know the levels of a run of a plan; inference tensors do not tell if they change."""
    token = _present.set(RunLevels(job) if job.sigmas and job.versioned else None)
    try:
        yield
    finally:
        _present.reset(token)


def transforming() -> bool:
    """Whether torch.func transforms a function, whose tensors must not outlive it."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def known(sigma: Tensor) -> Known | None:
    """Tell whether levels ``(B,)`` are those of one evaluation of the run that makes the call.

    Not while torch compiles or transforms a function.
    """
    if torch.compiler.is_compiling() or transforming():
        return None
    run = _present.get()
    index = None if run is None else run.find(sigma)
    return None if run is None or index is None else Known(run, index)


def repeated(sigma: Tensor, times: int) -> Tensor:
    """Return levels ``(B,)`` for a state that is repeated, ``(times B,)``; they are known if these are."""
    whole = sigma.repeat(times)
    found = known(sigma)
    if found is not None:
        found.run.note_repeated(whole, found.evaluation)
    return whole
