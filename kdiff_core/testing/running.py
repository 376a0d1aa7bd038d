"""Running checks: Hypothesis looks for the simplest example on which a law does not hold."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import hypothesis
from attrs import define, evolve, field, fields
from hypothesis import strategies as st

from ..errors import CapabilityError, ParameterError
from ..names import nearest, quoted
from .catalogue import Check, LawBroken, checks_for, find_check
from .reproduce import snippet
from .results import CheckResult, Report, Status
from .settings import Settings
from .subjects import Subject, subject_of

# Examples of a check that is known to fail: with few it could pass by chance, which is reported as fixed.
_TO_FAIL = 100
# Share of the examples below which a check takes too long to look for a simpler failure than the first.
_SIMPLIFIED = 0.3
OnResult = Callable[[CheckResult], None]


@define
class _Search:
    """One check's search; it notes the example it is at, which after a failure is the simplest that fails."""

    check: Check
    subject: Subject
    settings: Settings
    examples: int = 0
    failed: bool = False
    example: dict[str, Any] = field(factory=dict)
    measured: dict[str, tuple[float, float]] = field(factory=dict)

    @property
    def known(self) -> bool:
        """Whether it is known to fail."""
        return self.check.name in self.subject.known_failures

    @property
    def simplifies(self) -> bool:
        """Whether a failure is worth the search for a simpler one: an expected one, or a dear one, is not."""
        return not self.known and self.check.share >= _SIMPLIFIED

    def run(self) -> None:
        """Try all examples; raises what the simplest failing one raises."""
        paths = self.settings.paths if self.check.takes("path") else (None,)
        examples = self.settings.examples * self.check.share
        if self.known:
            examples = max(examples, _TO_FAIL)
        count = max(1, round(examples / len(paths)))
        for path in paths:
            self._search(self._given(path), self._strategies(path), count)

    def _given(self, path: str | None) -> dict[str, Any]:
        given = {"path": path} if path else {}
        for name in ("device", "dtype"):
            if self.check.takes(name):
                given[name] = getattr(self.settings, name)
        return given

    def _strategies(self, path: str | None) -> dict[str, Any]:
        found = {}
        for name, value in self.check.strategies.items():
            made = isinstance(value, st.SearchStrategy)
            found[name] = value if made else value(path) if path else value()
        return found

    def _search(self, given: dict[str, Any], strategies: dict[str, Any], count: int) -> None:
        def trial(drawn: dict[str, Any]) -> None:
            self.example = {**given, **drawn}
            self.examples += not self.failed  # after a failure there are only simpler forms of it
            try:
                self._note(self.check.function(self.subject.value, **self.example) or {})
            except Exception as error:
                self.failed |= not isinstance(error, hypothesis.errors.UnsatisfiedAssumption)
                raise

        if not strategies:
            trial({})
            return
        budget = hypothesis.settings(
            max_examples=count,
            database=None,
            deadline=None,
            derandomize=False,
            print_blob=False,
            report_multiple_bugs=False,
            phases=[p for p in hypothesis.Phase if self.simplifies or p is not hypothesis.Phase.shrink],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        search = hypothesis.given(st.fixed_dictionaries(strategies))(trial)
        budget(hypothesis.seed(self.settings.seed)(search))()

    def _note(self, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            low, high = self.measured.get(name, (value, value))
            self.measured[name] = (min(low, value), max(high, value))


def run_check(check: Check, subject: Any, settings: Settings | None = None) -> CheckResult:
    """Try a check on random examples.

    Args:
        check: The check.
        subject: A `Subject`, or what `subject_of` makes one of.
        settings: Budget and place.

    Returns:
        The result. An exception other than `LawBroken` is a failure too, with its traceback.
    """
    settings = settings or Settings.from_environment()
    subject = subject_of(subject, check.kind)
    why = subject.known_failures.get(check.name, "")
    result = CheckResult(
        check.name, check.kind, subject.label, "skipped", check.law, check.reason, seed=settings.seed, why=why
    )
    if check.slow and not settings.slow:
        return result
    search, begin = _Search(check, subject, settings), time.perf_counter()
    try:
        search.run()
    except Exception as error:
        found = _failure(search, error)
        status: Status = "expected" if why else "failed"
    else:
        found, status = {}, "fixed" if why else "passed"
    return evolve(
        result,
        status=status,
        examples=search.examples,
        seconds=time.perf_counter() - begin,
        measured=search.measured,
        **found,
    )


def _failure(search: _Search, error: Exception) -> dict[str, Any]:
    plain = {name: value for name, value in search.example.items() if not _is_default(name, value)}
    found = {"example": search.example, "snippet": snippet(search.check, search.subject, plain)}
    if isinstance(error, LawBroken):
        return {**found, "message": str(error), "numbers": error.numbers}
    if isinstance(error, hypothesis.errors.Flaky):
        message = (
            "it fails and then passes on the same example: its result depends on more than its arguments"
        )
        return {**found, "message": message, "traceback": "".join(traceback.format_exception(error))}
    first = (str(error).splitlines() or [""])[0]
    shown = "".join(traceback.format_exception(error))
    return {**found, "message": f"it raises {type(error).__name__}: {first}", "traceback": shown}


def _is_default(name: str, value: Any) -> bool:
    return (name, value) in (("device", "cpu"), ("dtype", "float64"))


def chosen(subject: Subject, only: Any = None) -> Iterator[Check]:
    """Yield the checks that apply to a subject, all or those named.

    Raises:
        ParameterError: There is no check of a name.
    """
    names = {only} if isinstance(only, str) else None if only is None else set(only)
    for name in sorted(names or ()):
        find_check(subject.kind, name)
    for check in checks_for(subject.value, subject.kind):
        if names is None or check.name in names:
            yield check


def check(
    subject: Any,
    kind: str | None = None,
    *,
    only: Any = None,
    known_failures: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    on_result: OnResult | None = None,
    **options: Any,
) -> Report:
    """Put a thing through every check that applies to it.

    Args:
        subject: A sampler, schedule, process, denoiser or path, a function ``seed -> noise source``, or the
            name of one.
        kind: What it is, where it does not show.
        only: Name or names of checks, in place of all.
        known_failures: Checks that it is known to fail, each with its reason; beside those that the subject
            itself lists. Such a check must fail: once it passes, that is reported.
        settings: Budget and place of the run.
        on_result: Called with each result as it comes.
        **options: Fields of `Settings`, such as ``examples=100``.

    Returns:
        The results; nothing is raised for a law that does not hold (`Report.raise_if_broken` does).

    Raises:
        ParameterError: It is nothing that can be checked, or a name of a check is unknown.
        UnknownNameError: Nothing has this name.
        CapabilityError: ``device="cuda"`` without a GPU.
    """
    settings = _with_options(settings or Settings.from_environment(), options)
    check_device(settings.device)
    found = subject_of(subject, kind).expecting(known_failures)
    results = []
    for each in chosen(found, only):
        results.append(run_check(each, found, settings))
        if on_result is not None:
            on_result(results[-1])
    if not results:
        raise ParameterError(f"none of these checks applies to {found.label}")
    return Report(found.label, found.kind, found.declared, settings, tuple(results))


def _with_options(settings: Settings, options: Mapping[str, Any]) -> Settings:
    known = [field.name for field in fields(Settings)]
    for name in options:
        if name not in known:
            close = quoted(nearest(name, known), "or") or quoted(known)
            raise ParameterError(f"there is no option {name!r}; did you mean {close}?")
    return evolve(settings, **options)


def check_device(device: str) -> None:
    """Refuse a GPU that is not there.

    Raises:
        CapabilityError: There is none.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise CapabilityError("device='cuda': there is no GPU that torch can use; leave it out for the CPU")


def check_sampler(sampler: Any, **options: Any) -> Report:
    """Put a sampler through the kit; the options are those of `check`."""
    return check(sampler, "sampler", **options)


def check_schedule(schedule: Any, **options: Any) -> Report:
    """Put a schedule through the kit; the options are those of `check`."""
    return check(schedule, "schedule", **options)


def check_process(process: Any, **options: Any) -> Report:
    """Put a noise process through the kit; the options are those of `check`."""
    return check(process, "process", **options)


def check_noise(source: Any, **options: Any) -> Report:
    """Put a noise source, given as a function of its seed, through the kit; options as of `check`."""
    return check(source, "noise", **options)


def check_denoiser(denoiser: Any, **options: Any) -> Report:
    """Put a denoiser through the kit; the options are those of `check`."""
    return check(denoiser, "denoiser", **options)


def check_path(path: Any, **options: Any) -> Report:
    """Put a noise path through the kit; the options are those of `check`."""
    return check(path, "path", **options)
