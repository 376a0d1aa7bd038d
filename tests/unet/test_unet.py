"""The networks of kdiff_unet: configs, resampling, conditions, magnitudes, presets."""

from __future__ import annotations

import json

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import kdiff_core as kd
from kdiff_core.errors import ParameterError, UnknownNameError
from kdiff_core.parameterisations import Parameterised
from kdiff_core.training import Condition
from kdiff_unet import attention, blocks, config, embedding, magnitude, network, presets, resample
from kdiff_unet.conditions import ClassCondition, Conditions

# -- configs


@st.composite
def unets(draw):
    """Options of any small UNet."""
    levels = draw(st.integers(1, 3))
    flags = st.one_of(st.booleans(), st.lists(st.booleans(), min_size=levels, max_size=levels))
    head = draw(st.sampled_from([1, 2, 4]))
    return {
        "in_channels": draw(st.integers(1, 3)),
        "out_channels": draw(st.one_of(st.none(), st.integers(1, 4))),
        "dims": draw(st.integers(1, 3)),
        "patch_size": draw(st.integers(1, 3)),
        "embedding": draw(st.sampled_from([None, 6])),
        "time": draw(st.sampled_from(config.TIMES)),
        "dropout": draw(st.sampled_from([0, 0.5])),
        "logvar": draw(st.booleans()),
        "checkpointing": draw(st.booleans()),
        "channels": [head * draw(st.integers(1, 3)) for _ in range(levels)],
        "depths": draw(st.lists(st.integers(1, 2), min_size=levels, max_size=levels)),
        "self_attention": draw(flags),
        "middle_attention": draw(st.booleans()),
        "head_dim": head,
        "modulation": draw(st.sampled_from(config.MODULATIONS)),
        "feed_forward": draw(st.booleans()),
        "qk_norm": draw(st.booleans()),
        "resample": draw(st.sampled_from(config.RESAMPLING)),
        "kernel": draw(st.sampled_from([[1, 1], [1, 3, 3, 1], [-1, 3, 3, -1], [1, 2, 3, 3, 2, 1]])),
        "skip": draw(st.sampled_from(config.SKIPS)),
        "conditions": draw(st.sampled_from([{}, {"label": {"kind": "class", "classes": 2}}])),
    }


