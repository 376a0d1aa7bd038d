"""Laws of schedules, and of the noise processes that give them their range."""

from __future__ import annotations

import inspect
import math
import pickle
from itertools import pairwise
from typing import Any

import attrs
from attrs import frozen
from hypothesis import strategies as st

from ...errors import KdiffError, ParameterError
from ...grid import Grid
from ..catalogue import LawBroken, law, require

# Ends of a range are compared to this relative distance: exp(log(sigma)) is a few roundings away.
ENDS = 1e-9


@frozen
class LogProcess:
    """A process whose log level is linear in time, to give schedules a range."""

    sigma_min: float
    sigma_max: float
    path: Any = "ve"

    def sigma(self, t: float) -> float:
        """Noise level at time `t`; both ends are met exactly."""
        if t in (0, 1):
            return self.sigma_max if t else self.sigma_min
        return float(self.sigma_min * (self.sigma_max / self.sigma_min) ** t)

    def t(self, sigma: float) -> float:
        """Time of a level."""
        return math.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


def ranges(path: str) -> st.SearchStrategy[tuple[float, float]]:
    """Lowest and highest level of a model, from a ratio of 10 up; on flow at most 1, often 1 itself."""
    highs = st.floats(1.0, 200.0) if path == "ve" else st.just(1.0) | st.floats(0.5, 1.0)
    return st.builds(lambda high, ratio: (high / ratio, high), highs, st.floats(10.0, 1e4))


def spans(schedule: Any) -> bool:
    """Whether a schedule goes from the highest level asked for to the lowest."""
    return bool(getattr(schedule, "spans", True))


def levels(schedule: Any, n: Any, span: tuple[float, float], path: str) -> Any:
    """What a schedule returns for a range; one that refuses to do without a process is given one."""
    low, high = span
    try:
        return schedule(n, sigma_min=low, sigma_max=high)
    except ParameterError:
        return schedule(n, sigma_min=low, sigma_max=high, process=LogProcess(low, high, path))


def meets(schedule: Any, grid: Any, n: int, span: tuple[float, float], whose: str) -> None:
    """Require that a grid goes from the highest level of a range to the lowest, or stays within it."""
    low, high = span
    highest, lowest = next(iter(grid)), min(level for level in grid if level > 0)
    if getattr(schedule, "meets_max", True):
        starts = math.isclose(highest, high, rel_tol=ENDS)
        require(starts, f"it does not start at sigma_max {whose}", first=highest, sigma_max=high, n=n)
    if n > 1 and getattr(schedule, "meets_min", True):
        ends = math.isclose(lowest, low, rel_tol=ENDS)
        message = f"its lowest level above 0 is not sigma_min {whose}"
        require(ends, message, lowest=lowest, sigma_min=low, n=n)
    above = highest <= high * (1 + ENDS)
    require(above, f"it starts above sigma_max {whose}", first=highest, sigma_max=high, n=n)
    within = lowest >= low * (1 - ENDS)
    require(within, f"a level is below sigma_min {whose}", lowest=lowest, sigma_min=low, n=n)


@law("schedule", n=st.integers(1, 1000), span=ranges)
def gives_exactly_n_steps(schedule: Any, *, path: str, n: int, span: tuple[float, float]) -> dict[str, float]:
    """A schedule gives exactly the n steps asked for: n + 1 finite, strictly falling levels, only the last 0.

    Time, cost and comparisons are counted in steps, so ``steps=20`` must be 20 whatever the schedule; a
    repeated level is a step of length 0, at which multistep methods divide by 0. Typical breakers: a last 0
    added to n + 1 levels, duplicates removed, levels rounded to the entries of a table, a special case at n =
    1.
    """
    grid = levels(schedule, n, span, path)
    try:
        found = list(Grid.of(grid))
    except KdiffError as error:
        raise LawBroken(f"its levels for n={n} are no grid: {error}", n=n) from error
    steps = len(found) - 1
    require(steps == n, f"asked for n={n} steps it gives {steps}", n=n, steps=steps)
    falls = all(b < a for a, b in pairwise(found))
    require(falls, "its levels do not fall from each to the next", n=n)  # a Grid made without its checks
    return {"smallest ratio of levels": min((a / b for a, b in pairwise(found) if b > 0), default=math.inf)}


