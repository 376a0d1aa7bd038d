"""Laws of every kind of guidance: what is neutral, samples alone, calls, intervals, nests, composition."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import CapabilityError, DenoiserError, ParameterError
from kdiff_core.testing import check_denoiser
from kdiff_exact.empirical import EmpiricalDenoiser

F64 = torch.float64
few = settings(max_examples=10)
seeds = st.integers(0, 10_000)


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Model(EmpiricalDenoiser):
    """A denoiser with a branch of another smoothing, that counts its calls."""

    calls = 0

    def __call__(self, x, sigma, **cond):
        self.calls += 1
        return super().__call__(x, sigma, **cond)

    def degraded(self, name, smoothing=1.5):
        return {"perturbed_attention": model(self.path, smoothing), "blur": model(self.path, smoothing)}[name]


def model(path="ve", smoothing=0.3):
    labels = torch.arange(9) % 3
    return Model(draw(0, 9, 2, 4, 5), labels=labels, smoothing=smoothing, path=path)


def likelihood(x, sigma, **cond):
    return -((x - 0.5) ** 2).flatten(1).sum(1) * 0.1


def mask(x):
    return x[:, :, ::2]


SEEN = draw(7, 1, 2, 2, 5)
LABEL = torch.tensor([2])
OTHER = [({"label": LABEL}, 0.5)]
# Of each kind: its name, its options, those of none of it, and the calls of the model that it makes.
METHODS = {
    "cfg": ("cfg", {"scale": 3.0}, {"scale": 1.0}, 2),
    "interval": ("interval", {"sigma_low": 0.0, "sigma_high": 99.0}, {"scale": 1.0}, 2),
    "others": ("cfg", {"others": OTHER}, {"scale": 1.0, "others": ()}, 3),
    "perp_neg": ("perp_neg", {"negatives": OTHER}, None, 3),
    "apg": ("apg", {"norm_threshold": 0.5}, {"scale": 1.0}, 2),
    "cfg_zero": ("cfg_zero", {}, {"scale": 1.0}, 2),
    "tcfg": ("tcfg", {}, {"scale": 1.0}, 2),
    "fdg": ("fdg", {}, {"low": 1.0, "high": 1.0}, 2),
    "autoguidance": ("autoguidance", {}, {"scale": 1.0}, 1),
    "perturbed_attention": ("perturbed_attention", {}, {"scale": 0.0}, 1),
    "rescale": ("rescale", {}, {"phi": 0.0}, 2),
    "dynamic_thresholding": ("dynamic_thresholding", {"quantile": 0.8}, {"bound": 1e9}, 1),
    "epsilon_scaling": ("epsilon_scaling", {}, {"factor": 1.0}, 1),
    "classifier": ("classifier", {"classifier": likelihood}, {"scale": 0.0}, 1),
    "dps": ("dps", {"observed": SEEN, "operator": mask}, {"scale": 0.0}, 1),
    "pigdm": ("pigdm", {"observed": SEEN, "operator": mask}, None, 1),
}
GRADIENTS = ("classifier", "dps", "pigdm")
kinds = pytest.mark.parametrize("kind", METHODS)
both = pytest.mark.parametrize("path", ["ve", "flow"])


def around(kind, denoiser, **options):
    """Guidance around a model, with its options but for those given."""
    name, own, _, _ = METHODS[kind]
    if kind == "rescale":
        denoiser = kd.get_guidance("cfg", denoiser, scale=3.0)
    if kind == "autoguidance":
        own = {"weak": denoiser.degraded("blur")}
    return kd.get_guidance(name, denoiser, **{**own, **options})


def built(kind, path="ve", neutral=False, **options):
    return around(kind, model(path), **(METHODS[kind][2] if neutral else {}), **options)


def example(seed, size=3):
    cond = {"label": torch.randint(0, 3, (size,), generator=torch.Generator().manual_seed(seed))}
    return draw(seed, size, 2, 4, 5), torch.linspace(0.2, 0.9, size, dtype=F64), cond


def beneath(method, x, sigma, cond):
    return method.denoiser(x, sigma, **cond)


@both
@pytest.mark.parametrize("kind", [kind for kind in METHODS if METHODS[kind][2]])
@few
@given(seed=seeds)
def test_neutral(kind, path, seed):
    """With the neutral parameter it is what lies beneath, bit for bit, when called and in parts."""
    x, sigma, cond = example(seed)
    method = built(kind, path, neutral=True)
    expected = beneath(method, x, sigma, cond)
    assert torch.equal(method(x, sigma, **cond), expected)
    if hasattr(method, "predict"):
        assert torch.equal(method.predict(x, sigma, **cond).denoised, expected)


@kinds
def test_not_neutral(kind):
    """Otherwise it is something else."""
    x, sigma, cond = example(1)
    method = built(kind)
    assert not torch.allclose(method(x, sigma, **cond), beneath(method, x, sigma, cond), rtol=1e-4)


@both
@kinds
@few
@given(seed=seeds)
def test_samples_alone(kind, path, seed):
    """Each sample alone is what it is in the batch: bit for bit, but for gradients."""
    x, sigma, cond = example(seed, 4)
    method = built(kind, path)
    whole = method(x, sigma, **cond)
    for i in range(4):
        row = slice(i, i + 1)
        alone = method(x[row].clone(), sigma[row], **{name: value[row] for name, value in cond.items()})
        if kind in GRADIENTS:
            torch.testing.assert_close(alone, whole[row], rtol=1e-11, atol=1e-11)
        else:
            assert torch.equal(alone, whole[row])
    assert getattr(method, "batch_exact", False) is (kind not in GRADIENTS)


@kinds
def test_calls(kind):
    """It makes as many calls as it says; one of what lies beneath outside of its levels, and when neutral."""
    x, sigma, cond = example(0)
    _, _, none, number = METHODS[kind]
    for options, expected in (({}, number), ({"sigma_low": 0.05, "sigma_high": 0.9}, number)):
        method = built(kind, **options)
        method(x, sigma, **cond)
        assert method.calls == expected
    under = 2 if kind == "rescale" else 1
    for options in ({"sigma_low": 0.9, "sigma_high": 2.0}, {"sigma_low": 0.0, "sigma_high": 0.1}):
        method = built(kind, **options)
        found = method(x, sigma, **cond)
        assert method.calls == under
        assert torch.equal(found, beneath(method, x, sigma, cond))
    if none:
        method = built(kind, neutral=True)
        method(x, sigma, **cond)
        assert method.calls == (1 if kind == "dynamic_thresholding" else under)


@kinds
@few
@given(seed=seeds)
def test_interval(kind, seed):
    """Samples between the levels are guided, the upper one included; the others are not, bit for bit."""
    x, _, cond = example(seed, 4)
    sigma = torch.tensor([0.2, 0.5, 0.8, 0.9], dtype=F64)
    method, everywhere = built(kind, sigma_low=0.2, sigma_high=0.8), built(kind)
    found, plain = method(x, sigma, **cond), beneath(method, x, sigma, cond)
    guided = everywhere(x, sigma, **cond)
    for i, inside in enumerate((False, True, True, False)):
        assert torch.equal(found[i], (guided if inside else plain)[i])


@both
@kinds
@few
@given(seed=seeds)
def test_parts(kind, path, seed):
    """The parts go with the call, and are the model's own outputs; each is memory of its own."""
    x, sigma, cond = example(seed)
    method = built(kind, path)
    if not hasattr(method, "predict"):
        assert kind in (*GRADIENTS, "dynamic_thresholding", "epsilon_scaling")
        method = around(kind, kd.get_guidance("cfg", model(path), scale=3.0))
    parts = method.predict(x, sigma, **cond)
    torch.testing.assert_close(parts.denoised, method(x, sigma, **cond), rtol=1e-12, atol=1e-12)
    assert torch.equal(parts.cond, model(path)(x, sigma, **cond))
    weak = kind in ("autoguidance", "perturbed_attention")
    none = model(path, 1.5)(x, sigma, **cond) if weak else model(path)(x, sigma)
    assert torch.equal(parts.uncond, none)
    assert parts.denoised.data_ptr() not in (parts.cond.data_ptr(), parts.uncond.data_ptr(), x.data_ptr())


