"""Parameterisations: each gives back an exact denoiser; what networks are told; wrappers of models."""

from __future__ import annotations

import copy
import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import F64

import kdiff_core as kd
from kdiff_core.errors import CapabilityError, DenoiserError, ParameterError
from kdiff_core.parameterisations import Parameterised
from kdiff_core.predictions import INPUTS, PREDICTIONS, TIMES, table_level, table_place
from kdiff_core.testing import Gaussian, check_denoiser
from kdiff_sd.wrappers import FromEDM, FromKDiffusion, from_compvis, from_guided_diffusion

law = settings(deadline=None, max_examples=max(8, settings().max_examples // 8))
EPS = torch.finfo(F64).eps
PROCESSES = ("sd", "linear", "cosine", "cogvideox", "vp", "edm", "trigflow", "continuous_v", "flow", "sd3")
# What means something on every process; the others say nothing of the data where a flow begins.
EVERYWHERE = ("v_prediction", "sample", "flow_prediction")
ON_VE = (*EVERYWHERE, "epsilon", "edm", "trigflow", "consistency", "cosmos")
PAIRS = [
    (prediction, process)
    for process in PROCESSES
    for prediction in (EVERYWHERE if process in ("flow", "sd3") else ON_VE)
]
pairs = pytest.mark.parametrize(("prediction", "process"), PAIRS)
DATA = Gaussian("ve", mean=(0.5, -1.0, 0.2), covariance=(1.0, 0.3, 0.6))


def exact(path):
    return Gaussian(path, mean=DATA.mean, covariance=DATA.covariance)


def targets(prediction, a, s, x, x0):
    """What a perfect network of a kind returns for ``x = a x0 + s noise``, as the papers define it."""
    noise, ratio = (x - a * x0) / s, s / a
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return x0
    if prediction == "v_prediction":  # cos(phi) noise - sin(phi) x0, tan(phi) = s / a
        phi = torch.atan2(s, a)
        return phi.cos() * noise - phi.sin() * x0
    if prediction in ("flow_prediction", "cosmos"):
        return noise - x0
    y = x / a  # the others are defined on VE
    if prediction == "edm":
        return (x0 - 0.25 / (ratio**2 + 0.25) * y) * (ratio**2 + 0.25).sqrt() / (0.5 * ratio)
    if prediction == "trigflow":
        t = torch.atan(ratio / 0.5)
        return (t.cos() * (t.cos() * y) - x0) / (t.sin() * 0.5)
    assert prediction == "consistency"
    skip, out = 0.25 / ((ratio - 0.002) ** 2 + 0.25), 0.5 * (ratio - 0.002) / (ratio**2 + 0.25).sqrt()
    return (x0 - skip * y) / out


def inputs(prediction, path, a, s, x):
    """What such a network is given: the papers' scaling of the state."""
    if path == "flow":
        return x
    if prediction in ("edm", "trigflow", "consistency"):
        return x / (s**2 + 0.25).sqrt()
    return x / (1 + s) if prediction in ("flow_prediction", "cosmos") else x / (1 + s**2).sqrt()


def network_of(prediction, process, seen=None):
    """The network that a perfect model would be, which knows the level that it is called at."""
    path = process.path
    denoiser = exact(path)

    def network(z, t, *, level):
        s = level[:, None]
        a = torch.ones_like(s) if path == "ve" else 1 - s
        x = z / inputs(prediction, path, a, s, torch.ones_like(z))
        if seen is not None:
            seen.append((z, t))
        return targets(prediction, a, s, x, denoiser(x, level))

    return network


def states(process, places, seed):
    """Levels of a process, and states at them."""
    sigma = torch.tensor([process.sigma(u) for u in places], dtype=F64)
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, len(places), 3, generator=generator, dtype=F64)
    alpha = torch.ones_like(sigma) if process.path == "ve" else 1 - sigma
    return alpha[:, None] * x0 + sigma[:, None] * noise, sigma


places = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4)


@pairs
@law
@given(places=places, seed=st.integers(0, 2**31))
def test_gives_back_the_denoiser(prediction, process, places, seed):
    """A perfect network gives the exact denoiser to rounding, at mixed levels of each process."""
    process = kd.get_process(process)
    if prediction == "consistency":  # at 0.002 it returns the state, whatever the network says
        places = [max(place, 0.01) for place in places]
    x, sigma = states(process, places, seed)
    found = Parameterised(network_of(prediction, process), prediction, process=process)(x, sigma, level=sigma)
    expected = exact(process.path)(x, sigma)
    # D is a difference of numbers as large as the state.
    scale = 1 + x.abs().amax(1, keepdim=True) + expected.abs().amax(1, keepdim=True)
    assert float(((found - expected).abs() / scale).max()) < 200 * EPS


