"""The estimate of a run's memory: beside what the run was seen to hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import few, levels
from torch import nn

import kdiff_core as kd
from kdiff_core.cli import main
from kdiff_core.errors import CapabilityError, StateError
from kdiff_core.estimate import Tracker, live_states, memory, size_of

# Estimated over measured. Both count what operations make, not what kernels hold inside, so that little but
# a run's numbers (levels, checks) lies between.
LEAST, MOST = 0.95, 1.02


class ConvNet(nn.Module):
    """A small convolutional network."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 3, 3, padding=1)
        self.middle, self.norm = nn.Conv2d(32, 32, 3, padding=1), nn.GroupNorm(8, 32)

    def forward(self, x, sigma, shift=None):
        h = nn.functional.silu(self.first(x))
        h = h + self.middle(nn.functional.silu(self.norm(h)))
        return self.last(h) if shift is None else self.last(h) + shift


class Transformer(nn.Module):
    """A tiny transformer over pixels."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 32), nn.Linear(32, 3)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, x, sigma):
        tokens = self.first(x.flatten(2).transpose(1, 2))
        return self.last(self.layer(tokens)).transpose(1, 2).reshape(x.shape)


NETS = {"conv": ConvNet().eval(), "transformer": Transformer().eval()}
SHAPE = (8, 3, 16, 16)


def measured(sampler, model, x, grid, **options):
    """What a run was seen to hold at most: what its operations made, and what they were given."""
    with torch.no_grad(), Tracker() as tracker:
        sampler(model, x, grid, seed=0, **options)
    return tracker.peak + tracker.given


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("name", ["euler", "dpmpp_2m_sde", "lms", "heun"])
@pytest.mark.parametrize("net", NETS)
def test_the_estimate_is_what_a_run_holds(net, name, chunk):
    """For a convolutional network and a transformer the estimate is within 5 % below and 2 % above."""
    sampler, grid, x = kd.get_sampler(name), levels("ve", 6), torch.randn(SHAPE)
    estimate = memory(sampler.plan(grid), x, NETS[net], chunk=chunk)
    assert LEAST < estimate.total / measured(sampler, NETS[net], x, grid, chunk=chunk) < MOST


@few
@given(batch=st.integers(1, 8), side=st.integers(4, 24), name=st.sampled_from(["euler", "unipc", "deis"]))
def test_the_estimate_follows_the_shape(batch, side, name):
    """The same at any batch size and resolution."""
    sampler, grid, x = kd.get_sampler(name), levels("ve", 5), torch.randn(batch, 3, side, side)
    estimate = memory(sampler.plan(grid), x, NETS["conv"])
    found = measured(sampler, NETS["conv"], x, grid)
    assert LEAST - 2048 / found < estimate.total / found < MOST


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "lms", "dpmpp_sde", "restart", "sa_solver"])
def test_states_alone_are_counted_without_a_model(name):
    """A run with a model that holds nothing but its output has the states of the estimate."""
    sampler, grid, x = kd.get_sampler(name), levels("ve", 8), torch.randn(2, 5000)
    estimate = memory(sampler.plan(grid), x)
    held = measured(sampler, lambda x, sigma: torch.mul(x, 0.5), x, grid)
    assert estimate.states_at_most == held // estimate.state
    assert not estimate.has_model
    assert "without the model" in estimate.table()


@pytest.mark.parametrize("name", ["lms", "dpmpp_2m", "dpmpp_3m_sde"])
def test_states_do_not_grow_with_the_steps(name):
    """A run of more steps holds no more."""
    counts = {live_states(kd.plan(name, levels("ve", n)).increments()) for n in (12, 25)}
    assert len(counts) == 1


def test_nothing_of_the_model_is_allocated():
    """A model and a state far larger than any memory are estimated on device "meta"."""
    with torch.device("meta"):
        wide, like = nn.Linear(2**20, 2**20), torch.empty(2**16, 2**20)
    estimate = memory(kd.plan("lms", levels("ve", 5)), like, lambda x, sigma: wide(x))
    assert estimate.model == 4 * (2**40 + 2**20)
    assert estimate.activations == estimate.state == 4 * 2**36
    assert "TiB" in estimate.table()


def test_chunks_and_offload_make_it_smaller():
    """A chunk lowers what the model holds, offload what waits during a call."""
    plan, like = kd.plan("lms", levels("ve", 8)), torch.empty(SHAPE)
    model = NETS["conv"]
    whole, chunked = (memory(plan, like, model, chunk=chunk) for chunk in (None, 1))
    assert chunked.activations < whole.activations / 3
    assert memory(plan, like, model, chunk="auto") == whole
    gpu = live_states(plan, offload=True, on_gpu=True)
    assert gpu[0] == 2 < whole.states_at_calls
    assert memory(plan, like.to("meta"), offload=True).states_at_calls == 2
    assert memory(plan, like, offload=True).states_at_calls == whole.states_at_calls


def test_noise_that_a_gpu_draws_ahead_is_counted():
    """Two more states where noise is drawn, and none where it is not."""
    for name, more in (("dpmpp_2m", 0), ("dpmpp_2m_sde", 2)):
        plan = kd.plan(name, levels("ve", 8)).increments()
        assert live_states(plan, on_gpu=True)[0] >= live_states(plan, True, True)[0] >= 2 + more


def test_conditions_are_counted_and_may_have_rows():
    """A condition belongs to what the model reads; a run in chunks splits it."""
    plan, like = kd.plan("euler", levels("ve", 5)), torch.empty(SHAPE)
    model, shift = NETS["conv"], torch.zeros(SHAPE)
    plain = memory(plan, like, model)
    for chunk in (None, 3):
        estimate = memory(plan, like, model, cond={"shift": shift}, chunk=chunk)
        assert estimate.model == plain.model + 4 * shift.numel()


def test_a_guided_model_is_asked_for_all_its_outputs():
    """A sampler that needs several outputs is estimated by a call that gives them."""
    calls = []

    class Guided:
        def predict(self, x, sigma):
            calls.append("predict")
            return kd.Prediction(x * 1, x * 2, x * 3)

        def __call__(self, x, sigma):
            calls.append("call")
            return x * 1

    for name, expected in (("euler_cfg_pp", "predict"), ("euler", "call")):
        estimate = memory(kd.plan(name, levels("ve", 4)), torch.empty(2, 1000), Guided())
        assert calls.pop() == expected
        assert estimate.activations == estimate.state * (3 if expected == "predict" else 1)


def test_a_model_that_remembers_its_call_is_left_as_it_was():
    """A network that keeps tensors of its calls gets none without values."""

    class Remembers(nn.Module):
        table = None

        def forward(self, x, sigma):
            if self.table is None:
                self.table = torch.linspace(0, 1, 7)
            return x * self.table.sum()

    model = Remembers()
    memory(kd.plan("euler", levels("ve", 4)), torch.empty(2, 3), model)
    assert model.table is None
    assert model(torch.ones(2, 3), None).isfinite().all()


def test_the_model_that_ships_can_be_estimated():
    """The digits, by name, with their parameters, and the model still works."""
    model = kd.get_denoiser("digits")
    estimate = memory(kd.plan("euler", levels("ve", 4)), torch.empty(4, *model.sample_shape), model)
    assert estimate.total > estimate.model > 0
    assert model(torch.randn(2, *model.sample_shape), torch.ones(2)).isfinite().all()


def test_a_model_that_reads_values_is_refused():
    """It is said that only the states can be counted."""

    def model(x, sigma):
        return x if float(sigma[0]) > 1 else x * 2

    with pytest.raises(CapabilityError, match=r"without values.*counts the states alone"):
        memory(kd.plan("euler", levels("ve", 4)), torch.empty(2, 3), model)


@pytest.mark.parametrize("net", NETS)
def test_a_model_that_cannot_be_copied_is_estimated_alike(net):
    """A function around a network, whose parameters have values, needs what the network needs."""
    plan, like, model = kd.plan("euler", levels("ve", 4)), torch.empty(SHAPE), NETS[net]

    def around(x, sigma):
        return model(x, sigma)

    assert memory(plan, like, around) == memory(plan, like, model)


def test_something_that_is_no_state_is_refused():
    """A state has a batch dimension and floating point."""
    with pytest.raises(StateError):
        memory(kd.plan("euler", levels("ve", 4)), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (3 * 2**30, "3 GiB"), (2**52, "4096 TiB")],
)
def test_sizes_are_told_in_binary_units(size, text):
    """A number of bytes has four digits at most, and a unit."""
    assert size_of(size) == text


def test_a_dry_run_says_what_a_run_would_need(capsys, monkeypatch, tmp_path):
    """`kdiff sample --dry-run` prints the estimate of what it would sample, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["sample", "digits", "-n", "3", "--steps", "4", "-s", "lms", "--chunk", "2", "--dry-run"])
    assert not left.value.code
    printed = capsys.readouterr().out
    expected = kd.SampleJob("digits", 3, "lms", steps=4, chunk=2).setup().memory()
    assert printed.split() == expected.table().split()
    assert not list(tmp_path.iterdir())


def test_a_dry_run_needs_a_plan():
    """A sampler without a plan has no states to count."""
    with pytest.raises(CapabilityError, match="no plan"):
        kd.SampleJob("digits", 3, "dpm_adaptive").setup().memory()
