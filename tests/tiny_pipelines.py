"""Tiny pipelines of diffusers without text encoders, and their calls; networks of `text_pipelines`."""

from __future__ import annotations

from functools import cache

import diffusers as hf
import text_pipelines
import torch

from kdiff_sd.diffusers import KDiffScheduler

IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
MASK = (IMAGE[:, :1] > 0.5).float()
# What Stable Diffusion was trained on.
BETAS = text_pipelines.BETAS | {"steps_offset": 1}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


@cache
def vae(channels=4):
    return text_pipelines.vae(0.0, channels)


@cache
def unet(**more):
    return text_pipelines.unet(attention_head_dim=4, **more)


@cache
def transformer(kind):
    if kind == "flux":
        return text_pipelines.transformer_flux(num_layers=1, guidance_embeds=False)
    return text_pipelines.transformer_sd3(
        patch_size=1, in_channels=16, out_channels=16, num_layers=1, joint_attention_dim=8,
        pooled_projection_dim=8,
    )  # fmt: skip


def unet_xl():
    return unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=56
    )


@cache
def wan():
    """The networks of a video pipeline: a transformer of flow, and a VAE of frames."""
    torch.manual_seed(0)
    transformer = hf.WanTransformer3DModel(
        patch_size=(1, 1, 1), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=8, freq_dim=8, ffn_dim=16, num_layers=1, rope_max_seq_len=16,
    )  # fmt: skip
    frames = hf.AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4, scale_factor_temporal=2, scale_factor_spatial=2,
    )  # fmt: skip
    return {"transformer": transformer, "vae": frames}


def pipeline(kind, scheduler):
    """A pipeline of one of the kinds in `CALLS`."""
    family, _, variant = kind.partition(" ")
    made = _pipeline(family, variant, scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def _pipeline(family, variant, scheduler):
    parts = {"scheduler": scheduler, "text_encoder": None, "tokenizer": None}
    if family == "wan":
        return hf.WanPipeline(**parts, **wan())
    prefix = {
        "sd": "StableDiffusion",
        "sdxl": "StableDiffusionXL",
        "sd3": "StableDiffusion3",
        "flux": "Flux",
    }[family]
    cls = getattr(hf, f"{prefix}{ {'img2img': 'Img2Img', 'inpaint': 'Inpaint'}.get(variant, '') }Pipeline")
    parts["vae"] = vae(16 if family == "sd3" else 4)
    if family == "sd":
        parts |= {"unet": unet(), "safety_checker": None, "feature_extractor": None}
        return cls(**parts, requires_safety_checker=False)
    parts |= {"text_encoder_2": None, "tokenizer_2": None}
    if family == "sdxl":
        return cls(**parts, unet=unet_xl(), add_watermarker=False)
    if family == "sd3":
        parts |= {"text_encoder_3": None, "tokenizer_3": None}
    return cls(**parts, transformer=transformer(family))


SIZE = {"height": 16, "width": 16}
CALLS = {
    "sd": SIZE,
    "sd img2img": {"image": IMAGE, "strength": 0.6},
    "sd inpaint": {**SIZE, "image": IMAGE, "mask_image": MASK, "strength": 0.7},
    "sdxl": SIZE,
    "sdxl img2img": {"image": IMAGE, "strength": 0.6},
    "sdxl inpaint": {**SIZE, "image": IMAGE, "mask_image": MASK, "strength": 0.7},
    "sd3": SIZE,
    "sd3 img2img": {**SIZE, "image": IMAGE, "strength": 0.6},
    "sd3 inpaint": {**SIZE, "image": IMAGE, "mask_image": MASK, "strength": 0.7},
    "flux": SIZE,
    "flux img2img": {**SIZE, "image": IMAGE, "strength": 0.6},
    "flux inpaint": {**SIZE, "image": IMAGE, "mask_image": MASK, "strength": 0.7},
    "wan": {**SIZE, "num_frames": 5},
}


def images(pipe, kind, steps=6, seed=0, batch=1, **options):
    """Images ``(B, 3, 16, 16)`` between 0 and 1; of "wan" videos, ``(B, 5, 3, 16, 16)``."""
    call = {"prompt_embeds": normal(batch, 4, 8, seed=5), "num_inference_steps": steps}
    call |= {"generator": seeded(seed), "output_type": "pt", "return_dict": False}
    if not kind.startswith("flux"):
        call["negative_prompt_embeds"] = normal(batch, 4, 8, seed=6)
    if kind.split()[0] not in ("sd", "wan"):
        call["pooled_prompt_embeds"] = normal(batch, 8, seed=7)
    if kind.startswith(("sd3", "sdxl")):
        call["negative_pooled_prompt_embeds"] = normal(batch, 8, seed=8)
    call |= CALLS[kind] | options
    call["generator"] = call["generator"]() if callable(call["generator"]) else call["generator"]
    return pipe(**call)[0]


def both(kind, own, options, **call):
    """Images with diffusers' scheduler, and with kdiff's made from its config."""
    theirs = images(pipeline(kind, own), kind, **call)
    ours = images(pipeline(kind, KDiffScheduler.from_config(own.config, **options)), kind, **call)
    assert theirs.std() > 0.01
    return theirs, ours
