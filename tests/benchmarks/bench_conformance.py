"""The kit turned on the peers: do their samplers have the order, and the distribution, that they promise?

Each sampler is a black box, run in float64 (see `conformance_peers`), and meets the kit's laws:

uneven: the order of one step with exact history, on steps that differ by up to a factor of two; smallest
and largest over several draws. even: the same on equal steps in log-SNR. The data are normal of four
variances, and the steps of the SDE's solvers, of which noise is left out, are compared with the exact
drift on a mixture of normals. run: the order of whole runs on a mixture, from a cold start, which caps a
method with a memory at about 2.

weak: the order in which mean and variance of the output approach the exact ones on normal data. No sample
is drawn: the output is an affine function of the noises, whose coefficients come out of one run, in whose
batch each noise acts alone. var 10: the output's variance over the exact one after ten steps (Karras'
levels from 10 to 0.1, data of variance 1/4). to 0: whether runs of one and of three steps
to level 0 come to an end; else the number of steps and what happened.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from conformance_peers import Subject, none
from conformance_subjects import PEERS, subjects
from harness import Row, parser, save, show
from torch import Tensor

import kdiff_core as kd
from kdiff_core.path import as_path
from kdiff_core.testing import Gaussian, Mixture
from kdiff_core.testing.measure import Moments, slope, smooth_grid
from kdiff_core.testing.problems import random_state, solve

TOLERANCE = 0.3
SIZES = (0.04, 0.02, 0.01, 0.005)
VARIANCES = (0.01, 0.2, 1.0, 4.0)
COLUMNS = ("sampler", "promised", "uneven", "even", "run", "weak", "var 10", "to 0", "verdict")


class Drift:
    """The denoiser whose probability flow is the reverse SDE without its noise, on the VE path."""

    path = "ve"

    def __init__(self, problem: Any) -> None:
        self.problem = problem

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return 2 * self.problem(x, sigma) - x


def grid_of(subject: Subject, h: float, ratios: Sequence[float], lam: float) -> list[float]:
    """Levels whose last step is `h` in log-SNR; those before it, or the parts of it, are as the ratios say.

    They are rounded to float32, in which some peers keep their levels: then those are the very levels.
    """
    if subject.per > 1:
        parts = ratios[: subject.per]
        sizes = [h * part / sum(parts) for part in parts]
    else:
        sizes = [h * ratio for ratio in reversed(ratios[: subject.memory])] + [h]
    ends = [lam + h - sum(sizes[i:]) for i in range(len(sizes) + 1)]
    return [as_path(subject.kind).from_ratio(float(np.float32(math.exp(-end)))) for end in ends]


def one_step_error(subject: Subject, h: float, ratios: Sequence[float], lam: float) -> float:
    """Error of the last step, after exact ones."""
    grid = grid_of(subject, h, ratios, lam)
    if subject.drift:
        problem: Any = Mixture(path=subject.kind)
        x, truth = random_state(1, batch=4, shape=(2,), scale=1.2), Drift(problem)
        known = {level: solve(truth, x, grid[0], level) for level in grid}
        exact: Callable[[float], Tensor] = known.__getitem__
    else:
        problem, x = Gaussian(subject.kind, covariance=VARIANCES), torch.ones(1, 4, dtype=torch.float64)
        exact = lambda level: problem.exact(x, grid[0], level)  # noqa: E731
    end = subject.run(problem, x, grid, none, exact if subject.memory else None)
    return float((end - exact(grid[-1])).norm())


def one_step_order(subject: Subject, ratios: Sequence[float], lam: float) -> float:
    """Order of one step."""
    return slope(SIZES, [one_step_error(subject, h, ratios, lam) for h in SIZES]) - 1.0


def run_order(subject: Subject, counts: Sequence[int]) -> float:
    """Order of whole runs from a cold start, or that of their finer half where it is higher.

    A step of a single-step method is all its parts.
    """
    problem = Mixture(path=subject.kind)
    grids = [_float32(smooth_grid(subject.kind, n * subject.per, 0.3)) for n in counts]
    x = random_state(0, batch=6, shape=(2,), scale=1.0) * grids[0][0]
    exact = problem.exact(x, grids[0][0], grids[0][-1])
    errors = [float((subject.run(problem, x, grid, none, None) - exact).norm()) for grid in grids]
    sizes = [1 / n for n in counts]
    return max(slope(sizes, errors), slope(sizes[-2:], errors[-2:]))


def _float32(levels: Sequence[float]) -> list[float]:
    return [float(np.float32(level)) for level in levels]


def moments(subject: Subject, problem: Gaussian, grid: Sequence[float]) -> Moments:
    """Mean and variances of the output, without sampling.

    A first run notes the requests for noise. In the second one the batch is: the mean; one standard
    deviation away from it; and, for each source of noise, the mean with that source at 1.
    """
    mean, covariance = problem.marginal(grid[0])
    start = torch.tensor(mean)[None]
    requests: list[tuple[float, ...]] = []

    def note(*interval: Any) -> Tensor:
        requests.append(tuple(float(f"{float(end):.12g}") for end in interval))
        return none()

    subject.run(problem, start, grid, note, None)
    shares = _shares(requests) if subject.shared else np.eye(len(requests))
    x = start.repeat(2 + shares.shape[1], 1)
    x[1] += torch.tensor(covariance).diagonal().sqrt()
    rows = iter(shares)

    def draw(*interval: Any) -> Tensor:
        noise = torch.zeros_like(x)
        noise[2:] = torch.tensor(next(rows))[:, None]
        return noise

    out = subject.run(problem, x, grid, draw, None).numpy()
    return Moments(out[0], np.diag(((out[1:] - out[0]) ** 2).sum(0)))


def _shares(requests: Sequence[tuple[float, ...]]) -> np.ndarray:
    """What each piece of one Brownian path, in the level's own measure, has in each request."""
    cuts = sorted({end for request in requests for end in request})
    lengths = np.diff(cuts)
    pieces = list(itertools.pairwise(cuts))
    inside = np.array([[min(r) <= a and b <= max(r) for a, b in pieces] for r in requests])
    weights = inside * np.sqrt(lengths)
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True))


