"""What the commands share: consoles, tables, options written as ``key=value``."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ParameterError
from ..registry import KINDS, default_registry

if TYPE_CHECKING:
    from rich.console import Console

    from ..registry import ResolvedEntry

_PIPED_WIDTH = 200
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
    """Print a table; only the `wrapped` columns may take several lines, the others end in an ellipsis."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for number, column in enumerate(columns):
        inside = column in wrapped
        style = "cyan" if number == 0 else None
        found.add_column(column, no_wrap=not inside, overflow="fold" if inside else "ellipsis", style=style)
    for row in rows:
        found.add_row(*(value if isinstance(value, Text) else Text(_cell(value)) for value in row))
    console().print(found)


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


def parse_options(words: Iterable[str]) -> dict[str, Options]:
    """Read ``--set`` options.

    Args:
        words: ``key=value`` for the sampler, ``schedule.key=value`` and ``model.key=value`` for those. Values
            are Python literals; what is none is a string.

    Returns:
        The options of "sampler", "schedule" and "model".

    Raises:
        ParameterError: A word without "=", or for something else.
    """
    found: dict[str, Options] = {"sampler": {}, "schedule": {}, "model": {}}
    for word in words:
        key, equals, value = word.partition("=")
        owner, dot, name = key.strip().rpartition(".")
        if not equals or not name.isidentifier() or (dot and owner not in found):
            raise ParameterError(
                f"--set {word!r}: write key=value, such as --set s_churn=40, --set schedule.rho=5 "
                "or --set model.path=flow"
            )
        found[owner or "sampler"][name] = _literal(value.strip())
    return found


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text) if text.lstrip("+-") in ("inf", "nan") else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
