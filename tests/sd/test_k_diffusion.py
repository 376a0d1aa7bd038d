"""k-diffusion's signature: its numbers, its callback, its noise, its helpers and its model wrappers."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pickle
import sys
import types
import warnings
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import F64, NAMES, interval_noise

import kdiff_core as kd
from kdiff_core.errors import CapabilityError, GridError, ParameterError
from kdiff_exact.empirical import EmpiricalDenoiser
from kdiff_sd import k_diffusion as K

DATA = Path(__file__).parents[1] / "data" / "hosts.npz"
THIRTEEN = (
    "euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms", "dpmpp_2s_ancestral", "dpmpp_sde",
    "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpm_fast", "dpm_adaptive",
)  # fmt: skip
RANGED = ("dpm_fast", "dpm_adaptive")
NOISY = (
    "euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde",
)  # fmt: skip
ANCESTRAL = ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral")
SIGMAS = torch.tensor([12.0, 9.5, 4.0, 3.1, 1.2, 0.9, 0.31, 0.05, 0.0], dtype=F64)
STATE = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=F64) * 12
law = settings(deadline=None, max_examples=max(10, settings().max_examples // 4))


def model(x, sigma, scale=1.0):
    """A smooth model, which is no linear function of the state."""
    s = sigma.reshape(-1, *[1] * (x.ndim - 1))
    return scale * torch.tanh(x / (1 + s)) / (1 + 0.1 * s)


def parity():
    """The problem of the recorded numbers."""
    spec = spec_from_file_location("recorded_problem", DATA.parents[1] / "samplers" / "test_parity.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked(noise_of=STATE):
    """A noise sampler that depends on the interval alone, and the intervals that it was asked for."""
    source, seen = interval_noise(noise_of), []

    def noise(sigma, sigma_next):
        assert sigma.ndim == sigma_next.ndim == 0
        seen.append((float(sigma), float(sigma_next)))
        return source.noise(noise_of, float(sigma), float(sigma_next))

    return noise, seen


@contextlib.contextmanager
def in_double():
    """Float64 by default: k-diffusion rounds levels to the default dtype."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    try:
        yield
    finally:
        torch.set_default_dtype(kept)


@pytest.fixture
def double():
    with in_double():
        yield


@pytest.fixture(scope="module")
def theirs():
    """``k_diffusion.sampling`` and ``external``, without what else the package imports."""
    spec = find_spec("k_diffusion")
    if spec is None:
        pytest.skip("k-diffusion is not installed")
    needed = ("torchdiffeq", "torchsde", "torchvision", "torchvision.transforms", "PIL", "safetensors")
    stubbed = {name: types.ModuleType(name) for name in needed if find_spec(name.partition(".")[0]) is None}
    for stub in stubbed.values():
        stub.__path__ = []
        stub.odeint = stub.transforms = stub.functional = stub.Image = None
    bare = types.ModuleType("k_diffusion")
    bare.__path__, bare.__spec__ = list(spec.submodule_search_locations), spec
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, module in {**stubbed, "k_diffusion": bare}.items():
            patch.setitem(sys.modules, name, module)
        loaded = [importlib.import_module(f"k_diffusion.{name}") for name in ("sampling", "external")]
    for name in [name for name in sys.modules if name.startswith("k_diffusion.")]:
        del sys.modules[name]
    return loaded


def run(module, name, calls=None, callback=None, **options):
    """Run a sampler of theirs or ours; the callback's dictionaries and the calls are noted in order."""

    def watched(x, sigma, **cond):
        if calls is not None:
            calls.append(("call", sigma.clone()))
        return model(x, sigma, **cond)

    def noted(d):
        assert {"x", "i", "sigma", "sigma_hat", "denoised"} <= set(d)
        calls.append(("callback", {k: v.clone() if torch.is_tensor(v) else v for k, v in d.items()}))

    function = getattr(module, f"sample_{name}")
    options |= {"disable": True, "callback": noted if callback else None, "extra_args": {"scale": 0.9}}
    if name == "dpm_fast":
        return function(watched, STATE, 0.05, 12.0, options.pop("n", 11), **options)
    if name == "dpm_adaptive":
        return function(watched, STATE, 0.05, 12.0, **options)
    return function(watched, STATE, SIGMAS, **options)


