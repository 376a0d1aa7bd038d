"""The laws of networks, on every architecture in many makes; and bugs that they must find."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

import kdiff_core as kd
from kdiff_core.testing import LawBroken
from kdiff_core.testing.laws.networks import LAWS, kept_bytes
from kdiff_core.testing.models import check_model, trial_of

pytest.importorskip("safetensors")

EVERYTHING = {
    "label": {"kind": "class", "classes": 4},
    "augment": {"kind": "vector", "size": 5},
    "scale": {"kind": "number"},
    "tokens": {"kind": "tokens", "size": 6},
    "concat": {"kind": "concat", "channels": 3},
    "previous": {"kind": "concat", "channels": 1},
}
SMALL = {"in_channels": 1, "channels": (8, 16), "depths": (1, 1), "head_dim": 8, "embedding": 24}
TOKENS = {"cross_attention": (False, True), "conditions": EVERYTHING}
MAKES = {
    "unet": ("unet", {**SMALL, **TOKENS}),
    "unet-film": ("unet", {**SMALL, **TOKENS, "modulation": "film", "skip": "lerp", "resample": "filter"}),
    "unet-add": ("unet", {**SMALL, "modulation": "add", "skip": "add", "resample": "shuffle"}),
    "unet-logvar": ("unet", {**SMALL, "logvar": True}),
    "unet-ada": ("unet", {**SMALL, "modulation": "ada_zero", "resample": "conv", "self_attention": True}),
    "unet-sd": ("unet", {**SMALL, **TOKENS, "feed_forward": True, "qk_norm": True, "time": "positional"}),
    "unet-dropout": ("unet", {**SMALL, **TOKENS, "dropout": 0.3, "self_attention": True}),
    "unet-patches": ("unet", {**SMALL, "patch_size": 2, "out_channels": 2}),
    "unet-1d": ("unet", {**SMALL, **TOKENS, "dims": 1, "resample": "filter"}),
    "unet-3d": ("unet", {**SMALL, "dims": 3, "resample": "shuffle"}),
    "magnitude": ("magnitude", {**SMALL, **TOKENS, "self_attention": True}),
    "magnitude-1d": ("magnitude", {**SMALL, "dims": 1, "dropout": 0.3, "patch_size": 2}),
    "transformer": (
        "transformer",
        {"in_channels": 1, "channels": 24, "depth": 2, "head_dim": 8, "cross_attention": True,
         "conditions": EVERYTHING},
    ),
    "transformer-sincos": (
        "transformer",
        {"in_channels": 1, "channels": 24, "depth": 2, "head_dim": 12, "positions": "sincos", "dropout": 0.3},
    ),
    "transformer-3d": (
        "transformer",
        {"in_channels": 1, "channels": 24, "depth": 2, "head_dim": 12, "dims": 3, "logvar": True},
    ),
    "mlp": ("mlp", {"in_channels": 3, "channels": 16, "conditions": {"label": EVERYTHING["label"]}}),
}  # fmt: skip
SIZES = {0: (), 1: (12,), 2: (12, 8), 3: (8, 4, 6)}


def dims_of(make):
    name, options = MAKES[make]
    return 0 if name == "mlp" else options.get("dims", 2)


def values(conditions, sizes):
    """A value of each condition, none of them null."""
    generator = torch.Generator().manual_seed(0)
    made = {
        "label": torch.tensor([0, 3, 2]),
        "augment": torch.randn(3, 5, generator=generator),
        "scale": torch.tensor([0.3, -1.0, 2.0]),
        "tokens": torch.randn(3, 4, 6, generator=generator),
        "concat": torch.randn(3, 3, *sizes, generator=generator),
        "previous": torch.randn(3, 1, *sizes, generator=generator),
    }
    found = {name: made[name] for name in conditions}
    if "tokens" in found:
        lengths = torch.tensor([4, 2, 3])
        found["token_mask"] = torch.arange(4) < lengths[:, None]
    return found


def trial(make, **more):
    name, options = MAKES[make]
    sizes = SIZES[dims_of(make)]
    x = torch.randn(3, options["in_channels"], *sizes, generator=torch.Generator().manual_seed(5))
    cond = values(options.get("conditions", {}), sizes)
    null = {"scale": torch.full((3,), torch.nan)} if "scale" in cond else {}
    return trial_of(name, x, cond, null, **{**options, **more})


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("make", MAKES)
def test_law(make, law):
    """The law holds of this make."""
    LAWS[law](trial(make))


def test_the_kit_in_one_call():
    """`check_model` tries all laws and returns those that hold, by name or with a function."""
    x, cond = torch.randn(2, 1, 8, 8), {"label": torch.tensor([1, 0])}
    options = {**SMALL, "conditions": {"label": EVERYTHING["label"]}}
    assert check_model("unet", x, cond, **options) == list(LAWS)
    with pytest.raises(LawBroken, match="breaks 1 of the laws"):
        check_model(
            lambda: Leaking(kd.get_model("unet", **options)), x, cond, skip=("a_model_file_brings_it_back",)
        )


class Wrapped(torch.nn.Module):
    """A network with one thing changed."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    @property
    def config(self):
        return self.network.config

    def param_groups(self, weight_decay):
        return self.network.param_groups(weight_decay)

    def set_checkpointing(self, on):
        self.network.set_checkpointing(on)

    def forward(self, x, time, **cond):
        return self.network(x, time, **cond)


