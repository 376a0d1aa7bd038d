"""A pipeline of diffusers as a denoiser of latents that takes text and makes images: ``diffusers:PATH``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.errors import CapabilityError, MissingExtraError, ParameterError
from kdiff_core.names import quoted
from kdiff_core.setup import dtype_of

from .diffusers_models import ModelDenoiser, described, fingerprint, from_diffusers
from .diffusers_text import ENCODERS, encode

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_INDEX = "model_index.json"


@frozen(eq=False)
class PipelineDenoiser(ModelDenoiser):
    """The model of a pipeline, with the pipeline's text encoders and its autoencoder.

    Its states are latents, ``(B, *sample_shape)``; `decode` makes images of them, and of a video pipeline
    videos ``(B, 3, frames, height, width)``. Its other arguments are those of `Parameterised`.

    Args:
        pipe: A pipeline of diffusers.
        decoded_shape: Shape of an image or video without its batch.
    """

    pipe: Any = field(kw_only=True, repr=False)
    decoded_shape: tuple[int, ...] = field(kw_only=True)

    value_range = (-1.0, 1.0)

    @property
    def data_sha256(self) -> str:
        """A hash of some values of each weight of the whole pipeline."""
        parts = (part for part in self.pipe.components.values() if isinstance(part, torch.nn.Module))
        return fingerprint(weight for part in parts for weight in part.parameters())

    def to(self, device: Any) -> PipelineDenoiser:
        """Move the whole pipeline to a device; return the denoiser."""
        self.pipe.to(device)
        return self

    def encode(self, texts: Sequence[str | None]) -> dict[str, Any]:
        """Return the conditions of texts, a row for each, as the pipeline's ``encode_prompt`` makes them.

        Args:
            texts: The texts. None is what the pipeline compares with where no negative prompt is given: the
                empty text, or zeros for a Stable Diffusion XL whose config says so.
        """
        height, width = self.decoded_shape[-2:]
        return encode(self.pipe, _kind(self.pipe), texts, (height, width))

    def decode(self, x: Tensor) -> Tensor:
        """Return the images of latents, ``(B, 3, height, width)``, mostly from -1 to 1."""
        vae = self.pipe.vae
        mean, deviation = _statistics(vae, x.ndim)
        latents = x.to(vae.device, vae.dtype) * deviation + mean
        images: Tensor = vae.decode(latents, return_dict=False)[0]
        return images

    def encode_image(self, images: Tensor) -> Tensor:
        """Return the latents of images, the most likely ones.

        Args:
            images: ``(B, 3, height, width)`` from -1 to 1.
        """
        vae = self.pipe.vae
        mean, deviation = _statistics(vae, images.ndim)
        latents = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mode()
        found: Tensor = (latents - mean) / deviation
        return found


def from_pipeline(
    pipe: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    embedded_guidance: float = 3.5,
) -> ModelDenoiser:
    """Return the denoiser of a pipeline of diffusers.

    Args:
        pipe: A pipeline from text to images or videos: Stable Diffusion 1, 2, XL or 3, Flux, Wan. Of one that
            has a ``UNet2DModel`` and no text, as DDPM's, the model alone, whose states are the images.
        height: Of the images, in pixels. Default: what the pipeline makes.
        width: Likewise.
        frames: Of the videos.
        embedded_guidance: The scale that a guidance-distilled Flux or UNet is told.

    Raises:
        CapabilityError: Another pipeline.
        ParameterError: A size that the model cannot have.
    """
    kind = _kind(pipe)
    if kind not in ENCODERS:
        model = getattr(pipe, "unet", None)
        if type(model).__name__ != "UNet2DModel" or hasattr(pipe, "vqvae"):
            raise CapabilityError(
                f"{kind}: kdiff runs {quoted(ENCODERS)}, and pipelines of a UNet2DModel alone; drive this "
                "one by kdiff_sd.diffusers.KDiffScheduler, or wrap its model by from_diffusers"
            )
        if height or width or frames:
            raise ParameterError(f"{kind}: its images have the size that the model was made for")
        return from_diffusers(model, pipe.scheduler)
    if getattr(pipe, "transformer_2", None) is not None or pipe.config.get("expand_timesteps"):
        raise CapabilityError(
            f"{kind}: of two transformers or a time for each token; kdiff runs one of Wan 2.1"
        )
    model = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    if kind == "StableDiffusionXLPipeline":
        _refuse_refiner(pipe)
    latents, images = _shapes(pipe, model, kind, height, width, frames)
    network, options = described(model, pipe.scheduler, latents, embedded_guidance)
    if pipe.vae.config.get("force_upcast") and pipe.vae.dtype == torch.float16:
        pipe.vae.to(torch.float32)
    return PipelineDenoiser(network, pipe=pipe, decoded_shape=images, **options)


def load_pipeline(
    path: str,
    *,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    embedded_guidance: float = 3.5,
    dtype: str | None = None,
    variant: str | None = None,
    without: Sequence[str] = (),
) -> ModelDenoiser:
    """Load a pipeline of diffusers; see `from_pipeline`.

    Weights are read from safetensors only; no code of the pipeline's repository is run.

    Args:
        path: Its folder, or its name on the hub, as ``owner/name``.
        height: Of the images, in pixels. Default: what the pipeline makes.
        width: Likewise.
        frames: Of the videos.
        embedded_guidance: The scale that a guidance-distilled Flux or UNet is told.
        dtype: Of its weights, such as "bfloat16". Default: float32.
        variant: Of its files, such as "fp16".
        without: Names of components to leave out: of Stable Diffusion 3 "text_encoder_3" and "tokenizer_3".

    Raises:
        MissingExtraError: diffusers is not installed.
        ParameterError: There is no such pipeline.
        CapabilityError: It is one that kdiff does not run.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir() and not _HUB_NAME.fullmatch(path):
        raise ParameterError(f"{path}: there is no such folder; give a pipeline's, or its name on the hub")
    if folder.is_dir() and not (folder / _INDEX).is_file():
        raise ParameterError(f"{path}: has no {_INDEX}; give the folder that pipe.save_pretrained wrote")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other libraries' versions
            from diffusers import DiffusionPipeline
    except ImportError as error:
        raise MissingExtraError(
            "a pipeline of diffusers needs diffusers: pip install 'kdiff-core[diffusers]'"
        ) from error
    options: dict[str, Any] = {} if variant is None else {"variant": variant}
    options |= dict.fromkeys((without,) if isinstance(without, str) else without)
    options["torch_dtype"] = dtype_of("float32" if dtype is None else dtype)
    place = str(folder) if folder.is_dir() else path
    try:
        pipe = DiffusionPipeline.from_pretrained(place, use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ParameterError(f"{path}: diffusers cannot load this pipeline: {first}") from error
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
    return from_pipeline(pipe, height=height, width=width, frames=frames, embedded_guidance=embedded_guidance)


def _kind(pipe: Any) -> str:
    return type(pipe).__name__


def _refuse_refiner(pipe: Any) -> None:
    """Refuse a UNet that is told something other than six numbers of the size beside the text."""
    config = pipe.unet.config
    text = pipe.text_encoder_2.config.projection_dim
    if pipe.text_encoder is None or config.projection_class_embeddings_input_dim != text + 6 * (
        config.addition_time_embed_dim or 0
    ):
        raise CapabilityError(
            "StableDiffusionXLPipeline: a refiner's or another UNet, which is told a score in place of the "
            "size, or is without the first text encoder; drive it by kdiff_sd.diffusers.KDiffScheduler in "
            "StableDiffusionXLImg2ImgPipeline"
        )


def _statistics(vae: Any, ndim: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the autoencoder's latents, as its config has them."""
    config: Mapping[str, Any] = vae.config
    scale = 1 / (config.get("scaling_factor") or 1.0)
    mean = config.get("latents_mean") or [config.get("shift_factor") or 0.0]
    deviation = [each * scale for each in config.get("latents_std") or [1.0]]
    shape = (1, -1, *[1] * (ndim - 2))
    like = {"device": vae.device, "dtype": vae.dtype}
    return torch.tensor(mean, **like).reshape(shape), torch.tensor(deviation, **like).reshape(shape)


def _shapes(
    pipe: Any, model: Any, kind: str, height: int | None, width: int | None, frames: int | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of latents and of what they are decoded to."""
    video = kind == "WanPipeline"
    factor = pipe.vae_scale_factor_spatial if video else pipe.vae_scale_factor
    patch = 2 if kind == "FluxPipeline" else model.config.get("patch_size") or 1
    patches = patch[1:] if isinstance(patch, list | tuple) else (patch, patch)
    usual = _usual_size(pipe, model, kind, factor)
    size = tuple(each or own for each, own in zip((height, width), usual, strict=True))
    steps = tuple(factor * each for each in patches)
    for name, each, step in zip(("height", "width"), size, steps, strict=True):
        if each < 1 or each % step:
            raise ParameterError(f"{kind}: {name}={each} must be a multiple of {step}")
    if frames is not None and not video:
        raise ParameterError(f"{kind}: frames={frames}: it makes images; leave frames out")
    small = (size[0] // factor, size[1] // factor)
    channels = model.config.in_channels // (4 if kind == "FluxPipeline" else 1)
    if not video:
        return (channels, *small), (3, *size)
    every, frames = pipe.vae_scale_factor_temporal, 81 if frames is None else frames
    if frames < 1 or (frames - 1) % every:
        raise ParameterError(f"{kind}: frames={frames} must be 1 more than a multiple of {every}")
    return (channels, (frames - 1) // every + 1, *small), (3, frames, *size)


def _usual_size(pipe: Any, model: Any, kind: str, factor: int) -> tuple[int, int]:
    """Return height and width where nothing is said."""
    if kind == "WanPipeline":
        return 480, 832
    if kind == "FluxPipeline":
        return pipe.default_sample_size * factor, pipe.default_sample_size * factor
    size = model.config.sample_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return height * factor, width * factor
