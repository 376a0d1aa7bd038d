"""Tuned files: read back bit for bit, found by path and from a plugin, refused where they are not right."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from copy import deepcopy

import pytest
import torch

import kdiff_core as kd
from kdiff_core.cli import main
from kdiff_core.errors import CapabilityError, GridError, ParameterError, UnknownNameError
from kdiff_core.registry import Registry
from kdiff_core.tuning.tuned import Tuned, TunedSampler, TunedSchedule, named
from kdiff_core.tuning.weights import free_weights, settled, shifted, widened

LEVELS = (10.0, 3.1, 0.7 / 3, 0.05, 0.0)
SHORT = ("--starts", "4", "--teacher-steps", "12", "--iterations", "5", "-n", "3")


def model(x, sigma):
    level = sigma.reshape(-1, 1)
    return torch.tanh(x) / (1 + level)


@pytest.fixture(scope="module")
def tuned():
    wide = widened(kd.get_sampler("dpmpp_2m").plan(LEVELS))
    deltas = torch.sin(torch.arange(1.0, 1 + free_weights(wide, True), dtype=torch.float64)) / 7
    plan = named(settled(shifted(wide, deltas, True)), "DPMpp2M()")
    return Tuned("ve", kd.Grid.of(LEVELS), plan, {"sampler": "DPMpp2M()", "seed": 0})


@pytest.fixture
def file(tuned, tmp_path):
    tuned.save(tmp_path / "tuned.json")
    return tmp_path / "tuned.json"


def test_a_file_reads_back_bit_for_bit(tuned, file):
    """Levels, plan and provenance are equal, and a run has the same bits."""
    again = Tuned.read(file)
    assert again == tuned
    assert again.to_dict() == tuned.to_dict()
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 10
    one, other = tuned.sampler(model, x, LEVELS), kd.get_sampler(str(file))(model, x, LEVELS)
    assert torch.equal(one, other)
    assert not torch.equal(one, kd.get_sampler("dpmpp_2m")(model, x, LEVELS))


def test_names_that_end_in_json_are_files(tuned, file, monkeypatch):
    """A sampler's file gives its schedule too; a path may be relative; unknown options are refused."""
    monkeypatch.chdir(file.parent)
    assert kd.get_sampler("tuned.json") == kd.get_sampler(str(file)) == tuned.sampler
    assert kd.get_schedule("tuned.json") == TunedSchedule(kd.Grid.of(LEVELS), "ve")
    assert kd.get_schedule("tuned.json")(4) == kd.get_schedule("tuned.json")() == kd.Grid.of(LEVELS)
    assert kd.parse_label("tuned.json") == ("tuned.json", None)
    with pytest.raises(ParameterError, match="rho"):
        kd.get_schedule("tuned.json", rho=5)
    with pytest.raises(UnknownNameError):
        kd.get_noise("tuned.json")


def test_a_plugin_can_bring_files(tuned, file):
    """An entry whose defaults name the file is found by its name, as sampler and as schedule."""

    class Plugin:
        @kd.hookimpl
        def kdiff_samplers(self):
            return [kd.Entry("fast", "kdiff_core.tuning.tuned:tuned_sampler", defaults={"file": str(file)})]

        @kd.hookimpl
        def kdiff_schedules(self):
            return [kd.Entry("fast", "kdiff_core.tuning.tuned:tuned_schedule", defaults={"file": str(file)})]

    registry = Registry(load=False)
    registry.register(Plugin())
    assert registry.get("sampler", "fast") == tuned.sampler
    assert registry.get("schedule", "fast")(4) == tuned.grid


def test_a_tuned_sampler_is_a_value(tuned):
    """It is hashable and picklable, equal to another of the same plan, and its name tells it from others."""
    sampler = tuned.sampler
    assert pickle.loads(pickle.dumps(sampler)) == sampler == TunedSampler(sampler.tuned)
    assert hash(sampler) == hash(TunedSampler(sampler.tuned))
    other = named(kd.get_sampler("euler").plan(LEVELS), "DPMpp2M()")
    assert other.sampler != sampler.tuned.sampler
    assert repr(sampler).startswith("Tuned(DPMpp2M(), 4 steps, ")