@law
@given(places=places, seed=st.integers(0, 2**31), quantised=st.booleans())
def test_lcm_is_a_boundary_around_epsilon(places, seed, quantised):
    """A latent consistency model is ``c_skip x_vp + c_out x0`` with ``x0`` from its noise prediction."""
    process = kd.get_process("sd")
    x, sigma = states(process, places, seed)
    network, options = (lambda z, t: z.sin()), {"process": process, "quantised": quantised}
    x0 = Parameterised(network, "epsilon", **options)(x, sigma)
    denoiser = Parameterised(network, "lcm", **options)
    t = 10 * denoiser.times(sigma).double()[:, None]
    expected = 0.25 / (t**2 + 0.25) * x / (1 + sigma**2).sqrt()[:, None] + t / (t**2 + 0.25).sqrt() * x0
    # `times` is what the network gets, float32.
    torch.testing.assert_close(denoiser(x, sigma), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("process", ["sd", "edm", "flow"])
@law
@given(places=st.lists(st.floats(0.0, 0.97), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_round_trip(process, places, seed):
    """A network's output, as eps, v, x0 and flow in turn, is one and the same denoised state."""
    process = kd.get_process(process)
    x, sigma = states(process, places, seed)
    a, s = (torch.ones_like(sigma) if process.path == "ve" else 1 - sigma)[:, None], sigma[:, None]
    x0 = Parameterised(lambda z, t: z.cos(), "v", process=process)(x, sigma)
    for prediction in (*EVERYWHERE, "epsilon")[: 4 if process.path == "ve" else 3]:
        output = targets(prediction, a, s, x, x0)
        for negated in (False, True):
            network = lambda z, t, output=output, negated=negated: -output if negated else output  # noqa: E731
            found = Parameterised(network, prediction, process=process, negated=negated)(x, sigma)
            torch.testing.assert_close(found, x0, rtol=1e-11, atol=1e-11 * float(1 + x.abs().max()))


@pytest.mark.parametrize(
    ("prediction", "process"),
    [*((p, "sd") for p in (*ON_VE, "lcm")), *((p, "sd3") for p in EVERYWHERE), ("sample", "cogvideox")],
)
def test_laws_of_denoisers(prediction, process):
    """Each is a denoiser by the conformance kit: finite over its range, each sample at its own level."""
    weight = torch.linspace(-1, 1, 9, dtype=F64).reshape(3, 3)

    def network(z, t):
        return torch.sin(z.double() @ weight + 1e-3 * t.double()[:, None])

    about = {"sample_shape": (3,)}
    denoiser = Parameterised(network, prediction, process=process, about=about)
    check_denoiser(denoiser, examples=4).raise_if_broken()


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "euler_ancestral", "res_2s"])
@pytest.mark.parametrize("prediction", ON_VE)
def test_samples_are_those_of_the_exact_denoiser(prediction, sampler):
    """Each sampler gives the same states with a parameterised network as with the denoiser it stands for."""
    process = kd.get_process("flow" if prediction == "flow_prediction" else "sd")
    network = network_of(prediction, process)
    inner = Parameterised(lambda z, t, level: network(z, t, level=level), prediction, process=process)

    def denoiser(x, sigma):
        return inner(x, sigma, level=sigma)

    denoiser.path = process.path
    schedule = "karras" if process.path == "ve" else "sgm_uniform"
    sigmas = kd.get_schedule(schedule)(8, process=process)
    x = kd.start(sigmas, like=torch.empty(3, 3, dtype=F64), path=process.path, seed=1)
    run = kd.get_sampler(sampler)
    found, expected = (run(d, x, sigmas, seed=2) for d in (denoiser, exact(process.path)))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


TOLD = [
    ("epsilon", "sd", {}, [0.0, 250.5, 999.0], [0.0, 250.5, 999.0]),
    ("epsilon", "sd", {"quantised": True}, [0.0, 250.2, 250.8], [0, 250, 251]),
    ("flow", "flow", {}, None, [300.0, 500.0, 1000.0]),
    ("flow", "flow", {"time_scale": 1.0}, None, [0.3, 0.5, 1.0]),
    ("flow", "flow", {"time": "data_fraction", "negated": True, "time_scale": 1.0}, None, [0.7, 0.5, 0.0]),
    ("cosmos", "edm", {}, None, [0.3 / 1.3, 0.5 / 1.5, 0.5]),
    ("edm", "edm", {}, None, [math.log(0.3) / 4, math.log(0.5) / 4, 0.0]),
    ("trigflow", "trigflow", {}, None, [math.atan(0.6), math.atan(1.0), math.atan(2.0)]),
    ("consistency", "edm", {}, None, [250 * math.log(0.3), 250 * math.log(0.5), 0.0]),
    ("epsilon", "ve", {"input": "state", "time": "log_half"}, None, [math.log(v / 2) for v in (0.3, 0.5, 1)]),
    ("epsilon", "ve", {"time": "sigma"}, None, [0.3, 0.5, 1.0]),
    ("sample", "edm", {"time": lambda level: 3 * level.sigma}, None, [0.9, 1.5, 3.0]),
]


@pytest.mark.parametrize(
    ("prediction", "process", "options", "timesteps", "told"), TOLD, ids=range(len(TOLD))
)
def test_what_networks_are_told(prediction, process, options, timesteps, told):
    """A network is told the level as its paper has it: a timestep, a logarithm, an angle, a fraction."""
    process = kd.get_process(process)
    levels = [0.3, 0.5, 1.0] if timesteps is None else [process.sigma(t / 999) for t in timesteps]
    seen = []

    def network(z, t):
        seen.append(t)
        return z

    denoiser = Parameterised(network, prediction, process=process, **options)
    denoiser(torch.zeros(3, 2, dtype=F64), torch.tensor(levels, dtype=F64))
    assert seen[0].tolist() == pytest.approx(told, rel=1e-12, abs=1e-9)
    assert seen[0].dtype == (torch.int64 if options.get("quantised") else F64)
    torch.testing.assert_close(denoiser.times(torch.tensor(levels, dtype=F64)).double(), seen[0].double())


@law
@given(places=places, process=st.sampled_from(["sd", "cosine", "cogvideox"]))
def test_timesteps_are_those_of_the_process(places, process):
    """A level's place in the table is the process's own, both ways, and cut at the table's ends."""
    process = kd.get_process(process)
    logs = torch.tensor(process.levels, dtype=F64).log()
    levels = torch.tensor([process.sigma(u) for u in places], dtype=F64)
    last = len(logs) - 1
    expected = torch.tensor([process.t(v) * last for v in levels.tolist()], dtype=F64)
    torch.testing.assert_close(table_place(levels, logs), expected.clamp(0, last), rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(table_level(table_place(levels, logs), logs), levels, rtol=1e-9, atol=0)
    beyond = torch.tensor([0.0, process.sigma_min / 2, process.sigma_max * 2], dtype=F64)
    assert table_place(beyond, logs).tolist() == [0, 0, last]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("state", [torch.float64, torch.float32, torch.bfloat16])
def test_networks_run_in_their_own_dtype(dtype, state):
    """The input has the network's dtype, the output the state's; the time is never in half precision."""
    seen = []

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

        def forward(self, z, t):
            seen.append((z.dtype, t.dtype, float(t[0])))
            return z * self.weight

    denoiser = Parameterised(Network().to(dtype), "v", process="sd")
    level = kd.get_process("sd").sigma(501 / 999)
    found = denoiser(torch.ones(1, 3, dtype=state), torch.tensor([level], dtype=torch.float32))
    assert (found.dtype, denoiser.dtype) == (state, dtype)
    assert seen[0][:2] == (dtype, F64 if dtype == F64 else torch.float32)
    assert seen[0][2] == pytest.approx(501, abs=1e-3)  # 500 in bfloat16


def test_float32_states_keep_their_digits():
    """With a state in float32 the denoised state is the exact one to float32's rounding of the state."""
    process = kd.get_process("sd")
    x, sigma = (value.float() for value in states(process, [0.0, 0.1, 0.5, 1.0], 0))
    for prediction in ("v_prediction", "sample", "epsilon"):
        network = network_of(prediction, process)

        def wide(z, t, level, network=network):
            return network(z.double(), t, level=level.double())

        found = Parameterised(wide, prediction, process=process)(x, sigma, level=sigma)
        expected = exact("ve")(x.double(), sigma.double())
        scale = 1 + x.double().abs().amax(1, keepdim=True)
        assert float(((found - expected).abs() / scale).max()) < 8 * torch.finfo(torch.float32).eps


def test_learned_variance():
    """Of twice the channels the first half is the prediction, the second is the variance, as it is."""

    def network(z, t):
        return torch.cat([z, 7 + z], 1)

    denoiser = Parameterised(network, "x0", process="sd", learned_variance=True)
    x, sigma = torch.randn(2, 3, 4, 4, dtype=F64), torch.tensor([0.5, 2.0], dtype=F64)
    scaled = x / (1 + sigma**2).sqrt()[:, None, None, None]
    torch.testing.assert_close(denoiser(x, sigma), scaled)
    torch.testing.assert_close(denoiser.variance(x, sigma), 7 + scaled)
    with pytest.raises(DenoiserError, match="is it learned_variance=True"):
        Parameterised(network, "x0", process="sd")(x, sigma)
    with pytest.raises(DenoiserError, match="twice its channels"):
        Parameterised(lambda z, t: z, "x0", process="sd", learned_variance=True)(x, sigma)
    with pytest.raises(ParameterError, match="learned_variance is False"):
        Parameterised(network, "x0", process="sd").variance(x, sigma)


def same(z, t):
    return z


def test_defaults_and_facts():
    """The prediction comes from the process, the process from the prediction; facts are the process's."""
    assert Parameterised(same, process="cogvideox").prediction == "v_prediction"
    assert Parameterised(same, process="trigflow").sigma_data == 0.5
    denoiser = Parameterised(same, "edm", about={"sample_shape": (3, 8, 8)})
    assert (denoiser.path, denoiser.sigma_min, denoiser.sigma_max) == ("ve", 0.002, 80.0)
    assert denoiser.sample_shape == (3, 8, 8)
    assert not hasattr(denoiser, "classes")
    assert Parameterised(same, "flow").path == "flow"
    for made in (copy.deepcopy(denoiser), pickle.loads(pickle.dumps(denoiser))):
        assert (made.prediction, made.sample_shape) == ("edm", (3, 8, 8))
    assert set(PREDICTIONS) >= {*ON_VE, "lcm"}
    assert {p.input for p in PREDICTIONS.values()} <= {None, *INPUTS}
    assert {p.time for p in PREDICTIONS.values()} <= set(TIMES)


def test_a_network_moves_with_its_denoiser():
    """A denoiser has its module's parameters, and moves them; one of a plain function has none, and stays."""
    layer = torch.nn.Linear(3, 3)
    denoiser = Parameterised(layer, "edm")
    assert list(denoiser.parameters()) == list(layer.parameters())
    assert denoiser.to("meta") is denoiser
    assert {weight.device.type for weight in denoiser.parameters()} == {"meta"}
    plain = Parameterised(same, "edm")
    assert (list(plain.parameters()), plain.to("meta"), plain.dtype) == ([], plain, None)


def test_a_parameterisation_of_ones_own():
    """A function of a level is a prediction: here the score."""

    def score(level):
        return 1 / level.alpha, level.sigma**2 / level.alpha

    process = kd.get_process("ve")
    x, sigma = states(process, [0.2, 0.8], 0)

    def network(z, t, level):
        return (exact("ve")(z, level) - z) / level[:, None] ** 2

    denoiser = Parameterised(network, score, process=process, input="state")
    torch.testing.assert_close(denoiser(x, sigma, level=sigma), exact("ve")(x, sigma))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction": "epsylon", "process": "sd"}, "did you mean 'epsilon'"),
        ({"prediction": "epsilon"}, "process= is needed"),
        ({}, "prediction= is needed"),
        ({"prediction": "epsilon", "process": "flow"}, "means nothing"),
        ({"prediction": "edm", "process": "sd3"}, "means nothing"),
        ({"prediction": "edm", "sigma_data": 0.0}, "sigma_data"),
        ({"prediction": "edm", "input": "vq"}, "input='vq'"),
        ({"prediction": "edm", "time": "tme"}, "time='tme'"),
    ],
)
def test_refusals(options, message):
    """What cannot be meant is refused when the denoiser is made."""
    with pytest.raises(ParameterError, match=message):
        Parameterised(same, **options)
    with pytest.raises(ParameterError, match="cannot be called"):
        Parameterised(3, "edm")


