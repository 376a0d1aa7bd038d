"""The trainer: one result however a batch is cut, what is not finite, memory, precision, what it tells."""

from __future__ import annotations

import functools
import json
import math
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

pytest.importorskip("accelerate")

from training_support import MODEL, distance, points, same, state, tiny, train

import kdiff_core as kd
from kdiff_core.errors import NonFiniteError, ParameterError
from kdiff_core.model_file import read_model
from kdiff_train import keys
from kdiff_train.batches import Batches
from kdiff_train.config_file import make_config
from kdiff_train.data.arrays import Arrays
from kdiff_train.gradients import NoiseScale
from kdiff_train.micro import largest
from kdiff_train.objective import Objective
from kdiff_train.trainer import Trainer

PREVIOUS = {**MODEL, "conditions": {**MODEL["conditions"], "previous": {"kind": "vector", "size": 2}}}
EVERYTHING = {
    "model": PREVIOUS,
    "self_conditioning": 0.5,
    "noise": {"offset": 0.1, "perturbation": 0.1},
    "drop": {"label": 0.3},
}

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")


# -- randomness by image


@given(
    first=st.integers(0, 2**40),
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    draws=st.integers(1, 9),
)
def test_draws_do_not_depend_on_how_images_are_cut(first, counts, draws):
    """Uniform, normal and stratified numbers and the order of a cut are the parts of those of the whole."""
    total = sum(counts)
    starts = [first + sum(counts[:k]) for k in range(len(counts))]
    for draw in (
        lambda a, n: keys.uniform(3, "a", a, n, draws),
        lambda a, n: keys.normal(3, "a", a, n, draws),
        lambda a, n: keys.stratified(3, a, n, 16)[:, None],
        lambda a, n: keys.order(3, 7, a, n)[:, None],
    ):
        whole = draw(first, total)
        parts = torch.cat([draw(a, n) for a, n in zip(starts, counts, strict=True)])
        assert torch.equal(whole, parts)


def test_draws_differ_by_seed_stream_and_image():
    """No two keys share a number; the numbers fill (0, 1) evenly."""
    drawn = [keys.uniform(seed, stream, 0, 500, 3) for seed in (0, 1) for stream in ("a", "b")]
    everything = torch.cat([each.flatten() for each in drawn])
    assert everything.unique().numel() == everything.numel() == 6000
    assert 0 < everything.min() < 1e-3
    assert 1 - 1e-3 < everything.max() < 1
    assert abs(float(everything.mean()) - 0.5) < 5 / math.sqrt(12 * 6000)


@given(n=st.integers(1, 40), epochs=st.integers(1, 4), seed=st.integers(0, 5))
def test_each_epoch_is_a_permutation(n, epochs, seed):
    """In n images in a row from a multiple of n every sample comes once, in an order of the epoch's own."""
    drawn = keys.order(seed, n, 0, n * epochs).reshape(epochs, n)
    assert torch.equal(drawn.sort(1).values, torch.arange(n).expand(epochs, n))
    if n > 25:
        assert len({tuple(row) for row in drawn.tolist()}) == epochs


@given(batch=st.integers(1, 40), number=st.integers(0, 1000))
def test_a_batch_has_one_level_in_each_part(batch, number):
    """Of a batch's stratified numbers one lies in each equal part of the unit interval."""
    drawn = keys.stratified(1, number * batch, batch, batch)
    assert torch.equal((drawn * batch).long().sort().values, torch.arange(batch))


def test_a_bad_seed_is_refused():
    """A negative seed is refused before anything is drawn."""
    with pytest.raises(ParameterError, match="seed=-1"):
        keys.uniform(-1, "a", 0, 1)


# -- one result however it is computed


@pytest.mark.parametrize("micro", [1, 3, 4])
def test_accumulation_changes_rounding_alone(micro):
    """8 images at once, in 4s, 3s and one by one give the same weights and averages to rounding."""
    whole = state(train(tiny(**EVERYTHING)))
    parts = state(train(tiny(**EVERYTHING, batch={"size": 8, "micro": micro})))
    assert 0 < distance(whole, parts) < 1e-5


def test_a_run_is_a_function_of_its_config():
    """Two runs have the same bits, with workers too, and another seed has others."""
    once = state(train(tiny(**EVERYTHING)))
    assert same(once, state(train(tiny(**EVERYTHING))))
    assert same(once, state(train(tiny(**EVERYTHING, data={"workers": 2}))))
    assert not same(once, state(train(tiny(**EVERYTHING, seed=1))))


