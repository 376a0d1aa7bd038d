"""ComfyUI, by a stand-in that has its rules: what samplers are given, must do and may not do."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import subprocess
import sys
from itertools import pairwise

import comfy_host
import pytest
import torch
from comfy_host import Guider, conditional, model_sampling, unconditional
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.cli.hosts import packs
from kdiff_core.errors import (
    CapabilityError,
    GridError,
    NoiseError,
    NonFiniteError,
    ParameterError,
    UnknownNameError,
)
from kdiff_core.plans import Evaluate
from kdiff_sd import comfyui
from kdiff_sd.comfyui import registration, widgets
from kdiff_sd.comfyui.host_model import path_of, process_of
from kdiff_sd.comfyui.run import noise_source


def buildable():
    """The names of the samplers that can be made without options."""
    for entry in kd.list_samplers():
        with contextlib.suppress(ParameterError):
            kd.get_sampler(entry.name)
            yield entry.name


BARE = list(buildable())
SIGMAS = {
    "ve": torch.tensor([14.6, 5.0, 1.2, 0.3, 0.0]),
    "flow": torch.tensor([1.0, 0.8, 0.5, 0.2, 0.0]),
}
SHAPE = (2, 4, 3, 3)
law = settings(deadline=None, max_examples=max(10, settings().max_examples // 3))


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """The stand-in as ``comfy``, and nothing registered in it."""
    monkeypatch.setattr(registration, "_samplers", {})
    monkeypatch.setattr(registration, "_schedules", {})
    return comfy_host.installed(monkeypatch)


def initial(seed=0, shape=SHAPE):
    """Noise as the host draws it: on the CPU, by a generator with the seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sample(name, path="ve", *, sigmas=None, seed=3, guider=None, shape=SHAPE, **more):
    """Run a sampler as a node does; returns the image and the guider."""
    options = {
        key: more.pop(key) for key in list(more) if key not in ("callback", "mask", "latent", "noise0")
    }
    sampler = name if isinstance(name, comfy_host.KSAMPLER) else comfyui.as_ksampler(name, **options)
    guider = guider or Guider(path)
    noise, latent = more.get("noise0", initial(seed, shape)), more.get("latent", torch.zeros(shape))
    sigmas = SIGMAS[path] if sigmas is None else sigmas
    callback, mask = more.get("callback"), more.get("mask")
    return guider.sample(noise, latent, sampler, sigmas, mask, callback, seed), guider


class Direct:
    """The stand-in's model as a denoiser of kdiff."""

    def __init__(self, path="ve", cfg=1.0):
        self.path, self.cfg, self.process = path, cfg, process_of(model_sampling(path))

    def predict(self, x, sigma):
        cond, uncond = conditional(x, sigma), unconditional(x, sigma)
        denoised = cond if self.cfg == 1 else uncond + (cond - uncond) * self.cfg
        return kd.Prediction(denoised, cond, uncond)

    def __call__(self, x, sigma):
        return self.predict(x, sigma).denoised


def direct(name, path="ve", *, sigmas=None, seed=3, cfg=1.0, shape=SHAPE, noise=None, **options):
    """The same run without the host."""
    sigmas = SIGMAS[path] if sigmas is None else sigmas
    x = initial(seed, shape) * sigmas[0]
    found = kd.get_sampler(name, **options)(Direct(path, cfg), x, sigmas, noise=noise or kd.KeyedNoise(seed))
    last = float(sigmas[-1])
    return found / (1 - last) if path == "flow" else found


# -- every sampler


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize("name", BARE)
def test_every_sampler_runs_by_the_hosts_rules(name, path):
    """Under the host each bare name gives, bit for bit, what kdiff gives; the callback counts steps."""
    shown = []
    found, guider = sample(
        name, path, callback=lambda i, x0, x, total: shown.append(i), guider=Guider(path, 2.0)
    )
    assert torch.equal(found, direct(name, path, cfg=2.0))
    assert guider.watched == len(guider.calls)
    sampler = kd.get_sampler(name)
    assert shown == sorted(shown)
    if sampler.linear:
        steps = sampler.plan(SIGMAS[path], path, process_of(model_sampling(path))).steps
        called = [k for k, step in enumerate(steps) if any(isinstance(op, Evaluate) for op in step.ops)]
        assert shown == [k * 4 // len(steps) for k in called]
        assert len(steps) != 4 or shown == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "dpmpp_sde", "euler_cfg_pp", "heun", "dpm_adaptive"])
