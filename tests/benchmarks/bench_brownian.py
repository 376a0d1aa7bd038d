"""The grid-independent Brownian path beside torchsde's tree: the time of one draw on a grid of 100 steps.

The draws of both are timed in turn, in the order in which a sampler asks for them; the median draw is given,
and how many states each holds after the first and after the last step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from harness import SHAPES, Row, parser, pinned, save, show

import kdiff_core as kd


def seconds(draw: Callable[[], Any]) -> float:
    """Time one call."""
    begun = time.perf_counter()
    draw()
    return time.perf_counter() - begun


def tree_of(shape: tuple[int, ...], low: float, high: float) -> Any:
    """Return the tree of torchsde, as k-diffusion uses it; None where torchsde is not installed."""
    try:
        import torchsde
    except ImportError:
        return None
    return torchsde.BrownianTree(t0=low, w0=torch.zeros(shape), t1=high, entropy=0)


def row(name: str, steps: int, most: int) -> Row:
    """A row of the table."""
    shape = SHAPES[name]
    x, source = torch.empty(shape), kd.get_noise("brownian", seed=0)
    grid = list(kd.get_schedule("karras")(steps, sigma_min=0.03, sigma_max=14.6))[:-1]
    tree = tree_of(shape, grid[-1], grid[0])
    ours: list[float] = []
    theirs: list[float] = []
    randn: list[float] = []
    held: list[int] = []
    for a, b in list(pairwise(grid))[:most]:
        ours.append(seconds(lambda a=a, b=b: source.noise(x, a, b)))
        randn.append(seconds(lambda: torch.randn(shape)))
        if tree is not None:
            theirs.append(seconds(lambda a=a, b=b: tree(b, a)))
        held.append(len(source._held.values) + len(source._held.free))
    found = {
        "state": name,
        "draws": len(ours),
        "brownian µs": statistics.median(ours) * 1e6,
        "over randn": statistics.median(ours) / statistics.median(randn),
        "states held, first": held[0],
        "most": max(held),
    }
    if theirs:
        found["torchsde µs"] = statistics.median(theirs) * 1e6
        found["torchsde over brownian"] = statistics.median(theirs) / statistics.median(ours)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = parser(__doc__, "ten draws on the small state").parse_args(argv)
    with pinned():
        rows = [row("small", 100, 10)] if args.quick else [row("small", 100, 99), row("video", 100, 99)]
    show("brownian", rows, "one thread; torchsde is compared where it is installed")
    save(args.json, {"brownian": rows})


if __name__ == "__main__":
    main()