@settings(max_examples=40, deadline=None)
@given(unets(), st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_any_config_makes_a_network(options, sizes):
    """Any valid config runs forward and backward with the right shapes, at any size, and survives JSON."""
    made = kd.get_model("unet", **json.loads(json.dumps(options)))
    x = torch.randn(2, options["in_channels"], *sizes[: options["dims"]])
    out = made(x, torch.tensor([0.1, -0.4]))
    assert out.shape == (2, options["out_channels"] or options["in_channels"], *x.shape[2:])
    out.sum().backward()
    assert made.leave.bias.grad.abs().max() > 0
    asked = json.loads(json.dumps(attrs.asdict(made.config)))
    assert kd.get_model("unet", **asked).config == made.config


@settings(max_examples=20, deadline=None)
@given(unets(), st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_any_config_makes_a_magnitude_preserving_network(options, sizes):
    """What it shares with the UNet's config makes the magnitude-preserving network as well."""
    known = {name for name in attrs.fields_dict(config.MagnitudeConfig) if name in options}
    made = kd.get_model("magnitude", **{name: options[name] for name in known})
    x = torch.randn(2, options["in_channels"], *sizes[: options["dims"]])
    out = made(x, torch.tensor([0.1, -0.4]))
    assert out.shape == (2, options["out_channels"] or options["in_channels"], *x.shape[2:])
    out.sum().backward()
    assert made.leave_gain.grad.abs() > 0


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from(["rotary", "sincos"]),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 7), min_size=3, max_size=3),
)
def test_any_config_makes_a_transformer(dims, patch, depth, positions, qk_norm, checkpointing, sizes):
    """Any valid config of the transformer runs forward and backward with the right shapes, at any size."""
    made = kd.get_model(
        "transformer",
        in_channels=2,
        dims=dims,
        patch_size=patch,
        depth=depth,
        positions=positions,
        qk_norm=qk_norm,
        checkpointing=checkpointing,
        channels=24,
        head_dim=12,
    )
    x = torch.randn(2, 2, *sizes[:dims])
    out = made(x, torch.tensor([0.1, -0.4]))
    assert out.shape == x.shape
    out.sum().backward()
    assert made.leave.bias.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {"chanels": (8,)}, "did you mean 'channels'"),
        ("unet", {"depths": (1, 1)}, "one number for each of the 3 levels"),
        ("unet", {"channels": ()}, "whole numbers of at least 1"),
        ("unet", {"channels": 64}, "whole numbers of at least 1"),
        ("unet", {"channels": (8, 16.0, 16)}, "whole numbers of at least 1"),
        ("unet", {"self_attention": (True,)}, "a boolean, or one for each of the 3 levels"),
        ("unet", {"self_attention": (1, 1, 1)}, "a boolean, or one for each of the 3 levels"),
        ("unet", {"channels": (8, 12, 20), "head_dim": 8}, "a divisor of the channels 20 of level 2"),
        ("unet", {"dropout": 1.0}, "below 1"),
        ("unet", {"dims": 4}, "one of 1, 2, 3"),
        ("unet", {"modulation": "fim"}, "'film'"),
        ("unet", {"resample": "nearest"}, "'average'"),
        ("unet", {"skip": "cat"}, "'concat'"),
        ("unet", {"kernel": (1, 2, 1)}, "an even number of weights"),
        ("unet", {"kernel": (1, 3, 2, 1)}, "symmetric"),
        ("unet", {"kernel": (1, -1, -1, 1)}, "an even number of weights"),
        ("unet", {"conditions": {"label": "class"}}, r"a mapping such as \{'label'"),
        ("unet", {"conditions": {"x": {"kind": "class", "classes": 3}}}, "cannot be named 'x'"),
        ("unet", {"conditions": {"keys": {"kind": "class", "classes": 3}}}, "cannot be named 'keys'"),
        ("unet", {"conditions": {"label": {"kind": "class", "classes": 0}}}, "classes=0"),
        ("unet", {"conditions": {"label": {"kind": "class", "clases": 3}}}, "did you mean 'classes'"),
        ("unet", {"conditions": {"c": {"kind": "concat", "channels": 1, "resize": "area"}}}, "'nearest'"),
        ("unet", {"cross_attention": True}, "no condition yields tokens"),
        ("unet", {"conditions": {"t": {"kind": "tokens", "size": 4}}}, "cross_attention is off"),
        ("magnitude", {"residual_balance": 1.0}, "between 0 and 1"),
        ("transformer", {"channels": 40, "head_dim": 16}, "a divisor of channels=40"),
        ("transformer", {"channels": 36, "head_dim": 6}, "a multiple of 4"),
        ("mlp", {"dims": 2}, "one of 0"),
    ],
)
def test_what_is_wrong_is_said(name, options, message):
    """A config that cannot be is refused, with what would be right."""
    with pytest.raises(ParameterError, match=message):
        kd.get_model(name, **options)


def test_an_unknown_condition_is_named():
    """A condition of no plugin is an error with the nearest name."""
    with pytest.raises(UnknownNameError, match="vector"):
        kd.get_model("unet", conditions={"size": {"kind": "vectr", "size": 2}})


# -- resampling


@pytest.mark.parametrize("kind", config.RESAMPLING)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_resampling_halves_and_doubles(kind, dims):
    """Sizes are halved and doubled, and channels kept."""
    x = torch.randn(2, 3, *(6, 4, 2)[:dims])
    low = resample.down(kind, dims, 3, (1, 3, 3, 1))(x)
    assert low.shape == (2, 3, *(3, 2, 1)[:dims])
    assert resample.up(kind, dims, 3, (1, 3, 3, 1))(low).shape == x.shape