@pytest.mark.parametrize("kind", [k for k in METHODS if hasattr(built(k), "predict") and k != "rescale"])
def test_parts_outside(kind):
    """Outside of its levels the three parts are the conditional output, by one call, in three memories."""
    x, sigma, cond = example(2)
    method = built(kind, **{"sigma_low": 5.0, "sigma_high": 6.0})
    parts = method.predict(x, sigma, **cond)
    assert method.calls == 1
    assert all(torch.equal(part, model()(x, sigma, **cond)) for part in parts)
    assert len({part.data_ptr() for part in parts}) == 3


# The likelihood of a gradient is of the whole state: see test_gradients.
@pytest.mark.parametrize("kind", [kind for kind in METHODS if kind not in GRADIENTS])
def test_nests(kind):
    """A nest is guided tensor by tensor, each as if it were alone."""

    def nested(m):
        def call(x, sigma, **cond):
            return {"sound": -m(-x["sound"], sigma, **cond), "image": m(x["image"], sigma, **cond)}

        call.path, call.classes = "ve", 3
        call.degraded = lambda name: nested(m.degraded(name))
        return call

    def single(m):
        def call(x, sigma, **cond):
            return -m(-x, sigma, **cond)

        call.path, call.classes, call.degraded = "ve", 3, lambda name: single(m.degraded(name))
        return call

    x, sigma, cond = example(3)
    state = {"image": x, "sound": x * 2}
    base = model()
    found = around(kind, nested(base))(state, sigma, **cond)
    assert list(found) == ["image", "sound"]
    assert torch.equal(found["image"], around(kind, base)(x, sigma, **cond))
    assert torch.equal(found["sound"], around(kind, single(base))(x * 2, sigma, **cond))


