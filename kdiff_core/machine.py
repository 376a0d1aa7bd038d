"""`Machine`: runs a plan on tensors, from one model call to the next.

The engine and the `Stepper` both drive it, so that their results are equal bit for bit. It owns its
buffers: each is freed at its last use and written over by a later state, unless somebody else still
refers to its memory (a model that keeps its input, for example).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .combine import Recipe, combine, combine_recorded, recipe
from .errors import DenoiserError
from .offload import Fetching, Parking
from .plans import Combine, Evaluate, Noise, Op, Plan
from .state import Leaves

DrawInto = Callable[[Noise, Leaves | None], Leaves]

_storage_uses: Any = getattr(torch._C, "_storage_Use_Count", None)


def _uses(leaves: Leaves) -> int:
    """References to the tensors, which a kept tensor raises, and to their memory, which a view raises."""
    total = 0
    for leaf in leaves:
        total += sys.getrefcount(leaf) + _storage_uses(leaf.untyped_storage()._cdata)
    return total


# What a tensor of the machine's own counts. If torch cannot tell, every tensor may be in use elsewhere.
_OWN_USES = -1 if _storage_uses is None else _uses([torch.empty(1)])


class Update(NamedTuple):
    """A combination, prepared: its recipe, its operands, and those that end here and may be written over."""

    chain: Recipe
    sources: tuple[int, ...]
    over: tuple[int, ...]


class Lowered:
    """A plan, prepared for running.

    Attributes:
        code: For each operation the operation, the `Update` if it is a combination, and the registers that
            end with it, its own apart.
    """

    def __init__(self, plan: Plan) -> None:
        ending: dict[int, list[int]] = {}
        for register, position in plan.last_use().items():
            ending.setdefault(position, []).append(register)
        drawn = {op.out for op in plan.noises}
        code: list[tuple[Op, Update | None, tuple[int, ...]]] = []
        for position, op in enumerate(plan.ops):
            ends = tuple(ending.get(position, ()))
            update = None
            if isinstance(op, Combine):
                sources = tuple(r for r, _ in op.terms)
                extras = frozenset(i for i, r in enumerate(sources) if r in drawn)
                chain = recipe([float(w) for _, w in op.terms], extras)
                over = tuple(sources[i] for i in chain.early if sources[i] in ends)
                update = Update(chain, sources, over)
            code.append((op, update, ends))
        self.code = tuple(code)


def lowered(plan: Plan) -> Lowered:
    """Prepare a plan, once."""
    program: Lowered = plan._once("lowered", lambda: Lowered(plan))
    return program


class Machine:
    """The state of one run of a plan.

    Attributes:
        position: Number of the operation that comes next.
        registers: The tensors of each live register, by register.
        recording: Whether gradients are recorded, so that no memory is reused.
        parking: Keeps what waits for a later step on the CPU, if that is wanted.
        parked: Registers that are there.
    """

    def __init__(self, plan: Plan, leaves: Leaves, draw: DrawInto) -> None:
        self.program = lowered(plan)
        self.plan = plan
        self.draw = draw
        self.position = 0
        self.width = len(leaves)
        self.registers: list[Any] = [None] * plan.registers
        self.registers[0] = leaves
        self.owned: set[int] = set()
        self.recording = False
        self._record_if_needed(leaves)
        self._fills = bool(getattr(draw, "fills", False))
        self._pool: list[Leaves] = []
        self._outputs: dict[int, list[int]] = {}
        self._addresses: set[int] = set()
        self.busy = False
        self._hold: set[int | None] = set()
        self._held: list[int] = []
        self.device = leaves[0].device
        self.parking: Parking | None = None
        self.parked: set[int] = set()

    def leaves(self, register: int) -> Leaves:
        """Return the tensors of a live register, on the device."""
        found: Leaves = self.registers[register]
        if register in self.parked and self.parking is not None:
            return [self.parking.fetch(leaf) for leaf in found]
        return found

    def park(self, start: int) -> None:
        """Move what waits for a later step to the CPU: all but the state that the next step starts from."""
        if self.parking is None:
            return
        for register, leaves in enumerate(self.registers):
            if leaves is None or register in self.parked or register == start:
                continue
            self.registers[register] = self.parking.park(leaves)
            self.parked.add(register)
            self.owned.discard(register)
            self._addresses.difference_update(self._outputs.pop(register, ()))

    def advance(self, until: int) -> Evaluate | None:
        """Run up to the next model call.

        Args:
            until: Position to stop at, a step's end.

        Returns:
            The call, which `supply` answers; None where the operations before `until` are done.
        """
        code = self.program.code
        while self.position < until:
            op, update, ends = code[self.position]
            if update is not None:
                self.busy = True
                self._combine(op.out, update, ends)  # type: ignore[union-attr]
            elif isinstance(op, Evaluate):
                return op
            else:
                self._draw(op, ends)  # type: ignore[arg-type]
            self.position += 1
            self.busy = False
        return None

    def supply(self, op: Evaluate, outputs: list[Leaves]) -> None:
        """Take the outputs of the model call that `advance` returned."""
        self.busy = True
        x, registers, live = op.x, self.registers, self._addresses
        if x in self.owned and (_OWN_USES < 0 or _uses(registers[x]) > _OWN_USES * self.width):
            self.owned.discard(x)  # the model kept it, or returned it
        for register, leaves in zip(op.outs, outputs, strict=True):
            found = self._outputs[register] = [leaf.data_ptr() for leaf in leaves]
            if not live.isdisjoint(found):  # history is lost: stay busy, so that there is no checkpoint
                raise DenoiserError(
                    "the denoiser returned the memory of its earlier output, which the sampler still needs; "
                    "return a fresh tensor, for example output.clone()"
                )
            registers[register] = leaves
            self._record_if_needed(leaves)
        for register in op.outs:
            live.update(self._outputs[register])
        if ends := self.program.code[self.position][2]:
            self._free(ends)
        self.position += 1
        self.busy = False

    def _record_if_needed(self, leaves: Leaves) -> None:
        """Stop reusing memory once anything requires a gradient."""
        for leaf in leaves:
            if leaf.requires_grad and torch.is_grad_enabled():
                self.recording = True

    def take_over(self, register: int, leaves: Leaves) -> None:
        """Replace a register by a state that the host edited."""
        self.registers[register] = leaves
        self.owned.discard(register)
        self.parked.discard(register)
        self._record_if_needed(leaves)

    def restore(self, position: int, registers: dict[int, Leaves]) -> None:
        """Go on from a checkpoint."""
        self.position = position
        self.registers = [registers.get(r) for r in range(len(self.registers))]
        self.owned, self.parked = set(), set()

    def owns_result(self) -> bool:
        """Whether the final state is memory of the run's own, not the model's or the caller's."""
        return self.plan.result in self.owned

    def newest(self, finished: int) -> Leaves:
        """The state after a number of steps; if it has been written over, the latest that is alive."""
        steps = self.plan.steps
        end = steps[finished - 1].end if finished else steps[0].start
        if self.registers[end] is not None:
            return self.leaves(end)
        alive = [r for r, leaves in enumerate(self.registers) if leaves is not None]
        op = self.program.code[self.position][0]
        return self.leaves(op.x if isinstance(op, Evaluate) else alive[-1])

    def hold_states(self) -> None:
        """Keep what a callback gets, each step's first evaluation, alive until `release_held`."""
        self._hold = {r for step in self.plan.steps for r in (step.x, step.denoised)}

    def release_held(self) -> None:
        """Free what was kept alive until the end of a step."""
        for register in self._held:
            self._release(register)
        self._held.clear()

    def _combine(self, register: int, update: Update, ends: tuple[int, ...]) -> None:
        chain, sources, over = update
        registers = self.registers
        if self.recording:
            operands = zip(*(self.leaves(r) for r in sources), strict=True)
            result = [combine_recorded(chain, parts) for parts in operands]
        else:
            result = self._buffer(over, registers[sources[0]])
            for i, target in enumerate(result):
                parts: Sequence[Tensor] = [registers[r][i] for r in sources]
                if self.parked and self.parking is not None:
                    parked = frozenset(n for n, r in enumerate(sources) if r in self.parked)
                    parts = Fetching(parts, parked, self.parking)
                combine(chain, parts, target)
        self.owned.add(register)
        if ends:
            self._free(ends)
        registers[register] = result

    def _buffer(self, over: tuple[int, ...], like: Leaves) -> Leaves:
        """Memory for a result: an operand's that ends here, a freed one's, or new."""
        for register in over:
            if register in self.owned and register not in self._hold:
                self.owned.discard(register)
                return self.leaves(register)
        if self._pool:
            return self._pool.pop()
        return [torch.empty_like(leaf, device=self.device) for leaf in like]

    def _draw(self, op: Noise, ends: tuple[int, ...]) -> None:
        buffer = self._pool.pop() if self._fills and self._pool and not self.recording else None
        drawn = self.registers[op.out] = self.draw(op, buffer)
        self._record_if_needed(drawn)
        if self._fills:  # another source's tensor may be its own
            self.owned.add(op.out)
        self._free(ends)

    def _free(self, ends: tuple[int, ...]) -> None:
        hold = self._hold
        for register in ends:
            if hold and register in hold:
                self._held.append(register)
                self._addresses.difference_update(self._outputs.pop(register, ()))
            else:
                self._release(register)

    def _release(self, register: int) -> None:
        leaves, self.registers[register] = self.registers[register], None
        self.parked.discard(register)
        if register not in self.owned:
            self._addresses.difference_update(self._outputs.pop(register, ()))
            return
        self.owned.discard(register)
        if not self.recording and self.parking is None and leaves is not None:
            self._pool.append(leaves)  # with offload, memory that nobody needs is the model's to have
