"""The kit in a pytest file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from attrs import evolve, frozen

from .catalogue import Check, LawBroken
from .running import chosen, run_check
from .settings import Settings
from .subjects import Subject, subject_of


@frozen
class BoundCheck:
    """A check of a subject, which a test calls.

    Attributes:
        check: The check.
        subject: What it is of.
        examples: Random examples, in place of those of pytest's option.
    """

    check: Check
    subject: Subject
    examples: int | None = None

    def __call__(self) -> None:
        """Run it with the options of pytest.

        Raises:
            LawBroken: The law does not hold; the message has the numbers, the seed and a script.
        """
        __tracebackhide__ = True
        settings = Settings.from_environment()
        if self.examples is not None:
            settings = evolve(settings, examples=self.examples)
        result = run_check(self.check, self.subject, settings)
        if result.status == "skipped":
            pytest.skip("slow; run with --kdiff-slow")
        if result.status in ("failed", "expected"):  # pytest knows which one
            message = f"{result.explain()}\n\n{result.traceback}".rstrip()
            raise LawBroken(message, **result.numbers) from None


def parametrize_with_checks(
    subjects: Iterable[Any],
    *,
    kind: str | None = None,
    only: Any = None,
    known_failures: Mapping[str, str] | None = None,
    examples: int | None = None,
) -> Callable[[Any], Any]:
    """Make a pytest test of each check of each subject.

    ```python
    @parametrize_with_checks([MySampler(), MySampler(eta=0.5), "my_schedule"])
    def test_laws(check):
        check()
    ```

    Args:
        subjects: What `kdiff_core.testing.check` takes.
        kind: What they are, where it does not show.
        only: Name or names of checks, in place of all.
        known_failures: Checks that all of them are known to fail, with the reason; beside those that a
            subject lists itself. They are strict expected failures: red once they pass.
        examples: Random examples of a check of ordinary cost. Default: the option ``--kdiff-examples``.

    Returns:
        A decorator for a test with the one argument `check`.
    """
    cases = []
    for each in subjects:
        subject = subject_of(each, kind).expecting(known_failures)
        for found in chosen(subject, only):
            marks = [pytest.mark.kdiff]
            if found.slow:
                marks.append(pytest.mark.kdiff_slow)
            if reason := subject.known_failures.get(found.name):
                marks.append(pytest.mark.xfail(strict=True, raises=LawBroken, reason=reason))
            case = BoundCheck(found, subject, examples)
            cases.append(pytest.param(case, id=f"{found.name}-{subject.label}", marks=marks))
    return pytest.mark.parametrize("check", cases)
