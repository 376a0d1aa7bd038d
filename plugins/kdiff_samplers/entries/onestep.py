"""Single-step solvers of higher order, samplers of distilled models, Restart and CFG++."""

from __future__ import annotations

from .table import comfyui, entry

SAMPLERS = (
    entry(
        "dpmpp_3s", "dpmpp_3s:DPMpp3S", "arXiv:2211.01095", "DPM-Solver++(3S)", "DPM++ 3S",
    ),
    entry("res_2s", "exponential_rk:RES2S", "arXiv:2308.02157", "RES of order 2, single-step", "RES 2S"),
    entry("res_3s", "exponential_rk:RES3S", "arXiv:2308.02157", "RES of order 3, single-step", "RES 3S"),
    entry(
        "etdrk2", "exponential_rk:ETDRK", "Cox & Matthews 2002", "exponential time differencing of order 2",
        defaults={"method": "etdrk2"},
    ),
    entry(
        "etdrk3", "exponential_rk:ETDRK", "Cox & Matthews 2002", "exponential time differencing of order 3",
        defaults={"method": "etdrk3"},
    ),
    entry(
        "etdrk4", "exponential_rk:ETDRK", "Cox & Matthews 2002", "exponential time differencing of order 4",
        defaults={"method": "etdrk4"},
    ),
    entry(
        "krogstad4", "exponential_rk:ETDRK", "Krogstad 2005", "exponential Runge-Kutta of order 4, 4 stages",
        "etdrk4_krogstad", defaults={"method": "krogstad4"},
    ),
    entry(
        "hochbruck_ostermann", "exponential_rk:ETDRK", "Hochbruck & Ostermann 2005",
        "exponential Runge-Kutta of order 4, 5 stages", defaults={"method": "hochbruck_ostermann"},
    ),
    entry(
        "dpm_fast", "dpm_fast:DPMFast", "arXiv:2206.00927", "DPM-Solver-fast: orders 3, 3, ..., 2, 1",
        "DPM fast", "k_dpm_fast", "k_diffusion:sample_dpm_fast", "k_diffusion:dpm_fast", "comfyui:dpm_fast",
        "a1111:DPM fast",
    ),
    entry(
        "lcm", "lcm:Consistency", "arXiv:2310.04378", "for latent consistency models",
        "comfyui:lcm", "a1111:LCM", "diffusers:LCMScheduler", "diffusers:FlowMatchLCMScheduler",
    ),
    entry(
        "consistency", "lcm:Consistency", "arXiv:2303.01469", "multistep consistency sampling",
        "diffusers:CMStochasticIterativeScheduler", defaults={"sigma_min": 0.002},
    ),
    entry(
        "tcd", "tcd:TCD", "arXiv:2402.19159", "for trajectory consistency models", "diffusers:TCDScheduler",
    ),
    entry("restart", "restart:Restart", "arXiv:2306.14878", "restarts from noise near the end"),
    entry("repaint", "repaint:Repaint", "arXiv:2201.09865", "jumps back up, again and again"),
    entry("euler_cfg_pp", "cfg_pp:CFGpp", "arXiv:2406.08070", "Euler with CFG++",
        "Euler CFG++", "comfyui:euler_cfg_pp", "a1111:DDIM CFG++", defaults={"solver": "euler"},
    ),
    entry(
        "euler_ancestral_cfg_pp", "cfg_pp:CFGpp", "arXiv:2406.08070", "ancestral Euler with CFG++",
        "Euler a CFG++", "comfyui:euler_ancestral_cfg_pp", defaults={"solver": "ddpm"},
    ),
    entry(
        "dpmpp_2m_cfg_pp", "cfg_pp:HostCFGpp", "arXiv:2406.08070", "dpmpp_2m with CFG++",
        "DPM++ 2M CFG++", defaults={"solver": "dpmpp_2m", "history": "uncond"},
    ),
    entry(
        "dpmpp_2s_ancestral_cfg_pp", "cfg_pp:HostCFGpp", "arXiv:2406.08070", "dpmpp_2s_ancestral with CFG++",
        "DPM++ 2S a CFG++", defaults={"solver": "dpmpp_2s_ancestral", "newest": True},
    ),
    entry(
        "res_multistep_cfg_pp", "cfg_pp:HostCFGpp", "arXiv:2406.08070", "res_multistep with CFG++",
        defaults={"solver": "res_multistep", "history": "uncond", "data": "uncond"},
    ),
    entry(
        "res_multistep_ancestral_cfg_pp", "cfg_pp:HostCFGpp", "arXiv:2406.08070",
        "res_multistep_ancestral with CFG++",
        defaults={"solver": "res_multistep_ancestral", "history": "uncond", "data": "uncond"},
    ),
    entry(
        "gradient_estimation_cfg_pp", "cfg_pp:CFGpp", "arXiv:2406.08070", "gradient_estimation with CFG++",
        defaults={"solver": "gradient_estimation"},
    ),
)  # fmt: skip

HOSTS = (
    entry(
        "a1111:Restart", "restart:A1111Restart", "",
        "A1111: from 20 steps on 9 steps down from 2 to 0.1, from 36 on twice a quarter",
    ),
    *(
        comfyui(
            f"{name}_cfg_pp", "cfg_pp:HostCFGpp", "reads flow levels as VE levels",
            solver=name, as_ve=True, **how,
        )
        for name, how in (
            ("dpmpp_2m", {"history": "uncond"}),
            ("dpmpp_2s_ancestral", {"newest": True}),
            ("res_multistep", {"history": "uncond", "data": "uncond"}),
            ("res_multistep_ancestral", {"history": "uncond", "data": "uncond"}),
            ("gradient_estimation", {}),
        )
    ),
)  # fmt: skip