@law("schedule", when=spans, n=st.integers(1, 1000), span=ranges)
def spans_the_range_given(schedule: Any, *, path: str, n: int, span: tuple[float, float]) -> None:
    """A schedule starts at sigma_max, and its lowest level above 0 is sigma_min, from two steps on.

    The initial noise is scaled to the first level, and a model is only good on the levels that it was trained
    on: a schedule that leaves the range asks it for others, one that stops short leaves noise in the image.
    On a flow path no level may be above 1, not even by rounding. A formula that leaves out an end of the
    range declares ``meets_max = False`` or ``meets_min = False`` and stays within it; a schedule of fixed
    levels declares ``spans = False``.
    """
    grid = levels(schedule, n, span, path)
    meets(schedule, grid, n, span, "as given")
    if path == "flow":
        require(max(grid) <= 1, "a level is above 1, where no flow path has one", highest=max(grid))


@law("schedule", when=spans, n=st.integers(2, 200), inner=ranges, wider=st.floats(1.5, 10.0))
def takes_its_range_from_a_process(
    schedule: Any, *, path: str, n: int, inner: tuple[float, float], wider: float
) -> None:
    """A schedule spans the range of a process where none is given; what is given goes before it, end by end.

    So that ``schedule(20, process=model.process)`` suits every model, and ``sigma_max=...`` still changes its
    start. Typical breakers: a process that is ignored because the schedule has a range of its own, or an end
    that is taken from the process although it was given.
    """
    low, high = inner
    ends = (low / wider, min(high * wider, 1.0) if path == "flow" else high * wider)
    process = LogProcess(*ends, path)
    meets(schedule, schedule(n, process=process), n, ends, "of the process")
    meets(
        schedule,
        schedule(n, sigma_min=low, sigma_max=high, process=process),
        n,
        inner,
        "as given, beside a process",
    )
    meets(schedule, schedule(n, sigma_max=high, process=process), n, (ends[0], high), "with sigma_max given")
    meets(schedule, schedule(n, sigma_min=low, process=process), n, (low, ends[1]), "with sigma_min given")


@law("schedule", n=st.integers(1, 100), span=ranges)
def same_levels_every_time(schedule: Any, *, path: str, n: int, span: tuple[float, float]) -> None:
    """A schedule gives the same levels each time it is asked, whatever it was asked before.

    A run is replayed from the names and numbers in its manifest, and plans are cached by the grid. Typical
    breakers: a random shift, a cache that forgets an argument, a list that is handed out and changed.
    """
    first = list(levels(schedule, n, span, path))
    levels(schedule, n + 1, (span[0], span[1] / 2), path)
    again = list(levels(schedule, n, span, path))
    require(again == first, f"asked twice for n={n} it gives other levels", first=first[0], then=again[0])


@law("schedule", n=st.sampled_from([0, -1, -20, 2.5, "5", None]), span=ranges)
def refuses_what_is_no_count(schedule: Any, *, path: str, n: Any, span: tuple[float, float]) -> None:
    """A schedule refuses a number of steps that is none with a KdiffError: 0, negative, not whole.

    ``steps=0`` from a slider or a script is then a message that says what is right, at the place where it is
    wrong, and not an empty image or a ZeroDivisionError. `KdiffError` (`GridError`, `ParameterError`) is what
    hosts catch.
    """
    refused(schedule, n, span, path)


BAD_RANGES = {
    "swapped ends": (10.0, 0.1),
    "equal ends": (1.0, 1.0),
    "a negative end": (-1.0, 1.0),
    "sigma_min NaN": (math.nan, 1.0),
    "sigma_max NaN": (0.1, math.nan),
    "sigma_max infinite": (0.1, math.inf),
}


@law("schedule", when=spans, n=st.integers(1, 50), what=st.sampled_from(list(BAD_RANGES)))
def refuses_what_is_no_range(schedule: Any, *, n: int, what: str) -> None:
    """A schedule refuses what is no range with a KdiffError: sigma_min not below sigma_max, not finite.

    Swapped ends are the commonest slip, and NaN comes from a model without a range; both would otherwise be a
    grid that rises, or an image of NaN many seconds later. One step is no exception, although it needs no
    sigma_min.
    """
    refused(schedule, n, BAD_RANGES[what], "ve")


def refused(schedule: Any, n: Any, span: tuple[float, float], path: str) -> None:
    """Require that a schedule refuses a count or a range as kdiff does."""
    asked = f"n={n!r} between sigma_min={span[0]} and sigma_max={span[1]}"
    try:
        found = levels(schedule, n, span, path)
    except KdiffError:
        return
    except Exception as error:
        raise LawBroken(
            f"{asked}: it raises {type(error).__name__} ({error}), which is no KdiffError; check the "
            "arguments and raise GridError or ParameterError"
        ) from error
    raise LawBroken(f"{asked} is accepted: it gives {found!r:.80}; raise GridError or ParameterError")