@pytest.mark.parametrize("kind", [kind for kind in METHODS if kind not in (*GRADIENTS, "fdg")])
@few
@given(seed=seeds)
def test_no_place_is_special(kind, seed):
    """Guidance commutes with a permutation of the values of all samples."""
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))

    def permuted(x):
        return x.flatten(1)[:, order].reshape(x.shape)

    def back(x):
        return x.flatten(1)[:, order.argsort()].reshape(x.shape)

    class Permuted(Model):
        def __call__(self, x, sigma, **cond):
            return permuted(super().__call__(back(x), sigma, **cond))

        def degraded(self, name):
            return other(1.5)

    def other(smoothing=0.3):
        return Permuted(draw(0, 9, 2, 4, 5), labels=torch.arange(9) % 3, smoothing=smoothing)

    x, sigma, cond = example(seed)
    found = around(kind, other())(permuted(x), sigma, **cond)
    expected = permuted(around(kind, model())(x, sigma, **cond))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["cfg", "others", "perp_neg", "apg", "cfg_zero", "tcfg", "fdg"])
def test_one_batch(kind):
    """One call of a larger batch gives what one call for each condition gives, bit for bit."""
    x, sigma, cond = example(4)
    alone, batched = built(kind), built(kind, batched=True)
    assert torch.equal(batched(x, sigma, **cond), alone(x, sigma, **cond))
    assert batched.calls == 1
    for part, expected in zip(
        batched.predict(x, sigma, **cond), alone.predict(x, sigma, **cond), strict=True
    ):
        assert torch.equal(part, expected)
        assert part.untyped_storage().nbytes() == x.untyped_storage().nbytes()


@pytest.mark.parametrize("path", ["ve", "flow"])
@pytest.mark.parametrize("kind", METHODS)
def test_the_kit(kind, path):
    """The conformance kit for denoisers finds nothing."""
    report = check_denoiser(built(kind, path), examples=4)
    report.raise_if_broken()
    assert len(report.results) >= 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@kinds
def test_half_precision(kind, dtype):
    """Half-precision states are guided in float32, and the result is rounded once to the state's dtype."""
    x, sigma, cond = example(5)
    x, sigma = x.to(dtype), sigma.to(dtype)

    class Rounded(Model):
        def __call__(self, x, sigma, **cond):
            return super().__call__(x.float(), sigma.float(), **cond).to(dtype).to(x.dtype)

        def degraded(self, name):
            return rounded(1.5)

    def rounded(smoothing=0.3):
        return Rounded(draw(0, 9, 2, 4, 5), labels=torch.arange(9) % 3, smoothing=smoothing)

    method = around(kind, rounded())
    found = method(x, sigma, **cond)
    assert found.dtype == dtype
    if kind not in (*GRADIENTS, "rescale"):  # where it is rounded on the way
        assert torch.equal(found, method(x.float(), sigma.float(), **cond).to(dtype))


@pytest.mark.parametrize("kind", ["autoguidance", "perturbed_attention"])
def test_exact_where_both_models_are(kind):
    """Guidance by another model is the same bits in any batch only if both models are."""
    for name in ("denoiser", "other"):
        inexact, other = model(), model(smoothing=1.5)
        (inexact if name == "denoiser" else other).batch_exact = False
        inexact.degraded = lambda name, other=other: other
        assert around(kind, inexact).batch_exact is False


