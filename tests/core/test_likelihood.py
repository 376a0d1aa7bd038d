"""Log-likelihood: against exact densities, its order, Hutchinson's estimate, samples apart, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import F64, Gaussian, few, levels, state

import kdiff_core as kd
from kdiff_core import errors
from kdiff_core.likelihood import _row_sums
from kdiff_core.path import as_path
from kdiff_core.testing.problems import Constant, Mixture
from kdiff_core.testing.strategies import gaussians, paths


def density(problem, x, sigma):
    """Exact log-density of a problem's states at a level."""
    if isinstance(problem, Gaussian):
        mean, covariance = (torch.tensor(part) for part in problem.marginal(sigma))
        return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)
    alpha = as_path(problem.path).alpha(sigma)
    weights, means, variances = (
        torch.tensor(v, dtype=F64) for v in (problem.weights, problem.means, problem.variances)
    )
    totals = alpha * alpha * variances + sigma * sigma
    squares = (x[:, None] - alpha * means).square().sum(-1)
    normal = -squares / (2 * totals) - 0.5 * problem.dims * (2 * math.pi * totals).log()
    return ((weights / weights.sum()).log() + normal).logsumexp(-1)


def error(problem, sampler, steps, **options):
    """Largest error in nats on a grid to 0, the prior being exact."""
    sigmas = levels(problem.path, steps)
    x = state(3, problem.dims, scale=1.0)
    options = {"divergence": "exact", "prior": lambda y: density(problem, y, sigmas[0]), **options}
    found = kd.log_likelihood(problem, x, sigmas, sampler=sampler, **options)
    assert (found.shape, found.dtype, found.requires_grad) == ((3,), F64, False)
    return float((found - density(problem, x, sigmas[-2])).abs().max())


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("euler", 1),
        ("heun", 2),
        ("dpm2", 2),
        ("dpmpp_2m", 2),
        ("dpm_solver_2s", 2),
        ("dpmpp_3s", 3),
        ("rk4", 4),
    ],
)
def test_it_has_the_samplers_order(name, order, path):
    """On a mixture half the step divides the error by two to the sampler's order, whatever its space."""
    ratio = error(Mixture(path), name, 26) / error(Mixture(path), name, 51)
    assert abs(math.log2(ratio) - order) < 0.35


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize(("problem", "steps"), [(Gaussian, 160), (Mixture, 100)])
def test_it_is_the_exact_density(problem, steps, path):
    """In enough steps of order 4 the error is below 1e-6 nats."""
    assert error(problem(path), "hochbruck_ostermann", steps) < 1e-6


@few
@given(paths(), st.data())
def test_it_is_the_exact_density_of_any_normal_data(path, draw):
    """On normal data with any covariance, full ones too, the exact trace gives the exact density."""
    assert error(draw.draw(gaussians(path)), "hochbruck_ostermann", 60) < 1e-3


def test_the_default_prior_is_that_of_pure_noise():
    """On flow from 1 it is the exact one; on VE it errs by what the data add at the highest level."""
    x, options = state(3, 4, scale=1.0), {"divergence": "exact"}
    for problem, sigmas, bound in (
        (Gaussian("flow"), [1.0, 0.8, 0.5, 0.2], 1e-12),
        (Gaussian(), [2000.0, 200.0, 20.0, 2.0, 0.2], 0.01),
    ):
        found = kd.log_likelihood(problem, x, sigmas, **options)
        exact = kd.log_likelihood(
            problem, x, sigmas, prior=lambda y, p=problem, s=sigmas: density(p, y, s[0]), **options
        )
        assert (found - exact).abs().max() < bound


def test_hutchinson_is_exact_where_the_jacobian_is_diagonal():
    """With signs as probes the estimate has no variance on a diagonal Jacobian: one probe gives the trace."""
    problem, x, sigmas = Gaussian(covariance=(0.1, 1.0, 2.0)), state(2, 3), levels("ve", 10)
    exact = kd.log_likelihood(problem, x, sigmas, divergence="exact")
    for seed in (0, 1):
        assert torch.allclose(kd.log_likelihood(problem, x, sigmas, seed=seed), exact, rtol=1e-13, atol=0)


def test_hutchinson_is_unbiased():
    """Over 400 seeds its mean is the exact value within 4 standard errors, which are not 0."""
    problem = Gaussian(covariance=((1.0, 0.8), (0.8, 1.0)))
    x, sigmas = state(1, 2, scale=1.0), levels("ve", 8)
    exact = kd.log_likelihood(problem, x, sigmas, divergence="exact")
    many = kd.log_likelihood(problem, x.expand(400, -1), sigmas, seed=list(range(400)))
    spread = many.std() / 20
    assert spread > 0.01
    assert (many.mean() - exact).abs() < 4 * spread
    more = kd.log_likelihood(problem, x.expand(400, -1), sigmas, seed=list(range(400)), probes=8)
    assert 2.2 < many.std() / more.std() < 3.6


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_a_sample_does_not_depend_on_its_batch(divergence):
    """A sample alone, with its own seed, has the density that it has in a batch, to the bit."""
    problem, x, sigmas = Mixture(), state(5, 2), levels("ve", 8)
    options = {"divergence": divergence, "probes": 3}
    whole = kd.log_likelihood(problem, x, sigmas, seed=[3, 1, 4, 1, 5], **options)
    for i, seed in enumerate([3, 1, 4, 1, 5]):
        alone = kd.log_likelihood(problem, x[i : i + 1], sigmas, seed=[seed], **options)
        assert torch.equal(alone[0], whole[i])