def with_noise(name):
    return {"noise_sampler": asked()[0]} if name in NOISY else {}


VARIANTS = [
    *((name, {}) for name in THIRTEEN),
    *((name, {"eta": 0.4, "s_noise": 1.1}) for name in NOISY),
    ("lms", {"order": 2}), ("dpmpp_2m_sde", {"solver_type": "heun"}), ("dpmpp_sde", {"r": 0.3}),
    ("dpm_fast", {"n": 9}), ("dpm_fast", {"n": 10}), ("dpm_adaptive", {"order": 2, "rtol": 0.02}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_numbers_and_moments_are_those_of_k_diffusion(theirs, double, name, options):
    """Given the same noise: the same state to 1e-10, model calls, callbacks between them, noise intervals."""
    found = []
    for module in (theirs[0], K):
        noise, seen = asked()
        calls = []
        given = options | ({"noise_sampler": noise} if name in NOISY else {})
        x = run(module, name, calls, callback=name != "dpm_adaptive", **given)
        found.append((x, calls, seen))
    (x, calls, seen), (ours, our_calls, our_seen) = found
    torch.testing.assert_close(ours, x, rtol=1e-10, atol=1e-10)
    assert np.allclose(our_seen, seen, rtol=1e-12)
    assert [kind for kind, _ in our_calls] == [kind for kind, _ in calls]
    for (_, mine), (kind, other) in zip(our_calls, calls, strict=True):
        if kind == "call":
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=0)
            continue
        assert mine["i"] == other["i"]
        for key in ("x", "sigma", "sigma_hat", "denoised"):
            torch.testing.assert_close(mine[key], other[key], rtol=1e-9, atol=1e-10)
            assert mine[key].shape == other[key].shape


@pytest.mark.parametrize("name", ANCESTRAL)
def test_old_images_are_met_with_the_default_noise_sampler(theirs, name):
    """With `default_noise_sampler` and one seed of the global generator the image is k-diffusion's."""
    torch.manual_seed(3)
    expected = run(theirs[0], name)
    torch.manual_seed(3)
    found = run(K, name, noise_sampler=K.default_noise_sampler(STATE))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
def test_churn_is_that_of_k_diffusion(theirs, name):
    """Churn in an interval of levels: the same levels, states and callbacks, given the same noise."""
    options = {"s_churn": 3.0, "s_tmin": 0.3, "s_tmax": 9.6, "s_noise": 1.01}
    draws = [torch.randn(STATE.shape, dtype=F64) for _ in range(len(SIGMAS) - 1)]
    # k-diffusion draws for each step, churned or not.
    churned = [d for d, s in zip(draws, SIGMAS.tolist(), strict=False) if 0.3 <= s <= 9.6]
    replaced, calls, our_calls = iter(draws), [], []
    fake = types.SimpleNamespace(**{n: getattr(torch, n) for n in ("no_grad",)})
    fake.randn_like = lambda x: next(replaced)
    theirs[0].torch, kept = fake, theirs[0].torch
    try:
        expected = run(theirs[0], name, calls, callback=True, **options)
    finally:
        theirs[0].torch = kept
    ours = iter(churned)
    found = run(K, name, our_calls, callback=True, noise_sampler=lambda a, b: next(ours), **options)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    hats = [[float(c["sigma_hat"]) for k, c in cs if k == "callback"] for cs in (our_calls, calls)]
    assert hats[0] == pytest.approx(hats[1], rel=1e-12)
    assert hats[0] != SIGMAS[:-1].tolist()


def test_adaptive_callbacks_are_those_of_accepted_tries(theirs, double):
    """Of an adaptive run the callback sees the accepted tries, and the information is k-diffusion's."""
    calls, ours = [], []
    _, info = run(theirs[0], "dpm_adaptive", calls, callback=True, return_info=True)
    x, found = run(K, "dpm_adaptive", ours, callback=True, return_info=True)
    assert {key: found[key] for key in ("steps", "nfe", "n_accept", "n_reject")} == info
    levels = [d["sigma"] for kind, d in calls if kind == "callback"]
    accepted = [float(b) for a, b in zip([SIGMAS[0], *levels], levels, strict=False) if a != b]
    shown = [d for kind, d in ours if kind == "callback"]
    assert [float(d["sigma"]) for d in shown] == pytest.approx(accepted, rel=1e-9)
    assert torch.equal(shown[-1]["x"], x)


def test_recorded_numbers():
    """Without k-diffusion at hand: what its 13 samplers gave, recorded, is met to 1e-9."""
    problem, met = parity(), 0
    with np.load(DATA) as recorded:
        for name in THIRTEEN:
            for grid in ("karras", "uneven", "partial"):
                key = f"k_diffusion/{name}/{grid}"
                if key not in recorded.files:
                    continue
                x, expected = torch.tensor(recorded[f"x/{grid}"]), torch.tensor(recorded[key])
                sigmas = torch.tensor(problem.grids()[grid][1], dtype=F64)
                source = interval_noise(x)
                noise = {"noise_sampler": source} if name in NOISY else {}
                function = getattr(K, f"sample_{name}")
                if name in RANGED:
                    low = float(sigmas[sigmas > 0].min())
                    count = (12,) if name == "dpm_fast" else ()
                    found = function(problem.mixture("ve"), x, low, float(sigmas[0]), *count, disable=True)
                else:
                    found = function(problem.mixture("ve"), x, sigmas, disable=True, **noise)
                assert float((found - expected).norm() / expected.norm()) < 1e-9, key
                met += 1
    assert met >= len(THIRTEEN)


def test_every_sampler_is_a_function():
    """Each sampler without a host is there by its name, listed, with a signature, and is pickled."""
    wanted = {f"sample_{name}" for name in NAMES if name.isidentifier()} | {f"sample_{n}" for n in THIRTEEN}
    assert wanted <= set(dir(K))
    for name in wanted:
        function = getattr(K, name)
        assert function.__name__ == name
        assert function.__doc__
        first = ["model", "x", "sigma_min" if name[7:] in RANGED else "sigmas"]
        assert list(inspect.signature(function).parameters)[:3] == first
        assert pickle.loads(pickle.dumps(function)) is function
    assert K.sampling is K


@pytest.mark.parametrize(
    "name", ["uni_pc", "res_2s", "seeds_2", "sa_solver", "restart", "adaptive", "riemannian"]
)
def test_other_samplers_run_by_the_signature(name):
    """A sampler that k-diffusion has not gives the numbers of kdiff by its signature, and shows its steps."""
    shown, source = [], kd.KeyedNoise(5)
    sigmas = SIGMAS
    found = getattr(K, f"sample_{name}")(model, STATE, sigmas, callback=shown.append, noise_sampler=source)
    expected = kd.get_sampler(name)(model, STATE, sigmas, noise=source)
    assert torch.equal(found, expected)
    assert shown
    places = [d["i"] for d in shown]
    assert places == sorted(places)
    assert name in ("adaptive",) or places[-1] < len(sigmas) - 1


def test_options_keep_their_names():
    """The options of k-diffusion's functions are those of ours, with its defaults."""
    theirs = {
        "euler": {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": float("inf"), "s_noise": 1.0},
        "euler_ancestral": {"eta": 1.0, "s_noise": 1.0, "noise_sampler": None},
        "lms": {"order": 4},
        "dpmpp_sde": {"eta": 1.0, "s_noise": 1.0, "noise_sampler": None, "r": 0.5},
        "dpmpp_2m_sde": {"eta": 1.0, "s_noise": 1.0, "noise_sampler": None, "solver_type": "midpoint"},
        "dpm_fast": {"eta": 0.0, "s_noise": 1.0, "noise_sampler": None, "n": inspect.Parameter.empty},
        "dpm_adaptive": {
            "order": 3, "rtol": 0.05, "atol": 0.0078, "h_init": 0.05, "pcoeff": 0.0, "icoeff": 1.0,
            "dcoeff": 0.0, "accept_safety": 0.81, "eta": 0.0, "s_noise": 1.0, "noise_sampler": None,
            "return_info": False,
        },
    }  # fmt: skip
    for name, options in theirs.items():
        known = inspect.signature(getattr(K, f"sample_{name}")).parameters
        assert {option: known[option].default for option in options} == options
        assert {"extra_args", "callback", "disable"} <= set(known)


def test_the_default_noise_follows_torchs_seed():
    """One seed of the global generator is one image; a deterministic run draws nothing."""

    def image(seed, name):
        torch.manual_seed(seed)
        return run(K, name)

    for name in NOISY:
        assert torch.equal(image(1, name), image(1, name))
        assert not torch.equal(image(1, name), image(2, name))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run(K, "dpmpp_2m")
    assert torch.equal(torch.get_rng_state(), before)
    run(K, "euler_ancestral")
    assert not torch.equal(torch.get_rng_state(), before)
    drawn = torch.get_rng_state()
    torch.set_rng_state(before)
    torch.randint(0, 2**63 - 1, ())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_runs_record_no_gradient():
    """As k-diffusion's, a run records no gradient, whatever the model's parameters require."""
    weight = torch.tensor(0.5, dtype=F64, requires_grad=True)
    found = K.sample_heun(lambda x, sigma: weight * x, STATE, SIGMAS, disable=True)
    assert not found.requires_grad


def test_a_host_replaces_trange_and_can_end_the_run():
    """``trange`` of the module is asked for the steps; where it ends early the state so far comes back."""
    asked_for, kept = [], K.trange

    def stopping(count, disable=None):
        asked_for.append((count, disable))
        yield from range(3)

    K.trange = stopping
    try:
        found = K.sample_dpmpp_2m(model, STATE, SIGMAS, disable=True)
    finally:
        K.trange = kept
    assert asked_for == [(len(SIGMAS) - 1, True)]
    assert torch.equal(found, kd.get_sampler("dpmpp_2m").run(model, STATE, SIGMAS, stop=3).x)


def test_what_stops_a_run_comes_through():
    """An exception of the model or of the callback, such as an interruption, is the host's own."""

    class Interrupted(BaseException):
        pass

    def stop(d):
        raise Interrupted

    with pytest.raises(Interrupted):
        K.sample_euler(model, STATE, SIGMAS, callback=stop, disable=True)


def test_callbacks_get_their_own_states():
    """What a callback keeps is its own memory, and that it writes is refused, for it would have no effect."""
    memory, kept = [STATE.data_ptr()], []

    def noting(x, sigma):
        found = model(x, sigma)
        memory.extend((x.data_ptr(), found.data_ptr()))
        return found

    keep = lambda d: kept.extend((v, v.clone(), list(memory)) for v in (d["x"], d["denoised"]))  # noqa: E731
    K.sample_heun(noting, STATE, SIGMAS, callback=keep, disable=True)
    assert len(kept) == 2 * (len(SIGMAS) - 1)
    assert all(torch.equal(value, then) for value, then, _ in kept)
    assert all(value.data_ptr() not in (models[0], *models[-2:]) for value, _, models in kept)

    def write(d):
        d["x"].mul_(0)

    with pytest.raises(CapabilityError, match="copies"):
        K.sample_heun(model, STATE, SIGMAS, callback=write, disable=True)


@pytest.mark.parametrize("name", ["heun", "dpm_adaptive"])
def test_callbacks_in_inference_mode(name):
    """Inside of `torch.inference_mode`, as hosts run it, a callback is shown and refused the same."""
    function, levels = getattr(K, f"sample_{name}"), (0.05, 12.0) if name == "dpm_adaptive" else (SIGMAS,)
    shown = []
    with torch.inference_mode():
        x = STATE.clone()
        found = function(model, x, *levels, callback=shown.append, disable=True)
        with pytest.raises(CapabilityError, match="copies"):
            function(model, x, *levels, callback=lambda d: d["denoised"].add_(1), disable=True)
    assert shown
    assert torch.equal(found, function(model, STATE, *levels, disable=True))


def test_short_grids_return_the_state():
    """A host may give one level or none: the state comes back as it is."""
    for sigmas in (SIGMAS[:1], SIGMAS[:0]):
        assert K.sample_euler(model, STATE, sigmas) is STATE


def test_refusals():
    """What cannot be done is refused: unknown names and options, eta of dpm_fast, rising levels."""
    with pytest.raises(AttributeError, match="did you mean 'euler'"):
        _ = K.sample_eler
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = K.nothing
    with pytest.raises(ParameterError, match="s_chrn"):
        K.sample_euler(model, STATE, SIGMAS, s_chrn=1.0)
    with pytest.raises(CapabilityError, match="eta"):
        K.sample_dpm_fast(model, STATE, 0.1, 10.0, 5, eta=1.0)
    with pytest.raises(GridError):
        K.sample_euler(model, STATE, SIGMAS.flip(0)[1:])
    with pytest.raises(TypeError):
        K.sample_euler(model, STATE)


def test_models_of_kdiff_keep_their_path():
    """A denoiser on the flow path is run on it; what is no path or process of the model's is not asked."""
    flow = EmpiricalDenoiser(torch.randn(6, 3, dtype=F64), path="flow")
    sigmas = torch.tensor([1.0, 0.6, 0.3, 0.0], dtype=F64)
    x = torch.randn(2, 3, dtype=F64)
    expected = kd.get_sampler("dpmpp_2m")(flow, x, sigmas)
    assert torch.equal(K.sample_dpmpp_2m(flow, x, sigmas, disable=True), expected)

    class Host:
        path, process = "/models/one.ckpt", "sd"

        def __call__(self, x, sigma):
            return model(x, sigma)

    found = K.sample_dpmpp_2m(Host(), STATE, SIGMAS, disable=True)
    assert torch.equal(found, kd.get_sampler("dpmpp_2m")(model, STATE, SIGMAS))


def test_guided_models_give_their_parts():
    """A sampler that needs the unconditional output gets it from a guided model; others are told."""

    class Guided:
        def predict(self, x, sigma, scale):
            cond, uncond = model(x, sigma), model(x, sigma, 0.5)
            return kd.Prediction(uncond + scale * (cond - uncond), cond, uncond)

        def __call__(self, x, sigma, scale):
            return self.predict(x, sigma, scale).denoised

    shown, extra = [], {"scale": 3.0}
    found = K.sample_euler_cfg_pp(Guided(), STATE, SIGMAS, extra, shown.append, True)
    assert torch.equal(found, kd.get_sampler("euler_cfg_pp")(Guided(), STATE, SIGMAS, cond=extra))
    assert torch.equal(shown[0]["denoised"], Guided()(STATE, SIGMAS[:1].expand(2), 3.0))
    with pytest.raises(CapabilityError, match="predict"):
        K.sample_euler_cfg_pp(model, STATE, SIGMAS, disable=True)


@law
@given(n=st.integers(1, 60), low=st.floats(0.01, 0.5), high=st.floats(1.0, 100.0), rho=st.floats(1.0, 9.0))
def test_schedules_are_those_of_k_diffusion(theirs, n, low, high, rho):
    """Each ``get_sigmas_`` gives k-diffusion's levels to float32's rounding, as float32 with a 0 behind."""
    for name, args in (
        ("karras", (low, high, rho)), ("exponential", (low, high)), ("polyexponential", (low, high, rho)),
        ("vp", ()),
    ):  # fmt: skip
        found = getattr(K, f"get_sigmas_{name}")(n, *args)
        assert (found.dtype, found.shape, float(found[-1])) == (torch.float32, (n + 1,), 0.0)
        with in_double():
            expected = getattr(theirs[0], f"get_sigmas_{name}")(n, *args)
        torch.testing.assert_close(found.double(), expected, rtol=2e-7, atol=0)


@law
@given(high=st.floats(0.1, 50.0), ratio=st.floats(0.01, 0.99), eta=st.sampled_from([0.0, 0.3, 1.0, 2.0]))
def test_helpers_are_those_of_k_diffusion(theirs, high, ratio, eta):
    """``get_ancestral_step`` and ``to_d`` agree with k-diffusion's on numbers and tensors."""
    for make in (float, lambda value: torch.tensor(value, dtype=F64)):
        step = [make(high), make(high * ratio)]
        found, expected = K.get_ancestral_step(*step, eta), theirs[0].get_ancestral_step(*step, eta=eta)
        # k-diffusion subtracts squares.
        wanted = [float(v) for v in expected]
        assert [float(v) for v in found] == pytest.approx(wanted, rel=1e-6, abs=1e-7 * high)
    sigma = torch.tensor([high, high * ratio], dtype=F64)
    expected = theirs[0].to_d(STATE, sigma, STATE * 0.3)
    torch.testing.assert_close(K.to_d(STATE, sigma, STATE * 0.3), expected)
    torch.testing.assert_close(K.append_zero(sigma), theirs[0].append_zero(sigma))


def test_brownian_noise_is_one_path():
    """The noise of an interval is that of its parts, has unit variance, and one seed for each sample."""
    x = torch.zeros(2, 4000, dtype=F64)
    noise = K.BrownianTreeNoiseSampler(x, 0.1, 10.0, seed=[3, 4])
    whole = noise(10.0, 1.0) * 9**0.5
    parts = noise(torch.tensor(10.0), torch.tensor(4.0)) * 6**0.5 + noise(4.0, 1.0) * 3**0.5
    torch.testing.assert_close(whole, parts, rtol=1e-6, atol=1e-6)
    assert float(noise(10.0, 1.0).std()) == pytest.approx(1.0, abs=0.05)
    alone = K.BrownianTreeNoiseSampler(x[:1], 0.1, 10.0, seed=[4])
    assert torch.equal(alone(10.0, 1.0)[0], noise(10.0, 1.0)[1])
    torch.manual_seed(0)
    first = K.BrownianTreeNoiseSampler(x, 0.1, 10.0)(3.0, 2.0)
    torch.manual_seed(0)
    assert torch.equal(K.BrownianTreeNoiseSampler(x, 0.1, 10.0)(3.0, 2.0), first)


class Latent:
    """A latent diffusion model."""

    alphas_cumprod = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)

    def apply_model(self, x, t, cond):
        return net(x, t) + cond


def net(x, t, **cond):
    assert t.dtype in (torch.int64, torch.float32, torch.float64)
    return torch.sin(x + t.to(x).reshape(-1, 1, 1, 1) / 300)


class Wide:
    def __call__(self, x, t, y=0.0):
        return torch.cat([net(x, t) + y, torch.ones_like(x)], 1)


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("kind", ["CompVisDenoiser", "CompVisVDenoiser", "OpenAIDenoiser", "VDenoiser"])
def test_model_wrappers_are_those_of_k_diffusion(theirs, kind, quantize):
    """Each wrapper of ``external`` gives k-diffusion's output and maps levels and timesteps as it does."""
    x = torch.randn(3, 2, 4, 4) * 5
    sigma = torch.tensor([0.05, 1.3, 9.0])
    pair, cond = [], {}
    for module in (theirs[1], K.external):
        make = getattr(module, kind)
        if kind == "VDenoiser":
            pair.append(make(net))
            continue
        cond = {"cond": 0.2} if "CompVis" in kind else {"y": 0.2}
        args = (Wide(), types.SimpleNamespace(alphas_cumprod=Latent.alphas_cumprod.double().numpy()))
        pair.append(make(*([Latent()] if "CompVis" in kind else args), quantize=quantize))
    their, our = pair
    torch.testing.assert_close(our(x, sigma, **cond), their(x, sigma, **cond), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(our.sigma_to_t(sigma), their.sigma_to_t(sigma), rtol=1e-4, atol=1e-3)
    t = torch.tensor([0.1, 0.5]) if kind == "VDenoiser" else torch.tensor([3.0, 500.25, 999.0])
    torch.testing.assert_close(our.t_to_sigma(t), their.t_to_sigma(t), rtol=1e-5, atol=0)
    if kind != "VDenoiser":
        for n in (None, 1, 7):
            torch.testing.assert_close(our.get_sigmas(n), their.get_sigmas(n), rtol=1e-4, atol=0)
        assert float(our.sigma_min) == pytest.approx(float(their.sigma_min))
        assert float(our.sigma_max) == pytest.approx(float(their.sigma_max))