def weak_order(subject: Subject, counts: Sequence[int]) -> float:
    """Order in which the output's mean and variances approach the exact ones."""
    problem, errors = Gaussian(subject.kind, covariance=VARIANCES), []
    for n in counts:
        grid = _float32(smooth_grid(subject.kind, n * subject.per, 0.3))
        errors.append(moments(subject, problem, grid).distance(Moments(*problem.marginal(grid[-1]))))
    return slope([1 / n for n in counts], errors)


def variance_ratio(subject: Subject, steps: int = 10) -> float:
    """The output's variance over the exact one after a few steps."""
    problem, way = Gaussian(subject.kind, covariance=(0.25,)), as_path(subject.kind)
    levels = kd.get_schedule("karras")(steps * subject.per, sigma_min=0.1, sigma_max=10.0)
    grid = _float32([way.from_ratio(float(level)) for level in levels if level > 0])
    return float(moments(subject, problem, grid).covariance[0, 0] / problem.marginal(grid[-1])[1][0, 0])


def to_zero(subject: Subject) -> str:
    """What runs of one step and of three to level 0 come to: "ok", or what went wrong."""
    x = torch.ones(1, 4, dtype=torch.float64)
    for levels in ([1.0, 0.0], [4.0, 2.0, 1.0, 0.0]):
        try:
            end = subject.run(Gaussian(covariance=VARIANCES), x, levels, none, None)
        except Exception as error:  # whatever a peer raises is the finding
            return f"{len(levels) - 1}: {type(error).__name__}"
        if not bool(torch.isfinite(end).all()):
            return f"{len(levels) - 1}: nan"
    return "ok"