def is_a_value(thing: Any) -> None:
    """Require that a thing is equal to its copies, hashable and picklable, and has a docstring of its own."""
    if attrs.has(type(thing)):
        fields = [field for field in attrs.fields(type(thing)) if field.init]
        again = type(thing)(**{field.alias: getattr(thing, field.name) for field in fields})
        require(again == thing, "made anew from its own parameters it is not equal to itself", made=again)
    try:
        found = hash(thing)
        copy = pickle.loads(pickle.dumps(thing))
    except Exception as error:
        raise LawBroken(f"it cannot be hashed or pickled: {type(error).__name__}: {error}") from error
    require(copy == thing, "a pickle brings back another value than it")
    require(hash(copy) == found, "its pickled copy has another hash")
    explained = thing if inspect.isroutine(thing) else type(thing)
    text = vars(explained).get("__doc__", "") if isinstance(explained, type) else explained.__doc__
    message = f"{explained.__name__} has no docstring of its own; cite its source, or explain it"
    require(bool((text or "").strip()), message)


@law("schedule")
def schedule_is_a_value(schedule: Any) -> None:
    """A schedule is a value: equal to its copy, hashable, picklable, and explained by its own docstring.

    Grids are cached by the schedule and its arguments, and workers get it as a pickle. A schedule that
    compares by identity, or keeps a lambda, breaks both; an attrs class decorated with ``@attrs.frozen``
    keeps them, and so does a plain function of a module. The docstring is what people read in a list of
    names: the formula, the paper.
    """
    is_a_value(schedule)


@law("process")
def process_is_a_value(process: Any) -> None:
    """A process is a value: equal to its copy, hashable, picklable, and explained by its own docstring.

    Plans are cached by the process, tables by its parameters, and manifests record it. See
    `schedule_is_a_value`.
    """
    is_a_value(process)


@law("process", t=st.floats(0.0, 1.0), later=st.floats(1e-4, 1.0))
def level_rises_with_time(process: Any, *, t: float, later: float) -> None:
    """A process's level rises with time, from 0 at the data to 1 at the noise.

    A schedule uniform in time would otherwise give levels that repeat or rise. Typical breakers: time counted
    from the noise down, as many papers do, and a table that is looked up without going between its entries.
    """
    t *= 1 - later
    after = min(t + later, 1.0)
    low, high = process.sigma(t), process.sigma(after)
    require(low < high, f"its level does not rise from t={t:.4g} to t={after:.4g}", first=low, then=high)


@law("process", t=st.floats(0.0, 1.0))
def time_and_level_are_inverse(process: Any, *, t: float) -> dict[str, float]:
    """A process's time and level are inverse to each other: t(sigma(t)) == t and sigma(t(sigma)) == sigma.

    A schedule goes from a level to its time and back, and a model is told the time of a level: what does not
    come back is a step at another level than the model believes. To 1e-9 of the level; to 1e-6 of the time,
    which a level that hardly moves tells less exactly. Typical breakers: a time rounded to an entry, another
    spacing one way.
    """
    level = process.sigma(t)
    there = process.t(level)
    require(abs(there - t) <= 1e-6, f"t(sigma(t)) is not t at t={t:.6g}: t is no inverse", t=t, found=there)
    again = process.sigma(there)
    message = f"sigma(t(sigma)) is not sigma at {level:.6g}: t is no inverse"
    require(math.isclose(again, level, rel_tol=1e-9), message, sigma=level, found=again)
    return {"error of the time": abs(there - t), "relative error of the level": abs(again / level - 1)}


@law("process")
def ends_are_declared(process: Any) -> None:
    """A process goes from sigma_min at time 0 to sigma_max at time 1, both finite and above 0.

    They are the range that schedules take from it, so they must be levels that it has.
    """
    low, high = process.sigma_min, process.sigma_max
    require(0 < low < high < math.inf, "sigma_min and sigma_max are no range", sigma_min=low, sigma_max=high)
    for t, name, end in ((0.0, "sigma_min", low), (1.0, "sigma_max", high)):
        found = process.sigma(t)
        require(math.isclose(found, end, rel_tol=ENDS), f"sigma({t}) is not its {name}", found=found, end=end)


@law("process")
def path_is_declared(process: Any) -> None:
    """A process says which path it is on, 've' or 'flow', and on flow its levels are at most 1.

    A sampler takes the data's factor from the path: ``alpha = 1`` on VE, ``1 - sigma`` on flow. A
    variance-preserving process is on VE, with the level ``sqrt(1 - abar) / sqrt(abar)``; levels of its own
    scaling come out too small.
    """
    require(process.path in ("ve", "flow"), f"its path is {process.path!r}, neither 've' nor 'flow'")
    if process.path == "flow":
        require(process.sigma_max <= 1, "a flow path has no level above 1", sigma_max=process.sigma_max)