def test_inference_mode(name):
    """The host runs nodes in inference mode, where tensors have no versions: the numbers are the same."""
    with torch.inference_mode():
        found, _ = sample(name, guider=Guider(cfg=2.0), callback=lambda *args: None)
    assert torch.equal(found, direct(name, cfg=2.0))


@pytest.mark.parametrize("shape", [(2, 1, 37), (1, 3, 2, 4, 4), (3, 5)])
def test_states_may_have_any_dimensions(shape):
    """Latents that are packed flat, of videos and of images are all states."""
    for name in ("dpmpp_2m", "euler_ancestral", "dpmpp_sde"):
        assert torch.equal(sample(name, shape=shape)[0], direct(name, shape=shape))


def test_what_the_path_is_read_from():
    """A flow model is known by its patcher's model sampling, else by its model's; one without is refused."""
    for patcher in (True, False):
        found, _ = sample("dpmpp_2m", "flow", guider=Guider("flow", patcher=patcher))
        assert torch.equal(found, direct("dpmpp_2m", "flow"))
    patched = Guider("ve")
    patched.model_patcher.objects["model_sampling"] = model_sampling("flow")
    assert path_of(patched.model_patcher.get_model_object("model_sampling")) == "flow"
    with pytest.raises(CapabilityError, match=r"inner_model\.inner_model\.model_sampling"):
        comfyui.sampler_function("euler")(conditional, initial(), SIGMAS["ve"])


def test_the_hosts_name_gives_the_hosts_numbers():
    """``comfyui:NAME`` is another sampler than NAME on flow."""
    host, bare = (sample(name, "flow")[0] for name in ("comfyui:dpmpp_2m", "dpmpp_2m"))
    assert torch.equal(host, direct("comfyui:dpmpp_2m", "flow"))
    assert not torch.allclose(host, bare, rtol=1e-3)


# -- the grid


def test_short_grids_return_the_state():
    """With one level or none the state comes back as it is."""
    x, function = initial(), comfyui.sampler_function("euler")
    for n in (0, 1):
        assert function(None, x, SIGMAS["ve"][:n]) is x
    assert torch.equal(sample("euler", sigmas=SIGMAS["ve"][:0])[0], torch.zeros(SHAPE))


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpm2", "rk4", "euler_ancestral", "dpmpp_sde", "seeds_2"])
def test_two_halves_are_a_whole(name, path):
    """A run split in two calls gives the run in one where no step reads an earlier one, noise included."""
    whole, _ = sample(name, path)
    cut, seen = SIGMAS[path], []
    first = comfyui.sampler_function(name)
    x = initial(3) * cut[0]
    for part in (cut[:3], cut[2:]):
        guider = Guider(path)
        model = comfy_host.KSamplerX0Inpaint(guider, part, None, None)
        extra = {"denoise_mask": None, "model_options": guider.model_options, "seed": 3}
        x = first(model, x, part, extra_args=extra, disable=True)
        seen += guider.calls
    torch.testing.assert_close(x, whole, rtol=1e-5, atol=1e-5)


def test_a_second_half_starts_without_history():
    """A multistep sampler has lower order in the first step of the second call: near the whole, not equal."""
    whole = direct("dpmpp_2m")
    first = direct("dpmpp_2m", sigmas=SIGMAS["ve"][:3])
    found, _ = sample("dpmpp_2m", sigmas=SIGMAS["ve"][2:], latent=first, noise0=torch.zeros(SHAPE))
    gap = float((found - whole).abs().max())
    assert 1e-4 < gap < 0.2


def test_grids_that_rise_are_refused():
    """A flipped or repeated grid is refused with its place, before the model is called."""
    guider = Guider()
    for sigmas in (SIGMAS["ve"].flip(0)[1:], SIGMAS["ve"][[0, 1, 1, 2]]):
        with pytest.raises(GridError):
            sample("euler", sigmas=sigmas, guider=guider)
    assert guider.calls == []


