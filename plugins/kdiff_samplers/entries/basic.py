"""The samplers that every host has."""

from __future__ import annotations

from .table import comfyui, entry

SAMPLERS = (
    entry(
        "euler", "euler:Euler", "arXiv:2206.00364", "Euler's method",
        "Euler", "k_euler", "k_diffusion:sample_euler", "k_diffusion:euler", "comfyui:euler", "comfyui:ddim",
        "a1111:Euler", "diffusers:EulerDiscreteScheduler", "diffusers:FlowMatchEulerDiscreteScheduler",
    ),
    entry(
        "euler_ancestral", "ancestral:Ancestral", "arXiv:2006.11239", "Euler with ancestral noise",
        "Euler a", "k_euler_a", "k_diffusion:sample_euler_ancestral", "k_diffusion:euler_ancestral",
        "comfyui:euler_ancestral", "a1111:Euler a", "diffusers:EulerAncestralDiscreteScheduler",
        defaults={"solver": "euler"},
    ),
    entry(
        "heun", "heun:Heun", "arXiv:2206.00364", "Heun's method, EDM's sampler",
        "k_heun", "k_diffusion:sample_heun", "k_diffusion:heun", "comfyui:heun", "a1111:Heun",
        "diffusers:HeunDiscreteScheduler", "diffusers:FlowMatchHeunDiscreteScheduler",
    ),
    entry(
        "dpm2", "dpm2:DPM2", "arXiv:2206.00927", "midpoint rule in log sigma",
        "k_dpm_2", "k_diffusion:sample_dpm_2", "k_diffusion:dpm_2", "comfyui:dpm_2", "a1111:DPM2",
        "diffusers:KDPM2DiscreteScheduler",
    ),
    entry(
        "dpm2_ancestral", "ancestral:Ancestral", "arXiv:2206.00927", "dpm2 with ancestral noise",
        "DPM2 a", "k_dpm_2_a", "k_diffusion:sample_dpm_2_ancestral", "k_diffusion:dpm_2_ancestral",
        "comfyui:dpm_2_ancestral", "a1111:DPM2 a", "diffusers:KDPM2AncestralDiscreteScheduler",
        defaults={"solver": "dpm2"},
    ),
    entry(
        "lms", "lms:LMS", "k-diffusion", "Adams-Bashforth in sigma, exact weights",
        "k_lms", "k_diffusion:sample_lms", "k_diffusion:lms", "a1111:LMS", "diffusers:LMSDiscreteScheduler",
    ),
    entry(
        "dpmpp_2s", "dpmpp_2s:DPMpp2S", "arXiv:2211.01095", "DPM-Solver++(2S)", "DPM++ 2S",
        "diffusers:DPMSolverSinglestepScheduler",
    ),
    entry(
        "dpmpp_2s_ancestral", "ancestral:Ancestral", "arXiv:2211.01095", "dpmpp_2s with ancestral noise",
        "DPM++ 2S a", "k_dpmpp_2s_a", "k_diffusion:sample_dpmpp_2s_ancestral",
        "k_diffusion:dpmpp_2s_ancestral", "a1111:DPM++ 2S a", defaults={"solver": "dpmpp_2s"},
    ),
    entry(
        "dpmpp_sde", "dpmpp_sde:DPMppSDE", "arXiv:2211.01095", "two-stage stochastic DPM-Solver++",
        "DPM++ SDE", "k_dpmpp_sde", "dpmpp_sde_gpu", "k_diffusion:sample_dpmpp_sde", "k_diffusion:dpmpp_sde",
        "a1111:DPM++ SDE", "diffusers:DPMSolverSDEScheduler",
    ),
    entry(
        "dpmpp_2m", "dpmpp_2m:DPMpp2M", "arXiv:2211.01095", "DPM-Solver++(2M)",
        "DPM++ 2M", "k_dpmpp_2m", "k_diffusion:sample_dpmpp_2m", "k_diffusion:dpmpp_2m", "a1111:DPM++ 2M",
        "diffusers:DPMSolverMultistepScheduler", "diffusers:dpmsolver++",
    ),
    entry(
        "dpmpp_2m_sde", "dpmpp_sde_multistep:DPMpp2MSDE", "arXiv:2211.01095", "stochastic DPM-Solver++(2M)",
        "DPM++ 2M SDE", "dpmpp_2m_sde_gpu", "k_diffusion:sample_dpmpp_2m_sde", "k_diffusion:dpmpp_2m_sde",
        "a1111:DPM++ 2M SDE", "diffusers:sde-dpmsolver++",
    ),
    entry(
        "dpmpp_2m_sde_heun", "dpmpp_sde_multistep:DPMpp2MSDE", "arXiv:2211.01095",
        "stochastic DPM-Solver++(2M), Heun's correction", "DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun_gpu",
        "a1111:DPM++ 2M SDE Heun", defaults={"solver_type": "heun"},
    ),
    entry(
        "dpmpp_3m_sde", "dpmpp_sde_multistep:DPMpp3MSDE", "arXiv:2211.01095", "stochastic DPM-Solver++(3M)",
        "DPM++ 3M SDE", "dpmpp_3m_sde_gpu", "k_diffusion:sample_dpmpp_3m_sde", "k_diffusion:dpmpp_3m_sde",
        "a1111:DPM++ 3M SDE",
    ),
    entry(
        "ddim", "ddim:DDIM", "arXiv:2010.02502", "DDIM with noise share eta", "a1111:DDIM",
        "diffusers:DDIMScheduler",
    ),
    entry(
        "ddpm", "ddim:DDIM", "arXiv:2006.11239", "DDPM: DDIM with eta = 1", "a1111:DDPM",
        "diffusers:DDPMScheduler", defaults={"eta": 1.0},
    ),
    entry(
        "dpm_solver_1", "dpm_solver:DPMSolverS", "arXiv:2206.00927", "DPM-Solver-1", "DPM-Solver-1",
        defaults={"solver_order": 1},
    ),
    entry(
        "dpm_solver_2s", "dpm_solver:DPMSolverS", "arXiv:2206.00927", "DPM-Solver-2, single-step",
        "DPM-Solver-2", defaults={"solver_order": 2},
    ),
    entry(
        "dpm_solver_3s", "dpm_solver:DPMSolverS", "arXiv:2206.00927", "DPM-Solver-3, single-step",
        "DPM-Solver-3", "dpm_solver", defaults={"solver_order": 3},
    ),
    entry(
        "dpm_solver_2m", "dpm_solver:DPMSolverM", "arXiv:2211.01095", "DPM-Solver of order 2, multistep",
        defaults={"solver_order": 2},
    ),
    entry(
        "dpm_solver_3m", "dpm_solver:DPMSolverM", "arXiv:2211.01095", "DPM-Solver of order 3, multistep",
        defaults={"solver_order": 3},
    ),
)  # fmt: skip

HOSTS = (
    comfyui("lms", "lms:LMS", "ends with D in place of integrating to 0", end="denoised"),
    comfyui(
        "dpmpp_2s_ancestral", "ancestral:Ancestral", "the stage of a flow path's first step is at 0.9999",
        solver="comfyui:dpmpp_2s",
    ),
    comfyui("dpmpp_2s", "dpmpp_2s:DPMpp2S", "the solver of its dpmpp_2s_ancestral", stage="start"),
    comfyui("dpmpp_2m", "hosts:ReadAsVE", "VE's log-SNR on flow models too", solver="dpmpp_2m"),
    comfyui("ddpm", "hosts:ReadAsVE", "VE's posterior on flow models too", solver="ddpm"),
    *(
        comfyui(
            name, "hosts:StartBelowOne", "starts flow models at 0.9999", f"comfyui:{name}_gpu", solver=name
        )
        for name in ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde")
    ),
)  # fmt: skip
