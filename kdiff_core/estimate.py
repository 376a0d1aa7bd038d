"""`memory`: how much a run will need, from its plan and one call of the model on tensors without values."""

from __future__ import annotations

import copy
import logging
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from .chunking import Chunked
from .draw import AHEAD
from .errors import CapabilityError
from .machine import Machine
from .offload import Parking
from .plans import Evaluate, Plan
from .state import Leaves, check_like, flatten, rebuild

# Logs with a traceback what it raises too.
_TALKATIVE = logging.getLogger("torch._subclasses.fake_tensor")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered: the memory of all tensors that operations make, in bytes.

    Args:
        fakes: What makes tensors without values of those that have some, if all are to be without.

    Attributes:
        current: Alive now.
        peak: Most alive at once.
        given: What operations read that none of them made: parameters, conditions, the caller's states.
        paused: Whether nothing is counted for now.
    """

    def __init__(self, fakes: FakeTensorMode | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current = self.peak = self.given = 0
        self.paused = False
        self._fakes = fakes
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what it read and made."""
        if self.paused:
            return func(*args, **(kwargs or {}))
        if self._fakes is not None:
            args, kwargs = tree_map_only(Tensor, self._without_values, (args, kwargs or {}))
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self.given += self._new(leaf)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and (size := self._new(leaf)):
                self.current += size
                weakref.finalize(leaf.untyped_storage(), self._free, size)
        self.peak = max(self.peak, self.current)
        return result

    def _without_values(self, leaf: Tensor) -> Tensor:
        """The same fake tensor each time for a tensor that has values, so that its memory is one."""
        if isinstance(leaf, FakeTensor) or self._fakes is None:
            return leaf
        _, fake = self._kept.setdefault(id(leaf), (leaf, self._fakes.from_tensor(leaf)))
        return fake

    def know(self, *leaves: Tensor) -> None:
        """Count tensors for nothing: neither as made nor as given."""
        for leaf in leaves:
            self._new(leaf)

    def _new(self, leaf: Tensor) -> int:
        """Bytes of a tensor's memory if it is seen for the first time, else 0."""
        storage = leaf.untyped_storage()
        if storage in self._seen:
            return 0
        self._seen[storage] = 1
        return storage.nbytes()

    def _free(self, size: int) -> None:
        self.current -= size


class MemoryEstimate(NamedTuple):
    """What a run needs at its peak. Sizes are in bytes.

    Counted: the states that the run holds, the caller's and what is drawn ahead on a GPU included; what the
    model's call reads (parameters, buffers, conditions); and the most that its operations hold at once.
    Not counted: parameters that the call does not read, workspaces inside of a kernel (convolutions, matrix
    products, attention), what an allocator rounds up and holds back, CUDA's context, other libraries;
    gradients; the copies that `trajectory` and `callback` ask for.

    Attributes:
        state: One state.
        states_at_calls: Most states alive during a model call, without those that the call makes.
        states_at_most: Most states alive at any time.
        model: What the model's call reads.
        activations: Most that it holds at once, its output included.
        has_model: Whether a denoiser was given; otherwise `model` and `activations` are 0.
    """

    state: int
    states_at_calls: int
    states_at_most: int
    model: int
    activations: int
    has_model: bool

    @property
    def total(self) -> int:
        """The peak."""
        at_calls = self.states_at_calls * self.state + self.activations
        return self.model + max(at_calls, self.states_at_most * self.state)

    def table(self) -> str:
        """The estimate for people."""
        rows = [
            ("a state", self.state, ""),
            ("states", self.states_at_most * self.state, f"{self.states_at_most} at most"),
            ("during a call", self.states_at_calls * self.state, f"{self.states_at_calls} states"),
        ]
        if self.has_model:
            rows += [
                ("model", self.model, "parameters, buffers, conditions"),
                ("activations", self.activations, "at most, in one call"),
            ]
        rows.append(("peak", self.total, "" if self.has_model else "without the model"))
        return "\n".join(f"{name:14} {size_of(size):>10}  {note}".rstrip() for name, size, note in rows)


