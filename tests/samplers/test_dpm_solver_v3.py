"""DPM-Solver-v3: what it reduces to, where it is exact, and the statistics that it works with."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline
from support import F64, few

import kdiff_core as kd
from kdiff_core.errors import CapabilityError, GridError, ParameterError, StateError
from kdiff_core.path import as_path
from kdiff_core.testing import Gaussian
from kdiff_samplers.estimate_statistics import estimate_statistics
from kdiff_samplers.model_statistics import ModelStatistics

paths = pytest.mark.parametrize("path", ["ve", "flow"])


def constant(linear, scaling, bias=0.0):
    """Statistics that are the same at every level."""
    return ModelStatistics([0.0], [linear], [scaling], [bias])


def levels(path, lambdas):
    """The levels with these log-SNR."""
    return [as_path(path).sigma(float(value)) for value in lambdas]


class Mixture:
    """An equal mixture of normals of one variance, for many samples at once."""

    def __init__(self, path, means, variance):
        self.path, self.means, self.variance = path, torch.as_tensor(means, dtype=F64), variance

    def __call__(self, x, sigma):
        sigma = sigma[:, None]
        alpha = as_path(self.path).alpha(sigma) * torch.ones_like(sigma)
        total = alpha**2 * self.variance + sigma**2
        away = x[:, None] - alpha[..., None] * self.means
        share = torch.softmax(-away.square().sum(-1) / (2 * total), -1)[..., None]
        return (share * (self.means + (alpha * self.variance / total)[..., None] * away)).sum(1)

    def data(self, count, seed):
        g = torch.Generator().manual_seed(seed)
        chosen = self.means[torch.randint(len(self.means), (count,), generator=g)]
        return chosen + self.variance**0.5 * torch.randn(chosen.shape, generator=g, dtype=F64)


@paths
@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({"corrector_order": 0}, kd.get_sampler("xeab")),
        (
            {"solver_order": 2, "corrector_order": 0},
            kd.get_sampler("dpmpp_2m_sde", eta=0, solver_type="heun"),
        ),
        ({"corrector_order": 0, "statistics": constant(0.0, -1.0)}, kd.get_sampler("zeab")),
        ({"corrector_order": 0, "statistics": constant(0.0, -1.0)}, kd.get_sampler("dpm_solver_3m")),
        ({"corrector_order": 4}, kd.get_sampler("uni_pc", variant="exact")),
        (
            {"corrector_order": 0, "pseudo": "always"},
            kd.get_sampler("dpmpp_3m_sde", eta=0, corrected=True),
        ),
    ],
)
def test_reduces_to_the_solvers_of_fixed_predictions(path, options, other):
    """With l = 1, s = 0 it is DPM-Solver++ and UniPC, with l = 0, s = -1 DPM-Solver, on uneven steps."""
    grid = levels(path, [-2.3, -1.6, -1.0, 0.1, 0.7, 1.9, 2.4])
    x = torch.linspace(-2, 2, 8, dtype=F64).reshape(2, 4)
    found = kd.get_sampler("dpm_solver_v3", **options)(Gaussian(path), x, grid)
    expected = other(Gaussian(path), x, grid)
    same = float((found - expected).abs().max()) < 1e-13
    assert same != (options.get("pseudo") == "always")  # without recentring it is another method


class Described:
    """The denoiser whose f has the slope ``s f + b`` exactly, and the solution of its flow in log-SNR."""

    def __init__(self, path, linear, scaling, bias):
        self.path, self.linear, self.scaling, self.bias = path, linear, scaling, bias

    def f(self, lam):
        return (1.0 + self.bias / self.scaling) * torch.exp(self.scaling * lam) - self.bias / self.scaling

    def __call__(self, x, sigma):
        path, sigma = as_path(self.path), sigma[:, None]
        alpha = path.alpha(sigma) * torch.ones_like(sigma)
        return (1.0 - self.linear) * x / alpha - self.f(torch.log(alpha / sigma))

    def exact(self, y, start, end):
        l, s, b = self.linear, self.scaling, self.bias  # noqa: E741  the paper's names
        particular = [
            -(1.0 + b / s) * torch.exp(s * lam) / (l + s) + b / (s * l)
            for lam in torch.tensor([start, end], dtype=F64)
        ]
        return (y - particular[0]) * math.exp(-l * (end - start)) + particular[1]


@paths
@pytest.mark.parametrize("order", [1, 2, 3])
@given(
    linear=st.floats(0.2, 1.5), scaling=st.floats(-1.5, -0.1), bias=st.floats(-1.0, 1.0), h=st.floats(0.5, 3)
)
@few
def test_exact_on_the_model_that_its_statistics_describe(path, order, linear, scaling, bias, h):
    """Where the slope of f is s f + b, steps of any size are exact, with a bias and a corrector too."""
    if abs(linear + scaling) < 0.05:  # the solution above divides by it
        linear += 0.1
    problem, x = Described(path, linear, scaling, bias), torch.tensor([[0.3, -1.2]], dtype=F64)
    lambdas = [-1.0, -1.0 + h, -1.0 + 1.7 * h]
    grid = levels(path, lambdas)
    sampler = kd.get_sampler(
        "dpm_solver_v3",
        statistics=constant(linear, scaling, bias),
        solver_order=order,
        corrector_order=max(2, order),
    )
    assert sampler.linear == (bias == 0)
    alphas = [as_path(path).alpha(level) for level in grid]
    exact = problem.exact(x / alphas[0], lambdas[0], lambdas[-1]) * alphas[-1]
    assert float((sampler(problem, x, grid) - exact).abs().max()) < 1e-11


@given(
    places=st.lists(st.floats(-3, 3), min_size=3, max_size=6, unique_by=lambda v: round(v, 1)),
    seed=st.integers(0, 99),
)
@few
def test_curves_are_hermite_cubics_with_their_integrals(places, seed):
    """Between its knots a coefficient and its integral are SciPy's Hermite cubic; outside it is constant."""
    knots = np.sort(places)
    values = np.random.default_rng(seed).normal(size=len(knots))
    curve = ModelStatistics(knots, values, values, values).curves[0]
    spline = CubicHermiteSpline(knots, values, np.gradient(values, knots))
    for place in np.linspace(knots[0], knots[-1], 13)[:-1]:
        scale = 1 + np.abs(spline(np.linspace(knots[0], knots[-1], 50))).max()
        assert abs(curve.at(place) - spline(place)) < 1e-10 * scale
        assert abs(curve.integral(place) - spline.integrate(knots[0], place)) < 1e-10 * scale
    assert curve.at(9.0) == values[-1]
    assert curve.integral(9.0) - curve.integral(8.0) == pytest.approx(values[-1], abs=1e-12)


