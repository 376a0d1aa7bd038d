"""`KDiffScheduler` in diffusers' pipelines of flow models: SD3, Flux, and a video pipeline, Wan."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings

import pytest
import torch

import kdiff_core as kd

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers as hf
    from tiny_pipelines import images, normal, pipeline, seeded, transformer

    from kdiff_sd.diffusers import KDiffScheduler

# What diffusers warns of concerns other libraries.
pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = ("sd3", "sd3 img2img", "sd3 inpaint", "flux", "flux img2img", "flux inpaint")
SOLVER = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
UNI_PC = {"sampler": "uni_pc", "sampler_options": {"solver_order": 2, "variant": "bh2"}}
SHIFT, FLOW_SHIFT = {"shift": 3.0}, {**SOLVER, "flow_shift": 3.0}
DYNAMIC = {**SOLVER, "use_dynamic_shifting": True}
EULER, HEUN = hf.FlowMatchEulerDiscreteScheduler, hf.FlowMatchHeunDiscreteScheduler
DPM, UNI = hf.DPMSolverMultistepScheduler, hf.UniPCMultistepScheduler
ALIKE = {
    "euler, shift": (EULER, SHIFT, {"sampler": "euler"}, (*IMAGES, "wan")),
    "euler, dynamic": (EULER, {"use_dynamic_shifting": True}, {"sampler": "euler"}, IMAGES),
    "euler, terminal": (EULER, {"shift_terminal": 0.1}, {"sampler": "euler"}, (*IMAGES, "wan")),
    "euler, karras": (EULER, {"use_karras_sigmas": True}, {"sampler": "euler"}, IMAGES),
    "heun": (HEUN, SHIFT, {"sampler": "heun"}, ("sd3", "sd3 img2img", "sd3 inpaint", "wan")),
    "dpmpp_2m": (DPM, FLOW_SHIFT, {"sampler": "dpmpp_2m"}, ("sd3", "wan")),
    "dpmpp_2m, dynamic": (DPM, DYNAMIC, {"sampler": "dpmpp_2m"}, ("sd3", "flux")),
    "uni_pc": (UNI, FLOW_SHIFT, UNI_PC, ("sd3", "flux", "wan")),
    "uni_pc, dynamic": (UNI, DYNAMIC, UNI_PC, ("sd3", "flux")),
    "uni_pc, terminal": (UNI, {**FLOW_SHIFT, "shift_terminal": 0.1}, UNI_PC, ("sd3", "wan")),
}
PAIRS = [(name, kind) for name, (*_, kinds) in ALIKE.items() for kind in kinds]


def exactly(own):
    """Let a scheduler of diffusers tell the model the timestep of its level, which it cuts to an integer."""
    planned = own.set_timesteps

    @functools.wraps(planned)
    def set_timesteps(*args, **kwargs):
        planned(*args, **kwargs)
        if not own.timesteps.is_floating_point():
            own.timesteps = own.sigmas[:-1] * own.config.num_train_timesteps

    own.set_timesteps = set_timesteps
    return own


def scheduler_of(own=None, **options):
    return KDiffScheduler.from_config((own or EULER(shift=3.0)).config, **options)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_images_are_those_of_diffusers(name, kind):
    """Made alike, of one seed, they are those of diffusers' own scheduler, told whole levels, to 1e-4."""
    cls, config, options, _ = ALIKE[name]
    own = cls(**config)
    theirs = images(pipeline(kind, exactly(own)), kind)
    ours = images(pipeline(kind, scheduler_of(own, **options)), kind)
    assert theirs.std() > 0.01
    assert (theirs - ours).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("own", "options", "theirs", "ours"),
    [
        (DPM(**FLOW_SHIFT), {"sampler": "dpmpp_2m"}, 5.2e-3, 9e-4),
        (UNI(**FLOW_SHIFT), UNI_PC, 4.2e-3, 2e-4),
    ],
    ids=["dpmpp_2m", "uni_pc"],
)
def test_a_timestep_cut_to_an_integer_costs_accuracy(own, options, theirs, ours):
    """On Gaussian data, whose flow is known, diffusers' error stays where kdiff's goes on falling."""
    mean, std = 1.0, 2.0

    def spread(level):
        return ((1 - level) ** 2 * std**2 + level**2) ** 0.5

    def model(x, t):
        level = float(t) / 1000
        denoised = mean + (1 - level) * std**2 / spread(level) ** 2 * (x - (1 - level) * mean)
        return (x - denoised) / level

    errors = []
    unit = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(9, 1)
    for scheduler in (copy.deepcopy(own), scheduler_of(own, **options), exactly(copy.deepcopy(own))):
        scheduler.set_timesteps(200)
        level = float(scheduler.sigmas[0])
        x = (1 - level) * mean + spread(level) * unit
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t), t, x, return_dict=False)[0]
        errors.append(float((x - mean - std * unit).abs().max()))
    assert errors[0] > theirs
    assert errors[1] < ours
    assert errors[2] == pytest.approx(errors[1], rel=0.05)


