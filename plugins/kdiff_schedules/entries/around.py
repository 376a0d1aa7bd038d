"""Schedules around others."""

from __future__ import annotations

from .table import entry

SCHEDULES = (
    entry(
        "shifted", "shift:Shifted", "Esser et al. 2024, arXiv:2403.03206",
        "schedule= with a constant shift= (3): SD3, Wan, ...",
    ),
    entry(
        "dynamic_shift", "shift:DynamicShift", "Black Forest Labs 2024, Flux",
        "schedule= with a shift that grows with tokens=.",
    ),
    entry(
        "empirical_shift", "shift:EmpiricalShift", "Black Forest Labs 2025, Flux 2",
        "schedule= with Flux 2's shift of tokens= and steps.",
    ),
    entry(
        "stretched", "parts:Stretched", "HaCohen et al. 2024, arXiv:2501.00103",
        "schedule= stretched to end at terminal= (0.1).",
    ),
    entry(
        "strength", "parts:Strength", "", "The low part of schedule=, for image to image: exactly n steps.",
        "comfyui:denoise",
    ),
    entry("joined", "parts:Joined", "", "first= down to at=, then second=."),
    entry("rescaled", "parts:Rescaled", "", "schedule= brought to the range, by a line in log sigma."),
)  # fmt: skip
HOSTS = (
    entry(
        "diffusers:strength", "parts:KeptOfDiffusers", "", "diffusers: the last int(n strength) of n steps."
    ),
    entry("a1111:denoise", "parts:KeptOfA1111", "", "A1111: the last int(n strength) + 1 of n steps."),
    entry("comfyui:steps", "parts:StepsOf", "", "ComfyUI: steps start= to end= of n."),
)
