"""Tangential damping of the unconditional output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, frozen
from torch import Tensor

from kdiff_core.parameters import finite, one_of

from .pairwise import Pairwise
from .vectors import SPACES, Space, check_space, from_space, inner, to_space


@frozen(eq=False)
class TCFG(Pairwise):
    """Tangential damping: of ``u`` only the part along the direction that it shares with ``c``.

    Kwon et al. 2025, arXiv:2503.18137: ``u`` is projected on the first right singular vector of the matrix
    with the rows ``c`` and ``u``, then guides as in classifier-free guidance; in the scores.

    Its other options, `uncond`, `batched`, `sigma_low` and `sigma_high`, are those of `Pairwise`.

    Args:
        denoiser: The denoiser to guide.
        scale: Finite. 1 is the conditional output.
        space: What ``c`` and ``u`` are: ``"slope"`` (eps on VE, v on flow), ``"v"``, ``"eps"`` or ``"x0"``.

    Raises:
        ParameterError: A parameter is out of its range, or `uncond` is missing and cannot be guessed.
    """

    scale: float = field(default=2.0, converter=float, validator=finite)
    space: Space = field(default="slope", validator=one_of(*SPACES), kw_only=True)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        check_space(self.space, self._path)

    @property
    def neutral(self) -> bool:
        """Whether it is the conditional output."""
        return self.scale == 1

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """The formula in its space."""
        c, u = (to_space(self.space, self._path, x, sigma, output) for output in outputs)
        u = damped(c, u)
        return from_space(self.space, self._path, x, sigma, u + (c - u) * self.scale)


def damped(c: Tensor, u: Tensor) -> Tensor:
    """Project each sample of `u` on the first right singular vector of the rows `c` and `u`.

    With ``(p, q)`` the unit eigenvector of the larger eigenvalue of their 2 by 2 matrix of inner products,
    the projection is ``q (p c + q u)``. Where the two are as long and orthogonal no direction is first, and
    `u` stays.
    """
    cc, cu, uu = inner(c, c), inner(c, u), inner(u, u)
    root = ((cc - uu) ** 2 + 4 * cu * cu).sqrt()
    none = root == 0
    root = torch.where(none, 1.0, root)
    pq, qq = cu / root, 0.5 - 0.5 * (cc - uu) / root
    return torch.where(none, u, c * pq + u * qq)