@pytest.mark.parametrize(
    "kernel", [(1, 1), (1, 3, 3, 1), (-3, 19, 19, -3), (1, 5, 9, 9, 5, 1), (1, 2, 3, 4, 4, 3, 2, 1)]
)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_filters_keep_a_constant(kernel, dims):
    """A constant stays what it is at every place, also at the edges."""
    x = torch.full((1, 2, *(6, 8, 4)[:dims]), 0.7, dtype=torch.float64)
    for up in (False, True):
        out = resample.Filter(dims, kernel, up)(x)
        torch.testing.assert_close(out, torch.full_like(out, 0.7))


def test_the_shortest_filter_is_the_mean_and_the_nearest():
    """The kernel (1, 1) is averaging and nearest neighbour."""
    x = torch.randn(2, 3, 6, 8)
    torch.testing.assert_close(resample.Filter(2, (1, 1), False)(x), resample.Average()(x))
    torch.testing.assert_close(resample.Filter(2, (1, 1), True)(x), resample.Nearest()(x))


def test_a_filter_of_four_is_linear_interpolation():
    """The kernel (1, 3, 3, 1) doubles sizes as linear interpolation does."""
    x = torch.randn(2, 3, 6, 8)
    wanted = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resample.Filter(2, (1, 3, 3, 1), True)(x), wanted)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_patches_come_back(dims, size, channels):
    """`from_patches` undoes `to_patches`, which in two dimensions is pixel_unshuffle."""
    x = torch.randn(2, channels, *(size * n for n in (2, 3, 1)[:dims]))
    patches = resample.to_patches(x, size)
    assert patches.shape[1] == channels * size**dims
    assert torch.equal(resample.from_patches(patches, size), x)
    if dims == 2:
        assert torch.equal(patches, functional.pixel_unshuffle(x, size))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 5))
def test_padding_is_to_a_multiple(sizes, multiple):
    """Padded sizes are the next multiples, and the input lies where it is said to."""
    x = torch.randn(1, 1, *sizes)
    padded, inside = resample.pad_to(x, multiple)
    assert [n % multiple for n in padded.shape[2:]] == [0] * len(sizes)
    assert max(p - n for p, n in zip(padded.shape[2:], sizes, strict=True)) < multiple
    assert torch.equal(padded[inside], x)


# -- time


def test_frequencies_have_the_scale_asked_for():
    """Fourier frequencies are distinct and have the half-normal distribution of the scale."""
    small = torch.tensor([1e-4])
    found = embedding.fourier(small, 2000, 3.0)[0, 1000:] / (2e-4 * torch.pi)
    assert abs(found.square().mean().sqrt() - 3.0) < 0.03
    assert (found.diff() > 0).all()


@pytest.mark.parametrize("kind", config.TIMES)
def test_time_is_seen_exactly(kind):
    """Features of a time are in float32 whatever the weights are in, and float64 stays."""
    time = torch.tensor([501.0, 501.5])
    assert embedding.time_features(time, kind, 1.0).dtype == torch.float32
    assert embedding.time_features(time.double(), kind, 1.0).dtype == torch.float64
    half = kd.get_model("unet-tiny", time=kind).bfloat16()
    low = half.time(time)
    assert not torch.equal(low[0], low[1])


def test_logvar():
    """There is a log-variance head where it is asked for, 0 at first, and else no such attribute."""
    with_head = kd.get_model("mlp", logvar=True)
    assert torch.equal(with_head.logvar(torch.randn(5)), torch.zeros(5))
    assert not hasattr(kd.get_model("mlp"), "logvar")


# -- conditions


