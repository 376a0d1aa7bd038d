"""The formula of each kind of guidance, computed once more from its paper in NumPy, sample by sample."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import ParameterError
from kdiff_guidance.vectors import inner

F64 = torch.float64
SHAPE = (3, 2, 4, 5)
seeds = st.integers(0, 10_000)
scales = st.floats(-3, 12)
sigmas = st.floats(0.05, 0.95)  # levels that both paths have
paths = st.sampled_from(["ve", "flow"])


def draw(seed, *shape):
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Echo:
    """A denoiser that returns what its condition says."""

    def __init__(self, path="ve"):
        self.path = path

    def __call__(self, x, sigma, answer):
        return answer.clone()


def guided(name, seed, sigma, path="ve", factor=1.0, **options):
    """The state, the outputs c and u, and what guidance makes of them, as NumPy arrays."""
    x, c, u = draw(seed), draw(seed + 1) * factor, draw(seed + 2)
    method = kd.get_guidance(name, Echo(path), uncond={"answer": u}, **options)
    found = method(x, torch.full((3,), sigma, dtype=F64), answer=c)
    return x.numpy(), c.numpy(), u.numpy(), found.numpy()


def each(function, *arrays):
    """A function of one sample, for each of them."""
    return np.stack([function(*rows) for rows in zip(*arrays, strict=True)])


def close(found, expected, tolerance=1e-9):
    assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def slope(x, d, sigma):
    return (x - d) / sigma


@given(seeds, scales, st.floats(-1, 2), st.floats(0.1, 8), sigmas)
def test_apg(seed, scale, eta, most, sigma):
    """APG: the cut difference without (1 - eta) of its projection on the conditional output."""

    def formula(c, u):
        change = (c - u).ravel()
        change = change * min(1.0, most / np.linalg.norm(change))
        unit = c.ravel() / np.linalg.norm(c)
        parallel = (change @ unit) * unit
        return (c.ravel() + (scale - 1) * (change - parallel + eta * parallel)).reshape(c.shape)

    _, c, u, found = guided("apg", seed, sigma, scale=scale, eta=eta, norm_threshold=most)
    close(found, each(formula, c, u))


@given(seeds, scales, sigmas)
def test_apg_with_all_of_it_is_cfg(seed, scale, sigma):
    """APG with eta 1 and nothing cut is classifier-free guidance."""
    _, c, u, found = guided("apg", seed, sigma, scale=scale, eta=1.0)
    close(found, u + scale * (c - u))


@given(seeds, scales, sigmas, paths)
def test_cfg_zero(seed, scale, sigma, path):
    """CFG-Zero*: least squares of the conditional velocity on the unconditional one."""

    def formula(x, c, u):
        a, b = slope(x, c, sigma).ravel(), slope(x, u, sigma).ravel()
        s = np.linalg.lstsq(b[:, None], a, rcond=None)[0][0]
        return x - sigma * (s * b + scale * (a - s * b)).reshape(x.shape)

    x, c, u, found = guided("cfg_zero", seed, sigma, path, scale=scale)
    close(found, each(formula, x, c, u))


@given(seeds, st.lists(sigmas, min_size=3, max_size=3), paths)
def test_cfg_zero_does_not_move_in_the_first_steps(seed, levels, path):
    """From `zero_from` on the output is the state, so that its slope is 0; below the guided output."""
    x, c, u, sigma = draw(seed), draw(seed + 1), draw(seed + 2), torch.tensor(levels, dtype=F64)
    make = lambda start: kd.get_guidance("cfg_zero", Echo(path), 3.0, start, uncond={"answer": u})  # noqa: E731
    found, plain = make(levels[0])(x, sigma, answer=c), make(None)(x, sigma, answer=c)
    for i in range(3):
        assert torch.equal(found[i], x[i] if levels[i] >= levels[0] else plain[i])


@given(seeds, scales, sigmas, paths, st.floats(0.2, 5))
def test_tcfg(seed, scale, sigma, path, factor):
    """TCFG: the unconditional score on the first right singular vector, by a decomposition of the matrix."""

    def formula(x, c, u):
        a, b = slope(x, c, sigma).ravel(), slope(x, u, sigma).ravel()
        _, values, rows = np.linalg.svd(np.stack([a, b]), full_matrices=False)
        assume(values[0] > 1.01 * values[1])
        b = (b @ rows[0]) * rows[0]
        return x - sigma * (b + scale * (a - b)).reshape(x.shape)

    x, c, u, found = guided("tcfg", seed, sigma, path, factor, scale=scale)
    close(found, each(formula, x, c, u), 1e-8)


def test_tcfg_without_a_first_direction():
    """Where both are as long and orthogonal, or both zero, the unconditional output stays as it is."""
    c = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=F64)
    u = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=F64)
    method = kd.get_guidance("tcfg", Echo(), 3.0, uncond={"answer": u}, space="x0")
    assert torch.equal(method(c, torch.ones(2, dtype=F64), answer=c), u + (c - u) * 3)


@given(seeds, scales, st.lists(st.floats(-2, 2), min_size=1, max_size=3), sigmas)
def test_perp_neg(seed, scale, weights, sigma):
    """Perp-Neg: the negatives without what they share with the positive direction."""
    x, c, u = draw(seed), draw(seed + 1), draw(seed + 2)
    negatives = [draw(seed + 10 + i) for i in range(len(weights))]
    pairs = [({"answer": n}, w) for n, w in zip(negatives, weights, strict=True)]
    method = kd.get_guidance("perp_neg", Echo(), pairs, scale=scale, uncond={"answer": u})
    found = method(x, torch.full((3,), sigma, dtype=F64), answer=c).numpy()

    def formula(c, u, *others):
        p, total = (c - u).ravel(), (c - u).ravel()
        for n, w in zip(others, weights, strict=True):
            d = (n - u).ravel()
            total = total - w * (d - (d @ p) / (p @ p) * p)
        return u + scale * total.reshape(u.shape)

    close(found, each(formula, *(t.numpy() for t in (c, u, *negatives))))


@given(seeds, st.floats(-3, 8), st.floats(-3, 8), st.integers(1, 3), sigmas)
def test_fdg(seed, low, high, levels, sigma):
    """FDG: a matrix that blurs, whose part of the difference gets one scale and the rest the other."""

    def blur(size, distance):
        matrix = np.zeros((size, size))
        for i in range(size):
            for k, weight in zip((-2, -1, 0, 1, 2), np.array([1, 4, 6, 4, 1]) / 16, strict=True):
                matrix[i, min(max(i + k * distance, 0), size - 1)] += weight
        return matrix

    _, c, u, found = guided("fdg", seed, sigma, low=low, high=high, levels=levels)
    coarse = c - u
    for k in range(levels):
        coarse = blur(4, 2**k) @ coarse @ blur(5, 2**k).T
    close(found, u + low * coarse + high * (c - u - coarse))


def test_fdg_splits_by_frequency():
    """A constant difference is all coarse; one that changes sign from pixel to pixel is all fine inside."""
    u, flat = torch.zeros(1, 1, 8, 8, dtype=F64), torch.ones(1, 1, 8, 8, dtype=F64)
    board = torch.tensor([[(-1.0) ** (i + j) for j in range(8)] for i in range(8)], dtype=F64)[None, None]
    method = kd.get_guidance("fdg", Echo(), low=5.0, high=7.0, uncond={"answer": u})
    one = torch.ones(1, dtype=F64)
    torch.testing.assert_close(method(u, one, answer=flat), 5 * flat, rtol=1e-12, atol=0)
    inside = (..., slice(2, 6), slice(2, 6))
    torch.testing.assert_close(method(u, one, answer=board)[inside], 7 * board[inside], rtol=1e-12, atol=0)


def v_of(x, d, sigma, path):
    """The velocity: of rectified flow, or in the variance-preserving coordinates of Salimans & Ho."""
    if path == "flow":
        return (x - d) / sigma
    alpha, spread = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    return alpha * (x - d) / sigma - spread * d


def data_of(x, v, sigma, path):
    """The data of a velocity: ``alpha z - spread v`` with the state ``z = alpha x``."""
    if path == "flow":
        return x - sigma * v
    alpha, spread = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    return alpha * (alpha * x) - spread * v


@given(seeds, scales, st.floats(0, 1), sigmas, paths, st.sampled_from(["v", "x0", "slope", None]))
def test_rescale(seed, scale, phi, sigma, path, space):
    """Rescale: the standard deviation of the conditional output, over a sample's values, in its space."""
    x, c, u = draw(seed), draw(seed + 1) * 3 + 1, draw(seed + 2)
    cfg = kd.get_guidance("cfg", Echo(path), scale=scale, uncond={"answer": u})
    chosen = {} if space is None else {"space": space}
    found = kd.get_guidance("rescale", cfg, phi, **chosen)(x, torch.full((3,), sigma, dtype=F64), answer=c)

    def there(x, d):
        return {"x0": d, "slope": (x - d) / sigma, "v": v_of(x, d, sigma, path)}[space or "v"]

    def back(x, y):
        return {"x0": y, "slope": x - sigma * y, "v": data_of(x, y, sigma, path)}[space or "v"]

    def formula(x, c, u):
        g, c = there(x, u + scale * (c - u)), there(x, c)
        return back(x, phi * g * c.std() / g.std() + (1 - phi) * g)

    close(found.numpy(), each(formula, x.numpy(), c.numpy(), u.numpy()))


