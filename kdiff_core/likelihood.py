"""Log-likelihood: the density that a model gives to data, along the probability flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import CapabilityError, ParameterError, StateError
from .inversion import deterministic_plan, rising
from .lookup import get_sampler
from .noise import KeyedNoise
from .path import as_path
from .state import Leaves, check_output, check_state, flatten, rebuild

if TYPE_CHECKING:
    from .protocols import Denoiser, Process


def log_likelihood(
    denoiser: Denoiser,
    x: Any,
    sigmas: Any,
    *,
    sampler: Any = "heun",
    divergence: str = "hutchinson",
    probes: int = 1,
    seed: int | Sequence[int] = 0,
    cond: dict[str, Any] | None = None,
    prior: Callable[[Any], Tensor] | None = None,
    process: Process | None = None,
) -> Tensor:
    """Return the log-density that a model gives to data, in nats for each sample.

    The probability flow takes `x` to noise, whose density is known, and along it
    ``d log p / dsigma = -div (x - D) / sigma`` (Song et al. 2020, arXiv:2011.13456, Appendix D.2; Chen et al.
    2018, arXiv:1806.07366). The sampler integrates both, at its order. The divergence asks for derivatives of
    the model: exactly for each of the `d` numbers of a sample, or estimated without bias (Hutchinson's trace;
    Grathwohl et al. 2018, arXiv:1810.01367), with probes that stay the same along a run and depend on the
    seed and on the sample's number only.

    It is the density of states at the lowest level above 0, for which the data are taken: of the data, had
    they noise of that level, which for discrete data is what makes a density. In bits for each of `d`
    numbers: ``-value / (d * math.log(2))``; for 8-bit images scaled to [-1, 1] add ``math.log2(127.5)``.

    It can be differentiated by `x`, conditions and parameters, where they require it.

    Args:
        denoiser: The model; it can be differentiated by its input.
        x: Data, ``(B, ...)`` or a nest, as states at the lowest level.
        sigmas: Falling noise levels; they are gone up, a 0 at the end left out.
        sampler: A deterministic sampler with a plan, or its name.
        divergence: ``"hutchinson"``, or ``"exact"``: `d` backward passes for each evaluation.
        probes: Random directions of Hutchinson's estimate, at least 1; each costs a backward pass for each
            evaluation. The variance falls as one over their number.
        seed: Seed of the probes, or one for each sample.
        cond: Keyword arguments for the denoiser.
        prior: Log-density ``(B,)`` of states at the highest level. Default: normal, of mean 0 and standard
            deviation ``sigmas[0]``, as at a level far above the data, or at 1 on a flow path.
        process: The model's noise process; default its attribute ``process``, if it has one.

    Returns:
        The log-density in nats, ``(B,)``, float64.

    Raises:
        ParameterError: `divergence` or `probes` is something else.
        CapabilityError: The sampler draws noise, or needs more than the denoised state; or the model has no
            derivative.
        TraceError: The sampler has no plan.
        GridError: Levels that cannot be run.
        StateError: Data that are no state, or a prior that returned something else than ``(B,)``.
        NoiseError: Seeds that do not fit the batch.
    """
    if divergence not in ("hutchinson", "exact"):
        raise ParameterError(f"divergence={divergence!r}: give 'hutchinson' or 'exact'")
    if type(probes) is not int or probes < 1:
        raise ParameterError(f"probes={probes!r}: give a whole number of at least 1")
    sampler = get_sampler(sampler)
    path = as_path(getattr(denoiser, "path", "ve"))
    process = getattr(denoiser, "process", None) if process is None else process
    levels = rising(sigmas, path)
    for grid in (sigmas, levels):
        deterministic_plan(sampler, grid, path, process)
    leaves = check_state(x)
    directions = None
    if divergence == "hutchinson":
        source = KeyedNoise(seed)
        source.check(len(leaves[0]))
        directions = [_signs(source, x, visit) for visit in range(probes)]
    flow = _WithDensity(denoiser, path.name, process, directions)
    began = torch.zeros(len(leaves[0]), dtype=torch.float64, device=leaves[0].device)
    end = sampler(flow, {"x": x, "log_density": began}, levels, cond=cond, process=process)
    top = _normal(flatten(end["x"]), levels[-1]) if prior is None else prior(end["x"])
    if not isinstance(top, Tensor) or top.shape != began.shape:
        raise StateError(f"prior: returned {top!r:.60}; give a tensor of shape {tuple(began.shape)}")
    found: Tensor = top.double() - end["log_density"]
    return found


class _WithDensity:
    """The denoiser of states with their log-density: of it, what makes ``(l - D_l) / sigma`` its derivative.

    That derivative is ``-(d - tr dD/dx) / sigma``, so ``D_l = l + d - tr dD/dx``.
    """

    def __init__(self, denoiser: Any, path: str, process: Any, directions: list[Leaves] | None) -> None:
        self.denoiser, self.path, self.process, self.directions = denoiser, path, process, directions

    def __call__(self, state: Any, sigma: Tensor, **cond: Any) -> Any:
        x, density = state["x"], state["log_density"]
        recording = torch.is_grad_enabled()
        given = flatten(x)
        with torch.enable_grad():
            leaves = [
                leaf if recording and leaf.requires_grad else leaf.detach().requires_grad_() for leaf in given
            ]
            outputs = check_output(self.denoiser(rebuild(x, leaves), sigma, **cond), x, leaves)
            kept = recording and _needed(outputs, leaves, given)
            trace = self.trace(outputs, leaves, kept)
        dims = sum(leaf[0].numel() for leaf in leaves)
        if not kept:
            outputs = [output.detach() for output in outputs]
        return {"x": rebuild(x, outputs), "log_density": density + dims - trace}

    def trace(self, outputs: Leaves, leaves: Leaves, kept: bool) -> Tensor:
        """Trace of dD/dx for each sample, ``(B,)``, float64."""
        directions = _axes(leaves) if self.directions is None else self.directions
        total = torch.zeros(len(leaves[0]), dtype=torch.float64, device=leaves[0].device)
        for along in directions:
            changes = self.derivative(outputs, leaves, along, kept)
            for direction, change in zip(along, changes, strict=True):
                if change is not None:
                    total = total + _row_sums(direction * change)
        return total if self.directions is None else total / len(self.directions)

    def derivative(
        self, outputs: Leaves, leaves: Leaves, along: Leaves, kept: bool
    ) -> tuple[Tensor | None, ...]:
        """What the directions weigh the derivatives to."""
        pairs = [(o, a) for o, a in zip(outputs, along, strict=True) if o.requires_grad]
        if not pairs:
            raise CapabilityError(
                f"{type(self.denoiser).__name__} gives an output without a gradient: the divergence of its "
                "flow is its derivative; a model that works under torch.no_grad() has none, and a constant "
                "one says so by x * 0.0 + constant"
            )
        return torch.autograd.grad(
            [o for o, _ in pairs],
            leaves,
            [a for _, a in pairs],
            retain_graph=True,
            create_graph=kept,
            allow_unused=True,
        )


def _needed(outputs: Leaves, leaves: Leaves, given: Leaves) -> bool:
    """Whether outputs depend on something that requires a gradient, other than states made to."""
    made = [leaf for leaf, old in zip(leaves, given, strict=True) if leaf is not old]
    todo, seen = [o.grad_fn for o in outputs if o.grad_fn is not None], set()
    if len(made) < len(leaves):
        return True
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and not any(variable is leaf for leaf in made):
            return True
        todo += [following for following, _ in node.next_functions if following is not None]
    return False


def _signs(source: KeyedNoise, x: Any, visit: int) -> Leaves:
    """A direction of -1 and 1, each as likely, for each sample by its own key."""
    drawn = flatten(source.noise(x, 0.0, 0.0, "probe", visit))
    return [torch.where(leaf >= 0, 1.0, -1.0).to(leaf) for leaf in drawn]


def _axes(leaves: Leaves) -> Any:
    """The directions along each axis, the same for all samples."""
    for number, leaf in enumerate(leaves):
        for i in range(leaf[0].numel()):
            along = [torch.zeros_like(other) for other in leaves]
            along[number].reshape(len(leaf), -1)[:, i] = 1.0
            yield along


def _normal(leaves: Leaves, sigma: float) -> Tensor:
    """Log-density of independent normal numbers."""
    dims = sum(leaf[0].numel() for leaf in leaves)
    squares = torch.stack([_row_sums(leaf.double().square()) for leaf in leaves]).sum(0)
    return squares / (-2.0 * sigma * sigma) - dims * (math.log(sigma) + 0.5 * math.log(2.0 * math.pi))


def _row_sums(values: Tensor) -> Tensor:
    """Sum of each sample in float64; one by one, so that none depends on the batch by a bit."""
    return torch.stack([row.double().sum() for row in values])