def test_sums_do_not_depend_on_the_batch_with_several_threads():
    """Threads share out the rows of a long batch, but a single row in pieces: each is summed alone."""
    torch.set_num_threads(2)
    try:
        for batch in (2, 5, 17):
            wide = torch.randn(batch, 50000, dtype=F64, generator=torch.Generator().manual_seed(0))
            sums = _row_sums(wide)
            assert all(torch.equal(_row_sums(wide[i : i + 1])[0], sums[i]) for i in range(batch))
    finally:
        torch.set_num_threads(1)


def test_its_gradient_is_the_score():
    """Differentiated by the data it is the score of the density; by a parameter, what differences give."""
    problem, sigmas = Mixture(), levels("ve", 40)
    x = state(3, 2, scale=1.0).requires_grad_()
    found = kd.log_likelihood(
        problem, x, sigmas, sampler="rk4", divergence="exact", prior=lambda y: density(problem, y, sigmas[0])
    )
    score = torch.autograd.grad(density(problem, x, sigmas[-2]).sum(), x)[0]
    assert (torch.autograd.grad(found.sum(), x)[0] - score).abs().max() < 1e-3

    def value(shift):
        def moved(y, sigma):
            return problem(y - shift, sigma) + shift

        return kd.log_likelihood(moved, x.detach(), levels("ve", 8)).sum()

    shift = torch.tensor(0.3, dtype=F64, requires_grad=True)
    slope = torch.autograd.grad(value(shift), shift)[0]
    with torch.no_grad():
        difference = (value(shift + 1e-5) - value(shift - 1e-5)) / 2e-5
    assert abs(slope / difference - 1) < 1e-7


def test_nests_conditions_and_guidance_of_dtypes():
    """A nest has the sum of its parts' densities; float32 gives float64's value to float32's precision."""

    def pair(x, sigma, shift):
        return {
            "a": Gaussian(mean=shift)(x["a"], sigma),
            "b": Gaussian(covariance=2.0, mean=0.0)(x["b"], sigma),
        }

    x, sigmas = {"a": state(2, 4), "b": torch.ones(2, 3, 1, dtype=F64)}, levels("ve", 12)
    options = {"divergence": "exact", "sampler": "heun"}
    whole = kd.log_likelihood(pair, x, sigmas, cond={"shift": 0.5}, **options)
    parts = kd.log_likelihood(Gaussian(mean=0.5), x["a"], sigmas, **options) + kd.log_likelihood(
        Gaussian(covariance=2.0, mean=0.0), x["b"], sigmas, **options
    )
    assert torch.allclose(whole, parts, rtol=1e-12, atol=0)
    single = kd.log_likelihood(Gaussian(), x["a"].float(), sigmas, **options)
    double = kd.log_likelihood(Gaussian(), x["a"], sigmas, **options)
    assert single.dtype == F64
    assert torch.allclose(single, double, rtol=1e-4, atol=0)


def test_the_digits_model_prefers_digits():
    """On the default model it is finite, and digits are more likely than noise of their size."""
    model = kd.get_denoiser("digits")
    x = kd.sample(model, n=2, steps=8)
    sigmas = kd.get_schedule("karras")(12, sigma_min=model.sigma_min, sigma_max=model.sigma_max)
    found = kd.log_likelihood(model, torch.cat([x, torch.randn_like(x)]), sigmas)
    assert bool(torch.isfinite(found).all())
    assert found[:2].min() > found[2:].max()


def never(x, sigma):
    """A model that must not be called."""
    raise AssertionError("the model was called before the input was refused")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"divergence": "trace"}, errors.ParameterError, "divergence"),
        ({"probes": 0}, errors.ParameterError, "probes"),
        ({"probes": 2.0}, errors.ParameterError, "probes"),
        ({"sampler": "euler_ancestral"}, errors.CapabilityError, "draws noise"),
        ({"sampler": "dpm_adaptive"}, errors.TraceError, "no plan"),
        ({"sampler": "euler_cfg_pp"}, errors.CapabilityError, "uncond"),
        ({"seed": [1, 2]}, errors.NoiseError, "2 given for a batch of 3"),
        ({"sigmas": [1.0, 0.0]}, errors.GridError, "two"),
        ({"x": torch.ones(2, 3, dtype=torch.int64)}, errors.StateError, "float"),
    ],
)
def test_bad_arguments_are_refused_before_any_call(options, kind, message):
    """What cannot be integrated, or is out of range, is refused before the model is called."""
    with pytest.raises(kind, match=message):
        kd.log_likelihood(never, **{"x": state(), "sigmas": levels("ve", 6), **options})


def test_models_without_a_derivative_and_wrong_priors_are_refused():
    """A model under no_grad, one that forgets its input, and a prior of another shape are refused."""
    for model in (torch.no_grad()(Gaussian()), Constant()):
        with pytest.raises(errors.CapabilityError, match="derivative"):
            kd.log_likelihood(model, state(), levels("ve", 6))
    with pytest.raises(errors.StateError, match="prior"):
        kd.log_likelihood(Gaussian(), state(), levels("ve", 6), prior=lambda y: y)
    with torch.no_grad():
        assert kd.log_likelihood(Gaussian(), state(), levels("ve", 6)).shape == (3,)
