"""Guidance by gradients, against closed forms: normal data, whose every posterior is known, and mixtures."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import DenoiserError
from kdiff_exact.empirical import EmpiricalDenoiser

F64 = torch.float64
few = settings(max_examples=25)
seeds = st.integers(0, 10_000)
levels = st.lists(st.floats(0.05, 0.95), min_size=3, max_size=3)
both = pytest.mark.parametrize("path", ["ve", "flow"])


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def alpha_of(sigma, path):
    return 1 - sigma if path == "flow" else torch.ones_like(sigma)


class Normal:
    """The exact denoiser of normal data of one deviation around a mean."""

    def __init__(self, mean, std=1.0, path="ve"):
        self.mean, self.std, self.path = mean, std, path

    def gain(self, sigma):
        """The derivative of the output in the state."""
        alpha = alpha_of(sigma, self.path)
        return alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)

    def __call__(self, x, sigma, **cond):
        gain, alpha = (v[:, None] for v in (self.gain(sigma), alpha_of(sigma, self.path)))
        return self.mean + gain * (x - alpha * self.mean)


@both
@few
@given(seed=seeds, sigma=levels, std=st.floats(0.3, 3), noise=st.floats(0.2, 3), scale=st.floats(-2, 3))
def test_dps(path, seed, sigma, std, noise, scale):
    """DPS on normal data: (sigma^2 / alpha) gain A^T (y - A D) / noise^2 is what it adds."""
    sigma = torch.tensor(sigma, dtype=F64)
    model, a, y, x = (
        Normal(draw(seed, 6), std, path),
        draw(seed + 1, 4, 6),
        draw(seed + 2, 3, 4),
        draw(seed, 3, 6),
    )
    found = kd.get_guidance("dps", model, y, lambda d: d @ a.T, noise, scale)(x, sigma)
    d = model(x, sigma)
    weight = scale * sigma**2 / alpha_of(sigma, path) * model.gain(sigma) / noise**2
    close(found, d + weight[:, None] * ((y - d @ a.T) @ a))


@both
@few
@given(seed=seeds, sigma=levels, std=st.floats(0.3, 3), noise=st.floats(0.2, 3))
def test_pigdm_is_exact_on_normal_data(path, seed, sigma, std, noise):
    """Pseudoinverse guidance on normal data is the posterior mean given the state and the observation."""
    sigma = torch.tensor(sigma, dtype=F64)
    mean, a, y, x = draw(seed, 6), draw(seed + 1, 4, 6), draw(seed + 2, 3, 4), draw(seed + 3, 3, 6)
    method = kd.get_guidance("pigdm", Normal(mean, std, path), y, lambda d: d @ a.T, noise, std)
    found = method(x, sigma)
    eye = torch.eye(6, dtype=F64)
    for i, alpha in enumerate(alpha_of(sigma, path)):
        # Precision and mean of the data given three independent things: prior, state, observation.
        precision = eye / std**2 + eye * alpha**2 / sigma[i] ** 2 + a.T @ a / noise**2
        known = mean / std**2 + alpha * x[i] / sigma[i] ** 2 + y[i] @ a / noise**2
        close(found[i], torch.linalg.solve(precision, known), 1e-7)


@both
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_pigdm_needs_one_step_for_a_mask(path, noise):
    """For a mask one step of conjugate gradients solves the system; without noise what is seen is met."""
    mean, y, x = draw(0, 6), draw(1, 1, 3), draw(2, 3, 6)
    sigma = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    make = lambda n: kd.get_guidance(  # noqa: E731
        "pigdm", Normal(mean, 1.0, path), y, lambda d: d[:, ::2], noise, iterations=n
    )
    one = make(1)(x, sigma)
    close(one, make(10)(x, sigma), 1e-12)
    assert (one[:, 1::2] - Normal(mean, 1.0, path)(x, sigma)[:, 1::2]).abs().max() < 1e-12
    if not noise:
        close(one[:, ::2], y.expand(3, 3), 1e-12)


def test_pigdm_with_a_singular_system():
    """Two equal observations without noise make a singular system, whose solution it finds all the same."""
    x, sigma = draw(0, 2, 4), torch.tensor([0.4, 0.8], dtype=F64)
    found = kd.get_guidance(
        "pigdm", Normal(torch.zeros(4, dtype=F64)), torch.ones(1, 2, dtype=F64), lambda d: d[:, [1, 1]]
    )(x, sigma)
    close(found[:, 1], torch.ones(2, dtype=F64), 1e-12)


@both
@few
@given(seed=seeds, sigma=levels, scale=st.floats(-1, 3))
def test_classifier(path, seed, sigma, scale):
    """With the exact classifier of a mixture it extrapolates from no class to the class, by the scale."""
    sigma, label = torch.tensor(sigma, dtype=F64), torch.tensor([0, 1, 1])
    points, classes = draw(0, 8, 3), torch.arange(8) % 2
    model = EmpiricalDenoiser(points, labels=classes, smoothing=0.4, path=path)

    def density(x, sigma, rows):
        alpha = alpha_of(sigma, path)[:, None, None]
        variance = alpha**2 * 0.16 + sigma[:, None, None] ** 2
        distance = ((x[:, None] - alpha * points[rows]) ** 2 / variance).sum(2)
        return torch.logsumexp(-distance / 2, 1)

    def classifier(x, sigma, **cond):
        of_class = torch.stack([density(x, sigma, classes == k) for k in range(2)])
        return of_class.gather(0, label[None])[0] - density(x, sigma, classes >= 0)

    x = alpha_of(sigma, path)[:, None] * draw(seed, 3, 3) + sigma[:, None] * draw(seed + 1, 3, 3)
    none, given_ = model(x, sigma), model(x, sigma, label=label)
    close(
        kd.get_guidance("classifier", model, classifier, scale)(x, sigma),
        none + scale * (given_ - none),
        1e-8,
    )


def methods(path="ve"):
    """One of each kind on data that is not normal, so that second derivatives count."""
    model = EmpiricalDenoiser(draw(0, 5, 4), smoothing=0.5, path=path)
    y, a = draw(1, 1, 3), draw(2, 3, 4)
    return {
        "classifier": kd.get_guidance("classifier", model, lambda x, sigma: torch.sin(x).sum(1)),
        "dps": kd.get_guidance("dps", model, y, lambda d: torch.tanh(d @ a.T)),
        "pigdm": kd.get_guidance("pigdm", model, y, lambda d: d @ a.T, 0.5),
    }


@both
@pytest.mark.parametrize("name", methods())
def test_gradients_through_it(name, path):
    """Where the state requires a gradient, that of the output is the one of finite differences."""
    method, sigma = methods(path)[name], torch.tensor([0.4, 0.8], dtype=F64)
    x = draw(3, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: method(x, sigma), (x,))
    with torch.no_grad():
        plain = method(x, sigma)
    assert not plain.requires_grad
    close(plain, method(x, sigma).detach(), 1e-12)


@pytest.mark.parametrize("name", methods())
def test_no_graph_is_kept(name):
    """Otherwise no output requires a gradient, and the state is left as it is."""
    x, sigma = draw(3, 2, 4), torch.tensor([0.4, 0.8], dtype=F64)
    assert not methods()[name](x, sigma).requires_grad
    assert not x.requires_grad
    around = kd.get_guidance("cfg", lambda x, sigma, s: x * s, 3.0, uncond={"s": 0.2})
    method = kd.get_guidance("classifier", around, lambda x, sigma, s: x.sum(1))
    parts = method.predict(x, sigma, s=0.5)
    assert not any(part.requires_grad for part in parts)
    close(parts.denoised, around(x, sigma, s=0.5) + (sigma**2)[:, None])


@pytest.mark.parametrize("name", methods())
def test_nothing_at_the_start_of_flow(name):
    """At level 1 of a flow path, where a state says nothing of the data, the output is the model's."""
    x, sigma = draw(3, 2, 4), torch.tensor([1.0, 0.8], dtype=F64)
    method = methods("flow")[name]
    found, plain = method(x, sigma), method.denoiser(x, sigma)
    assert torch.equal(found[0], plain[0])
    assert not torch.allclose(found[1], plain[1])


