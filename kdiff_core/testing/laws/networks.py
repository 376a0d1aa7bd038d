"""Laws of networks: what samplers, training and model files rely on, of any architecture."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from ...errors import KdiffError
from ...lookup import get_model
from ..catalogue import LawBroken, require
from ..trial import Trial

Law = Callable[[Trial], None]
LAWS: dict[str, Law] = {}


def _law(function: Law) -> Law:
    LAWS[function.__name__] = function
    return function


def _differ(a: Tensor, b: Tensor) -> float:
    """Largest difference, in units of the largest value."""
    return float((a - b).abs().max()) / max(float(a.abs().max()), float(b.abs().max()), 1e-12)


def _crop(value: Tensor, sizes: list[int]) -> Tensor:
    """Return the first values of each dimension after the second."""
    for d, n in enumerate(sizes):
        value = value.narrow(d + 2, 0, n)
    return value.contiguous()


def _close(a: Tensor, b: Tensor, message: str, bound: float = 1e-4) -> None:
    found = _differ(a, b)
    require(found <= bound, message, difference=found, bound=bound)


@_law
def an_untrained_network_returns_zero(trial: Trial) -> None:
    """A new network returns exactly 0, like `x` in size: preconditioning alone is the first denoiser."""
    found = trial.output(trial.untrained().eval())
    require(
        found.shape[2:] == trial.x.shape[2:], f"a state {tuple(trial.x.shape)} gives {tuple(found.shape)}"
    )
    require(
        float(found.abs().max()) == 0, "an untrained network returns more than 0", largest=float(found.max())
    )


@_law
def eval_is_deterministic(trial: Trial) -> None:
    """In eval mode equal calls have equal outputs: nothing is dropped out, whatever the random state."""
    network = trial.network()
    first, second = trial.output(network), trial.output(network)
    require(
        bool(torch.equal(first, second)), "two calls in eval mode differ", difference=_differ(first, second)
    )
    require(not network.training, "a call in eval mode leaves it in training mode")


@_law
def samples_do_not_see_each_other(trial: Trial) -> None:
    """A sample's output does not depend on what else is in the batch."""
    network = trial.network()
    whole = trial.output(network)
    for i in range(trial.x.shape[0]):
        cond = {name: value[i : i + 1] for name, value in trial.cond.items()}
        with torch.no_grad():
            alone = network(trial.x[i : i + 1], trial.time[i : i + 1], **cond)
        _close(alone, whole[i : i + 1], f"sample {i} alone is another than in its batch")


@_law
def time_and_state_matter(trial: Trial) -> None:
    """The output depends on the time and on the state."""
    network = trial.network()
    base = trial.output(network)
    for what, other in (
        ("time", trial._replace(time=trial.time + 0.5)),
        ("state", trial._replace(x=-trial.x)),
    ):
        require(_differ(base, other.output(network)) > 1e-4, f"the {what} changes nothing")


@_law
def conditions_matter(trial: Trial) -> None:
    """The output depends on each condition."""
    network = trial.network()
    base = trial.output(network)
    for name in trial.cond:
        others = {key: value for key, value in trial.cond.items() if key != name}
        found = _differ(base, trial.output(network, others))
        require(found > 1e-4, f"the condition {name!r} changes nothing", difference=found)


@_law
def null_is_absent(trial: Trial) -> None:
    """A condition that is null, None or absent says nothing; one sample's null is that sample's alone."""
    network = trial.network()
    absent = trial.output(network, {})
    _close(trial.output(network, trial.null), absent, "null conditions say something", 1e-5)
    nones: Any = dict.fromkeys(trial.cond)
    _close(trial.output(network, nones), absent, "conditions that are None say something", 1e-5)
    mixed = {name: value.clone() for name, value in trial.cond.items()}
    for name, value in trial.null.items():
        mixed.setdefault(name, value.clone())[0] = value[0]
    with_one = {name: value for name, value in mixed.items() if name in trial.cond or name in trial.null}
    found, kept = trial.output(network, with_one), trial.output(network)
    _close(found[:1], absent[:1], "a sample whose conditions are null is told something")
    _close(found[1:], kept[1:], "the null conditions of one sample change another")