def test_the_global_random_state_is_not_touched():
    """A run with dropout neither reads nor changes torch's generator."""
    config = tiny(model={**MODEL, "dropout": 0.3})
    torch.manual_seed(1)
    before = torch.get_rng_state()
    once = state(train(config))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert same(once, state(train(config)))
    assert not same(once, state(train(tiny())))


class Drawing(nn.Module):
    """A network that draws a number a call, and keeps it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.drawn = []

    def forward(self, x, time, label=None):
        self.drawn.append(float(torch.rand(())))
        return self.weight * x


def test_each_micro_batch_draws_anew():
    """What a network draws itself differs from micro-batch to micro-batch, and is the same in another run."""
    one, two = Drawing(), Drawing()
    for network in (one, two):
        train(tiny(batch={"size": 8, "micro": 4}), network=network)
    assert len(set(one.drawn)) == len(one.drawn) == 20
    assert one.drawn == two.drawn


def test_it_learns():
    """On one point for each class the loss comes to a small part of what it was."""
    losses = []
    config = tiny(images=2400, log={"every": 400}, optimizer={"lr": 1e-2}, rate="constant")
    train(config, callbacks=[lambda e: e.kind == "log" and losses.append(e.values["loss"])])
    assert losses[-1] < 0.7 * losses[0]


# -- what a batch is made of


def batches(**sections):
    config = tiny(**sections)
    model = sections.get("model", MODEL)
    density = kd.get_density("lognormal")
    return Batches(config, points(), density, None, model["conditions"], torch.ones_like)


def test_conditions_are_dropped_by_sample():
    """The share of dropped labels is what was asked for, the others are the data's, sample by sample."""
    made = batches(drop={"label": 0.3}).at(0, 2000, "cpu")
    gone = made.cond["label"] == -1
    assert abs(float(gone.float().mean()) - 0.3) < 4 * math.sqrt(0.21 / 2000)
    assert torch.equal(made.cond["label"][~gone], points().labels[made.sample][~gone])


def test_tokens_are_dropped_by_their_mask():
    """A dropped sequence has no token that counts; others keep theirs; a vector becomes zeros."""
    data = Arrays(points().x, None, conditions={"text": torch.ones(24, 5, 4), "size": torch.ones(24, 1)})
    conditions = {"text": {"kind": "tokens", "size": 4}, "size": {"kind": "vector", "size": 1}}
    made = Batches(
        tiny(drop={"text": 0.5, "size": 0.5}),
        data,
        kd.get_density("cosine"),
        None,
        conditions,
        torch.ones_like,
    ).at(0, 64, "cpu")
    counts = made.cond["token_mask"].sum(1)
    assert set(counts.tolist()) == {0, 5}
    assert set(made.cond["size"].flatten().tolist()) == {0.0, 1.0}


def test_self_conditioning_tells_the_networks_own_estimate():
    """The chosen samples are told what the network takes the data for without it, the others zeros."""
    told = {}

    def loss(denoiser, x0, sigma, noise, cond):
        told.update(cond)
        return sigma

    trainer = Trainer(tiny(model=PREVIOUS, self_conditioning=0.5), dataset=points())
    batch, denoiser = trainer.batches.at(0, 16, "cpu"), trainer.denoiser()
    Objective(denoiser, loss)(batch)
    x = batch.x0 + batch.sigma[:, None] * batch.noise
    estimate = denoiser(x, batch.sigma, **batch.cond)
    assert 0 < batch.previous.sum() < 16
    torch.testing.assert_close(told["previous"][batch.previous], estimate[batch.previous])
    assert not told["previous"][~batch.previous].any()


def test_offset_noise_is_one_number_for_a_channel():
    """The noise added by an offset is the same all over a channel, and has its standard deviation."""
    data = Arrays(torch.zeros(4, 3, 2, 2))
    arguments = (data, kd.get_density("cosine"), None, {}, torch.ones_like)
    plain = Batches(tiny(drop={}), *arguments).at(0, 500, "cpu").noise
    added = Batches(tiny(drop={}, noise={"offset": 0.5}), *arguments).at(0, 500, "cpu").noise - plain
    assert float((added - added[:, :, :1, :1]).abs().max()) < 1e-6
    assert abs(float(added[:, :, 0, 0].std()) - 0.5) < 0.05