# -- noise


@pytest.mark.parametrize("noise", ["keyed", "comfyui", "brownian"])
def test_seeds(noise):
    """Equal seeds give equal images, other seeds others, and the global generator is left alone."""
    before = torch.get_rng_state()
    start = initial(0)
    images = [sample("euler_ancestral", seed=s, noise0=start, noise=noise)[0] for s in (1, 1, 2**64 - 1)]
    assert torch.equal(images[0], images[1])
    assert not torch.allclose(images[0], images[2])
    assert torch.equal(torch.get_rng_state(), before)


@law
@given(seed=st.integers(0, 2**64 - 1), noise=st.sampled_from(["keyed", "comfyui"]))
def test_step_noise_is_not_the_initial_noise(seed, noise):
    """With one seed for both, the noise of the first step and the initial noise are independent."""
    x = initial(seed, (1, 4000))
    drawn = noise_source(noise, seed, x).noise(x, 14.6, 5.0)
    correlation = float((x * drawn).mean())
    assert abs(correlation) < 0.1
    assert abs(float(drawn.std()) - 1) < 0.1


def test_keyed_noise_is_of_the_place_in_the_batch():
    """An image does not depend on how many follow it, and no two have the same noise."""
    start = initial(0, (1, *SHAPE[1:])).expand(3, *SHAPE[1:]).clone()
    three, _ = sample("euler_ancestral", noise0=start, shape=start.shape)
    one, _ = sample("euler_ancestral", noise0=start[:1], shape=(1, *SHAPE[1:]))
    assert torch.equal(three[:1], one)
    assert not torch.allclose(three[0], three[1])


def test_the_hosts_noise_is_a_generators():
    """``noise="comfyui"``: Euler ancestral by its formula, with one generator drawing step by step."""
    found, _ = sample("euler_ancestral", noise="comfyui")
    generator, sigmas = torch.Generator().manual_seed(3 + 1), SIGMAS["ve"].double().tolist()
    x = initial(3) * sigmas[0]
    for a, b in pairwise(sigmas):
        denoised = conditional(x, torch.full((2,), a))
        down = b * b / a
        x = denoised + (x - denoised) * (down / a)
        if b:
            x = x + torch.randn(SHAPE, generator=generator) * (b * b - down * down) ** 0.5
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-5)


def test_without_a_seed():
    """A host that gives no seed gets fresh noise of kdiff; the host's own noise needs one."""
    x = initial()
    assert noise_source("keyed", None, x) is None
    with pytest.raises(NoiseError, match="seed"):
        noise_source("comfyui", None, x)
    with pytest.raises(UnknownNameError, match="keyd"):
        comfyui.as_ksampler("euler", noise="keyd")


# -- callbacks, interruption, edits


@pytest.mark.parametrize("name", ["heun", "dpmpp_sde", "seeds_3", "rk4", "restart"])
def test_the_callback_counts_steps(name):
    """With several model calls a step it is called once a step, with the first call's state and output."""
    shown = []

    def callback(i, x0, x, total):
        shown.append((i, x.clone(), x0.clone(), total))

    _, guider = sample(name, callback=callback)
    assert len(shown) < len(guider.calls)
    assert [i for i, *_ in shown] == sorted(i for i, *_ in shown)
    assert all(total == 4 for *_, total in shown)
    calls = [call for call, _ in guider.calls]
    for _, x, x0, _ in shown:
        place = next(k for k, call in enumerate(calls) if torch.equal(call, x))
        assert torch.equal(x0, conditional(x, guider.calls[place][1]))


def test_the_callback_may_keep_what_it_gets():
    """States that a preview keeps are not written over later."""
    kept = []

    def keep(i, x0, x, total):
        kept.extend([(x, x.clone()), (x0, x0.clone())])

    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            sample("dpmpp_2m", callback=keep)
            sample("heun", callback=keep)
        assert all(torch.equal(now, then) for now, then in kept)


class Interrupted(BaseException):
    """As hosts stop a run."""


