"""Losses: each is the error of what it says, whatever the network predicts, on VE and flow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import CapabilityError, ParameterError
from kdiff_core.parameterisations import Parameterised
from kdiff_train.losses import WEIGHTS, Loss

DATA = 0.6


class Network(torch.nn.Module):
    """Some function of the state and the time, in float64."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, x, time):
        return torch.tanh(self.scale * x) + 0.1 * torch.cos(time.double()).reshape(-1, 1)


PREDICTIONS = {"edm": "edm", "eps": "edm", "v": "edm", "x0": "edm", "flow": "flow"}


def denoiser(prediction, path):
    process = "flow" if path == "flow" else "edm"
    # A time that is finite at the end of a flow, too.
    return Parameterised(Network(), prediction, process=process, sigma_data=DATA, time="noise_fraction")


def problem(path, size=5):
    generator = torch.Generator().manual_seed(0)
    x0 = DATA * torch.randn(size, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    high = 0.98 if path == "flow" else 40.0
    sigma = torch.logspace(-2, torch.tensor(high).log10().item(), size, dtype=torch.float64)
    alpha = 1 - sigma if path == "flow" else torch.ones_like(sigma)
    return x0, noise, sigma, alpha


def targets(x0, noise, sigma, alpha):
    """What networks of each kind are asked for, of data and noise ``(B, D)``."""
    a, s = alpha[:, None], sigma[:, None]
    ratio = s / a
    x = x0 + ratio * noise  # on VE
    square = ratio**2 + DATA**2
    return {
        "x0": x0,
        "eps": noise,
        "v": (a * noise - s * x0) / (a**2 + s**2).sqrt(),
        "flow": noise - x0,
        "edm": (x0 - x * DATA**2 / square) * square.sqrt() / (ratio * DATA),
    }


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize("name", ["x0", "eps", "v", "flow", "edm"])
@pytest.mark.parametrize("prediction", ["edm", "eps", "v", "x0", "flow"])
def test_a_loss_is_the_error_of_its_target(name, prediction, path):
    """Whatever the network predicts, a loss is the mean squared error of the target that it is named by."""
    if prediction == "eps" and path == "flow":
        pytest.skip("noise alone says nothing of the data at sigma = 1")
    x0, noise, sigma, alpha = problem(path)
    model = denoiser(prediction, path)
    found = kd.get_loss(name)(model, x0, sigma, noise, {})
    x = alpha[:, None] * x0 + sigma[:, None] * noise
    guess = model(x, sigma)
    guessed_noise = (x - alpha[:, None] * guess) / sigma[:, None]
    wanted = targets(x0, noise, sigma, alpha)[name]
    got = targets(guess, guessed_noise, sigma, alpha)[name]
    torch.testing.assert_close(found, ((got - wanted) ** 2).mean(1), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", ["x0", "eps", "v", "flow", "edm"])
def test_a_network_of_the_same_target_has_its_plain_error(name):
    """Where prediction and loss are of one kind, the loss is the plain error of the network's output."""
    path = "flow" if name == "flow" else "ve"
    x0, noise, sigma, alpha = problem(path)
    model = denoiser(name, path)
    x = alpha[:, None] * x0 + sigma[:, None] * noise
    scale = {"edm": (sigma**2 + DATA**2).rsqrt(), "x0": None, "eps": None, "v": None}.get(name)
    factor = torch.ones_like(sigma) if name == "flow" else (alpha**2 + sigma**2).rsqrt()
    output = model.network(x * (factor if scale is None else scale)[:, None], model.times(sigma))
    plain = ((output - targets(x0, noise, sigma, alpha)[name]) ** 2).mean(1)
    found = kd.get_loss(name)(model, x0, sigma, noise, {})
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-12)


@given(ratio=st.floats(1e-3, 1e3), gamma=st.floats(0.1, 20))
def test_relations_of_the_weights(ratio, gamma):
    """The weight of v is x0's and eps' together; min-SNR is the SNR or gamma, its soft form just below."""
    r = torch.tensor([ratio], dtype=torch.float64)
    w = {name: float(weight(r, DATA, gamma)) for name, weight in WEIGHTS.items()}
    assert w["v"] == pytest.approx(w["x0"] + w["eps"], rel=1e-12)
    assert w["min_snr"] == pytest.approx(min(ratio**-2, gamma), rel=1e-12)
    assert w["soft_min_snr"] <= w["min_snr"] <= 2 * w["soft_min_snr"] * (1 + 1e-12)
    assert w["edm"] == pytest.approx((ratio**2 + DATA**2) / (ratio * DATA) ** 2, rel=1e-12)
    assert w["flow"] == pytest.approx(w["v"] + 2 / ratio, rel=1e-12)


def test_edm_is_flat_for_an_untrained_network():
    """A network whose output is 0 has the loss 1 in expectation at every level under EDM's weight."""
    zero = Parameterised(lambda x, t: 0 * x, "edm", sigma_data=DATA)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 4, 20_000, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.01, 0.5, 3.0, 70.0], dtype=torch.float64)
    values = kd.get_loss("edm")(zero, DATA * x0, sigma, noise, {})
    assert float((values - 1).abs().max()) < 0.05