def test_perturbation_is_what_the_noise_loss_does_not_ask_for():
    """The error of the noise is that against the unperturbed noise, in a state with more noise."""
    size, loss = 0.2, kd.get_loss("eps")
    clean, noisy = batches().at(0, 6, "cpu"), batches(noise={"perturbation": size}).at(0, 6, "cpu")
    denoiser = kd.parameterisations.Parameterised(lambda x, t: 0.3 * x, "eps", process="edm")
    found = loss(denoiser, noisy.x0, noisy.sigma, noisy.noise, {})
    added = keys.normal(0, "perturbation", 0, 6, 2)
    sigma = clean.sigma[:, None]
    x = clean.x0 + sigma * (clean.noise + size * added)
    guess = (x - denoiser(x, clean.sigma)) / sigma
    torch.testing.assert_close(found, ((guess - clean.noise) ** 2).mean(1), rtol=1e-4, atol=1e-6)


def test_a_condition_that_is_not_there_is_refused():
    """Conditions that are dropped or told must be there, and a vector of the augmentation's length."""
    with pytest.raises(ParameterError, match=r"no condition 'lable'; did you mean 'label'\?"):
        train(tiny(drop={"lable": 0.1}))
    with pytest.raises(ParameterError, match="needs the condition 'previous'"):
        train(tiny(self_conditioning=0.5))
    other = {**MODEL, "conditions": {**MODEL["conditions"], "augment": {"kind": "vector", "size": 3}}}
    with pytest.raises(ParameterError, match=r"'augment' has the size 3; .* has 1 numbers"):
        train(tiny(model=other, augmentation="flip"))


# -- what is not finite


class Poisoned(nn.Module):
    """A network whose output is NaN where its input is near a place."""

    def __init__(self, whole=False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()) * 0.5)
        self.whole = whole

    def forward(self, x, time, label=None):
        bad = torch.ones_like(x[:, :1], dtype=torch.bool) if self.whole else (time > 0.5)[:, None]
        return torch.where(bad, torch.nan, self.weight * x)


def test_what_is_not_finite_is_skipped_and_counted():
    """An update with a NaN changes no weight, is counted and named; others go on."""
    messages, weights, skipped = [], [], []

    def watch(event):
        if event.kind == "skip":
            messages.append(event.values["message"])
            skipped.append(len(weights))
        if event.kind == "update":
            weights.append(float(event.trainer.network.weight.detach()))

    # log(sigma) / 4 > 0.5 is sigma > 7.4: rare enough.
    config = tiny(density={"name": "lognormal", "mean": 0, "std": 1.2}, images=400)
    trainer = train(config, network=Poisoned(), callbacks=[watch])
    assert 0 < trainer.summary.skipped == len(messages) < trainer.summary.updates
    assert trainer.summary.skipped + trainer.summary.updates == 50
    assert "has the loss nan at sigma = " in messages[0]
    assert "of the data" in messages[0]
    assert all(math.isfinite(weight) for weight in weights)
    unchanged = [k for k in range(1, 50) if weights[k] == weights[k - 1]]
    assert unchanged == [k for k in skipped if k]


def test_a_run_that_stays_not_finite_stops_with_a_diagnosis():
    """After `patience` skipped updates in a row the run stops, says where, and leaves the weights."""
    network = Poisoned(whole=True)
    with pytest.raises(
        NonFiniteError, match=r"image 24: 3 updates in a row .* sigma = .*lower learning rate"
    ):
        train(tiny(patience=3), network=network)
    assert float(network.weight.detach()) == 0.5


# -- memory


@given(most=st.integers(1, 600), limit=st.integers(1, 700))
def test_the_largest_micro_batch_is_found(most, limit):
    """For any limit of memory the search returns the most that fits, in about 2 log2 attempts."""
    attempts = []

    def attempt(count):
        attempts.append(count)
        if count > limit:
            raise torch.OutOfMemoryError("simulated")

    assert largest(attempt, most) == min(most, limit)
    assert len(attempts) <= 2 * math.log2(most) + 2


