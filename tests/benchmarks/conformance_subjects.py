"""The samplers that `bench_conformance` measures, and what their names or papers promise.

A weak order of 1 is promised by nobody in so many words: it says that with more steps the right
distribution comes out, which is the least that a sampler can be held to.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from conformance_diffusers import run_diffusers
from conformance_peers import (
    Subject,
    missing_peer,
    run_azula,
    run_dpm_fast,
    run_k_diffusion,
    run_kdiff,
)

import kdiff_core as kd

PEERS = ("kdiff", "k-diffusion", "diffusers", "azula")


def subjects(peer: str) -> list[Subject]:
    """The samplers of a peer.

    Raises:
        ImportError: It is not installed.
    """
    if (why := missing_peer(peer)) is not None:
        raise ImportError(why)
    return {
        "kdiff": _kdiff, "k-diffusion": _k_diffusion, "diffusers": _diffusers, "azula": _azula
    }[peer]()  # fmt: skip


def _kdiff() -> list[Subject]:
    def own(name: str, order: int | None, memory: int = 0, **options: Any) -> Subject:
        sampler = kd.get_sampler(name, **options)
        told = {k: v for k, v in options.items() if k != "eta" or v == 0}
        title = ", ".join([name, *(f"{k}={v:g}" if v is not True else k for k, v in told.items())])
        noise = {"weak": 1, "shared": True, "drift": order is not None} if sampler.stochastic else {}
        return Subject(title, order, partial(run_kdiff, sampler, "ve"), memory, ends=True, **noise)

    return [
        own("euler", 1), own("heun", 2), own("dpm2", 2), own("lms", 4, 3), own("dpmpp_2m", 2, 1),
        own("dpmpp_3m_sde", 2, 2, eta=0.0), own("dpmpp_3m_sde", 3, 2, eta=0.0, corrected=True),
        own("euler_ancestral", None), own("dpm2_ancestral", None), own("dpmpp_sde", None),
        own("dpmpp_2m_sde", 2, 1), own("dpmpp_3m_sde", 2, 2), own("dpmpp_3m_sde", 3, 2, corrected=True),
    ]  # fmt: skip


def _k_diffusion() -> list[Subject]:
    def one(name: str, order: int | None, memory: int = 0, note: str = "", **kinds: Any) -> Subject:
        options = {k: kinds.pop(k) for k in ("eta", "solver_type", "s_churn") if k in kinds}
        told = [f"{k}={v:g}" if isinstance(v, float) else v for k, v in options.items()]
        run = partial(run_k_diffusion, f"sample_{name}", **options)
        title = ", ".join([name, *told, *([note] if note else [])])
        return Subject(title, order, run, memory, ends=True, **kinds)

    path: dict[str, Any] = {"weak": 1, "shared": True}
    return [
        one("euler", 1), one("heun", 2), one("dpm_2", 2), one("lms", 4, 3),
        Subject("dpm_fast", 3, run_dpm_fast, runs=2),
        one("dpmpp_2m", 2, 1),
        one("dpm_2_ancestral", 2, eta=0.0), one("dpmpp_2s_ancestral", 2, eta=0.0),
        one("dpmpp_sde", 2, eta=0.0),
        one("dpmpp_2m_sde", 2, 1, eta=0.0), one("dpmpp_2m_sde", 2, 1, eta=0.0, solver_type="heun"),
        one("dpmpp_3m_sde", 3, 2, eta=0.0),
        one("euler_ancestral", None, weak=1), one("dpm_2_ancestral", None, weak=1),
        one("dpmpp_2s_ancestral", None, weak=1),
        one("euler", None, weak=1, s_churn=10.0), one("heun", None, weak=1, s_churn=10.0),
        one("dpmpp_sde", None, **path), one("dpmpp_sde", None, note="independent draws", weak=1),
        one("dpmpp_2m_sde", 2, 1, drift=True, **path),
        one("dpmpp_2m_sde", 2, 1, drift=True, solver_type="heun", **path),
        one("dpmpp_3m_sde", 3, 2, drift=True, **path),
    ]  # fmt: skip


_PLAIN = {"clip_sample": False}
# By default their levels end at 0.
_TO_ZERO = ("Euler", "Heun", "KDPM2", "LMS", "EDM", "DPMSolver", "UniPC")


def _diffusers() -> list[Subject]:
    def one(
        name: str, note: str, order: int | None, memory: int = 0, kinds: Any = (), **options: Any
    ) -> Subject:
        kinds = {"kind": "ve", **dict(kinds)}
        run = partial(run_diffusers, f"{name}Scheduler", kinds["kind"], **options)
        ends = kinds["kind"] == "ve" and name.startswith(_TO_ZERO) and "final_sigmas_type" not in options
        flow = "flow" if kinds["kind"] == "flow" and not name.startswith("Flow") else ""
        return Subject(", ".join(filter(None, [name, note, flow])), order, run, memory, ends=ends, **kinds)

    weak: dict[str, Any] = {"weak": 1}
    drift, flow = {**weak, "drift": True}, {"kind": "flow"}
    still = {"tau_func": lambda t: 0, "corrected": True}
    noisy = {"tau_func": lambda t: 1}
    many, single, sde = "DPMSolverMultistep", "DPMSolverSinglestep", {"algorithm_type": "sde-dpmsolver++"}
    first = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
    least = {"final_sigmas_type": "sigma_min", "lower_order_final": True}
    return [
        one("EulerDiscrete", "", 1), one("HeunDiscrete", "", 2), one("KDPM2Discrete", "", 2),
        one("LMSDiscrete", "", 4, 3), one("EDMEuler", "", 1),
        one("DDIM", "eta=0", 1, set_alpha_to_one=False, **_PLAIN),
        one(many, "2", 2, 1), one(many, "2 heun", 2, 1, solver_type="heun"),
        one(many, "3", 3, 2, solver_order=3),
        one(many, "dpmsolver 2", 2, 1, **first), one(many, "dpmsolver 3", 3, 2, solver_order=3, **first),
        one("EDMDPMSolverMultistep", "2", 2, 1), one("EDMDPMSolverMultistep", "3", 3, 2, solver_order=3),
        one(single, "2", 2, kinds={"per": 2}, **least),
        one(single, "3", 3, kinds={"per": 3}, solver_order=3, **least),
        one(single, "3 heun", 3, kinds={"per": 3}, solver_order=3, solver_type="heun", **least),
        one("UniPCMultistep", "2 bh1", 3, 1, solver_type="bh1", corrected=True),
        one("UniPCMultistep", "2 bh2", 3, 1, corrected=True),
        one("UniPCMultistep", "3 bh2", 4, 2, solver_order=3, corrected=True),
        one("UniPCMultistep", "2 bh2 noise", 3, 1, predict_x0=False, corrected=True),
        one("DEISMultistep", "2", 2, 1), one("DEISMultistep", "3", 3, 2, solver_order=3),
        one("SASolver", "tau=0", 2, 1, **still),
        one("SASolver", "3, tau=0", 3, 2, predictor_order=3, corrector_order=3, **still),
        one("IPNDM", "", 4, 3), one("PNDM", "PLMS", 2, 3, skip_prk_steps=True),
        one("FlowMatchEulerDiscrete", "", 1, kinds=flow), one("FlowMatchHeunDiscrete", "", 2, kinds=flow),
        one(many, "2", 2, 1, flow), one(many, "3", 3, 2, flow, solver_order=3),
        one("UniPCMultistep", "2 bh2", 3, 1, flow, corrected=True),
        one("DEISMultistep", "3", 3, 2, flow, solver_order=3), one("SASolver", "tau=0", 2, 1, flow, **still),
        one("EulerAncestralDiscrete", "", None, kinds=weak),
        one("KDPM2AncestralDiscrete", "", None, kinds=weak),
        one("DDIM", "eta=1", None, kinds=weak, each={"eta": 1.0}, set_alpha_to_one=False, **_PLAIN),
        one("DDPM", "fixed_small", None, kinds=weak, **_PLAIN),
        one("DDPM", "fixed_large", None, kinds=weak, variance_type="fixed_large", **_PLAIN),
        one("DPMSolverSDE", "", None, kinds={**weak, "shared": True}),
        one(many, "sde 1", 1, 0, drift, solver_order=1, **sde), one(many, "sde 2", 2, 1, drift, **sde),
        one(many, "sde 2 heun", 2, 1, drift, solver_type="heun", **sde),
        one(many, "sde 3", 3, 2, drift, solver_order=3, **sde),
        one("EDMDPMSolverMultistep", "sde 2", 2, 1, drift, **sde),
        one("EDMDPMSolverMultistep", "sde 3", 3, 2, drift, solver_order=3, **sde),
        one(single, "sde 2", None, kinds={**weak, "per": 2}, **least, **sde),
        one("SASolver", "tau=1", 2, 1, drift, **noisy, corrected=True),
        one("EulerDiscrete", "s_churn=10", None, kinds=weak, each={"s_churn": 10.0}),
        one("EDMEuler", "s_churn=10", None, kinds=weak, each={"s_churn": 10.0}),
        one(many, "sde 2", None, 1, {**weak, **flow}, **sde),
        one("FlowMatchHeunDiscrete", "s_churn=10", None, kinds={**weak, **flow}, each={"s_churn": 10.0}),
        one("FlowMatchEulerDiscrete", "stochastic", None, kinds={**weak, **flow}, stochastic_sampling=True),
    ]  # fmt: skip


def _azula() -> list[Subject]:
    found = []
    for kind in ("ve", "flow"):

        def one(name: str, promised: int | None, memory: int = 0, kind: str = kind, **kinds: Any) -> Subject:
            options = {k: kinds.pop(k) for k in ("order", "eta", "delta") if k in kinds}
            told = [f"{k}={v:g}" for k, v in options.items()] + (["flow"] if kind == "flow" else [])
            run = partial(run_azula, f"{name}Sampler", kind, **options)
            return Subject(", ".join([name, *told]), promised, run, memory, kind=kind, **kinds)

        found += [one("Euler", 1), one("Heun", 2), one("DDIM", 1, eta=0.0)]
        for name in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
            found += [one(name, order, order - 1, order=order) for order in (2, 3, 4)]
        drift = kind == "ve"
        found += [
            one("Ito", 1 if drift else None, weak=1, drift=drift),
            one("DDPM", 1 if drift else None, weak=1, drift=drift),
            one("DDIM", 1 if drift else None, weak=1, drift=drift, eta=1.0),
            one("PC", None, weak=1), one("PC", None, weak=1, delta=0.1),
        ]  # fmt: skip
    return found