class Leaking(Wrapped):
    """Normalises over the batch."""

    def forward(self, x, time, **cond):
        return self.network(x - x.mean(0) * (x.shape[0] > 1), time, **cond)


class DropsInEval(Wrapped):
    """Drops out in eval mode, as k-diffusion's attention does."""

    def forward(self, x, time, **cond):
        return functional.dropout(self.network(x, time, **cond), 0.05, training=True)


class LastForNone(Wrapped):
    """Takes -1 for the last class, as an index of a list."""

    def forward(self, x, time, label=None, **cond):
        return self.network(x, time, label=None if label is None else label % 4, **cond)


class SeesPadding(Wrapped):
    """Forgets the mask."""

    def forward(self, x, time, token_mask=None, **cond):
        return self.network(x, time, **cond)


class SilentlyUnconditional(Wrapped):
    """Takes any condition and reads none."""

    def forward(self, x, time, **cond):
        return self.network(x, time)


class WholeCalls(Wrapped):
    """Keeps everything although it says that it checkpoints."""

    def set_checkpointing(self, on):
        pass


class Reentrant(Wrapped):
    """Checkpoints in the reentrant way."""

    def forward(self, x, time, **cond):
        if not self.network.checkpointing:
            return super().forward(x, time, **cond)
        self.network.set_checkpointing(False)
        try:
            return checkpoint(lambda x: self.network(x, time, **cond), x + 0 * self.dummy, use_reentrant=True)
        finally:
            self.network.set_checkpointing(True)

    @property
    def dummy(self):
        return next(self.network.parameters()).flatten()[0]


class ForgetsTheRandomState(Wrapped):
    """Checkpoints without the random state, so that dropout is another in the backward pass."""

    def forward(self, x, time, **cond):
        if not self.network.checkpointing:
            return super().forward(x, time, **cond)
        call = functools.partial(Wrapped.forward, self, **cond)
        return checkpoint(call, x, time, use_reentrant=False, preserve_rng_state=False)


class Offset(Wrapped):
    """Is not 0 at first."""

    def forward(self, x, time, **cond):
        return self.network(x, time, **cond) + 1e-6


class Cropping(Wrapped):
    """Returns sizes that its levels divide."""

    def forward(self, x, time, **cond):
        out = self.network(x, time, **cond)
        return out[..., : out.shape[-1] // 2 * 2]


class Dead(Wrapped):
    """Has a parameter that does nothing."""

    def __init__(self, network):
        super().__init__(network)
        self.unused = torch.nn.Parameter(torch.zeros(3))

    def param_groups(self, weight_decay):
        return [*self.network.param_groups(weight_decay), {"params": [self.unused], "weight_decay": 0.0}]


class DecaysAll(Wrapped):
    """Decays biases too."""

    def param_groups(self, weight_decay):
        return [{"params": list(self.parameters()), "weight_decay": weight_decay}]


class Timeless(Wrapped):
    """Is not told the time."""

    def forward(self, x, time, **cond):
        return self.network(x, torch.zeros_like(time), **cond)


BUGS = {
    Leaking: "samples_do_not_see_each_other",
    DropsInEval: "eval_is_deterministic",
    LastForNone: "null_is_absent",
    SeesPadding: "masked_tokens_do_not_matter",
    SilentlyUnconditional: "conditions_matter",
    WholeCalls: "checkpointing_changes_memory_only",
    Reentrant: "checkpointing_changes_memory_only",
    ForgetsTheRandomState: "checkpointing_changes_memory_only",
    Offset: "an_untrained_network_returns_zero",
    Cropping: "odd_sizes_work",
    Dead: "training_reaches_every_parameter",
    DecaysAll: "groups_hold_each_parameter_once",
    Timeless: "time_and_state_matter",
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_law_finds_a_bug(bug):
    """A network with this bug breaks the law, and without the bug it keeps it."""
    sound = trial("unet-dropout")
    LAWS[BUGS[bug]](sound)
    with pytest.raises(LawBroken):
        LAWS[BUGS[bug]](sound._replace(build=lambda: bug(sound.build())))


class Alive(TorchDispatchMode):
    """While it is entered: the most bytes alive at once of what operations made."""

    def __init__(self):
        super().__init__()
        self.peak = 0
        self.made = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                ref = StorageWeakRef(leaf.untyped_storage())
                self.made.setdefault(ref.cdata, (ref, leaf.untyped_storage().nbytes()))
        self.made = {key: pair for key, pair in self.made.items() if not pair[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.made.values()))
        return result


@pytest.mark.parametrize("name", ["unet", "magnitude", "transformer"])
def test_checkpointing_lowers_the_peak(name):
    """The most memory that a training step uses at once, gradients included, falls to less than a half."""
    options = (
        {"channels": 48, "depth": 6, "head_dim": 24}
        if name == "transformer"
        else {"channels": (16, 32), "depths": (3, 3), "middle_attention": False}
    )
    made, peaks = trial_of(name, torch.randn(2, 3, 32, 32), **options), []
    network = made.network().train()
    for on in (False, True):
        network.set_checkpointing(on)
        network.zero_grad(set_to_none=True)
        with Alive() as alive:
            network(made.x, made.time).square().sum().backward()
        peaks.append(alive.peak)
    plain, little = kept_bytes(made)
    assert peaks[1] < peaks[0] / 2
    assert little < plain / 5
