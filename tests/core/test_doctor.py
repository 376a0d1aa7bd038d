"""The doctor: each check is provoked, and silent where all is well."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import kdiff_core as kd
from kdiff_core import doctor
from kdiff_core.doctor import machine, model, sampling, training
from kdiff_core.doctor.subject import Subject, free_bytes, halved
from kdiff_core.errors import ParameterError
from kdiff_core.sample_job import SampleJob

STD, SHAPE = 0.2, (1, 8, 8)
BOARD = (torch.arange(8)[:, None] + torch.arange(8)) % 2 - 0.5


class Normal(nn.Module):
    """The exact denoiser of normal data around a chequerboard, dark or bright by class."""

    sample_shape, value_range, sigma_data = SHAPE, (-1.0, 1.0), STD
    sigma_min, sigma_max, classes = 0.02, 20.0, 2

    def __init__(self, path="ve"):
        super().__init__()
        self.path, self.dropout = path, nn.Dropout(0.3)
        if path == "flow":
            self.sigma_max = 1.0
        self.eval()

    def forward(self, x, sigma, label=None):
        s = sigma.view(-1, 1, 1, 1)
        alpha = 1 - s if self.path == "flow" else 1.0
        side = 0.0 if label is None else (label.view(-1, 1, 1, 1) * 2.0 - 1) * (label.view(-1, 1, 1, 1) >= 0)
        mean = side * 0.6 * BOARD.to(x)
        return mean + alpha * STD**2 / (alpha**2 * STD**2 + s**2) * (x - alpha * mean)


class Broken(Normal):
    """One whose output is changed by a function of the state, the level and the right output."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x, sigma, label=None):
        return self.change(x, sigma.view(-1, 1, 1, 1), super().forward(x, sigma, label))


def left_on():
    """A model whose dropout is left on."""
    found = Broken(lambda x, s, d: found.dropout(d))
    return found.train()


def in_training():
    """One in training mode, in which nothing acts differently."""
    found = Normal()
    found.dropout = nn.Identity()
    return found.train()


def nowhere(low, high):
    """One that is not finite between two levels."""
    return Broken(lambda x, s, d: torch.where((s > low) & (s < high), math.nan, d))


def look(check, model_=None, **options):
    """What one check says of a run."""
    job = SampleJob(Normal() if model_ is None else model_, **{"n": 4, "steps": 20, **options})
    return doctor.examine([check], Subject(job))[0]


