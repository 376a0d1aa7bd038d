"""The conformance kit: the laws of samplers, schedules, noise, denoisers and paths, as checks anyone runs.

``check_sampler(obj)`` runs every check that applies and returns the results; in a pytest file
``@parametrize_with_checks([...])`` makes a test of each; ``kdiff check NAME`` does it from a shell. Needs
the extra: ``pip install "kdiff-core[testing]"``. Loaded on first use (PEP 562), so that pytest's start-up,
which loads the plugin beside this file, imports neither torch nor Hypothesis.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalogue import Check as Check
    from .catalogue import LawBroken as LawBroken
    from .catalogue import checks_for as checks_for
    from .catalogue import law as law
    from .collect import parametrize_with_checks as parametrize_with_checks
    from .models import check_model as check_model
    from .problems import Constant as Constant
    from .problems import Empirical as Empirical
    from .problems import Gaussian as Gaussian
    from .problems import LinearDenoiser as LinearDenoiser
    from .problems import Mixture as Mixture
    from .problems import Polynomial as Polynomial
    from .results import CheckResult as CheckResult
    from .results import Report as Report
    from .running import check as check
    from .running import check_denoiser as check_denoiser
    from .running import check_noise as check_noise
    from .running import check_path as check_path
    from .running import check_process as check_process
    from .running import check_sampler as check_sampler
    from .running import check_schedule as check_schedule
    from .running import run_check as run_check
    from .settings import Settings as Settings

_MODULES = {
    "catalogue": ("Check", "LawBroken", "checks_for", "law"),
    "collect": ("parametrize_with_checks",),
    "models": ("check_model",),
    "problems": ("Constant", "Empirical", "Gaussian", "LinearDenoiser", "Mixture", "Polynomial"),
    "results": ("CheckResult", "Report"),
    "running": (
        "check", "check_denoiser", "check_noise", "check_path", "check_process", "check_sampler",
        "check_schedule", "run_check",
    ),
    "settings": ("Settings",),
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("hypothesis", "mpmath", "pytest"):
            raise
        from ..errors import MissingExtraError

        raise MissingExtraError(
            f'the conformance kit needs {error.name}: pip install "kdiff-core[testing]"'
        ) from error


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