def test_nests():
    """The likelihood of a nest is of all its tensors: an observation of one moves what depends on it."""
    model = Normal(draw(0, 4))

    def nested(x, sigma):
        mixed = (x["a"] + x["b"]) / 2
        return {"a": model(mixed, sigma), "b": model(x["b"], sigma)}

    x, sigma, y = {"a": draw(1, 2, 4), "b": draw(2, 2, 4)}, torch.tensor([0.4, 0.8], dtype=F64), draw(3, 1, 4)
    plain, gain = nested(x, sigma), model.gain(sigma)[:, None]
    step = (sigma**2)[:, None] * gain / 2 * (y - plain["a"])
    dps = kd.get_guidance("dps", nested, y, lambda d: d["a"])(x, sigma)
    pigdm = kd.get_guidance("pigdm", nested, y, lambda d: d["a"])(x, sigma)
    r2 = (sigma**2 / (1 + sigma**2))[:, None]
    for key in ("a", "b"):
        close(dps[key], plain[key] + step)
        close(pigdm[key], plain[key] + step / r2)
    drift = kd.get_guidance("classifier", nested, lambda x, sigma: 3 * x["b"].sum(1))(x, sigma)
    assert torch.equal(drift["a"], plain["a"])
    close(drift["b"], plain["b"] + 3 * (sigma**2)[:, None])


