"""What a run makes: `StepInfo` for callbacks, `Result`, and `Checkpoint` to go on from."""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import define, field
from torch import Tensor

from .errors import MissingExtraError, StateError
from .files import write_whole
from .state import Leaves, rebuild

if TYPE_CHECKING:
    from .plans import Plan


class StepInfo(NamedTuple):
    """What a callback gets, once for each step, at its end; its states are the callback's own.

    Attributes:
        index: Number of the step, from 0.
        total: Number of steps.
        sigma: Level at which the step began.
        sigma_hat: Level of its first evaluation: above `sigma` with churn.
        sigma_next: Level at which it ended.
        x: State of the first evaluation, at `sigma_hat`; None for a step that was resumed after it.
        denoised: Output of the first evaluation; likewise.
        x_next: State at the end of the step, at `sigma_next`.
        evaluations: Model calls so far.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index
    total: int
    sigma: float
    sigma_hat: float
    sigma_next: float
    x: Any
    denoised: Any
    x_next: Any
    evaluations: int


@define(eq=False)
class Result:
    """The outcome of a run.

    Attributes:
        x: Final state, or the state at which the run was stopped.
        evaluations: Number of model calls.
        trajectory: The states at all levels, the first included, if they were asked for.
        info: Sampler, path, levels, seed, whether a plan was run and if not why.
        checkpoint: Where to go on from, if the run was stopped.
    """

    x: Any
    evaluations: int
    trajectory: list[Any] | None = None
    info: dict[str, Any] = field(factory=dict)
    checkpoint: Checkpoint | None = None


@define(eq=False)
class Checkpoint:
    """A run in the middle: its plan, the operation that comes next, and the states alive there.

    ``sampler.run(denoiser, resume=checkpoint)`` goes on with its history, bit for bit as if it had not
    stopped. Noise that is not keyed is given again (``noise=``).

    Attributes:
        plan: The plan.
        position: Number of the operation that comes next.
        registers: The live states.
        like: A state, for the structure of nests.
        evaluations: Model calls so far.
        finished: Number of finished steps.
        noise: The keyed noise (seed, index), or None.
    """

    plan: Plan
    position: int
    registers: dict[int, Leaves]
    like: Any
    evaluations: int
    finished: int
    noise: dict[str, Any] | None = None

    def save(self, file: str | FilePath) -> None:
        """Write to a safetensors file, whole or not at all.

        Raises:
            StateError: A nest with dataclasses, which a file cannot describe.
            MissingExtraError: The safetensors package is not installed.
        """
        save = _safetensors("torch").save
        tensors = {
            f"{r}.{i}": leaf.contiguous() for r, ls in self.registers.items() for i, leaf in enumerate(ls)
        }
        meta = {
            "plan": self.plan.to_dict(),
            "position": self.position,
            "evaluations": self.evaluations,
            "finished": self.finished,
            "noise": self.noise,
            "like": _skeleton(self.like),
        }
        write_whole(file, save(tensors, {"kdiff_checkpoint": json.dumps(meta)}))

    @classmethod
    def load(cls, file: str | FilePath, device: str = "cpu") -> Checkpoint:
        """Read a file that `save` wrote; nothing is unpickled.

        Raises:
            StateError: The file holds no checkpoint.
        """
        from .plans import Plan

        safetensors = _safetensors("")
        try:
            opening = safetensors.safe_open(str(file), "pt", device=device)
        except safetensors.SafetensorError as error:
            raise StateError(f"{file}: holds no kdiff checkpoint: {error}") from error
        with opening as opened:
            text = (opened.metadata() or {}).get("kdiff_checkpoint")
            if text is None:
                raise StateError(f"{file}: holds no kdiff checkpoint")
            meta = json.loads(text)
            registers: dict[int, Leaves] = {}
            for key in sorted(opened.keys(), key=lambda k: tuple(map(int, k.split(".")))):
                registers.setdefault(int(key.split(".")[0]), []).append(opened.get_tensor(key))
        like = rebuild(_nest(meta["like"], next(iter(registers.values()))), next(iter(registers.values())))
        plan = Plan.from_dict(meta["plan"])
        return cls(
            plan, meta["position"], registers, like, meta["evaluations"], meta["finished"], meta["noise"]
        )


def _safetensors(module: str) -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise MissingExtraError(
            "checkpoints are written with safetensors: pip install 'kdiff-core[cli]'"
        ) from error
    return safetensors.torch if module else safetensors


def _skeleton(state: Any) -> Any:
    """Describe a nest in JSON: 0 for a tensor."""
    if isinstance(state, Tensor):
        return 0
    if isinstance(state, dict) and all(isinstance(key, str) for key in state):
        return {key: _skeleton(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return [type(state).__name__, [_skeleton(item) for item in state]]
    raise StateError(
        f"a checkpoint file describes tensors, dicts with string keys, lists and tuples, not "
        f"{type(state).__name__}; keep the Checkpoint object, or save with such a state"
    )


def _nest(skeleton: Any, leaves: Leaves) -> Any:
    """Build a nest from its description, its tensors being any."""
    if skeleton == 0:
        return leaves[0]
    if isinstance(skeleton, dict):
        return {key: _nest(value, leaves) for key, value in skeleton.items()}
    kind, items = skeleton
    return {"list": list, "tuple": tuple}[kind](_nest(item, leaves) for item in items)


def own(like: Any, leaves: Leaves) -> Any:
    """A state of fresh memory, for handing out."""
    return rebuild(like, [leaf.clone() for leaf in leaves])