def test_uncertainty():
    """With a log-variance u the loss is L / e^u + u, 1 + log L at its least; without one it is refused."""
    x0, noise, sigma, _ = problem("ve")
    model = denoiser("edm", "ve")
    plain = kd.get_loss("edm")(model, x0, sigma, noise, {})
    with pytest.raises(CapabilityError, match="no log-variance head"):
        kd.get_loss("edm2")(model, x0, sigma, noise, {})
    model.network.logvar = lambda time: torch.full_like(time, 0.3)
    found = kd.get_loss("edm2")(model, x0, sigma, noise, {})
    torch.testing.assert_close(found, plain / torch.tensor(0.3).exp() + 0.3, rtol=1e-6, atol=0)
    model.network.logvar = lambda time: plain.log()
    torch.testing.assert_close(
        kd.get_loss("edm2")(model, x0, sigma, noise, {}), 1 + plain.log(), rtol=1e-6, atol=1e-9
    )


def test_pseudo_huber_is_quadratic_then_linear():
    """For small errors it is e^2 / 2c, for large ones e - c; a perfect network has a finite gradient."""
    x0, noise, sigma, _ = problem("ve")
    for c, expected in ((1e4, lambda square: square / 2e4), (1e-8, lambda square: square.sqrt() - 1e-8)):
        loss, plain = Loss(norm="pseudo_huber", c=c), Loss()
        model = denoiser("edm", "ve")
        square = plain(model, x0, sigma, noise, {})
        torch.testing.assert_close(loss(model, x0, sigma, noise, {}), expected(square), rtol=1e-6, atol=1e-12)
    guess = x0.clone().requires_grad_()
    perfect = Parameterised(lambda x, t: guess, "x0", process="edm")
    kd.get_loss("pseudo_huber", weight="x0")(perfect, x0, sigma, noise, {}).sum().backward()
    assert bool(guess.grad.isfinite().all())


def test_multi_scale_counts_coarse_errors_at_each_scale():
    """A constant error counts at every scale, an error that halving removes at the finest alone."""
    x0 = torch.zeros(1, 1, 8, 8)
    loss = Loss(weight="x0", norm="multi_scale", smallest=2)

    def of(error):
        return float(loss(Parameterised(lambda x, t: error, "x0", process="edm"), x0, torch.ones(1), x0, {}))

    checks = torch.ones(1, 1, 8, 8)
    checks[..., ::2, ::2] = checks[..., 1::2, 1::2] = -1
    assert of(torch.ones(1, 1, 8, 8)) == pytest.approx(2 / 8 + 2 / 4 + 2 / 2)
    assert of(checks) == pytest.approx(2 / 8)
    assert Loss(weight="x0", norm="multi_scale", smallest=8)(
        Parameterised(lambda x, t: checks, "x0", process="edm"), x0, torch.ones(1), x0, {}
    ).item() == pytest.approx(1)


@pytest.mark.parametrize("entry", kd.list_losses(), ids=lambda entry: entry.name)
def test_every_loss_is_of_each_sample(entry):
    """A loss has a finite value for each sample, a function of that sample alone, with gradients."""
    loss = kd.get_loss(entry.name)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 2, 8, 8, generator=generator)
    sigma = torch.tensor([0.1, 1.0, 9.0])
    network = torch.nn.Conv2d(2, 2, 3, padding=1)
    wrapped = torch.nn.Module()
    wrapped.__class__ = type("Wrapped", (torch.nn.Module,), {"forward": lambda self, x, t: self.inner(x)})
    wrapped.inner = network
    wrapped.logvar = lambda time: 0 * time
    model = Parameterised(wrapped, "edm")
    values = loss(model, x0, sigma, noise, {})
    assert values.shape == (3,)
    assert bool(values.isfinite().all())
    alone = loss(model, x0[1:2], sigma[1:2], noise[1:2], {})
    torch.testing.assert_close(values[1:2], alone, rtol=1e-4, atol=1e-6)
    values.sum().backward()
    assert float(network.weight.grad.abs().max()) > 0


def test_bad_options_are_refused():
    """An unknown weight or norm names the nearest; gamma must be above 0."""
    with pytest.raises(ParameterError, match=r"weight='min_snt'.*did you mean 'min_snr'\?"):
        Loss(weight="min_snt")
    with pytest.raises(ParameterError, match="norm='huber'"):
        Loss(norm="huber")
    with pytest.raises(ParameterError, match="gamma=0"):
        kd.get_loss("min_snr", gamma=0)
