"""`BatchRunner`: many runs, each with its own sampler, levels and seed, share the calls of one model."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from .errors import KdiffError, ParameterError
from .lookup import get_sampler
from .request import Request, refuse_inside
from .shared_call import Pending, Share, answer

if TYPE_CHECKING:
    from .sampler import StepSampler

__all__ = ["BatchRunner", "Request"]


class BatchRunner:
    """Runs many requests at once on shared model calls, whatever their samplers, levels, seeds or conditions.

    ::

        runner = BatchRunner(model, max_batch=16)
        requests = [runner.submit("dpmpp_2m", x, sigmas, seed=i) for i, x in enumerate(starts)]
        runner.run()
        images = [request.result().x for request in requests]

    ``with BatchRunner(model) as runner:`` serves from a thread of its own until all requests are over;
    `submit` and `Request.cancel` may be called from any thread, at any time.

    What is asked of the model first is answered first, and each call is filled up with rows that go with it:
    states of equal shape, dtype and device, conditions of equal structure. Of a condition, a tensor whose
    first dimension is the request's batch size has a row for each sample; anything else is shared by
    requests that were given the same object or an equal number, string or tuple. A request whose batch is
    larger than a call, or than what is left of one, is answered in parts. With a model whose outputs do not
    depend on the batch, a request gets bit for bit what it would have got alone. No gradient is recorded.

    Args:
        denoiser: The model, or its name is looked up with `kdiff_core.get_denoiser` beforehand.
        max_batch: Most rows of a call.
        max_running: Most requests that have begun and are not over; the others wait in line, without memory
            beside their initial state.

    Attributes:
        calls: Model calls so far.
        rows: Rows of all calls: ``rows / calls`` is how full they were.

    Raises:
        ParameterError: Numbers below 1, or a denoiser that is not callable.
    """

    def __init__(self, denoiser: Any, *, max_batch: int = 16, max_running: int = 64) -> None:
        if not callable(denoiser):
            raise ParameterError(f"denoiser={denoiser!r:.60} is not callable; see kd.get_denoiser")
        for name, value in (("max_batch", max_batch), ("max_running", max_running)):
            if not isinstance(value, int) or value < 1:
                raise ParameterError(f"{name}={value!r}: give a whole number, at least 1")
        self.denoiser, self.max_batch, self.max_running = denoiser, max_batch, max_running
        self.calls = self.rows = 0
        self.serving = False
        self._submitted = 0
        self._line: deque[Request] = deque()
        self._running: list[Request] = []
        self._ready: deque[Request] = deque()
        self._waiting: list[Pending] = []
        self._lock = threading.Lock()
        self._stepping = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._server: threading.Thread | None = None

    def submit(
        self,
        sampler: StepSampler | str,
        x: Any,
        sigmas: Any,
        *,
        guide: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> Request:
        """Put a run in line.

        Args:
            sampler: A sampler, or its name.
            x: State at the first level, ``(B, ...)`` or a nest.
            sigmas: Noise levels.
            guide: Makes the denoiser of this run from the shared one, for example
                ``lambda model: kd.get_guidance("cfg", model, scale=5.0)``. Default: the shared one.
            **options: Those of `StepSampler.run`: seed, noise, cond, callback, trajectory, process. A slow
                callback holds up the others.

        Returns:
            The request. A refusal of its arguments comes from `Request.result`, before any model call of it.

        Raises:
            UnknownNameError: No plugin offers the sampler.
        """
        solver: StepSampler = get_sampler(sampler)
        wrap = guide or (lambda model: model)
        with self._news:
            request = Request(
                self, self._submitted, lambda model: solver.run(wrap(model), x, sigmas, **options)
            )
            self._submitted += 1
            self._line.append(request)
            self._news.notify()
        return request

    @property
    def open(self) -> int:
        """Number of requests that are not over."""
        return len(self._line) + len(self._running)

    def step(self) -> bool:
        """Admit requests, bring each to where it waits for the model, and make one call.

        Returns:
            Whether any request is left.

        Raises:
            KdiffError: It is called inside a request.
        """
        refuse_inside("BatchRunner.step")
        with self._stepping:
            self._advance()
            shares = self._next()
            if shares:
                self._call(shares)
                self._advance()
            return bool(self.open)

    def run(self, progress: bool = False) -> None:
        """Make model calls until every request is over; `progress` shows a bar that counts requests."""
        from tqdm.auto import tqdm

        with tqdm(total=self.open, desc="requests", disable=not progress) as bar:
            while self.step():
                bar.update(bar.total - self.open - bar.n)
            bar.update(bar.total - bar.n)

    def _advance(self) -> None:
        """Admit, and let runs go on until all of them wait for the model; those that are over leave."""
        with self._lock:
            for request in [r for r in self._line if r.cancelled]:
                self._line.remove(request)
                request.leave_line()
            while self._line and len(self._running) < self.max_running:
                self._running.append(self._line.popleft())
                self._ready.append(self._running[-1])
        for pending in [p for p in self._waiting if p.request.cancelled]:
            self._waiting.remove(pending)
            self._ready.append(pending.request)
        while self._ready:
            request = self._ready.popleft()
            asked = request.go_on()
            if asked is None:
                self._running.remove(request)
            else:
                self._waiting.append(asked)

    def _next(self) -> list[Share]:
        """The rows of the next call: those that wait longest, and what goes with them."""
        shares: list[Share] = []
        left = self.max_batch
        for pending in self._waiting:
            if left and pending.key == self._waiting[0].key:
                shares.append(pending.take(min(left, pending.left)))
                left -= shares[-1].rows
        return shares

    def _call(self, shares: list[Share]) -> None:
        """Make one call of the model and hand out its rows."""
        for share in shares:
            share.pending.request.count(share, self.calls)
        self.calls += 1
        self.rows += sum(share.rows for share in shares)
        try:
            with torch.no_grad():
                answer(self.denoiser, shares)
        except Exception as error:
            if len(shares) == 1:
                shares[0].pending.error = error
            else:  # which of them is to blame is not known: the ones that fail alone
                for share in shares:
                    share.give_back()
                    share.pending.key = object()
        except BaseException:  # somebody interrupts; the call can be made again
            for share in shares:
                share.give_back()
            raise
        answered = [s.pending for s in shares if s.pending.error is not None or not s.pending.left]
        self._waiting = [pending for pending in self._waiting if pending not in answered]
        self._ready.extend(pending.request for pending in answered)

    def wake(self) -> None:
        """Have a serving thread look at what has changed."""
        with self._news:
            self._news.notify()

    def _serve(self) -> None:
        """Serve until told to stop and all is over. In the serving thread."""
        while True:
            with self._news:
                while self.serving and not self.open:
                    self._news.wait()
                if not self.serving and not self.open:
                    return
            try:
                self.step()
            except BaseException as error:  # nobody else would hear of it
                self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        """End all requests with an error."""
        while self._running:
            for pending in self._waiting:
                pending.error = error
                self._ready.append(pending.request)
            self._waiting = []
            self._advance()

    def __enter__(self) -> BatchRunner:
        """Serve from a thread."""
        if self.serving:
            raise KdiffError("this BatchRunner is serving already; submit to it")
        self.serving = True
        self._server = threading.Thread(target=self._serve, name="kdiff-serve", daemon=True)
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Finish all requests, or after an exception cancel them, and end the thread."""
        if kind is not None:
            for request in [*self._line, *self._running]:
                request.cancel()
        self.serving = False
        self.wake()
        assert self._server is not None
        self._server.join()
