"""Forge and A1111: their rules, kept by fakes of the modules that an extension meets there."""

from __future__ import annotations

import functools
import inspect
import runpy
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import kdiff_core as kd
import kdiff_sd.forge
from kdiff_core.errors import AmbiguousNameError, CapabilityError, GridError, StateError, UnknownNameError
from kdiff_sd.forge import register, samplers, schedules

F64 = torch.float64
SETTINGS = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": float("inf"), "s_noise": 1.0}
OPTIONS = {
    "scheduler", "second_order", "discard_next_to_last_sigma", "uses_ensd", "brownian_noise", "solver_type",
    "no_sdxl", "default_eta_is_0",
}  # fmt: skip
PACK = Path(kdiff_sd.forge.__file__).parent / "pack"
OFFERED = samplers.offered()
LABELS = [f"kdiff/{name}" if path == "ve" else f"kdiff/flow/{name}" for name, path in OFFERED]
SamplerData = namedtuple("SamplerData", ["name", "constructor", "aliases", "options"])


class InterruptedException(BaseException):
    """What the host raises where the user pressed the button."""


@dataclass
class Scheduler:
    name: str
    label: str
    function: Any
    default_rho: float = -1
    need_inner_model: bool = False
    aliases: list[str] | None = None


def network(x, sigma):
    """A smooth model, which is no linear function of the state."""
    s = sigma.reshape(-1, *[1] * (x.ndim - 1))
    return torch.tanh(x / (1 + s)) / (1 + 0.1 * s)


class Model:
    """The host's guided model: it takes its five arguments and no others, and returns the denoised state."""

    def __init__(self):
        self.calls, self.stop_at = 0, None

    def __call__(self, x, sigma, *, cond, image_cond, uncond, cond_scale, s_min_uncond):
        assert sigma.shape == (len(x),)
        self.calls += 1
        if self.calls == self.stop_at:
            raise InterruptedException
        return network(x, sigma)


class KDiffusionSampler:
    """The host's own class: what it finds in the signature of the function, it hands over."""

    extra_params_of: dict = {}

    def __init__(self, funcname, model):
        assert callable(funcname)
        self.func, self.model_wrap_cfg = funcname, model
        self.parameters = inspect.signature(funcname).parameters
        self.extra_params = self.extra_params_of.get(funcname, [])
        self.config, self.settings, self.seen = None, SETTINGS, []
        self.interrupted = False

    def callback_state(self, d):
        step = d["i"]
        assert 0 <= step < self.steps or "adaptive" in self.func.__name__
        assert torch.isfinite(d["denoised"]).all()
        self.seen.append(step)
        if self.interrupted:
            raise InterruptedException

    def _run(self, x, sigmas, steps):
        self.steps, handed = steps, {}
        positive = sigmas[sigmas > 0]
        if "n" in self.parameters:
            handed["n"] = steps
        if "sigma_min" in self.parameters:
            handed |= {"sigma_min": positive[-1], "sigma_max": positive[0]}
        for name in ("sigmas", "sigma_sched"):
            if name in self.parameters:
                handed[name] = sigmas
        if "eta" in self.parameters:
            handed["eta"] = 0.0 if self.config.options.get("default_eta_is_0") else 1.0
        handed |= {name: self.settings[name] for name in self.extra_params if name in self.parameters}
        if self.config.options.get("brownian_noise"):
            handed["noise_sampler"] = lambda *_: pytest.fail("kdiff's noise is its own")
        conds = dict.fromkeys(("cond", "image_cond", "uncond", "cond_scale", "s_min_uncond"), 1.0)
        return self.func(
            self.model_wrap_cfg, x, extra_args=conds, disable=False, callback=self.callback_state, **handed
        )

    def sample(self, p, x, conditioning, unconditional_conditioning, steps=None, image_conditioning=None):
        return self._run(x, p.sigmas, len(p.sigmas) - 1)

    def sample_img2img(self, p, x, noise, conditioning, unconditional_conditioning, image_conditioning=None):
        sigmas = p.sigmas[2:]
        return self._run(x + sigmas[0] * noise, sigmas, len(sigmas) - 1)