def test_other_errors_pass_through_the_search():
    """An error that is not about memory is not taken for one; where one image does not fit, it is said."""

    def broken(count):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    def full(count):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    with pytest.raises(RuntimeError, match="mat1"):
        largest(broken, 8)
    with pytest.raises(ParameterError, match="not even a micro-batch of one image"):
        largest(full, 8)


class Limited(nn.Module):
    """A network around another, with memory for 5 samples."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = kd.get_model("mlp", **{k: v for k, v in MODEL.items() if k != "name"})
        self.config = self.inner.config

    def forward(self, x, time, **cond):
        if len(x) > 5:
            raise torch.OutOfMemoryError("simulated")
        return self.inner(x, time, **cond)


def test_auto_trains_with_the_most_that_fits():
    """With ``micro: auto`` a run under a limit of 5 samples has the bits of one with micro-batches of 5."""
    found = train(tiny(batch={"size": 8, "micro": "auto"}), network=Limited())
    assert found.updater.micro == 5
    assert same(state(found), state(train(tiny(batch={"size": 8, "micro": 5}), network=Limited())))


# -- the gradient noise scale


def test_the_gradient_noise_scale_is_found():
    """From squared norms of simulated gradients of known signal and noise, their ratio comes out."""
    generator = torch.Generator().manual_seed(0)
    signal, deviation, few, many = torch.full((50,), 0.1), 0.7, 4, 32
    scale = NoiseScale(decay=0.999)
    for _ in range(4000):
        gradients = signal + deviation * torch.randn(many, 50, generator=generator)
        small, large = gradients[:few].mean(0), gradients.mean(0)
        scale.update(float(small @ small), float(large @ large), few, many)
    truth = 50 * deviation**2 / float(signal @ signal)
    assert abs(scale.value / truth - 1) < 0.1


def test_it_is_measured_on_one_device():
    """A run with micro-batches reports a noise scale, which another cut leaves in its order."""
    reports = []
    config = tiny(
        batch={"size": 32, "micro": 8}, images=1600, noise={"stratified": False}, log={"every": 1600}
    )
    train(config, callbacks=[lambda e: e.kind == "log" and reports.append(e.values)])
    assert 1 < reports[-1]["gradient_noise_scale"] < 10_000


# -- precision, compilation, memory layout


def test_mixed_precision_trains():
    """In bf16 layers compute in it, weights stay float32, and losses are near those of float32."""
    losses = {}
    for precision in ("no", "bf16"):
        found = losses[precision] = []
        trainer = train(
            tiny(precision=precision),
            callbacks=[lambda e, found=found: e.kind == "log" and found.append(e.values["loss"])],
        )
        assert trainer.accelerator.mixed_precision == precision
        assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}
        seen = []
        trainer.network.enter.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out.dtype))
        trainer.updater.attempt(2)
        assert seen == [torch.float32 if precision == "no" else torch.bfloat16]
    torch.testing.assert_close(torch.tensor(losses["bf16"]), torch.tensor(losses["no"]), rtol=0.03, atol=0)
    assert losses["bf16"] != losses["no"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_fp16_without_a_gpu_is_refused():
    """Where the device has no fp16, it is said, and the next run is as if it had not been asked for."""
    with pytest.raises(ParameterError, match="fp16"):
        train(tiny(precision="fp16"))
    assert train(tiny(images=8)).accelerator.mixed_precision == "no"


def test_the_scale_of_half_precision_gradients():
    """Too high a scale costs skipped updates, each of which halves it; then the weights are trained."""
    import accelerate

    accelerator = accelerate.Accelerator()
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**21, growth_interval=1000)
    accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
    scales, norms = [], []

    def watch(event):
        if event.kind == "skip":
            scales.append(accelerator.scaler.get_scale())
        if event.kind == "update":
            norms.append(event.values["gradient_norm"])

    try:
        trainer = train(
            tiny(precision="fp16", images=160),
            accelerator=accelerator,
            callbacks=[watch],
        )
    finally:
        accelerate.state.AcceleratorState._reset_state()
    assert scales == [2.0 ** (20 - k) for k in range(len(scales))]
    assert 0 < trainer.summary.skipped < 10
    assert trainer.summary.updates + trainer.summary.skipped == 20
    assert norms[-1] < 10


def test_compiled_in_place(monkeypatch):
    """A compiled network trains to the weights of the plain one, under the same names."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    compiled = train(tiny(compile=True, images=16))
    assert compiled.network._compiled_call_impl is not None
    assert distance(state(compiled), state(train(tiny(images=16)))) < 1e-5