def test_stepper_and_resumed_run_have_the_same_bits(tuned):
    """Driven from outside, or stopped and resumed, a tuned plan comes to what a run comes to."""
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 10
    whole, half = tuned.sampler(model, x, LEVELS), tuned.sampler.run(model, x, LEVELS, stop=2)
    assert torch.equal(tuned.sampler.run(model, resume=half.checkpoint).x, whole)
    stepper = kd.Stepper(tuned.sampler, x, LEVELS)
    while not stepper.done:
        stepper.step(model(stepper.x, stepper.sigma_tensor))
    assert torch.equal(stepper.x, whole)


def test_another_grid_or_path_is_refused(tuned):
    """Other levels, another number of steps, another path: refused; float32 copies of the levels are not."""
    sampler, schedule = tuned.sampler, tuned.schedule
    assert tuple(sampler.plan(torch.tensor(LEVELS, dtype=torch.float32)).levels) == LEVELS
    for other in (
        (10.0, 3.1, 0.233, 0.05, 0.0),
        LEVELS[:-1],
        (10.0, 1.0, 0.0),
        (10.0, 3.1, 0.7 / 3, 0.05, 0.01),
    ):
        with pytest.raises(GridError, match="weights for its own levels alone"):
            sampler.plan(other)
    with pytest.raises(CapabilityError, match="tuned on the ve path"):
        sampler.plan([0.9, 0.5, 0.3, 0.1, 0.0], "flow")
    with pytest.raises(ParameterError, match="tuned for 4 steps, not for n=5"):
        schedule(5)
    with pytest.raises(ParameterError, match="process is on flow"):
        schedule(4, process=kd.get_process("sd3"))


def test_nothing_wraps_its_steps(tuned):
    """Modifiers that take single steps are refused, whether they ask its memory or call its step."""
    with pytest.raises(ParameterError):
        kd.get_modifier("churn", tuned.sampler, s_churn=10.0)
    with pytest.raises(CapabilityError, match="run as a whole"):
        tuned.sampler.step(None, None, 1.0, 0.5)


def test_a_schedules_file_is_no_sampler(tmp_path):
    """Levels alone were tuned for a sampler that stands in the message."""
    Tuned("ve", kd.Grid.of(LEVELS), None, {"sampler": "Euler()"}).save(tmp_path / "grid.json")
    assert kd.get_schedule(str(tmp_path / "grid.json"))(4) == kd.Grid.of(LEVELS)
    with pytest.raises(ParameterError, match=r"only the levels were tuned, for Euler\(\)"):
        kd.get_sampler(str(tmp_path / "grid.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"\x80\x04K\x01.", "is no JSON"),
        (b"[1, 2]", "is no tuned file"),
        (b'{"kdiff_plan": 1}', "is no tuned file"),
        (b'{"kdiff_tuned": 2}', "is of version 2; this kdiff reads version 1"),
        (b'{"kdiff_tuned": 1}', "is damaged"),
    ],
)
def test_files_that_are_none_are_refused(content, message, tmp_path):
    """A missing file, a pickle, other JSON and a later version: each is refused with its name."""
    file = tmp_path / "some.json"
    if content is not None:
        file.write_bytes(content)
    for get in (kd.get_sampler, kd.get_schedule):
        with pytest.raises(ParameterError, match=message) as refused:
            get(str(file))
        assert str(file) in str(refused.value)


def _set(path, value):
    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


