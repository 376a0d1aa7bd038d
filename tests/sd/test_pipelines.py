"""diffusers' models and pipelines as denoisers: against diffusers itself, on tiny random weights."""

from __future__ import annotations

import copy
import json
import math
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import kdiff_core as kd
from kdiff_core.cli import main
from kdiff_core.errors import CapabilityError, ParameterError
from kdiff_core.manifest import read_manifest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers as hf
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift
    from text_pipelines import BETAS, stable_diffusion, stable_diffusion_xl, tiny, transformer_flux, unet

    from kdiff_sd.diffusers_branches import _Smoothed
    from kdiff_sd.diffusers_models import from_diffusers
    from kdiff_sd.diffusers_pipelines import from_pipeline

# What diffusers warns of concerns other libraries.
pytestmark = pytest.mark.filterwarnings("ignore")
TEXT = ("sd", "sdxl", "sd3", "flux", "wan")
# Where the model's own size is too large for a test.
SIZE = {"flux": {"height": 16, "width": 24}, "wan": {"height": 16, "width": 32, "frames": 5}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a saved pipeline, by its kind."""
    place = tmp_path_factory.mktemp("pipelines")

    def of(kind):
        if not (place / kind).exists():
            tiny(kind).save_pretrained(place / kind)
        return str(place / kind)

    return of


@pytest.fixture
def kdiff(capsys, monkeypatch, tmp_path):
    """Run the command in an empty folder; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args):
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        return (left.value.code or 0, *capsys.readouterr())

    return run


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def theirs(pipe, kind, noise, guidance=1.0, **call):
    """What a pipeline makes of noise ``(B, ...)``, and the levels that it visits."""
    call |= {"num_inference_steps": 4, "return_dict": False}
    if kind == "flux":
        height, width = noise.shape[-2:]
        call |= {"height": height * 2, "width": width * 2, "true_cfg_scale": guidance}
        call["latents"] = pipe._pack_latents(noise, len(noise), 4, height, width)
    else:
        frames, height, width = (1, *noise.shape[-2:]) if noise.ndim == 4 else noise.shape[-3:]
        factor = 8 if kind == "wan" else 2
        call |= {"height": height * factor, "width": width * factor, "guidance_scale": guidance}
        call |= {"latents": noise} | ({"num_frames": 4 * frames - 3} if kind == "wan" else {})
    found = pipe(**call)[0]
    if kind == "flux" and call.get("output_type") == "latent":
        found = pipe._unpack_latents(found, height * 2, width * 2, 2)
    return found, pipe.scheduler.sigmas.tolist()


def ours(model, noise, levels, **job):
    """What kdiff's Euler makes of the same noise at the same levels."""
    setup = kd.SampleJob(model, len(noise), "euler", levels=tuple(levels), **job).setup()
    x = noise * levels[0]
    with torch.no_grad():
        return kd.get_sampler("euler")(setup.denoiser, x, levels, cond=setup.cond), setup


CASES = [
    *((kind, guidance, negative) for kind in TEXT for guidance, negative in ((1.0, None), (6.0, "a dog"))),
    *((kind, 6.0, None) for kind in ("sd", "sdxl", "sd3")),  # zeros for sdxl
]


@pytest.mark.parametrize(("kind", "guidance", "negative"), CASES)
def test_latents_are_those_of_the_pipeline(folder, kind, guidance, negative):
    """By name, Euler with guidance makes the latents that the pipeline makes with diffusers' Euler."""
    model = kd.get_denoiser(f"diffusers:{folder(kind)}", **SIZE.get(kind, {}))
    noise, prompts = normal(2, *model.sample_shape), ["a cat", "the sun"]
    given = {"negative_prompt": None if negative is None else [negative] * 2}
    expected, levels = theirs(
        tiny(kind), kind, noise, guidance, prompt=prompts, output_type="latent", **given
    )
    guided = {} if guidance == 1 else {"guidance": guidance, "negative": negative}
    found, _ = ours(model, noise, levels, prompt=prompts, **guided)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("kind", TEXT)
