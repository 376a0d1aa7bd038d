"""Who takes part in `bench_accuracy`: every deterministic sampler of kdiff, diffusers, k-diffusion and azula.

Each is a `Solver`: levels that end in 0 and a denoiser in, the state at 0 out. One that cannot step to 0
stops at the level before it and ends with the denoised state, a model call more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import attrs
import torch
from attrs import field, frozen
from conformance_diffusers import run_diffusers
from conformance_peers import Denoiser, missing_peer, none, quiet_double, run_k_diffusion
from conformance_subjects import subjects
from peers import k_diffusion
from torch import Tensor

import kdiff_core as kd
from kdiff_core.errors import KdiffError
from kdiff_core.testing.variants import deterministic, has_deterministic

# Where a tolerance decides how many calls are made: the first whose run fits the budget is taken.
TOLERANCES = tuple(10 ** (-4 + k / 8) for k in range(33))
Run = Callable[..., Tensor]


@frozen
class Solver:
    """A deterministic sampler.

    Attributes:
        library: Whose.
        name: Its name there, and options.
        run: ``run(model, x, levels)``: the state at the last level, 0.
        by_tolerance: ``by_tolerance(rtol)`` is `run` for a tolerance: the solver places its levels itself.
        count: ``count(levels)``: the number of model calls, where it is known without a run.
    """

    library: str
    name: str
    run: Run = field(eq=False)
    by_tolerance: Callable[[float], Run] | None = field(default=None, eq=False)
    count: Callable[[Sequence[float]], int] | None = field(default=None, eq=False)


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, model: Denoiser, path: str) -> None:
        self.model, self.path, self.calls = model, path, 0

    def __call__(self, x: Tensor, sigma: Tensor, **cond: Any) -> Tensor:
        """Count, and hand the call on."""
        self.calls += 1
        return self.model(x, sigma)


def solvers(library: str, path: str) -> list[Solver]:
    """The deterministic samplers of a library for a path.

    Raises:
        ImportError: It is not installed.
    """
    if (why := missing_peer(library)) is not None:
        raise ImportError(why)
    known = {"kdiff": _kdiff, "diffusers": _diffusers, "k-diffusion": _k_diffusion, "azula": _azula}
    return list(known[library](path))


def _kdiff(path: str) -> Iterator[Solver]:
    for entry in kd.list_samplers():
        sampler = kd.get_sampler(entry.name)
        if entry.plugin.builtin and not sampler.needs and has_deterministic(sampler):
            yield _own(entry.name, deterministic(sampler), sampler.stochastic, path)
    yield Solver("kdiff", "dpm_fast, end=denoised", _fast)
    for name, options in MODIFIED:
        try:
            sampler = kd.get_sampler(name, **options)
        except KdiffError as error:  # no such option
            print(f"left out: {name}: {error}", file=sys.stderr)
            continue
        told = ", ".join(f"{key}={value}" for key, value in options.items())
        yield _own(f"{name}, {told}", sampler, False, path)


_SHORT = (
    "dpmpp_2m", "dpmpp_3m", "zeab", "xeab", "zab", "vab", "lms", "deis", "ipndm", "ipndm_v", "uni_pc", "heun",
    "dpmpp_3s", "res_3s",
)  # fmt: skip
# Options that a bare name does not have, as a user would give them.
MODIFIED: tuple[tuple[str, dict[str, Any]], ...] = (
    *((name, {"max_order": n}) for name in ("xeab", "zeab", "zab", "vab", "deis") for n in (2, 4)),
    *((name, {"max_order": n}) for name in ("ipndm", "ipndm_v") for n in (2, 3)),
    *((name, {"solver_order": n}) for name in ("uni_pc", "uni_pc_bh2") for n in (1, 2, 4)),
    *(("lms", {"max_order": n}) for n in (2, 3)),
    *(
        ("sa_solver", {"eta": 0.0, "predictor_order": p, "corrector_order": c})
        for p, c in ((2, 2), (2, 3), (3, 3))
    ),
    ("dpmpp_3m_sde", {"eta": 0.0, "corrected": True}),
    ("dpm_solver_3m", {"corrected": False, "solver_type": "midpoint"}),
    *((name, {"extrapolated_end": n}) for name in _SHORT for n in (2, 3)),
    *((name, {"analytic_start": True}) for name in _SHORT),
    *((name, {"start_solver": "dpmpp_2s"}) for name in ("dpmpp_2m", "dpmpp_3m", "zeab", "xeab", "deis")),
    *((name, {"max_order": 4, "extrapolated_end": 2}) for name in ("zeab", "vab")),
    *((name, {"solver_order": 2, "extrapolated_end": 2}) for name in ("uni_pc", "uni_pc_bh2")),
)


def _fast(model: Denoiser, x: Tensor, levels: Sequence[float]) -> Tensor:
    sampler = kd.get_sampler("dpm_fast", end="denoised", evaluations=max(1, len(levels) - 2))
    return sampler(model, x, levels)


def _own(name: str, sampler: Any, quiet: bool, path: str) -> Solver:
    def run(model: Denoiser, x: Tensor, levels: Sequence[float], sampler: Any = sampler) -> Tensor:
        return sampler(model, x, levels)

    name = f"{name}, eta=0" if quiet else name
    if sampler.linear:
        return Solver("kdiff", name, run, count=lambda levels: sampler.plan(levels, path).evaluations)
    if not hasattr(sampler, "rtol"):
        return Solver("kdiff", name, run)

    def by_tolerance(rtol: float) -> Run:
        return partial(run, sampler=attrs.evolve(sampler, rtol=rtol, atol=rtol / 6.4))

    return Solver("kdiff", name, run, by_tolerance)


def ended(run: Run) -> Run:
    """Stop before 0, and take the denoised state there."""

    def whole(model: Denoiser, x: Tensor, levels: Sequence[float], *others: Any) -> Tensor:
        if len(levels) > 2:
            x = run(model, x, levels[:-1], *others)
        return model(x, torch.tensor(levels[-2], dtype=torch.float64))

    return whole


def _peer(library: str, path: str) -> Iterator[Solver]:
    for one in subjects(library):
        if one.weak is None and one.kind == path and not one.name.startswith("dpm_fast"):
            yield Solver(library, one.name, plain(one.run) if one.ends else ended(plain(one.run)))


def plain(run: Run) -> Run:
    """Without the correction of the last state, which costs a call that no pipeline makes."""
    if isinstance(run, partial):
        return partial(run.func, *run.args, **{k: v for k, v in run.keywords.items() if k != "corrected"})
    return run


def _diffusers(path: str) -> Iterator[Solver]:
    known = list(_peer("diffusers", path))
    yield from known
    many, single = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
    unipc = "UniPCMultistepScheduler"
    more: list[tuple[str, bool, dict[str, Any]]] = [
        (many, True, {"solver_order": 3, "euler_at_final": True}),
        (many, True, {"solver_order": 2, "lower_order_final": False}),
        (many, True, {"solver_order": 3, "lower_order_final": False}),
        (many, False, {"solver_order": 2, "final_sigmas_type": "sigma_min", "solver_type": "heun"}),
        (many, False, {"solver_order": 3, "final_sigmas_type": "sigma_min"}),
        (single, True, {"solver_order": 2, "lower_order_final": True}),
        (single, True, {"solver_order": 3, "lower_order_final": True}),
        *((unipc, True, {"solver_order": n, "solver_type": kind, "lower_order_final": low})
          for n in (1, 2, 3, 4) for kind in ("bh1", "bh2") for low in (True, False)),
        (unipc, True, {"solver_order": 3, "predict_x0": False}),
        *(("DEISMultistepScheduler", False, {"solver_order": n}) for n in (1, 2)),
        ("SASolverScheduler", False, {"predictor_order": 2, "corrector_order": 3, "tau_func": lambda t: 0}),
        ("SASolverScheduler", False, {"predictor_order": 3, "corrector_order": 4, "tau_func": lambda t: 0}),
    ]  # fmt: skip
    if path == "ve":
        edm = "EDMDPMSolverMultistepScheduler"
        more += [
            (edm, True, {"solver_order": 2, "solver_type": "heun"}),
            (edm, True, {"solver_order": 3, "euler_at_final": True}),
        ]
    seen = {one.name for one in known}
    for kind, ends, options in more:
        run = partial(run_diffusers, kind, path, **options)
        told = ", ".join(f"{k}={v}" for k, v in options.items() if k != "tau_func")
        name = f"{kind.removesuffix('Scheduler')}, {told}"
        if name not in seen:
            yield Solver("diffusers", name, run if ends else ended(run))


def _k_diffusion(path: str) -> Iterator[Solver]:
    yield from _peer("k-diffusion", "ve")  # on flow they are run on the flow's levels, as its hosts do
    more: list[tuple[str, dict[str, Any]]] = [
        ("lms", {"order": 2}), ("lms", {"order": 3}), ("euler_ancestral", {"eta": 0.0}),
    ]  # fmt: skip
    for name, options in more:
        told = ", ".join(f"{k}={v:g}" for k, v in options.items())
        run = partial(run_k_diffusion, f"sample_{name}", **options)
        yield Solver("k-diffusion", f"{name}, {told}", run)

    def fast(model: Denoiser, x: Tensor, levels: Sequence[float]) -> Tensor:
        first, last, calls = levels[0], levels[-1], len(levels) - 1
        with quiet_double(none):
            return k_diffusion().sample_dpm_fast(model, x, last, first, calls, disable=True)

    def adaptive(rtol: float, order: int) -> Run:
        def run(model: Denoiser, x: Tensor, levels: Sequence[float]) -> Tensor:
            first, last, options = levels[0], levels[-1], {"rtol": rtol, "atol": rtol / 6.4, "order": order}
            with quiet_double(none):
                return k_diffusion().sample_dpm_adaptive(model, x, last, first, disable=True, **options)

        return ended(run)

    yield Solver("k-diffusion", "dpm_fast", ended(fast))
    for order in (2, 3):
        made = partial(adaptive, order=order)
        yield Solver("k-diffusion", f"dpm_adaptive, order={order}", made(0.05), made)


def _azula(path: str) -> Iterator[Solver]:
    yield from _peer("azula", path)
