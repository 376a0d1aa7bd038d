"""Schedules that spend the time of the model's noise process: they need ``process=``.

Times lie between those of the range's ends, and between the entries of a table where need be: exactly `n`
steps, for any `n` and any process. What hosts round to entries is in `kdiff_schedules.hosts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen

from kdiff_core.errors import ParameterError
from kdiff_core.lookup import get_process
from kdiff_core.parameters import positive, whole

from .range import RangeSchedule

if TYPE_CHECKING:
    from kdiff_core.grid import Grid
    from kdiff_core.protocols import Process

STEPS = 1000


def training_steps(process: Process) -> int:
    """Return the length of the table that a model was trained on; 1000 for a process without one."""
    return int(getattr(process, "steps", STEPS))


def _process(name: Any) -> Any:
    return None if name is None else get_process(name)


@frozen
class TimeSchedule(RangeSchedule):
    """A schedule in the time of a process. A family writes `places`.

    Args:
        process: The process, or its name, where the call is given none: for models that have none.
    """

    process: Any = field(default=None, converter=_process, kw_only=True)

    def __call__(
        self,
        n: int,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        process: Process | None = None,
    ) -> Grid:
        """Return the levels; see `RangeSchedule.__call__`."""
        process = self.process if process is None else process
        return super().__call__(n, sigma_min=sigma_min, sigma_max=sigma_max, process=process)

    def default_range(self) -> tuple[float, float] | None:
        """Return the range of the process that it was made with, for a schedule around it."""
        return None if self.process is None else (self.process.sigma_min, self.process.sigma_max)

    def places(self, n: int, entries: int) -> Sequence[float]:
        """Return the times of the `n` levels above 0, falling, from 1 (of `sigma_max`) to 0 (`sigma_min`).

        Args:
            n: Number of steps.
            entries: Length of the table that the model was trained on.
        """
        raise NotImplementedError

    def resolve(
        self, sigma_min: float | None, sigma_max: float | None, process: Process | None
    ) -> tuple[float, float]:
        """Return the range as given, else the process's.

        Raises:
            GridError: It is no range.
            ParameterError: There is no process.
        """
        if process is None:
            raise ParameterError(
                f"{type(self).__name__}: it spends the time of a noise process; pass the model's, such as "
                'process=get_process("sd"), or make the schedule with process="sd"'
            )
        return super().resolve(sigma_min, sigma_max, process)

    def levels(self, n: int, low: float, high: float, process: Process | None) -> Sequence[float]:
        """Return the ``n + 1`` levels."""
        assert process is not None
        start, end = process.t(high), process.t(low)
        exact = {1.0: high, 0.0: low}
        places = self.places(n, training_steps(process))
        return [*(exact.get(v) or process.sigma(end + (start - end) * v) for v in places), 0.0]


@frozen
class Uniform(TimeSchedule):
    """Times evenly spaced from `sigma_max` to `sigma_min`, then 0. "normal" and "linspace" elsewhere.

    Song et al. 2020, arXiv:2010.02502, section 4.2 (linear), with both ends: Lin et al. 2023,
    arXiv:2305.08891, table 2 (linspace).
    """

    def places(self, n: int, entries: int) -> Sequence[float]:
        """Return ``1 - i / (n - 1)``."""
        return [1.0 - i / (n - 1) if i else 1.0 for i in range(n)]


@frozen
class SGMUniform(TimeSchedule):
    """Times evenly spaced from `sigma_max`, the step after the last being the one to `sigma_min`.

    Stability AI 2023, generative-models. The lowest level above 0 is one step above `sigma_min`.
    """

    meets_min: ClassVar[bool] = False

    def places(self, n: int, entries: int) -> Sequence[float]:
        """Return ``1 - i / n``."""
        return [1.0 - i / n for i in range(n)]


@frozen
class Trailing(TimeSchedule):
    """Entries evenly spaced from the last one down, ``N - 1 - i N / n``: "simple", "turbo" elsewhere.

    Lin et al. 2023, arXiv:2305.08891, table 2 (trailing). Not rounded to entries.
    """

    meets_min: ClassVar[bool] = False

    def places(self, n: int, entries: int) -> Sequence[float]:
        """Return ``1 - (i N / n) / (N - 1)``."""
        size = max(entries, n)
        return [1.0 - i * size / n / (size - 1) if i else 1.0 for i in range(n)]


@frozen
class Leading(TimeSchedule):
    """Times evenly spaced from `sigma_min` up, without the last: "ddim_uniform" elsewhere.

    Song et al. 2020, arXiv:2010.02502, section 4.2; table 2 of Lin et al. 2023, arXiv:2305.08891 (leading),
    who show what is wrong with it: it begins below the noise that it is started from.
    """

    meets_max: ClassVar[bool] = False

    def places(self, n: int, entries: int) -> Sequence[float]:
        """Return ``(n - 1 - i) / n``."""
        return [(n - 1 - i) / n for i in range(n)]


@frozen
class Quadratic(TimeSchedule):
    """Times whose root is evenly spaced, then 0: more steps at low noise.

    Song et al. 2020, arXiv:2010.02502, appendix D.2 (quadratic).

    Args:
        power: 2 is the paper's, 1 is `Uniform`.
    """

    power: float = field(default=2.0, converter=float, validator=positive)

    def places(self, n: int, entries: int) -> Sequence[float]:
        """Return ``(1 - i / (n - 1))^power``."""
        return [(1.0 - i / (n - 1)) ** self.power if i else 1.0 for i in range(n)]


@frozen
class Beta(TimeSchedule):
    """Times at quantiles of a Beta distribution: many steps at both ends.

    ``t_i = F^-1(1 - i/n)``. Lee et al. 2024, arXiv:2407.12173, and ComfyUI, which rounds to entries. A1111
    and diffusers spread the *levels* by it instead, which is another schedule: `LevelBeta`.

    Args:
        alpha: First parameter of the distribution, above 0.
        beta: Second, above 0.
    """

    meets_min: ClassVar[bool] = False
    alpha: float = field(default=0.6, converter=float, validator=positive)
    beta: float = field(default=0.6, converter=float, validator=positive)

    def places(self, n: int, entries: int) -> Sequence[float]:
        """Return the quantiles at ``1 - i / n``."""
        from scipy.special import betaincinv

        return [float(betaincinv(self.alpha, self.beta, 1 - i / n)) if i else 1.0 for i in range(n)]


@frozen
class LCM(TimeSchedule):
    """Among the times that a latent consistency model was distilled at, `n` evenly spaced from the top.

    Luo et al. 2023, arXiv:2310.04378: every ``N / original_steps``-th entry, and of these number
    ``floor(i original_steps / n)`` from the top. More steps than there are such times use times between.

    Args:
        original_steps: Number of times of the distillation, at least 1.
    """

    meets_min: ClassVar[bool] = False
    original_steps: int = field(default=50, validator=whole(1))

    def places(self, n: int, entries: int) -> Sequence[float]:
        """Return ``1 - floor(i K / n) (N / K) / (N - 1)``."""
        kept = max(self.original_steps, n)
        size = max(entries, kept)
        return [1.0 - (i * kept // n) * size / kept / (size - 1) if i else 1.0 for i in range(n)]
