"""Sampling by name: `kd.sample`, `kd.plan`, `KSampler`, `SampleJob` and the manifest."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

import kdiff_core as kd
from kdiff_core.errors import KdiffError, NoiseError, ParameterError, UnknownNameError
from kdiff_core.manifest import differences, manifest_of, read_manifest, write_npz
from kdiff_core.sample_job import SampleJob

NAMES = [e.name for e in kd.list_samplers() if not kd.get_sampler(e.name).needs]
ALONE = [n for n in NAMES if "independent_of_the_batch" not in kd.get_sampler(n).known_failures]
SEEDS = st.integers(0, 2**64 - 1)


class Linear:
    """A denoiser that counts its calls: the exact one of a unit Gaussian."""

    sample_shape = (2,)
    sigma_min, sigma_max = 0.1, 5.0

    def __init__(self, path="ve", **attributes):
        self.calls, self.path = 0, path
        self.__dict__.update(attributes)

    def __call__(self, x, sigma, label=None):
        self.calls += 1
        self.label = label
        return x / (1 + sigma[:, None] ** 2)


@frozen
class Stranger(kd.StepSampler):
    """A sampler that no plugin offers."""

    def step(self, ctx, x, sigma, sigma_next):
        return ctx.to(x, ctx.denoise(x, sigma), sigma, sigma_next)


def test_plan_loads_no_torch():
    """Planning is arithmetic on the host."""
    code = (
        "import sys, kdiff_core as kd; p = kd.plan('heun', [3, 2, 1, 0]); assert kd.plan is not None; "
        "print(p.evaluations, kd.plan('euler', [2, 1, 0]).evaluations, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["5", "2", "False"]


def test_plan_by_object_and_name():
    """A name stands for the sampler of that name."""
    assert kd.plan("dpm2", [3, 1, 0]) == kd.plan(kd.get_sampler("dpm2"), [3, 1, 0])


@pytest.mark.parametrize("name", NAMES)
def test_name_and_object_give_equal_bits(name):
    """Everything by name, and everything as objects, is the same run; so is the sampler called by hand."""
    model = kd.get_denoiser("digits")
    by_name = kd.sample("digits", 2, sampler=name, schedule="exponential", steps=5, seed=3)
    sampler, schedule = kd.get_sampler(name), kd.get_schedule("exponential")
    by_object = kd.sample(model, 2, sampler=sampler, schedule=schedule, steps=5, seed=3)
    sigmas = schedule(5, sigma_min=model.sigma_min, sigma_max=model.sigma_max)
    x = kd.start(sigmas, torch.empty(2, 1, 8, 8), seed=3)
    assert torch.equal(by_name, by_object)
    assert torch.equal(by_name, sampler(model, x, sigmas, seed=3))


@given(seed=SEEDS, index=st.lists(st.integers(0, 2**31), min_size=1, max_size=4), name=st.sampled_from(ALONE))
def test_a_sample_does_not_depend_on_its_batch(seed, index, name):
    """Sample 7 of a batch equals sample 7 alone, for every sampler that does not say otherwise."""
    together = kd.sample(Linear(), len(index), sampler=name, steps=4, seed=seed, index=index)
    for row, number in zip(together, index, strict=True):
        alone = kd.sample(Linear(), 1, sampler=name, steps=4, seed=seed, index=[number])
        assert torch.equal(alone[0], row)


def test_index_and_seeds_of_digits():
    """Sample 7 alone is sample 7 of 16, and a list of seeds gives sample 0 of each seed."""
    x = kd.sample(steps=4)
    assert x.shape == (16, 1, 8, 8)
    assert torch.equal(kd.sample(n=1, index=[7], steps=4)[0], x[7])
    assert torch.equal(kd.sample(n=2, seed=[5, 0], steps=4)[1], x[0])


def test_a_label_names_the_schedule_too():
    """A label ("DPM++ 2M Karras") is a sampler and a schedule, and another schedule beside it is refused."""
    one = kd.sample(Linear(), 2, sampler="DPM++ 2M Exponential", steps=4)
    assert torch.equal(one, kd.sample(Linear(), 2, sampler="dpmpp_2m", schedule="exponential", steps=4))
    assert torch.equal(
        one, kd.sample(Linear(), 2, sampler="DPM++ 2M Exponential", schedule="exponential", steps=4)
    )
    model = Linear()
    for schedule in ("karras", [5.0, 1.0, 0.0]):
        with pytest.raises(ParameterError, match="names the schedule 'exponential'"):
            kd.sample(model, 2, sampler="DPM++ 2M Exponential", schedule=schedule)
    with pytest.raises(ParameterError, match="names a schedule"):
        kd.KSampler(model, "karras", "DPM++ 2M Karras")
    assert model.calls == 0


@pytest.mark.parametrize(
    "make", [list, np.array, torch.tensor, kd.Grid.of], ids=["list", "array", "tensor", "Grid"]
)
def test_levels_of_ones_own(make):
    """A list, an array, a tensor or a Grid in place of a schedule is the levels themselves."""
    model = Linear()
    x = kd.sample(model, 2, sampler="euler", schedule=make([4.0, 2.0, 1.0, 0.0]))
    assert model.calls == 3
    start = kd.start([4.0, 2.0], torch.empty(2, 2))
    assert torch.equal(x, kd.get_sampler("euler")(Linear(), start, [4.0, 2.0, 1.0, 0.0]))


@pytest.mark.parametrize("name", NAMES)
def test_flow_by_default(name):
    """On a flow path the default schedule begins at 1, and every sampler gives finite samples."""
    seen = []
    x = kd.sample(kd.get_denoiser("digits", path="flow"), 2, sampler=name, steps=4, callback=seen.append)
    assert seen[0].sigma == 1.0
    assert bool(x.isfinite().all())
    model = Linear("flow", sigma_max=None)
    kd.sample(model, 2, steps=4, sigma_min=0.1, callback=seen.append)
    assert seen[-4].sigma == 1.0


def test_range_and_trajectory():
    """The range is the model's unless given; a trajectory has the states at all levels."""
    seen = []
    states = kd.sample(Linear(), 3, steps=6, trajectory=True, callback=seen.append)
    assert (seen[0].sigma, seen[-1].sigma) == (5.0, 0.1)
    assert states.shape == (7, 3, 2)
    assert torch.equal(states[-1], kd.sample(Linear(), 3, steps=6))
    seen.clear()
    kd.sample(Linear(), 3, steps=6, sigma_min=0.2, sigma_max=3.0, callback=seen.append)
    assert (seen[0].sigma, seen[-1].sigma) == (3.0, 0.2)