def test_composition():
    """Rescale around APG, thresholding around both, a branch around all: each acts on what lies beneath."""
    x, sigma, cond = example(6)
    apg = kd.get_guidance("apg", model(), 6.0)
    rescaled = kd.get_guidance("rescale", apg, 1.0, space="x0")
    around = kd.get_guidance("dynamic_thresholding", rescaled, 0.9)
    top = kd.get_guidance("perturbed_attention", around, scale=0.5)
    g, c, u = apg.predict(x, sigma, **cond)
    factor = c.flatten(1).std(1) / g.flatten(1).std(1)
    rows = g * factor[:, None, None, None]
    torch.testing.assert_close(rescaled(x, sigma, **cond), rows, rtol=1e-11, atol=1e-11)
    s = rows.abs().flatten(1).quantile(0.9, 1).clamp_min(1)[:, None, None, None]
    rows = rows.clamp(-s, s) / s
    torch.testing.assert_close(around(x, sigma, **cond), rows, rtol=1e-11, atol=1e-11)
    rows = rows + 0.5 * (c - model(smoothing=1.5)(x, sigma, **cond))
    parts = top.predict(x, sigma, **cond)
    torch.testing.assert_close(parts.denoised, rows, rtol=1e-11, atol=1e-11)
    assert torch.equal(parts.uncond, u)


@pytest.mark.parametrize("kind", [k for k in METHODS if hasattr(built(k), "predict")])
@both
def test_cfg_pp(kind, path):
    """A CFG++ step takes its data from guidance and its noise from the unconditional output."""
    x, _, cond = example(7, 2)
    method = built(kind, path)
    high, low = 0.8, 0.5
    found = kd.get_sampler("euler", cfg_pp=True)(method, x, [high, low], cond=cond)
    parts = method.predict(x, torch.full((2,), high, dtype=F64), **cond)
    alpha = (lambda s: 1 - s) if path == "flow" else (lambda s: 1.0)
    noise = (x - alpha(high) * parts.uncond) / high
    torch.testing.assert_close(found, alpha(low) * parts.denoised + low * noise, rtol=1e-10, atol=1e-10)
    for name in ("dpmpp_2m_cfg_pp", "euler_ancestral_cfg_pp"):
        assert torch.isfinite(kd.get_sampler(name)(method, x, [0.9, 0.5, 0.1, 0], cond=cond, seed=0)).all()


@both
@kinds
def test_runs(kind, path):
    """A run ends on finite data, from level 1 of a flow path too, and records no gradient."""
    levels = [1.0, 0.7, 0.3, 0.1, 0] if path == "flow" else [10.0, 3.0, 1.0, 0.1, 0]
    x = draw(8, 2, 2, 4, 5) * levels[0]
    found = kd.get_sampler("dpmpp_2m")(built(kind, path), x, levels, cond={"label": torch.tensor([0, 1])})
    assert torch.isfinite(found).all()
    assert not found.requires_grad


@kinds
def test_forwards_and_copies(kind):
    """The denoiser's attributes are found on it, missing ones are missing, and it can be copied."""
    method = built(kind)
    for name in ("path", "sigma_max", "sample_shape", "classes"):
        assert getattr(method, name) == getattr(model(), name)
    assert not hasattr(method, "no_such_thing")
    x, sigma, cond = example(9)
    expected = method(x, sigma, **cond)
    for again in (copy.copy(method), copy.deepcopy(method)):
        assert torch.equal(again(x, sigma, **cond), expected)
    assert hash(method) != hash(built(kind))
    if kind not in ("dps", "pigdm"):
        assert torch.equal(pickle.loads(pickle.dumps(method))(x, sigma, **cond), expected)


def test_registered():
    """Every registered kind is under test here, and aliases lead to it."""
    names = {entry.name for entry in kd.list_guidance() if entry.plugin.builtin}
    elsewhere = {"inpaint", "differential", "tiled"}  # test_masks.py, test_tiled.py
    assert names - {"degraded", "skip_layers", "smoothed_energy"} - elsewhere == METHODS.keys() - {"others"}
    for alias, name in (("adaptive projected", "apg"), ("CFG-Zero-star", "cfg_zero"), ("pag", None)):
        method = kd.get_guidance(alias, model())
        assert type(method) is type(built(name or "perturbed_attention"))
    assert kd.get_guidance("degraded", model(), "blur", options={"smoothing": 2.0}).damaged.smoothing == 2.0


