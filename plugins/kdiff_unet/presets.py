"""Presets: UNets of known use, each an entry of its own; any option can be given otherwise."""

from __future__ import annotations

from typing import Any

from kdiff_core import Entry

_UNET = "kdiff_unet.unet:unet"
_ADM = "Dhariwal & Nichol 2021, arXiv:2105.05233"


def _preset(name: str, summary: str, reference: str = "", **options: Any) -> Entry:
    return Entry(name, _UNET, summary=summary, reference=reference, defaults=options)


PRESETS = (
    _preset(
        "unet-tiny",
        "A UNet for tests: two levels of 16 and 32 channels, one block each.",
        in_channels=1, channels=(16, 32), depths=(1, 1), head_dim=16,
    ),
    _preset(
        "unet-digits",
        "A UNet for digits of 8 by 8.",
        in_channels=1, channels=(32, 64), depths=(1, 1), self_attention=(False, True), head_dim=32,
    ),
    _preset(
        "unet-mnist",
        "The UNet for digits of 28 by 28 of the model that ships, under 4 MiB in float32.",
        in_channels=1, patch_size=2, channels=(48, 72), depths=(1, 1), self_attention=(False, True),
        head_dim=36, embedding=144,
    ),
    _preset(
        "unet-adm",
        "A UNet as ADM's for 64 by 64.",
        _ADM,
        channels=(192, 384, 576, 768), depths=(3, 3, 3, 3), self_attention=(False, True, True, True),
        head_dim=64, resample="conv", time="positional", dropout=0.1,
    ),
    _preset(
        "unet-sd",
        "A UNet as Stable Diffusion's, for latents and text.",
        "Rombach et al. 2022, arXiv:2112.10752",
        in_channels=4, channels=(320, 640, 1280, 1280), depths=(2, 2, 2, 2), head_dim=64,
        self_attention=(True, True, True, False), cross_attention=(True, True, True, False),
        feed_forward=True, resample="conv", modulation="add", time="positional",
        conditions={"tokens": {"kind": "tokens", "size": 768}},
    ),
)  # fmt: skip