@_law
def masked_tokens_do_not_matter(trial: Trial) -> None:
    """What a token is that the mask leaves out, were it NaN, and how many there are, has no influence."""
    if "tokens" not in trial.cond:
        return
    tokens = trial.cond["tokens"]
    mask = trial.cond.get("token_mask", torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))
    network = trial.network()
    base = trial.output(network, {**trial.cond, "token_mask": mask})
    padding = torch.full_like(tokens, torch.nan)
    more = {
        "tokens": torch.cat([torch.where(mask[:, :, None], tokens, padding), padding], dim=1),
        "token_mask": torch.cat([mask, torch.zeros_like(mask)], dim=1),
    }
    _close(trial.output(network, {**trial.cond, **more}), base, "tokens that are masked out are seen", 1e-5)


@_law
def odd_sizes_work(trial: Trial) -> None:
    """States of any size give outputs of that size, also of sizes that no level divides."""
    network = trial.network()
    for less in (1, 2, 3):
        sizes = [max(1, n - less * (2 * d + 1)) for d, n in enumerate(trial.x.shape[2:])]
        x = _crop(trial.x, sizes)
        spatial = {k for k, v in trial.cond.items() if v.ndim > 2 and v.shape[2:] == trial.x.shape[2:]}
        cond = {k: _crop(v, sizes) if k in spatial else v for k, v in trial.cond.items()}
        found = trial._replace(x=x, cond=cond).output(network)
        require(found.shape[2:] == x.shape[2:], f"a state {tuple(x.shape)} gives {tuple(found.shape)}")
        require(bool(found.isfinite().all()), f"the output of a state {tuple(x.shape)} is not finite")


@_law
def training_reaches_every_parameter(trial: Trial) -> None:
    """Within a few steps from an output of 0 on every row of a weight, tables apart, has a gradient."""
    network = trial.untrained().train()
    optimizer = torch.optim.Adam(network.param_groups(0.0), lr=1e-3)
    generator = torch.Generator().manual_seed(2)
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    reached: dict[str, Tensor] = {}
    for step in range(6):
        out = network(trial.x, trial.time, **(trial.cond if step % 2 else trial.null))
        loss = (out - torch.randn(out.shape, generator=generator).to(out)).square().mean()
        if hasattr(network, "logvar"):
            logvar = network.logvar(trial.time)
            require(logvar.shape == trial.time.shape, f"logvar has the shape {tuple(logvar.shape)}")
            loss = loss + (logvar.exp() * loss.detach() - logvar).mean()
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in network.named_parameters():
            given = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.abs()
            rows = (
                given.reshape(1, -1)
                if id(parameter) in tables
                else given.reshape(len(given) if given.ndim else 1, -1)
            )
            # What is a millionth of the largest is rounding.
            found = rows.amax(1) > max(1e-12, 1e-6 * float(given.max()))
            reached[name] = found | reached.get(name, found)
        optimizer.step()
    dead = [
        f"{name} ({int((~rows).sum())} of {len(rows)} rows)"
        for name, rows in reached.items()
        if not rows.all()
    ]
    require(not dead, f"no gradient reaches {', '.join(dead[:4])}", number=len(dead))