def test_outputs_that_are_no_state_are_refused():
    """A network that returns an object or another shape is told what it returned."""
    x, sigma = torch.zeros(1, 3), torch.ones(1)
    with pytest.raises(DenoiserError, match="returned a dict"):
        Parameterised(lambda z, t: {"sample": z}, "edm")(x, sigma)
    with pytest.raises(DenoiserError, match=r"\(1, 2\)"):
        Parameterised(lambda z, t: z[:, :2], "edm")(x, sigma)


ALPHAS = torch.cumprod(1 - torch.linspace(0.0001, 0.02, 1000, dtype=F64), 0)
X, SIGMA = torch.randn(2, 4, 3, 3, dtype=F64), torch.tensor([0.4, 6.0], dtype=F64)


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_compvis(kind):
    """A latent diffusion model gets its condition by place, in its own dtype and parameterisation."""

    class Latent(torch.nn.Linear):
        alphas_cumprod, parameterization = ALPHAS, kind

        def apply_model(self, x, t, c):
            assert x.dtype == torch.float32
            return x * c + t.reshape(-1, 1, 1, 1) / 1000

    found = from_compvis(Latent(2, 2))(X, SIGMA, cond=0.5)

    def network(z, t):
        return z * 0.5 + t.reshape(-1, 1, 1, 1) / 1000

    process = kd.get_process("alphas_cumprod", alphas_cumprod=ALPHAS.tolist())
    expected = Parameterised(network, kind, process=process)(X, SIGMA)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_guided_diffusion():
    """What a diffusion says of its model is kept to: mean, variance, the scale of its time, no selections."""

    def kind(name):
        return SimpleNamespace(name=name)

    seen = []

    def model(x, t, y):
        seen.append(float(t[0]))
        return torch.cat([x * y, x], 1)

    alphas = ALPHAS[::2].numpy()
    said = {
        "model_mean_type": kind("START_X"),
        "model_var_type": kind("LEARNED_RANGE"),
        "rescale_timesteps": True,
    }
    denoiser = from_guided_diffusion(model, SimpleNamespace(alphas_cumprod=alphas, **said))
    level = torch.full((2,), denoiser.process.sigma(100 / 499), dtype=F64)
    scaled = X / (1 + level[0] ** 2).sqrt()
    torch.testing.assert_close(denoiser(X, level, y=2.0), 2 * scaled)
    torch.testing.assert_close(denoiser.variance(X, level, y=2.0), scaled)
    assert seen[0] == pytest.approx(200)
    plain = from_guided_diffusion(same, SimpleNamespace(alphas_cumprod=alphas))
    assert (plain.prediction, plain.learned_variance) == ("epsilon", False)
    for wrong in ({"model_mean_type": kind("PREVIOUS_X")}, {"timestep_map": list(range(0, 1000, 2))}):
        with pytest.raises(CapabilityError):
            from_guided_diffusion(same, SimpleNamespace(alphas_cumprod=alphas, **wrong))


