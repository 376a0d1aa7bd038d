"""`KDiffScheduler` in diffusers' pipelines: models of eps, v and x0, and the scheduler by itself."""

from __future__ import annotations

import copy
import json
import warnings

import pytest
import torch

import kdiff_core as kd
from kdiff_core.errors import CapabilityError, ParameterError

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers as hf
    from tiny_pipelines import BETAS, both, images, normal, pipeline, seeded, unet

    from kdiff_sd.diffusers import KDiffScheduler

# What diffusers warns of concerns other libraries.
pytestmark = pytest.mark.filterwarnings("ignore")
ALL = {entry.name: kd.get_sampler(entry.name) for entry in kd.list_samplers()}
DRIVEN = [name for name, sampler in ALL.items() if sampler.linear and not sampler.needs]


def uni_pc(order):
    return {"sampler": "uni_pc", "sampler_options": {"solver_order": order, "variant": "bh2"}}


SIGMA = {"initial_noise": "sigma"}
KARRAS = {"use_karras_sigmas": True}
ALIKE = {
    "euler": (hf.EulerDiscreteScheduler, {}, {"sampler": "euler", **SIGMA}),
    "euler, leading": (hf.EulerDiscreteScheduler, {"timestep_spacing": "leading"}, {"sampler": "euler"}),
    "euler, karras": (hf.EulerDiscreteScheduler, KARRAS, {"sampler": "euler", **SIGMA}),
    "euler, v": (
        hf.EulerDiscreteScheduler, {"prediction_type": "v_prediction"}, {"sampler": "euler", **SIGMA}
    ),
    "euler, log sigma": (
        hf.EulerDiscreteScheduler,
        {"timestep_type": "continuous", "prediction_type": "v_prediction", "sigma_max": 700.0,
         "sigma_min": 0.002, **KARRAS},
        {"sampler": "euler", **SIGMA},
    ),
    "heun": (hf.HeunDiscreteScheduler, {}, {"sampler": "heun", **SIGMA}),
    "dpm2": (hf.KDPM2DiscreteScheduler, {}, {"sampler": "dpm2", **SIGMA}),
    "euler_ancestral": (hf.EulerAncestralDiscreteScheduler, {}, {"sampler": "euler_ancestral", **SIGMA}),
    "dpmpp_2m": (hf.DPMSolverMultistepScheduler, {}, {"sampler": "dpmpp_2m"}),
    "dpmpp_2m, karras": (
        hf.DPMSolverMultistepScheduler, KARRAS, {"sampler": "dpmpp_2m", "quantised": True}
    ),
    "dpmpp_2m_sde": (
        hf.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, {"sampler": "dpmpp_2m_sde"}
    ),
    "ddim": (hf.DDIMScheduler, {"clip_sample": False}, {"sampler": "ddim"}),
    "ddim, x0": (hf.DDIMScheduler, {"clip_sample": False, "prediction_type": "sample"}, {"sampler": "ddim"}),
    "uni_pc 2": (hf.UniPCMultistepScheduler, {}, uni_pc(2)),
    "uni_pc 3": (hf.UniPCMultistepScheduler, {"solver_order": 3}, uni_pc(3)),
}  # fmt: skip


# At the stages of dpm2 diffusers puts the noise of the step's end, not of the stage, on what is known.
KINDS = ("sd", "sd img2img", "sd inpaint", "sdxl", "sdxl img2img", "sdxl inpaint")
PAIRS = [(name, kind) for name in ALIKE for kind in KINDS if name != "dpm2" or "inpaint" not in kind]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_images_are_those_of_diffusers(name, kind):
    """Made alike, of one seed, images are those of diffusers' own scheduler to 1e-4."""
    cls, config, options = ALIKE[name]
    theirs, ours = both(kind, cls(**BETAS, **config), options)
    assert (theirs - ours).abs().max() < 1e-4


