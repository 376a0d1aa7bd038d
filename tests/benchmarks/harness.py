"""What the benchmarks share: pinning, interleaved timing, tables, JSON."""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

SHAPES = {"small": (1, 4, 64, 64), "medium": (4, 4, 128, 128), "video": (1, 16, 21, 60, 104)}

Row = dict[str, Any]


def parser(description: str | None, quick: str) -> argparse.ArgumentParser:
    """Return a command line with the options that all benchmarks have.

    Args:
        description: The script's docstring.
        quick: What ``--quick`` does.
    """
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--quick", action="store_true", help=quick)
    result.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON too")
    return result


@contextmanager
def pinned(wanted: bool = True) -> Iterator[None]:
    """Run on one thread of torch, and on one CPU where the system can pin a process."""
    threads = torch.get_num_threads()
    cpus = os.sched_getaffinity(0) if wanted and hasattr(os, "sched_setaffinity") else None
    torch.set_num_threads(1)
    try:
        if cpus is not None:
            os.sched_setaffinity(0, {max(cpus)})
        yield
    finally:
        torch.set_num_threads(threads)
        if cpus is not None:
            os.sched_setaffinity(0, cpus)


def seconds_of(run: Callable[[], Any], device: str = "cpu") -> float:
    """Time one call; on a GPU by events around all the work that it queued."""
    if device == "cpu":
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def interleaved(
    runs: Mapping[str, Callable[[], Any]], budget: float, least: int = 5, device: str = "cpu"
) -> dict[str, list[float]]:
    """Time several calls round by round, so that a busy moment of the machine meets all of them.

    The order changes from round to round: another process that takes the CPU away at regular times would
    otherwise meet the same call each time.

    Args:
        runs: The calls.
        budget: Seconds to spend on all of them.
        least: Rounds to do even if that takes longer.
        device: Where they run.

    Returns:
        The seconds of each call, round by round.
    """
    for run in runs.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    gc.collect()
    gc.disable()
    end, rounds = time.perf_counter() + budget, 0
    try:
        while rounds < least or time.perf_counter() < end:
            random.shuffle(names)
            for name in names:
                found[name].append(seconds_of(runs[name], device))
            rounds += 1
    finally:
        gc.enable()
    return found


def median(values: Sequence[float]) -> float:
    """Median."""
    return statistics.median(values)


def geometric(values: Sequence[float]) -> float:
    """Geometric mean."""
    return math.exp(sum(math.log(v) for v in values) / len(values)) if values else math.nan


def microseconds(run: Callable[[], Any], budget: float = 0.2, least: int = 5) -> float:
    """Median time of one call, in µs; short calls are timed in groups."""
    begin = time.perf_counter()
    run()
    once = time.perf_counter() - begin
    group = max(1, int(2e-4 / max(once, 1e-7)))

    def several() -> None:
        for _ in range(group):
            run()

    return median(interleaved({"": several}, budget, least)[""]) / group * 1e6


def environment() -> dict[str, str]:
    """Return what the numbers depend on."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": str(os.cpu_count()),
    }


def cell(value: Any) -> str:
    """Format a value for a table."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "[green]pass[/]" if value else "[red]FAIL[/]"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def show(title: str, rows: Sequence[Row], caption: str | None = None) -> None:
    """Print rows as a table; columns are their keys in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(str(column), justify="left" if number == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    Console(width=max(180, Console().width)).print(table)


def markdown(rows: Sequence[Row]) -> str:
    """Rows as a table in Markdown; columns are their keys in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [["" if row.get(c) is None else cell(row[c]) for c in columns] for row in rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def save(file: Path | None, tables: Mapping[str, Sequence[Row]]) -> None:
    """Write all tables to a JSON file, if one was asked for."""
    if file is not None:
        whole = {"environment": environment(), **{name: list(rows) for name, rows in tables.items()}}
        file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
