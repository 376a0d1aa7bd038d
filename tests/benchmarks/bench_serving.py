"""Requests that share model calls beside the same requests one after the other.

Requests with different samplers and numbers of steps arrive at random (exponential times between them). The
model is two matrices that do not fit into a processor's caches, so that a call's cost grows slowly with its
batch. Both servers get the same requests at the same times; latency is from a request's arrival to its end.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from harness import Row, parser, pinned, save, show
from torch import Tensor

import kdiff_core as kd

SAMPLERS = ("euler", "heun", "dpmpp_2m", "dpmpp_sde", "euler_ancestral", "uni_pc", "lms", "dpmpp_3m_sde")
STEPS = (8, 12, 20, 30)


class Wanted(NamedTuple):
    """A request and when it arrives, in seconds from the start."""

    at: float
    sampler: Any
    x: Tensor
    sigmas: Any
    seed: int


class Model:
    """Two layers; its cost is mostly that of reading their weights."""

    def __init__(self, dims: int, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.up = torch.randn((width, dims), generator=generator) / dims**0.5
        self.down = torch.randn((dims, width), generator=generator) / width**0.5

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return something like an estimate of the data."""
        scale = 1.0 / (sigma * sigma + 1.0).sqrt().unsqueeze(1)
        return torch.tanh((x * scale) @ self.up.T) @ self.down.T * 0.5


def requests(n: int, dims: int, mean: float) -> list[Wanted]:
    """Requests that arrive `mean` seconds apart, on the average."""
    generator, at, found = torch.Generator().manual_seed(1), 0.0, []
    for i in range(n):
        at += -mean * float(torch.rand((), generator=generator).log())
        sigmas = kd.get_schedule("karras")(STEPS[i % len(STEPS)], sigma_min=0.03, sigma_max=15.0)
        x = kd.start(sigmas, like=torch.empty(1, dims), seed=i)
        found.append(Wanted(at, kd.get_sampler(SAMPLERS[i % len(SAMPLERS)]), x, sigmas, i))
    return found


def wait_until(moment: float) -> None:
    """Sleep until then."""
    time.sleep(max(0.0, moment - time.perf_counter()))


def one_after_the_other(model: Any, wanted: Sequence[Wanted]) -> tuple[float, list[float]]:
    """Serve in the order of arrival; return the seconds of all and each request's latency."""
    begun, latencies = time.perf_counter(), []
    for request in wanted:
        wait_until(begun + request.at)
        request.sampler(model, request.x, request.sigmas, seed=request.seed)
        latencies.append(time.perf_counter() - begun - request.at)
    return time.perf_counter() - begun, latencies


def together(model: Any, wanted: Sequence[Wanted], runner: Any) -> tuple[float, list[float]]:
    """Serve with a `BatchRunner`."""
    begun, latencies = time.perf_counter(), []
    with runner:
        for request in wanted:
            wait_until(begun + request.at)
            _, sampler, x, sigmas, seed = request
            latencies.append(_timed(runner, sampler, x, sigmas, seed, begun + request.at))
    return time.perf_counter() - begun, [latency() for latency in latencies]


def _timed(runner: Any, sampler: Any, x: Tensor, sigmas: Any, seed: int, since: float) -> Callable[[], float]:
    ended: list[float] = []

    def note(info: Any) -> None:
        if info.index + 1 == info.total:
            ended.append(time.perf_counter() - since)

    request = runner.submit(sampler, x, sigmas, seed=seed, callback=note)
    return lambda: (request.result(), ended[0])[1]


def row(name: str, seconds: float, latencies: list[float], calls: int, evaluations: int) -> Row:
    """A row of the table."""
    return {
        "server": name,
        "requests a second": len(latencies) / seconds,
        "median latency s": statistics.median(latencies),
        "worst latency s": max(latencies),
        "model calls": calls,
        "rows a call": evaluations / calls,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__, "eight requests on a small model")
    options.add_argument("--requests", type=int, default=64)
    options.add_argument("--max-batch", type=int, default=32)
    options.add_argument("--load", type=float, default=8.0, help="arrivals in the time of one request alone")
    args = options.parse_args(argv)
    n, dims, width = (8, 64, 128) if args.quick else (args.requests, 1024, 8192)
    model = Model(dims, width)
    with pinned(), torch.no_grad():
        trial = requests(min(n, 8), dims, 0.0)
        one_after_the_other(model, trial[:2])
        alone = one_after_the_other(model, trial)[0] / len(trial)
        costs = {b: cost(model, dims, b) for b in (1, 8, 32)}
        wanted = requests(n, dims, alone / args.load)
        evaluations = sum(kd.plan(w.sampler, w.sigmas).evaluations for w in wanted)
        runner = kd.BatchRunner(model, max_batch=args.max_batch)
        shared = together(model, wanted, runner)
        serial = one_after_the_other(model, wanted)
    rows = [
        row("one after the other", *serial, evaluations, evaluations),
        row("BatchRunner", *shared, runner.calls, evaluations),
    ]
    growth = ", ".join(f"{b}: {seconds * 1e3:.2f} ms" for b, seconds in costs.items())
    ratio = serial[0] / shared[0]
    show("serving", rows, f"throughput {ratio:.2f} times; a call's cost by batch: {growth}; one thread")
    save(args.json, {"serving": rows})


def cost(model: Any, dims: int, batch: int) -> float:
    """Seconds of a model call."""
    x, sigma, times = torch.randn(batch, dims), torch.ones(batch), []
    for _ in range(5):
        begun = time.perf_counter()
        model(x, sigma)
        times.append(time.perf_counter() - begun)
    return min(times)


if __name__ == "__main__":
    main()
