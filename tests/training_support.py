"""Tiny runs for the tests of training: a perceptron on points of the plane, in milliseconds."""

from __future__ import annotations

import torch

from kdiff_train.config_file import make_config
from kdiff_train.data.arrays import Arrays
from kdiff_train.trainer import Trainer

MODEL = {
    "name": "mlp",
    "in_channels": 2,
    "channels": 16,
    "depth": 1,
    "embedding": 16,
    "conditions": {"label": {"kind": "class", "classes": 3}},
}


def points(n=24):
    """Three classes of points of the plane, in [-1, 1]."""
    labels = torch.arange(n) % 3
    generator = torch.Generator().manual_seed(0)
    angle = labels * 2.1 + torch.randn(n, generator=generator) * 0.1
    return Arrays(0.9 * torch.stack([angle.cos(), angle.sin()], 1), labels)


def tiny(**sections):
    """The config of a tiny run: batches of 8, 10 updates."""
    return make_config(
        {
            "model": MODEL,
            "drop": {"label": 0.2},
            "optimizer": {"name": "adamw", "lr": 3e-3},
            "rate": {"name": "cosine", "warmup": 16},
            "batch": {"size": 8},
            "images": 80,
            "log": {"every": 16, "levels": 2},
            "checkpoint": {"every": 16, "keep": 2},
            **sections,
        }
    )


def train(config, folder=None, network=None, callbacks=(), dataset=None, **options):
    """Run a config on the points, and return the trainer."""
    trainer = Trainer(
        config, folder, network=network, dataset=dataset or points(), callbacks=callbacks, **options
    )
    trainer.summary = trainer.run()
    return trainer


def state(trainer):
    """Copies of a trainer's weights and averages."""
    found = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    for name, average in trainer.averages.items():
        found |= {f"{name}.{k}": v.clone() for k, v in average.tensors.items()}
    return found


def same(a, b):
    """Whether two states have the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def distance(a, b):
    """The largest difference of two states."""
    assert a.keys() == b.keys()
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a if a[key].numel())