@paths
def test_one_coefficient_for_each_element(path):
    """One for each element gives in each what numbers give, runs on tensors and refuses other states."""
    lambdas, x = np.linspace(-2, 2, 9), torch.linspace(-2, 2, 8, dtype=F64).reshape(2, 4)
    grid = levels(path, [-1.5, -0.4, 0.9, 1.6])
    tables = [np.linspace(a, a + 0.4, 9)[:, None] * np.ones(4) + np.arange(4) / 9 for a in (0.2, -0.9, 0.3)]
    whole = kd.get_sampler("dpm_solver_v3", statistics=ModelStatistics(lambdas, *tables))
    assert not whole.linear
    found = whole(Gaussian(path), x, grid)
    for i in range(4):
        own = kd.get_sampler("dpm_solver_v3", statistics=ModelStatistics(lambdas, *(t[:, i] for t in tables)))
        assert float((own(Gaussian(path), x, grid)[:, i] - found[:, i]).abs().max()) < 1e-12
    assert whole(Gaussian(path), x.float(), grid).dtype == torch.float32
    with pytest.raises(StateError, match=r"shape \(4,\)"):
        whole(Gaussian(path, covariance=1.0), x[:, :3], grid)


@paths
def test_estimate_equals_the_expectations(path):
    """On a mixture the estimates are the expectations that a fine sum over the states gives, to 3 %."""
    model, lambdas = Mixture(path, [[-1.0], [1.5]], 0.1), np.linspace(-2.0, 2.0, 9)
    found = estimate_statistics(
        model, model.data(20_000, 1), levels(path, lambdas), per_element=True, batch_size=20_000
    )
    y = torch.linspace(-40, 40, 80_001, dtype=F64)[:, None]
    ve = Mixture("ve", model.means, model.variance)

    def output(lam):
        sigma = torch.full((len(y),), math.exp(-lam), dtype=F64)
        total = ve.variance + sigma[0] ** 2
        density = torch.exp(-((y - ve.means[:, 0]) ** 2) / (2 * total)).mean(1)
        data = ve(y, sigma)[:, 0]
        return data, torch.gradient(data, spacing=(y[:, 0],))[0], density / density.sum()

    linear = [float(1 - (slope * share).sum()) for _, slope, share in map(output, lambdas)]
    assert np.abs(found.linear[:, 0] - linear).max() < 0.02
    change = np.gradient(linear, lambdas)
    for k, lam in enumerate(lambdas):
        data, slope, share = output(lam)
        drift = data - y[:, 0]
        rate = (output(lam + 1e-4)[0] - output(lam - 1e-4)[0]) / 2e-4 + slope * drift
        f = (1 - linear[k]) * y[:, 0] - data
        along = (1 - linear[k]) * drift - change[k] * y[:, 0] - rate
        mean, mean_rate = (share * f).sum(), (share * along).sum()
        scaling = ((share * f * along).sum() - mean * mean_rate) / ((share * f * f).sum() - mean**2)
        assert abs(found.scaling[k, 0] - float(scaling)) < 0.03 * (1 + abs(float(scaling)))
        assert abs(found.bias[k, 0] - float(mean_rate - scaling * mean)) < 0.03