def test_a_class_of_no_class_is_refused():
    """Numbers beyond the classes, other shapes and floats are refused; -1 is none."""
    made = ClassCondition(8, classes=3)
    x = torch.zeros(2, 1, 4, 4)
    for value in (torch.tensor([0, 3]), torch.tensor([-2, 0]), torch.tensor([0.0, 1.0]), torch.tensor([0])):
        with pytest.raises(ParameterError, match=r"classes are 0 to 2|one integer a sample"):
            made(value, x)
    assert torch.equal(made(torch.tensor([-1, -1]), x)["embedding"], made(None, x)["embedding"])


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        ({"labels": torch.tensor([0, 1])}, "did you mean 'label'"),
        ({"vector": torch.zeros(2, 4)}, r"must have the shape \(2, 3\)"),
        ({"mask": torch.zeros(2, 1, 4, 4)}, r"must have the shape \(2, 1, 8, 8\)"),
        ({"tokens": torch.zeros(2, 4)}, r"tokens are \(B, T, 5\)"),
        (
            {"tokens": torch.zeros(2, 4, 5), "token_mask": torch.zeros(2, 3)},
            r"token_mask must have the shape",
        ),
    ],
)
def test_conditions_of_other_shapes_are_refused(cond, message):
    """What does not fit is refused with what would."""
    made = kd.get_model(
        "unet-tiny",
        cross_attention=True,
        conditions={
            "label": {"kind": "class", "classes": 2},
            "vector": {"kind": "vector", "size": 3},
            "mask": {"kind": "concat", "channels": 1},
            "tokens": {"kind": "tokens", "size": 5},
        },
    )
    with pytest.raises(ParameterError, match=message):
        made(torch.zeros(2, 1, 8, 8), torch.zeros(2), **cond)


def test_states_and_times_of_other_shapes_are_refused():
    """The message has what the state and the time must be."""
    made = kd.get_model("unet-tiny")
    with pytest.raises(ParameterError, match=r"the state must be \(B, 1, n1, n2\)"):
        made(torch.zeros(2, 3, 8, 8), torch.zeros(2))
    with pytest.raises(ParameterError, match="one number a sample"):
        made(torch.zeros(2, 1, 8, 8), torch.zeros(()))


def test_a_small_image_conditions_a_large_one():
    """With ``resize`` an image of another size is put beside the state, as for super-resolution."""
    options = {"kind": "concat", "channels": 1, "resize": "linear"}
    made = Conditions({"low": options}, 8)
    x, low = torch.zeros(2, 1, 8, 8), torch.randn(2, 1, 4, 4)
    found = made(x, {"low": low}).channels[0]
    assert torch.equal(found, functional.interpolate(low, size=(8, 8), mode="bilinear"))


class Half(nn.Module):
    """A condition of a plugin: which half of the image is bright, as a vector and as channels."""

    yields = ("embedding", "channels")
    channels = 1
    also = ("strength",)

    def __init__(self, width, *, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.full((width,), gain))

    def forward(self, value, x, strength=None):
        on = torch.zeros(x.shape[0]) if value is None else value.float()
        on = on if strength is None else on * strength
        return {
            "embedding": on[:, None] * self.gain,
            "channels": on[:, None, None, None].expand(-1, 1, *x.shape[2:]),
        }


def test_a_condition_of_a_plugin(monkeypatch):
    """A module that a plugin registers is found by name, told its keywords, and reaches the output."""

    class Plugin:
        @kd.hookimpl
        def kdiff_conditions(self):
            return [kd.Entry("half", Half)]

    registry = kd.Registry()
    registry.register(Plugin(), "halves")
    monkeypatch.setattr(
        "kdiff_unet.conditions.get_condition", lambda name, **o: registry.get("condition", name, **o)
    )
    made = kd.get_model("unet-tiny", conditions={"side": {"kind": "half", "gain": 0.5}})
    assert isinstance(made.conditions.by_name["side"], Condition)
    nn.init.normal_(made.leave.weight)
    x, time = torch.randn(2, 1, 8, 8), torch.zeros(2)
    with torch.no_grad():
        outs = [made(x, time), made(x, time, side=torch.tensor([1, 0]))]
        outs.append(made(x, time, side=torch.tensor([1, 1]), strength=torch.tensor([1.0, 0.0])))
    assert not torch.allclose(outs[0][0], outs[1][0])
    torch.testing.assert_close(outs[0][1], outs[1][1])
    torch.testing.assert_close(outs[1], outs[2])


