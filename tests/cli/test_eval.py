"""``kdiff eval``: the report of `kdiff_train.evaluate`, of a model or of samples in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("torchmetrics")

import kdiff_core as kd
from kdiff_core.cli import main
from kdiff_core.shards import read_shards
from kdiff_train.evaluate import evaluate


@pytest.fixture
def kdiff(capsys, monkeypatch, tmp_path):
    """Run the command in an empty folder; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*args):
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        return (left.value.code or 0, *capsys.readouterr())

    return run


PIXELS = ("--features", "pixels", "--metrics", "fid,sliced_wasserstein,loss")


def test_a_model(kdiff):
    """What is printed and written is the report of `evaluate` with the same arguments."""
    given = ("-n", 40, "--steps", 3, "--guidance", 2, "--seed", 5, "-s", "heun", *PIXELS)
    status, out, _ = kdiff("eval", "digits", "--data", "digits", *given, "-o", "report.json")
    expected = evaluate(
        "digits", "digits", n=40, steps=3, guidance=2.0, seed=5, sampler="heun", features="pixels",
        metrics=["fid", "sliced_wasserstein", "loss"],
    )  # fmt: skip
    found = json.loads(Path("report.json").read_text())
    assert (status, found) == (0, json.loads(expected.to_json()))
    for words in ("sliced_wasserstein", f"{expected['fid'].value:.4g}", "guidance 2", "wrote report.json"):
        assert words in out


def test_samples_in_files(kdiff):
    """A folder that `kdiff sample` wrote is compared as it is, without a model."""
    kdiff("sample", "digits", "-n", 30, "--steps", 3, "--shard-size", 8, "-o", "shards/")
    status, out, _ = kdiff("eval", "shards/", "--data", "digits", "--features", "pixels", "--json")
    samples = torch.from_numpy(read_shards("shards")["samples"])
    expected = evaluate(None, "digits", samples=samples, features="pixels")
    assert (status, json.loads(out)) == (0, json.loads(expected.to_json()))
    assert torch.equal(samples, kd.sample("digits", n=30, steps=3)) or (
        (samples - kd.sample("digits", n=30, steps=3)).abs().max() < 1e-4
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nothing", "--data", "digits"], "nothing"),
        (["digits", "--data", "digit"], "digits"),
        (["digits", "--data", "digits", "--metrics", "fit"], "did you mean 'fid'?"),
        (["digits", "--data", "digits", "-o", "report.txt"], "must end in .json"),
        (["digits", "--data", "digits", "--features", "pixel"], "pixels"),
        ([".", "--data", "digits"], "no shards.json"),
        ([".", "--data", "digits", "--steps", "3"], "drawn already"),
        ([".", "--data", "digits", "--device", "cpu"], "drawn already"),
        (["digits", "--data", "digits", "--set", "sampler.eta=1"], "--set"),
        (["digits", "--data", "digits", "-n", "100000"], "needed are"),
    ],
)
def test_refusals(kdiff, args, says):
    """What is wrong is said in a line, with status 2, and no report is written."""
    status, _, error = kdiff("eval", *args)
    assert (status, says in error) == (2, True)
    assert not Path("report.json").exists()