def module(name, **content):
    made = ModuleType(f"modules.{name}")
    vars(made).update(content)
    return made


@pytest.fixture(params=["forge", "a1111"])
def host(request, monkeypatch):
    """The modules of each host, with one sampler and one schedule of their own."""
    return fake(request.param, monkeypatch)


@pytest.fixture
def forge(monkeypatch):
    """The modules of Forge alone."""
    return fake("forge", monkeypatch)


def fake(kind, monkeypatch):
    own = SamplerData("Euler", lambda model: KDiffusionSampler(lambda: None, model), ["k_euler"], {})
    listed = module("sd_samplers", all_samplers=[own], all_samplers_map={"Euler": own}, shown=[])
    listed.set_samplers = lambda: listed.shown.__setitem__(slice(None), list(listed.all_samplers_map))
    listed.set_samplers()

    def add_sampler(data):  # a name that is known is dropped without a word
        if data.name not in listed.all_samplers_map:
            listed.all_samplers.append(data)
            listed.all_samplers_map[data.name] = data
            listed.set_samplers()

    if kind == "forge":
        listed.add_sampler = add_sampler
    listed.get_sampler_and_scheduler = functools.cache(lambda label: listed.all_samplers_map.get(label))  # noqa: PLW0108
    uniform = Scheduler("uniform", "Uniform", lambda **_: None)
    plans = module("sd_schedulers", Scheduler=Scheduler, schedulers=[uniform])
    plans.schedulers_map = {"uniform": uniform, "Uniform": uniform}
    extra = KDiffusionSampler.extra_params_of = {}
    known = {
        "sd_samplers": listed,
        "sd_samplers_common": module("sd_samplers_common", SamplerData=SamplerData),
        "sd_samplers_kdiffusion": module(
            "sd_samplers_kdiffusion", KDiffusionSampler=KDiffusionSampler, sampler_extra_params=extra
        ),
        "sd_schedulers": plans,
    }
    monkeypatch.setitem(sys.modules, "modules", ModuleType("modules"))
    for name, made in known.items():
        monkeypatch.setitem(sys.modules, f"modules.{name}", made)
    return SimpleNamespace(**known)


def levels(path="ve", n=4):
    ends = {"sigma_min": 0.03, "sigma_max": 14.6} if path == "ve" else {"sigma_min": 0.1, "sigma_max": 0.99}
    return torch.tensor(list(kd.get_schedule("karras")(n, **ends)), dtype=F64)


def job(seeds=(1, 2), path="ve", **more):
    return SimpleNamespace(all_seeds=list(seeds), seeds=list(seeds), sigmas=levels(path), **more)


def start(batch=2):
    return torch.stack(
        [torch.randn(3, 5, generator=torch.Generator().manual_seed(k), dtype=F64) for k in range(batch)]
    )


def build(host, label, model=None):
    """Make a sampler as the host does: the record of its label, its constructor, its record again."""
    data = host.sd_samplers.get_sampler_and_scheduler(label)
    made = data.constructor(Model() if model is None else model)
    made.config = data
    return made


def directly(name, path, x, sigmas, seeds, options=()):
    """The sampler called without a host."""
    options = dict(options)
    if name in ("dpm_fast", "dpm_adaptive"):
        options |= {"evaluations": len(sigmas) - 1} if name == "dpm_fast" else {}
        sigmas = sigmas[[0, -2]]
    denoiser = samplers.OnPath(network, path)
    noise = kd.KeyedNoise(list(seeds)) if kd.get_sampler(name, **options).stochastic else None
    return kd.get_sampler(name, **options)(denoiser, x, sigmas.tolist(), noise=noise)


# -- what is registered


