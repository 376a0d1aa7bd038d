"""CFG-Zero*: an unconditional output of the best length, and no movement in the first steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, frozen
from attrs.converters import optional
from attrs.validators import optional as if_given
from torch import Tensor

from kdiff_core.parameters import finite, one_of, positive

from .pairwise import Pairwise
from .vectors import SPACES, Space, check_space, from_space, inner, ratio, to_space


@frozen(eq=False)
class CFGZero(Pairwise):
    """CFG-Zero*: ``s u + scale (c - s u)`` with the ``s`` that brings ``s u`` nearest to ``c``.

    Fan et al. 2025, arXiv:2503.18886: ``s = <c, u> / |u|^2`` for each sample, in the velocity of flow models,
    and zero velocity in the first steps, which here are those from a level on.

    Its other options, `uncond`, `batched`, `sigma_low` and `sigma_high`, are those of `Pairwise`.

    Args:
        denoiser: The denoiser to guide.
        scale: Finite. 1 is the conditional output, 0 the unconditional one times ``s``.
        zero_from: Level at and above which the state stays where it is; None: none. 1 on a flow path is the
            paper's first step.
        space: What ``c`` and ``u`` are: ``"slope"`` (v on flow, eps on VE), ``"v"``, ``"eps"`` or ``"x0"``.

    Raises:
        ParameterError: A parameter is out of its range, or `uncond` is missing and cannot be guessed.
    """

    scale: float = field(default=2.0, converter=float, validator=finite)
    zero_from: float | None = field(default=None, converter=optional(float), validator=if_given(positive))
    space: Space = field(default="slope", validator=one_of(*SPACES), kw_only=True)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        check_space(self.space, self._path)

    @property
    def neutral(self) -> bool:
        """Whether it is the conditional output."""
        return self.scale == 1 and self.zero_from is None

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """The formula in its space, and ``D = x`` where nothing moves."""
        c, u = (to_space(self.space, self._path, x, sigma, output) for output in outputs)
        u = u * ratio(inner(c, u), inner(u, u))
        guided = from_space(self.space, self._path, x, sigma, u + (c - u) * self.scale)
        return guided if self.zero_from is None else torch.where(sigma >= self.zero_from, x, guided)