def test_labels_and_guidance():
    """A label asks for a class, for all or for each; guidance of scale 1 is none, of scale 2 another run."""
    model = Linear(classes=10)
    kd.sample(model, 2, label=7, steps=2)
    assert model.label.tolist() == [7, 7]
    kd.sample(model, 2, label=[3, -1], steps=2)
    assert model.label.tolist() == [3, -1]
    plain = kd.sample(n=4, label=7, steps=8)
    assert torch.equal(plain, kd.sample(n=4, label=7, steps=8, guidance=1))
    assert not torch.equal(plain, kd.sample(n=4, label=7, steps=8, guidance=2))


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"n": 0}, ParameterError, "n=0"),
        ({"n": 2.5}, ParameterError, "n=2.5"),
        ({"n": True}, ParameterError, "n=True"),
        ({"steps": 0}, ParameterError, "steps=0"),
        ({"label": 3}, ParameterError, "no classes; leave the label out"),
        ({"guidance": "x"}, ParameterError, "guidance='x'"),
        ({"guidance": [1.0, 2.0]}, ParameterError, "give a number"),
        ({"n": "x"}, ParameterError, "n='x'"),
        ({"steps": "x"}, ParameterError, "steps='x'"),
        ({"seed": "x"}, KdiffError, "x"),
        ({"seed": None}, KdiffError, "None"),
        ({"seed": 1.5}, KdiffError, "1.5"),
        ({"index": "ab"}, KdiffError, "index"),
        ({"index": ["a", "b"]}, KdiffError, "a"),
        ({"sigma_min": "x"}, KdiffError, "x"),
        ({"sigma_max": [1]}, KdiffError, "1"),
        ({"schedule": 3}, KdiffError, "int is no list"),
        ({"schedule": ["x", "y"]}, KdiffError, "no list of numbers"),
        ({"sampler": None}, ParameterError, "None"),
        ({"dtype": 3}, ParameterError, "dtype='3'"),
        ({"device": 3.5}, ParameterError, "device"),
        ({"guidance": 2.0}, ParameterError, "give label="),
        ({"seed": -1}, ParameterError, "seed=-1"),
        ({"seed": [1, 2, 3]}, NoiseError, "3 given for a batch of 2"),
        ({"index": [1, 2, 3]}, NoiseError, "3 given for a batch of 2"),
        ({"index": 7}, ParameterError, "give a list"),
        ({"dtype": "int64"}, ParameterError, "dtype='int64'"),
        ({"dtype": "float33"}, ParameterError, "'float32'"),
        ({"device": "nowhere"}, ParameterError, "device='cpu' works"),
        ({"sampler": "eulr"}, UnknownNameError, "euler"),
        ({"schedule": "karas"}, UnknownNameError, "karras"),
        ({"schedule": [1.0, 2.0]}, KdiffError, "rises"),
        ({"sigma_min": 6.0}, KdiffError, "must be below"),
    ],
)
def test_bad_input_is_refused_before_any_call(wrong, error, says):
    """Every refusal says what is wrong and comes before the model is called."""
    model = Linear()
    with pytest.raises(error, match=says):
        kd.sample(model, **{"n": 2, **wrong})
    assert model.calls == 0