@pytest.mark.parametrize(
    "own", [EULER(shift=3.0, stochastic_sampling=True), hf.FlowMatchLCMScheduler(shift=3.0)]
)
def test_fresh_noise_in_each_step_is_diffusers(own):
    """Flow's stochastic Euler and its LCM are the sampler "lcm", with the noise of the same generator."""
    finals, x = [], normal(2, 4, 8, 8)
    for scheduler in (own, scheduler_of(own, sampler="lcm")):
        scheduler.set_timesteps(6)
        generator, state = seeded(7), x
        for call, t in enumerate(scheduler.timesteps):
            out = normal(2, 4, 8, 8, seed=100 + call)
            state = scheduler.step(out, t, state, generator=generator, return_dict=False)[0]
        finals.append(state)
    assert torch.allclose(*finals, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["euler", "heun", "euler_ancestral", "dpmpp_2m", "dpmpp_sde", "uni_pc", "restart", "rk4", "lms"]
)
def test_samplers_are_the_engines_on_flow(name):
    """In a flow pipeline a sampler gives what the engine does with the same network, noise and levels."""
    pipe = pipeline("sd3", scheduler_of(sampler=name, seed=3))
    net = copy.deepcopy(transformer("sd3")).double()
    pipe.transformer, latents = net, normal(2, 16, 8, 8, seed=1).double()
    embeds, pooled = normal(2, 4, 8).double(), normal(2, 8, seed=2).double()
    call = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled, "guidance_scale": 1.0}
    call |= {"negative_prompt_embeds": None, "negative_pooled_prompt_embeds": None}
    found = images(pipe, "sd3", 4, latents=latents, generator=None, output_type="latent", **call)

    def denoiser(x, sigma):
        with torch.no_grad():
            velocity = net(x, embeds, pooled, 1000 * sigma).sample
        return x - sigma.reshape(-1, 1, 1, 1) * velocity

    denoiser.path = "flow"
    grid = kd.get_schedule("diffusers:flow_linspace")(4, process=kd.get_process("sd3"))
    wanted = kd.get_sampler(name)(denoiser, latents, grid, seed=3, process=kd.get_process("sd3"))
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [*IMAGES, "wan"])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_sde"])
def test_equal_seeds_are_equal_images_where_no_generator_is_handed_over(kind, sampler):
    """Flow pipelines hand no generator to a step; the noise follows the first state, and so the seed."""
    pipe = pipeline(kind, scheduler_of(sampler=sampler))
    first = images(pipe, kind)
    state = torch.random.get_rng_state()
    assert torch.equal(images(pipeline(kind, scheduler_of(sampler=sampler)), kind), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(images(pipe, kind, seed=1), first)
    quiet = pipeline(kind, scheduler_of(sampler=sampler, sampler_options={"s_noise": 0.0}))
    assert not torch.allclose(images(quiet, kind), first, atol=1e-3)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_an_image_does_not_depend_on_its_batch(kind):
    """With a generator for each image, a batch of two is two batches of one, stochastic samplers too."""
    pipe = pipeline(kind, scheduler_of(sampler="euler_ancestral"))
    own = {"prompt_embeds": normal(1, 4, 8, seed=5), "pooled_prompt_embeds": normal(1, 8, seed=7)}
    if kind == "sd3":
        own |= {"negative_prompt_embeds": normal(1, 4, 8, seed=6)}
        own |= {"negative_pooled_prompt_embeds": normal(1, 8, seed=8)}
    two = {key: value.repeat(2, *[1] * (value.ndim - 1)) for key, value in own.items()}
    pair = images(pipe, kind, generator=lambda: [seeded(1), seeded(2)], **two)
    for k in range(2):
        alone = images(pipe, kind, generator=[seeded(k + 1)], **own)
        assert torch.allclose(alone, pair[k : k + 1], atol=1e-4)
    assert not torch.allclose(pair[0], pair[1], atol=1e-2)


@pytest.mark.parametrize("kind", ["sd", "flux", "wan"])
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_ancestral", "heun"])
def test_a_run_inside_another_changes_neither(kind, sampler):
    """A pipeline run from the callback of another of its class, on the same networks: both as if alone."""
    own = hf.EulerDiscreteScheduler() if kind == "sd" else EULER(shift=3.0)
    outer, inner = (pipeline(kind, scheduler_of(own, sampler=sampler)) for _ in range(2))
    alone, found = (images(outer, kind, 4), images(inner, kind, 3, seed=1)), []

    def run_the_other(pipe, step, timestep, state):
        found.append(images(inner, kind, 3, seed=1))
        return state

    assert torch.equal(images(outer, kind, 4, callback_on_step_end=run_the_other), alone[0])
    assert len(found) >= 4
    assert all(torch.equal(image, alone[1]) for image in found)


@pytest.mark.parametrize(("kind", "sampler"), [("sd3 img2img", "heun"), ("flux inpaint", "dpmpp_2m")])
def test_image_to_image_begins_inside_the_run(kind, sampler):
    """The slice of timesteps and the begin index are whole steps, and noise has the level of the first."""
    pipe = pipeline(kind, scheduler_of(sampler=sampler))
    seen, scale_noise = [], pipe.scheduler.scale_noise
    pipe.scheduler.scale_noise = lambda x, t, noise: (
        seen.append(float(t.reshape(-1)[0])) or scale_noise(x, t, noise)
    )
    images(pipe, kind, 10, strength=0.5)
    order = pipe.scheduler.order
    assert pipe.scheduler.begin_index == 5 * order
    assert pipe.scheduler.step_index == len(pipe.scheduler.timesteps)
    assert seen[0] == float(pipe.scheduler.timesteps[5 * order])
    level, noise = float(pipe.scheduler.sigmas[5 * order]), torch.ones(1, 4, 2, 2)
    found = scale_noise(torch.zeros(1, 4, 2, 2), torch.tensor([seen[0]]), noise)
    assert torch.allclose(found, level * noise, rtol=1e-6)


def test_it_is_saved_and_loaded_with_a_video_pipeline(tmp_path):
    """A pipeline of flow is written with its kdiff scheduler, and read again with it."""
    pipe = pipeline(
        "wan", scheduler_of(UNI(**FLOW_SHIFT), sampler="er_sde", sampler_options={"solver_order": 2})
    )
    pipe.save_pretrained(tmp_path)
    parts = dict.fromkeys(("text_encoder", "tokenizer"))
    again = hf.WanPipeline.from_pretrained(tmp_path, **parts)
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is KDiffScheduler
    assert again.scheduler.config.flow_shift == 3.0
    assert torch.equal(images(again, "wan"), images(pipe, "wan"))


def test_modular_pipelines_step_with_it():
    """The loop of a modular Flux pipeline gives what the pipeline itself does."""
    from diffusers.modular_pipelines.flux.denoise import FluxLoopAfterDenoiser

    finals = []
    for modular in (False, True):
        scheduler, x = scheduler_of(sampler="dpmpp_2m"), normal(1, 16, 16)
        scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
        assert len(scheduler.timesteps) == 4 * scheduler.order
        for call, t in enumerate(scheduler.timesteps):
            out = normal(1, 16, 16, seed=100 + call)
            if modular:
                state = hf.modular_pipelines.modular_pipeline.BlockState(latents=x, noise_pred=out)
                parts = type("Parts", (), {"scheduler": scheduler})
                _, state = FluxLoopAfterDenoiser()(parts, state, i=call, t=t)
                x = state.latents
            else:
                x = scheduler.step(model_output=out, timestep=t, sample=x).prev_sample
        finals.append(x)
    assert torch.equal(*finals)


def test_what_pipelines_look_for_is_in_the_signatures():
    """Parameters have the names that pipelines inspect; to a ``**kwargs`` they would hand nothing."""
    planned = inspect.signature(KDiffScheduler.set_timesteps).parameters
    stepped = inspect.signature(KDiffScheduler.step).parameters
    assert {"num_inference_steps", "device", "timesteps", "sigmas", "mu"} <= planned.keys()
    assert [*stepped][1:4] == ["model_output", "timestep", "sample"]
    assert {"generator", "return_dict"} <= stepped.keys()
    assert not {p.kind for p in (*planned.values(), *stepped.values())} & {inspect.Parameter.VAR_KEYWORD}
    scheduler = scheduler_of()
    scheduler.set_timesteps(4)
    assert scheduler.timesteps[0].expand(2).shape == (2,)
    assert scheduler.config.shift == scheduler.config.get("shift") == 3.0
    assert scheduler.config.get("base_image_seq_len", None) == 256
