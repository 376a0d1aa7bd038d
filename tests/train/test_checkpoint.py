"""Checkpoints: whole or not at all, the newest whole one taken, and runs that go on as if never stopped."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("accelerate")

from training_support import MODEL, distance, same, state, tiny, train

from kdiff_core.errors import ParameterError
from kdiff_train import checkpoint
from kdiff_train.checkpoint import checkpoints, newest, read_checkpoint, tidy, write_checkpoint
from kdiff_train.optimizers import load_optimizer_state, make_optimizer, optimizer_state

EVERYTHING = {
    "model": {
        **MODEL,
        "dropout": 0.2,
        "conditions": {**MODEL["conditions"], "previous": {"kind": "vector", "size": 2}},
    },
    "self_conditioning": 0.5,
    "noise": {"offset": 0.1, "perturbation": 0.1},
    "ema": {"ema": "warmup", "narrow": {"name": "power", "std": 0.05}},
}


def write(folder, images, keep=3, value=1.0):
    return write_checkpoint(folder, images, {"weights": {"w": torch.full((4,), value)}}, {"a": [0.1]}, keep)


def stopped(config, folder, images):
    """Run until some images were seen."""

    def end(event):
        if event.kind == "update" and event.images == images:
            event.trainer.stop()

    return train(config, folder, callbacks=[end])


# -- files


def test_what_is_written_is_read(tmp_path):
    """Tensors of every kind, shared memory and JSON come back as they were; there is no other file."""
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "weights": {"a": shared, "b": shared.T, "c": torch.tensor(3), "d": torch.zeros(0, 2).half()},
        "optimizer": {},
    }
    path = write_checkpoint(tmp_path, 128, tensors, {"x": 0.1 + 0.2, "y": [None, True]}, 3)
    found = read_checkpoint(path)
    assert found.images == 128
    assert found.state == {"x": 0.1 + 0.2, "y": [None, True]}
    for name, each in tensors.items():
        assert found.tensors[name].keys() == each.keys()
        assert all(torch.equal(found.tensors[name][k], v) for k, v in each.items())
        assert all(found.tensors[name][k].dtype == v.dtype for k, v in each.items())
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_the_newest_are_kept(tmp_path):
    """After each write the newest `keep` are there; they are numbered by images, not by time."""
    for images in (8, 24, 16, 32):
        write(tmp_path, images, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == [
        "checkpoint-000000000032",
        "checkpoint-000000000024",
    ]


def test_old_ones_go_after_the_new_one_is_there(tmp_path, monkeypatch):
    """A write that fails, on a full disk, leaves the older checkpoints and nothing else."""
    write(tmp_path, 8, keep=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, 16, keep=1)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000000008"]
    assert newest(tmp_path)[0].images == 8


def _cut(path):
    file = path / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def _flip(path):
    file = path / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


TEARS = {
    "cut": _cut,
    "flipped": _flip,
    "no tensors": lambda path: (path / "weights.safetensors").unlink(),
    "no state": lambda path: (path / "state.json").unlink(),
    "empty state": lambda path: (path / "state.json").write_text(""),
    "half a state": lambda path: (path / "state.json").write_text('{"format": 1'),
    "an empty folder": lambda path: [file.unlink() for file in path.iterdir()],
}


@pytest.mark.parametrize("tear", TEARS.values(), ids=TEARS)
def test_a_torn_one_is_passed_over(tmp_path, tear):
    """Of whatever is torn, the next whole one is taken, with a message that names the torn one."""
    write(tmp_path, 8)
    tear(write(tmp_path, 16))
    found, messages = newest(tmp_path)
    assert found.images == 8
    assert len(messages) == 1
    assert "checkpoint-000000000016 is torn" in messages[0]


def test_a_torn_one_is_written_anew(tmp_path):
    """Where a torn checkpoint has the name of a new one, the new one replaces it."""
    _cut(write(tmp_path, 8))
    write(tmp_path, 8, value=2.0)
    assert float(newest(tmp_path)[0].tensors["weights"]["w"][0]) == 2.0


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path):
    """A partial folder does not count, and is tidied up."""
    write(tmp_path, 8)
    partial = tmp_path / f".partial-000000000016-{os.getpid()}"
    shutil.copytree(tmp_path / "checkpoint-000000000008", partial)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000000000008"]
    tidy(tmp_path)
    assert not partial.exists()


def test_another_format_is_refused(tmp_path):
    """A checkpoint of a later format is refused with its number."""
    path = write(tmp_path, 8)
    said = json.loads((path / "state.json").read_text()) | {"format": 7}
    (path / "state.json").write_text(json.dumps(said))
    with pytest.raises(ParameterError, match="format 7"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "muon"])
def test_the_optimiser_goes_on(name):
    """An optimiser with a loaded state takes the next steps with the bits of the one it was taken from."""
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")

    def made():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Conv1d(4, 2, 1))
        options = {"momentum": 0.9} if name == "sgd" else {}
        return network, make_optimizer(name, network, lr=0.1, weight_decay=0.01, **options)

    def steps(network, optimizer, n):
        for _ in range(n):
            optimizer.zero_grad()
            sum((p**3).sum() for p in network.parameters()).backward()
            optimizer.step()

    network, optimizer = made()
    steps(network, optimizer, 3)
    tensors, rest = optimizer_state(optimizer)
    rest = json.loads(json.dumps(rest))
    other, second = made()
    other.load_state_dict(network.state_dict())
    load_optimizer_state(second, {k: v.clone() for k, v in tensors.items()}, rest)
    steps(network, optimizer, 2)
    steps(other, second, 2)
    assert same(network.state_dict(), other.state_dict())


def test_numbers_of_an_optimiser_go_on():
    """Numbers in an optimiser's state come back beside tensors; what is neither is refused."""

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                state = self.state[parameter]
                state["count"] = state.get("count", 0) + 1

    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    one, two = Counting(parameters, lr=1), Counting(parameters, lr=1)
    one.step()
    one.step()
    load_optimizer_state(two, *optimizer_state(one))
    assert [two.state[p]["count"] for p in parameters] == [2, 2]
    one.state[parameters[0]]["count"] = {1}
    with pytest.raises(ParameterError, match="its state 'count' is a set"):
        optimizer_state(one)