def test_images_are_those_of_the_pipeline(kind):
    """Decoded, they are the pipeline's images, of a shape that the denoiser tells beforehand."""
    model = from_pipeline(tiny(kind), **SIZE.get(kind, {}))
    noise = normal(1, *model.sample_shape)
    expected, levels = theirs(tiny(kind), kind, noise, prompt="a cat", output_type="pt")
    found, setup = ours(model, noise, levels, prompt="a cat")
    images = (setup.decoded(found) / 2 + 0.5).clamp(0, 1)
    assert tuple(images.shape[1:]) == model.decoded_shape == setup.sample_shape
    expected = expected.transpose(1, 2) if kind == "wan" else expected
    assert expected.std() > 0.01
    assert (images - expected).abs().max() < 1e-5


def test_a_dynamic_shift_goes_by_the_size():
    """The process of a flow that is shifted by the number of tokens is that of the size asked for."""
    for height, width in ((16, 24), (32, 32)):
        shift = math.exp(calculate_shift(height * width // 16))
        process = from_pipeline(tiny("flux"), height=height, width=width).process
        assert process.shift == pytest.approx(shift, rel=1e-9)


def test_zeros_for_no_text():
    """Stable Diffusion XL takes zeros or the empty text for no negative prompt, as its config says."""
    for zeros in (True, False):
        model = from_pipeline(stable_diffusion_xl(zeros))
        none, empty = (model.encode([text])["encoder_hidden_states"] for text in (None, ""))
        assert empty.abs().max() > 0.1
        assert torch.equal(none, torch.zeros_like(empty) if zeros else empty)


def test_each_sample_has_its_own_prompt(folder):
    """A sample of several is that of its own prompt alone, and another prompt makes another image."""
    job = {"steps": 3, "guidance": 4.0, "sampler": "euler"}
    name = f"diffusers:{folder('sd3')}"
    both = kd.sample(name, prompt=["a cat", "a dog"], negative=["", "the sun"], **job)
    second = kd.sample(name, prompt="a dog", negative="the sun", index=[1], **job)
    assert both.shape == (2, 3, 16, 16)
    assert (both[1] - second[0]).abs().max() < 1e-5
    other = kd.sample(name, prompt="a cat", negative="the sun", index=[1], **job)
    assert (other - second).abs().max() > 1e-3


@pytest.mark.parametrize("kind", TEXT)
def test_latents_of_images(kind):
    """`encode_image` gives the autoencoder's mean in the model's own scale, as diffusers' img2img does."""
    pipe = tiny(kind)
    model = from_pipeline(pipe, **SIZE.get(kind, {}))
    images = normal(1, *model.decoded_shape).clamp(-1, 1)
    mean = pipe.vae.encode(images).latent_dist.mean
    config = pipe.vae.config
    if kind == "wan":
        shape = (1, 16, 1, 1, 1)
        centre, spread = (torch.tensor(config[f"latents_{k}"]).view(shape) for k in ("mean", "std"))
        expected = (mean - centre) / spread
    else:
        expected = (mean - (config.shift_factor or 0)) * config.scaling_factor
    found = model.encode_image(images)
    assert tuple(found.shape[1:]) == model.sample_shape
    assert torch.allclose(found, expected, atol=1e-5)


# -- models alone

CONTINUOUS = {"timestep_type": "continuous", "prediction_type": "v_prediction", "sigma_max": 80.0,
              "sigma_min": 0.002, "use_karras_sigmas": True}  # fmt: skip
SCHEDULERS = {
    "epsilon": hf.EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing"),
    "v": hf.EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing", prediction_type="v_prediction"),
    "sample": hf.EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing", prediction_type="sample"),
    "log sigma": hf.EulerDiscreteScheduler(**BETAS, **CONTINUOUS),
    "edm": hf.EDMEulerScheduler(),
    "edm, v": hf.EDMEulerScheduler(prediction_type="v_prediction"),
}


@pytest.mark.parametrize("as_config", [False, True])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_denoised_state_is_that_of_the_scheduler(name, as_config):
    """What the output is and what the model is told is read from the scheduler or its config."""
    scheduler, text = copy.deepcopy(SCHEDULERS[name]), normal(1, 3, 8, seed=1)
    scheduler.set_timesteps(3)
    model = tiny("sd").unet
    config = {**scheduler.config, "_class_name": type(scheduler).__name__}
    denoiser = from_diffusers(model, config if as_config else scheduler)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1].clone(), strict=True):
        x = normal(1, 4, 8, 8) * sigma
        output = model(scheduler.scale_model_input(x, t), t, text, return_dict=False)[0]
        expected = scheduler.step(output, t, x).pred_original_sample
        found = denoiser(x, sigma[None], encoder_hidden_states=text)
        assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


