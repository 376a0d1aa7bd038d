"""What is wrong here? Checks of an installation, of a run by name and of a training's folder.

A check is a function of what it looks at that returns a `Seen`; the first line of its docstring says what
is checked. `machine`, `sampling`, `model` and `training` each have a list of them; `examine` goes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from ..sample_job import SampleJob

Status: TypeAlias = Literal["ok", "warning", "problem", "skipped"]


class Seen(NamedTuple):
    """What a check saw.

    Attributes:
        status: "skipped" is what does not apply, or cannot be looked at.
        seen: What was seen, with its numbers.
        means: What it means.
        change: What to change.
    """

    status: Status
    seen: str
    means: str = ""
    change: str = ""


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        name: Name of the check.
        checked: What it looks at.
        status: "ok", "warning" (results may be poor), "problem" (they are wrong), or "skipped".
        seen: What was seen, with its numbers.
        means: What it means; empty if all is well.
        change: What to change; likewise.
    """

    name: str
    checked: str
    status: Status
    seen: str
    means: str
    change: str


Check: TypeAlias = Callable[[Any], Seen]


def ok(seen: str) -> Seen:
    """Return that all is well."""
    return Seen("ok", seen)


def skipped(why: str) -> Seen:
    """Return that there was nothing to look at."""
    return Seen("skipped", why)


def warning(seen: str, means: str, change: str) -> Seen:
    """Return that results may be poor."""
    return Seen("warning", seen, means, change)


def problem(seen: str, means: str, change: str) -> Seen:
    """Return that results are wrong."""
    return Seen("problem", seen, means, change)


def examine(checks: Sequence[Check], subject: Any) -> list[Finding]:
    """Make checks, one after the other; what one of them raises is a problem that it found.

    Args:
        checks: The checks.
        subject: What they look at.
    """
    found = []
    for check in checks:
        try:
            seen = check(subject)
        except Exception as error:  # of the model, a plugin or a file: whatever it is, it is to be told
            lines = str(error).splitlines() or [""]
            seen = problem(
                f"{type(error).__name__}: {lines[0]}".rstrip(": "),
                "what is examined fails when it is used",
                "run the same with --debug for the traceback, and mend what raises it",
            )
        name = check.__name__.replace("_", " ")
        found.append(Finding(name, (check.__doc__ or "").partition(".")[0], *seen))
    return found


def examine_machine() -> list[Finding]:
    """Examine the installation: Python, torch, devices, plugins, extras, threads."""
    from .machine import CHECKS

    return examine(CHECKS, None)


def examine_run(job: SampleJob, data: Any = None) -> list[Finding]:
    """Examine a run, and the model in it, by small runs of at most four samples.

    Args:
        job: The run; its memory is estimated for all of its samples.
        data: Real data to try the model on, as the ``init`` of `kdiff_core.sample`. Default: samples of the
            run, on which a model can look right that is taken for another.

    Raises:
        KdiffError: It cannot even be set up; the message says what would be right.
    """
    from . import model, sampling
    from .subject import Subject

    return examine([*sampling.CHECKS, *model.CHECKS], Subject(job, data))


def examine_training(folder: str | Path) -> list[Finding]:
    """Examine a training run by the files in its folder.

    Args:
        folder: The run's, with ``log.jsonl`` and ``checkpoints``.

    Raises:
        ParameterError: It has neither.
    """
    from .training import CHECKS, Training

    return examine(CHECKS, Training(folder))