STRONG = {"label": 1, "guidance": 8.0}
PROVOKED = {
    "begins too high": (sampling.first_level, "problem", None, {"sigma_max": 100.0}),
    "begins too low": (sampling.first_level, "warning", None, {"sigma_max": 5.0}),
    "another model's levels": (sampling.first_level, "warning", None, {"schedule": "ays"}),
    "ends in noise": (sampling.last_level, "problem", None, {"steps": None, "levels": (20.0, 5.0, 1.0, 0.3)}),
    "ends too low": (sampling.last_level, "warning", None, {"sigma_min": 0.001}),
    "ends in a leap": (sampling.last_level, "warning", None, {"steps": None, "levels": (20.0, 9.0, 0.0)}),
    "levels collapse": (sampling.rounded_levels, "problem", None, {"steps": 2000, "dtype": "bfloat16"}),
    "levels vanish": (sampling.rounded_levels, "problem", None, {"sigma_min": 1e-9, "dtype": "float16"}),
    "noise too large": (sampling.noise, "warning", None, {
        "sampler": "euler_ancestral", "sampler_options": {"s_noise": 1.5},
    }),
    "churn too large": (sampling.noise, "warning", None, {
        "sampler": "heun", "sampler_options": {"s_churn": 80.0},
    }),
    "eta too large": (sampling.noise, "warning", None, {
        "sampler": "euler_ancestral", "sampler_options": {"eta": 1.5},
    }),
    "not finite": (sampling.finite, "problem", nowhere(0.5, 1.0), {}),
    "states grow": (sampling.growth, "problem", Broken(lambda x, s, d: 3 * x), {}),
    "too few steps": (sampling.steps, "warning", None, {"sampler": "euler", "steps": 5}),
    "far too few steps": (sampling.steps, "problem", None, {"sampler": "euler", "steps": 2}),
    "too high an order": (sampling.order, "warning", None, {"sampler": "heun", "steps": 4}),
    "too long a memory": (sampling.order, "warning", None, {"sampler": "dpmpp_3m", "steps": 8}),
    "guidance too strong": (sampling.guidance, "warning", None, STRONG),
    "values outside": (sampling.value_range, "warning", None, STRONG),
    "rounding": (sampling.precision, "warning", Broken(lambda x, s, d: d + 300 - 300), {"dtype": "bfloat16"}),
    "overflow": (sampling.precision, "problem", Broken(lambda x, s, d: d * 1e9 / 1e9), {"dtype": "float16"}),
    "dropout is on": (model.mode, "problem", left_on(), {}),
    "training mode": (model.mode, "warning", in_training(), {}),
    "random": (model.repeats, "problem", left_on(), {}),
    "a bit random": (model.repeats, "warning", Broken(lambda x, s, d: d + 1e-6 * torch.rand_like(d)), {}),
    "of the batch": (model.batch, "problem", Broken(lambda x, s, d: d - d.mean(0)), {}),
    "noise for data": (model.lowest, "problem", Broken(lambda x, s, d: (x - d) / s), {}),
    "state for data": (model.highest, "problem", Broken(lambda x, s, d: x), {}),
    "poor at a level": (model.errors_by_level, "warning", Broken(
        lambda x, s, d: d + 0.8 * torch.sin(1e4 * x) * ((s > 0.1) & (s < 0.2))
    ), {}),
    "not finite at a level": (model.errors_by_level, "problem", nowhere(0.36, 0.42), {
        "steps": None, "levels": (20.0, 5.0, 1.0, 0.3, 0.02, 0.0),
    }),
    "deaf": (model.condition, "problem", Broken(lambda x, s, d: Normal()(x, s.flatten())), {}),
}  # fmt: skip


@pytest.mark.parametrize(("check", "status", "of", "options"), PROVOKED.values(), ids=PROVOKED)
def test_a_fault_is_found(check, status, of, options):
    """What is wrong is found by the check that is for it, which says what it means and what to change."""
    found = look(check, of, **options)
    assert found.status == status, found
    assert all((found.checked, found.seen, found.means, found.change))


@pytest.mark.parametrize("path", ["ve", "flow"])
def test_all_is_well(path):
    """A healthy run has no finding, guided or not, and no check that could be made is skipped."""
    plain = doctor.examine_run(SampleJob(Normal(path), 4, steps=20))
    guided = doctor.examine_run(SampleJob(Normal(path), 6, steps=20, label=1, guidance=1.5, guide="cfg"))
    assert [f for f in plain + guided if f.status not in ("ok", "skipped")] == []
    assert [f.name for f in plain if f.status == "skipped"] == ["guidance"]
    assert [f.name for f in guided if f.status == "skipped"] == []


@pytest.mark.parametrize(
    ("dtype", "sampler"), [("float16", "heun"), ("bfloat16", "euler"), ("float64", "euler_ancestral")]
)
def test_all_is_well_elsewhere(dtype, sampler):
    """Neither half precision nor noise alone is a fault."""
    found = doctor.examine_run(SampleJob(Normal(), 2, steps=20, dtype=dtype, sampler=sampler))
    assert [f for f in found if f.status not in ("ok", "skipped")] == []


def test_memory(monkeypatch):
    """What does not fit is found, what nearly does not is told, and all of the samples are counted."""
    needs = SampleJob(Normal(), 100, steps=20).setup().memory().total
    for free, status in (
        (needs - 1, "problem"),
        (needs * 1.1, "warning"),
        (needs * 2, "ok"),
        (None, "skipped"),
    ):
        monkeypatch.setattr(sampling, "free_bytes", lambda device, free=free: free)
        assert look(sampling.memory, n=100).status == status
    assert free_bytes(torch.device("cpu")) > 2**20