def test_a_model_without_text():
    """A `UNet2DModel` with classes takes them as labels; its learned variance is no part of the output."""
    torch.manual_seed(0)
    model = hf.UNet2DModel(
        sample_size=(8, 16), out_channels=6, layers_per_block=1, block_out_channels=(4, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, num_class_embeds=5,
        add_attention=False,
    )  # fmt: skip
    denoiser = from_diffusers(model, hf.DDPMScheduler())
    assert (denoiser.sample_shape, denoiser.classes, denoiser.value_range) == ((3, 8, 16), 5, (-1.0, 1.0))
    x, labels = normal(2, 3, 8, 16), torch.tensor([1, 4])
    level = denoiser.process.levels[500]
    found = denoiser(x * level, torch.full((2,), level), label=labels)
    output = model(x * level / (1 + level**2) ** 0.5, 500, labels, return_dict=False)[0][:, :3]
    assert (found - (x * level - level * output)).abs().max() < 1e-4 * level
    assert kd.sample(denoiser, n=2, steps=2, label=[1, 4]).shape == (2, 3, 8, 16)


def test_a_distilled_flux_is_told_its_guidance():
    """Of a guidance-distilled Flux the option is what the transformer gets."""
    model, text = transformer_flux(), normal(1, 3, 8)
    x, cond = normal(1, 4, 4, 6), {"encoder_hidden_states": text, "pooled_projections": normal(1, 8)}
    scheduler = hf.FlowMatchEulerDiscreteScheduler()
    outputs = {g: from_diffusers(model, scheduler, embedded_guidance=g) for g in (1.0, 3.5, 9.0)}
    found = {g: denoiser(x, torch.tensor([0.7]), **cond) for g, denoiser in outputs.items()}
    assert (found[1.0] - found[9.0]).abs().max() > 1e-5
    assert torch.equal(found[3.5], from_diffusers(model, scheduler)(x, torch.tensor([0.7]), **cond))
    told = outputs[1.0](x, torch.tensor([0.7]), guidance=torch.tensor([9.0]), **cond)
    assert torch.equal(told, found[9.0])


@pytest.mark.parametrize("size", [6, 9])
def test_a_distilled_unet_is_told_its_guidance(size):
    """Of a UNet of latent consistency the option is what diffusers' pipeline tells it."""
    model, x = unet(time_cond_proj_dim=size), normal(2, 4, 8, 8)
    cond, sigma = {"encoder_hidden_states": normal(2, 3, 8, seed=1)}, torch.tensor([2.0, 9.0])
    denoisers = [from_diffusers(model, hf.LCMScheduler(**BETAS), embedded_guidance=g) for g in (1.0, 8.5)]
    found = [denoiser(x, sigma, **cond) for denoiser in denoisers]
    assert (found[0] - found[1]).abs().max() > 1e-4
    told = tiny("sd").get_guidance_scale_embedding(torch.full((2,), 7.5), size)
    assert torch.allclose(denoisers[0](x, sigma, timestep_cond=told, **cond), found[1], atol=1e-4)
    plain = [from_diffusers(unet(), hf.LCMScheduler(**BETAS), embedded_guidance=g) for g in (1.0, 8.5)]
    assert torch.equal(*(denoiser(x, sigma, **cond) for denoiser in plain))


# -- from an image

IMAGE = normal(1, 3, 16, 16, seed=8).tanh()
MASK = (torch.arange(8) % 3 == 0).float().repeat_interleave(2).expand(1, 1, 16, 16)  # whole latents
FROM_IMAGES = {
    ("sd", False): hf.StableDiffusionImg2ImgPipeline,
    ("sd", True): hf.StableDiffusionInpaintPipeline,
    ("sdxl", True): hf.StableDiffusionXLInpaintPipeline,
    ("sd3", False): hf.StableDiffusion3Img2ImgPipeline,
}


@pytest.mark.parametrize(("kind", "masked"), FROM_IMAGES)
def test_from_an_image_latents_are_those_of_the_pipeline(monkeypatch, kind, masked):
    """Of an image, with a mask or without, Euler makes the latents of diffusers' pipeline for it."""
    draws = "diffusers.models.autoencoders.vae.DiagonalGaussianDistribution.sample"
    monkeypatch.setattr(draws, lambda self, generator=None: self.mode())
    pipe = FROM_IMAGES[kind, masked].from_pipe(tiny(kind))
    pipe.set_progress_bar_config(disable=True)
    call = {"image": IMAGE / 2 + 0.5, "prompt": "a cat", "negative_prompt": "a dog", "guidance_scale": 4.0}
    call |= {"mask_image": MASK} if masked else {}
    call |= {"height": 16, "width": 16} if masked or kind == "sd3" else {}
    call |= {"generator": torch.Generator().manual_seed(3), "output_type": "latent", "return_dict": False}
    expected = pipe(strength=0.6, num_inference_steps=5, **call)[0]
    levels = pipe.scheduler.sigmas.tolist()[2:]
    job = {"prompt": "a cat", "negative": "a dog", "guidance": 4.0, "init": IMAGE}
    job |= {"mask": MASK[0, 0]} if masked else {}
    setup = kd.SampleJob(from_pipeline(tiny(kind)), 1, "euler", levels=tuple(levels), **job).setup()
    unit = normal(*setup.like.shape, seed=3)
    x = kd.start(setup.grid, setup.like, setup.path, x0=setup.x0, noise=kd.noise_from(lambda *level: unit))
    with torch.no_grad():
        found = setup.sampler(setup.denoiser, x, levels, cond=setup.cond)
    assert (expected - setup.x0).abs().max() > 0.1
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    if masked:
        kept = MASK[..., ::2, ::2].expand_as(found) == 0
        assert torch.equal(found[kept], setup.x0[kept])


def test_images_at_the_command(kdiff, folder):
    """Image and mask become latents, with preview and trajectory; the manifest replays all of them."""
    pixels = ((IMAGE[0] + 1) * 127.5).byte().movedim(0, -1).numpy()
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray((MASK[0, 0] * 255).byte().numpy()).save("mask.png")
    given = ["-p", "a", "-p", "b", "--guidance", 3, "--negative", "c", "--negative", "d", "--chunk", 1]
    given += ["--init", "photo.png", "--mask", "mask.png", "--strength", 0.6, "--steps", 3]
    files = ["-o", "x.npz", "--trajectory", "way.gif", "--preview", "now.png"]
    status, out, _ = kdiff("sample", f"diffusers:{folder('sd')}", *given, *files)
    assert (status, "wrote x.npz, way.gif (4 frames), now.png" in out) == (0, True)
    for file in ("x.npz", "way.gif"):
        assert kdiff("replay", file)[0] == 0
    status, out, _ = kdiff("sample", f"diffusers:{folder('sd')}", *given, "--dry-run")
    assert (status, "peak" in out) == (0, True)
    with Image.open("now.png") as image:
        assert image.size == (2 * 128 + 4, 128 + 2)


@pytest.mark.parametrize("guide", ["cfg", "cfg+perturbed_attention", "perp_neg"])
def test_chunks_lie_inside_of_guidance(guide):
    """In chunks each sample keeps its own prompt and its own negative one, of degraded branches too."""
    model = from_pipeline(tiny("sd"))
    given = {"prompt": ["a cat", "the sun", "a"], "negative": ["a dog", "b", "c"], "guide": guide, "steps": 2}
    whole, parts = kd.sample(model, 3, **given), kd.sample(model, 3, chunk=2, **given)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)
    sizes = []
    handle = model.network.model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    kd.sample(model, 3, chunk=2, **given)
    handle.remove()
    assert set(sizes) == {1, 2}
    setup = kd.SampleJob(model, 3, **given).setup()
    with pytest.raises(ParameterError, match="has 3 rows, in a call of 2 samples"):
        setup.sampler(setup.denoiser, setup.like, setup.grid, cond=setup.cond, chunk=2)