@pytest.mark.parametrize("label", [10, -2, [1, 10], [1], True, 1.5])
def test_labels_out_of_range(label):
    """A class that the model does not have is refused with those that it has, or the number needed."""
    model = Linear(classes=10)
    with pytest.raises(ParameterError, match=r"classes are 0 to 9|1 given for n=2"):
        kd.sample(model, 2, label=label)
    assert model.calls == 0


def test_a_model_without_a_shape():
    """A model that does not say its shape is refused with what to do."""
    with pytest.raises(ParameterError, match="sample_shape"):
        kd.sample(lambda x, sigma: x)


def test_no_gradients():
    """Sampling records no gradient, whatever the model's parameters require."""
    weight = torch.tensor(0.5, requires_grad=True)
    model = Linear()
    model.__class__ = type("Learned", (Linear,), {"__call__": lambda self, x, sigma: x * weight})
    assert not kd.sample(model, 2, steps=3).requires_grad
    assert not kd.KSampler(model).sample(torch.randn(2, 2), 3).requires_grad
    assert kd.KSampler(model).sample(torch.randn(2, 2, requires_grad=True), 3).requires_grad


@given(seed=SEEDS, name=st.sampled_from(NAMES), path=st.sampled_from(["ve", "flow"]), steps=st.integers(1, 6))
def test_ksampler_equals_the_sampler_called(seed, name, path, steps):
    """KSampler scales unit noise to the highest level, and then does what the sampler does."""
    model = Linear(path, sigma_max=5.0 if path == "ve" else 1.0)
    unit = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed % 2**63))
    kept = unit.clone()
    ks = kd.KSampler(model, "karras", name)
    sigmas = ks.sigmas(steps)
    assert sigmas[0] == model.sigma_max
    made = ks.sample(unit, steps, seed=seed)
    assert torch.equal(made, kd.get_sampler(name)(model, unit * sigmas[0], sigmas, seed=seed))
    assert torch.equal(unit, kept)


def test_ksampler_names():
    """Scheduler and condition are other names; both names at once are refused; levels may be given."""
    x = torch.randn(2, 1, 8, 8)
    label = torch.tensor([3, 4])
    one = kd.KSampler("digits", schedule="exponential").sample(x, 4, cond={"label": label})
    assert torch.equal(one, kd.KSampler("digits", scheduler="exponential").sample(x, 4, condition=label))
    assert torch.equal(one, kd.KSampler("digits", sampler="DPM++ 2M Exponential").sample(x, 4, cond=label))
    with pytest.raises(ParameterError, match="schedule and scheduler"):
        kd.KSampler("digits", "karras", scheduler="karras")
    with pytest.raises(ParameterError, match="cond and condition"):
        kd.KSampler("digits").sample(x, 4, cond={}, condition={})
    levels = kd.KSampler("digits", schedule=[3.0, 1.0, 0.0])
    assert list(levels.sigmas(2)) == [3.0, 1.0, 0.0]


