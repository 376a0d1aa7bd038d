"""Samplers of other families: temperature, Langevin corrections, manifolds, blends, restarts by a rule."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import F64, Gaussian, few, levels, state

import kdiff_core as kd
from kdiff_core.errors import ParameterError
from kdiff_core.path import as_path
from kdiff_core.plans import Combine, Noise
from kdiff_core.testing.laws.order import run_errors
from kdiff_core.testing.measure import output_moments, slope, smooth_grid
from kdiff_samplers.riemannian import Euclidean, Riemannian, Sphere, Torus

paths = pytest.mark.parametrize("path", ["ve", "flow"])
STEPS = (100, 200, 400)


def fixed_noise(x: torch.Tensor) -> tuple[torch.Tensor, object]:
    """A noise like a state, and the source that gives it for every interval."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=F64)
    return noise, kd.noise_from(lambda sigma, sigma_next: noise)


# ------------------------------------------------------------------------------------------ Ito


@paths
def test_ito_without_noise_is_euler(path):
    """With eta = 0 the sampler is Euler's method."""
    runs = [
        kd.get_sampler(name, **options)(Gaussian(path), state(), levels(path, 9))
        for name, options in (("ito", {"eta": 0.0}), ("euler", {}))
    ]
    assert (runs[0] - runs[1]).abs().max() < 1e-13


@paths
@given(eta=st.floats(0.5, 2.0), temperature=st.floats(0.3, 3.0), variance=st.floats(0.1, 4.0))
@few
def test_ito_at_a_temperature(path, eta, temperature, variance):
    """The output's variance approaches the SDE's, ``T S + (1 - T) S0 (S / S0)^(1 + eta^2)``, with order 1."""
    sampler, errors = kd.get_sampler("ito", eta=eta, temperature=temperature), []
    for steps in STEPS:
        grid = smooth_grid(path, steps)
        way = as_path(path)
        first, last = (variance + way.ratio(grid[i]) ** 2 for i in (0, -1))  # of the state over alpha
        exact = temperature * last + (1 - temperature) * first * (last / first) ** (1 + eta**2)
        found = output_moments(sampler.plan(grid, path), Gaussian(path, 0.3, (variance, variance)))
        errors.append(abs(float(found.covariance[0, 0]) / (way.alpha(grid[-1]) ** 2 * exact) - 1))
    assert errors[-1] < 0.1 * min(1.0, temperature)
    assert slope([1 / n for n in STEPS], errors) == pytest.approx(1.0, abs=0.25) or errors[-1] < 2e-3


# ------------------------------------------------------------------------------------------ Langevin


@paths
@given(
    delta=st.floats(0.01, 1.0),
    level=st.floats(0.05, 0.95),
    variance=st.floats(0.05, 5.0),
    n=st.integers(1, 3),
)
@few
def test_a_correction_keeps_the_marginal_to_second_order(path, delta, level, variance, n):
    """Corrections keep the mean, and each takes ``(1 - sqrt(1 - delta))^2 (1 - r) r`` from the variance."""
    problem, grid = Gaussian(path, 0.7, (variance, variance)), [level, level / 2]
    options = {"solver": "euler", "delta": delta}
    found, plain = (
        output_moments(
            kd.get_sampler("predictor_corrector", corrections=k, **options).plan(grid, path), problem
        )
        for k in (n, 0)
    )
    alpha, move = as_path(path).alpha(level), 1 - math.sqrt(1 - delta)
    r = level**2 / (alpha**2 * variance + level**2)
    expected = 1.0
    for _ in range(n):  # of the variance that is there
        expected = expected * (1 - move * r) ** 2 + delta * r
    assert found.mean == pytest.approx(plain.mean, rel=1e-12)
    assert found.covariance[0, 0] / plain.covariance[0, 0] == pytest.approx(expected, rel=1e-12)
    if n == 1:
        assert expected == pytest.approx(1 - move**2 * (1 - r) * r, rel=1e-12)