# -- the magnitude-preserving network


def trained_once(**options):
    """A magnitude-preserving network with open gains."""
    made = kd.get_model(
        "magnitude",
        in_channels=4,
        channels=(64, 64),
        depths=(2, 2),
        self_attention=True,
        head_dim=16,
        **options,
    )
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(1.0)
    return made


def test_magnitudes_are_kept():
    """From input to output no layer changes the magnitude of noise of magnitude 1 much."""
    torch.manual_seed(0)
    made, seen = trained_once(), {}

    def note(name):
        return lambda module, args, out: seen.update({name: float(out.square().mean().sqrt())})

    for name, module in made.named_modules():
        if isinstance(module, magnitude.MagnitudeLayer):
            module.register_forward_hook(note(name))
    with torch.no_grad():
        made(torch.randn(8, 4, 16, 16), torch.randn(8))
    assert len(seen) == 4 + 2 + 6
    assert all(0.7 < value < 1.5 for value in seen.values()), seen


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_sums_and_concatenations_keep_magnitudes(share):
    """Sums and concatenations of independent noise have its magnitude, and the share that is asked for."""
    torch.manual_seed(0)
    a, b = torch.randn(4, 100, 50), torch.randn(4, 300, 50)
    for out in (magnitude.mixed(a, b[:, :100], share), magnitude.beside(a, b, share), magnitude.silu(b)):
        assert abs(float(out.square().mean().sqrt()) - 1) < 0.02
    parts = magnitude.beside(a, b, share)[:, :100].norm(), magnitude.beside(a, b, share)[:, 100:].norm()
    assert abs(float(parts[1] / parts[0]) - share / (1 - share)) < 0.02 * share / (1 - share)


def test_training_sets_weights_back():
    """In training weights get back to magnitude 1 first, in eval they stay, and the output is the same."""
    made = trained_once()
    scaled = 3 * made.enter.weight.data
    made.enter.weight.data = scaled.clone()
    x, time = torch.randn(2, 4, 8, 8), torch.zeros(2)
    before = made.eval()(x, time)
    assert torch.equal(made.enter.weight, scaled)
    made.train()
    torch.testing.assert_close(made(x, time), before, rtol=1e-3, atol=1e-3)
    lengths = made.enter.weight.flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(lengths, torch.ones(64), rtol=0, atol=1e-3)


def test_two_passes_before_one_backward():
    """Two forward passes in training can share one backward pass."""
    made = trained_once().train()
    x, time = torch.randn(2, 4, 8, 8), torch.zeros(2)
    (made(x, time) - made(-x, time)).square().sum().backward()
    assert made.enter.weight.grad.abs().max() > 0


# -- attention


def test_attention_is_softmax_attention():
    """`attend` is the softmax of scaled products, over the keys that count."""
    q, k, v = (torch.randn(2, 3, n, 4, dtype=torch.float64) for n in (5, 7, 7))
    mask = torch.rand(2, 7) < 0.6
    mask[:, 0] = True
    scores = (q @ k.transpose(2, 3) / 2).masked_fill(~mask[:, None, None], -torch.inf)
    wanted = (scores.softmax(3) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.attend(q, k, v, mask), wanted)


