"""Schedules between two levels, those with levels of their own, and the user's own."""

from __future__ import annotations

from .table import entry

SCHEDULES = (
    entry(
        "karras", "karras:Karras", "Karras et al. 2022, arXiv:2206.00364, eq. 5",
        "Uniform in sigma^(1/rho), rho = 7: most steps at low noise.",
        "a1111:Karras", "comfyui:karras", "diffusers:karras",
    ),
    entry(
        "exponential", "exponential:Exponential", "Lu et al. 2022, arXiv:2206.00927, section 4.1",
        "Uniform in log sigma: a constant ratio from level to level.",
        "a1111:Exponential", "comfyui:exponential", "diffusers:exponential", "lu_lambdas",
    ),
    entry(
        "polyexponential", "exponential:PolyExponential", "Crowson 2022, k-diffusion",
        "log sigma falls as a power rho; rho = 1 is exponential.",
        "a1111:Polyexponential", "comfyui:polyexponential",
    ),
    entry(
        "logsnr", "curves:LogSNR", "Lu et al. 2022, arXiv:2206.00927, section 4.1",
        "Uniform in lambda = log(alpha / sigma), on either path.", "uniform_lambda",
    ),
    entry(
        "flow_linspace", "curves:LevelUniform", "Esser et al. 2024, arXiv:2403.03206",
        "Uniform in sigma itself: flow models before a shift.", "uniform_sigma",
    ),
    entry(
        "vp", "vp:VP", "Song et al. 2020, arXiv:2011.13456, eq. 33",
        "Uniform in the time of the continuous variance-preserving process.",
    ),
    entry(
        "ve", "vp:VE", "Song et al. 2020, arXiv:2011.13456", "exponential with VE's range, 0.02 to 100.",
    ),
    entry(
        "linear", "table:linear", "Ho et al. 2020, arXiv:2006.11239, section 4",
        "Uniform in time, betas linear (DDPM; ComfyUI says sqrt_linear).",
    ),
    entry(
        "scaled_linear", "table:scaled_linear", "Rombach et al. 2021, arXiv:2112.10752",
        "Uniform in time, roots of betas linear (Stable Diffusion; ComfyUI says linear).",
    ),
    entry(
        "cosine", "table:cosine", "Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17",
        "Uniform in time, the signal a squared cosine (iDDPM).", "iddpm",
    ),
    entry(
        "kl_optimal", "curves:KLOptimal", "Sabour et al. 2024, arXiv:2404.14507",
        "Uniform in the arctangent of sigma, then 0 (A1111's ends above 0).", "comfyui:kl_optimal",
    ),
    entry(
        "laplace", "curves:Laplace", "Hang & Gu 2024, arXiv:2407.03297",
        "Quantiles of a Laplace distribution of log sigma within the range.",
    ),
    entry(
        "linear_quadratic", "curves:LinearQuadratic", "Polyak et al. 2024, arXiv:2410.13720",
        "A short line at high noise, then a parabola to 0.", "comfyui:linear_quadratic",
    ),
    entry(
        "trigflow", "curves:TrigFlow", "Lu & Song 2024, arXiv:2410.11081",
        "Uniform in TrigFlow's angle, down to 0.",
    ),
    entry("tangent", "warps:TangentRamp", "kdiff", "An arctangent's ramp: small steps at both ends."),
    entry("bong_tangent", "warps:BongTangent", "kdiff, after RES4LYF", "Two arctangents' ramps that meet."),
    entry("probit", "warps:Probit", "Esser et al. 2024, arXiv:2403.03206", "Logit-normal quantiles."),
    entry("hyper", "warps:Hyper", "kdiff", "A hyperbolic sine of the share of steps left."),
    entry("sinner", "warps:Sinner", "kdiff", "A line in sigma with waves."),
    entry(
        "ays", "tabled:AYS", "Sabour et al. 2024, arXiv:2404.14507",
        "Align Your Steps, model=\"sdxl\", \"sd\" or \"svd\": its own levels.",
        "align_your_steps", "comfyui:ays", "comfyui:align_your_steps",
    ),
    entry(
        "gits", "tabled:GITS", "Chen et al. 2024, arXiv:2405.11326",
        "Searched for CIFAR-10 in 6 steps: its own levels.",
    ),
    entry(
        "custom", "custom:Custom", "", "Your own levels=[...], or function=f with f(n) -> n + 1 levels.",
    ),
)  # fmt: skip
