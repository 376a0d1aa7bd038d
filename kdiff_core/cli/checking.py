"""How `kdiff check` runs: each target is built, the checks that apply are found, then all are run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from ..errors import KdiffError, ParameterError, PluginError
from ..names import nearest, quoted
from .console import console
from .facts import described
from .targets import Target

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..testing import Check, Settings
    from ..testing.results import CheckResult, Report
    from ..testing.subjects import Subject

_SHOWN = 5  # names in a message


@frozen
class Outcome:
    """What became of a target.

    Attributes:
        target: What was asked for.
        subject: What was built.
        checks: The checks that apply to it.
        report: What they found.
        error: What kept it from being built or checked.
        unchecked: Why it is not to be built: it needs options, and nobody was asked for them.
    """

    target: Target
    subject: Subject | None = None
    checks: tuple[Check, ...] = ()
    report: Report | None = None
    error: Exception | None = None
    unchecked: str = ""

    @property
    def results(self) -> tuple[CheckResult, ...]:
        """The results, as far as there are any."""
        return () if self.report is None else self.report.results

    @property
    def name(self) -> str:
        """The name, with the options if there are some."""
        return self.subject.label if self.subject and self.target.options else self.target.name


def prepare(targets: Sequence[Target], only: Sequence[str]) -> list[Outcome]:
    """Build targets and find their checks. Those to which none applies are left out; prints go to stderr.

    Args:
        targets: What to check.
        only: Names of checks; none for all.

    Raises:
        KdiffError: The only target could not be built; of several, that is part of its outcome.
        ParameterError: A check is unknown, or applies to nothing.
    """
    from ..testing.catalogue import all_checks

    refuse_unknown(only, all_checks())
    with contextlib.redirect_stdout(sys.stderr):
        found = [_prepared(target, only) for target in targets]
    if len(found) == 1 and (error := found[0].error):
        if isinstance(error, KdiffError):
            raise error
        raise PluginError(f"{found[0].name} cannot be checked: {described(error)}") from error
    names = quoted(o.name for o in found[:_SHOWN]) + ", ..." * (len(found) > _SHOWN)
    there = {check.name for outcome in found for check in outcome.checks}
    for name in only:
        if name not in there:
            raise ParameterError(f"the check {name!r} does not apply to {names}")
    if not there and not any(outcome.error for outcome in found):
        raise ParameterError(f"no check applies to {names}")
    return [o for o in found if o.checks or o.error or o.unchecked]


def refuse_unknown(only: Sequence[str], known: Sequence[Check]) -> None:
    """Refuse names that no check has.

    Raises:
        ParameterError: With the nearest names.
    """
    names = {check.name for check in known}
    for name in only:
        if name not in names:
            close = quoted(nearest(name, names), "or")
            hint = f"; did you mean {close}?" if close else ""
            raise ParameterError(f"there is no check {name!r}{hint}\n`kdiff check --list` lists them.")


def _prepared(target: Target, only: Sequence[str]) -> Outcome:
    from ..testing import checks_for

    if target.needs:
        return Outcome(target, unchecked=f"needs {', '.join(target.needs)}")
    if target.broken:
        return Outcome(target, error=PluginError(target.broken))
    subject = None
    try:
        subject = target.build()
        checks = [c for c in checks_for(subject.value, subject.kind) if not only or c.name in only]
    except Exception as error:
        # What refuses its own defaults, in kdiff's words, wants options too.
        if (
            target.offered
            and isinstance(error, ParameterError)
            and isinstance(error.__cause__, ParameterError)
        ):
            return Outcome(target, unchecked=str(error.__cause__))
        return Outcome(target, subject, error=error)
    return Outcome(target, subject, tuple(checks))


def run(outcomes: Sequence[Outcome], settings: Settings) -> list[Outcome]:
    """Run the checks behind a bar that names each. What they print goes to stderr.

    Args:
        outcomes: What was prepared.
        settings: Budget and place.
    """
    from ..testing import check

    found = []
    with contextlib.redirect_stdout(sys.stderr), _progress() as progress:
        task = progress.add_task("", total=sum(len(outcome.checks) for outcome in outcomes))
        for outcome in outcomes:
            if not outcome.checks:
                found.append(outcome)
                continue
            names = [each.name for each in outcome.checks]
            steps = _steps(progress, task, outcome.name, names)
            try:
                report = check(outcome.subject, only=names, settings=settings, on_result=steps)
            except Exception as error:
                if len(outcomes) == 1:
                    raise
                found.append(evolve(outcome, error=error))
            else:
                found.append(evolve(outcome, report=report))
    return found


def _steps(progress: Progress, task: TaskID, subject: str, names: Sequence[str]) -> Callable[[object], None]:
    """Return what moves the bar on at each result, to the name of the next check."""
    left = iter([*names[1:], names[-1]])
    progress.update(task, description=f"{subject}  {names[0]}")
    return lambda result: progress.update(task, advance=1, description=f"{subject}  {next(left)}")


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    out = console(stderr=True)
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        yield progress