# -- what it tells and writes


def test_events_and_the_log(tmp_path):
    """Callbacks and the file of lines hear of start, reports, checkpoints, samples and the end, in order."""
    heard = []
    train(tiny(images=32, samples={"every": 16}), tmp_path, callbacks=[heard.append])
    kinds = [event.kind for event in heard if event.kind != "update"]
    middle = ["log", "samples", "checkpoint", "log", "checkpoint", "samples", "end"]
    assert kinds == ["start", *middle]
    assert [e.images for e in heard if e.kind == "update"] == [8, 16, 24, 32]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == kinds
    report = next(line for line in lines if line["event"] == "log")
    assert sum(part["n"] for part in report["loss_by_level"]) == 16
    mean = sum(part["n"] * part["loss"] for part in report["loss_by_level"]) / 16
    assert abs(mean - report["loss"]) < 1e-9
    updates = [e.values["loss"] for e in heard if e.kind == "update"][:2]
    assert abs(sum(updates) / 2 - report["loss"]) < 1e-6


def test_loss_by_level_says_which_levels():
    """The parts of the density are told apart by its own quantiles, and each has its share of images."""
    reports = []
    train(
        tiny(density="cosine", log={"every": 80, "levels": 4}),
        callbacks=[lambda e: e.kind == "log" and reports.append(e.values["loss_by_level"])],
    )
    assert [part["n"] for part in reports[0]] == [20, 20, 20, 20]
    assert abs(reports[0][1]["sigma_high"] - 1) < 1e-9


def test_tensorboard_gets_the_numbers(tmp_path, monkeypatch):
    """Accelerate's tracker writes a file of events."""
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    train(tiny(images=16, log={"every": 8, "trackers": ["tensorboard"]}), tmp_path)
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_the_model_file_is_the_average(tmp_path):
    """The written model is the average's denoiser, in eval mode, and says what it was trained on."""
    trainer = train(tiny(), tmp_path)
    model = read_model(trainer.summary.model)
    x, sigma, label = torch.randn(3, 2), torch.tensor([0.1, 1.0, 10.0]), torch.tensor([0, 2, -1])
    mine = trainer.denoiser()
    assert not mine.network.training
    assert trainer.network.training
    assert torch.equal(model(x, sigma, label=label), mine(x, sigma, label=label))
    assert not torch.equal(mine.network.leave.weight, trainer.network.leave.weight)
    assert model.training["images"] == 80
    assert model.sample_shape == (2,)
    assert model.classes == 3
    assert abs(model.sigma_data - float(points().x.std())) < 1e-3


def test_an_unknown_average_is_refused():
    """A name that is no average is refused with those there are."""
    with pytest.raises(ParameterError, match="no average 'slow'; there are 'ema'"):
        train(tiny(images=8)).denoiser("slow")


def test_a_flow_refuses_levels_above_one():
    """A density with levels above 1 does not go with a flow; the uniform one takes the denoiser's process."""
    with pytest.raises(ParameterError, match="a flow has none above 1"):
        Trainer(tiny(denoiser={"prediction": "flow"}, loss="flow"), dataset=points())
    flow = train(tiny(denoiser={"prediction": "flow"}, loss="flow", density="uniform", images=16))
    assert flow.density.process.path == "flow"


def test_sigterm_stops_in_order(tmp_path):
    """A run that is told to end writes a checkpoint, and goes on from it to the same bits."""
    whole = state(train(tiny()))

    def end(event):
        if event.kind == "update" and event.images == 40:
            signal.raise_signal(signal.SIGTERM)

    stopped = train(tiny(), tmp_path, callbacks=[end])
    assert not stopped.summary.finished
    assert stopped.images == 40
    assert not (tmp_path / "model.safetensors").exists()
    assert same(whole, state(train(tiny(), tmp_path)))


def test_a_network_without_labels_has_no_classes(tmp_path):
    """A model of data with classes says it has none where its network is not told of them."""
    config = make_config(
        {
            "model": {"name": "unet", "in_channels": 1, "channels": [8], "depths": [1], "head_dim": 8},
            "data": {"dataset": "digits"},
            "batch": {"size": 8},
            "images": 8,
        }
    )
    assert "classes" not in Trainer(config, tmp_path).about
