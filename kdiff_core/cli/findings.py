"""Marks of what holds and what does not, and a broken law as a panel with its script."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .console import console, say

if TYPE_CHECKING:
    from rich.text import Text

    from ..testing.results import CheckResult

_WIDEST = 110  # of a panel
# Mark, mark where the output has no such characters, style.
MARKS = {
    "passed": ("\N{CHECK MARK}", "ok", "green"),
    "failed": ("\N{BALLOT X}", "FAIL", "bold red"),
    "fixed": ("fixed", "fixed", "bold red"),
    "expected": ("known", "known", "yellow"),
    "skipped": ("slow", "slow", "dim"),
}
_FRAME = re.compile(r'File "(.+)", line (\d+), in (\S+)')


def forgive() -> None:
    """Let streams that cannot show a character show a question mark, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if console(stderr=stream is sys.stderr).options.ascii_only and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def sign(unicode: str, ascii: str) -> str:
    """Return the first, or the second where the output has no room for more than ASCII."""
    options = console().options
    return ascii if options.ascii_only or options.legacy_windows else unicode


def mark(status: str) -> Text:
    """Return the mark of a status."""
    from rich.text import Text

    unicode, ascii, style = MARKS[status]
    return Text(sign(unicode, ascii), style)


def joined(words: Iterable[str]) -> str:
    """Return the words that are not empty, with dots between them."""
    return sign(" \N{MIDDLE DOT} ", " | ").join(word for word in words if word)


def counted(number: int, what: str) -> str:
    """Return a number of things."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def show_failure(result: CheckResult, verbose: bool) -> None:
    """Print a panel about a law that does not hold; below it, bare of lines, the script that shows it."""
    from rich.panel import Panel
    from rich.syntax import Syntax
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    for label, value in _findings(result):
        grid.add_row(Text(label, "bold"), Text(value))
    verb = "keeps" if result.status == "fixed" else "breaks"
    title = Text.assemble(mark(result.status), f" {result.subject} {verb} ", (result.check, "bold"))
    out = console()
    width = min(out.width, _WIDEST)
    out.print(Panel(grid, title=title, title_align="left", border_style="red", width=width))
    if result.snippet and result.status == "failed":
        code = Syntax("", "python", theme="ansi_dark").highlight(result.snippet.rstrip())
        code.rstrip()  # the highlighter ends in a new line
        out.print(code, soft_wrap=True)
    if verbose and result.traceback:
        say(f"\n{result.traceback.rstrip()}")
    say()


def _findings(result: CheckResult) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of a failure, each with its label."""
    from ..testing.results import show as shown

    yield "law", result.law
    if result.status == "fixed":
        yield "found", "it holds, but is listed as known to be broken; take it out of known_failures"
        yield "listed", result.why
        yield "seed", f"{result.seed}, {counted(result.examples, 'example')} tried"
        return
    yield "found", result.message
    if frames := _FRAME.findall(result.traceback):
        file, line, function = frames[-1]
        yield "at", f"{'/'.join(Path(file).parts[-2:])}:{line} in {function}"
    if result.numbers:
        yield "numbers", ", ".join(f"{name} = {shown(value)}" for name, value in result.numbers.items())
    yield "seed", f"{result.seed}; example {result.examples:,} fails, in its simplest form:"
