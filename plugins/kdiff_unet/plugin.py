"""Entries of the networks, their conditions and the trained model."""

from __future__ import annotations

from collections.abc import Iterable

from kdiff_core import Entry, hookimpl

from .presets import PRESETS


@hookimpl
def kdiff_models() -> Iterable[Entry]:
    """Return the architectures, and presets of the UNet."""
    return [
        Entry(
            "unet",
            "kdiff_unet.unet:unet",
            summary="UNet with attention and conditions of every kind, for 1, 2 and 3 dimensions.",
            reference="Ho et al. 2020, arXiv:2006.11239; Dhariwal & Nichol 2021, arXiv:2105.05233",
        ),
        Entry(
            "magnitude",
            "kdiff_unet.magnitude:magnitude",
            summary="UNet whose layers keep magnitudes: normalised weights, no norms, no biases.",
            reference="Karras et al. 2023, arXiv:2312.02696",
        ),
        Entry(
            "transformer",
            "kdiff_unet.transformer:transformer",
            summary="Diffusion transformer with adaLN-zero and rotary positions.",
            reference="Peebles & Xie 2022, arXiv:2212.09748",
        ),
        Entry(
            "mlp",
            "kdiff_unet.mlp:mlp",
            summary="Multilayer perceptron for short vectors.",
            reference="He et al. 2015, arXiv:1512.03385",
        ),
        *PRESETS,
    ]


@hookimpl
def kdiff_conditions() -> Iterable[Entry]:
    """Return the conditions."""
    module = "kdiff_unet.conditions"
    return [
        Entry("class", f"{module}:ClassCondition", summary="One of several classes; -1 is none."),
        Entry("vector", f"{module}:VectorCondition", summary="A vector; zeros are none."),
        Entry("number", f"{module}:NumberCondition", summary="A number a sample; NaN is none."),
        Entry("tokens", f"{module}:TokensCondition", summary="A sequence and its mask, for cross-attention."),
        Entry("concat", f"{module}:ConcatCondition", summary="Channels beside the state's; zeros are none."),
    ]


@hookimpl
def kdiff_denoisers() -> Iterable[Entry]:
    """Return the denoisers."""
    return [
        Entry(
            "mnist",
            "kdiff_unet.trained:mnist",
            summary="Network trained on handwritten digits, 28 by 28, ten classes: ready to sample from.",
            reference="LeCun, Cortes & Burges, the MNIST database",
        ),
        Entry(
            "trained",
            "kdiff_unet.trained:trained",
            summary="A trained network: the path of a model file, ending in .safetensors.",
            argument="file",
        ),
    ]
