"""The kernel of a run beside its floor, by size, number of operands and block: the choice of BLOCK.

The floor is the time of ``copy_`` between states, scaled by the streams that each operand read once and
one result written make: ``(operands + 1) / 2``. ``chosen`` is what `kdiff_core.combine` does by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from harness import Row, interleaved, median, parser, pinned, save, show
from torch import Tensor

from kdiff_core import combine as kernel

KIB = 1024
SIZES = {"64 KiB": 64 * KIB, "1 MiB": KIB**2, "4 MiB": 4 * KIB**2, "8 MiB": 8 * KIB**2, "64 MiB": 64 * KIB**2}
BLOCKS = (1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 18)


@contextmanager
def settings(block: int | None, links: int = 0, count: int = 0) -> Iterator[None]:
    """Force blocks of a size, or none."""
    names = ("BLOCK", "BLOCK_LINKS", "BLOCK_COUNT")
    kept = [getattr(kernel, name) for name in names]
    wanted = (block or 1, links if block else 1 << 30, count)
    try:
        for name, value in zip(names, wanted, strict=True):
            setattr(kernel, name, value)
        yield
    finally:
        for name, value in zip(names, kept, strict=True):
            setattr(kernel, name, value)


def weights(operands: int) -> list[float]:
    """Weights that sum to 1, one of them negative, as multistep solvers have."""
    found = [0.6, 0.9, -0.3, 0.2, -0.1][:operands]
    return [*found[:-1], 1.0 - sum(found[:-1])]


def combine_row(label: str, operands: int, blocks: Sequence[int], budget: float) -> Row:
    """Times for one size and number of operands, results written over an operand as in a run."""
    numel = SIZES[label] // 4
    # Outputs of a model are never the same tensor twice in a row: two sets take turns.
    sets = [[torch.randn(numel) for _ in range(operands - 1)] for _ in range(2)]
    x, chain = torch.randn(numel), kernel.recipe(weights(operands))
    x_at = next(i for i in range(operands) if i in chain.early)
    following = itertools.cycle(sets).__next__

    def once() -> Tensor:
        parts = list(following())
        parts.insert(x_at, x)
        return kernel.combine(chain, parts, x)

    group = max(1, (1 << 18) // numel)

    def repeated(call: Callable[[], Tensor], around: Callable[[], Any] = nullcontext) -> Callable[[], None]:
        def run() -> None:
            with around():
                for _ in range(group):
                    call()

        return run

    calls = {"copy": repeated(lambda: x.copy_(following()[0])), "chosen": repeated(once)}
    calls["whole"] = repeated(once, lambda: settings(None))
    calls |= {f"{b >> 10} Ki": repeated(once, lambda b=b: settings(b)) for b in blocks if b < numel}
    times = {name: median(found) / group * 1e6 for name, found in interleaved(calls, budget, 5).items()}
    least = times.pop("copy") * (operands + 1) / 2
    ratios = {f"{name}/floor": time / least for name, time in times.items()}
    return {"size": label, "operands": operands, "floor µs": least, "chosen µs": times["chosen"], **ratios}


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
    note = f"chosen: BLOCK={kernel.BLOCK}, BLOCK_LINKS={kernel.BLOCK_LINKS}, BLOCK_COUNT={kernel.BLOCK_COUNT}"
    show("combining states, float32; blocks in Ki elements", rows, note)
    save(args.json, {"combine": rows})


if __name__ == "__main__":
    main()
