"""The problems of the kit: closed forms, posterior means, numerical solutions, each found another way too."""

from __future__ import annotations

import math
import pickle

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from kdiff_core.errors import NonFiniteError, ParameterError, StateError
from kdiff_core.protocols import Denoiser
from kdiff_core.testing import problems as kit
from kdiff_core.testing import strategies as draw
from kdiff_core.testing.problems import (
    Constant,
    Empirical,
    Gaussian,
    LinearDenoiser,
    Mixture,
    Polynomial,
    random_state,
    solve,
)

some = settings(max_examples=max(4, settings().max_examples // 4))
F64 = torch.float64
PATHS = ("ve", "flow")
CLASSES = (Gaussian, LinearDenoiser, Constant, Polynomial, Mixture, Empirical)
any_path = st.sampled_from(PATHS)
any_problem = any_path.flatmap(draw.problems)
both = pytest.mark.parametrize("path", PATHS)


def inside(path):
    """Levels at which every problem has a finite value."""
    return draw.noise_levels(path).filter(lambda level: path == "ve" or level < 1)


def levels(values, level):
    return torch.full((len(values),), level, dtype=values.dtype)


def distance(value, expected, floor=0.0):
    """Largest difference relative to the largest entry."""
    return float((value - expected).abs().max()) / max(floor, float(expected.abs().max()))


# -- the solutions


@some
@given(data=st.data(), path=any_path, seed=draw.seeds())
def test_closed_forms_solve_the_flow(data, path, seed):
    """Each closed form is what an independent integrator finds, up and down, also from 1 on flow."""
    kind = data.draw(
        st.sampled_from((draw.gaussians, draw.linear_denoisers, draw.constants, draw.polynomials))
    )
    problem = data.draw(kind(path))
    rough = isinstance(problem, Polynomial) and problem.degree
    between = inside(path) if rough else draw.noise_levels(path)
    sigma, sigma_next = data.draw(between), data.draw(between)
    x = random_state(seed, 2, (problem.dims,), scale=sigma)
    found, expected = problem.exact(x, sigma, sigma_next), solve(problem, x, sigma, sigma_next)
    assert distance(found, expected, floor=0.1 * sigma_next) < 1e-11


@pytest.mark.parametrize("problem", [Gaussian("flow"), LinearDenoiser("flow"), Constant("flow")], ids=repr)
def test_closed_forms_begin_at_one_and_end_at_zero(problem):
    """The closed forms are finite from 1 on flow and continuous at 0."""
    x = random_state(1)
    assert distance(problem.exact(x, 1.0, 0.3), solve(problem, x, 1.0, 0.3)) < 1e-12
    assert distance(problem.exact(x, 1.0, 1e-13), problem.exact(x, 1.0, 0.0)) < 1e-4
    assert torch.equal(problem.exact(x, 0.5, 0.5), x) or distance(problem.exact(x, 0.5, 0.5), x) < 1e-15


@some
@given(data=st.data(), path=any_path, power=st.floats(-9, 0.5))
def test_polynomials_lose_nothing_in_small_steps(data, path, power):
    """From the state 0 the solution of a polynomial is its integral in 30 digits, for steps down to 1e-9."""
    problem, sigma = data.draw(draw.polynomials(path)), data.draw(inside(path))
    sigma_next = sigma / (1 + 10**power)
    with mp.workdps(30):
        alpha = [1 if path == "ve" else 1 - mpf(s) for s in (sigma, sigma_next)]
        span = [mp.log(a / mpf(s)) for a, s in zip(alpha, (sigma, sigma_next), strict=True)]
        whole = mp.quad(lambda v: mp.polyval(problem.coefficients[::-1], v) * mp.exp(v), span)
        size = mp.quad(
            lambda v: sum(abs(c * v**k) for k, c in enumerate(problem.coefficients)) * mp.exp(v), span
        )
        found = problem.exact(torch.zeros(1, 1, dtype=F64), sigma, sigma_next)
        assert abs(mpf(found.item()) - sigma_next * whole) <= 1e-13 * sigma_next * size


# In 20 digits by `taylor`; recomputed by a slow test.
RECORDED = {
    "ve": ((10.0, -6.0), 10.0, 0.02, ("1.2312773450227903644", "-0.012961966518676594323")),
    "flow": ((0.6, 0.7), 1.0, 0.02, ("1.0169839959247392295", "0.80517976421574571774")),
}


def taylor(problem, x, sigma, sigma_next):
    """Solution for one vector by Taylor series in 30 digits, downwards."""
    with mp.workdps(30):
        parts = list(zip(problem.weights, problem.means, problem.variances, strict=True))

        def slope(time, y):
            s = sigma * mp.exp(-time)
            alpha, size, total = (1 if problem.path == "ve" else 1 - s), mpf(0), [mpf(0)] * len(y)
            for weight, mean, variance in parts:
                spread = alpha**2 * mpf(variance) + s * s
                away = [value - alpha * mpf(m) for value, m in zip(y, mean, strict=True)]
                p = weight * mp.exp(-mp.fdot(away, away) / (2 * spread)) / spread ** (mpf(len(y)) / 2)
                size += p
                total = [
                    t + p * (mpf(m) + alpha * mpf(variance) / spread * a)
                    for t, m, a in zip(total, mean, away, strict=True)
                ]
            return [t / size - value for t, value in zip(total, y, strict=True)]

        solution = mp.odefun(slope, mpf(0), [mpf(v) for v in x], tol=mpf(10) ** -22)
        return solution(mp.log(mpf(sigma) / mpf(sigma_next)))


def relative_error(problem, x, sigma, sigma_next, expected):
    found = problem.exact(torch.tensor([x], dtype=F64), sigma, sigma_next)[0].tolist()
    worst = max(abs(mpf(a) - mpf(b)) for a, b in zip(found, expected, strict=True))
    return float(worst / max(abs(mpf(b)) for b in expected))


@both
def test_mixtures_are_solved_to_12_digits(path):
    """Over the whole range of levels the solution has 12 digits of one made with Taylor series in 30."""
    x, sigma, sigma_next, expected = RECORDED[path]
    assert relative_error(Mixture(path), x, sigma, sigma_next, expected) < 1e-12


def test_other_mixtures_are_solved_to_12_digits():
    """The same on a part of the range where the flow bends, for a problem of another dimension."""
    problem = Mixture("flow", (1.0, 2.0), ((1.0,), (-1.0,)), (0.1, 0.3))
    assert relative_error(problem, (0.3,), 0.6, 0.5, taylor(problem, (0.3,), 0.6, 0.5)) < 1e-12


@pytest.mark.kdiff_slow
@both
def test_recorded_solutions_are_those_of_taylor_series(path):
    """The recorded solutions are made again, to 18 digits."""
    x, sigma, sigma_next, expected = RECORDED[path]
    with mp.workdps(30):
        for a, b in zip(taylor(Mixture(path), x, sigma, sigma_next), expected, strict=True):
            assert abs(a - mpf(b)) < 1e-18


@settings(some, max_examples=max(3, some.max_examples // 8))
@given(data=st.data(), path=any_path, seed=draw.seeds())
def test_drawn_mixtures_agree_with_tighter_tolerances_and_lead_back(data, path, seed):
    """The error is within 1e-12 times what the flow itself makes of an error, on the way back too."""
    problem = data.draw(draw.mixtures(path) | draw.empiricals(path))
    high, low = (10.0, 0.1) if path == "ve" else (1.0, 0.1)
    x = random_state(seed, 2, (problem.dims,), scale=high)
    found, tighter = problem.exact(x, high, low), solve(problem, x, high, low, rtol=3e-14)
    # How far a relative change of 1e-7 of the state goes: the flow may separate neighbours.
    moved = max(1.0, distance(problem.exact(x * (1 + 1e-7), high, low), found) / 1e-7)
    assert distance(found, tighter) < 1e-12 * moved
    assert distance(problem.exact(found, low, high), x) < 1e-12 * moved * high / low


# -- the denoisers


def log_density(problem, x, sigma):
    """Logarithm of the density of ``alpha x0 + sigma noise``, up to a constant."""
    if isinstance(problem, Gaussian):
        mean, cov = Gaussian("ve", problem.mean, problem.covariance).marginal(0.0)
        parts = [(1.0, mean.tolist(), mp.matrix(cov.tolist()))]
    else:
        found = problem.mixture if isinstance(problem, Empirical) else problem
        parts = [
            (w, m, mpf(v) * mp.eye(problem.dims))
            for w, m, v in zip(found.weights, found.means, found.variances, strict=True)
        ]
    alpha = 1 if problem.path == "ve" else 1 - mpf(sigma)
    total = mpf(0)
    for weight, mean, cov in parts:
        spread = alpha**2 * cov + mpf(sigma) ** 2 * mp.eye(len(mean))
        away = mp.matrix([value - alpha * mpf(m) for value, m in zip(x, mean, strict=True)])
        total += weight * mp.exp(-(away.T * mp.lu_solve(spread, away))[0] / 2) / mp.sqrt(mp.det(spread))
    return mp.log(total)


@some
@given(data=st.data(), path=any_path, seed=draw.seeds())
def test_denoisers_are_posterior_means(data, path, seed):
    """D is ``(x + sigma^2 grad log p(x)) / alpha``, the gradient taken numerically in 40 digits."""
    problem = data.draw(draw.gaussians(path) | draw.mixtures(path) | draw.empiricals(path))
    sigma = data.draw(inside(path).filter(lambda level: level > 0.02))
    x = random_state(seed, 1, (problem.dims,), scale=1.0 + sigma)
    found = problem(x, levels(x, sigma))[0].tolist()
    point = [mpf(v) for v in x[0].tolist()]
    alpha = 1 if path == "ve" else 1 - mpf(sigma)
    with mp.workdps(40):
        for i, value in enumerate(found):
            part = mp.diff(
                lambda v, i=i: log_density(problem, [*point[:i], v, *point[i + 1 :]], sigma), point[i]
            )
            expected = (point[i] + mpf(sigma) ** 2 * part) / alpha
            scale = max(1.0, float(x.abs().max()))
            assert abs(expected - value) < 1e-11 * scale


@pytest.mark.parametrize("sigma", [0.1, 0.6, 1.0])
@both
def test_mixtures_are_posterior_means_by_quadrature(path, sigma):
    """D is ``E[x0 | x]``, integrated over x0 numerically, also at 1 on flow."""
    problem = Mixture(path, (1.0, 3.0), ((1.0,), (-0.5,)), (0.1, 0.3))
    alpha, x = (1.0 if path == "ve" else 1.0 - sigma), 0.4

    def joint(x0):
        data = sum(
            w / mp.sqrt(v) * mp.exp(-((x0 - m[0]) ** 2) / (2 * v))
            for w, m, v in zip(problem.weights, problem.means, problem.variances, strict=True)
        )
        return data * mp.exp(-((x - alpha * x0) ** 2) / (2 * sigma**2))

    pieces = mp.linspace(-5, 5, 31)
    expected = mp.quad(lambda v: v * joint(v), pieces) / mp.quad(joint, pieces)
    found = problem(torch.full((1, 1), x, dtype=F64), torch.tensor([sigma], dtype=F64)).item()
    assert abs(found - expected) < 1e-13


@both
def test_at_one_on_flow_nothing_is_known(path):
    """Where a state is all noise the posterior mean is the mean of the data; at level 0 it is the state."""
    for problem, mean in ((Gaussian(path, mean=0.3), 0.3), (Mixture(path, means=((1.0, 1.0),) * 3), 1.0)):
        x = random_state(2, shape=(problem.dims,))
        assert distance(problem(x, levels(x, 0.0)), x) < 1e-15
        if path == "flow":
            assert distance(problem(x, levels(x, 1.0)), torch.full_like(x, mean)) < 1e-15


@some
@given(data=st.data(), path=any_path, seed=draw.seeds())
def test_affine_and_marginal_are_what_the_denoiser_and_the_flow_do(data, path, seed):
    """``affine`` is the denoiser, and the exact flow carries one ``marginal`` to the other."""
    problem = data.draw(draw.gaussians(path))
    sigma, sigma_next = data.draw(draw.noise_levels(path)), data.draw(draw.noise_levels(path))
    matrix, offset = problem.affine(sigma)
    x = random_state(seed, 3, (problem.dims,))
    expected = torch.tensor(x.numpy() @ matrix.T + offset)
    assert distance(problem(x, levels(x, sigma)), expected, floor=1.0) < 1e-12
    basis = torch.cat([torch.zeros(1, problem.dims, dtype=F64), torch.eye(problem.dims, dtype=F64)])
    ends = problem.exact(basis, sigma, sigma_next).numpy()
    jacobian = (ends[1:] - ends[0]).T
    (mean, cov), (mean_next, cov_next) = problem.marginal(sigma), problem.marginal(sigma_next)
    scale = np.abs(cov_next).max()
    np.testing.assert_allclose(jacobian @ cov @ jacobian.T, cov_next, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(jacobian @ mean + ends[0], mean_next, rtol=0, atol=1e-11 * max(1, scale))


@some
@given(data=st.data(), path=any_path, seed=draw.seeds(), factor=st.sampled_from((-2.0, 0.3, 7.0)))
def test_shifted_and_scaled_data(data, path, seed, factor):
    """`shifted` and `scaled` are the problems of the data plus a number and times a number."""
    problem, sigma = data.draw(draw.gaussians(path)), data.draw(inside(path))
    alpha = 1.0 if path == "ve" else 1.0 - sigma
    x = random_state(seed, 2, (problem.dims,))
    shifted = problem.shifted(1.5)(x + alpha * 1.5, levels(x, sigma))
    assert distance(shifted, problem(x, levels(x, sigma)) + 1.5, floor=1.0) < 1e-12
    if path == "ve":
        scaled = problem.scaled(factor)(factor * x, levels(x, abs(factor) * sigma))
        assert distance(scaled, factor * problem(x, levels(x, sigma)), floor=1.0) < 1e-11
    assert problem.shifted((0.5,) * problem.dims).dims == problem.dims


# -- values, tensors, refusals


@some
@given(any_problem)
def test_problems_are_values(problem):
    """The repr evaluates to an equal problem; equal problems hash alike; pickling keeps them."""
    again = eval(repr(problem), vars(kit))
    assert again == problem
    assert hash(again) == hash(problem)
    assert pickle.loads(pickle.dumps(problem)) == problem
    assert isinstance(problem, Denoiser)


def test_fields_are_floats_and_tuples_whatever_they_were():
    """Arrays, tensors, lists and integers become tuples of floats."""
    expected = Gaussian("ve", (1.0, 2.0), ((2.0, 1.0), (1.0, 2.0)))
    assert Gaussian("ve", torch.tensor([1, 2]), np.array([[2, 1], [1, 2]])) == expected
    assert repr(Gaussian("flow", [1, 2], 1)) == "Gaussian(path='flow', mean=(1.0, 2.0), covariance=1.0)"
    assert Gaussian().dims == 4
    assert Gaussian(covariance=1).dims == 1
    assert Gaussian("ve", [1, 2], 1).dims == 2
    assert Polynomial("ve", (1, 0, 3, 0)).degree == 2


@some
@given(data=st.data(), problem=any_problem, seed=draw.seeds())
def test_samples_do_not_depend_on_their_batch(data, problem, seed):
    """Each sample is the same to the bit whether it comes alone or in any place among others."""
    shape = data.draw(st.sampled_from(((problem.dims,), (3, problem.dims))))
    dtype = data.draw(st.sampled_from(("float64", "float32")))
    x = random_state(seed, 9, shape, scale=3.0, dtype=dtype)
    sigma = torch.tensor([0.9, 0.02, 0.5, 0.3, 0.71, 0.05, 0.33, 0.6, 0.11], dtype=x.dtype)
    whole = problem(x, sigma)
    for i in range(9):
        assert torch.equal(problem(x[i : i + 1], sigma[i : i + 1])[0], whole[i])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(problem(x[order], sigma[order]), whole[order])


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", CLASSES)
def test_results_are_fresh_and_like_the_state(kind, dtype):
    """The result has the state's shape and dtype, is not the memory of another, and ignores conditions."""
    problem = kind()
    x = random_state(0, shape=(problem.dims,), dtype=dtype)
    first, second = (problem(x, levels(x, 0.5), label=None) for _ in range(2))
    assert first.dtype == x.dtype
    assert first.shape == x.shape
    assert len({t.untyped_storage().data_ptr() for t in (x, first, second)}) == 3
    assert problem.exact(x, 0.5, 0.4).dtype == x.dtype
    precise = problem(x.double(), levels(x.double(), 0.5))
    assert distance(first.double(), precise) < 8 * torch.finfo(x.dtype).eps
    assert torch.equal(problem(x, torch.tensor(0.5)), first)
    assert problem(x[:0], levels(x[:0], 0.5)).shape == x[:0].shape


def test_states_of_any_shape_where_fields_are_numbers():
    """Problems whose fields are numbers take states of any shape, vectors those that end in their length."""
    image = random_state(0, shape=(2, 3, 5))
    for problem in (Gaussian(covariance=0.7), LinearDenoiser(), Constant(), Polynomial()):
        assert problem(image, levels(image, 0.5)).shape == image.shape
        assert problem.exact(image, 0.5, 0.4).shape == image.shape
    with pytest.raises(StateError, match=r"needed is \(B, \.\.\., 4\)"):
        Gaussian()(image, levels(image, 0.5))
    with pytest.raises(StateError, match="floating-point"):
        Gaussian()(torch.zeros(1, 4, dtype=torch.int64), torch.ones(1))
    with pytest.raises(StateError, match="2 levels for 3 samples"):
        Gaussian()(random_state(), torch.ones(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian("vp"),
        lambda: Gaussian(mean=math.nan),
        lambda: Gaussian(mean=(1.0, "2")),
        lambda: Gaussian(covariance=0.0),
        lambda: Gaussian(covariance=(1.0, -1.0)),
        lambda: Gaussian(covariance=()),
        lambda: Gaussian(covariance=((1.0, 0.5), (0.4, 1.0))),
        lambda: Gaussian(covariance=((1.0, 2.0), (2.0, 1.0))),
        lambda: Gaussian(covariance=((1.0, 0.0),)),
        lambda: Gaussian(mean=(1.0, 2.0, 3.0)),
        lambda: Gaussian().scaled(0.0),
        lambda: LinearDenoiser(slope=math.inf),
        lambda: LinearDenoiser(offset=(1.0,)),
        lambda: Polynomial(coefficients=()),
        lambda: Polynomial(coefficients=1.0),
        lambda: Constant(value="a"),
        lambda: Mixture(weights=(1.0, 0.0, 1.0)),
        lambda: Mixture(weights=(1.0,)),
        lambda: Mixture(means=((1.0,), (1.0, 2.0), (1.0,))),
        lambda: Mixture(variances=(1.0, 1.0)),
        lambda: Empirical(points=(1.0, 2.0)),
        lambda: Empirical(smoothing=0.0),
        lambda: random_state(dtype="int64"),
        lambda: random_state(dtype="nothing"),
    ],
)
def test_bad_parameters_are_refused(make):
    """What is no problem is refused, with the offending value."""
    with pytest.raises(ParameterError, match=r"=|weights|mean of length"):
        make()


@pytest.mark.parametrize(
    ("problem", "sigma", "sigma_next", "says"),
    [
        (Gaussian("flow"), 1.5, 0.5, "at most 1"),
        (Gaussian("flow"), 0.5, 1.5, "at most 1"),
        (Gaussian(), 0.0, 0.5, "sigma > 0"),
        (Gaussian(), 1.0, -0.5, "sigma_next >= 0"),
        (Gaussian(), math.inf, 1.0, "finite"),
        (LinearDenoiser(slope=1.0), 1.0, 0.0, "no finite solution"),
        (Polynomial("flow"), 1.0, 0.5, "above 0 and below 1"),
        (Polynomial("flow"), 0.5, 1.0, "above 0 and below 1"),
        (Polynomial(), 1.0, 0.0, "above 0"),
        (Mixture(), 1.0, 0.0, "end above 0"),
        (Empirical(), 1.0, 0.0, "end above 0"),
    ],
)
def test_levels_without_a_solution_are_refused(problem, sigma, sigma_next, says):
    """Levels that are none, or where the solution is not finite, are refused with those that are right."""
    with pytest.raises(ParameterError, match=says):
        problem.exact(random_state(shape=(problem.dims,)), sigma, sigma_next)


def test_polynomials_at_the_ends_of_a_path():
    """A polynomial is refused where lambda is infinite, unless it is a constant."""
    x = random_state()
    for problem, level in ((Polynomial("flow"), 1.0), (Polynomial(), 0.0)):
        with pytest.raises(ParameterError, match="infinite where lambda is"):
            problem(x, levels(x, level))
    flat = Polynomial("flow", (0.7, 0.0))
    assert torch.equal(flat(x, levels(x, 1.0)), torch.full_like(x, 0.7))
    assert distance(flat.exact(x, 1.0, 0.0), torch.full_like(x, 0.7)) < 1e-15


def test_solve_takes_any_denoiser_and_says_where_it_fails():
    """A plain function is solved on VE; outputs that are not finite are an error, not a result."""
    x = random_state(dtype="float32")
    found = solve(lambda x, sigma: torch.zeros_like(x), x, 2.0, 1.0)
    assert found.dtype == x.dtype
    assert distance(found, x / 2) < 1e-6
    with pytest.raises(NonFiniteError, match=r"not finite at sigma=2\.0"):
        solve(lambda x, sigma: x * math.nan, x, 2.0, 1.0)


def test_random_states_are_their_own():
    """They depend on the arguments alone, are the same numbers in every dtype, and leave the global state."""
    before = torch.get_rng_state()
    x = random_state(2**64 - 1, 2, (3, 4), scale=2.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, random_state(2**64 - 1, 2, (3, 4), scale=2.0))
    assert torch.equal(x.float(), random_state(2**64 - 1, 2, (3, 4), scale=2.0, dtype=torch.float32))
    assert not torch.equal(x, random_state(1, 2, (3, 4), scale=2.0))
    assert mpmath.mpf(float(random_state(0, 1000).std())) == pytest.approx(10, rel=0.1)