def test_a_refiner_goes_on_where_the_base_stopped():
    """Of two pipelines that share a run, the second goes on with the state that the first hands over."""
    own, found = hf.DPMSolverMultistepScheduler(**BETAS), []
    for scheduler in (own, KDiffScheduler.from_config(own.config, sampler="dpmpp_2m")):
        base, refiner = pipeline("sdxl", scheduler), pipeline("sdxl img2img", scheduler)
        half = images(base, "sdxl", 8, denoising_end=0.5, output_type="latent")
        found.append(images(refiner, "sdxl img2img", 8, image=half, denoising_start=0.5))
    assert (found[0] - found[1]).abs().max() < 1e-4
    assert found[0].std() > 0.01


@pytest.mark.parametrize(
    "levels",
    [{"timesteps": [981, 741, 500, 211, 31]}, {"sigmas": [11.0, 6.0, 2.5, 1.0, 0.3, 0.0]}],
    ids=["timesteps", "sigmas"],
)
def test_levels_from_the_caller_are_those_of_diffusers(levels):
    """A pipeline hands over timesteps or levels that its caller chose, by the names that it looks for."""
    own = hf.EulerDiscreteScheduler(**BETAS)
    theirs, ours = both("sd", own, {"sampler": "euler", **SIGMA}, **levels)
    assert (theirs - ours).abs().max() < 1e-4


def test_one_generator_for_each_image():
    """A list of generators gives each image its own noise, that of diffusers and of the image alone."""
    own = hf.EulerAncestralDiscreteScheduler(**BETAS)
    options = {"sampler": "euler_ancestral", **SIGMA}
    theirs, ours = both("sd", own, options, batch=2, generator=lambda: [seeded(1), seeded(2)])
    assert (theirs - ours).abs().max() < 1e-4
    first = normal(2, 4, 8, seed=5)[:1], normal(2, 4, 8, seed=6)[:1]
    pipe = pipeline("sd", KDiffScheduler.from_config(own.config, **options))
    embeds = {"prompt_embeds": first[0], "negative_prompt_embeds": first[1]}
    assert torch.allclose(images(pipe, "sd", generator=[seeded(1)], **embeds), ours[:1], atol=1e-4)


@pytest.mark.parametrize("name", DRIVEN)
def test_every_sampler_is_the_engines(name):
    """In a pipeline each sampler gives what the engine does with the same network, noise and levels."""
    options = {"sampler": name, "schedule": "karras", "seed": 3}
    scheduler = KDiffScheduler.from_config(hf.EulerDiscreteScheduler(**BETAS).config, **options)
    pipe, net = pipeline("sd", scheduler), copy.deepcopy(unet()).double()
    pipe.unet, embeds, latents = net, normal(2, 4, 8).double(), normal(2, 4, 8, 8, seed=1).double()
    process = kd.get_process("sd")
    steps = 2 if kd.plan(name, [2.0, 1.0, 0.0]).evaluations > 8 else 4
    call = {"prompt_embeds": embeds, "negative_prompt_embeds": embeds, "latents": latents}
    call |= {"guidance_scale": 1.0, "generator": None, "output_type": "latent"}
    found = images(pipe, "sd", steps, **call)
    grid = kd.get_schedule("karras")(steps, process=process)

    def denoiser(x, sigma):
        level = float(sigma[0])
        told = torch.tensor(min(max(process.timestep(level), 0.0), 999.0))
        with torch.no_grad():
            eps = net(x / (1 + level**2) ** 0.5, told, embeds).sample
        return x - level * eps

    x = latents * (1 + grid[0] ** 2) ** 0.5
    wanted = ALL[name](denoiser, x, grid, seed=3, process=process)
    # Where a sampler ends above 0 the pipeline's state is still scaled.
    wanted = wanted / (1 + ALL[name].plan(grid, "ve", process).levels[-1] ** 2) ** 0.5
    assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("own", [hf.EulerDiscreteScheduler(**BETAS), hf.FlowMatchEulerDiscreteScheduler()])
