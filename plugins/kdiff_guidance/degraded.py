"""Guidance away from a degraded branch of the model: perturbed attention, skipped layers, blurred queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen
from torch import Tensor

from kdiff_core import Prediction
from kdiff_core.errors import CapabilityError, ParameterError
from kdiff_core.parameters import finite

from .guided import Cond, Guidance, has_parts


@frozen(eq=False)
class Degraded(Guidance):
    """Leads away from what the model answers with a part of it damaged: ``g + scale (c - d)``.

    ``g`` is the output beneath, guided or not, ``c`` the conditional one, ``d`` that of the branch under the
    same conditions; the same in any space. Perturbed attention (Ahn et al. 2024, arXiv:2403.17377) puts the
    identity in place of self-attention, skip-layer guidance (Hyung et al. 2024, arXiv:2411.18664) leaves
    layers out, smoothed energy (Hong 2024, arXiv:2408.00760) blurs the queries. The branch is the model
    adapter's: its method ``degraded(name, **options)`` returns a denoiser. Over a denoiser that is not
    guided the branch's output is the unconditional one of `predict`.

    Its other options, `sigma_low` and `sigma_high`, are those of `Guidance`.

    Args:
        denoiser: The denoiser to guide, or guidance of one, that has branches.
        branch: Name of the branch, such as ``"perturbed_attention"``.
        scale: Finite; 0 is the output beneath.
        options: Options of the branch, such as ``{"layers": [7, 8, 9]}``.

    Raises:
        CapabilityError: The denoiser has no branches.
        ParameterError: It has none of this name, or `scale` is not finite.
    """

    branch: str = field()
    scale: float = field(default=2.8, converter=float, validator=finite)
    options: Mapping[str, Any] = field(factory=dict)
    damaged: Any = field(init=False, repr=False)

    @damaged.default
    def _find(self) -> Any:
        find = getattr(self.denoiser, "degraded", None)
        if not callable(find):
            raise CapabilityError(
                f"Degraded: {type(self.denoiser).__name__} has no degraded(name), which gives the branch "
                f"{self.branch!r}; use a model adapter that has it, or 'autoguidance' with a weaker model"
            )
        try:
            return find(self.branch, **self.options)
        except (KeyError, TypeError, ValueError) as error:
            raise ParameterError(
                f"Degraded: {type(self.denoiser).__name__} gives no branch {self.branch!r} with the options "
                f"{dict(self.options)}: {error}"
            ) from error

    @property
    def batch_exact(self) -> bool:
        """Whether no sample's output depends on its batch by a bit: where model and branch say so."""
        return all(getattr(model, "batch_exact", False) for model in (self.denoiser, self.damaged))

    @property
    def neutral(self) -> bool:
        """Whether it is the output beneath."""
        return self.scale == 0

    def predict(self, x: Any, sigma: Tensor, **cond: Any) -> Prediction:
        """Return the guided, the conditional and the unconditional output."""
        return self._predict(x, sigma, **cond)

    def evaluate(self, x: Any, sigma: Tensor, cond: Cond, in_parts: bool) -> tuple[Prediction, Sequence[Any]]:
        """The outputs beneath, and that of the branch."""
        if has_parts(self.denoiser):
            found = self.parts(x, sigma, cond)
            return found, [found.denoised, found.cond, self.damaged(x, sigma, **cond)]
        output, damaged = self.denoiser(x, sigma, **cond), self.damaged(x, sigma, **cond)
        return Prediction(output, output, damaged), [output, output, damaged]

    def rule(self, x: Tensor, sigma: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """``g + scale (c - d)``."""
        g, c, d = outputs
        return g + (c - d) * self.scale
