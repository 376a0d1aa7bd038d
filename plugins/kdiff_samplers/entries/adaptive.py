"""Samplers that choose their steps."""

from __future__ import annotations

from kdiff_core import Entry

from ..tableaux import TABLEAUX
from .table import entry

SAMPLERS: tuple[Entry, ...] = (
    entry(
        "dpm_adaptive", "dpm_adaptive:DPMAdaptive", "arXiv:2206.00927", "DPM-Solver-23 with adaptive steps",
        "DPM adaptive", "k_dpm_ad", "k_diffusion:sample_dpm_adaptive", "k_diffusion:dpm_adaptive",
        "comfyui:dpm_adaptive", "a1111:DPM adaptive",
    ),
    entry(
        "adaptive", "adaptive:Adaptive", "Hairer, Norsett & Wanner 1993",
        "a Runge-Kutta pair with adaptive steps, by its tableau", "adaptive_bosh3",
    ),
    *(
        entry(
            f"adaptive_{short}", "adaptive:Adaptive", TABLEAUX[name].reference,
            f"{TABLEAUX[name].summary}, with adaptive steps", defaults={"tableau": name},
        )
        for short, name in (
            ("heun2", "heun2"), ("dopri5", "dormand_prince5"), ("tsit5", "tsitouras5"), ("dop853", "dop853"),
        )
    ),
    entry(
        "adaptive_sde", "adaptive:AdaptiveSDE", "arXiv:2305.14267",
        "the reverse SDE with adaptive steps, SEEDS-2 over exponential Euler",
    ),
)  # fmt: skip

HOSTS: tuple[Entry, ...] = ()
