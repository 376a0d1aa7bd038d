"""Gradients through a whole run, their memory bounded by repeating each step."""

from __future__ import annotations

import pytest
import torch
from support import F64, Gaussian, levels, state

import kdiff_core as kd
from kdiff_core import errors
from kdiff_core.testing.problems import Mixture

GRID = levels("ve", 20)
NAMES = ("euler", "heun", "dpmpp_2m", "uni_pc", "dpmpp_sde", "sa_solver", "euler_ancestral", "euler_cfg_pp")


class Net(torch.nn.Module):
    """A network whose hidden layer is much larger than its state, with dropout and a guided output."""

    path = "ve"

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = torch.nn.Parameter(torch.randn(4, 600, dtype=F64, generator=generator) / 2)
        self.last = torch.nn.Parameter(torch.randn(600, 4, dtype=F64, generator=generator) / 30)

    def forward(self, x, sigma, shift=0.0):
        hidden = torch.tanh(x / (1 + sigma[:, None] ** 2).sqrt() @ self.first + shift)
        return torch.nn.functional.dropout(hidden, 0.1) @ self.last

    def predict(self, x, sigma, shift=0.0):
        cond, uncond = self(x, sigma, shift), self(x, sigma, 0.0)
        return kd.Prediction(uncond + 2 * (cond - uncond), cond, uncond)


NET = Net()


def gradients(name, x, shift, **options):
    """Final state, gradients by state, condition and parameters, and the bytes that were kept for them."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    sampler = kd.get_sampler(name)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = sampler.run(NET, x, GRID, seed=0, cond={"shift": shift}, **options)
    parameters = [p for p in (x, shift, NET.first, NET.last) if p.requires_grad]
    found = torch.autograd.grad(result.x.square().sum(), parameters)
    return result, found, sum(kept.values())


@pytest.mark.parametrize("name", NAMES)
def test_checkpointed_gradients_are_the_same_in_less_memory(name):
    """By state, condition and parameters they are equal to the bit, noise and dropout included, at 1/5."""
    x, shift = state().requires_grad_(), torch.tensor(0.1, dtype=F64, requires_grad=True)
    plain, wanted, much = gradients(name, x, shift)
    result, found, little = gradients(name, x, shift, checkpoint_gradients=True)
    assert torch.equal(result.x, plain.x)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert all(bool(a.abs().max() > 0) for a in wanted)
    assert little < much / 5


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "heun, churned"])
def test_gradients_of_parameters_alone_are_the_same(name):
    """Where neither state nor condition requires a gradient, those of the parameters are equal to the bit."""
    x, shift = state(), torch.tensor(0.1, dtype=F64)
    name, options = ("heun", {"s_churn": 10.0}) if "," in name else (name, {})
    sampler = kd.get_sampler(name, **options)
    _, wanted, _ = gradients(sampler, x, shift)
    _, found, _ = gradients(sampler, x, shift, checkpoint_gradients=True)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_memory_does_not_grow_with_the_model():
    """What is kept for a step is a few states: four times the steps keep at most four times as much."""
    x, shift = state().requires_grad_(), torch.tensor(0.1, dtype=F64, requires_grad=True)
    state_size = x.numel() * x.element_size()
    for name, states in (("heun", 1), ("dpmpp_2m", 2), ("dpmpp_sde", 1)):
        assert gradients(name, x, shift, checkpoint_gradients=True)[2] <= (20 * states + 1) * state_size


def test_repeating_counts_for_nothing():
    """Evaluations, callbacks and what a callback sees are those of the run; the model is called twice."""
    calls, seen, wanted = [], [], []

    def counted(x, sigma, shift):
        calls.append(float(sigma[0]))
        return NET(x, sigma, shift)

    x, cond = state().requires_grad_(), {"shift": 0.1}
    sampler = kd.get_sampler("heun")
    torch.manual_seed(1)
    sampler.run(NET, x, GRID, cond=cond, callback=wanted.append)
    torch.manual_seed(1)
    result = sampler.run(
        counted, x, GRID, cond=cond, callback=seen.append, checkpoint_gradients=True, trajectory=True
    )
    before = list(calls)
    result.x.sum().backward()
    assert len(before) == result.evaluations == 39
    assert sorted(calls) == sorted(2 * before)
    assert [info.evaluations for info in seen] == [info.evaluations for info in wanted]
    for a, b in zip(seen, wanted, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.denoised, b.denoised)
    assert len(result.trajectory) == len(GRID)


@pytest.mark.parametrize("kind", ["function", "generator"])
def test_noise_that_cannot_be_drawn_again_is_kept(kind):
    """A generator, and a function that draws afresh, give the gradients of the run that was made."""
    found = []
    for checkpointed in (False, True):
        generator = torch.Generator().manual_seed(3)

        def draw(a, b, generator=generator):
            return torch.randn(3, 2, dtype=F64, generator=generator)

        x = state(dims=2).requires_grad_()
        noise = draw if kind == "function" else generator
        run = kd.get_sampler("dpmpp_sde").run(
            Mixture(), x, GRID, noise=kd.noise_from(noise), checkpoint_gradients=checkpointed
        )
        found.append(torch.autograd.grad(run.x.sin().sum(), x)[0])
    assert torch.equal(*found)


def test_a_model_may_write_over_its_levels():
    """A model that changes the levels it is given gets them unchanged when the step is repeated."""

    def rude(x, sigma):
        denoised = Gaussian()(x, sigma.clone())
        sigma.zero_()
        return denoised

    found = []
    for checkpointed in (False, True):
        x = state().requires_grad_()
        end = kd.get_sampler("dpmpp_2m")(rude, x, GRID, checkpoint_gradients=checkpointed)
        found.append(torch.autograd.grad(end.sin().sum(), x)[0])
    assert torch.equal(*found)


def test_without_gradients_it_changes_nothing():
    """Under no_grad, and stopped and resumed, a run is what it is without."""
    x, sampler = state(), kd.get_sampler("dpmpp_2m")
    wanted = sampler(Gaussian(), x, GRID)
    with torch.no_grad():
        assert torch.equal(sampler(Gaussian(), x, GRID, checkpoint_gradients=True), wanted)
    half = sampler.run(Gaussian(), x, GRID, stop=7, checkpoint_gradients=True)
    again = sampler.run(Gaussian(), resume=half.checkpoint, checkpoint_gradients=True)
    assert torch.equal(again.x, wanted)


def test_a_sampler_without_a_plan_is_refused():
    """Steps that depend on the state cannot be repeated from a plan."""
    with pytest.raises(errors.CapabilityError, match="no plan"):
        kd.get_sampler("dpm_adaptive")(Gaussian(), state(), GRID, checkpoint_gradients=True)
