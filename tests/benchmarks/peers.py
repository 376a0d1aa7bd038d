"""kdiff, k-diffusion and diffusers on one problem: the same states, levels, model outputs and noise.

Neither peer is a dependency of kdiff: ``pip install --no-deps k-diffusion`` (its dependencies cannot be
installed together with current ones; what its samplers do not need is stubbed here) and
``pip install diffusers``.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import types
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

import kdiff_core as kd
from kdiff_core.combine import recipe
from kdiff_core.plans import Combine, Evaluate, Noise, Plan

Run = Callable[[], Tensor]
Model = Callable[..., Tensor]

# kdiff's name of each solver -> k-diffusion's function, diffusers' class and options.
SOLVERS: dict[str, tuple[str, tuple[str, dict[str, Any]] | None]] = {
    "euler": ("sample_euler", ("EulerDiscreteScheduler", {"prediction_type": "sample"})),
    "heun": ("sample_heun", ("HeunDiscreteScheduler", {})),
    "dpm2": ("sample_dpm_2", ("KDPM2DiscreteScheduler", {})),
    "dpmpp_2m": ("sample_dpmpp_2m", ("DPMSolverMultistepScheduler", {"prediction_type": "sample"})),
    "dpmpp_2m_sde": (
        "sample_dpmpp_2m_sde",
        ("DPMSolverMultistepScheduler", {"prediction_type": "sample", "algorithm_type": "sde-dpmsolver++"}),
    ),
    "dpmpp_sde": ("sample_dpmpp_sde", None),
    "euler_ancestral": ("sample_euler_ancestral", ("EulerAncestralDiscreteScheduler", {})),
    "lms": ("sample_lms", ("LMSDiscreteScheduler", {"prediction_type": "sample"})),
}
NOISY = {"dpmpp_2m_sde", "dpmpp_sde", "euler_ancestral"}
_OUTPUTS = 6

_STUBS = {
    "torchdiffeq": {"odeint": None},
    "torchsde": {},
    "PIL": {"Image": types.ModuleType("Image")},
    "safetensors": {},
    "torchvision": {},
    "torchvision.transforms": {"functional": types.ModuleType("functional")},
}


def missing(name: str) -> str | None:
    """Why a peer cannot be used, or None."""
    package = {"k-diffusion": "k_diffusion"}.get(name, name)
    if find_spec(package) is not None:
        return None
    return f"{name} is not installed: pip install --no-deps k-diffusion; pip install diffusers"


def _stub(name: str, values: dict[str, Any]) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = []  # type: ignore[attr-defined]
    for key, value in values.items():
        setattr(module, key, value)
    return module


def k_diffusion() -> types.ModuleType:
    """Load ``k_diffusion.sampling`` without what else its package imports.

    Raises:
        ImportError: It is not installed.
    """
    if (why := missing("k-diffusion")) is not None:
        raise ImportError(why)
    if "k_diffusion.sampling" in sys.modules:
        return sys.modules["k_diffusion.sampling"]
    spec = find_spec("k_diffusion")
    assert spec is not None
    bare = types.ModuleType("k_diffusion")
    bare.__path__, bare.__spec__ = list(spec.submodule_search_locations or ()), spec
    sys.modules["k_diffusion"] = bare
    stubbed = [
        name for name in _STUBS if name not in sys.modules and find_spec(name.partition(".")[0]) is None
    ]
    sys.modules.update({name: _stub(name, _STUBS[name]) for name in stubbed})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("k_diffusion.sampling")
    finally:
        for name in stubbed:
            del sys.modules[name]


def diffusers_class(name: str) -> Any:
    """Load one of diffusers' schedulers.

    Raises:
        ImportError: It is not installed.
    """
    if (why := missing("diffusers")) is not None:
        raise ImportError(why)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module("diffusers"), name)


@define
class Problem:
    """A state, its levels, and a model and noise that cost next to nothing and are the same for all.

    The model hands out a few tensors in turn: kdiff refuses an output in the memory of an earlier one
    that is still needed.

    Attributes:
        shape: Shape of the state.
        steps: Number of steps.
        device: Where it lies.
        model: ``model(x, sigma)``; default the precomputed outputs.
    """

    shape: tuple[int, ...]
    steps: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    sigma_max: float = 14.6
    model: Model | None = None
    x: Tensor = field(init=False)
    noise: Tensor = field(init=False)
    outputs: list[Tensor] = field(init=False)
    sigmas: tuple[float, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        random = torch.Generator().manual_seed(0)

        def normal() -> Tensor:
            return torch.randn(self.shape, generator=random, dtype=self.dtype).to(self.device)

        self.x, self.noise = normal() * self.sigma_max, normal()
        self.outputs = [normal() for _ in range(_OUTPUTS)] if self.model is None else []
        grid = kd.get_schedule("karras")(self.steps, sigma_min=0.03, sigma_max=self.sigma_max)
        self.sigmas = tuple(float(s) for s in grid)

    def new_model(self) -> Model:
        """The model, its outputs from the first on."""
        if self.model is not None:
            return self.model
        following = itertools.cycle(self.outputs).__next__
        return lambda x, sigma, **kwargs: following()

    def draw(self, *interval: Any, **options: Any) -> Tensor:
        """The noise, the same tensor for every interval."""
        return self.noise


def run_kdiff(solver: str, problem: Problem) -> Run:
    """A run of kdiff."""
    sampler, model, x, sigmas = kd.get_sampler(solver), problem.new_model(), problem.x, problem.sigmas
    source = kd.noise_from(problem.draw) if solver in NOISY else None
    return lambda: sampler(model, x, sigmas, noise=source)


def run_k_diffusion(solver: str, problem: Problem) -> Run:
    """A run of k-diffusion; its ODE solvers draw noise that they do not use, which is theirs."""
    function = getattr(k_diffusion(), SOLVERS[solver][0])
    model, x = problem.new_model(), problem.x
    sigmas = torch.tensor(problem.sigmas, dtype=problem.dtype, device=problem.device)
    options = {"noise_sampler": problem.draw} if solver in NOISY else {}
    return lambda: function(model, x, sigmas, disable=True, **options)


def run_diffusers(solver: str, problem: Problem, convert: bool = False) -> Run | None:
    """A loop over ``step`` of diffusers' scheduler, in its own units; None where it has no such solver.

    Scaling of the model's input, and ``set_timesteps``, are not counted.

    Args:
        solver: kdiff's name.
        problem: The problem.
        convert: Convert states and outputs, so that the result is that of the others; the timings leave
            the conversions out, and hand the precomputed outputs over as what the scheduler reads.
    """
    known = SOLVERS[solver][1]
    if known is None:
        return None
    scheduler, count = new_scheduler(*known, problem.sigmas)
    multistep = type(scheduler).__name__.startswith("DPMSolver")
    options = {"variance_noise": problem.noise} if "sde" in solver else {}
    model, first = problem.new_model(), problem.x
    levels = model_levels(solver, problem.sigmas)
    epsilon = convert and scheduler.config.prediction_type == "epsilon"
    scales = [(1 + s * s) ** 0.5 if convert and multistep else 1.0 for s in levels]

    @torch.no_grad()
    def run() -> Tensor:
        reset(scheduler)
        x = first / scales[0] if scales[0] != 1 else first
        for t, sigma, scale in zip(scheduler.timesteps, levels, scales, strict=True):
            seen = x * scale if scale != 1 else x
            output = model(seen, sigma)
            if epsilon:
                output = (seen - output) / sigma
            x = scheduler.step(output, t, x, return_dict=False, **options)[0]
        return x

    assert len(scheduler.timesteps) == len(levels) == count
    return _with_noise(run, problem.draw) if solver == "euler_ancestral" else run


def model_levels(solver: str, sigmas: tuple[float, ...]) -> list[float]:
    """Levels of diffusers' model calls in order."""
    if solver == "heun":
        return [sigmas[0], *(s for s in sigmas[1:-1] for _ in range(2))]
    if solver == "dpm2":
        pairs = itertools.pairwise(sigmas[:-1])
        stages = [s for a, b in pairs for s in (a, (a * b) ** 0.5)]
        return [*stages, sigmas[-2]]
    return list(sigmas[:-1])


