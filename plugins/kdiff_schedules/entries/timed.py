"""Schedules that spend the time of the model's process."""

from __future__ import annotations

from .table import entry

LIN = "Lin et al. 2023, arXiv:2305.08891, table 2"
SCHEDULES = (
    entry(
        "uniform", "times:Uniform", LIN, "Uniform in the process's time, both ends included.",
        "normal", "linspace", "a1111:Uniform", "a1111:Normal",
    ),
    entry(
        "sgm_uniform", "times:SGMUniform", "Stability AI 2023, generative-models",
        "Uniform in time; the step after the last leads to sigma_min.", "a1111:SGM Uniform",
    ),
    entry(
        "trailing", "times:Trailing", LIN, "Every N/n-th entry from the last one down, not rounded.",
        "simple", "turbo",
    ),
    entry(
        "leading", "times:Leading", LIN, "Uniform in time from sigma_min up; begins below sigma_max.",
        "ddim_uniform",
    ),
    entry(
        "quadratic", "times:Quadratic", "Song et al. 2020, arXiv:2010.02502, appendix D.2",
        "Uniform in the root of time.",
    ),
    entry(
        "beta", "times:Beta", "Lee et al. 2024, arXiv:2407.12173",
        "Times at quantiles of a Beta distribution (A1111's are levels).",
    ),
    entry(
        "lcm", "times:LCM", "Luo et al. 2023, arXiv:2310.04378",
        "Among the 50 times of a consistency distillation.", "diffusers:lcm",
    ),
)  # fmt: skip