def test_k_diffusion_models():
    """A k-diffusion model is a denoiser as it is; its table is its process."""

    def model(x, sigma, scale=1.0):
        return scale * x / (1 + sigma.reshape(-1, 1, 1, 1))

    model.sigmas = ((1 - ALPHAS) / ALPHAS).sqrt()
    denoiser = FromKDiffusion(model)
    assert torch.equal(denoiser(X, SIGMA, scale=2.0), model(X, SIGMA, scale=2.0))
    assert (denoiser.path, denoiser.sigma_max) == ("ve", pytest.approx(float(model.sigmas[-1])))
    assert denoiser.process.timestep(denoiser.sigma_max) == pytest.approx(999)
    bare = FromKDiffusion(lambda x, sigma: x)
    assert bare.process is None
    assert not hasattr(bare, "sigma_min")
    assert FromKDiffusion(same, process="sd").process == kd.get_process("sd")


def test_edm_networks():
    """An EDM network gets its classes one-hot, none as zeros; its range is cut to what it was trained on."""

    class Net:
        sigma_min, sigma_max, label_dim = 0.0, math.inf, 3

        def __call__(self, x, sigma, class_labels):
            return x * 0 + class_labels.sum(1).reshape(-1, 1, 1, 1) + class_labels[:, 2].reshape(-1, 1, 1, 1)

    denoiser = FromEDM(Net())
    assert (denoiser.sigma_min, denoiser.sigma_max, denoiser.classes, denoiser.path) == (0.002, 80.0, 3, "ve")
    found = denoiser(X, SIGMA, label=torch.tensor([2, -1]))
    assert found[:, 0, 0, 0].tolist() == [2.0, 0.0]
    assert float(denoiser(X, SIGMA).abs().max()) == 0
    for wrong in ([3, 0], [-2, 0]):
        with pytest.raises(ParameterError, match="labels are 0 to 2"):
            denoiser(X, SIGMA, label=torch.tensor(wrong))
    plain = FromEDM(lambda x, sigma: x + 1)
    assert torch.equal(plain(X, SIGMA), X + 1)
    with pytest.raises(ParameterError, match="no classes"):
        plain(X, SIGMA, label=torch.tensor([0, 1]))