def test_rotary_positions_are_relative():
    """Products of turned queries and keys depend on the distance of their places alone."""
    from kdiff_unet.transformer import rotation

    turns = rotation(torch.Size([9]), 8, torch.device("cpu"))
    q, k = (torch.randn(8).expand(9, 8) for _ in range(2))
    products = attention.rotate(q, turns) @ attention.rotate(k, turns).T
    for shift in range(-4, 5):
        line = products.diagonal(shift)
        torch.testing.assert_close(line, line[:1].expand_as(line), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("modulation", config.MODULATIONS)
def test_blocks_are_the_identity_at_first(modulation):
    """A new block that keeps its channels returns its input, whatever it is told; attention too."""
    made = config.UNetConfig(
        channels=(8,), depths=(1,), head_dim=4, modulation=modulation, feed_forward=True,
        cross_attention=True, conditions={"t": {"kind": "tokens", "size": 3}},
    )  # fmt: skip
    x, known = torch.randn(2, 8, 4, 4), torch.randn(2, made.width)
    tokens, mask = torch.randn(2, 3, made.width), torch.ones(2, 3, dtype=torch.bool)
    layer = blocks.Layer(made, 8, 8, 0, itself=True, tokens=True)
    assert torch.equal(layer(x, None, known, tokens, mask), x)


# -- using them


def test_a_learned_variance():
    """With twice the channels the second half is the variance of a denoiser."""
    made = kd.get_model("unet-tiny", out_channels=2)
    denoiser = Parameterised(made, "eps", process="sd", learned_variance=True)
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([1.0, 2.0])
    assert torch.equal(denoiser(x, sigma), x)
    assert denoiser.variance(x, sigma).shape == x.shape


def test_compiling_in_place_keeps_names():
    """After ``network.compile()``, which takes it as one graph, weights have the names that they had."""
    made = kd.get_model("unet-tiny")
    before = list(made.state_dict())
    made.compile(backend="eager", fullgraph=True)
    assert torch.equal(made(torch.zeros(1, 1, 8, 8), torch.zeros(1)), torch.zeros(1, 1, 8, 8))
    assert list(made.state_dict()) == before


@pytest.mark.parametrize("name", ["unet-digits", "magnitude"])
def test_channels_last(name):
    """With channels last outputs are the same to rounding."""
    options = (
        {}
        if name == "unet-digits"
        else {"in_channels": 1, "channels": (16, 16), "depths": (1, 1), "head_dim": 8}
    )
    made = kd.get_model(name, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        x, time = torch.randn(3, 1, 8, 8), torch.zeros(3)
        wanted = made.eval()(x, time)
        found = made.to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last), time
        )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_param_groups():
    """Matrices and kernels are decayed, and nothing else."""
    made = kd.get_model("unet-tiny", conditions={"label": {"kind": "class", "classes": 3}})
    decayed, rest = made.param_groups(0.3)
    names = {id(p): n for n, p in made.named_parameters()}
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    assert all(names[id(p)].endswith(".weight") for p in decayed["params"])
    assert {names[id(p)] for p in rest["params"]} >= {
        "enter.bias",
        "leave_norm.weight",
        "conditions.by_name.label.table.weight",
    }
    assert len(kd.get_model("mlp").param_groups(0.0)) == 2


@pytest.mark.parametrize("entry", presets.PRESETS, ids=lambda entry: entry.name)
def test_presets(entry):
    """A preset builds; that for MNIST stays under 4 MiB, with classes and augmentation."""
    with torch.device("meta"):
        made = kd.get_model(entry.name)
    count = sum(parameter.numel() for parameter in made.parameters())
    assert isinstance(made, network.Network)
    if entry.name == "unet-mnist":
        conditions = {"label": {"kind": "class", "classes": 10}, "augment": {"kind": "vector", "size": 9}}
        made = kd.get_model(entry.name, conditions=conditions, logvar=True)
        count = sum(parameter.numel() for parameter in made.parameters())
        assert 0.9e6 < count < 1.03e6
    if entry.name == "unet-adm":
        assert 2.5e8 < count < 3.5e8
    if entry.name == "unet-sd":
        assert 7e8 < count < 1e9
