"""``compile=`` of a run: what torch traces gives what an eager run gives, and is traced once.

Tracing is tested with torch's backend that runs what was traced as it is; one test compiles in earnest.
"""

from __future__ import annotations

import pytest
import torch
from support import DEVICE, F64, levels, state
from torch import nn

import kdiff_core as kd
from kdiff_core import compiling
from kdiff_core.errors import CapabilityError, NonFiniteError, ParameterError
from kdiff_core.sampler import _traced


@pytest.fixture
def traced(monkeypatch):
    """Compile by tracing alone; returns the list of graphs that were traced."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    _traced.cache_clear()  # plans keep what was compiled for them
    monkeypatch.setattr(compiling, "BACKEND", backend)
    yield graphs
    torch._dynamo.reset()
    _traced.cache_clear()


class Net(nn.Module):
    """A network with a condition, and an output of its own for guidance."""

    path = "ve"

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4, dtype=F64, device=DEVICE)

    def forward(self, x, sigma, shift=0.0):
        return self.layer(x) / (1 + sigma[:, None] ** 2) + shift

    def predict(self, x, sigma, shift=0.0):
        denoised = self(x, sigma, shift)
        return kd.Prediction(denoised * 1.5, denoised, denoised * 0.5)


class Formula:
    """A denoiser that is neither a function nor a module."""

    path = "flow"

    def __call__(self, x, sigma):
        return x / (1 + sigma[:, None] ** 2)


def plain(x, sigma, shift=0.0):
    return x / (1 + sigma[:, None] ** 2) + shift


@pytest.mark.parametrize("how", ["model", "run"])
@pytest.mark.parametrize("make", [Net, lambda: plain, Formula], ids=["module", "function", "object"])
@pytest.mark.parametrize("name", ["dpmpp_sde", "sa_solver"])
def test_a_compiled_run_gives_what_an_eager_run_gives(name, make, how, traced):
    """The denoiser alone or the whole run: the same numbers, and the second time nothing is traced."""
    model = make()
    sampler, grid = kd.get_sampler(name), levels(getattr(model, "path", "ve"), 4)
    with torch.no_grad():
        for seed in (0, 1):
            x = state(3, seed=seed)
            expected = sampler.run(model, x, grid, seed=seed)
            found = sampler.run(model, x, grid, seed=seed, compile=how)
            torch.testing.assert_close(found.x, expected.x, rtol=1e-14, atol=1e-14)
            assert (found.evaluations, found.info) == (expected.evaluations, expected.info)
            assert len(traced) == 1, "it is traced at the first run, and as one graph"


@pytest.mark.parametrize("how", ["model", "run"])
def test_conditions_and_all_outputs_of_a_guided_model_are_compiled(how, traced):
    """A sampler that needs several outputs gets those of the compiled model, new conditions included."""
    sampler, grid, model, x = kd.get_sampler("euler_cfg_pp"), levels("ve", 4), Net(), state(3)
    with torch.no_grad():
        for value in (0.5, 2.0):
            cond = {"shift": torch.full((3, 1), value, dtype=F64, device=DEVICE)}
            expected = sampler(model, x, grid, cond=cond)
            found = sampler(model, x, grid, cond=cond, compile=how)
            torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    assert len(traced) == 1


def test_many_plans_are_compiled_each_by_itself(traced):
    """Torch keeps few variants of one function; each plan is a function of its own."""
    sampler, x, grids = kd.get_sampler("euler"), state(2), [[float(top), 0.0] for top in range(1, 11)]
    for grid in grids * 2:
        found = sampler(plain, x, grid, compile="run")
        torch.testing.assert_close(found, sampler(plain, x, grid), rtol=1e-14, atol=1e-14)
    assert len(traced) == len(grids)


def test_a_nest_is_a_state_of_a_compiled_run(traced):
    """Each tensor of a nest goes through the compiled run."""
    x, grid = {"b": state(2), "a": state(2, 7, 1)}, levels("ve", 3)

    def model(x, sigma):
        return {key: value * 0.5 for key, value in x.items()}

    sampler = kd.get_sampler("dpmpp_2m")
    found, expected = sampler(model, x, grid, compile="run"), sampler(model, x, grid)
    for key in x:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-14, atol=1e-14)


def test_a_compiled_model_works_in_chunks_too(traced):
    """Chunks call the compiled model; the rest of a batch is a shape of its own."""
    sampler, grid, model, x = kd.get_sampler("euler"), levels("ve", 4), plain, state(5)
    found = sampler(model, x, grid, compile="model", chunk=2)
    torch.testing.assert_close(found, sampler(model, x, grid), rtol=1e-14, atol=1e-14)
    assert len(traced) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"callback": print}, {"progress": True}, {"trajectory": True}, {"stop": 1}, {"chunk": 2},
        {"offload": True}, {"checkpoint_gradients": True},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_what_needs_python_between_the_steps_is_refused(options):
    """A compiled run takes no callback and the like, and says what does."""
    with pytest.raises(CapabilityError, match=rf"{next(iter(options))}= cannot.*compile='model'"):
        kd.get_sampler("euler").run(plain, state(2), levels("ve", 3), compile="run", **options)


def test_a_sampler_without_a_plan_is_not_compiled_as_a_run():
    """What decides while it runs is no straight line."""
    with pytest.raises(CapabilityError, match=r"compile='run': DPMAdaptive.* has no plan"):
        kd.get_sampler("dpm_adaptive").run(plain, state(2), [10.0, 1.0], compile="run")


def test_a_model_that_torch_cannot_trace_whole_is_refused(traced):
    """A compiled run is one graph or none; the denoiser alone may be several."""

    def model(x, sigma):
        return x * 0.5 if float(sigma[0]) > 1 else x * 0.25

    sampler, grid, x = kd.get_sampler("euler"), levels("ve", 3), state(2)
    with pytest.raises(CapabilityError, match=r"cannot trace this model as a whole .*; compile='model'"):
        sampler(model, x, grid, compile="run")
    torch.testing.assert_close(sampler(model, x, grid, compile="model"), sampler(model, x, grid))


def test_a_compiled_run_that_becomes_infinite_is_found(traced):
    """Its final state is looked at."""
    with pytest.raises(NonFiniteError, match="run it eagerly"):
        kd.get_sampler("euler")(lambda x, sigma: x / 0.0, state(2), levels("ve", 3), compile="run")


@pytest.mark.parametrize("how", ["graph", 2, None, "Model"])
def test_another_way_of_compiling_is_refused(how):
    """The words are "model" and "run"."""
    with pytest.raises(ParameterError, match="compile="):
        kd.get_sampler("euler").run(plain, state(2), levels("ve", 3), compile=how)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_in_earnest_it_equals_an_eager_run_to_rounding():
    """The default compiler of torch, for model and run."""
    sampler, grid, model, x = kd.get_sampler("dpmpp_2m"), levels("ve", 3), Net(), state(2)
    with torch.no_grad():
        expected = sampler(model, x, grid)
        for how in ("model", "run"):
            found = sampler(model, x, grid, compile=how)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class Named(nn.Module):
    """A model that can be sampled by a job."""

    path, sample_shape, sigma_min, sigma_max, classes = "ve", (4,), 0.02, 20.0, 3

    def forward(self, x, sigma, label=None):
        return x / (1 + sigma[:, None] ** 2) + (0.0 if label is None else label[:, None] / 10)


@pytest.mark.parametrize("how", [True, "model", "run"])
def test_a_job_is_compiled(how, traced):
    """`kd.sample` compiles the model, inside of guidance and chunks, or the run; samples are the same."""
    options = {"n": 4, "steps": 3, "label": 1, "guidance": 2.0, "dtype": "float64"}
    expected = kd.sample(Named(), **options)
    assert not traced
    torch.testing.assert_close(kd.sample(Named(), **options, compile=how), expected, rtol=1e-13, atol=1e-13)
    assert len(traced) == 1
    squares = sum("pow" in str(node.target) for node in traced[0].graph.nodes)
    assert squares == (6 if how == "run" else 1), "of each model call: two a step"
    if how != "run":
        found = kd.sample(Named(), **options, compile=how, chunk=2)
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
        assert len(traced) == 2, "the model, for a chunk"


def test_what_a_job_cannot_compile_is_refused_at_once():
    """Words that mean nothing, and what needs Python between the steps, before a model is built."""
    with pytest.raises(ParameterError, match="compile='graph'"):
        kd.SampleJob("no such model", compile="graph")
    for options in ({"chunk": 2}, {"offload": True}):
        with pytest.raises(CapabilityError, match=r"compile='run'.*compile='model'"):
            kd.SampleJob("no such model", compile="run", **options)
    with pytest.raises(CapabilityError, match="progress="):
        kd.sample(Named(), compile="run", progress=True)


def test_the_memory_of_a_compiled_job_is_that_of_its_model(traced):
    """The estimate calls the model as it is, and compiles nothing."""
    job = kd.SampleJob(Named(), 2, steps=3, compile="model", chunk=1)
    assert job.setup().memory() == kd.SampleJob(Named(), 2, steps=3, chunk=1).setup().memory()
    assert not traced