def _gradients(trial: Trial, network: Any) -> tuple[dict[str, Tensor], int]:
    """Return the gradients of a training step, and the bytes that it kept for the backward pass."""
    kept: dict[tuple[int, int], int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr(), storage.nbytes()] = storage.nbytes()
        return value

    network.train().zero_grad(set_to_none=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            out = network(trial.x, trial.time, **trial.cond)
        out.square().sum().backward()
    found = {name: p.grad.detach().clone() for name, p in network.named_parameters() if p.grad is not None}
    return found, sum(kept.values())


def kept_bytes(trial: Trial) -> tuple[int, int]:
    """Return the bytes that a training step keeps for its backward pass, without and with checkpointing.

    Weights are not counted, each memory once.
    """
    network = trial.network()
    network.set_checkpointing(False)
    plain = _gradients(trial, network)[1]
    network.set_checkpointing(True)
    return plain, _gradients(trial, network)[1]


@_law
def checkpointing_changes_memory_only(trial: Trial) -> None:
    """With checkpointing a step keeps less, and all gradients are the same, dropout included."""
    network = trial.network()
    network.set_checkpointing(False)
    plain, much = _gradients(trial, network)
    network.set_checkpointing(True)
    again, little = _gradients(trial, network)
    require(plain.keys() == again.keys(), "with checkpointing other parameters have a gradient")
    for name, gradient in plain.items():
        _close(again[name], gradient, f"with checkpointing the gradient of {name} is another", 1e-3)
    require(little < much, "checkpointing keeps as much as no checkpointing", plain=much, checkpointed=little)
    slopes = []
    for on in (False, True):
        network.set_checkpointing(on)
        slopes.append(_slope(trial, network.eval()))
    _close(slopes[1], slopes[0], "with checkpointing the gradient of the state is another", 1e-3)


def _slope(trial: Trial, network: Any) -> Tensor:
    """Return the gradient with respect to the state, as guidance asks for it."""
    x = trial.x.clone().requires_grad_()
    with torch.enable_grad():
        total = network(x, trial.time, **trial.cond).square().sum()
        try:
            return torch.autograd.grad(total, x)[0]
        except RuntimeError as error:
            raise LawBroken(f"there is no gradient of the state: {error}") from error


@_law
def half_precision_runs(trial: Trial) -> None:
    """It runs under autocast and with weights in bfloat16, to about the digits that bfloat16 has."""
    network = trial.network()
    exact = trial.output(network)
    with torch.autocast(trial.x.device.type, dtype=torch.bfloat16):
        mixed = trial.output(network).float()
    half = copy.deepcopy(network).bfloat16()
    cond = {n: v.bfloat16() if v.is_floating_point() else v for n, v in trial.cond.items()}
    low = trial._replace(x=trial.x.bfloat16(), cond=cond).output(half)
    require(low.dtype == torch.bfloat16, f"a network in bfloat16 returns {low.dtype}")
    scale = float(exact.square().mean().sqrt())
    for what, found in (("autocast", mixed), ("bfloat16", low.float())):
        off = float((found - exact).square().mean().sqrt()) / scale
        require(off < 0.2, f"in {what} the output is another", difference=off)


@_law
def a_model_file_brings_it_back(trial: Trial) -> None:
    """Written to a model file and read, it returns the same bits, and its config is the same."""
    from ...model_file import read_model, write_model

    network = trial.network()
    rebuilt = get_model(network.name, **attrs.asdict(network.config))
    require(rebuilt.config == network.config, "its config makes another network")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.safetensors")
        write_model(file, network, {"prediction": "edm"})
        found: Any = read_model(file, device=trial.x.device).network
    require(not found.training, "the network that is read is not in eval mode")
    require(found.config == network.config, "the config that is read is another")
    network.requires_grad_(
        False
    )  # as that which is read; torch takes other kernels for the one than the other
    same = torch.equal(trial.output(found), trial.output(network))
    require(bool(same), "the network that is read has other outputs")


@_law
def groups_hold_each_parameter_once(trial: Trial) -> None:
    """`param_groups` has every parameter once, and decays no bias, no gain and no table."""
    network = trial.untrained()
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = network.param_groups(0.1)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    require(
        sorted(found) == sorted(names), "param_groups has other parameters than the network, or one twice"
    )
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    for group in groups:
        for parameter in group["params"] if group["weight_decay"] else ():
            good = parameter.ndim > 1 and id(parameter) not in tables
            require(good, f"{names[id(parameter)]} is decayed")


@_law
def unknown_conditions_are_refused(trial: Trial) -> None:
    """A condition that the network has not is an error, not silence."""
    try:
        trial.output(trial.network(), {"no_such_condition": trial.time})
    except KdiffError:
        return
    raise LawBroken("a condition that it has not is taken without a word")
