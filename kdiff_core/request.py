"""`Request`: a run that shares the calls of a model with others.

A run keeps the engine's loop. It goes on in a thread of its own, of which one at a time has the baton, until
it asks for the model; then it waits for the runner. So every sampler, guidance and callback can share calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

import torch

from .errors import KdiffError
from .shared_call import Pending, Share

if TYPE_CHECKING:
    from .batching import BatchRunner
    from .result import Result

_inside = threading.local()  # of a request's thread: the request


def refuse_inside(what: str) -> None:
    """Refuse what would wait for ever: a run that waits for the runner, which waits for the run."""
    if getattr(_inside, "request", None) is not None:
        raise KdiffError(f"{what} inside a request, from its callback or guidance; it would wait for itself")


class Request:
    """One run that shares model calls; `BatchRunner.submit` makes it.

    Attributes:
        number: Number of the request, from 0, in the order of submission.
        calls: Model calls that it had a part in.
        waited: Most calls of the model that went by while an evaluation of it waited for its first row.
        cancelled: Whether it is to stop.
    """

    def __init__(self, runner: BatchRunner, number: int, begin: Callable[[Any], Result]) -> None:
        self.number = number
        self.calls = 0
        self.waited = 0
        self.runner = runner
        self._begin = begin
        self._future: Future[Result] = Future()
        self._thread: threading.Thread | None = None
        self._resume = threading.Semaphore(0)
        self._paused = threading.Semaphore(0)
        self._pending: Pending | None = None
        self.cancelled = False

    @property
    def done(self) -> bool:
        """Whether it is over: finished, failed or cancelled."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the run's `Result`; without a serving thread this makes the model calls itself.

        Args:
            timeout: Seconds to wait for a serving thread. Default: as long as it takes.

        Raises:
            CancelledError: It was cancelled; the exception's ``partial`` has what was computed.
            TimeoutError: It is not over in time.
            Exception: What stopped the run.
            KdiffError: It is called inside a request.
        """
        if not self.done:
            refuse_inside("Request.result")
        while not self.done and not self.runner.serving:
            self.runner.step()
        return self._future.result(timeout)

    def cancel(self) -> None:
        """Stop the run before its next model call; the other requests do not notice."""
        self.cancelled = True
        self.runner.wake()

    def leave_line(self) -> None:
        """End a request that was cancelled before it began."""
        self._future.set_exception(CancelledError(f"request {self.number} was cancelled"))

    def count(self, share: Share, calls: int) -> None:
        """Note that some of its rows are part of a call, `calls` calls after the runner's first."""
        self.calls += 1
        if share.start == 0:
            self.waited = max(self.waited, calls - share.pending.since)

    def go_on(self) -> Pending | None:
        """Let the run go on until it asks for the model; None when it is over. In the runner's thread."""
        self._pending = None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"kdiff-{self.number}", daemon=True)
            self._thread.start()
        else:
            self._resume.release()
        self._paused.acquire()
        return self._pending

    def _run(self) -> None:
        """The run, in its own thread."""
        _inside.request = self
        try:
            with torch.no_grad():
                outcome = self._begin(SharedDenoiser(self))
        except BaseException as error:  # the caller of `result` gets it
            self._future.set_exception(error)
        else:
            self._future.set_result(outcome)
        self._paused.release()

    def ask(self, method: str, x: Any, sigma: Any, cond: dict[str, Any]) -> Any:
        """Wait for the model's output. In the run's thread."""
        self._check_cancelled()
        pending = self._pending = Pending(self, method, x, sigma, cond, self.runner.calls)
        self._paused.release()
        self._resume.acquire()
        self._check_cancelled()
        return pending.output()

    def _check_cancelled(self) -> None:
        if self.cancelled:
            raise CancelledError(f"request {self.number} was cancelled")


class SharedDenoiser:
    """The model as one request sees it: a call waits until the runner makes it, with the rows of others."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __call__(self, x: Any, sigma: Any, **cond: Any) -> Any:
        """Return the model's output."""
        return self._request.ask("", x, sigma, cond)

    def __getattr__(self, name: str) -> Any:
        """Find everything else on the model; its ``predict`` is shared too."""
        value = getattr(self._request.runner.denoiser, name)
        if name != "predict" or not callable(value):
            return value
        return lambda x, sigma, **cond: self._request.ask("predict", x, sigma, cond)
