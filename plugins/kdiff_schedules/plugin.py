"""Entries of the schedules and noise processes."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl

SCHEDULES = [
    Entry(
        "karras",
        "kdiff_schedules.karras:Karras",
        aliases=("a1111:Karras", "comfyui:karras"),
        summary="Uniform in sigma^(1/rho), rho = 7: most steps at low noise.",
        reference="Karras et al. 2022, arXiv:2206.00364, eq. 5",
    ),
    Entry(
        "exponential",
        "kdiff_schedules.exponential:Exponential",
        aliases=("a1111:Exponential", "comfyui:exponential"),
        summary="Uniform in log sigma: a constant ratio from level to level.",
        reference="Lu et al. 2022, arXiv:2206.00927, section 4.1",
    ),
    Entry(
        "polyexponential",
        "kdiff_schedules.exponential:PolyExponential",
        aliases=("a1111:Polyexponential",),
        summary="log sigma falls as a power rho; rho = 1 is exponential.",
        reference="Crowson 2022, k-diffusion",
    ),
    Entry(
        "vp",
        "kdiff_schedules.vp:VP",
        summary="Uniform in the time of the continuous variance-preserving process.",
        reference="Song et al. 2020, arXiv:2011.13456, eq. 33",
    ),
    Entry(
        "linear",
        "kdiff_schedules.table:linear",
        summary="Uniform in time, betas linear (DDPM; ComfyUI says sqrt_linear).",
        reference="Ho et al. 2020, arXiv:2006.11239, section 4",
    ),
    Entry(
        "scaled_linear",
        "kdiff_schedules.table:scaled_linear",
        summary="Uniform in time, roots of betas linear (Stable Diffusion; ComfyUI says linear).",
        reference="Rombach et al. 2021, arXiv:2112.10752",
    ),
    Entry(
        "cosine",
        "kdiff_schedules.table:cosine",
        summary="Uniform in time, the signal a squared cosine.",
        reference="Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17",
    ),
    Entry(
        "custom",
        "kdiff_schedules.custom:Custom",
        summary="Your own levels=[...], or function=f with f(n) -> n + 1 levels.",
    ),
]


@hookimpl
def kdiff_schedules() -> Iterable[Entry]:
    """Return the schedules between two levels, those named after a table of betas, and the user's own."""
    return SCHEDULES


@hookimpl
def kdiff_processes() -> Iterable[Entry]:
    """Return the tables of betas that models were trained on."""
    scaled = "kdiff_schedules.process:ScaledLinearBetas"
    return [
        Entry(
            "sd",
            scaled,
            summary="Stable Diffusion 1, 2 and XL: scaled_linear, beta 0.00085 to 0.012, 1000 entries.",
            reference="Rombach et al. 2021, arXiv:2112.10752",
        ),
        Entry(
            "scaled_linear",
            scaled,
            summary="Roots of betas on a line, levels 0.0292 to 14.6 (ComfyUI and CompVis say linear).",
            reference="Rombach et al. 2021, arXiv:2112.10752",
        ),
        Entry(
            "linear",
            "kdiff_schedules.process:LinearBetas",
            summary="Betas on a line, levels 0.01 to 157 (ComfyUI and CompVis say sqrt_linear).",
            reference="Ho et al. 2020, arXiv:2006.11239, section 4",
        ),
        Entry(
            "cosine",
            "kdiff_schedules.process:CosineBetas",
            summary="The signal falls as a squared cosine; betas are cut at 0.999.",
            reference="Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17",
        ),
    ]
