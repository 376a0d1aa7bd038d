"""A third party's loss, data set, architecture, condition and augmentation, in one training run."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("accelerate")

import kdiff_core as kd
from kdiff_core import lookup
from kdiff_core.model_file import read_model
from kdiff_core.registry import Registry
from kdiff_train.config_file import make_config
from kdiff_train.trainer import Trainer

HERE = Path(__file__).resolve().parent


@pytest.fixture
def _installed(monkeypatch, tmp_path):
    """The distribution as an installer leaves it: its package on the path, and its entry points."""
    project = tomllib.loads((HERE / "parts" / "pyproject.toml").read_text())["project"]
    said = tmp_path / "site" / "kdiff_parts-0.1.dist-info"
    said.mkdir(parents=True)
    (said / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = project["entry-points"]["kdiff"].items()
    (said / "entry_points.txt").write_text("[kdiff]\n" + "".join(f"{k} = {v}\n" for k, v in points))
    monkeypatch.syspath_prepend(str(said.parent))
    monkeypatch.syspath_prepend(str(HERE / "parts"))
    monkeypatch.setattr(lookup, "_default", Registry())
    yield
    sys.modules.pop("kdiff_parts", None)


@pytest.mark.usefixtures("_installed")
def test_all_parts_in_one_run(tmp_path):
    """A run of nothing but a third party's parts learns, is written, read again, and knows its classes."""
    losses = []
    config = make_config(
        {
            "model": "plain",
            "data": {"dataset": {"name": "stripes", "n": 32}},
            "loss": "absolute",
            "augmentation": "upside",
            "drop": {"label": 0.1},
            "optimizer": {"lr": 1e-2},
            "rate": "constant",
            "batch": {"size": 16},
            "images": 1600,
            "log": {"every": 160},
        }
    )
    Trainer(config, tmp_path, callbacks=[lambda e: e.kind == "log" and losses.append(e.values["loss"])]).run()
    assert losses[-1] < 0.85 * losses[0]
    model = read_model(tmp_path / "model.safetensors")
    assert type(model.network).__module__ == "kdiff_parts"
    parts = {"loss": "absolute", "dataset": "stripes", "model": "plain", "condition": "one_hot"}
    for kind, name in {**parts, "augmentation": "upside"}.items():
        assert kd.default_registry().provider(kind, name).distribution == "kdiff-parts"