FIRST = ("plan", "steps", 0)
DAMAGES = {
    "kind": _set(["kind"], "model"),
    "no plan": _set(["plan"], None),
    "path": _set(["path"], "flow"),
    "rising levels": _set(["levels", 1], 11.0),
    "other levels": _set(["levels", 1], 3.2),
    "missing step": lambda data: data["plan"]["steps"].pop(),
    "weight nan": _set([*FIRST, "ops", 1, 2, 0, 1], "nan"),
    "weight text": _set([*FIRST, "ops", 1, 2, 0, 1], "os.system('')"),
    "unwritten register": _set([*FIRST, "ops", 1, 2, 0, 0], 99),
    "written twice": _set([*FIRST, "ops", 1, 1], 0),
    "unknown operation": _set([*FIRST, "ops", 0, 0], "Exec"),
    "unwritten end": _set([*FIRST, "end"], 77),
    "provenance": _set(["provenance"], []),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(damage, tuned, tmp_path):
    """Whatever is wrong with a plan is found when the file is read, not in the middle of a run."""
    data = deepcopy(json.loads(json.dumps(tuned.to_dict())))
    DAMAGES[damage](data)
    (tmp_path / "x.json").write_text(json.dumps(data))
    with pytest.raises(ParameterError, match=r"x\.json: is a tuned file that is damaged"):
        Tuned.read(tmp_path / "x.json")


def test_only_json_is_written(tuned, tmp_path):
    """A name by which the file would not be found again is refused."""
    with pytest.raises(ParameterError, match=r"end in \.json"):
        tuned.save(tmp_path / "tuned.txt")
    assert list(tmp_path.iterdir()) == []


def test_reading_a_file_loads_no_torch(file):
    """A schedule and a plan are read, and planned with, without torch."""
    code = (
        "import sys, kdiff_core as kd; s = kd.get_schedule(sys.argv[1])(4); "
        "kd.get_sampler(sys.argv[1]).plan(s).table(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- the command


def kdiff(*args):
    """Run the command; 0, or what it leaves with."""
    try:
        main([str(arg) for arg in args])
    except SystemExit as done:
        return done.code or 0
    return 0


def test_the_command_writes_what_sample_takes(tmp_path, monkeypatch, capsys):
    """`kdiff tune` writes files by which `kdiff sample` samples, and its pictures replay from elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert kdiff("tune", "grid", "--schedule", "karras", *SHORT, "--out", "grid.json") == 0
    assert kdiff("tune", "weights", "--schedule", "karras", *SHORT, "--out", "weights.json") == 0
    printed = capsys.readouterr().out
    assert "untuned (karras)" in printed
    assert "kdiff sample digits --sampler dpmpp_2m --schedule grid.json" in printed
    assert kdiff("sample", "digits", "--schedule", "grid.json", "-n", 2, "-o", "a.png") == 0
    assert kdiff("sample", "digits", "--sampler", "weights.json", "-n", 2, "-o", "b.png") == 0
    assert "schedule weights.json, 3 steps, 3 evaluations" in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert kdiff("replay", "../a.png") == 0
    assert kdiff("replay", "../b.png") == 0


def test_the_command_finds_the_number_of_steps(tmp_path, capsys):
    """`kdiff tune steps` writes the schedule with the steps that the error takes."""
    out = tmp_path / "steps.json"
    args = ("--starts", 4, "--teacher-steps", 12, "--schedule", "karras", "--out", out)
    assert kdiff("tune", "steps", "--error", "0.2", *args) == 0
    found = Tuned.read(out)
    assert found.provenance["errors"]["tuned"]["validation"] <= 0.2
    assert f"{found.grid.steps} steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("grid", "--out", "x.txt"), "must end in .json"),
        (("grid", "--sampler", "euler_ancestral"), "draws noise"),
        (("weights", "--sampler", "no_such"), "no sampler 'no_such'"),
        (("grid", "--set", "schedule.rho=5"), "by its name alone"),
    ],
)
def test_the_command_refuses_at_once(args, message, capsys, tmp_path, monkeypatch):
    """What cannot be is said before the teacher runs, in a line, with status 2; no file is left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kd.Lessons, "of", None)
    assert kdiff("tune", *args) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["grid", "weights", "steps"])
def test_the_help_shows_examples(command, capsys):
    """Each command's help has an example that can be copied."""
    assert kdiff("tune", command, "--help") == 0
    assert f"kdiff tune {command}" in capsys.readouterr().out
