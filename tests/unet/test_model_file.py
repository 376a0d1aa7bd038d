"""Model files: what is written is read, whole or not at all, and what is wrong is said."""

from __future__ import annotations

import json
import re

import pytest
import torch

import kdiff_core as kd
from kdiff_core.errors import ParameterError, UnknownNameError
from kdiff_core.model_file import describe_model, read_model, write_model
from kdiff_core.testing import check_denoiser

safetensors = pytest.importorskip("safetensors.torch")

DENOISER = {
    "prediction": "edm",
    "process": {"name": "edm", "options": {"sigma_max": 40.0}},
    "sigma_data": 0.7,
}
ABOUT = {
    "sample_shape": [2],
    "value_range": [-1.0, 1.0],
    "classes": 3,
    "class_names": ["a", "b", "c"],
}


@pytest.fixture
def network():
    made = kd.get_model("mlp", channels=8, depth=1, conditions={"label": {"kind": "class", "classes": 3}})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture
def file(network, tmp_path):
    place = tmp_path / "model.safetensors"
    write_model(place, network, DENOISER, ABOUT, {"images": 1000})
    return place


def test_what_is_read_is_for_sampling_and_moves(file):
    """No weight asks for a gradient; a job moves the model of a file to its device."""
    assert not any(weight.requires_grad for weight in read_model(file).parameters())
    setup = kd.SampleJob(str(file), 2, device="meta").setup()
    assert {weight.device.type for weight in setup.model.parameters()} == {"meta"}
    assert setup.like.device.type == "meta"
    here = kd.SampleJob(read_model(file, device="meta"), 2).setup()
    assert here.like.device.type == "meta", "where the model is"


def changed(file, change):
    """Write a file whose description is changed."""
    description = describe_model(file)
    change(description)
    safetensors.save_file(
        safetensors.load(file.read_bytes()), file, metadata={"kdiff": json.dumps(description)}
    )
    return file


def test_a_denoiser_comes_back(network, file):
    """Weights, config, preconditioning, process, facts and record are what they were; the mode is eval."""
    found = read_model(file)
    assert found.network.config == network.config
    assert not found.network.training
    for name, weight in network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], weight)
    assert (found.prediction, found.sigma_data, found.sigma_max) == ("edm", 0.7, 40.0)
    assert (found.sample_shape, found.value_range, found.classes) == ((2,), (-1.0, 1.0), 3)
    assert found.class_names == ("a", "b", "c")
    assert found.training == {"images": 1000}
    assert found.replay_options == {"file": str(file)}


@pytest.mark.parametrize("process", [None, "sd", {"name": "sd", "options": {}}])
def test_processes(network, tmp_path, process):
    """A process is a name, a name with options, or the prediction's own."""
    write_model(
        tmp_path / "m.safetensors", network, {"prediction": "v" if process else "edm", "process": process}
    )
    found = read_model(tmp_path / "m.safetensors")
    assert found.process == kd.get_process("sd" if process else "edm")


def test_weights_come_in_the_dtype_asked_for(network, tmp_path):
    """Weights written in half precision come back in float32, or in what is asked for."""
    write_model(tmp_path / "m.safetensors", network.bfloat16(), {"prediction": "edm"})
    assert read_model(tmp_path / "m.safetensors").dtype == torch.float32
    assert read_model(tmp_path / "m.safetensors", dtype=torch.float64).dtype == torch.float64


def test_sampling_by_name(file):
    """A file is a denoiser by the entry "trained" and by its path, with the same samples of a seed."""
    options = {"n": 3, "steps": 3, "seed": 0, "label": 1}
    by_entry = kd.sample(kd.get_denoiser("trained", file=file), **options)
    torch.testing.assert_close(kd.sample(read_model(file), **options), by_entry, rtol=0, atol=0)
    torch.testing.assert_close(kd.sample(str(file), **options), by_entry, rtol=0, atol=0)
    assert by_entry.shape == (3, 2)


def test_the_laws_of_denoisers(file):
    """What is read keeps the laws that samplers rely on."""
    check_denoiser(read_model(file), examples=10).raise_if_broken()


