"""Keyed noise beside ``torch.randn``: the time of one draw, of a fresh tensor and into a buffer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from harness import SHAPES, Row, microseconds, parser, pinned, save, show

import kdiff_core as kd


def noise_row(name: str, batch: int, budget: float) -> Row:
    """A row of the table."""
    buffer = torch.empty((batch, *SHAPES[name][1:]))
    source, generator = kd.KeyedNoise(0), torch.Generator().manual_seed(0)
    randn = microseconds(lambda: torch.randn(buffer.shape, generator=generator), budget)
    normal = microseconds(lambda: buffer.normal_(generator=generator), budget)
    fresh = microseconds(lambda: source.noise(buffer, 2.0, 1.0), budget)
    filled = microseconds(lambda: source.noise(buffer, 2.0, 1.0, out=[buffer]), budget)
    return {
        "state": name,
        "shape": str(tuple(buffer.shape)),
        "randn µs": randn,
        "normal_ µs": normal,
        "keyed µs": fresh,
        "keyed, buffer µs": filled,
        "keyed/randn": fresh / randn,
        "buffer/normal_": filled / normal,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__, "the small state, one batch size")
    options.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16])
    options.add_argument("--seconds", type=float, default=0.5, help="for one number")
    args = options.parse_args(argv)
    names, batches, budget = list(SHAPES), args.batches, args.seconds
    if args.quick:
        names, batches, budget = ["small"], [2], 0.0
    with pinned():
        rows = [
            noise_row(name, batch, budget)
            for name in names
            for batch in batches
            if name != "video" or batch <= 4
        ]
    show("keyed noise", rows, "one thread; the largest batch of the video state is 4")
    save(args.json, {"noise": rows})


if __name__ == "__main__":
    main()
