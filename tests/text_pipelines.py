"""Tiny pipelines of diffusers with random weights, text encoders included, made offline."""

from __future__ import annotations

import string
from functools import cache

import diffusers as hf
import torch
import transformers as tr

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
WORDS = 8  # tokens of a text


def clip_tokenizer():
    """One token for each letter."""
    words = ["<|startoftext|>", "<|endoftext|>"]
    words += [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
    return tr.CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=WORDS
    )


def t5_tokenizer():
    """One token for each letter."""
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return tr.T5Tokenizer(vocab=[*words, *((letter, -3.0) for letter in string.ascii_lowercase)], extra_ids=0)


def clip(cls):
    """A text encoder of 8 channels."""
    torch.manual_seed(2)
    return cls(
        tr.CLIPTextConfig(
            vocab_size=54, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=WORDS, projection_dim=8, bos_token_id=0, eos_token_id=1, pad_token_id=1,
            initializer_factor=30.0,
        )
    )  # fmt: skip


def t5(cls, config, channels=8):
    """A text encoder."""
    torch.manual_seed(2)
    return cls(config(vocab_size=30, d_model=channels, d_kv=4, d_ff=8, num_layers=1, num_heads=2))


def vae(shift=None, channels=4):
    """From latents to images of twice their size."""
    torch.manual_seed(1)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return hf.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=channels, shift_factor=shift, **blocks
    )


def unet(**more):
    """A UNet with text, for latents of 8 by 8."""
    torch.manual_seed(0)
    config = {
        "sample_size": 8, "layers_per_block": 1, "block_out_channels": (4, 8), "norm_num_groups": 4,
        "cross_attention_dim": 8, "attention_head_dim": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return hf.UNet2DConditionModel(**config | more)


def transformer_sd3(**more):
    torch.manual_seed(0)
    config = {
        "sample_size": 8, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 3,
        "attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 16,
        "caption_projection_dim": 16, "pooled_projection_dim": 16, "pos_embed_max_size": 16,
    }  # fmt: skip
    return hf.SD3Transformer2DModel(**config | more)


def transformer_flux(**more):
    """Guidance-distilled."""
    torch.manual_seed(0)
    config = {
        "patch_size": 1, "in_channels": 16, "num_layers": 2, "num_single_layers": 1,
        "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 8,
        "pooled_projection_dim": 8, "axes_dims_rope": (4, 4, 8), "guidance_embeds": True,
    }  # fmt: skip
    return hf.FluxTransformer2DModel(**config | more)


def stable_diffusion():
    return hf.StableDiffusionPipeline(
        vae(), clip(tr.CLIPTextModel), clip_tokenizer(), unet(),
        hf.EulerDiscreteScheduler(timestep_spacing="trailing", **BETAS), None, None,
        requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl(zeros=True):
    model = unet(
        cross_attention_dim=16, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=56,
    )  # fmt: skip
    return hf.StableDiffusionXLPipeline(
        vae(), clip(tr.CLIPTextModel), clip(tr.CLIPTextModelWithProjection), clip_tokenizer(),
        clip_tokenizer(), model, hf.EulerDiscreteScheduler(timestep_spacing="trailing", **BETAS),
        force_zeros_for_empty_prompt=zeros, add_watermarker=False,
    )  # fmt: skip


def stable_diffusion_3():
    encoder = tr.CLIPTextModelWithProjection
    return hf.StableDiffusion3Pipeline(
        transformer_sd3(), hf.FlowMatchEulerDiscreteScheduler(shift=3.0), vae(0.1),
        clip(encoder), clip_tokenizer(), clip(encoder), clip_tokenizer(),
        t5(tr.T5EncoderModel, tr.T5Config, 16), t5_tokenizer(),
    )  # fmt: skip


def flux():
    return hf.FluxPipeline(
        hf.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae(0.1), clip(tr.CLIPTextModel),
        clip_tokenizer(), t5(tr.T5EncoderModel, tr.T5Config), t5_tokenizer(), transformer_flux(),
    )  # fmt: skip


def wan():
    torch.manual_seed(0)
    model = hf.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, text_dim=8, freq_dim=16, ffn_dim=16, num_layers=2,
        rope_max_seq_len=32,
    )  # fmt: skip
    decoder = hf.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    return hf.WanPipeline(
        t5_tokenizer(), t5(tr.UMT5EncoderModel, tr.UMT5Config), decoder,
        hf.FlowMatchEulerDiscreteScheduler(shift=3.0), model,
    )  # fmt: skip


def ddpm():
    """A pipeline of a UNet2DModel without text: RGB images of 8 by 8."""
    torch.manual_seed(0)
    model = hf.UNet2DModel(
        sample_size=8, layers_per_block=1, block_out_channels=(4, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    return hf.DDPMPipeline(model, hf.DDPMScheduler(clip_sample=False))


MAKE = {
    "sd": stable_diffusion,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
    "wan": wan,
    "ddpm": ddpm,
}


@cache
def tiny(kind):
    """A pipeline of one of the kinds in `MAKE`, made once; nobody may change it."""
    pipe = MAKE[kind]()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe
