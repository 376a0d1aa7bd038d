"""The trained network that ships: small, obedient, as good as its record says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import kdiff_core as kd
from kdiff_core.model_file import describe_model

pytest.importorskip("safetensors")
FILE = Path(__file__).resolve().parents[2] / "plugins" / "kdiff_unet" / "mnist.safetensors"


@pytest.fixture(scope="module")
def drawn():
    """Ten of each class, with guidance."""
    labels = torch.arange(10).repeat_interleave(10)
    x = kd.sample("mnist", 100, steps=12, label=labels, guidance=2.0, sampler="dpmpp_2m")
    return x, labels


def test_it_is_small_and_says_how_it_was_made():
    """The file has at most 4 MiB, and records the config that reproduces it."""
    assert FILE.stat().st_size <= 4 * 2**20
    found = describe_model(FILE)
    assert found["training"]["config"]["images"] == found["training"]["images"]
    assert json.dumps(found)


def test_samples_are_of_the_class_that_was_asked_for(drawn):
    """Nearly all guided samples are nearest to training digits of their own class; by chance a tenth were."""
    data = pytest.importorskip("kdiff_train.data.mnist")
    del data
    real = kd.get_dataset("mnist")
    x = torch.stack([torch.as_tensor(real[i]["x"]) for i in range(0, len(real), 2)]).flatten(1)
    y = torch.tensor([int(real[i]["label"]) for i in range(0, len(real), 2)])
    samples, labels = drawn
    found = y[torch.cdist(samples.flatten(1), x).argmin(1)]
    assert (found == labels).float().mean() > 0.9


def test_samples_fill_the_range_and_differ(drawn):
    """Samples are black and white as digits are, and no two are alike."""
    samples, _ = drawn
    assert samples.shape == (100, 1, 28, 28)
    assert (samples.abs() > 0.8).float().mean() > 0.8
    apart = torch.cdist(samples.flatten(1), samples.flatten(1)) + 100 * torch.eye(100)
    assert apart.min() > 3
