"""The preset for digits, cut to a fifth: what it draws is near to held-out digits, and is none of its own."""

from __future__ import annotations

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("torchmetrics")

from kdiff_train.config_file import preset
from kdiff_train.evaluate import evaluate
from kdiff_train.trainer import Trainer

SHORT = {"images": 24_000, "checkpoint.every": None, "samples.every": None}


def test_a_short_run_draws_new_digits(tmp_path):
    """A minute of training: the distance to held-out digits is below 2.5 floors, and no sample is a copy."""
    trainer = Trainer(preset("digits", overrides=SHORT), tmp_path)
    untrained = distance(trainer)
    assert trainer.run().finished
    report = evaluate(trainer.denoiser(), "digits", steps=20, metrics=["fid", "nearest"])
    fid, nearest = report["fid"], report["nearest"]
    assert fid.value < 2.5 * fid.floor
    assert untrained > 10 * fid.floor  # so it is training that did it
    assert nearest.value >= nearest.floor


def distance(trainer):
    """The distance of what the network draws now."""
    return evaluate(trainer.denoiser(), "digits", steps=4, metrics=["fid"])["fid"].value