@pytest.mark.parametrize("name", [entry.name for entry in kd.list_schedules()])
def test_every_schedule_gives_a_pipeline_its_levels(name, own):
    """A schedule is the same in a pipeline, on betas and on flow; the model is told each level's timestep."""
    needed = {
        "custom": {"levels": [0.9, 0.5, 0.2, 0.0]}, "joined": {"at": 0.5}, "gits": {}, "ays": {},
        "rescaled": {"schedule": "karras"},
    }  # fmt: skip
    options = needed.get(name, {})
    scheduler = KDiffScheduler.from_config(
        own.config, sampler="euler", schedule=name, schedule_options=options
    )
    process = kd.get_process("flow" if "shift" in own.config else "sd")
    try:
        grid = kd.get_schedule(name, **options)(3, process=process)
        kd.plan("euler", grid, process.path)
    except kd.errors.KdiffError as error:
        with pytest.raises(type(error)):
            scheduler.set_timesteps(3)
        return
    scheduler.set_timesteps(3)
    assert torch.equal(scheduler.sigmas, torch.tensor(list(grid)))
    ends = (0.0, 1000.0 if process.path == "flow" else 999.0)
    told = [1000 * s if process.path == "flow" else process.timestep(s) for s in grid[:-1]]
    told = [min(max(t, ends[0]), ends[1]) for t in told]
    assert scheduler.timesteps.tolist() == pytest.approx(told, rel=1e-6)


# -- a scheduler by itself

EULER = hf.EulerDiscreteScheduler(**BETAS)


def scheduler_of(own=EULER, **options):
    return KDiffScheduler.from_config(own.config, **options)


def outputs(call, like):
    """What stands for a model, independent of the state."""
    return normal(*like.shape, seed=100 + call).to(like)


def loop(scheduler, x, **step):
    """Yield after each step; the last state is yielded last."""
    for call, t in enumerate(scheduler.timesteps):
        x = scheduler.step(outputs(call, x), t, x, return_dict=False, **step)[0]
        yield x


def last(states):
    *_, final = states
    return final


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "dpmpp_sde", "restart", "uni_pc"])
def test_runs_share_no_state(sampler):
    """Runs stepped in turn, and runs one after another in other shapes, are what each is alone."""
    schedulers = [scheduler_of(sampler=sampler) for _ in range(2)]
    for scheduler in schedulers:
        scheduler.set_timesteps(6)
    starts = [normal(1, 4, 8, 8, seed=s) for s in (1, 2)]
    pairs = list(zip(*(loop(s, x) for s, x in zip(schedulers, starts, strict=True)), strict=True))
    for scheduler, start, final in zip(schedulers[::-1], starts, pairs[-1], strict=True):
        half_done = loop(scheduler, normal(2, 4, 4, 4, seed=9))
        scheduler.set_timesteps(3)
        next(half_done)
        scheduler.set_timesteps(6)
        assert torch.equal(last(loop(scheduler, start)), final)


def test_without_a_seed_the_noise_follows_the_sample():
    """Without seed and generator a sample's noise depends on its own first state, not on its place."""
    finals = []
    for order in ([0, 1], [1, 0]):
        scheduler = scheduler_of(sampler="euler_ancestral")
        scheduler.set_timesteps(4)
        x = normal(2, 4, 8, 8)[order]
        for t in scheduler.timesteps:
            x = scheduler.step(torch.zeros_like(x), t, x).prev_sample
        finals.append(x)
    assert torch.equal(finals[0], finals[1].flip(0))


