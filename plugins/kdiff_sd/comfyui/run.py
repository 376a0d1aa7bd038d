"""A run of a sampler by ComfyUI's contract: its model calls, its callback, its edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from tqdm.auto import tqdm

from kdiff_core import Prediction, StepSampler
from kdiff_core.errors import CapabilityError, NoiseError
from kdiff_core.job import Job, new_job, new_machine
from kdiff_core.lookup import get_noise
from kdiff_core.noise import noise_from
from kdiff_core.plans import Evaluate
from kdiff_core.result import StepInfo
from kdiff_core.state import all_finite, check_output, total_of
from kdiff_core.stepper import Mark

from .host_model import HostModel

Callback = Callable[[dict[str, Any]], Any]
HOST_NOISE = "comfyui"
_SEEDS = 2**64


def noise_source(noise: Any, seed: int | None, x: Tensor) -> Any:
    """Return the noise of a run, None for kdiff's with a fresh seed.

    Args:
        noise: Name of a noise source of kdiff; ``"comfyui"``, a generator on the state's device; or a source.
        seed: ComfyUI's seed, or None if it gave none.
        x: State, for its device.

    Raises:
        NoiseError: ComfyUI's noise is asked for without a seed.
    """
    if not isinstance(noise, str):
        return noise_from(noise)
    if noise != HOST_NOISE:
        return None if seed is None else get_noise(noise, seed=int(seed))
    if seed is None:
        raise NoiseError('noise="comfyui" needs a seed, and extra_args has none')
    # On the CPU the generator of the same seed has drawn the initial noise already.
    offset = int(x.device.type == "cpu")
    return noise_from(torch.Generator(x.device).manual_seed((int(seed) + offset) % _SEEDS))


@torch.no_grad()
def sample(
    sampler: StepSampler,
    model: Callable[..., Any],
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any] | None,
    callback: Callback | None,
    disable: bool | None,
    noise: Any,
) -> Tensor:
    """Run a sampler by the contract of ComfyUI's sampler functions; see `sampler_function`."""
    if len(sigmas) < 2:
        return x
    extra_args = extra_args or {}
    host = HostModel(model, extra_args)
    source = noise_source(noise, extra_args.get("seed"), x)
    levels = sigmas.detach().cpu().double().tolist()
    job = new_job(sampler, host, x, levels, None, source, {}, None)
    shown = Shown(callback, sigmas, tuple(levels))
    with tqdm(total=job.total, disable=disable) as bar:
        if job.plan is not None:
            return _planned(job, host, shown, bar)

        def step(info: StepInfo) -> None:
            shown.step(info)
            bar.update()

        found: Tensor = sampler.run(Unedited(host), x, levels, noise=job.source, callback=step).x
        return found


def _planned(job: Job, host: HostModel, shown: Shown, bar: Any) -> Tensor:
    """Run a plan. The state of each model call is the host's: what it writes there is taken over."""
    plan = job.plan
    assert plan is not None
    job.sigma_tensors(plan)
    machine = job.machine = new_machine(job, plan)
    totals: list[Tensor] = []
    for job.step, (step, until) in enumerate(zip(plan.steps, plan.ends, strict=True)):
        begun, change = False, None
        while (op := machine.advance(until)) is not None:
            state = machine.leaves(op.x)[0]
            handed, level = state.clone(), job.sigmas[job.evaluations]
            version = _version(handed)
            outputs = _outputs(host, op, handed, level, job)
            totals += _look(job, op, outputs)
            if not begun:
                shown.call(job.step, job.total, step.sigma, handed, level, outputs)
                begun = True
            # Inference tensors do not say whether they were written to.
            if (version is None or _version(handed) != version) and op.entry:
                machine.take_over(op.x, [handed])
            elif version is None or _version(handed) != version:
                change = handed - state if change is None else change + (handed - state)
            machine.supply(op, [[outputs[name]] for name in op.outputs])
            job.evaluations += 1
        if change is not None:
            machine.take_over(step.end, [machine.leaves(step.end)[0] + change])
        bar.update()
    if totals and not all_finite(torch.stack(totals).cpu().double()):
        job.refuse_non_finite(totals, "the sum of a model output")
    found = machine.leaves(plan.result)[0]
    return found if machine.owns_result() else found.clone()


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def _outputs(host: HostModel, op: Evaluate, x: Tensor, sigma: Tensor, job: Job) -> dict[str, Tensor]:
    """Call the model; its outputs by name, in memory that is nobody else's."""
    given = {"denoised": host(x, sigma)} if op.outputs == ("denoised",) else host.predict(x, sigma)._asdict()
    return {name: check_output(given[name], job.x, [x])[0].clone() for name in op.outputs}