@pytest.mark.parametrize(
    "name", ["euler", "dpmpp_2m", "dpmpp_sde", "euler_cfg_pp", "dpm_adaptive", "adaptive"]
)
@pytest.mark.parametrize("where", ["model", "callback"])
def test_interruption_comes_through(name, where):
    """An exception of the model or of the callback reaches the host, the very same."""
    reason, guider = Interrupted(), Guider(cfg=2.0)

    def stop(*args):
        if len(guider.calls) > 1:
            raise reason

    guider.on_call = stop if where == "model" else None
    with pytest.raises(Interrupted) as caught:
        sample(name, guider=guider, callback=stop if where == "callback" else None)
    assert caught.value is reason


def by_hand(name, edit):
    """Euler, Heun and DPM++ 2M as loops whose state is edited where each step evaluates the model."""
    sigmas, memory = SIGMAS["ve"].double().tolist(), None
    x = initial(3) * sigmas[0]
    for k, (a, b) in enumerate(pairwise(sigmas)):
        start = x.clone()
        x = edit(k, x)
        denoised = conditional(start, torch.full((2,), a))
        slope = (x - denoised) / a
        end = x + slope * (b - a)
        if name == "heun" and b:
            end = x + (slope + (end - conditional(end, torch.full((2,), b))) / b) * (b - a) / 2
        if name == "dpmpp_2m" and memory is not None and b:
            h, last = torch.log(torch.tensor([a / b, memory[0] / a], dtype=torch.float64)).tolist()
            mixed = denoised + (denoised - memory[1]) * (h / last / 2)
            end = x * (b / a) + mixed * (1 - b / a)
        x, memory = end, (a, denoised)
    return x


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m"])
def test_what_a_callback_writes_into_the_state_is_taken_over(name, inference):
    """The step goes on as if it had begun with the edited state; without an edit nothing changes."""

    def callback(i, x0, x, total):
        if i == 1:
            x += 0.5

    with torch.inference_mode() if inference else torch.no_grad():
        found, _ = sample(name, callback=callback)
    torch.testing.assert_close(found, by_hand(name, lambda k, x: x + 0.5 * (k == 1)), rtol=1e-5, atol=1e-5)
    plain, _ = sample(name, callback=lambda *args: None)
    torch.testing.assert_close(plain, by_hand(name, lambda k, x: x), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, plain, atol=1e-3)


@pytest.mark.parametrize("inference", [False, True])
def test_what_the_model_writes_into_the_state_is_taken_over(inference):
    """A model that changes its input in place changes the run's state, as it does in the host's own loops."""
    guider = Guider()
    guider.on_call = lambda x: x.mul_(0.9)
    with torch.inference_mode() if inference else torch.no_grad():
        found, _ = sample("euler", guider=guider)
    sigmas = SIGMAS["ve"].double().tolist()
    x = initial(3) * sigmas[0]
    for a, b in pairwise(sigmas):
        x = x * 0.9
        x = x + (x - conditional(x, torch.full((2,), a))) / a * (b - a)
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inference", [False, True])
def test_an_edited_stage_is_added_to_the_end_of_its_step(inference):
    """What is written into the state of a stage inside a step is the difference of the step's end."""
    edited = Guider()
    edited.on_call = lambda x: x.add_(0.25) if len(edited.calls) == 2 else None
    with torch.inference_mode() if inference else torch.no_grad():
        found, _ = sample("heun", guider=edited, sigmas=SIGMAS["ve"][:2])
    a, b = SIGMAS["ve"][:2].double().tolist()
    x = initial(3) * a
    slope = (x - conditional(x, torch.full((2,), a))) / a
    stage = x + slope * (b - a)
    second = (stage - conditional(stage + 0.25, torch.full((2,), b))) / b
    torch.testing.assert_close(found, x + (slope + second) * (b - a) / 2 + 0.25, rtol=1e-5, atol=1e-5)