@given(seeds, sigmas)
def test_eps_and_slope_are_one_on_ve(seed, sigma):
    """On VE the slope is the predicted noise."""
    one, other = (guided("tcfg", seed, sigma, space=space, scale=4.0)[3] for space in ("eps", "slope"))
    assert np.array_equal(one, other)


@given(seeds, st.floats(0.3, 1), st.floats(0.3, 3), st.floats(0.2, 6))
def test_dynamic_thresholding(seed, q, bound, factor):
    """Imagen's thresholding with NumPy's quantile of each sample."""

    def formula(d):
        s = max(np.quantile(np.abs(d), q), bound)
        return np.clip(d, -s, s) * bound / s

    d = draw(seed) * factor
    method = kd.get_guidance("dynamic_thresholding", Echo(), q, bound)
    found = method(draw(seed + 1), torch.ones(3, dtype=F64), answer=d).numpy()
    close(found, each(formula, d.numpy()), 1e-12)
    assert np.abs(found).max() <= bound * (1 + 1e-12)


@given(seeds)
def test_dynamic_thresholding_leaves_what_is_in_range(seed):
    """A sample within the range stays bit for bit, beside one that does not."""
    d = draw(seed)
    d[0] = d[0].clamp(-1, 1)
    d[1, 0] = 3
    found = kd.get_guidance("dynamic_thresholding", Echo(), 0.9)(d, torch.ones(3, dtype=F64), answer=d)
    assert torch.equal(found[0], d[0])
    assert not torch.equal(found[1], d[1])