def new_scheduler(name: str, options: dict[str, Any], sigmas: tuple[float, ...]) -> tuple[Any, int]:
    """One of diffusers' schedulers, set to the levels given, and its number of ``step`` calls."""
    scheduler = diffusers_class(name)(**options)
    scheduler.set_timesteps(len(sigmas) - 1)
    levels = torch.tensor(sigmas, dtype=torch.float32)
    if name.startswith("Heun"):
        levels = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    elif name.startswith("KDPM2"):
        middle = levels.log().lerp(levels.roll(1).log(), 0.5).exp()
        scheduler.sigmas_interpol = torch.cat([middle[:1], middle[1:].repeat_interleave(2), middle[-1:]])
        levels = torch.cat([levels[:1], levels[1:].repeat_interleave(2), levels[-1:]])
    scheduler.sigmas = levels
    scheduler.is_scale_input_called = True
    return scheduler, len(scheduler.timesteps)


def reset(scheduler: Any) -> None:
    """Put a scheduler back to its first step."""
    scheduler._step_index = None
    scheduler.set_begin_index(0)
    for name, value in (("dt", None), ("sample", None), ("prev_derivative", None), ("lower_order_nums", 0)):
        if hasattr(scheduler, name):
            setattr(scheduler, name, value)
    if hasattr(scheduler, "derivatives"):
        scheduler.derivatives = []
    if hasattr(scheduler, "model_outputs"):
        scheduler.model_outputs = [None] * scheduler.config.solver_order