def test_every_sampler_is_in_the_lists(host):
    """Each is found by its label, behind the host's own, with options that the host knows."""
    before = host.sd_samplers.get_sampler_and_scheduler("kdiff/heun")
    assert before is None
    assert register() == LABELS
    assert [data.name for data in host.sd_samplers.all_samplers] == ["Euler", *LABELS]
    assert host.sd_samplers.shown == ["Euler", *LABELS]
    assert host.sd_samplers.get_sampler_and_scheduler("kdiff/heun").name == "kdiff/heun"
    plans = host.sd_schedulers.schedulers_map
    for data in host.sd_samplers.all_samplers[1:]:
        assert data.options.keys() <= OPTIONS
        assert data.options.get("scheduler", "kdiff/karras") in plans
        assert data.aliases == []


def test_options_say_what_the_samplers_do(host):
    """Second order is two calls a step; an eta of 0 is said; noise and its seeds are kdiff's own."""
    register()
    found = {data.name: data.options for data in host.sd_samplers.all_samplers}
    assert found["kdiff/heun"] == {"second_order": True, "scheduler": "kdiff/karras"}
    assert found["kdiff/ddim"] == {"default_eta_is_0": True, "scheduler": "kdiff/karras"}
    assert found["kdiff/flow/dpmpp_2m"] == {}
    assert "second_order" not in found["kdiff/dpm_fast"]
    for name in ("euler", "dpmpp_sde", "dpm2", "rk4"):
        made = build(host, f"kdiff/{name}")
        made.sample(job(), start() * 14.6, None, None)
        assert (made.model_wrap_cfg.calls > 5) == found[f"kdiff/{name}"].get("second_order", False)


def test_what_a_host_fills_in_is_what_the_sampler_means(host):
    """The host's range of levels and its eta are handed to no parameter that has another meaning."""
    register()
    assert "sigma_min" not in build(host, "kdiff/lcm").parameters
    assert "eta" not in build(host, "kdiff/tcd").parameters
    assert {"n", "sigma_min", "sigma_max"} <= build(host, "kdiff/dpm_fast").parameters.keys()
    assert {"sigmas", "eta"} <= build(host, "kdiff/euler_ancestral").parameters.keys()
    for label in LABELS:
        assert "noise_sampler" not in build(host, label).parameters
        assert all(p.kind is not p.VAR_KEYWORD for p in build(host, label).parameters.values())


def test_scripts_that_are_loaded_again_add_nothing(host):
    """The pack is run by its path, and once more when the host reloads its scripts."""
    for expected in (len(LABELS) + 1, len(LABELS) + 1):
        runpy.run_path(str(PACK / "scripts" / "kdiff.py"), run_name="kdiff.py")
        assert len(host.sd_samplers.all_samplers) == expected
    names = [each.name for each in host.sd_schedulers.schedulers]
    assert len(names) == len(set(names))


def test_without_kdiff_the_pack_says_what_to_install(host, monkeypatch):
    """Where the host's Python has no kdiff, the error is a command."""
    monkeypatch.setitem(sys.modules, "kdiff_sd.forge", None)
    with pytest.raises(ImportError, match="-m pip install kdiff-core"):
        runpy.run_path(str(PACK / "scripts" / "kdiff.py"), run_name="kdiff.py")


@pytest.mark.parametrize("clash", ["label", "alias", "schedule"])
def test_a_name_of_another_extension_is_refused(host, clash):
    """A label, alias or schedule that is there already is an error, and then nothing is added."""
    if clash == "schedule":
        other = Scheduler("kdiff/karras", "theirs", lambda **_: None)
        host.sd_schedulers.schedulers_map["kdiff/karras"] = other
    else:
        names = ("kdiff/euler", []) if clash == "label" else ("another", ["kdiff/heun"])
        host.sd_samplers.all_samplers.append(SamplerData(names[0], None, names[1], {}))
    before = len(host.sd_samplers.all_samplers), len(host.sd_schedulers.schedulers)
    with pytest.raises(AmbiguousNameError, match=r"not by kdiff.*prefix"):
        register()
    assert (len(host.sd_samplers.all_samplers), len(host.sd_schedulers.schedulers)) == before
    assert len(register("mine/", paths=("ve",))) == sum(path == "ve" for _, path in OFFERED)