def test_what_a_callback_writes_into_the_output_is_taken_over():
    """The step goes on with the edited output: set to 0, it leaves only the state's own share."""

    def callback(i, x0, x, total):
        x0.zero_()

    found, _ = sample("euler", callback=callback, sigmas=SIGMAS["ve"][:2])
    torch.testing.assert_close(found, initial(3) * SIGMAS["ve"][1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inference", [False, True])
def test_edits_of_adaptive_runs_are_refused(inference):
    """An adaptive sampler chose its step for the state: who writes into it is told."""
    guider = Guider()
    guider.on_call = lambda x: x.mul_(0.9)
    with torch.inference_mode() if inference else torch.no_grad():
        with pytest.raises(CapabilityError, match="the model wrote"):
            sample("dpm_adaptive", guider=guider)
        with pytest.raises(CapabilityError, match="the callback wrote"):
            sample("dpm_adaptive", callback=lambda i, x0, x, total: x.mul_(0.9))


def test_outputs_that_are_not_finite_are_refused():
    """NaN of the model is refused with the level, and does not become a black image."""
    guider = Guider()
    guider.on_call = lambda x: x.fill_(torch.nan) if len(guider.calls) == 2 else None
    with pytest.raises(NonFiniteError, match="sigma=5"):
        sample("dpmpp_2m", guider=guider)


def test_a_model_may_return_its_memory_again():
    """A host that reuses the memory of its outputs does not change what the sampler remembers."""
    guider, memory = Guider(), torch.empty(SHAPE)
    own = guider.__call__

    class Reusing(Guider):
        def __call__(self, x, sigma, **more):
            return memory.copy_(own(x, sigma, **more))

    found, _ = sample("dpmpp_2m", guider=Reusing())
    assert torch.equal(found, direct("dpmpp_2m"))


# -- guidance and masks


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("name", [name for name in BARE if name.endswith("cfg_pp")])
def test_cfg_pp_sees_the_unconditional_output(name, cfg):
    """By a hook in a copy of the options, also where guidance is off; the host checks its own."""
    found, guider = sample(name, guider=Guider(cfg=cfg))
    torch.testing.assert_close(found, direct(name, cfg=cfg))
    assert guider.watched == len(guider.calls)


def test_cfg_pp_needs_a_guider_with_hooks():
    """A guider that calls no post-CFG function is refused in the first step."""
    with pytest.raises(CapabilityError, match="post-CFG"):
        sample("euler_cfg_pp", guider=Guider(hooks=False))


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "heun", "euler_ancestral", "uni_pc"])
def test_masks(name, path):
    """With a denoise mask what is known of the image stays to the bit, and the rest is sampled."""
    latent, mask = initial(9), torch.zeros(SHAPE)
    mask[..., 1:] = 1.0
    found, _ = sample(name, path, latent=latent, mask=mask)
    assert torch.equal(found[..., 0], latent[..., 0])
    assert not torch.allclose(found[..., 1:], latent[..., 1:], atol=0.1)


# -- the functions


def test_functions_have_the_hosts_signature():
    """Six arguments by the host's names, and options; no generator and no noise sampler among them."""
    function = comfyui.sampler_function("euler")
    known = inspect.signature(function).parameters
    first = ["model", "x", "sigmas", "extra_args", "callback", "disable"]
    assert list(known) == [*first, "extra_options"]
    assert all(known[name].default is None for name in first[3:])
    assert "euler" in function.__name__


def test_options():
    """Options of the sampler, of its modifiers, of the run and a sampler itself are all taken."""
    churned = direct("heun", s_churn=4.0)
    assert torch.equal(sample("heun", s_churn=4.0)[0], churned)
    assert torch.equal(sample(kd.get_sampler("heun", s_churn=4.0))[0], churned)
    late = comfy_host.KSAMPLER(comfyui.sampler_function("heun"), {"s_churn": 4.0, "noise": "keyed"})
    assert torch.equal(sample(late)[0], churned)
    assert comfyui.as_ksampler("euler", inpaint_options={"random": True}).inpaint_options == {"random": True}
    with pytest.raises(ParameterError, match="s_chrn"):
        comfyui.as_ksampler("heun", s_chrn=4.0)
    with pytest.raises(UnknownNameError, match="did you mean 'euler'"):
        comfyui.as_ksampler("eulr")