@paths
def test_snr_sizes_the_papers_step_for_each_sample(path):
    """With `snr` each sample becomes ``x + e g + sqrt(2 e) z``, g its score, ``e = 2 (snr |z| / |g|)^2``."""
    x, sigma, snr = state(batch=3, scale=2.0), 0.6, 0.15
    noise, source = fixed_noise(x)
    problem = Gaussian(path)
    level = torch.full((3,), sigma, dtype=F64)
    score = (as_path(path).alpha(sigma) * problem(x, level) - x) / sigma**2
    size = 2 * (snr * noise.norm(dim=1) / score.norm(dim=1)) ** 2
    assert float(size.max() / size.min()) > 1.2
    corrected = x + size[:, None] * score + (2 * size[:, None]).sqrt() * noise
    found = kd.get_sampler("predictor_corrector", solver="euler", snr=snr)(
        problem, x, [sigma, 0.3], noise=source
    )
    assert (found - kd.get_sampler("euler")(problem, corrected, [sigma, 0.3])).abs().max() < 1e-13


def test_what_a_predictor_may_be():
    """A predictor with a memory, or something else than a sampler, is refused; a stochastic one is not."""
    with pytest.raises(ParameterError, match="earlier points"):
        kd.get_sampler("predictor_corrector", solver="dpmpp_2m")
    assert kd.get_sampler("predictor_corrector", solver="ddpm", corrections=0).stochastic
    assert not kd.get_sampler("predictor_corrector", solver="heun", corrections=0).stochastic


# ------------------------------------------------------------------------------------------ TrigFlow

SIGMA_DATA = 0.5


def trig_problem(x: torch.Tensor, t: float) -> torch.Tensor:
    """What a TrigFlow model gives for its state: ``F``, with ``D = cos(t) x - sin(t) sigma_data F``."""
    sigma = torch.full((len(x),), SIGMA_DATA * math.tan(t), dtype=F64)
    denoised = Gaussian("ve")(x / math.cos(t), sigma)
    return (x * math.cos(t) - denoised) / (math.sin(t) * SIGMA_DATA)


@given(times=st.lists(st.floats(0.05, 1.55), min_size=2, max_size=5, unique=True))
@few
def test_trigflow_is_consistency_sampling_at_tangents(times):
    """Multistep sampling in TrigFlow is `trigflow` on the levels ``sigma_data tan(t)``, on both paths."""
    times = [*sorted(times, reverse=True), 0.0]
    x = state(scale=SIGMA_DATA)
    noise, source = fixed_noise(x)
    trig = x
    for t, to in pairwise(times):
        data = trig * math.cos(t) - trig_problem(trig, t) * (math.sin(t) * SIGMA_DATA)
        trig = data * math.cos(to) + noise * (math.sin(to) * SIGMA_DATA)
    for path in ("ve", "flow"):
        way = as_path(path)
        grid = [way.from_ratio(SIGMA_DATA * math.tan(t)) for t in times]
        start = x / math.cos(times[0]) * way.alpha(grid[0])
        found = kd.get_sampler("trigflow")(Gaussian(path), start, grid, noise=source)
        assert (found - trig).abs().max() < 1e-11


@given(times=st.lists(st.floats(0.05, 1.55), min_size=2, max_size=6, unique=True))
@few
def test_a_rotation_in_trigflow_is_euler(times):
    """The step along TrigFlow's circle, ``cos(t - s) x - sin(t - s) sigma_data F``, is Euler's method."""
    times, x = sorted(times, reverse=True), state(scale=SIGMA_DATA)
    trig = x
    for t, to in pairwise(times):
        trig = trig * math.cos(t - to) - trig_problem(trig, t) * (math.sin(t - to) * SIGMA_DATA)
    grid = [SIGMA_DATA * math.tan(t) for t in times]
    found = kd.get_sampler("euler")(Gaussian("ve"), x / math.cos(times[0]), grid) * math.cos(times[-1])
    assert (found - trig).abs().max() < 1e-11


def test_s_noise_goes_to_its_end():
    """The factor of lcm's noise goes linearly from `s_noise` at the first step to `s_noise_end`."""
    grid = levels("ve", 6)

    def weights(**options: float) -> list[float]:
        plan = kd.get_sampler("lcm", **options).plan(grid, "ve")
        drawn = {op.out for op in plan.ops if isinstance(op, Noise)}
        return [w for op in plan.ops if isinstance(op, Combine) for r, w in op.terms if r in drawn]

    ramp = [a / b for a, b in zip(weights(s_noise=1.0, s_noise_end=0.5), weights(), strict=True)]
    assert ramp == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6])


# ------------------------------------------------------------------------------------------ manifolds


