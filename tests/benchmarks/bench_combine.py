"""The kernel of a run beside its floor, by size and number of operands, and beside other ways to do it.

The floor is the time of ``copy_`` between states, scaled by the streams that each operand read once and
one result written make: ``(operands + 1) / 2``. States take turns among enough of them that operands are as
cold as in a run. ``N Ki``: the same chain, walking the states in blocks of so many elements, so that partial
results stay in the cache. ``mul, add``: no lerp.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from harness import Row, interleaved, median, parser, pinned, save, show
from torch import Tensor

from kdiff_core import combine as kernel

KIB = 1024
SIZES = {"64 KiB": 64 * KIB, "1 MiB": KIB**2, "4 MiB": 4 * KIB**2, "8 MiB": 8 * KIB**2, "64 MiB": 64 * KIB**2}
BLOCKS = (1 << 15, 1 << 16, 1 << 17, 1 << 18)
STATES = 9

Way = Callable[[Sequence[Tensor], Tensor], object]


def blockwise(chain: kernel.Recipe, block: int) -> Way:
    """The chain, block by block."""

    def run(operands: Sequence[Tensor], out: Tensor) -> None:
        for target, *parts in zip(*(t.split(block) for t in (out, *operands)), strict=True):
            kernel.combine(chain, parts, target)

    return run


def plain(values: Sequence[float]) -> Way:
    """A product and sums."""

    def run(operands: Sequence[Tensor], out: Tensor) -> None:
        torch.mul(operands[0], values[0], out=out)
        for weight, operand in zip(values[1:], operands[1:], strict=True):
            out.add_(operand, alpha=weight)

    return run


def weights(operands: int) -> list[float]:
    """Weights that sum to 1, one of them negative, as multistep solvers have."""
    found = [0.6, 0.9, -0.3, 0.2, -0.1][:operands]
    return [*found[:-1], 1.0 - sum(found[:-1])]


def combine_row(label: str, operands: int, blocks: Sequence[int], budget: float) -> Row:
    """Times for one size and number of operands, results written over an operand as in a run."""
    numel = SIZES[label] // 4
    states = [torch.randn(numel) for _ in range(STATES)]
    values = weights(operands)
    chain = kernel.recipe(values)
    turn = itertools.count().__next__
    group = max(1, (1 << 18) // numel)

    def repeated(way: Way, over: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(group):
                first = turn()
                parts = [states[(first + i) % STATES] for i in range(operands)]
                way(parts, parts[over])

        return run

    calls = {"copy": repeated(lambda parts, out: parts[1].copy_(parts[0]), 0)}
    calls["kernel"] = repeated(lambda parts, out: kernel.combine(chain, parts, out), chain.early[0])
    calls["mul, add"] = repeated(plain(values), 0)
    for block in (b for b in blocks if b < numel):
        calls[f"{block >> 10} Ki"] = repeated(blockwise(chain, block), chain.early[0])
    times = {name: median(found) / group * 1e6 for name, found in interleaved(calls, budget, 5).items()}
    least = times.pop("copy") * (operands + 1) / 2
    ratios = {f"{name}/floor": time / least for name, time in times.items()}
    return {"size": label, "operands": operands, "floor µs": least, "kernel µs": times["kernel"], **ratios}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__, "one small size, two numbers of operands, one block size")
    options.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    options.add_argument("--blocks", nargs="+", type=int, default=list(BLOCKS), help="elements")
    options.add_argument("--seconds", type=float, default=2.0, help="for one row")
    args = options.parse_args(argv)
    operands: Sequence[int] = (2, 3, 4, 5)
    if args.quick:
        args.sizes, args.blocks, args.seconds, operands = ["64 KiB"], [1 << 12], 0.0, (2, 5)
    with pinned(), torch.no_grad():
        rows = [
            combine_row(size, count, args.blocks, args.seconds) for size in args.sizes for count in operands
        ]
    show("combining states, float32; blocks in Ki elements", rows)
    save(args.json, {"combine": rows})


if __name__ == "__main__":
    main()