def _with_noise(run: Run, draw: Callable[..., Tensor]) -> Run:
    """Run with the noise given, where a scheduler has no argument for it."""
    module = importlib.import_module("diffusers.schedulers.scheduling_euler_ancestral_discrete")

    def patched() -> Tensor:
        kept, module.randn_tensor = module.randn_tensor, draw
        try:
            return run()
        finally:
            module.randn_tensor = kept

    return patched


def run_ideal(solver: str, problem: Problem) -> Run:
    """A loop as one would write it by hand for one grid: no object, no check, every weight a literal.

    The weights, and which memory can be written over, are taken from kdiff's plan.
    """
    plan = kd.get_sampler(solver).plan(problem.sigmas)
    batch = problem.shape[0]
    levels = [
        torch.full((batch,), float(s), dtype=problem.dtype, device=problem.device)
        for s in plan.evaluation_sigmas
    ]
    scope: dict[str, Any] = {"torch": torch, "lerp": torch.lerp, "add": torch.add, "mul": torch.mul}
    exec(compile(straight_line(plan), "<ideal>", "exec"), scope)
    function, model, x, draw = scope["run"], problem.new_model(), problem.x, problem.draw

    @torch.no_grad()
    def run() -> Tensor:
        return function(model, draw, levels, x)

    return run


def straight_line(plan: Plan) -> str:
    """The source of a function that does what a plan does, and nothing else."""
    last, own, free = plan.last_use(), {}, []
    fresh, calls = itertools.count(), itertools.count()
    lines = ["def run(model, draw, levels, r0):"]
    for position, op in enumerate(plan.ops):
        if isinstance(op, Evaluate):
            lines.append(f"r{op.outs[0]} = model(r{op.x}, levels[{next(calls)}])")
        elif isinstance(op, Noise):
            lines.append(f"r{op.out} = draw({op.sigma_from!r}, {op.sigma_to!r})")
        else:
            early = [op.terms[i][0] for i in _chain(op, plan).early]
            reused = next((r for r in early if r in own and last[r] <= position), None)
            if reused is None and not free:
                free.append(f"b{next(fresh)}")
                lines.append(f"{free[-1]} = torch.empty_like(r0)")
            target = free.pop() if reused is None else own.pop(reused)
            lines += _statements(op, plan, target)
            own[op.out] = target
        ended = [r for r in own if last[r] <= position]
        free += [own.pop(r) for r in ended]
    return "\n    ".join([*lines, f"return r{plan.result}"]) + "\n"


def _chain(op: Combine, plan: Plan) -> Any:
    drawn = {noise.out for noise in plan.noises}
    extras = frozenset(i for i, (r, _) in enumerate(op.terms) if r in drawn)
    return recipe([float(w) for _, w in op.terms], extras)


def _statements(op: Combine, plan: Plan, target: str) -> list[str]:
    """The source of one combination."""
    chain = _chain(op, plan)
    value = f"r{op.terms[chain.first][0]}"
    lines = []
    if chain.scale != 1.0 or not chain.links:
        lines.append(f"mul({value}, {chain.scale!r}, out={target})")
        value = target
    for kind, i, weight in chain.links:
        alpha = repr(weight) if kind == "lerp" else f"alpha={weight!r}"
        lines.append(f"{kind}({value}, r{op.terms[i][0]}, {alpha}, out={target})")
        value = target
    return [*lines, f"r{op.out} = {target}"]


def runs(solver: str, problem: Problem) -> dict[str, Run]:
    """A run of every peer that is there and knows the solver."""
    found: dict[str, Run | None] = {
        "kdiff": run_kdiff(solver, problem),
        "ideal": run_ideal(solver, problem),
    }
    if missing("k-diffusion") is None:
        found["k-diffusion"] = run_k_diffusion(solver, problem)
    if missing("diffusers") is None:
        found["diffusers"] = run_diffusers(solver, problem)
    return {name: run for name, run in found.items() if run is not None}