# -- degraded branches


def branches(kind):
    """A denoiser, a state, a level and conditions."""
    model = from_pipeline(tiny(kind), **SIZE.get(kind, {}))
    x, sigma = normal(2, *model.sample_shape), torch.tensor([0.4, 0.8])
    return model, x, sigma, model.encode(["a cat", "the sun"])


BRANCHES = [
    ("sd", "perturbed_attention", {}),
    ("sd", "perturbed_attention", {"layers": ["down_blocks", "up_blocks"]}),
    ("sd", "smoothed_energy", {}),
    ("sdxl", "smoothed_energy", {"blur": 1.0}),
    ("sd", "skip_layers", {}),
    ("sd3", "skip_layers", {"layers": [1]}),
    ("flux", "skip_layers", {"layers": [0]}),
    ("flux", "skip_layers", {"layers": [], "single_layers": [0]}),
    ("wan", "skip_layers", {"layers": [1]}),
]


@pytest.mark.parametrize(("kind", "name", "options"), BRANCHES)
def test_branches_differ_and_restore(kind, name, options):
    """A branch answers otherwise than the model, which is as before afterwards, and after an error too."""
    model, x, sigma, cond = branches(kind)
    before = model(x, sigma, **cond)
    degraded = model.degraded(name, **options)
    assert (degraded(x, sigma, **cond) - before).abs().max() > 1e-6
    assert torch.equal(model(x, sigma, **cond), before)
    with pytest.raises((RuntimeError, ValueError)):
        degraded(x, sigma, **{**cond, "encoder_hidden_states": normal(2, 3, 5)})
    assert torch.equal(model(x, sigma, **cond), before)
    assert not any("forward" in module.__dict__ for module in model.network.model.modules())