def test_some_names_alone(host):
    """Chosen samplers are added by any of their names; unknown ones are refused."""
    assert register(names=["DPM++ 2M", "euler"]) == ["kdiff/dpmpp_2m", "kdiff/flow/dpmpp_2m", "kdiff/euler"]
    with pytest.raises(UnknownNameError):
        register(names=["eular"])
    with pytest.raises(UnknownNameError):
        register(scheduler="caras")


# -- what is run


@pytest.mark.parametrize(("name", "path"), OFFERED)
def test_every_sampler_gives_in_the_host_what_it_gives_alone(forge, name, path):
    """The result is that of the sampler called directly with the seeds of the images."""
    register(names=[name], paths=(path,))
    made = build(forge, f"kdiff/{name}" if path == "ve" else f"kdiff/flow/{name}")
    x, run = start(), job(path=path)
    x = x * run.sigmas[0]
    state = torch.random.get_rng_state()
    found = made.sample(run, x, None, None)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.allclose(found, directly(name, path, x, run.sigmas, run.seeds), rtol=1e-12, atol=1e-12)
    assert made.seen[0] == 0
    assert made.seen == sorted(made.seen)


STOCHASTIC = [(name, path) for name, path in OFFERED if kd.get_sampler(name).stochastic]


@pytest.mark.parametrize(("name", "path"), STOCHASTIC)
def test_a_seed_is_an_image_whatever_the_batch(forge, name, path):
    """A batch of two with seeds 1 and 2 is what two batches of one are; another seed is another image."""
    register(names=[name], paths=(path,))
    label = f"kdiff/{name}" if path == "ve" else f"kdiff/flow/{name}"
    x = start() * levels(path)[0]
    both = build(forge, label).sample(job((1, 2), path), x, None, None)
    for k in range(2):
        alone = build(forge, label).sample(job((k + 1,), path), x[k : k + 1], None, None)
        assert torch.allclose(alone, both[k : k + 1], rtol=1e-12, atol=1e-12)
    other = build(forge, label).sample(job((1, 3), path), x, None, None)
    assert torch.allclose(other[0], both[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(other[1], both[1], atol=1e-6)


def test_seeds_are_those_of_the_batch(forge):
    """Of a job with several batches each has its own part of all seeds; a wrong number is refused."""
    register(names=["euler_ancestral"])
    x = start() * 14.6
    run = job((3, 4))
    run.all_seeds = [1, 2, 3, 4]
    made = build(forge, "kdiff/euler_ancestral")
    wanted = directly("euler_ancestral", "ve", x, run.sigmas, (3, 4))
    assert torch.allclose(made.sample(run, x, None, None), wanted)
    del run.seeds
    with pytest.raises(StateError, match="4 seeds for a batch of 2"):
        made.sample(run, x, None, None)
    with pytest.raises(CapabilityError, match="no run of the host"):
        made.func(made.model_wrap_cfg, x, run.sigmas)


def test_image_to_image(forge):
    """A run that begins below the first level is that of the levels that are left."""
    register(names=["dpmpp_2m_sde"])
    run, x, noise = job(), start(), start().flip(0)
    found = build(forge, "kdiff/dpmpp_2m_sde").sample_img2img(run, x, noise, None, None)
    sigmas = run.sigmas[2:]
    assert torch.allclose(found, directly("dpmpp_2m_sde", "ve", x + sigmas[0] * noise, sigmas, run.seeds))


def test_the_hosts_churn_is_kdiffs(forge):
    """What the host's settings say of churn reaches the sampler, and there it is the modifier "churn"."""
    register(names=["euler"])
    made, x, run = build(forge, "kdiff/euler"), start() * 14.6, job()
    assert made.extra_params == ["s_churn", "s_tmin", "s_tmax", "s_noise"]
    made.settings = SETTINGS | {"s_churn": 2.0, "s_tmax": 8.0}
    found = made.sample(run, x, None, None)
    sampler = kd.get_modifier("churn", "euler", s_churn=2.0, s_tmax=8.0)
    wanted = sampler(network, x, run.sigmas.tolist(), noise=kd.KeyedNoise(run.seeds))
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, directly("euler", "ve", x, run.sigmas, run.seeds), atol=1e-3)


@pytest.mark.parametrize("name", ["euler", "dpmpp_sde", "dpm_adaptive", "dpm_fast"])
@pytest.mark.parametrize("where", ["model", "callback"])
def test_the_users_interruption_passes(forge, name, where):
    """It is raised out of the run, from the model as from the callback, and leaves no seeds behind."""
    register(names=[name])
    made = build(forge, f"kdiff/{name}")
    made.model_wrap_cfg.stop_at = 2 if where == "model" else None
    made.interrupted = where == "callback"
    with pytest.raises(InterruptedException):
        made.sample(job(), start() * 14.6, None, None)
    assert made.model_wrap_cfg.calls < 6
    assert samplers._seeds.get() is None


def test_a_flow_sampler_refuses_other_models(forge):
    """On levels above 1, which flow has not, it stops before the model is called."""
    register(names=["dpmpp_2m"])
    made = build(forge, "kdiff/flow/dpmpp_2m")
    with pytest.raises(GridError):
        made.sample(job(path="ve"), start(), None, None)
    assert made.model_wrap_cfg.calls == 0


# -- schedules


def test_every_schedule_is_in_the_list_and_in_the_map(host):
    """Each is there by name and label, and gives the number of levels that it is asked for."""
    register(names=["euler"])
    made = host.sd_schedulers.schedulers[1:]
    assert [(each.name, each.need_inner_model) for each in made] == [
        (f"kdiff/{name}", needs) for name, needs in schedules.offered()
    ]
    process = kd.get_process("sd")
    inner = SimpleNamespace(sigmas=torch.tensor(process.levels, dtype=torch.float32))
    for each in made:
        assert host.sd_schedulers.schedulers_map[each.name] is each
        assert host.sd_schedulers.schedulers_map[each.label] is each
        more = {"inner_model": inner} if each.need_inner_model else {}
        if each.default_rho > 0:
            more["rho"] = each.default_rho
        found = each.function(n=7, sigma_min=0.0292, sigma_max=14.61, device="cpu", **more)
        assert (found.shape, found.dtype, found.device.type) == ((8,), torch.float32, "cpu")
        assert (found.diff() < 0).all()
        options = {"process": process} if each.need_inner_model else {}
        schedule = kd.get_schedule(each.name.removeprefix("kdiff/"))
        wanted = schedule(7, sigma_min=0.0292, sigma_max=14.61, **options)
        assert torch.allclose(found, torch.tensor(list(wanted), dtype=torch.float32), rtol=1e-4)


def test_rho_is_the_hosts(host):
    """A schedule with a rho says its default, and takes another one."""
    register(names=["euler"])
    found = {each.name: each.default_rho for each in host.sd_schedulers.schedulers if each.default_rho > 0}
    assert found == {"kdiff/karras": 7.0, "kdiff/polyexponential": 1.0}
    function = host.sd_schedulers.schedulers_map["kdiff/karras"].function
    wanted = kd.get_schedule("karras", rho=3.0)(5, sigma_min=0.03, sigma_max=14.6)
    found = function(n=5, sigma_min=0.03, sigma_max=14.6, rho=3.0, device="cpu")
    assert torch.allclose(found, torch.tensor(list(wanted), dtype=torch.float32))


def test_a_schedule_that_needs_the_models_levels_says_so(host):
    """Where the model has no table of levels the schedule is refused with its reason."""
    register(names=["euler"])
    function = host.sd_schedulers.schedulers_map["kdiff/beta"].function
    with pytest.raises(CapabilityError, match="no table of levels"):
        function(n=5, sigma_min=0.03, sigma_max=14.6, inner_model=object(), device="cpu")
