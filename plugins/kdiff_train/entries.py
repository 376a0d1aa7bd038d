"""Entries of the losses and of the densities."""

from __future__ import annotations

from typing import Any

from kdiff_core import Entry


def _loss(name: str, summary: str, reference: str, *aliases: str, **defaults: Any) -> Entry:
    return Entry(name, "kdiff_train.losses:Loss", aliases, summary, reference, defaults)


LOSSES = (
    _loss(
        "edm", "Error of the network's output under EDM's preconditioning.",
        "Karras et al. 2022, arXiv:2206.00364, table 1", weight="edm",
    ),
    _loss(
        "eps", "Error of the noise: DDPM's simple loss; the SNR as a weight.",
        "Ho et al. 2020, arXiv:2006.11239, eq. 14", "epsilon", "ddpm", "snr", weight="eps",
    ),
    _loss("v", "Error of v: SNR + 1 as a weight.", "Salimans & Ho 2022, arXiv:2202.00512", weight="v"),
    _loss("x0", "Error of the denoised sample, not weighted.", "", "sample", weight="x0"),
    _loss(
        "flow", "Error of noise - x0, of rectified flow.", "Liu et al. 2022, arXiv:2209.03003",
        "rectified_flow", weight="flow",
    ),
    _loss(
        "min_snr", "The SNR as a weight, at most gamma.", "Hang et al. 2023, arXiv:2303.09556",
        weight="min_snr",
    ),
    _loss(
        "soft_min_snr", "The SNR as a weight, bending to gamma.", "Crowson et al. 2024, arXiv:2401.11605",
        weight="soft_min_snr", gamma=4.0,
    ),
    _loss(
        "edm2", "EDM's weight, and the network's log-variance beside it.",
        "Karras et al. 2023, arXiv:2312.02696", "uncertainty", weight="edm", uncertainty=True,
    ),
    _loss(
        "pseudo_huber", "EDM's weight; large errors count linearly.",
        "Song & Dhariwal 2023, arXiv:2310.14189", weight="edm", norm="pseudo_huber",
    ),
    _loss(
        "multi_scale", "EDM's weight; errors of halved images count too.",
        "Hoogeboom et al. 2023, arXiv:2301.11093", weight="edm", norm="multi_scale",
    ),
)  # fmt: skip


def _density(name: str, factory: str, summary: str, reference: str, *aliases: str) -> Entry:
    return Entry(name, f"kdiff_train.{factory}", aliases, summary, reference)


DENSITIES = (
    _density(
        "lognormal", "densities:LogNormal", "log sigma is normal: mean -1.2, std 1.2.",
        "Karras et al. 2022, arXiv:2206.00364, table 1",
    ),
    _density(
        "loglogistic", "densities:LogLogistic", "log sigma is logistic: heavier tails.",
        "Crowson et al. 2024, arXiv:2401.11605",
    ),
    _density(
        "loguniform", "densities:LogUniform", "log sigma is uniform between two levels.",
        "Song et al. 2020, arXiv:2011.13456",
    ),
    _density(
        "split_lognormal", "densities:SplitLogNormal", "log sigma is normal, with a width to either side.",
        "",
    ),
    _density(
        "cosine", "densities:Cosine", "The angle of noise and data is uniform.",
        "Salimans & Ho 2022, arXiv:2202.00512", "v_diffusion",
    ),
    _density(
        "cosine_interpolated", "quantile_densities:CosineInterpolated",
        "The cosine schedule, shifted by the size of the image.", "Hoogeboom et al. 2023, arXiv:2301.11093",
        "cosine_shifted",
    ),
    _density("uniform", "densities:Uniform", "The time of a noise process is uniform.", ""),
    _density(
        "logit_normal", "densities:LogitNormal", "For flow: the logit of sigma is normal.",
        "Esser et al. 2024, arXiv:2403.03206",
    ),
    _density(
        "mode", "quantile_densities:Mode", "For flow: more levels in the middle, or at the ends.",
        "Esser et al. 2024, arXiv:2403.03206",
    ),
)  # fmt: skip
