"""What a run of the kit found, for machines and for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import asdict, field, frozen

from .catalogue import LawBroken
from .settings import Settings

Status = Literal["passed", "failed", "expected", "fixed", "skipped"]


@frozen
class CheckResult:
    """What became of one check of one subject.

    Attributes:
        check: Name of the check.
        kind: What it is about.
        subject: The subject, as it was asked for or as it prints.
        status: ``"passed"``; ``"failed"``; ``"expected"``: failed as the subject says it does (`why`);
            ``"fixed"``: said to fail, but passes; ``"skipped"``: slow, and not asked for.
        law: The law in a sentence.
        reason: Why it must hold.
        examples: Examples tried.
        seconds: Time it took.
        measured: Least and greatest value of what was measured, by name.
        message: What is wrong, where something is.
        numbers: The failure's numbers by name.
        example: Arguments of the simplest example that fails.
        seed: Seed of the examples.
        snippet: Python that reproduces the failure.
        why: Reason of an expected failure.
        traceback: Of an exception that is no finding of the check.
    """

    check: str
    kind: str
    subject: str
    status: Status
    law: str
    reason: str = ""
    examples: int = 0
    seconds: float = 0.0
    measured: Mapping[str, tuple[float, float]] = field(factory=dict)
    message: str = ""
    numbers: Mapping[str, Any] = field(factory=dict)
    example: Mapping[str, Any] = field(factory=dict)
    seed: int = 0
    snippet: str = ""
    why: str = ""
    traceback: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing has to be done: it passed, was skipped, or failed as it is known to."""
        return self.status in ("passed", "expected", "skipped")

    def explain(self) -> str:
        """The failure for people: the law, the numbers, the seed, and how to see it again."""
        if self.status == "fixed":
            return (
                f"{self.check}: {self.subject} is said to break this law ({self.why}), but keeps it; take it "
                "out of known_failures"
            )
        lines = [
            f"{self.check}: {self.subject} breaks a law",
            f"  law: {self.law}",
            f"  found: {self.message}",
        ]
        if self.numbers:
            lines.append("  numbers: " + ", ".join(f"{k} = {show(v)}" for k, v in self.numbers.items()))
        lines.append(f"  seed: {self.seed}; example {self.examples} fails, here in its simplest form")
        lines += ["  reproduce:", *(f"    {line}" for line in self.snippet.splitlines())]
        return "\n".join(lines)

    def raise_if_broken(self) -> None:
        """Raise `LawBroken` with the explanation, unless all is well."""
        if not self.ok:
            raise LawBroken(self.explain(), **self.numbers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able data."""
        found = asdict(self, recurse=False)
        for name in ("numbers", "example"):
            found[name] = {key: _plain(value) for key, value in found[name].items()}
        return {**found, "measured": {key: list(value) for key, value in self.measured.items()}}


@frozen
class Report:
    """The results of a subject's checks.

    Attributes:
        subject: The subject, as it was asked for or as it prints.
        kind: What it is.
        declared: What it says of itself.
        settings: The budget and place of the run.
        results: One for each check that applies, in the catalogue's order.
    """

    subject: str
    kind: str
    declared: Mapping[str, Any]
    settings: Settings
    results: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether every law holds that is not known to be broken."""
        return all(result.ok for result in self.results)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The results that are not as they should be."""
        return tuple(result for result in self.results if not result.ok)

    def __getitem__(self, check: str) -> CheckResult:
        """Return the result of a check by its name."""
        for result in self.results:
            if result.check == check:
                return result
        raise KeyError(f"no check {check!r} ran; there are {', '.join(r.check for r in self.results)}")

    def __str__(self) -> str:
        """Summarise in a line, and explain each failure."""
        counts = {
            s: sum(r.status == s for r in self.results) for s in ("passed", "failed", "expected", "fixed")
        }
        line = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        return "\n\n".join([f"{self.subject}: {line}", *(result.explain() for result in self.failures)])

    def raise_if_broken(self) -> None:
        """Raise `LawBroken` with all failures, unless all is well."""
        if not self.ok:
            raise LawBroken(str(self))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able data."""
        return {
            "subject": self.subject,
            "kind": self.kind,
            "ok": self.ok,
            "declared": {key: _plain(value) for key, value in self.declared.items()},
            "settings": asdict(self.settings),
            "results": [result.to_dict() for result in self.results],
        }


def show(value: Any) -> str:
    """A number for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return repr(value)