def test_skipped_layers_are_those_of_diffusers():
    """Skipping a block of Stable Diffusion 3 is what its transformer's own `skip_layers` does."""
    model, x, sigma, cond = branches("sd3")
    found = model.degraded("skip_layers", layers=[0, 1])(x, sigma, **cond)
    assert torch.allclose(found, model(x, sigma, skip_layers=[0, 1], **cond), atol=1e-6)


def test_blur():
    """Hardly blurred queries change nothing, widely blurred ones are their mean, on any size."""
    model = from_pipeline(tiny("sd"), height=12, width=20)
    x, sigma, cond = normal(1, 4, 6, 10), torch.tensor([0.8]), model.encode(["a cat"])
    layers = ["blocks", "mid_block"]
    plain = model(x, sigma, **cond)
    blurred = {
        blur: model.degraded("smoothed_energy", layers=layers, blur=blur)(x, sigma, **cond)
        for blur in (1e-3, 1.0, 1e4, float("inf"))
    }
    assert torch.allclose(blurred[1e-3], plain, atol=1e-6)
    assert torch.allclose(blurred[1e4], blurred[float("inf")], atol=1e-6)
    assert (blurred[1.0] - plain).abs().max() > 1e-7
    assert (blurred[1.0] - blurred[1e4]).abs().max() > 1e-7