def test_what_raises_is_a_problem():
    """A model that raises is a finding with its words, and the other checks are made."""

    def raises(x, s, d):
        raise RuntimeError("no such weight\nsecond line")

    found = {f.name: f for f in doctor.examine_run(SampleJob(Broken(raises), 2))}
    assert found["finite"].status == "problem"
    assert found["finite"].seen == "RuntimeError: no such weight"
    assert found["first level"].status == "ok"


def test_few_samples_are_drawn(monkeypatch):
    """However many are asked for, the runs have four, with the first of what is given for each."""
    monkeypatch.setattr(sampling, "free_bytes", lambda device: None)  # else it is called without values
    seen = set()
    counting = Broken(lambda x, s, d: (seen.add(len(x)), d)[1])
    doctor.examine_run(SampleJob(counting, 100, steps=4, label=tuple([0, 1] * 50), seed=tuple(range(100))))
    assert seen <= {1, 4}
    assert 4 in seen


def test_halved():
    """Each step is two, but for the step to 0."""
    assert list(halved(kd.Grid.of([4.0, 1.0, 0.0]))) == [4.0, 2.0, 1.0, 0.0]


def test_real_data():
    """On real data a model is found out that makes samples of its own that it is at peace with."""
    fixed = Broken(lambda x, s, d: torch.zeros_like(d))
    data = 0.5 * torch.ones(SHAPE)
    own, real = (doctor.examine_run(SampleJob(fixed, 2), given) for given in (None, data))
    assert {f.name: f.status for f in own}["lowest"] == "ok"
    assert {f.name: f.status for f in real}["lowest"] == "problem"
    noise = STD * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    job = SampleJob(Normal(), 2, dtype="float16", label=(0, 1))
    healthy = doctor.examine_run(job, noise + 0.6 * BOARD)
    assert {f.status for f in healthy} == {"ok", "skipped"}


# -- the installation


def test_machine(monkeypatch):
    """Old versions, a GPU that is not found, broken plugins, extras in part and threads are found."""
    monkeypatch.setattr(machine, "_installed", lambda name: True)
    healthy = {f.name: f.status for f in doctor.examine_machine() if f.name not in ("threads", "device")}
    assert set(healthy.values()) == {"ok"}
    for uses, have, status in ((2, 2, "ok"), (8, 2, "warning"), (1, 8, "warning")):
        monkeypatch.setattr(torch, "get_num_threads", lambda uses=uses: uses)
        monkeypatch.setattr(machine, "cores", lambda have=have: have)
        assert machine.threads(None).status == status
    monkeypatch.setenv("OMP_NUM_THREADS", "all")
    assert "OMP_NUM_THREADS='all'" in machine.threads(None).seen
    monkeypatch.setattr(machine, "_installed", lambda name: name != "rich")
    assert machine.extras(None).change.startswith("pip install 'kdiff-core[cli")
    monkeypatch.setattr(machine, "_installed", lambda name: False)
    assert machine.extras(None).status == "ok"
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    assert machine.torch(None).status == "problem"
    monkeypatch.setattr(machine.sys, "version_info", (3, 10, 0))
    assert machine.python(None).status == "problem"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert machine.device(None).status == "warning"


@pytest.mark.parametrize(("state", "status"), [("ok", "ok"), ("blocked", "warning"), ("broken", "problem")])
def test_plugins(monkeypatch, state, status):
    """A broken plugin is a problem, a blocked one a warning, each by its name."""
    record = kd.registry.PluginRecord("some-plugin", "1", "p", "m", state=state, error="why not")
    monkeypatch.setattr(machine, "list_plugins", lambda: [record])
    found = machine.plugins(None)
    assert found.status == status
    assert state == "ok" or ("some-plugin" in found.seen and "why not" in found.seen)


# -- trainings


