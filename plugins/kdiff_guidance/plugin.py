"""Entries of the guidance methods."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl

_TABLE = (
    ("cfg", "cfg:CFG", "Classifier-free guidance: u + scale (c - u).",
     "Ho & Salimans 2022, arXiv:2207.12598, eq. 6"),
    ("interval", "cfg:interval", "Classifier-free guidance between two levels.", "arXiv:2404.07724"),
    ("perp_neg", "perp_neg:PerpNeg", "Away from what negative conditions do not share.", "arXiv:2304.04968"),
    ("apg", "apg:APG", "Less of the guidance that is parallel to the output.", "arXiv:2410.02416"),
    ("cfg_zero", "cfg_zero:CFGZero", "CFG-Zero*: an unconditional velocity of the best length.",
     "arXiv:2503.18886"),
    ("tcfg", "tcfg:TCFG", "Tangential damping of the unconditional score.", "arXiv:2503.18137"),
    ("fdg", "fdg:FDG", "One scale for coarse, one for fine parts of images.", "arXiv:2506.19713"),
    ("autoguidance", "autoguidance:Autoguidance", "Away from a weaker model.", "arXiv:2406.02507"),
    ("degraded", "degraded:Degraded", "Away from a damaged branch of the model.", "arXiv:2403.17377"),
    ("rescale", "rescale:Rescale", "Around guidance: the conditional output's contrast.", "arXiv:2305.08891"),
    ("dynamic_thresholding", "dynamic_thresholding:DynamicThresholding",
     "Around any denoiser: extreme values are cut.", "arXiv:2205.11487"),
    ("epsilon_scaling", "epsilon_scaling:EpsilonScaling", "Around any denoiser: a little less noise.",
     "arXiv:2308.15321"),
    ("classifier", "classifier:Classifier", "The gradient of a classifier.", "arXiv:2105.05233"),
    ("dps", "posterior:DPS", "The gradient of an observation's likelihood.", "arXiv:2209.14687"),
    ("pigdm", "posterior:PiGDM", "The same for linear observations, with the data's uncertainty.",
     "Song et al. 2023, ICLR"),
    ("inpaint", "inpaint:Inpaint", "Around any denoiser: keeps the known part of an image.", ""),
    ("differential", "differential:Differential", "The same, each place until a strength of its own.",
     "arXiv:2306.00950"),
    ("tiled", "tiled:Tiled", "Around any denoiser: large states in tiles that overlap.", "arXiv:2302.08113"),
)  # fmt: skip
_BRANCHES = (
    ("perturbed_attention", "pag", "Away from the model without self-attention.", "arXiv:2403.17377"),
    ("skip_layers", "slg", "Away from the model without some layers.", "arXiv:2411.18664"),
    ("smoothed_energy", "seg", "Away from the model with blurred attention.", "arXiv:2408.00760"),
)
_ALIASES = {
    "perp_neg": ("perpendicular_negative",),
    "apg": ("adaptive_projected",),
    "cfg_zero": ("cfg_zero_star",),
    "tcfg": ("tangential",),
    "fdg": ("frequency_decoupled",),
    "rescale": ("cfg_rescale",),
    "differential": ("differential_diffusion",),
    "tiled": ("multidiffusion",),
}


@hookimpl
def kdiff_guidance() -> Iterable[Entry]:
    """Return the guidance methods; each wraps a denoiser, its first parameter."""
    methods = [
        Entry(name, f"kdiff_guidance.{factory}", _ALIASES.get(name, ()), summary, reference)
        for name, factory, summary, reference in _TABLE
    ]
    branches = [
        Entry(name, "kdiff_guidance.degraded:Degraded", (short,), summary, reference, {"branch": name})
        for name, short, summary, reference in _BRANCHES
    ]
    return [*methods, *branches]
