"""Time before the first step: tracing a plan, importing kdiff, listing samplers.

Budgets: 10 ms for a plan of 50 steps, 50 ms where weights need quadrature; 0.1 s for ``import
kdiff_core`` beyond torch; 0.5 s for ``kdiff samplers``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from harness import Row, median, microseconds, parser, pinned, save, show
from peers import Problem

import kdiff_core as kd
from kdiff_core.errors import KdiffError
from kdiff_core.path import VE
from kdiff_core.tracing import trace

STEPS = 50
# Samplers whose weights are integrals without a closed form.
QUADRATURE = ("deis", "er_sde", "sa_solver", "unipc")
IMPORT = """
import time, torch
begin = time.perf_counter()
import kdiff_core
after = time.perf_counter()
if {whole}:
    for name in dir(kdiff_core):
        getattr(kdiff_core, name)
    after = time.perf_counter()
print(after - begin)
"""
CLI = "import sys; sys.argv[0] = 'kdiff'; from kdiff_core.cli import main; main()"


def trace_row(name: str, steps: int, budget: float) -> Row:
    """Time of tracing one sampler, uncached."""
    quadrature = name.startswith(QUADRATURE)
    try:
        sampler, process = kd.get_sampler(name), kd.get_process("sd")
        levels = sampler.levels(Problem((1, 1), steps).sigmas, VE, process)
        plan = trace(sampler, tuple(levels), VE, process)
    except (KdiffError, NotImplementedError, ImportError) as error:
        return {"sampler": name, "note": f"no plan: {error}"[:60]}
    milliseconds = microseconds(lambda: trace(sampler, tuple(levels), VE, process), budget, 3) / 1e3
    return {
        "sampler": name,
        "ms": milliseconds,
        "operations": len(list(plan.ops)),
        "operands": plan.operands,
        "buffers": plan.buffers,
        "budget ms": 50 if quadrature else 10,
        "within": milliseconds <= (50 if quadrature else 10),
    }


def import_command(whole: bool) -> list[str]:
    """A fresh interpreter that prints the time of the import beyond torch."""
    return [sys.executable, "-c", IMPORT.format(whole=whole)]


def cli_command() -> list[str]:
    """``kdiff samplers``, installed or not."""
    script = shutil.which("kdiff")
    return [script, "samplers"] if script else [sys.executable, "-c", CLI, "samplers"]


def seconds(command: Sequence[str], times: int, printed: bool) -> float | str:
    """Median of the seconds that a command prints, or else takes; or how it failed."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.perf_counter() - begin
        if done.returncode:
            return f"failed: {done.stderr.strip().splitlines()[-1]:.60}"
        found.append(float(done.stdout) if printed else took)
    return median(found)


def start_rows(times: int) -> list[Row]:
    """Rows of what is paid once a process."""
    commands = (
        ("import kdiff_core, torch there", import_command(False), True, 0.1),
        ("and every public name", import_command(True), True, 0.1),
        ("kdiff samplers", cli_command(), False, 0.5),
    )
    rows = []
    for what, command, printed, budget in commands:
        took = seconds(command, times, printed)
        within = took <= budget if isinstance(took, float) else None
        rows.append({"what": what, "s": took, "budget s": budget, "within": within})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__, "two samplers, few steps, one process of each kind")
    options.add_argument("--samplers", nargs="+", help="default: all that are registered")
    options.add_argument("--steps", type=int, default=STEPS)
    args = options.parse_args(argv)
    names = args.samplers or [entry.name for entry in kd.list_samplers() if ":" not in entry.name]
    times, budget = 5, 0.2
    if args.quick:
        names, args.steps, times, budget = ["euler", "lms"], 6, 1, 0.0
    with pinned():
        rows = [trace_row(name, args.steps, budget) for name in names]
    show(f"tracing {args.steps} steps, uncached", rows)
    starts = start_rows(times)
    show("starting", starts)
    save(args.json, {"tracing": rows, "starting": starts})


if __name__ == "__main__":
    main()
