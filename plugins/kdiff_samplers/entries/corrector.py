"""Samplers with a corrector, stochastic Adams and exponential ones."""

from __future__ import annotations

from .table import comfyui, entry

SAMPLERS = (
    entry(
        "uni_pc", "uni_pc:UniPC", "arXiv:2302.04867", "UniPC of order 3 with B1(h)",
        "UniPC", "uni_pc_bh1", "unipc_bh1", "a1111:UniPC",
    ),
    entry(
        "uni_pc_bh2", "uni_pc:UniPC", "arXiv:2302.04867", "UniPC of order 3 with B2(h)", "UniPC BH2",
        defaults={"variant": "bh2"},
    ),
    entry(
        "sa_solver", "sa_solver:SASolver", "arXiv:2309.05019", "stochastic Adams, PEC", "SA-Solver",
    ),
    entry(
        "sa_solver_pece", "sa_solver:SASolver", "arXiv:2309.05019", "stochastic Adams, PECE",
        "SA-Solver PECE", defaults={"pece": True},
    ),
    entry(
        "er_sde", "er_sde:ERSDE", "arXiv:2309.06169", "ER-SDE-Solver-3, exact integrals",
        "ER-SDE", "er_sde_solver",
    ),
    entry(
        "seeds_2", "seeds:Seeds2", "arXiv:2305.14267", "SEEDS-2", "SEEDS-2",
    ),
    entry(
        "seeds_3", "seeds:Seeds3", "arXiv:2305.14267", "SEEDS-3", "SEEDS-3",
    ),
    entry(
        "exp_heun_2_x0", "seeds:Seeds2", "arXiv:2305.14267", "exponential Heun, deterministic",
        defaults={"eta": 0.0, "r": 1.0, "solver_type": "phi_2"},
    ),
    entry(
        "exp_heun_2_x0_sde", "seeds:Seeds2", "arXiv:2305.14267", "exponential Heun for the reverse SDE",
        defaults={"r": 1.0, "solver_type": "phi_2"},
    ),
    entry(
        "heunpp2", "heunpp2:HeunPP2", "ComfyUI", "Heun++, three slopes", "Heun++ 2", "comfyui:heunpp2",
        "a1111:HeunPP2",
    ),
)  # fmt: skip

HOSTS = (
    *(
        comfyui(
            name, "uni_pc:UniPC", f"{variant}, ends at 0.001, lower orders at the end",
            variant=variant, lower_order_final="always", last=0.001,
        )
        for name, variant in (("uni_pc", "bh1"), ("uni_pc_bh2", "bh2"))
    ),
    entry(
        "diffusers:UniPCMultistepScheduler", "uni_pc:UniPC", "", "diffusers: order 2 with B2(h)",
        defaults={"solver_order": 2, "variant": "bh2"},
    ),
    comfyui("sa_solver", "sa_solver:ComfyUISASolver", "noise on 0.2 to 0.8 of flow, which starts at 0.9999"),
    comfyui(
        "sa_solver_pece", "sa_solver:ComfyUISASolver", "noise on 0.2 to 0.8 of flow, which starts at 0.9999",
        pece=True,
    ),
    entry(
        "diffusers:SASolverScheduler", "sa_solver:SASolver", "", "diffusers: orders 2 and 2",
        defaults={"predictor_order": 2, "corrector_order": 2},
    ),
    comfyui("er_sde", "er_sde:ComfyUIERSDE", "coarse integrals; starts flow models at 0.9999"),
    *(
        comfyui(name, "hosts:StartBelowOne", "starts flow models at 0.9999", solver=name)
        for name in ("seeds_2", "seeds_3", "exp_heun_2_x0", "exp_heun_2_x0_sde")
    ),
)  # fmt: skip
