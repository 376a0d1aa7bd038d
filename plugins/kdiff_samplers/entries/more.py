"""Samplers of other families: model statistics, posterior variances, Langevin, manifolds."""

from __future__ import annotations

from kdiff_core import Entry

from .table import entry

SAMPLERS: tuple[Entry, ...] = (
    entry(
        "ito", "ito:Ito", "arXiv:2011.13456", "the reverse SDE with any amount of noise, at a temperature",
    ),
    entry(
        "predictor_corrector", "langevin:PredictorCorrector", "arXiv:2011.13456",
        "Langevin corrections at each level, then a step of a solver",
    ),
    entry(
        "trigflow", "lcm:Consistency", "arXiv:2410.11081",
        "for continuous-time consistency models; level = sigma_data tan(t)",
        "sCM", "diffusers:SCMScheduler",
    ),
    entry("riemannian", "riemannian:Riemannian", "arXiv:2302.03660", "flow matching on manifolds"),
    entry("spc", "spc:SPC", "skrample", "Euler's predictor, an Adams corrector, and a blend of the two"),
    entry(
        "dpm_solver_v3", "dpm_solver_v3:DPMSolverV3", "arXiv:2310.13268",
        "multistep in the parameterisation that a model's statistics choose", "DPM-Solver-v3",
    ),
    entry(
        "sde_dpm_solver_1", "dpm_solver:SDEDPMSolver", "arXiv:2211.01095", "SDE-DPM-Solver of order 1",
        defaults={"solver_order": 1},
    ),
    entry(
        "sde_dpm_solver_2m", "dpm_solver:SDEDPMSolver", "arXiv:2211.01095",
        "SDE-DPM-Solver of order 2, multistep", "SDE-DPM-Solver", "diffusers:sde-dpmsolver",
        defaults={"solver_order": 2},
    ),
    entry(
        "gamma_mu", "gradient_estimation:GradientEstimation", "arXiv:2306.04848",
        "gamma and mu: (1, 0) DDIM, (1, 1/2) DDPM, (2, 0) accelerated", "smalldiffusion",
        defaults={"gamma": 1.0},
    ),
)  # fmt: skip

HOSTS: tuple[Entry, ...] = (
    entry(
        "diffusers:dpmsolver", "dpm_solver:DPMSolverM", "", "diffusers: order 2, midpoint",
        defaults={"solver_type": "midpoint"},
    ),
    entry(
        "diffusers:ScoreSdeVeScheduler", "langevin:PredictorCorrector", "",
        "diffusers: corrections by the ratio of the norms of noise and score", defaults={"snr": 0.15},
    ),
)  # fmt: skip
