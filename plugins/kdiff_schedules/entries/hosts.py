"""What a host's name stands for where its numbers are not the bare name's."""

from __future__ import annotations

from .table import entry

HOSTS = (
    entry("comfyui:simple", "hosts:Simple", "", "ComfyUI: rounded down to entries.", "a1111:Simple"),
    entry("comfyui:normal", "hosts:HostUniform", "", "ComfyUI: on flow shifted twice.",
          "diffusers:flow_linspace", sgm=False),
    entry("comfyui:sgm_uniform", "hosts:HostUniform", "", "ComfyUI: on flow shifted twice.", sgm=True),
    entry("comfyui:ddim_uniform", "hosts:DDIMUniform", "", "ComfyUI: a count of its own.", "a1111:DDIM"),
    entry("comfyui:beta", "hosts:BetaEntries", "", "ComfyUI: rounded to entries, each once."),
    entry("comfyui:beta57", "hosts:BetaEntries", "", "RES4LYF in ComfyUI: beta with 0.5 and 0.7.",
          alpha=0.5, beta=0.7),
    entry("comfyui:turbo", "hosts:TurboEntries", "", "ComfyUI: the first n of ten entries."),
    entry("comfyui:laplace", "hosts:LaplaceClamped", "", "ComfyUI: n levels, cut at the range, no 0."),
    entry("a1111:kl_optimal", "hosts:KLOptimalToMin", "", "A1111: n + 1 levels, the last sigma_min."),
    entry("a1111:beta", "curves:LevelBeta", "", "A1111: levels, not times, at quantiles.", "diffusers:beta"),
    entry("a1111:ays", "tabled:AYSThenZero", "", "A1111: n levels of the table, then 0.",
          "a1111:Align Your Steps"),
    entry("a1111:turbo", "hosts:TimestepSpacing", "", "A1111: rounded to entries.",
          "diffusers:trailing", spacing="trailing"),
    entry("diffusers:linspace", "hosts:TimestepSpacing", "", "diffusers: by rule= euler, ddim or dpm.",
          spacing="linspace"),
    entry("diffusers:leading", "hosts:TimestepSpacing", "", "diffusers: by rule= euler, ddim or dpm.",
          spacing="leading"),
)  # fmt: skip
