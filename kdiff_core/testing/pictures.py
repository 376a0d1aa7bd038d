"""Pictures of a sampler: the error of a step, the error of a run, the variance of what comes out.

They show what the checks measure. On logarithmic axes an error of order n is a straight line of slope n, one
more for a single step. Needs the extra: ``pip install "kdiff-core[plot]"``. Nothing of matplotlib's global
state is used or changed, so that it works without a screen and from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ParameterError
from .drawing import (
    COLOURS,
    ENDINGS,
    blank,
    count_steps,
    curve,
    finish,
    finish_variance,
    guide,
    instead,
    save,
)
from .laws.order import SIZES, order_of_a_run, run_errors
from .measure import output_moments, slope, smooth_grid
from .problems import Gaussian
from .subjects import Subject, subject_of
from .teacher import one_step_error
from .variants import deterministic, has_deterministic, with_unit_noise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Panel = Callable[[Axes, Any], None]

PATHS = {"ve": "VE", "flow": "flow"}
# Steps in log-SNR, the last of them those of the check, and numbers of steps.
STEP_SIZES = tuple(0.64 / 2**k for k in range(10))
STEPS = (5, 10, 20, 40, 80, 160)
# The step before, and those before it, as multiples of the step.
RATIOS = {
    "as long": (1.0, 1.0, 1.0, 1.0),
    "twice as long": (2.0, 1.0, 2.0, 1.0),
    "half as long": (0.5, 1.0, 0.5, 1.0),
}
VARIANCES = (0.01, 0.1, 1.0, 4.0)


# -- what is measured


def step_errors(
    sampler: Any, path: str, ratios: Sequence[float], sizes: Sequence[float] = STEP_SIZES
) -> tuple[list[float], float]:
    """Errors of one step with exact history, and the order that the check measures on the small ones.

    Args:
        sampler: The sampler, deterministic and linear.
        path: ``"ve"`` or ``"flow"``.
        ratios: Sizes of the steps before it, the newest first, as multiples of its own; its memory many.
        sizes: Sizes of the step in log-SNR.
    """
    cycle = [ratios[i % len(ratios)] for i in range(sampler.memory)]
    small = [one_step_error(sampler, path, size, cycle, 0.0) for size in SIZES]
    return [one_step_error(sampler, path, size, cycle, 0.0) for size in sizes], slope(SIZES, small) - 1.0


def variance_ratios(
    sampler: Any, path: str, steps: int, variances: Sequence[float] = VARIANCES
) -> list[float]:
    """Variance of the output over the exact one, for normal data of each variance; no sample is drawn.

    Args:
        sampler: The sampler, linear.
        path: ``"ve"`` or ``"flow"``.
        steps: Number of steps, even in log-SNR, from noise 20 times the signal to a twentieth of it.
        variances: Of the data.
    """
    grid, problem = smooth_grid(path, steps, first=20.0, last=0.05), Gaussian(path, 0.0, tuple(variances))
    found = output_moments(sampler.plan(grid, path), problem).covariance
    ratios = np.diag(found) / np.diag(problem.marginal(grid[-1])[1])
    return [float(ratio) for ratio in ratios]


# -- the pictures


def figure(sampler: Any) -> Figure:
    """Draw a sampler: the error of a step, that of a run, and the variance, as far as each can be had.

    Errors are those of the sampler without its noise, where there is such a variant; the variance is that of
    the sampler as it is, its noise at full strength. A sampler without a plan has a run alone.

    Args:
        sampler: A sampler, or the name of one.

    Returns:
        A figure; ``figure.savefig(...)`` writes it.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ParameterError: Nothing can be drawn: without a plan, and with noise that cannot be left out.
    """
    subject = subject_of(sampler, "sampler")
    panels = list(_panels(subject.value))
    if not panels:
        raise ParameterError(f"{subject.label}: it has no plan and no variant without noise; nothing to draw")
    found, places = blank(len(panels), *_title(subject))
    for axes, panel in zip(places, panels, strict=True):
        try:
            panel(axes, subject.value)
        except Exception as error:
            instead(axes, f"no curve:\n{type(error).__name__}\n{str(error).partition(chr(10))[0]:.60}")
    return found


def plot(sampler: Any, file: str | Path) -> None:
    """Draw a sampler into a file.

    Args:
        sampler: A sampler, or the name of one.
        file: A name that ends in ``.png`` or ``.svg``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ParameterError: Another ending, or nothing can be drawn.
    """
    file = Path(file)
    if file.suffix.lower() not in ENDINGS:
        raise ParameterError(f"{file}: the name must end in {' or '.join(ENDINGS)}")
    save(figure(sampler), file)


def order_panel(axes: Axes, sampler: Any) -> None:
    """Draw the error of one step with exact history over its size, with the order in the legend.

    Args:
        axes: Where.
        sampler: The sampler, linear.
    """
    still = deterministic(sampler)
    ratios = RATIOS if still.memory else {"": ()}
    for (name, before), colour in zip(ratios.items(), COLOURS, strict=False):
        errors = {path: step_errors(still, path, before or (1.0,)) for path in PATHS}
        if name:
            label: dict[str, str] = {"ve": f"{name}: {errors['ve'][1]:.2f}, {errors['flow'][1]:.2f}"}
        else:
            label = {path: f"{PATHS[path]}: {errors[path][1]:.2f}" for path in PATHS}
        for path, (found, _) in errors.items():
            curve(axes, STEP_SIZES, found, path, colour, label.get(path, ""))
    guide(axes, STEP_SIZES, still.order + 1, f"order {still.order}, slope {still.order + 1}")
    title = "step before it: order, VE and flow" if still.memory else "order"
    finish(axes, "Error of one step", "size of the step in log-SNR", title)


def run_panel(axes: Axes, sampler: Any) -> None:
    """Draw the error of a whole run, which begins without history, over the number of steps.

    Args:
        axes: Where.
        sampler: The sampler.
    """
    still = deterministic(sampler)
    for path, name in PATHS.items():
        errors = run_errors(still, path, STEPS)
        order = slope([1 / n for n in STEPS[-3:]], errors[-3:])
        curve(axes, STEPS, errors, path, COLOURS[0], f"{name}: {order:.2f}")
    least = order_of_a_run(still)
    guide(axes, STEPS, -least, f"order {least}")
    finish(axes, "Error of a run", "steps", "order")
    count_steps(axes, STEPS)


def variance_panel(axes: Axes, sampler: Any) -> None:
    """Draw the output's variance over the exact one, over the number of steps.

    Args:
        axes: Where.
        sampler: The sampler, linear.
    """
    full = with_unit_noise(sampler)
    for path in PATHS:
        ratios = zip(*(variance_ratios(full, path, n) for n in STEPS), strict=True)
        for variance, colour, found in zip(VARIANCES, COLOURS, ratios, strict=True):
            curve(axes, STEPS, found, path, colour, f"{variance:g}" if path == "ve" else "")
    finish_variance(axes, "Variance over the exact one", STEPS)


def _panels(sampler: Any) -> Iterator[Panel]:
    """Yield what can be drawn of a sampler."""
    linear = bool(getattr(sampler, "linear", False)) and callable(getattr(sampler, "step", None))
    if linear and has_deterministic(sampler):
        yield order_panel
    if has_deterministic(sampler):
        yield run_panel
    if linear:
        yield variance_panel


def _title(subject: Subject) -> tuple[str, str]:
    sampler, label = subject.value, subject.label
    still = deterministic(sampler)
    words = [f"order {sampler.order}", f"memory {sampler.memory}"]
    if still != sampler:
        words.append("errors without its noise")
    return (label if len(label) < 90 else f"{label[:87]}..."), ", ".join([*words, "solid VE, dashed flow"])