def size_of(size: float) -> str:
    """A number of bytes for people."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} {_UNITS[-1]}"


def memory(
    plan: Plan,
    like: Any,
    denoiser: Any = None,
    *,
    cond: dict[str, Any] | None = None,
    chunk: Any = None,
    offload: bool = False,
) -> MemoryEstimate:
    """Estimate what a run needs at its peak, without running it: nothing of its size is allocated.

    The states are counted by running the plan on states of one number. The model is called once, on tensors
    without values (torch's fake tensors).

    Args:
        plan: What is to be run, with noise from a seed; see `kdiff_core.plan`.
        like: A state of the shape and dtype, where the model is; its values are not read. Both may be on
            device "meta".
        denoiser: The model. Default: only the states are counted.
        cond: Keyword arguments for the model.
        chunk: As in `StepSampler.run`; "auto" counts the whole batch, with which it begins.
        offload: As in `StepSampler.run`.

    Raises:
        StateError: `like` is no state.
        CapabilityError: The model needs values: it reads some on the host, or leaves torch.
    """
    leaves = check_like(like)
    plan = plan.increments()
    on_gpu = leaves[0].device.type == "cuda"
    calls, most = live_states(plan, offload and leaves[0].device.type != "cpu", on_gpu)
    state = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    if denoiser is None:
        return MemoryEstimate(state, calls, most, 0, 0, False)
    several = any(op.outputs != ("denoised",) for op in plan.ops if isinstance(op, Evaluate))
    model, activations = _one_call(denoiser, like, cond or {}, chunk, several)
    return MemoryEstimate(state, calls, most, model, activations, True)


def live_states(plan: Plan, offload: bool = False, on_gpu: bool = False) -> tuple[int, int]:
    """Count the states of a run, by running its plan on states of one number.

    Args:
        plan: The plan.
        offload: Whether history is moved to the CPU. Such states are not counted.
        on_gpu: Whether noise is drawn ahead, as on CUDA.

    Returns:
        The most during a model call, its input and the caller's state included and its output not; and the
        most at any time.
    """
    with Tracker() as tracker:
        x = [torch.zeros(1)]
        one = x[0].element_size()

        def draw(*request: Any) -> Leaves:
            return [torch.zeros(1)] if request[1] is None else request[1]

        draw.fills = not on_gpu  # type: ignore[attr-defined]
        machine = Machine(plan, x, draw)
        machine.parking = _Elsewhere(tracker) if offload else None
        calls = 0
        for step, until in zip(plan.steps, plan.ends, strict=True):
            machine.park(step.start)
            while (op := machine.advance(until)) is not None:
                calls = max(calls, tracker.current)
                machine.supply(op, [[torch.zeros(1)] for _ in op.outs])
        if not machine.owns_result():
            x[0].clone()
    ahead = AHEAD if on_gpu and plan.stochastic else 0
    return calls // one + ahead, tracker.peak // one + ahead


class _Elsewhere(Parking):
    """A CPU whose tensors are not counted."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__(torch.device("cpu"))
        self.tracker = tracker

    def park(self, leaves: Leaves) -> Leaves:
        self.tracker.paused = True
        hosts = [leaf.clone() for leaf in leaves]
        self.tracker.paused = False
        self.tracker.know(*hosts)
        return hosts

    def fetch(self, leaf: Tensor) -> Tensor:
        return leaf.clone()


def _one_call(denoiser: Any, like: Any, cond: dict[str, Any], chunk: Any, several: bool) -> tuple[int, int]:
    """Call the model on fake tensors; return the bytes that it read and those that it held at most."""
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    talks, _TALKATIVE.disabled = _TALKATIVE.disabled, True
    try:
        model = _without_values(denoiser, fakes)
        model = model if chunk is None else Chunked(model, chunk)
        with torch.no_grad(), fakes:
            x = rebuild(like, [torch.empty_like(leaf) for leaf in flatten(like)])
            first = flatten(x)[0]
            sigma = torch.ones(first.shape[:1], dtype=first.dtype, device=first.device)
            with Tracker(fakes) as tracker:
                tracker.know(*flatten(x), sigma)
                output = model.predict(x, sigma, **cond) if several else model(x, sigma, **cond)
                del output
    except Exception as error:
        raise CapabilityError(
            f"memory: {type(denoiser).__name__} cannot be called on tensors without values, for it reads "
            f"some or leaves torch ({type(error).__name__}: {str(error).splitlines()[0]:.200}); "
            "memory(plan, like) counts the states alone"
        ) from error
    finally:
        _TALKATIVE.disabled = talks
    return tracker.given, tracker.peak


def _without_values(denoiser: Any, fakes: FakeTensorMode) -> Any:
    """A copy of a model, without values; what it remembers of its call does not reach the model."""
    with FakeCopyMode(fakes):
        try:
            return copy.deepcopy(denoiser)
        except Exception:  # it cannot be copied: then it is called itself
            return denoiser