class Run:
    """The folder of a training, written by what writes it."""

    def __init__(self, folder):
        self.folder = folder
        events = pytest.importorskip("kdiff_train.events")
        self.Event, self.log = events.Event, events.JsonLog(folder / "log.jsonl")
        self.write = pytest.importorskip("kdiff_train.checkpoint").write_checkpoint

    def tell(self, kind, images, **values):
        self.log(self.Event(kind, images, values, None))

    def train(self, loss=lambda i: 1 / (1 + i), lr=lambda i: 1e-3, reports=40, gap=0.1):
        self.tell("start", 0, config={})
        for i in range(1, reports + 1):
            self.tell("log", 64 * i, loss=loss(i), lr=lr(i), updates=i)
        for images in (64, 64 * reports):
            weights = {"w": torch.ones(5)}
            average = {"w": torch.ones(5) * (1 + gap)}
            self.write(self.folder / "checkpoints", images, {"weights": weights, "ema.wide": average}, {}, 3)
        return self

    def newest(self):
        return sorted((self.folder / "checkpoints").iterdir())[-1]

    def found(self):
        return {f.name: f for f in doctor.examine_training(self.folder)}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_a_training_is_well(run):
    """A training that goes as it should has no finding."""
    found = run.train().found()
    assert {name for name, f in found.items() if f.status != "ok"} == {"model file"}


COURSES = {
    "diverges": ("course of loss", "problem", {"loss": lambda i: 1 / (1 + i) if i < 20 else 0.1 * i}),
    "stays": ("course of loss", "warning", {"loss": lambda i: 1 + 0.01 * (-1) ** i}),
    "short": ("course of loss", "skipped", {"reports": 5}),
    "is lost": ("finite losses", "problem", {"loss": lambda i: 1.0 if i < 9 else math.nan}),
    "stands still": ("learning rate", "problem", {"lr": lambda i: 1e-3 if i < 9 else 0.0}),
    "ends": ("learning rate", "ok", {"lr": lambda i: 1e-3 * (40 - i)}),
    "lags": ("averages", "warning", {"gap": 0.8}),
}


@pytest.mark.parametrize(("name", "status", "how"), COURSES.values(), ids=COURSES)
def test_a_training_goes_wrong(run, name, status, how):
    """A loss that rises, stays or is lost, a rate of 0 and averages far behind are found, an end is none."""
    assert run.train(**how).found()[name].status == status


def test_updates_left_out(run):
    """Many updates in a row that were not finite are a problem; one is none."""
    run.train().tell("skip", 3000, message="the loss of sample 3 is nan", in_a_row=1)
    assert run.found()["finite losses"].status == "ok"
    run.tell("skip", 3064, message="the loss of sample 4 is nan", in_a_row=7)
    found = run.found()["finite losses"]
    assert found.status == "problem"
    assert "sample 4" in found.seen


def test_a_torn_checkpoint(run):
    """Of a torn checkpoint it says which the run goes on from, and if there is none that it cannot."""
    run.train()
    (run.newest() / "weights.safetensors").write_bytes(b"torn")
    found = run.found()["checkpoints"]
    assert (found.status, found.means) == ("warning", "the run goes on from checkpoint-000000000064")
    for path in (run.folder / "checkpoints").iterdir():
        (path / "state.json").unlink(missing_ok=True)
    assert run.found()["checkpoints"].status == "problem"


def test_a_torn_log(run):
    """A line that was not written whole is told."""
    run.train()
    with (run.folder / "log.jsonl").open("a") as file:
        file.write('{"event": "lo')
    assert run.found()["log"].status == "warning"
    (run.folder / "log.jsonl").write_text("")
    assert run.found()["log"].status == "problem"


@pytest.mark.parametrize(("images", "status"), [(2560, "ok"), (64, "warning"), (None, "problem")])
def test_the_model_file(run, images, status):
    """A model file that is older than the newest checkpoint, or cannot be read, is found."""
    save = pytest.importorskip("safetensors.torch").save_file
    about = {"format": 1, "model": {"name": "unet", "config": {}}, "denoiser": {}, "about": {}}
    text = json.dumps({**about, "training": {"images": images}})
    save({"w": torch.ones(2)}, run.folder / "model.safetensors", {"kdiff": text} if images else {})
    assert run.train().found()["model file"].status == status


def test_a_folder_of_no_training(tmp_path):
    """A folder without a log and checkpoints is refused."""
    with pytest.raises(ParameterError, match=r"neither log.jsonl nor checkpoints"):
        training.Training(tmp_path)