def test_a_seed_of_its_own():
    """With a seed, runs without a generator have the noise of that seed, whatever they start from."""
    finals = []
    for seed in (1, 1, 2):
        scheduler = scheduler_of(sampler="euler_ancestral", seed=seed)
        scheduler.set_timesteps(4)
        finals.append(last(loop(scheduler, normal(1, 4, 8, 8))))
    assert torch.equal(finals[0], finals[1])
    assert not torch.equal(finals[0], finals[2])


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "euler_ancestral"])
def test_states_are_kept_in_float32(sampler):
    """In half precision the states between the steps are not rounded: only what is handed out is."""
    finals = {}
    for dtype in (torch.float32, torch.float16):
        scheduler = scheduler_of(sampler=sampler, seed=0)
        scheduler.set_timesteps(30)
        x, start = None, normal(1, 4, 8, 8).half().to(dtype)
        for call, t in enumerate(scheduler.timesteps):
            out = outputs(call, start.float()).half().to(dtype)
            x = scheduler.step(out, t, start if x is None else x).prev_sample
            assert x.dtype == dtype
        finals[dtype] = x
    assert torch.equal(finals[torch.float32].half(), finals[torch.float16])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_edits_between_the_steps_are_taken_over(dtype):
    """A state that the pipeline replaced, or wrote into, is the one that the next step starts from."""
    finals = []
    for edit in (None, "new", "in place", "no grad"):
        scheduler = scheduler_of(sampler="euler")
        scheduler.set_timesteps(4)
        x = normal(1, 4, 8, 8).to(dtype)
        with torch.inference_mode(edit == "no grad"):
            for call, t in enumerate(scheduler.timesteps):
                x = scheduler.step(outputs(call, x.float()).to(dtype), t, x).prev_sample
                if call == 1 and edit:
                    x = x + 1 if edit == "new" else x.add_(1)
        finals.append(x)
    plain, *edited = finals
    assert not torch.allclose(edited[0], plain, atol=0.1)
    assert torch.equal(edited[0], edited[1])
    assert torch.equal(edited[0], edited[2])


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2), ("dpm2", 2), ("rk4", 4)])
def test_pipelines_count_steps_by_the_order(sampler, order):
    """The progress bar of a pipeline comes to its end, and one strength leaves one share of the steps."""
    pipe = pipeline("sd img2img", scheduler_of(sampler=sampler))
    counts = []

    class Bar:
        n = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            counts.append((self.total, self.n))

        def update(self):
            self.n += 1

    def progress_bar(total):
        bar = Bar()
        bar.total = total
        return bar

    pipe.progress_bar = progress_bar
    images(pipe, "sd img2img", 10, strength=0.5)
    assert pipe.scheduler.order == order
    assert pipe.scheduler.begin_index == 5 * order
    assert pipe.scheduler.step_index == len(pipe.scheduler.timesteps)
    assert counts == [(5, 5)]


def test_churn_begins_with_noise_of_the_raised_level():
    """A run with churn begins at the level that it is raised to, which the model is told."""
    churned = scheduler_of(sampler="euler", sampler_options={"s_churn": 2.0}, schedule="karras", **SIGMA)
    plain = scheduler_of(sampler="euler", schedule="karras", **SIGMA)
    for scheduler in (churned, plain):
        scheduler.set_timesteps(10)
    assert float(churned.sigmas[0]) == pytest.approx(1.2 * float(plain.sigmas[0]), rel=1e-6)
    sigma = float(churned.sigmas[0])
    assert churned.init_noise_sigma == pytest.approx(sigma / (1 + sigma**2) ** 0.5)
    assert torch.allclose(churned.sigmas[1:-1], 1.2 * plain.sigmas[1:-1])
    assert (churned.timesteps[1:] > plain.timesteps[1:]).all()
    assert last(loop(churned, normal(1, 4, 8, 8))).isfinite().all()


def test_what_is_not_run_is_refused_before_the_model_is_called():
    """Adaptive and CFG++ samplers, unknown keys, runs that are over or not planned, calls inside a step."""
    for sampler in ("dpm_adaptive", "euler_cfg_pp"):
        with pytest.raises(CapabilityError, match="use another sampler"):
            scheduler_of(sampler=sampler)
    with pytest.raises(ParameterError, match="smapler"):
        scheduler_of(smapler="euler")
    with pytest.raises(ParameterError, match="names"):
        scheduler_of(sampler=kd.get_sampler("euler"))
    with pytest.raises(ParameterError, match="no schedule"):
        scheduler_of(schedule_options={"rho": 5.0})
    scheduler, x = scheduler_of(sampler="heun"), normal(1, 4, 8, 8)
    with pytest.raises(ParameterError, match="set_timesteps"):
        scheduler.step(x, 1, x)
    scheduler.set_timesteps(2)
    with pytest.raises(CapabilityError, match="inside a step"):
        scheduler.set_begin_index(1)
    last(loop(scheduler, x))
    with pytest.raises(ParameterError, match="at its end"):
        scheduler.step(x, scheduler.timesteps[0], x)


