"""What `kdiff check` prints: a table of laws or of subjects, the failures, and a line to sum up."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .checking import Outcome
from .console import console, provider, say
from .facts import calls_per_step, described
from .findings import MARKS, counted, joined, mark, show_failure, sign

if TYPE_CHECKING:
    from rich.text import Text

    from ..testing import Check
    from ..testing.results import CheckResult

# Check whose measured order is the one that a sampler declares.
_ORDER = "one_step_order"
_SMALL = 1e-3
_RIGHT = ("laws", "examples", "time")
_WRAPPED = ("law", "measured", "name", "not held")


def show(outcomes: Sequence[Outcome], seconds: float, verbose: bool) -> None:
    """Print everything that was found.

    Args:
        outcomes: What became of each target.
        seconds: Time that it took.
        verbose: Whether to print each table of laws, the reasons and the tracebacks.
    """
    if len(outcomes) == 1 or verbose:
        for outcome in outcomes:
            if outcome.report is not None:
                _header(outcome)
                _laws(outcome.results, verbose)
                say()
    if len(outcomes) > 1:
        _overview(outcomes)
        say()
    for outcome in outcomes:
        for result in outcome.results:
            if not result.ok:
                show_failure(result, verbose)
    console().print(_summary(outcomes, seconds))


def show_checks(checks: Iterable[Check], verbose: bool) -> None:
    """Print the checks with their kinds and laws."""
    rows = [
        [_name(c.name), c.kind, _law(c.law, "slow" if c.slow else "", "dim", c.reason if verbose else "")]
        for c in checks
    ]
    _table(["check", "of a", "law"], rows, verbose)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]], airy: bool = False) -> None:
    """Print a table; only columns of text are wrapped, and columns without content are left out."""
    from rich import box
    from rich.table import Table

    found = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, leading=int(airy)
    )
    found.header_style = "bold"
    used = [i for i, head in enumerate(heads) if not head or any(str(row[i]) for row in rows)]
    for head in (heads[i] for i in used):
        justify = "right" if head in _RIGHT else "left"
        found.add_column(head, no_wrap=head not in _WRAPPED, overflow="fold", justify=justify)  # type: ignore[arg-type]
    for row in rows:
        found.add_row(*(row[i] for i in used))
    console().print(found)


def _name(text: str) -> Text:
    from rich.text import Text

    return Text(text, "cyan")


def _law(law: str, note: str = "", style: str = "dim", reason: str = "") -> Text:
    """Return a law, below it more about it."""
    from rich.text import Text

    parts = [Text(law), Text(note, style), Text(reason, "dim")]
    return Text("\n").join(part for part in parts if part)


# -- one subject


def _header(outcome: Outcome) -> None:
    """Print the name, what it is, and what it says of itself."""
    from rich.text import Text

    kind, entry = outcome.target.kind, outcome.target.entry
    printed = " ".join(_printed(outcome).split())
    console().print(Text.assemble((outcome.name, "bold cyan"), (f"  {kind}  ", "dim"), printed))
    facts = [*(_facts(outcome) if kind == "sampler" else []), provider(entry) if entry else ""]
    if line := joined(facts):
        console().print(Text(line, "dim"))
    say()


def _printed(outcome: Outcome) -> str:
    """Return what is checked as Python writes it: of a noise source its class."""
    from ..testing.written import source_of

    if outcome.target.kind == "noise" and outcome.target.entry is not None:
        return source_of(outcome.target.entry.load())[1]
    return "" if outcome.subject is None else source_of(outcome.subject.value)[1]


def _facts(outcome: Outcome) -> Iterator[str]:
    """Yield what a sampler declares, and the model calls of a step."""
    declared: Mapping[str, Any] = {} if outcome.report is None else outcome.report.declared
    order = declared.get("order", "?")
    smooth = declared.get("order_smooth", order)
    yield f"order {order}" + (f" ({smooth} on equal steps)" if smooth != order else "")
    yield f"memory {declared.get('memory', '?')}"
    yield "draws noise" if declared.get("stochastic") else "no noise"
    try:
        with contextlib.redirect_stdout(sys.stderr):
            calls = calls_per_step(outcome.subject.value if outcome.subject else None)
    except Exception:  # the checks say what is wrong
        yield "? calls a step"
    else:
        yield "calls known only from a run" if calls is None else f"{calls:g} call{'s' * (calls != 1)} a step"


def _laws(results: Sequence[CheckResult], verbose: bool) -> None:
    """Print a line for each check; where more is wanted, its law and the reason too."""
    rows = []
    for result in results:
        count = f"{result.examples:,}" if result.examples else ""
        law = [_law(result.law, reason=result.reason)] if verbose else []
        measured = _measured(result.measured, "\n" if verbose else ", ")
        rows.append([mark(result.status), _name(result.check), *law, measured, count, _time(result.seconds)])
    heads = ["", "check", *(["law"] if verbose else []), "measured", "examples", "time"]
    _table(heads, rows, verbose)
    for result in results:
        if result.status == "expected":
            console().print(f"\nknown: {result.check}: {result.why}", style="yellow", markup=False)


def _measured(measured: Mapping[str, tuple[float, float]], between: str) -> str:
    """Return the range of each number; of one that stays near 0, an error, how large it gets."""
    at_most, to = sign("\N{LESS-THAN OR EQUAL TO}", "<="), sign("\N{HORIZONTAL ELLIPSIS}", "..")
    lines = []
    for name, (low, high) in measured.items():
        first, last = _number(float(low)), _number(float(high))
        if first == last:
            lines.append(f"{name} {first}")
        elif 0 <= low < high / 10 < _SMALL:
            lines.append(f"{name} {at_most} {last}")
        else:
            lines.append(f"{name} {first} {to} {last}")
    return between.join(lines)


def _number(value: float) -> str:
    if value == round(value, 9) and value.is_integer() and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.2f}" if 0.1 <= abs(value) < 1000 else f"{value:.2g}"


def _time(seconds: float) -> str:
    if seconds < 0.0995:
        return "" if seconds == 0 else f"{max(1, round(1000 * seconds))} ms"
    return f"{seconds:.1f} s"


# -- several subjects


def _overview(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each subject."""
    rows = []
    for outcome in outcomes:
        tried = [result for result in outcome.results if result.status != "skipped"]
        laws = f"{sum(r.status == 'passed' for r in tried)}/{len(tried)}" if outcome.report else ""
        seconds = _time(sum(result.seconds for result in tried))
        name, kind = _name(outcome.name), outcome.target.kind
        rows.append([_state(outcome), name, kind, laws, _order(outcome), seconds, _note(outcome)])
    _table(["", "name", "kind", "laws", "order", "time", "not held"], rows)