def test_blurred_queries():
    """A blur keeps constants and sums weights of a Gaussian along rows and columns, each on its own."""
    blurred = _Smoothed(1.5, (12, 20))._blurred
    assert torch.allclose(blurred(torch.ones(2, 3 * 5, 4)), torch.ones(2, 3 * 5, 4))
    rows = torch.tensor([1.0, 0.0, 0.0])
    weights = torch.exp(-torch.tensor([0.0, 1.0, 4.0]) / 4.5)
    expected = torch.stack([weights[i] / weights[[abs(i - j) for j in range(3)]].sum() for i in range(3)])
    found = blurred(rows[:, None].expand(3, 5).reshape(1, 15, 1)).reshape(3, 5)
    assert torch.allclose(found, expected[:, None].expand(3, 5))


def test_perturbed_attention_by_hand():
    """Perturbed attention is what a model whose attention map is the identity computes."""
    model, x, sigma, cond = branches("sd")
    changed = copy.deepcopy(model.network.model)
    for name, module in changed.named_modules():
        if name.endswith("attn1") and "mid_block" in name:
            module.forward = lambda h, module=module, **more: module.to_out[0](module.to_v(h))
    expected = from_diffusers(changed, tiny("sd").scheduler)(x, sigma, **cond)
    assert torch.allclose(model.degraded("perturbed_attention")(x, sigma, **cond), expected, atol=1e-6)


# -- guidance, by name


@pytest.mark.parametrize(
    "guide",
    [
        "apg",
        "cfg+rescale",
        "cfg_zero",
        "tcfg",
        "fdg",
        "perp_neg",
        "cfg+perturbed_attention",
        "seg",
        "interval",
    ],
)
def test_guidance_by_name(folder, guide):
    """Guidance that a prompt and a name ask for makes images, and others than without."""
    job = {"prompt": "a cat", "sampler": "euler", "steps": 2, "negative": "a dog"}
    options = {"sigma_low": 0.5, "sigma_high": 1e4} if guide == "interval" else {}
    if guide == "seg":
        job.pop("negative")
    found = kd.sample(f"diffusers:{folder('sd')}", guide=guide, guide_options=options, **job)
    plain = kd.sample(f"diffusers:{folder('sd')}", prompt="a cat", sampler="euler", steps=2)
    assert bool(found.isfinite().all())
    assert (found - plain).abs().max() > 1e-6


def test_a_negative_prompt_of_perp_neg():
    """Perp-Neg leads away from the negative prompt, and compares with no text."""
    setup = kd.SampleJob(
        from_pipeline(tiny("sd")), prompt="a cat", negative="a dog", guide="perp_neg"
    ).setup()
    model, guidance = setup.model, setup.denoiser
    ((conditions, weight),) = guidance.negatives
    assert weight == 1
    for given, text in ((conditions, "a dog"), (guidance.uncond, None), (setup.cond, "a cat")):
        assert torch.equal(given["encoder_hidden_states"], model.encode([text])["encoder_hidden_states"])


# -- the command