@pytest.mark.parametrize("cond", [torch.zeros(2), torch.tensor([True, False]), "a cat", 7, {1: 2}])
def test_ksampler_refuses_other_conditions(cond):
    """A condition is a dict of keyword arguments, or an integer tensor where there are classes."""
    with pytest.raises(ParameterError, match="give a dict"):
        kd.KSampler("digits").sample(torch.randn(2, 1, 8, 8), 4, cond=cond)


def test_ksampler_takes_the_process():
    """With a process the levels are the process's, whether given or the model's own."""
    process = kd.get_process("sd")
    for ks in (kd.KSampler(Linear(), process="sd"), kd.KSampler(Linear(process=process))):
        grid = ks.sigmas(5)
        assert (grid[0], grid[-2]) == (process.sigma_max, process.sigma_min)


@given(
    name=st.sampled_from(NAMES),
    seed=st.one_of(SEEDS, st.lists(SEEDS, min_size=3, max_size=3)),
    label=st.one_of(st.none(), st.integers(-1, 9), st.lists(st.integers(-1, 9), min_size=3, max_size=3)),
    schedule=st.sampled_from([None, "exponential", "kdiff-core:karras", kd.get_schedule("karras", rho=3.0)]),
)
def test_a_manifest_replays(name, seed, label, schedule):
    """Through JSON and back, a job gives the same bits, and a manifest of the replay is the same again."""
    job = SampleJob(
        "digits", 3, name, schedule, 3, seed, label=label, guidance=None if label is None else 2.0
    )
    setup = job.setup()
    result = setup.run()
    manifest = json.loads(json.dumps(manifest_of(setup, result)))
    again = SampleJob.from_manifest(manifest).setup()
    assert tuple(again.grid) == tuple(setup.grid)
    assert torch.equal(again.run().x, result.x)
    assert differences(manifest, again) == []
    assert manifest["evaluations"] == result.evaluations


@pytest.mark.parametrize(
    "sampler",
    [
        kd.get_sampler("heun", s_churn=40.0),
        kd.get_sampler("dpm2_ancestral", eta=0.5),
        kd.get_sampler("comfyui:lms"),
    ],
    ids=str,
)
def test_an_object_from_the_registry_has_a_name(sampler):
    """An object that a name and options stand for is written as those."""
    manifest = json.loads(json.dumps(manifest_of(SampleJob(n=1, sampler=sampler).setup())))
    assert manifest["replayable"]
    assert SampleJob.from_manifest(manifest).setup().sampler == sampler


@pytest.mark.parametrize(
    ("given", "what"), [({"sampler": Stranger()}, "sampler"), ({"model": Linear()}, "model")]
)
def test_a_nameless_object_cannot_be_replayed(given, what):
    """A run with an object that no name stands for says so, and its replay is refused."""
    setup = SampleJob(n=1, **given).setup()
    manifest = json.loads(json.dumps(manifest_of(setup, setup.run())))
    assert not manifest["replayable"]
    with pytest.raises(ParameterError, match=f"the {what} is the object"):
        SampleJob.from_manifest(manifest)


@pytest.mark.parametrize(
    "change", [{"kdiff_manifest": 2}, {"n": None}, {"levels": ["x"]}, {"noise": 3}, {"model": {}}]
)
def test_a_damaged_manifest(change):
    """A manifest that is not as it should be is refused as such."""
    manifest = manifest_of(SampleJob(n=1).setup())
    with pytest.raises(ParameterError):
        SampleJob.from_manifest({**manifest, **change})


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".png", ".npz", ".json", ".txt"]))
def test_any_file_is_refused_cleanly(data, suffix, tmp_path_factory):
    """A file that carries no manifest is refused, whatever is in it."""
    file = tmp_path_factory.mktemp("any") / f"file{suffix}"
    file.write_bytes(data)
    with pytest.raises(ParameterError):
        read_manifest(file)


def test_nothing_is_unpickled(tmp_path):
    """An NPZ file with pickled objects is refused, and one with a manifest is read."""
    file = tmp_path / "evil.npz"
    np.savez(file, kdiff_manifest=np.array([object()], dtype=object))
    with pytest.raises(ParameterError, match=r"allow_pickle|Object arrays"):
        read_manifest(file)
    manifest = manifest_of(SampleJob(n=1).setup())
    write_npz(file, {"samples": np.zeros(3)}, manifest)
    assert read_manifest(file) == json.loads(json.dumps(manifest))