def _look(job: Job, op: Evaluate, outputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Refuse outputs that are not finite: at once on the CPU; on a device return what tells at the end."""
    leaves = list(outputs.values())
    if not leaves[0].is_cpu:
        return [total_of(leaf) for leaf in leaves]
    job.refuse_non_finite(leaves, f"the model output at sigma={float(op.sigma):.6g}")
    return []


@frozen
class Shown:
    """What the callback sees of a run.

    Attributes:
        callback: ComfyUI's callback, or None.
        sigmas: The levels asked for, ``(n + 1,)``, on the device.
        levels: The same, as numbers.
    """

    callback: Callback | None
    sigmas: Tensor
    levels: tuple[float, ...]

    def call(
        self, index: int, total: int, sigma: Any, x: Tensor, level: Tensor, outputs: Mapping[str, Tensor]
    ) -> None:
        """Show the first model call of a step; ``i`` counts the steps asked for, if others are taken."""
        if self.callback is None:
            return
        same = index < len(self.levels) and self.levels[index] == sigma
        own = self.sigmas[index] if same else self.sigmas.new_tensor(float(sigma))
        place = index * (len(self.levels) - 1) // total
        denoised = outputs.get("denoised", x)
        self._tell(place, x, own, level[0].clone(), denoised)

    def step(self, info: StepInfo) -> None:
        """Show the end of a step of a sampler that chooses its steps; ``i`` is how far it has come.

        Raises:
            CapabilityError: The callback wrote into a state: steps chosen for another one would be wrong.
        """
        if self.callback is None:
            return
        passed = sum(level >= info.sigma for level in self.levels[:-1])
        x, denoised = (info.x_next if v is None else v for v in (info.x, info.denoised))
        marks = [Mark.of(x), Mark.of(denoised)]
        sigma, sigma_hat = (self.sigmas.new_tensor(v) for v in (info.sigma, info.sigma_hat))
        self._tell(max(0, passed - 1), x, sigma, sigma_hat, denoised)
        if not (marks[0].unchanged(x) and marks[1].unchanged(denoised)):
            raise _edited("the callback")

    def _tell(self, place: int, x: Tensor, sigma: Tensor, sigma_hat: Tensor, denoised: Tensor) -> None:
        assert self.callback is not None
        told = {"x": x, "i": place, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised}
        self.callback(told)


class Unedited:
    """A host's model for a sampler that chooses its steps by the state: the state stays as it is."""

    def __init__(self, host: HostModel) -> None:
        self.host, self.path, self.process = host, host.path, host.process

    def __call__(self, x: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
        """Return the denoised state."""
        found: Tensor = self._call(self.host, x, sigma)
        return found

    def predict(self, x: Tensor, sigma: Tensor, **cond: Any) -> Prediction:
        """Return the outputs of `HostModel.predict`."""
        found: Prediction = self._call(self.host.predict, x, sigma)
        return found

    def _call(self, model: Callable[..., Any], x: Tensor, sigma: Tensor) -> Any:
        handed = x.clone()
        mark = Mark.of(handed)
        found = model(handed, sigma)
        if not mark.unchanged(handed):
            raise _edited("the model")
        return found.clone() if isinstance(found, Tensor) else found


def _edited(who: str) -> CapabilityError:
    return CapabilityError(
        f"{who} wrote into the state of an adaptive sampler, which chose its step for that state; use a "
        "sampler with fixed steps"
    )
