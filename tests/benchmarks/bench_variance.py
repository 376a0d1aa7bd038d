"""The variance that stochastic samplers give normal data, over the exact one, by the number of steps.

No sample is drawn. A sampler of kdiff is followed through its plan; a peer's is an affine function of its
noises on normal data, whose coefficients come out of one run in whose batch each noise acts alone (see
`bench_conformance`). Overlapping requests for noise are increments of one Brownian path where the peer does
so by default.

All go to level 0: on VE from 14.6 by Karras' levels down to 0.03, on flow by the levels of the same noise
over signal. One that cannot step to 0 ends with the denoised state. The data have the variance that the
table names; the ratio is 1 for a sampler that is exact. calls: of the model, at ten steps.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import torch
from accuracy_peers import Counted, ended, plain
from accuracy_problems import flow_karras, karras
from bench_conformance import moments
from conformance_peers import Subject, none
from conformance_subjects import subjects
from harness import Row, markdown, parser, save, show

import kdiff_core as kd
from kdiff_core.testing import Gaussian
from kdiff_core.testing.measure import output_moments

LIBRARIES = ("kdiff", "diffusers", "k-diffusion", "azula")
GRIDS = {"ve": karras, "flow": flow_karras}
STEPS = (5, 10, 20, 50, 100)
VARIANCES = (0.25, 1.0)
NEAR = 0.03
# For distilled models: a sample in each step, and no marginal to keep.
_DISTILLED = ("lcm", "consistency", "tcd", "trigflow")
# Options that a bare name does not have.
_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("er_sde", {"corrected": True}),
    ("dpmpp_3m_sde", {"corrected": True}),
    ("sa_solver_pece", {"eta": 0.5}),
    ("seeds_3", {"eta": 0.5}),
)


def own(name: str, sampler: Any, path: str, variance: float, steps: Sequence[int]) -> Row:
    """A row of one of kdiff's samplers."""
    problem, row = Gaussian(path, 0.0, (variance,)), {"library": "kdiff", "sampler": name}
    row["calls"] = sampler.plan(GRIDS[path](10), path).evaluations
    for n in steps:
        found = output_moments(sampler.plan(GRIDS[path](n), path), problem)
        row[n] = float(found.covariance[0, 0]) / variance
    return row


def kdiff(path: str, variance: float, steps: Sequence[int]) -> Iterator[Row]:
    """A row of each stochastic sampler that has a plan."""
    for entry in kd.list_samplers():
        sampler = kd.get_sampler(entry.name)
        if not entry.plugin.builtin or not sampler.stochastic or not sampler.linear:
            continue
        if not sampler.needs and not entry.name.startswith(_DISTILLED):
            yield own(entry.name, sampler, path, variance, steps)
    for name, options in _OPTIONS:
        told = ", ".join(f"{key}={value}" for key, value in options.items())
        yield own(f"{name}, {told}", kd.get_sampler(name, **options), path, variance, steps)


def measured(library: str, path: str, variance: float, steps: Sequence[int]) -> Iterator[Row]:
    """A row of each stochastic sampler of a library.

    Raises:
        ImportError: It is not installed.
    """
    return kdiff(path, variance, steps) if library == "kdiff" else peer(library, path, variance, steps)


def peer(library: str, path: str, variance: float, steps: Sequence[int]) -> Iterator[Row]:
    """A row of each stochastic sampler of a peer; k-diffusion's are all written for VE."""
    problem = Gaussian(path, 0.0, (variance,))
    for subject in subjects(library):
        if subject.weak is None or subject.kind != path:
            continue
        run = plain(subject.run)
        whole = attrs.evolve(subject, run=run if subject.ends else ended(run))
        row: Row = {"library": library, "sampler": subject.name, "calls": calls(whole, problem)}
        yield row | {n: ratio(whole, problem, GRIDS[path](n), variance) for n in steps}


def calls(subject: Subject, problem: Gaussian) -> int:
    """Model calls of ten steps."""
    model = Counted(problem, problem.path)
    try:
        subject.run(model, torch.ones(1, 1, dtype=torch.float64), GRIDS[problem.path](10), none, None)
    except Exception:  # whatever a peer raises is the finding
        return 0
    return model.calls


def ratio(subject: Subject, problem: Gaussian, levels: Sequence[float], variance: float) -> float:
    """The output's variance over that of the data; nan where it fails."""
    try:
        return float(moments(subject, problem, levels).covariance[0, 0]) / variance
    except Exception:  # whatever a peer raises is the finding
        return math.nan


def near(tables: dict[str, list[Row]], steps: int = 10) -> list[str]:
    """The samplers of kdiff whose variance is within 3 % in every table."""
    own = [[row for row in rows if row["library"] == "kdiff"] for rows in tables.values()]
    inside = [{row["sampler"] for row in rows if abs(row[steps] - 1) <= NEAR} for rows in own]
    return sorted(set.intersection(*inside))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    result = parser(__doc__, "kdiff alone, one variance, 5 and 10 steps")
    result.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    only = "this one alone; may be repeated"
    result.add_argument("--library", choices=LIBRARIES, action="append", help=only)
    return result.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = arguments(argv)
    libraries = args.library or (["kdiff"] if args.quick else LIBRARIES)
    steps, variances = (STEPS[:2], VARIANCES[:1]) if args.quick else (STEPS, VARIANCES)
    tables: dict[str, list[Row]] = {}
    for path in GRIDS:
        for variance in variances:
            rows = tables[f"{path}, data of variance {variance:g}"] = []
            for library in libraries:
                try:
                    rows += measured(library, path, variance, steps)
                except ImportError as reason:
                    print(f"left out: {reason}", file=sys.stderr)
    for title, rows in tables.items():
        print(f"\n### {title}\n\n{markdown(rows)}") if args.markdown else show(title, rows)
    if "kdiff" in libraries:
        found = near(tables)
        print(f"\nof ours within {NEAR:.0%} at 10 steps, everywhere: {', '.join(found) or 'none'}")
    save(args.json, tables)


if __name__ == "__main__":
    main()
