"""Multistep samplers beside the DPM-Solvers."""

from __future__ import annotations

from .table import comfyui, entry

SAMPLERS = (
    entry(
        "xeab", "adams_bashforth:AdamsBashforth", "arXiv:2211.01095",
        "exponential Adams-Bashforth on the data prediction", defaults={"space": "data"},
    ),
    entry(
        "zeab", "adams_bashforth:AdamsBashforth", "arXiv:2206.00927",
        "exponential Adams-Bashforth on the noise prediction", defaults={"space": "noise"},
    ),
    entry(
        "zab", "adams_bashforth:AdamsBashforth", "arXiv:2204.13902",
        "Adams-Bashforth on the noise prediction in the noise-to-signal ratio", "deis_rhoab", "rhoab",
        defaults={"space": "ratio"},
    ),
    entry(
        "vab", "adams_bashforth:AdamsBashforth", "Hairer, Norsett and Wanner 1993, section III.5",
        "Adams-Bashforth on the velocity of a flow path", defaults={"space": "velocity"},
    ),
    entry(
        "ipndm", "ipndm:IPNDM", "arXiv:2204.13902", "Adams-Bashforth in sigma, weights of equal steps",
        "comfyui:ipndm", "a1111:IPNDM", "diffusers:IPNDMScheduler",
    ),
    entry(
        "ipndm_v", "ipndm:IPNDMv", "arXiv:2204.13902", "iPNDM with weights for uneven steps, as published",
        "comfyui:ipndm_v", "a1111:IPNDM_V",
    ),
    entry(
        "plms", "ipndm:PLMS", "arXiv:2202.09778", "pseudo linear multistep, improved Euler start",
        "pndm", "k_plms", "a1111:PLMS", "diffusers:PNDMScheduler",
    ),
    entry(
        "deis", "deis:DEIS", "arXiv:2204.13902", "multistep, the noise a polynomial in VP time",
        "deis_tab",
    ),
    entry(
        "res_multistep", "res_multistep:RESMultistep", "arXiv:2308.02157",
        "refined exponential solver of order 2, multistep", "res_2m",
    ),
    entry(
        "res_multistep_ancestral", "res_multistep:RESMultistep", "arXiv:2308.02157",
        "res_multistep with ancestral noise", defaults={"eta": 1.0},
    ),
    entry(
        "gradient_estimation", "gradient_estimation:GradientEstimation", "arXiv:2306.04848",
        "Euler on an extrapolated noise prediction; gamma and mu",
    ),
    entry(
        "dpmpp_3m", "dpmpp_sde_multistep:DPMpp3MSDE", "arXiv:2211.01095", "DPM-Solver++(3M)", "DPM++ 3M",
        defaults={"eta": 0.0},
    ),
)  # fmt: skip

HOSTS = (
    entry(
        "comfyui:deis", "deis:ComfyDEIS", "arXiv:2204.13902",
        "ComfyUI: integrals are sums of 10,000 points; VE's levels on flow models too", "a1111:DEIS",
    ),
    entry(
        "diffusers:DEISMultistepScheduler", "adams_bashforth:AdamsBashforth", "arXiv:2204.13902",
        "diffusers: order 2, polynomial in the logarithm of rho", defaults={"space": "noise", "max_order": 2},
    ),
    *(
        comfyui(name, "hosts:ReadAsVE", "VE's levels on flow models too", solver=name)
        for name in ("res_multistep", "res_multistep_ancestral", "gradient_estimation")
    ),
)  # fmt: skip
