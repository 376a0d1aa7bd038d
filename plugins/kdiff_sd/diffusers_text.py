"""From a text to what a model of diffusers is told: by its pipeline's own ``encode_prompt``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Conditions = dict[str, Any]


def encode(pipe: Any, kind: str, texts: Sequence[str | None], size: tuple[int, int]) -> Conditions:
    """Return the conditions of texts, a row for each.

    Each text is encoded alone, and once, so that what a sample is told does not depend on the others.

    Args:
        pipe: A pipeline of diffusers.
        kind: A name in `ENCODERS`.
        texts: The texts; None is what the pipeline takes for no negative prompt.
        size: Height and width of the images, in pixels.
    """
    with torch.no_grad():
        found = {text: ENCODERS[kind](pipe, text, size) for text in dict.fromkeys(texts)}
    return _rows([found[text] for text in texts])


def _rows(conditions: Sequence[Mapping[str, Any]]) -> Conditions:
    """Put conditions of one sample each below each other."""
    first = conditions[0]
    return {
        name: torch.cat([each[name] for each in conditions])
        if isinstance(value, Tensor)
        else _rows([each[name] for each in conditions])
        for name, value in first.items()
    }


def _stable_diffusion(pipe: Any, text: str | None, size: tuple[int, int]) -> Conditions:
    embeds, _ = pipe.encode_prompt(text or "", pipe.device, 1, False)
    return {"encoder_hidden_states": embeds}


def _stable_diffusion_xl(pipe: Any, text: str | None, size: tuple[int, int]) -> Conditions:
    places = {"device": pipe.device, "num_images_per_prompt": 1}
    if text is None:  # zeros, or the empty text, as the pipeline's config says
        _, embeds, _, pooled = pipe.encode_prompt("", do_classifier_free_guidance=True, **places)
    else:
        embeds, _, pooled, _ = pipe.encode_prompt(text, do_classifier_free_guidance=False, **places)
    # The size of the original, the corner of the crop, the size.
    told = torch.tensor([[*size, 0, 0, *size]], device=embeds.device, dtype=embeds.dtype)
    return {
        "encoder_hidden_states": embeds,
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": told},
    }


def _stable_diffusion_3(pipe: Any, text: str | None, size: tuple[int, int]) -> Conditions:
    embeds, _, pooled, _ = pipe.encode_prompt(
        text or "", None, None, device=pipe.device, do_classifier_free_guidance=False
    )
    return {"encoder_hidden_states": embeds, "pooled_projections": pooled}


def _flux(pipe: Any, text: str | None, size: tuple[int, int]) -> Conditions:
    embeds, pooled, _ = pipe.encode_prompt(text or "", None, device=pipe.device)
    return {"encoder_hidden_states": embeds, "pooled_projections": pooled}


def _wan(pipe: Any, text: str | None, size: tuple[int, int]) -> Conditions:
    length = {"max_sequence_length": 512}  # what the pipeline itself asks for
    embeds, _ = pipe.encode_prompt(text or "", None, False, device=pipe.device, **length)
    return {"encoder_hidden_states": embeds.to(pipe.transformer.dtype)}


ENCODERS: dict[str, Callable[[Any, str | None, tuple[int, int]], Conditions]] = {
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _stable_diffusion_xl,
    "StableDiffusion3Pipeline": _stable_diffusion_3,
    "FluxPipeline": _flux,
    "WanPipeline": _wan,
}