# -- runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped: its folder and what came out."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, state(train(tiny(**EVERYTHING), folder))


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.sets(st.integers(1, 9), max_size=3))
def test_a_stopped_run_goes_on_as_if_never_stopped(whole, tmp_path_factory, stops):
    """Stopped after any updates: weights, averages, the model file and the log are those of the whole run."""
    folder = tmp_path_factory.mktemp("stopped")
    for images in sorted(stops):
        assert stopped(tiny(**EVERYTHING), folder, 8 * images).images == 8 * images
    assert same(whole[1], state(train(tiny(**EVERYTHING), folder)))
    files = [each / "model.safetensors" for each in (folder, whole[0])]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert reports(folder) == reports(whole[0])


def reports(folder):
    """The reports in a log, without how fast it went."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{**line, "images_per_second": None} for line in lines if line["event"] == "log"]


def test_other_workers_and_micro_batches(whole, tmp_path):
    """Gone on with workers it has the same bits; with other micro-batches, and no dropout, to rounding."""
    stopped(tiny(**EVERYTHING), tmp_path / "a", 40)
    assert same(whole[1], state(train(tiny(**EVERYTHING, data={"workers": 2}), tmp_path / "a")))
    plain = {**EVERYTHING, "model": {**EVERYTHING["model"], "dropout": 0.0}}
    stopped(tiny(**plain), tmp_path / "b", 40)
    parts = train(tiny(**plain, batch={"size": 8, "micro": 3}), tmp_path / "b")
    assert 0 < distance(state(train(tiny(**plain))), state(parts)) < 1e-5


def test_a_torn_newest_costs_only_time(whole, tmp_path):
    """With its newest checkpoint torn a run goes on from the one before, says so, and ends the same."""
    told = []
    stopped(tiny(**EVERYTHING), tmp_path, 40)
    _flip(checkpoints(tmp_path / "checkpoints")[0])
    resumed = train(
        tiny(**EVERYTHING),
        tmp_path,
        callbacks=[lambda e: e.kind == "resume" and told.append((e.images, e.values))],
    )
    assert told[0][0] == 32
    assert "checkpoint-000000000040 is torn" in told[0][1]["passed_over"][0]
    assert same(whole[1], state(resumed))


def test_no_whole_checkpoint_is_no_new_run(tmp_path):
    """Where all checkpoints are torn, the run does not silently begin anew."""
    stopped(tiny(), tmp_path, 8)
    for path in checkpoints(tmp_path / "checkpoints"):
        _cut(path)
    with pytest.raises(ParameterError, match=r"no checkpoint in .* is whole"):
        train(tiny(), tmp_path)


def test_another_run_is_refused(tmp_path):
    """A folder with a checkpoint of another seed or model is refused; a longer run goes on and says so."""
    stopped(tiny(), tmp_path, 8)
    with pytest.raises(ParameterError, match="of another run: it differs in 'seed'"):
        train(tiny(seed=1), tmp_path)
    with pytest.raises(ParameterError, match="differs in 'model'"):
        train(tiny(model={**MODEL, "channels": 8}), tmp_path)
    told = []
    longer = train(
        tiny(images=96),
        tmp_path,
        callbacks=[lambda e: e.kind == "resume" and told.append(e.values["changed"])],
    )
    assert longer.images == 96
    assert told == [["images"]]


def test_a_finished_run_is_not_trained_again(tmp_path):
    """Called again, a run that is done makes no update and writes the same model."""
    first = train(tiny(), tmp_path)
    data = first.summary.model.read_bytes()
    heard = []
    again = train(tiny(), tmp_path, callbacks=[lambda e: heard.append(e.kind)])
    assert "update" not in heard
    assert again.summary.model.read_bytes() == data


def test_not_to_resume_begins_anew(tmp_path):
    """With ``resume=False`` the run begins at image 0, beside an old checkpoint."""
    stopped(tiny(), tmp_path, 40)
    heard = []
    train(tiny(), tmp_path, resume=False, callbacks=[heard.append])
    assert heard[0].kind == "start"
    assert sum(e.kind == "update" for e in heard) == 10