def points(n: int = 4, d: int = 3, seed: int = 0) -> torch.Tensor:
    """Random points of a sphere."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return x / x.norm(dim=-1, keepdim=True)


def angles(seed: int) -> torch.Tensor:
    """Random points of a torus."""
    return (torch.rand(4, 3, generator=torch.Generator().manual_seed(seed), dtype=F64) * 2 - 1) * math.pi


# torch.func's forward mode loads a part of torch that still scripts.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("manifold", "make"), [(Sphere(), lambda s: points(seed=s)), (Torus(), angles), (Euclidean(), angles)]
)
@given(seed=st.integers(0, 100))
@few
def test_maps_of_the_manifolds(manifold, make, seed):
    """`exp` inverts `log`, both know the way of length 0, and `pull` is the derivative of `log`."""
    x, y, w = make(seed), make(seed + 1), make(seed + 2)
    way = manifold.log(x, y)
    assert (manifold.exp(x, way) - y).abs().max() < 1e-12
    assert manifold.log(x, x).abs().max() < 1e-7
    assert (manifold.exp(x, way * 0) - x).abs().max() < 1e-15
    tangent = manifold.log(y, w)
    _, derivative = torch.func.jvp(lambda at: manifold.log(x, at), (y,), (tangent,))
    assert (manifold.pull(x, y, tangent) - derivative).abs().max() < 1e-9


class Turning:
    """A denoiser on the sphere with which each point turns about an axis: ``x' = cos(2 sigma) a x x``."""

    path = "flow"
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=F64)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The point whose geodesic from x sets out that way."""
        speed = -sigma * torch.cos(2 * sigma)
        return Sphere().exp(x, torch.linalg.cross(self.axis.expand_as(x), x) * speed[:, None])

    def exact(self, x: torch.Tensor, sigma: float, to: float) -> torch.Tensor:
        """The point turned."""
        angle = (math.sin(2 * to) - math.sin(2 * sigma)) / 2
        c, s = math.cos(angle), math.sin(angle)
        return x @ torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]], dtype=F64)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_order_on_the_sphere(method):
    """Where the points turn about an axis each method has its order, and keeps to the sphere."""
    sampler, x, problem = Riemannian("sphere", method), points(), Turning()
    exact, steps, errors = problem.exact(x, 0.95, 0.2), (10, 20, 40), []
    for n in steps:
        grid = [0.95 + (0.2 - 0.95) * i / n for i in range(n + 1)]
        run = sampler.run(problem, x, grid, trajectory=True)
        assert max(float((y.norm(dim=-1) - 1).abs().max()) for y in run.trajectory) < 1e-14
        errors.append(float((run.x - exact).norm()))
    assert slope([1 / n for n in steps], errors) == pytest.approx(sampler.order, abs=0.2)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize("manifold", ["sphere", "torus"])
@given(to=st.just(0.0) | st.floats(0.01, 0.9))
@few
def test_a_constant_estimate_is_reached_along_the_geodesic(method, manifold, to):
    """For a constant D the state goes along the geodesic to it, exactly: ``exp_x((1 - s'/s) log_x(D))``."""
    make, on = (points, Sphere()) if manifold == "sphere" else (angles, Torus())
    x, target = make(seed=1), make(seed=2)
    found = Riemannian(manifold, method)(kd_flow(target), x, [1.0, 0.95, to])
    assert (found - on.exp(x, on.log(x, target) * (1 - to))).abs().max() < 1e-12


def kd_flow(target: torch.Tensor):
    """A denoiser on the flow path that always gives one state."""

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return target.clone()

    denoise.path = "flow"
    return denoise


@paths
@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_flat_space_is_the_usual_method(path, method):
    """In flat space the methods are the classical ones in sigma, on both paths."""
    problem, x, grid = Gaussian(path), state(), levels(path, 8)[:-1]

    def slope_at(y: torch.Tensor, sigma: float) -> torch.Tensor:
        return (y - problem(y, torch.full((len(y),), sigma, dtype=F64))) / sigma

    found = Riemannian(method=method)(problem, x, grid)
    for sigma, sigma_next in pairwise(grid):
        h, middle = sigma_next - sigma, (sigma + sigma_next) / 2
        one = slope_at(x, sigma)
        two = slope_at(x + one * h / 2, middle)
        if method == "rk4":
            three = slope_at(x + two * h / 2, middle)
            x = x + (one + 2 * two + 2 * three + slope_at(x + three * h, sigma_next)) * h / 6
        else:
            x = x + (one if method == "euler" else two) * h
    assert (found - x).abs().max() < 1e-12


def test_a_manifold_of_ones_own():
    """An object with `exp`, `log` and `pull` is a manifold; anything else is refused."""
    x = state()
    own = Riemannian(type("Own", (Euclidean,), {})())
    assert torch.equal(own(Gaussian("flow"), x, [0.9, 0.5]), Riemannian()(Gaussian("flow"), x, [0.9, 0.5]))
    with pytest.raises(ParameterError, match="none of 'euclidean'"):
        Riemannian("klein bottle")


# ------------------------------------------------------------------------------------------ SPC


@paths
@pytest.mark.parametrize(("blend", "order"), [(1.0, 2), (0.5, 1)])
@pytest.mark.parametrize("corrector_order", [2, 3, 4])
def test_spc_converges(path, blend, order, corrector_order):
    """A run of SPC is of order 2 where all of the correction is made, else of order 1."""
    sampler, steps = kd.get_sampler("spc", corrector_order=corrector_order, blend=blend), (80, 160, 320)
    assert slope([1 / n for n in steps], run_errors(sampler, path, steps)) == pytest.approx(order, abs=0.25)


@paths
def test_spc_of_two_evaluations_is_unipc_of_order_one(path):
    """With a corrector of order 2 and no blend SPC is UniPC of order 1 with exact weights."""
    x, grid = state(), levels(path, 9)
    unipc = kd.get_sampler("uni_pc", solver_order=1, variant="exact", lower_order_final="never")
    spc = kd.get_sampler("spc", corrector_order=2)
    assert (spc(Gaussian(path), x, grid) - unipc(Gaussian(path), x, grid)).abs().max() < 1e-13


# ------------------------------------------------------------------------------------------ Restart


@paths
@pytest.mark.parametrize(
    ("steps", "times", "each"), [(1, 0, 0), (19, 0, 0), (20, 1, 9), (35, 1, 9), (36, 2, 9), (47, 2, 11)]
)
def test_restarts_by_a1111s_rule(path, steps, times, each):
    """Below 20 steps no restart, from 20 one of 9 steps, from 36 two of a quarter of the steps."""
    grid = levels(path, steps)
    visited = list(kd.get_sampler("a1111:Restart").levels(grid, path))
    rises = [i for i, (a, b) in enumerate(pairwise(visited)) if b > a]
    assert len(rises) == times
    assert len(visited) == len(grid) + times * (each + 1)
    for i in rises:
        assert as_path(path).ratio(visited[i + 1]) == pytest.approx(2.0)
        assert visited[i + 1 + each] == visited[i]


@paths
@pytest.mark.parametrize("top", [0.5, 2.0])
def test_restarts_on_several_intervals(path, top):
    """A Restart of a Restart goes through both intervals, apart or not, in either order, to the marginals."""
    way, grid = as_path(path), levels(path, 12)
    high = {"restart_low": 1.0, "restart_high": 4.0, "restart_times": 2}
    low = {"restart_low": 0.1, "restart_high": top}
    one = kd.get_sampler("restart", solver=kd.get_sampler("restart", **high), **low)
    other = kd.get_sampler("restart", solver=kd.get_sampler("restart", **low), **high)
    visited = list(one.levels(grid, path))
    assert visited == pytest.approx(list(other.levels(grid, path)), rel=1e-12)
    tops = [way.ratio(b) for a, b in pairwise(visited) if b > a]
    assert tops == pytest.approx([4.0, 4.0, top])
    problem, errors = Gaussian(path), []
    for steps in (40, 80, 160):
        fine = smooth_grid(path, steps, last=0.05)
        mean, covariance = problem.marginal(fine[-1])
        found = output_moments(one.plan(fine, path), problem)
        errors.append(abs(found.covariance - covariance).max() + abs(found.mean - mean).max())
    assert slope([1 / 40, 1 / 80, 1 / 160], errors) == pytest.approx(2.0, abs=0.3)


def test_restarts_share_their_noise():
    """Restarts on several intervals with different factors of the noise are refused."""
    with pytest.raises(ParameterError, match="share the outer"):
        kd.get_sampler("restart", solver=kd.get_sampler("restart", s_noise=0.5))