def test_outside_comfyui(monkeypatch):
    """Where there is no ComfyUI that is said, and the package itself imports nothing of it."""
    monkeypatch.setitem(sys.modules, "comfy.samplers", None)
    with pytest.raises(CapabilityError, match="inside ComfyUI only"):
        comfyui.as_ksampler("euler")
    code = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        assert not name.startswith("comfy"), name
sys.meta_path.insert(0, Refusing())
import kdiff_sd.comfyui, kdiff_sd.plugin
kdiff_sd.comfyui.node_mappings()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- the drop-downs


def test_samplers_in_the_dropdown(host):
    """They are appended to the host's own list, found by the host by their name, and give kdiff's numbers."""
    known, names = host.KSampler.SAMPLERS, list(host.SAMPLER_NAMES)
    added = comfyui.register_dropdown()
    assert added == [f"kdiff/{name}" for name in BARE]
    assert host.KSampler.SAMPLERS is host.SAMPLER_NAMES is known
    assert known == [*names, *added]
    assert host.KSAMPLER_NAMES == ["euler", "dpm_2"]
    found, _ = sample(host.sampler_object("kdiff/dpmpp_2m_sde"))
    assert torch.equal(found, direct("dpmpp_2m_sde"))
    comfyui.unregister_dropdown()
    assert known == names
    assert [n for n in vars(sys.modules["comfy.k_diffusion.sampling"]) if n.startswith("sample_")] == [
        "sample_euler"
    ]


def test_registering_is_idempotent_and_refuses_what_is_taken(host):
    """Twice is once; a name of somebody else's, in either place, is refused with nothing registered."""
    sampling = sys.modules["comfy.k_diffusion.sampling"]
    assert comfyui.register_dropdown(["euler", "heun"]) == comfyui.register_dropdown(["euler", "heun"])
    assert host.SAMPLER_NAMES.count("kdiff/heun") == 1
    own = sampling.sample_euler
    with pytest.raises(ParameterError, match="'euler'"):
        comfyui.register_dropdown(["dpmpp_2m", "euler"], prefix="")
    assert sampling.sample_euler is own
    assert "dpmpp_2m" not in host.SAMPLER_NAMES
    sampling.sample_mine_rk4 = own
    with pytest.raises(ParameterError, match="mine_rk4"):
        comfyui.register_dropdown(["rk4"], prefix="mine_")
    assert sampling.sample_mine_rk4 is own
    with pytest.raises(UnknownNameError):
        comfyui.register_dropdown(["euler", "eulr"], prefix="x/")
    assert "x/euler" not in host.SAMPLER_NAMES


def test_unregistering_takes_only_its_own(host):
    """What another pack put in its place afterwards stays, and other prefixes stay."""
    sampling = sys.modules["comfy.k_diffusion.sampling"]
    comfyui.register_dropdown(["euler", "heun"])
    comfyui.register_dropdown(["euler"], prefix="own/")
    theirs = vars(sampling)["sample_kdiff/euler"] = lambda *args: None
    comfyui.unregister_dropdown()
    assert vars(sampling)["sample_kdiff/euler"] is theirs
    assert not hasattr(sampling, "sample_kdiff/heun")
    assert [name for name in host.SAMPLER_NAMES if "/" in name] == ["own/euler"]


@pytest.mark.parametrize("path", ["ve", "flow"])
def test_schedules_in_the_dropdown(host, path):
    """Each gives n + 1 falling levels in float32 on the CPU, kdiff's for the model's table."""
    known = host.KSampler.SCHEDULERS
    added, sampling = comfyui.register_schedules(), model_sampling(path)
    assert host.KSampler.SCHEDULERS is host.SCHEDULER_NAMES is known
    assert known == ["normal", *added]
    assert comfyui.register_schedules() == added
    process = process_of(sampling)
    ran = 0
    for name in added:
        for n in (1, 7):
            sigmas = host.calculate_sigmas(sampling, name, n)
            assert (sigmas.shape, sigmas.dtype, sigmas.device.type) == ((n + 1,), torch.float32, "cpu")
            assert bool((sigmas.diff() < 0).all())
            ends = {"sigma_min": float(sampling.sigma_min), "sigma_max": float(sampling.sigma_max)}
            own = kd.get_schedule(name.removeprefix("kdiff/"))(n, **ends, process=process)
            assert sigmas.tolist() == torch.tensor(list(own)).tolist()
            ran += 1
    assert ran >= 2 * 30
    with pytest.raises(ParameterError, match="'normal'"):
        comfyui.register_schedules(["normal"], prefix="")
    comfyui.unregister_schedules()
    assert known == list(host.SCHEDULER_HANDLERS) == ["normal"]