def _state(outcome: Outcome) -> Text:
    from rich.text import Text

    if outcome.unchecked:
        return Text("-", "dim")
    return mark("passed" if outcome.report is not None and outcome.report.ok else "failed")


def _order(outcome: Outcome) -> str:
    """Return the measured order that is farthest from the declared one, and that."""
    from ..testing.variants import deterministic

    for result in outcome.results:
        if result.check == _ORDER and outcome.subject is not None:
            declared = deterministic(outcome.subject.value).order
            found = [*result.measured.get("order", ()), result.numbers.get("measured")]
            orders = [order for order in found if isinstance(order, float)]
            if orders:
                return f"{max(orders, key=lambda order: abs(order - declared)):.2f} of {declared}"
    return ""


def _note(outcome: Outcome) -> Text:
    """Return what does not hold, or why nothing was checked."""
    from rich.text import Text

    if outcome.unchecked:
        return Text(f"not checked: {outcome.unchecked}", "dim")
    if outcome.error is not None:
        return Text(described(outcome.error), "red")
    broken = ", ".join(r.check for r in outcome.results if not r.ok)
    known = ", ".join(r.check for r in outcome.results if r.status == "expected")
    parts = [Text(broken, "red"), Text(f"known: {known}" if known else "", "yellow")]
    return Text("\n").join(part for part in parts if part)


# -- the end


def _summary(outcomes: Sequence[Outcome], seconds: float) -> Text:
    """Return the line that says it all."""
    from rich.text import Text

    results = [result for outcome in outcomes for result in outcome.results]
    count = {status: sum(result.status == status for result in results) for status in MARKS}
    errors = sum(outcome.error is not None for outcome in outcomes)
    words = [
        f"{counted(count['failed'], 'law')} broken" if count["failed"] else "",
        f"{count['fixed']:,} said to be broken, but not" if count["fixed"] else "",
        f"{errors:,} could not be checked" if errors else "",
        f"{counted(count['passed'], 'law')} hold{'s' * (count['passed'] == 1)}",
        f"{count['expected']:,} known to be broken" if count["expected"] else "",
        f"{count['skipped']:,} slow left out" if count["skipped"] else "",
        counted(sum(result.examples for result in results), "example"),
        *_settings(outcomes),
        f"{seconds:.1f} s",
    ]
    good = not (count["failed"] or count["fixed"] or errors)
    return Text(joined(words), "green" if good else "bold red")


def _settings(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the seed, and what is not as it is by default."""
    for report in [outcome.report for outcome in outcomes if outcome.report is not None][:1]:
        settings = report.settings
        yield settings.device * (settings.device != "cpu")
        yield settings.dtype * (settings.dtype != "float64")
        yield f"only {settings.paths[0]}" if len(settings.paths) == 1 else ""
        yield f"seed {settings.seed}"