guide = kd.get_guidance
REFUSED = {
    "an empty interval": (lambda m: guide("apg", m, sigma_low=2, sigma_high=2), ParameterError, "not above"),
    "a negative level": (lambda m: guide("cfg", m, sigma_low=-1), ParameterError, "sigma_low=-1.0 must be"),
    "no number": (lambda m: guide("tcfg", m, math.nan), ParameterError, "scale=nan must be finite"),
    "an infinite weight": (
        lambda m: guide("cfg", m, others=[({}, math.inf)]), ParameterError, "weight=inf must be finite"),
    "no pairs": (lambda m: guide("cfg", m, others=[{"label": 1}]), ParameterError, "pairs of conditions"),
    "no negatives": (lambda m: guide("perp_neg", m), ParameterError, "no condition to lead away from"),
    "a norm of 0": (lambda m: guide("apg", m, norm_threshold=0), ParameterError, "norm_threshold=0.0 must"),
    "a quantile of 0": (lambda m: guide("dynamic_thresholding", m, 0), ParameterError, "quantile=0.0 must"),
    "a factor of 0": (lambda m: guide("epsilon_scaling", m, 0), ParameterError, "factor=0.0 must be"),
    "a share": (lambda m: guide("rescale", guide("cfg", m), 2), ParameterError, "phi=2.0 must be between"),
    "nothing to rescale": (lambda m: guide("rescale", m), CapabilityError, "has no predict"),
    "a space": (lambda m: guide("tcfg", m, space="score"), ParameterError, "space='score' must be one of"),
    "no levels": (lambda m: guide("fdg", m, levels=0), ParameterError, "levels=0 must be a whole number"),
    "no branches": (
        lambda m: guide("pag", EmpiricalDenoiser([[0.0], [1.0]])), CapabilityError, "has no degraded"),
    "a branch": (lambda m: guide("skip_layers", m), ParameterError, "no branch 'skip_layers'"),
    "a branch's options": (lambda m: guide("pag", m, options={"x": 1}), ParameterError, "unexpected keyword"),
    "another path": (lambda m: guide("autoguidance", m, model("flow")), ParameterError, "both need the same"),
    "no model": (lambda m: guide("autoguidance", m, 3), ParameterError, "weak=3 cannot be called"),
    "no weaker model": (lambda m: guide("autoguidance", m), ParameterError, "weak"),
    "an observation": (lambda m: guide("dps", m, [1.0], mask), ParameterError, "observed="),
    "no noise": (lambda m: guide("dps", m, SEEN, mask, noise=0), ParameterError, "noise=0.0 must be"),
    "no step": (lambda m: guide("pigdm", m, SEEN, mask, iterations=0), ParameterError, "iterations=0 must"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    """What makes no sense is refused when it is built, and says what would."""
    make, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        make(model())


def test_refuses_when_called():
    """Flat states for frequencies, conditions that make no batch, outputs of another structure."""
    one = torch.ones(2, dtype=F64)
    flat = EmpiricalDenoiser(draw(0, 6, 4), labels=torch.arange(6) % 2)
    with pytest.raises(ParameterError, match="no height and width"):
        guide("fdg", flat)(draw(1, 2, 4), one, label=torch.tensor([0, 1]))

    def echo(x, sigma, **cond):
        return x.clone()

    x = draw(1, 2, 4)
    for uncond, given_, message in (
        ({"p": torch.zeros(2, 3)}, {"p": torch.zeros(2, 5)}, "shapes .* pad them"),
        ({"p": torch.zeros(2, 3)}, {}, "different names"),
        ({"p": "none"}, {"p": "cat"}, "no row for each of the 2 samples"),
        ({"p": {"a": 1}}, {"p": {"a": 2}}, "'a' differ"),
    ):
        with pytest.raises(ParameterError, match=message):
            guide("cfg", echo, uncond=uncond, batched=True)(x, one, **given_)
    same = {"p": {"a": torch.zeros(1, 3), "b": 2}}
    assert torch.equal(guide("cfg", echo, uncond={}, batched=True)(x, one, **same), x)
    with pytest.raises(DenoiserError, match="tensor"):
        guide("cfg", lambda x, sigma: [x], uncond={})(x, one)
