"""Noise processes that models were trained on."""

from __future__ import annotations

from .table import entry

PROCESSES = (
    entry(
        "sd", "betas:ScaledLinearBetas", "Rombach et al. 2021, arXiv:2112.10752",
        "Stable Diffusion 1, 2 and XL: scaled_linear, beta 0.00085 to 0.012, 1000 entries.",
    ),
    entry(
        "scaled_linear", "betas:ScaledLinearBetas", "Rombach et al. 2021, arXiv:2112.10752",
        "Roots of betas on a line, levels 0.0292 to 14.6 (ComfyUI and CompVis say linear).",
        "diffusers:scaled_linear", "comfyui:linear", "a1111:linear",
    ),
    entry(
        "linear", "betas:LinearBetas", "Ho et al. 2020, arXiv:2006.11239, section 4",
        "Betas on a line, levels 0.01 to 157 (ComfyUI and CompVis say sqrt_linear).",
        "sqrt_linear", "diffusers:linear", "comfyui:sqrt_linear", "a1111:sqrt_linear",
    ),
    entry(
        "sqrt", "betas:SqrtBetas", "CompVis 2022, latent-diffusion",
        "Squares of betas on a line.", "comfyui:sqrt", "a1111:sqrt",
    ),
    entry(
        "cosine", "betas:CosineBetas", "Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17",
        "The signal falls as a squared cosine; betas are cut at 0.999.",
        "squaredcos_cap_v2", "diffusers:squaredcos_cap_v2", "comfyui:cosine", "a1111:cosine",
    ),
    entry(
        "sigmoid", "betas:SigmoidBetas", "Xu et al. 2022, arXiv:2203.02923",
        "Betas on a sigmoid (GeoDiff).", "diffusers:sigmoid",
    ),
    entry(
        "laplace", "betas:LaplaceBetas", "Hang & Gu 2024, arXiv:2407.03297",
        "Log-SNR at quantiles of a Laplace distribution.", "diffusers:laplace",
    ),
    entry(
        "exp", "betas:ExponentialBetas", "diffusers 2022",
        "One beta for all entries: the signal falls as e^(-12 t).", "diffusers:exp",
    ),
    entry("betas", "betas:GivenBetas", "", "Your own betas=[...].", "trained_betas"),
    entry("alphas_cumprod", "betas:GivenAlphas", "", "Your own alphas_cumprod=[...]."),
    entry(
        "cogvideox", "betas:cogvideox", "Yang et al. 2024, arXiv:2408.06072",
        "scaled_linear with its SNR shifted by 3, and no signal at its end.",
    ),
    entry(
        "stable_cascade", "continuous:StableCascade", "Pernias et al. 2023, arXiv:2306.00637",
        "Squared cosine with a shifted log-SNR (Würstchen, Stable Cascade).",
    ),
    entry(
        "vp", "continuous:ContinuousVP", "Song et al. 2020, arXiv:2011.13456, eq. 33",
        "Continuous VP, levels 0.0105 to 152.",
    ),
    entry(
        "ve", "continuous:LogUniform", "Song et al. 2020, arXiv:2011.13456",
        "Log-uniform levels 0.02 to 100.", sigma_min=0.02, sigma_max=100.0,
    ),
    entry(
        "edm", "continuous:LogUniform", "Karras et al. 2022, arXiv:2206.00364, table 1",
        "Log-uniform levels 0.002 to 80.", "diffusers:edm", sigma_min=0.002, sigma_max=80.0,
    ),
    entry(
        "comfyui:edm", "continuous:LogUniform", "", "ComfyUI: log-uniform levels 0.002 to 120.",
        sigma_min=0.002, sigma_max=120.0,
    ),
    entry(
        "continuous_v", "continuous:Tangent", "Salimans & Ho 2022, arXiv:2202.00512",
        "tan(pi t / 2), levels 0.03 to 500.", sigma_min=0.03, sigma_max=500.0, sigma_data=1.0,
    ),
    entry(
        "trigflow", "continuous:Tangent", "Lu & Song 2024, arXiv:2410.11081",
        "TrigFlow's angles: 0.5 tan(angle), levels 0.002 to 80.",
        sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, prediction="trigflow",
    ),
    entry(
        "flow", "flow:Flow", "Liu et al. 2022, arXiv:2209.03003",
        "Rectified flow, shift=1 unless given.", "rectified_flow",
    ),
    entry(
        "sd3", "flow:Flow", "Esser et al. 2024, arXiv:2403.03206", "Stable Diffusion 3: flow, shift 3.",
        shift=3.0,
    ),
    entry(
        "diffusers", "diffusers_config:process_from_diffusers", "",
        "From config= a scheduler_config.json, its folder, or the config itself.",
    ),
)  # fmt: skip