@given(seeds, st.floats(0.5, 2), sigmas, paths)
def test_epsilon_scaling(seed, factor, sigma, path):
    """On VE the noise, on flow the velocity is divided, and the data estimate follows."""
    x, d = draw(seed), draw(seed + 1)
    method = kd.get_guidance("epsilon_scaling", Echo(path), factor)
    found = method(x, torch.full((3,), sigma, dtype=F64), answer=d)
    close(found.numpy(), (x - sigma * ((x - d) / sigma) / factor).numpy())


@given(seeds, scales)
def test_autoguidance_and_branches(seed, scale):
    """Autoguidance extrapolates from the weaker model; a branch adds scale times what it lacks."""
    x, c, w = draw(seed), draw(seed + 1), draw(seed + 2)
    one = torch.ones(3, dtype=F64)
    strong = Echo()
    strong.degraded = lambda name, shift=0.0: lambda x, sigma, answer: w + shift
    found = kd.get_guidance("autoguidance", strong, lambda x, sigma, answer: w.clone(), scale)
    close(found(x, one, answer=c).numpy(), (w + scale * (c - w)).numpy())
    found = kd.get_guidance("perturbed_attention", strong, scale=scale, options={"shift": 1.0})
    close(found(x, one, answer=c).numpy(), (c + scale * (c - w - 1)).numpy())
    cfg = kd.get_guidance("cfg", strong, 3.0, uncond={"answer": -c})
    both = kd.get_guidance("skip_layers", cfg, scale=scale).predict(x, one, answer=c)
    close(both.denoised.numpy(), (5 * c + scale * (c - w)).numpy())
    assert torch.equal(both.uncond, -c)


@given(seeds, scales | st.just(1.0), st.lists(st.floats(-3, 3), min_size=1, max_size=3), st.booleans())
@example(0, 1.0, [1.5], False)
def test_further_conditions(seed, scale, weights, batched):
    """Each further condition adds its weight times its difference from none."""
    x, c, u = draw(seed), draw(seed + 1), draw(seed + 2)
    others = [draw(seed + 10 + i) for i in range(len(weights))]
    pairs = [({"answer": o}, w) for o, w in zip(others, weights, strict=True)]
    method = kd.get_guidance("cfg", Echo(), scale, uncond={"answer": u}, others=pairs, batched=batched)
    expected = u + scale * (c - u) + sum(w * (o - u) for o, w in zip(others, weights, strict=True))
    close(method(x, torch.ones(3, dtype=F64), answer=c).numpy(), expected.numpy())


@pytest.mark.parametrize("name", ["tcfg", "cfg_zero"])
def test_eps_on_flow_is_refused(name):
    """At sigma = 1 on flow the noise says nothing of the data."""
    with pytest.raises(ParameterError, match="'v' or 'slope'"):
        kd.get_guidance(name, Echo("flow"), uncond={}, space="eps")


@given(seeds)
@settings(max_examples=3)
def test_products_of_samples_alone(seed):
    """An inner product has the same bits alone and in the batch, with several threads."""
    a, b = draw(seed, 3, 100_001).float(), draw(seed + 1, 3, 100_001).float()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        whole = inner(a, b)
        assert whole.shape == (3, 1)
        for i in range(3):
            assert torch.equal(inner(a[i : i + 1].clone(), b[i : i + 1].clone())[0], whole[i])
    finally:
        torch.set_num_threads(threads)