def test_the_command_and_its_replay(kdiff, folder):
    """Prompt to picture at the command line, with a manifest that replays bit for bit."""
    status, out, _ = kdiff(
        "sample", "--model", f"diffusers:{folder('sd')}", "--prompt", "a cat", "--prompt", "the sun",
        "--negative", "a dog", "--guidance", 6, "--guide", "cfg+rescale", "--set", "guide.phi=0.5",
        "--steps", 3, "--height", 24, "--width", 16, "-o", "cat.png", "--trajectory", "way.png",
    )  # fmt: skip
    assert (status, "2 samples" in out) == (0, True)
    manifest = read_manifest("cat.png")
    assert (manifest["prompt"], manifest["negative"]) == (["a cat", "the sun"], "a dog")
    assert manifest["model"]["options"] == {"height": 24, "width": 16}
    with Image.open("cat.png") as image:
        assert image.height > image.width / 2  # two images of 24 by 16, side by side
    one = ["sample", f"diffusers:{folder('sd')}", "-p", "the sun", "--steps", 2, "-o", "sun.png"]
    assert kdiff(*one)[0] == 0
    expected = kd.sample(f"diffusers:{folder('sd')}", prompt="the sun", steps=2)[0].permute(1, 2, 0)
    with Image.open("sun.png") as image:  # the image itself
        pixels = np.asarray(image)
    assert np.abs(pixels - ((expected.numpy() + 1) * 127.5).clip(0, 255)).max() <= 0.51
    assert kdiff("replay", "cat.png")[0] == 0
    manifest["prompt"] = ["a dog", "the sun"]
    other = kd.SampleJob.from_manifest(json.loads(json.dumps(manifest))).setup()
    again = kd.SampleJob.from_manifest(read_manifest("cat.png")).setup()
    assert not torch.equal(other.run().x, again.run().x)


def test_other_weights_are_told(kdiff, tmp_path):
    """A replay with a part of the pipeline changed says that the model is not what it was."""
    pipe = stable_diffusion()
    pipe.save_pretrained(tmp_path / "model")
    assert kdiff("sample", "diffusers:model", "-p", "a", "--steps", 1, "-o", "a.npz")[0] == 0
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias += 1
    pipe.save_pretrained(tmp_path / "model")
    status, out, _ = kdiff("replay", "a.npz")
    assert (status, "the data of the model has changed" in out) == (1, True)


def test_arrays_and_videos(kdiff, folder):
    """An array holds what is decoded, of a video pipeline videos; a prompt may be repeated for samples."""
    model = f"diffusers:{folder('wan')}"
    size = ["--height", 16, "--width", 16, "--set", "model.frames=5", "--steps", 2]
    assert kdiff("sample", model, "-p", "a cat", "-n", 2, *size, "-o", "v.npz")[0] == 0
    with np.load("v.npz") as stored:
        assert stored["samples"].shape == (2, 3, 5, 16, 16)
    status, _, err = kdiff("sample", model, "-p", "a cat", *size, "-o", "v.png")
    assert (status, "no image" in err) == (2, True)


def test_pictures_without_text(kdiff, folder):
    """A pipeline without text is sampled by name, as any model."""
    assert kdiff("sample", f"diffusers:{folder('ddpm')}", "-n", 4, "--steps", 2, "-o", "a.png")[0] == 0
    assert kdiff("replay", "a.png")[0] == 0


# -- refusals


@pytest.mark.parametrize(
    ("kind", "args", "says"),
    [
        ("sd", ["--guidance", "6"], "needs a text: give prompt= (--prompt)"),
        ("sd", ["-p", "a", "-p", "b", "-n", "3"], "prompt: 2 given for n=3"),
        ("sd", ["-p", "a", "--negative", "b"], "without guidance"),
        ("sd", ["-p", "a", "--negative", "b", "--guide", "skip_layers"], "has no use for it"),
        ("sd", ["-p", "a", "--height", "15"], "height=15 must be a multiple of 2"),
        ("sd", ["-p", "a", "--set", "model.frames=5"], "makes images"),
        ("sd", ["-p", "a", "--set", "model.path=b"], "given by the name already"),
        ("sd", ["-p", "a", "--guide", "cfg+pag", "--set", "guide.scale=3"], "write 'cfg.scale' or"),
        ("sd", ["-p", "a", "--guide", "apg", "--set", "guide.phi=3"], "not of 'apg': apg takes scale"),
        ("sd", ["-p", "a", "--guide", "fdg", "--guidance", "3"], "has no scale"),
        ("sd", ["-p", "a", "--guide", "nonsense"], "there is no guidance 'nonsense'"),
        ("sd3", ["-p", "a", "--guide", "pag"], "no layer has 'mid_block'"),
        ("sd3", ["-p", "a", "--guide", "slg"], "the blocks are 0 to 2"),
        ("ddpm", ["-p", "a"], "the model takes no text"),
        ("ddpm", ["--guidance", "3"], "without a label"),
        ("ddpm", ["--height", "16"], "the size that the model was made for"),
    ],
)  # fmt: skip
def test_refusals(kdiff, folder, kind, args, says):
    """What does not fit is refused before the model runs, with what would be right."""
    status, _, err = kdiff("sample", f"diffusers:{folder(kind)}", *args, "--steps", 2)
    assert (status, says in err) == (2, True), err


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (["--model", "diffusers:/no/such/folder"], "there is no such folder"),
        (["--model", "diffusers:."], "has no model_index.json"),
        (["diffusers"], "diffusers:PATH"),
        (["digits", "--model", "digits"], "two models are given"),
        (["digits", "--prompt", "a"], "the model takes no text"),
        (["nonsense:PATH"], "there is no denoiser 'nonsense:PATH'"),
    ],
)
def test_wrong_models(kdiff, model, says):
    """A model that is not there is refused by what is missing."""
    status, _, err = kdiff("sample", *model)
    assert (status, says in err) == (2, True), err