def verdict(subject: Subject, row: Row) -> str:
    """What is broken, in a few words, or "holds"."""
    wrong = []
    if subject.order is not None:
        low, enough = min(row["uneven"]), subject.order - TOLERANCE
        if low < enough:
            even = row["even"]
            known = even is not None and even >= enough
            wrong.append(f"order {low:.0f}, not {subject.order}{' (it is on even steps)' if known else ''}")
        least = subject.runs or (min(subject.order, 2) if subject.memory else subject.order)
        if row["run"] is not None and row["run"] < least - TOLERANCE:
            wrong.append(f"runs of order {row['run']:.1f}")
    if row["weak"] is not None and row["weak"] < subject.weak - TOLERANCE:
        wrong.append("wrong distribution" if row["weak"] < TOLERANCE else f"weak order {row['weak']:.1f}")
    if row["to 0"] not in {None, "ok"}:
        wrong.append("fails to reach 0")
    return "; ".join(wrong) or "holds"


def measure(subject: Subject, quick: bool = False) -> Row:
    """A row of the table."""
    rng = random.Random(0)
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"sampler": subject.name, "promised": subject.order}
    try:
        _fill(row, subject, rng, quick)
    except Exception as error:  # whatever a peer raises is the finding
        return {**row, "verdict": f"raises {type(error).__name__}"}
    return {**row, "verdict": verdict(subject, row)}


def _fill(row: Row, subject: Subject, rng: random.Random, quick: bool) -> None:
    """Write the measurements into the row."""
    if subject.order is not None:
        orders = []
        for _ in range(2 if quick else 5):
            ratios, lam = [rng.uniform(0.5, 2.0) for _ in range(4)], rng.uniform(-1.0, 1.0)
            orders.append(one_step_order(subject, ratios, lam))
        row["uneven"] = (min(orders), max(orders))
        if subject.memory or subject.per > 1:
            row["even"] = one_step_order(subject, [1.0] * 4, 0.3)
        if subject.weak is None:
            row["run"] = run_order(subject, (10, 20) if quick else (20, 40, 80))
    if subject.weak is not None:
        row["weak"] = weak_order(subject, (20, 40) if quick else (40, 80, 160))
        row["var 10"] = variance_ratio(subject)
    if subject.ends:
        row["to 0"] = to_zero(subject)


def printable(row: Row) -> Row:
    """The row with its numbers as text."""
    cells = {key: f"{value:.2f}" if isinstance(value, float) else value for key, value in row.items()}
    if row["uneven"] is not None:
        low, high = (f"{value:.2f}" for value in row["uneven"])
        cells["uneven"] = low if low == high else f"{low}..{high}"
    return cells


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    columns = [column for column in COLUMNS if any(row[column] is not None for row in rows)]
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        told = {**row, "verdict": row["verdict"] if row["verdict"] == "holds" else f"**{row['verdict']}**"}
        lines.append(["" if told[column] is None else str(told[column]) for column in columns])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def title(peer: str) -> str:
    """A peer with its version."""
    return f"{peer} {version('kdiff-core' if peer == 'kdiff' else peer)}"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    result = parser(__doc__, "two samplers of each peer, few steps and draws")
    result.add_argument("--peer", choices=PEERS, action="append", help="this one alone; may be repeated")
    result.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    return result.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = arguments(argv)
    tables: dict[str, list[Row]] = {}
    for peer in args.peer or PEERS:
        try:
            chosen = subjects(peer)
        except ImportError as error:
            print(f"left out: {error}")
            continue
        few = [chosen[0], chosen[-1]] if args.quick else chosen
        rows = [measure(subject, args.quick) for subject in few]
        tables[peer] = rows
        if args.markdown:
            print(f"\n### {title(peer)}\n\n{markdown([printable(row) for row in rows])}")
        else:
            show(title(peer), [printable(row) for row in rows])
    save(args.json, tables)


if __name__ == "__main__":
    main()