def test_a_run_that_begins_in_the_middle_finds_its_place():
    """Without a begin index the first timestep says where a run begins."""
    finals = []
    for say in (True, False):
        scheduler = scheduler_of(sampler="heun")
        scheduler.set_timesteps(5)
        if say:
            scheduler.set_begin_index(4)
        x = normal(1, 4, 8, 8)
        for call, t in enumerate(scheduler.timesteps[4:]):
            x = scheduler.step(outputs(call, x), t, x).prev_sample
        finals.append(x)
    assert torch.equal(*finals)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_on_data_is_that_of_diffusers(prediction):
    """`add_noise` and `get_velocity`, with and without a run, are DDPM's; `scale_noise` is flow's."""
    own, scheduler = hf.DDPMScheduler(**BETAS), scheduler_of(hf.DDPMScheduler(**BETAS), sampler="euler")
    x, noise, t = normal(3, 4, 8, 8), normal(3, 4, 8, 8, seed=1), torch.tensor([0, 500, 999])
    for steps in (0, 10):
        if steps:
            scheduler.set_timesteps(steps)
        assert torch.allclose(scheduler.add_noise(x, noise, t), own.add_noise(x, noise, t), atol=1e-5)
        assert torch.allclose(scheduler.get_velocity(x, noise, t), own.get_velocity(x, noise, t), atol=1e-5)
    flow = scheduler_of(hf.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), sampler="euler")
    found = flow.scale_noise(x, torch.tensor([250.0]), noise)
    assert torch.allclose(found, 0.75 * x + 0.25 * noise, atol=1e-6)
    assert torch.equal(flow.get_velocity(x, noise, t), noise - x)


def test_a_rounded_timestep_keeps_its_level():
    """Noise for image to image has the level of the run's step, though the model is told a whole number."""
    scheduler = scheduler_of(sampler="euler", schedule="karras", quantised=True)
    scheduler.set_timesteps(7)
    assert scheduler.timesteps.dtype == torch.int64
    x, noise = torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
    sigma = scheduler.sigmas[3]
    found = scheduler.add_noise(x, noise, scheduler.timesteps[3:4])
    assert torch.allclose(found, noise * sigma / (1 + sigma**2) ** 0.5, rtol=1e-6)


def test_it_is_saved_and_loaded_with_its_pipeline(tmp_path):
    """A pipeline is loaded with its kdiff scheduler; from its config diffusers' own can be made again."""
    options = {"sampler": "dpmpp_2m", "schedule": "karras", "sampler_options": {"solver_type": "heun"}}
    own = hf.EulerDiscreteScheduler(**BETAS, prediction_type="v_prediction")
    pipe = pipeline("sd", scheduler_of(own, **options))
    pipe.save_pretrained(tmp_path)
    parts = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = hf.StableDiffusionPipeline.from_pretrained(tmp_path, **parts)
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is KDiffScheduler
    assert torch.equal(images(again, "sd"), images(pipe, "sd"))
    index = json.loads((tmp_path / "model_index.json").read_text(encoding="utf-8"))
    assert index["scheduler"] == ["kdiff_sd.diffusers", "KDiffScheduler"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = hf.StableDiffusionPipeline.from_pretrained(tmp_path, **parts, scheduler=pipe.scheduler)
    assert given.scheduler is pipe.scheduler
    back = hf.EulerDiscreteScheduler.from_config(again.scheduler.config)
    assert {key: back.config[key] for key in own.config if key[0] != "_"} == {
        key: value for key, value in own.config.items() if key[0] != "_"
    }
    ddim = hf.DDIMScheduler(**BETAS)
    for config in (ddim.config, scheduler_of(ddim).config):  # a default that DDIM did not choose is no choice
        assert hf.EulerDiscreteScheduler.from_config(config).config.timestep_spacing == "linspace"
    other = KDiffScheduler.from_config(again.scheduler.config, sampler="heun")
    assert (other.config.sampler, other.config.sampler_options) == ("heun", None)
    assert (other.config.schedule, other.config.prediction_type) == ("karras", "v_prediction")