@both
def test_a_run_meets_the_observation(path):
    """A run with pseudoinverse guidance ends on the mean and covariance of the exact posterior."""
    mean, a, y, noise = draw(0, 3), draw(1, 2, 3), draw(2, 1, 2), 0.5
    method = kd.get_guidance("pigdm", Normal(mean, 1.0, path), y, lambda d: d @ a.T, noise)
    way = kd.FLOW if path == "flow" else kd.VE
    high = 0.9999 if path == "flow" else 1000.0
    ends = way.lambda_(high), way.lambda_(1e-4)
    sigmas = [way.sigma(each) for each in torch.linspace(*ends, 200, dtype=F64).tolist()]
    # The run is affine in its start: 0 and the three axes tell mean and covariance of its end.
    start = torch.cat([torch.zeros(1, 3, dtype=F64), torch.eye(3, dtype=F64)]) * high
    end = kd.get_sampler("dpmpp_2m")(method, start, sigmas)
    axes = (end[1:] - end[:1]).T
    precision = torch.eye(3, dtype=F64) + a.T @ a / noise**2
    expected = torch.linalg.solve(precision, mean + y[0] @ a / noise**2)
    assert (end[0] - expected).abs().max() < 1e-3 * expected.abs().max()
    assert (axes @ axes.T - torch.linalg.inv(precision)).abs().max() < 1e-3


def test_refuses():
    """A likelihood that is not one a sample, an observation of another shape, a model without gradient."""
    x, sigma = draw(0, 2, 4), torch.ones(2, dtype=F64)
    model = Normal(draw(1, 4))

    @torch.no_grad()
    def frozen(x, sigma):
        return x * 0.5

    for name, options, message in (
        ("classifier", (lambda x, sigma: x.sum(),), r"returned \(\); it returns one log-likelihood"),
        ("classifier", (lambda x, sigma: 0.0,), "returned float"),
        ("classifier", (lambda x, sigma: x.detach().sum(1),), "the likelihood has no gradient"),
        ("dps", (draw(2, 1, 3), lambda d: d), "the observation is"),
        ("pigdm", (draw(2, 3, 4), lambda d: d), "the observation is"),
    ):
        with pytest.raises(DenoiserError, match=message):
            kd.get_guidance(name, model, *options)(x, sigma)
    for name in ("dps", "pigdm"):
        with pytest.raises(DenoiserError, match="no gradient with respect to the state"):
            kd.get_guidance(name, frozen, draw(2, 1, 4), lambda d: d)(x, sigma)
