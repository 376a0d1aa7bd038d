"""Guidance by name, one kind or several around each other; prompts of models that take text."""

from __future__ import annotations

import json

import pytest
import torch

import kdiff_core as kd
from kdiff_core.errors import ParameterError, UnknownNameError
from kdiff_core.guide import guide_entries, shared_out
from kdiff_core.manifest import differences, manifest_of

DIGITS = kd.get_denoiser("digits")
JOB = {"n": 2, "sampler": "euler", "steps": 3, "label": 7}


class Told:
    """A model of text: its data is a constant, the length of the text; none is -1."""

    path, sample_shape, sigma_min, sigma_max = "ve", (1, 2, 2), 0.1, 10.0
    value_range, decoded_shape = (-100.0, 100.0), (1, 4, 4)

    def __call__(self, x, sigma, length):
        return torch.zeros_like(x) + length.reshape(-1, 1, 1, 1)

    def encode(self, texts):
        return {"length": torch.tensor([-1.0 if text is None else float(len(text)) for text in texts])}

    def decode(self, x):
        assert len(x) == 1, "one by one"
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize(
    ("guide", "options", "built"),
    [
        ("cfg", {"scale": 3}, lambda m: kd.get_guidance("cfg", m, scale=3)),
        ("Adaptive-Projected", {"eta": 0.5}, lambda m: kd.get_guidance("apg", m, eta=0.5)),
        (
            "cfg+rescale",
            {"phi": 0.5, "scale": 4},
            lambda m: kd.get_guidance("rescale", kd.get_guidance("cfg", m, scale=4), phi=0.5),
        ),
        (
            "cfg + autoguidance",
            {"cfg.scale": 4, "autoguidance.scale": 1.5, "weak": "digits", "cfg.sigma_low": 0.5},
            lambda m: kd.get_guidance(
                "autoguidance", kd.get_guidance("cfg", m, scale=4, sigma_low=0.5), weak="digits", scale=1.5
            ),
        ),
        ("epsilon_scaling", {}, lambda m: kd.get_guidance("epsilon_scaling", m)),
        (
            "interval",
            {"sigma_low": 0.2, "sigma_high": 9.0, "scale": 3.0},
            lambda m: kd.get_guidance("interval", m, sigma_low=0.2, sigma_high=9.0, scale=3.0),
        ),
    ],
)
def test_a_name_is_the_guidance_built_by_hand(guide, options, built):
    """A name with options makes the bits of the guidance that they ask for, and replays from its manifest."""
    job = kd.SampleJob("digits", guide=guide, guide_options=options, **JOB)
    setup = job.setup()
    found = setup.run().x
    expected = kd.SampleJob(built(DIGITS), **JOB).run().x
    assert torch.equal(found, expected)
    assert not torch.equal(found, kd.SampleJob("digits", **JOB).run().x)
    manifest = json.loads(json.dumps(manifest_of(setup)))
    again = kd.SampleJob.from_manifest(manifest).setup()
    assert torch.equal(again.run().x, found)
    assert differences(manifest, again) == []