@pytest.mark.parametrize("path", ["ve", "flow"])
def test_the_process_is_that_of_the_table(path):
    """Level and time agree with the host's table at every entry; an odd table has no process."""
    sampling = model_sampling(path)
    process = process_of(sampling)
    table = sampling.sigmas.double().tolist()
    assert process.path == path
    places = range(0, 1000, 37)
    assert [process.sigma(i / 999) for i in places] == pytest.approx([table[i] for i in places], rel=1e-6)
    assert [process.t(table[i]) for i in places] == pytest.approx([i / 999 for i in places], abs=1e-5)
    sampling.sigmas = sampling.sigmas.clone()
    sampling.sigmas[500] = sampling.sigmas[501]
    assert process_of(sampling) is None
    odd = model_sampling("flow")
    odd.sigmas = odd.sigmas**1.5
    assert process_of(odd) is None


# -- nodes


NODES, SHOWN = comfyui.node_mappings()
KINDS = {"KdiffSampler": "sampler", "KdiffModifier": "modifier", "KdiffSchedule": "schedule"}


def test_every_entry_has_a_node():
    """Samplers, modifiers and schedules each have one, with a name to show, of the host's types."""
    for kind in KINDS.values():
        names = {entry.name for entry in getattr(kd, f"list_{kind}s")()}
        assert names == {node.name for node in NODES.values() if node.kind == kind}
    assert SHOWN.keys() == NODES.keys()
    for key, node in NODES.items():
        assert key == f"{next(k for k, v in KINDS.items() if v == node.kind)}_{node.name}"
        assert (len(node.RETURN_TYPES), callable(getattr(node, node.FUNCTION))) == (1, True)
        assert node.CATEGORY.startswith("kdiff/")


def values(node):
    """The host's call of a node whose widgets are as they come."""
    return {
        name: more[0]["default"]
        for name, (kind, *more) in node.INPUT_TYPES()["required"].items()
        if isinstance(kind, list) or kind in ("INT", "FLOAT", "BOOLEAN", "STRING")
    }


@pytest.mark.parametrize("key", NODES)
def test_widgets_are_those_of_the_parameters(key):
    """JSON for the host's page; defaults within the ends; left as they come they ask for the default."""
    node = NODES[key]
    given = json.loads(json.dumps(node.INPUT_TYPES(), allow_nan=False))["required"]
    for name, (kind, more) in given.items():
        if kind in ("INT", "FLOAT"):
            assert more["min"] <= more["default"] <= more["max"], name
        if isinstance(kind, list):
            assert more["default"] in kind
    leave = int(node.kind == "modifier")
    known = widgets.widgets_of(node.entry(), leave)
    own = {name: given[f"schedule_{name}" if f"schedule_{name}" in given else name] for name in known}
    assert own == json.loads(json.dumps(known))
    as_they_come = {name: more["default"] for name, (_, more) in own.items()}
    assert widgets.options_of(node.entry(), as_they_come, leave) == {}


def test_every_sampler_node_makes_its_sampler():
    """With its widgets as they come a node gives the sampler of that name."""
    for node in NODES.values():
        if node.kind == "sampler":
            (made,) = node().make(**values(node))
            assert made.kdiff[0] == kd.get_sampler(node.name)
    (made,) = NODES["KdiffSampler_dpmpp_2m_sde"]().make(**values(NODES["KdiffSampler_dpmpp_2m_sde"]))
    assert torch.equal(sample(made)[0], direct("dpmpp_2m_sde"))


