"""Every refusal of kdiff: what was wrong, where, and what would be right.

Each error derives from `KdiffError` and from the built-in exception that it refines, so that both
``except KdiffError`` and ``except ValueError`` work.
"""


class KdiffError(Exception):
    """The base of all errors that kdiff raises itself."""

    def __str__(self) -> str:
        """The message as written (`KeyError` would print it quoted)."""
        return str(self.args[0]) if self.args else ""


class UnknownNameError(KdiffError, KeyError):
    """No plugin offers this name; the message has the nearest names and any broken plugin."""


class AmbiguousNameError(KdiffError, KeyError):
    """Two plugins offer this name; the message has the names that tell them apart."""


class PluginError(KdiffError, ImportError):
    """A plugin could not be loaded, or it registered something that is not right."""


class ParameterError(KdiffError, ValueError):
    """A parameter is unknown or out of its range."""


class GridError(KdiffError, ValueError):
    """Noise levels that are empty, rising, repeated, negative or not finite."""


class StateError(KdiffError, ValueError):
    """A state `x` that no sampler can start from: integer, without a batch dimension, not finite."""


class DenoiserError(KdiffError, TypeError):
    """A denoiser returned something other than a state like the one it was given."""


class CapabilityError(KdiffError, TypeError):
    """A sampler needs something that the denoiser, path or schedule cannot give."""


class NoiseError(KdiffError, ValueError):
    """A noise source or a list of seeds that does not fit the batch."""


class TraceError(KdiffError, TypeError):
    """A step did something to a symbolic state that is not a linear combination."""


class PlanError(KdiffError, ArithmeticError):
    """A sampler produced a weight that is not finite on this grid."""


class NonFiniteError(KdiffError, ArithmeticError):
    """A model output or a state became NaN or infinite; the message says where and which."""


class StepSizeError(KdiffError, ArithmeticError):
    """An adaptive sampler cannot keep its tolerance: too many model calls, or steps too small to take."""


class ConvergenceError(KdiffError, ArithmeticError):
    """An iteration did not come to its tolerance; the message says how close it came."""


class MissingExtraError(KdiffError, ImportError):
    """A feature needs a package that is not installed; the message has the pip command."""