def test_the_scale():
    """`guidance` is the scale of the innermost kind that has one, and alone it is classifier-free."""
    given = shared_out(guide_entries("epsilon_scaling+cfg+pag"), {"factor": 1.01}, 6.0)
    assert given == [{"factor": 1.01}, {"scale": 6.0}, {}]
    both = [kd.sample(guidance=3.0, **JOB), kd.sample(guide="cfg", guidance=3.0, **JOB)]
    assert torch.equal(*both)


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({"guide": "apg", "guide_options": {"phi": 1}}, "not of 'apg': apg takes scale, eta"),
        ({"guide": "cfg+apg", "guide_options": {"scale": 1}}, "write 'cfg.scale' or 'apg.scale'"),
        ({"guide": "cfg", "guide_options": {"apg.eta": 1}}, "not of 'cfg'"),
        ({"guide": "cfg", "guide_options": {"scale": 1}, "guidance": 2.0}, "is given too"),
        ({"guide": "rescale", "guidance": 2.0}, "has no scale"),
        ({"guide_options": {"scale": 1}}, "without guidance"),
        ({"guide": "rescale"}, "wrap guidance"),
        ({"guide": "cfg", "label": None}, "guide='cfg' without a label"),
        ({"guidance": 2.0, "label": None}, "guidance=2.0 without a label"),
        ({"guide": 3}, "give the name of a guidance"),
        ({"guide": "autoguidance"}, "weak"),
        ({"prompt": "a"}, "the model takes no text"),
    ],
)
def test_refusals(job, says):
    """What does not fit is refused before anything runs, with what would be right."""
    with pytest.raises(kd.errors.KdiffError, match=says.replace("(", r"\(")):
        kd.SampleJob(**JOB | job).setup()


def test_unknown_guidance():
    """An unknown part of a name is refused by that part."""
    with pytest.raises(UnknownNameError, match="no guidance 'rescal'; did you mean 'rescale'"):
        kd.SampleJob(guide="cfg+rescal", **JOB).setup()


def test_objects_are_not_replayed():
    """Options that JSON does not hold make a run that no manifest replays, and the manifest says so."""
    job = kd.SampleJob("digits", guide="autoguidance", guide_options={"weak": DIGITS}, **JOB)
    manifest = json.loads(json.dumps(manifest_of(job.setup())))
    with pytest.raises(ParameterError, match="the guide's options"):
        kd.SampleJob.from_manifest(manifest)


def test_prompts():
    """One prompt is all samples', several are one for each; samples are what the model decodes."""
    assert kd.SampleJob(Told(), prompt="abc").n == 1
    assert kd.SampleJob(Told(), prompt=["abc", ""]).n == 2
    assert kd.SampleJob(Told()).n == 16
    found = kd.sample(Told(), prompt=["abc", "a"], steps=2)
    assert found.shape == (2, 1, 4, 4)
    assert torch.allclose(found[:, 0, 0, 0], torch.tensor([3.0, 1.0]))
    assert torch.allclose(kd.sample(Told(), n=3, prompt="abc", steps=2), torch.tensor(3.0))


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"guidance": 2.0}, [7.0, 3.0]),  # away from none, -1
        ({"guidance": 2.0, "negative": "ab"}, [4.0, 0.0]),
        ({"guidance": 2.0, "negative": ["ab", ""]}, [4.0, 2.0]),
        ({"guide": "perp_neg", "guidance": 2.0}, [7.0, 3.0]),
        ({"guide": "perp_neg", "guidance": 2.0, "negative": "ab"}, [7.0, 3.0]),  # it is parallel
        ({"guide": "cfg+rescale", "guidance": 2.0, "guide_options": {"phi": 0.0}}, [7.0, 3.0]),
    ],
)
def test_what_guidance_leads_away_from(job, expected):
    """It is the negative text, or one for each sample, or what the model takes for no text."""
    found = kd.sample(Told(), prompt=["abc", "a"], steps=2, **job)
    assert torch.allclose(found[:, 0, 0, 0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({}, "needs a text"),
        ({"prompt": ["a", "b"], "n": 3}, "prompt: 2 given for n=3"),
        ({"prompt": "a", "negative": "b"}, "without guidance"),
        ({"prompt": "a", "guidance": 2.0, "negative": ["b", "c"]}, "negative: 2 given for n=1"),
        ({"prompt": 3}, "prompt=3: give a text"),
        ({"prompt": "a", "negative": "b", "guide": "epsilon_scaling"}, "has no use for it"),
        ({"guidance": 2.0}, "needs a text"),
    ],
)
def test_wrong_texts(job, says):
    """A text that is missing, has no use or does not fit is refused."""
    with pytest.raises(ParameterError, match=says):
        kd.SampleJob(Told(), **job).setup()
