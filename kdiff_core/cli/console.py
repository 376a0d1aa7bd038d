"""What the commands share: consoles, tables, options written as ``key=value``."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ParameterError
from ..lookup import default_registry
from ..registry import KINDS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ..registry import ResolvedEntry

_PIPED_WIDTH = 200
_GAP = 2  # between two columns
_LEAST = 8  # of a column's width, where its words have to be cut
Options = dict[str, Any]


def console(stderr: bool = False) -> Console:
    """Return a console. Where the output is no terminal and COLUMNS says nothing, its lines are long."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def say(text: str = "") -> None:
    """Print a line of text as it is, however long."""
    console().print(text, markup=False, soft_wrap=True)


def say_json(data: Any) -> None:
    """Print data as JSON."""
    say(json.dumps(data, indent=2, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], wrapped: Sequence[str] = ()) -> None:
    """Print a table. The `wrapped` columns share what the others leave; nothing is cut."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = console()
    cells = [[v if isinstance(v, Text) else Text(_cell(v)) for v in row] for row in rows]
    texts = [[Text(name), *(row[i] for row in cells)] for i, name in enumerate(columns)]
    widths = _widths(texts, [name in wrapped for name in columns], out.width)
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    found.header_style = "bold"
    for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
        found.add_column(column, width=width, overflow="fold", style="cyan" if number == 0 else None)
    for row in cells:
        found.add_row(*row)
    out.print(found)


def _widths(columns: Sequence[Sequence[Text]], wrapped: Sequence[bool], total: int) -> list[int]:
    """Return the width of each column: the longest cell, or for wrapped ones what room there is."""
    widths = [max(text.cell_len for text in column) for column in columns]
    words = [
        max((len(word) for text in column for word in text.plain.split()), default=0) for column in columns
    ]
    excess = sum(widths) + _GAP * (len(widths) - 1) - total
    # Down to the longest word, and where that does not do, through the words.
    for least in (words, [_LEAST] * len(widths)):
        while excess > 0 and (able := [i for i, w in enumerate(widths) if wrapped[i] and w > least[i]]):
            widths[max(able, key=lambda i: widths[i])] -= 1
            excess -= 1
    return widths


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def provider(entry: ResolvedEntry) -> str:
    """Return the distribution and version that an entry comes from."""
    return f"{entry.plugin.distribution} {entry.plugin.version}".strip()


def complete(*kinds: str) -> Callable[[str], list[str]]:
    """Return what completes names of some kinds in a shell; of all kinds if none is given."""

    def names(incomplete: str) -> list[str]:
        found = {entry.name for kind in kinds or KINDS for entry in default_registry().list(kind)}
        return sorted(name for name in found if name.startswith(incomplete))

    return names


def parse_options(
    words: Iterable[str], owners: Sequence[str] = ("sampler", "schedule", "model")
) -> dict[str, Options]:
    """Read ``--set`` options.

    Args:
        words: ``key=value`` for the sampler, ``schedule.key=value`` and ``model.key=value`` for those. Values
            are Python literals; what is none is a string. For "guide" also ``guide.name.key=value``, whose
            option keeps the name.
        owners: Whom options can be for; the first is that of a key without an owner.

    Returns:
        The options of each owner.

    Raises:
        ParameterError: A word without "=", or for something else.
    """
    found: dict[str, Options] = {owner: {} for owner in owners}
    for word in words:
        key, equals, value = word.partition("=")
        owner, _, name = key.strip().partition(".") if "." in key else (owners[0], "", key.strip())
        inner, _, option = name.rpartition(".")
        fits = owner in found and option.isidentifier() and (not inner or owner == "guide")
        if not equals or not fits:
            raise ParameterError(
                f"--set {word!r}: write key=value, such as --set s_churn=40, --set schedule.rho=5 "
                "or --set model.path=flow"
            )
        found[owner][name] = _literal(value.strip())
    return found


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text) if text.lstrip("+-") in ("inf", "nan") else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
