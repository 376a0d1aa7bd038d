"""``kdiff doctor``: what it prints, and its exit statuses."""

from __future__ import annotations

import json
import math

import pytest

from kdiff_core.cli import main
from kdiff_core.doctor import machine, model, sampling, training


@pytest.fixture
def kdiff(capsys, monkeypatch, tmp_path):
    """Run the command in an empty folder; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args):
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        return (left.value.code or 0, *capsys.readouterr())

    return run


def test_the_installation(kdiff):
    """Without a model the installation is examined, which is well where tests run."""
    status, out, _ = kdiff("doctor", "--json")
    found = json.loads(out)
    assert status == 0
    assert [each["name"] for each in found] == [check.__name__ for check in machine.CHECKS]
    assert set(found[0]) == {"name", "checked", "status", "seen", "means", "change"}


def test_a_run_that_is_well(kdiff):
    """A run with nothing wrong has status 0, and every check a line."""
    status, out, _ = kdiff("doctor", "digits-exact", "--steps", "12", "-n", "2")
    lines = out.splitlines()
    assert status == 0, out
    assert len(lines) == len(sampling.CHECKS) + len(model.CHECKS) + 1
    assert lines[-1] == "19 checks, 2 skipped: all is well"


def test_a_run_with_a_problem(kdiff):
    """A problem has status 1, and says what it means and what to change."""
    args = ("doctor", "digits-exact", "-s", "euler", "--steps", "3", "--sigma-max", "300", "-n", "2")
    status, out, _ = kdiff(*args)
    assert status == 1
    assert "the run begins at 300, the model was made for up to 20" in out
    assert "means: it is asked about noise that it has never seen" in out
    assert "change: sigma_max=20" in out
    found = {each["name"]: each for each in json.loads(kdiff(*args, "--json")[1])}
    assert found["first level"]["status"] == "problem"
    checked = "checked: The highest level, beside the highest that the model was made for"
    assert checked in kdiff(*args, "-v")[1]
    assert checked not in out


def test_a_warning_is_no_failure(kdiff):
    """Warnings alone have status 0, and are counted."""
    args = ("doctor", "digits-exact", "-s", "euler", "--set", "eta=1.5", "--steps", "12", "-n", "2")
    status, out, _ = kdiff(*args)
    assert status == 0, out
    assert "! noise" in " ".join(out.split())
    assert out.splitlines()[-1].endswith("1 warning")


def test_a_training(kdiff, tmp_path):
    """The folder of a training is known by its log."""
    lines = [{"event": "log", "images": 64 * i, "loss": 1 / i, "lr": 1e-3} for i in range(1, 20)]
    (tmp_path / "run").mkdir()
    log = tmp_path / "run" / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, out, _ = kdiff("doctor", "run")
    assert status == 0
    assert out.splitlines()[-1] == f"{len(training.CHECKS)} checks, 2 skipped: 1 warning"
    log.write_text(json.dumps({**lines[0], "loss": math.nan}) + "\n")
    status, out, _ = kdiff("doctor", "run")
    assert status == 1
    assert "the training is lost" in out


def test_what_it_cannot_examine(kdiff):
    """An unknown model, and options that do not fit, are refused with status 2."""
    assert kdiff("doctor", "no-such-model")[0] == 2
    status, _, error = kdiff("doctor", "digits-exact", "-s", "no-such-sampler")
    assert status == 2
    assert "no-such-sampler" in error