def test_a_failed_write_leaves_the_old_file(network, file, monkeypatch):
    """When writing fails the file is what it was, and nothing else is left in its folder."""
    before = file.read_bytes()
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match=re.escape("No space left")):
        write_model(file, network, DENOISER)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("denoiser", "about", "training", "message"),
    [
        ({"predicton": "edm"}, {}, {}, "did you mean 'prediction'"),
        ({"prediction": "edm"}, {"clases": 3}, {}, "did you mean 'classes'"),
        ({"prediction": "edm"}, {}, {"loss": float("nan")}, "no JSON"),
        ({"prediction": lambda level: level}, {}, {}, "no JSON"),
    ],
)
def test_what_cannot_be_written_is_refused(network, tmp_path, denoiser, about, training, message):
    """A description that cannot be read back is refused before anything is written."""
    with pytest.raises(ParameterError, match=message):
        write_model(tmp_path / "m.safetensors", network, denoiser, about, training)
    assert not list(tmp_path.iterdir())


def test_a_network_without_a_name_is_refused(tmp_path):
    """A module that no registered model makes cannot be written."""
    with pytest.raises(ParameterError, match="a Linear cannot be written"):
        write_model(tmp_path / "m.safetensors", torch.nn.Linear(2, 2), {"prediction": "edm"})


def test_a_wrapper_of_compile_is_refused(tmp_path):
    """The weights of a wrapper of torch.compile have other names, which is said."""
    made = kd.get_model("mlp")
    wrapper = torch.nn.Module()
    wrapper.add_module("_orig_mod", made.layers[0])
    made.layers[0] = wrapper
    with pytest.raises(ParameterError, match="compile in place"):
        write_model(tmp_path / "m.safetensors", made, {"prediction": "edm"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "has the format 2; this version reads 1"),
        (lambda d: d.update(weights={}), "unknown key 'weights'"),
        (lambda d: d.update(model={"name": "mlp"}), "must have a name and a config"),
        (lambda d: d.update(denoiser=[]), "'denoiser' must be a mapping"),
        (lambda d: d["denoiser"].update(sigma=1), "unknown key 'sigma'"),
        (lambda d: d["denoiser"].update(prediction="edn"), "did you mean 'edm'"),
        (lambda d: d["denoiser"].update(sigma_data="much"), "does not fit"),
        (lambda d: d["denoiser"].update(process={"nane": "edm"}), "did you mean 'name'"),
        (lambda d: d["model"]["config"].update(chanels=3), "did you mean 'channels'"),
        (lambda d: d["model"]["config"].update(depth=2), r"it lacks 'layers.1"),
        (lambda d: d["model"]["config"].update(conditions={}), r"unknown are 'conditions"),
        (lambda d: d["model"]["config"].update(channels=16), r"'enter.bias' is \(8,\) and must be \(16,\)"),
    ],
)
def test_what_cannot_be_read_is_refused(file, change, message):
    """A description or weights that do not fit are refused with the file's name and what is wrong."""
    changed(file, change)
    with pytest.raises(ParameterError, match=message) as caught:
        read_model(file)
    assert file.name in str(caught.value)


def test_a_model_of_no_plugin(file):
    """A file of a model that no plugin has says so."""
    changed(file, lambda d: d["model"].update(name="unknown-model"))
    with pytest.raises(UnknownNameError, match="unknown-model"):
        read_model(file)


def test_other_files_are_refused(tmp_path, network):
    """A missing file, one of another kind, one cut off and bare weights are each refused as what they are."""
    place = tmp_path / "m.safetensors"
    with pytest.raises(ParameterError, match="there is no file"):
        read_model(place)
    place.write_bytes(b"PK\x03\x04 not this")
    with pytest.raises(ParameterError, match="is no safetensors file"):
        read_model(place)
    write_model(place, network, DENOISER)
    place.write_bytes(place.read_bytes()[:-5])
    with pytest.raises(ParameterError, match="is no safetensors file"):
        read_model(place)
    safetensors.save_file({"a": torch.zeros(1)}, place)
    with pytest.raises(ParameterError, match="has weights only"):
        read_model(place)
    with pytest.raises(ParameterError, match="dtype='int8' must be one of"):
        kd.get_denoiser("trained", file=place, dtype="int8")
