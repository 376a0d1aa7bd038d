"""Classifier-free guidance: the formula, the conditions of its two calls, what it forwards."""

import copy
import math
import pickle
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdiff_core.errors import DenoiserError, ParameterError
from kdiff_exact.empirical import EmpiricalDenoiser
from kdiff_guidance.cfg import CFG

law = settings(deadline=None)  # how long an example takes says nothing on a shared machine


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DATA = EmpiricalDenoiser(draw(0, 12, 4), labels=torch.arange(12) % 3, smoothing=0.3)


class Recorder:
    """A denoiser that answers with `shift` and notes the conditions of each call."""

    path = "flow"

    def __init__(self):
        self.calls = []

    def __call__(self, x, sigma, shift=0.0, **cond):
        self.calls.append({"shift": shift, **cond})
        return x * 0 + shift


@law
@given(st.integers(0, 1000), st.floats(-20, 20), st.floats(0.05, 20))
def test_formula(seed, scale, sigma):
    """The output is u + scale (c - u), with u the output for any class."""
    x, level = draw(seed, 3, 4), torch.full((3,), sigma, dtype=torch.float64)
    label = torch.tensor([0, 1, 2])
    guided = CFG(DATA, scale=scale).predict(x, level, label=label)
    c, u = DATA(x, level, label=label), DATA(x, level)
    assert torch.equal(guided.cond, c)
    assert torch.equal(guided.uncond, u)
    torch.testing.assert_close(guided.denoised, u + scale * (c - u), rtol=1e-10, atol=1e-10)
    assert torch.equal(CFG(DATA, scale=scale)(x, level, label=label), guided.denoised)


@law
@given(st.integers(0, 1000))
def test_ends_are_exact(seed):
    """Scale 1 is the conditional output and scale 0 the unconditional one, bit for bit."""
    x, level = draw(seed, 3, 4), torch.ones(3, dtype=torch.float64)
    label = torch.tensor([2, 1, 0])
    for guided in (
        CFG(DATA, scale=1).predict(x, level, label=label),
        CFG(DATA, 0).predict(x, level, label=label),
    ):
        assert guided.denoised.data_ptr() not in (guided.cond.data_ptr(), guided.uncond.data_ptr())
    assert torch.equal(
        CFG(DATA, scale=1).predict(x, level, label=label).denoised, DATA(x, level, label=label)
    )
    assert torch.equal(CFG(DATA, scale=1)(x, level, label=label), DATA(x, level, label=label))
    assert torch.equal(CFG(DATA, scale=0)(x, level, label=label), DATA(x, level))


def test_calls():
    """Guidance is two calls, scale 1 one; only the named conditions are replaced."""
    inner = Recorder()
    guided = CFG(inner, scale=3, uncond={"shift": 1.0})
    x, level = torch.zeros(2, 4), torch.ones(2)
    assert torch.equal(guided(x, level, shift=2.0, size=7), torch.full((2, 4), 4.0))
    assert inner.calls == [{"shift": 2.0, "size": 7}, {"shift": 1.0, "size": 7}]
    CFG(inner, scale=1, uncond={"shift": 1.0})(x, level, shift=2.0)
    assert len(inner.calls) == 3


def test_one_row_serves_all():
    """An unconditional embedding of batch size 1 is repeated for a batch of conditions."""
    inner = Recorder()
    CFG(inner, uncond={"embeds": torch.ones(1, 5), "other": torch.ones(1)})(
        torch.zeros(3, 4), torch.ones(3), embeds=torch.zeros(3, 5)
    )
    assert inner.calls[1]["embeds"].shape == (3, 5)
    assert inner.calls[1]["other"].shape == (1,)


def test_forwards_attributes():
    """The wrapped denoiser's attributes are found on the guided one, and missing ones are missing."""
    guided = CFG(DATA, scale=2)
    for name in ("path", "sigma_min", "sigma_max", "sample_shape", "value_range", "classes", "name"):
        assert getattr(guided, name) == getattr(DATA, name)
    assert CFG(Recorder(), uncond={"shift": 0.0}).path == "flow"
    assert not hasattr(guided, "no_such_thing")
    assert not hasattr(CFG(lambda x, sigma, **c: x, uncond={}), "path")


def test_copies():
    """A guided denoiser can be copied and pickled."""
    x, level = draw(0, 2, 4), torch.ones(2, dtype=torch.float64)
    label = torch.tensor([0, 1])
    guided = CFG(DATA, scale=2.5)
    for again in (copy.copy(guided), copy.deepcopy(guided), pickle.loads(pickle.dumps(guided))):
        assert torch.equal(again(x, level, label=label), guided(x, level, label=label))


class Clip(NamedTuple):
    picture: torch.Tensor
    sound: dict


def test_nests():
    """States that are nests of tensors are guided tensor by tensor."""

    def denoiser(x, sigma, shift):
        return Clip(x.picture + shift, {"left": x.sound["left"] - shift})

    x = Clip(torch.zeros(2, 3), {"left": torch.zeros(2, 5)})
    found = CFG(denoiser, scale=3, uncond={"shift": 1.0})(x, torch.ones(2), shift=2.0)
    assert torch.equal(found.picture, torch.full((2, 3), 4.0))
    assert torch.equal(found.sound["left"], torch.full((2, 5), -4.0))


def test_refuses():
    """A missing unconditional side, a scale that is no number and outputs that differ are refused."""
    with pytest.raises(ParameterError, match="uncond="):
        CFG(lambda x, sigma: x)
    with pytest.raises(ParameterError, match="uncond="):
        CFG(EmpiricalDenoiser([[0.0], [1.0]]))
    with pytest.raises(ParameterError, match="finite"):
        CFG(DATA, scale=math.nan)
    with pytest.raises(ParameterError, match="called"):
        CFG("digits", uncond={})
    rows = {"shift": torch.zeros(4, 1)}
    with pytest.raises(ParameterError, match=r"'shift' has 4 rows, in a call of 2 samples.*Chunked"):
        CFG(Recorder(), uncond=rows)(torch.zeros(2, 4), torch.ones(2), shift=torch.ones(2, 1))
    with pytest.raises(DenoiserError, match="shape"):
        CFG(lambda x, sigma, k: x[:, :k], uncond={"k": 1})(torch.zeros(2, 4), torch.ones(2), k=3)