@pytest.mark.parametrize(("per_element", "bar"), [(False, 0.85), (True, 0.75)])
def test_estimated_statistics_lower_the_error_of_few_steps(per_element, bar):
    """Over three mixtures in 8 dimensions they lower the mean error of 5 evaluations by the bar."""
    ratios = []
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        model = Mixture("ve", torch.randn(5, 8, generator=g, dtype=F64), 0.1)
        grid = levels("ve", np.linspace(-3, 4, 29))
        found = estimate_statistics(
            model, model.data(1024, 3), grid, per_element=per_element, batch_size=1024
        )
        x = model.data(256, 9) + math.exp(2.5) * torch.randn(256, 8, generator=g, dtype=F64)
        exact = kd.get_sampler("etdrk4")(model, x, levels("ve", np.linspace(-2.5, 3.5, 121)))
        few_steps = levels("ve", np.linspace(-2.5, 3.5, 6))
        errors = [
            float((kd.get_sampler("dpm_solver_v3", statistics=s)(model, x, few_steps) - exact).norm())
            for s in (found, None)
        ]
        ratios.append(errors[0] / errors[1])
    assert math.prod(ratios) ** (1 / 3) < bar


def test_statistics_are_a_value_and_a_file(tmp_path):
    """They equal their copies, can be hashed, pickled, and read from the file that they were written to."""
    lambdas = np.linspace(-1, 1, 4)
    one = ModelStatistics(lambdas, lambdas + 2, -lambdas, 0 * lambdas)
    one.save(tmp_path / "model.npz")
    again = ModelStatistics.load(tmp_path / "model.npz")
    assert again == one == pickle.loads(pickle.dumps(one))
    assert hash(again) == hash(one)
    assert one != ModelStatistics(lambdas, lambdas + 2, -lambdas, 0 * lambdas + 1)
    sampler = kd.get_sampler("dpm_solver_v3", statistics=str(tmp_path / "model.npz"))
    assert sampler == kd.get_sampler("dpm_solver_v3", statistics=one)
    assert sampler.plan([1.0, 0.5, 0.1]).evaluations == 2
    assert len(repr(sampler)) < 200


def test_refuses_what_is_no_statistics(tmp_path):
    """Shapes that do not agree, lambdas that do not rise, values that are not finite, files without them."""
    for arrays, words in [
        (([0.0, 0.0], [1, 1], [0, 0], [0, 0]), "rising"),
        (([0.0, 1.0], [1, 1], [0], [0, 0]), "scaling has shape"),
        (([0.0, 1.0], [1, math.nan], [0, 0], [0, 0]), "linear has a value that is not finite"),
        (([0.0], ["a"], [0], [0]), "no array of numbers"),
    ]:
        with pytest.raises(ParameterError, match=words):
            ModelStatistics(*arrays)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("other.npz", "pickled.npy"):
        with pytest.raises(ParameterError, match="holds no model statistics"):
            kd.get_sampler("dpm_solver_v3", statistics=str(tmp_path / name))
    with pytest.raises(ParameterError, match="must be None, a ModelStatistics or the file"):
        kd.get_sampler("dpm_solver_v3", statistics=3.0)


def test_estimator_refuses_what_it_cannot_use():
    """Levels without a log-SNR, states that are none, and models that do not differentiate forward."""
    x0 = torch.ones(4, 2, dtype=F64)
    with pytest.raises(GridError, match="above 0"):
        estimate_statistics(Gaussian("flow"), x0, [1.0, 0.5])
    with pytest.raises(StateError, match="floating-point tensor"):
        estimate_statistics(Gaussian("ve"), x0.int(), [1.0, 0.5])
    with pytest.raises(ParameterError, match="probes=0"):
        estimate_statistics(Gaussian("ve"), x0, [1.0, 0.5], probes=0)
    with pytest.raises(CapabilityError, match="cannot be differentiated forward"):
        estimate_statistics(lambda x, sigma: _NoForward.apply(x), x0, [1.0, 0.5])


class _NoForward(torch.autograd.Function):
    """A function without a forward derivative."""

    @staticmethod
    def forward(ctx, x):
        return x * 1.0