def test_weights_are_not_unpickled(tmp_path):
    """A pipeline whose weights are pickled is refused."""
    tiny("ddpm").save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ParameterError, match="cannot load this pipeline"):
        kd.get_denoiser(f"diffusers:{tmp_path}")


def test_a_part_may_be_left_out(tmp_path, folder):
    """Stable Diffusion 3 runs without its largest text encoder."""
    name, left_out = f"diffusers:{folder('sd3')}", ["text_encoder_3", "tokenizer_3"]
    model = kd.get_denoiser(name, without=left_out)
    assert model.pipe.text_encoder_3 is None
    whole = kd.get_denoiser(name).encode(["a cat"])["encoder_hidden_states"]
    partial = model.encode(["a cat"])["encoder_hidden_states"]
    assert not torch.equal(whole[:, -256:], partial[:, -256:])
    assert torch.equal(whole[:, :8], partial[:, :8])


def test_half_precision(folder):
    """The weights' dtype is an option, and its results are near those of float32."""
    found = [
        kd.get_denoiser(f"diffusers:{folder('flux')}", dtype=d, height=16, width=16)
        for d in (None, "bfloat16")
    ]
    assert found[1].dtype == torch.bfloat16
    images = [kd.sample(model, prompt="a cat", steps=2).float() for model in found]
    assert 0 < (images[0] - images[1]).abs().max() < 0.1


def test_other_models_are_refused():
    """A model that takes more than the state, or that kdiff does not know, is refused by name."""
    with pytest.raises(CapabilityError, match="takes 9 channels and returns 4"):
        from_diffusers(unet(in_channels=9), hf.DDIMScheduler(**BETAS))
    with pytest.raises(CapabilityError, match="Linear: kdiff wraps 'UNet2DModel'"):
        from_diffusers(torch.nn.Linear(1, 1), hf.DDIMScheduler(**BETAS))
    pipe = stable_diffusion_xl()
    pipe.unet = unet(
        cross_attention_dim=16, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48,
    )  # fmt: skip
    with pytest.raises(CapabilityError, match="a refiner's"):
        from_pipeline(pipe)
    pipe = stable_diffusion()
    parts = {
        name: pipe.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    }
    other = hf.StableDiffusionImg2ImgPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    with pytest.raises(CapabilityError, match="KDiffScheduler"):
        from_pipeline(other)


def test_without_diffusers(folder, monkeypatch):
    """Where diffusers is not installed, the refusal has the command that installs it."""
    name = f"diffusers:{folder('ddpm')}"
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(kd.errors.MissingExtraError, match=r"pip install 'kdiff-core\[diffusers\]'"):
        kd.get_denoiser(name)