@pytest.mark.parametrize(
    ("name", "changed", "options"),
    [
        ("dpmpp_2m_sde", {"eta": 0.4, "solver_type": "heun"}, {"eta": 0.4, "solver_type": "heun"}),
        ("uni_pc", {"solver_order": "2", "corrector": False}, {"solver_order": 2, "corrector": False}),
        ("dpm_fast", {"evaluations": "12"}, {"evaluations": 12}),
        ("rk4", {"tableau": "heun2", "sweeps": ""}, {"tableau": "heun2"}),
        ("dpm_adaptive", {"max_evaluations": 50}, {"max_evaluations": 50}),
        ("consistency", {"s_noise_end": "0.5"}, {"s_noise_end": 0.5}),
    ],
)
def test_widgets_become_options(name, changed, options):
    """What a user sets in the widgets are the sampler's options, of their own types."""
    node = NODES[f"KdiffSampler_{name}"]
    (made,) = node().make(**values(node) | changed)
    assert made.kdiff[0] == kd.get_sampler(name, **options)


def test_widgets_say_what_the_docstrings_say():
    """A number has its range, a choice its choices, all have their text."""
    known = widgets.widgets_of(kd.default_registry().entry("sampler", "dpmpp_sde"))
    kind, more = known["r"]
    assert (kind, more["default"], more["min"], more["max"]) == ("FLOAT", 0.5, 0.0, 1.0)
    kind, more = widgets.widgets_of(kd.default_registry().entry("sampler", "deis"))["max_order"]
    assert kind == ["1", "2", "3", "4"]
    told = [m.get("tooltip") for node in NODES.values() for _, m in widgets.widgets_of(node.entry()).values()]
    assert sum(map(bool, told)) > 0.95 * len(told)


def test_modifier_nodes():
    """A modifier changes a sampler of kdiff and keeps its noise; another's sampler is refused."""
    heun = comfyui.as_ksampler("heun", noise="comfyui")
    node = NODES["KdiffModifier_churn"]
    (made,) = node().make(sampler=heun, **values(node) | {"s_churn": 4.0, "s_tmax": "9.5"})
    assert made.kdiff == (kd.get_sampler("heun", s_churn=4.0, s_tmax=9.5), "comfyui", {})
    with pytest.raises(ParameterError, match="no sampler of kdiff"):
        node().make(sampler=comfy_host.KSAMPLER(None), s_churn=4.0)
    assert node.INPUT_TYPES()["required"]["s_tmax"][1]["default"] == "inf"


def test_schedule_nodes():
    """Levels of the model, of the options, and of the last part of the way for image to image."""
    patcher, node = comfy_host.Patcher(model_sampling("ve")), NODES["KdiffSchedule_karras"]
    (sigmas,) = node().make(model=patcher, **values(node) | {"steps": 5, "rho": 5.0})
    low, high = float(sigmas[-2]), float(sigmas[0])
    own = kd.get_schedule("karras", rho=5.0)(5, sigma_min=low, sigma_max=high)
    torch.testing.assert_close(sigmas, torch.tensor(list(own)))
    (part,) = node().make(model=patcher, **values(node) | {"steps": 5, "rho": 5.0, "denoise": 0.5})
    (whole,) = node().make(model=patcher, **values(node) | {"steps": 10, "rho": 5.0})
    assert torch.equal(part, whole[-6:])


# -- the pack


def load_pack(folder):
    """Import a pack as the host does: by the path of its folder."""
    spec = importlib.util.spec_from_file_location("custom_nodes_kdiff", folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pack_is_nodes_and_dropdowns(host):
    """Loading the folder, also twice, gives the host nodes, samplers and schedules."""
    for _ in range(2):
        pack = load_pack(packs()["comfyui"])
        assert pack.NODE_CLASS_MAPPINGS.keys() == pack.NODE_DISPLAY_NAME_MAPPINGS.keys() == NODES.keys()
        assert host.SAMPLER_NAMES.count("kdiff/dpm2") == host.SCHEDULER_NAMES.count("kdiff/karras") == 1


def test_the_pack_without_kdiff(monkeypatch):
    """In a Python without kdiff the pack says what to install, and where."""
    folder = packs()["comfyui"]
    monkeypatch.setitem(sys.modules, "kdiff_sd", None)
    monkeypatch.delitem(sys.modules, "kdiff_sd.comfyui", raising=False)
    with pytest.raises(ImportError, match=r"-m pip install kdiff-core"):
        load_pack(folder)
