"""The UNet beside diffusers' UNet2DModel of equal width and depth: a forward pass, and a training step.

Both have the same levels, blocks, attention, strided convolutions and additive time embedding, and get the
same input. A training step is a forward pass, a backward pass and an update of AdamW. The calls are
interleaved; of each the least time is shown, because whatever else the machine does only adds to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import UNet2DModel
from harness import Row, interleaved, parser, pinned, save, show
from torch import Tensor, nn

import kdiff_core as kd


def theirs(channels: Sequence[int], depth: int, attends: Sequence[bool], head_dim: int) -> nn.Module:
    """Return diffusers' network."""
    down = ["AttnDownBlock2D" if flag else "DownBlock2D" for flag in attends]
    up = ["AttnUpBlock2D" if flag else "UpBlock2D" for flag in reversed(attends)]
    return UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=tuple(channels),
        layers_per_block=depth,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        attention_head_dim=head_dim,
    )


def ours(channels: Sequence[int], depth: int, attends: Sequence[bool], head_dim: int) -> nn.Module:
    """Return kdiff's network of the same make."""
    network: nn.Module = kd.get_model(
        "unet",
        in_channels=3,
        channels=tuple(channels),
        depths=(depth,) * len(channels),
        self_attention=tuple(attends),
        head_dim=head_dim,
        modulation="add",
        resample="conv",
        time="positional",
    )
    return network


def calls(network: nn.Module, x: Tensor, time: Tensor) -> dict[str, Callable[[], Any]]:
    """Return a forward pass and a training step."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def output() -> Tensor:
        found = network(x, time)
        return found if isinstance(found, Tensor) else found.sample

    def forward() -> None:
        with torch.no_grad():
            output()

    def step() -> None:
        output().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"forward": forward, "training step": step}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__, "two narrow levels, and few rounds")
    options.add_argument("--device", default="cpu")
    options.add_argument("--channels", type=int, nargs="+", default=[64, 128, 128])
    options.add_argument("--depth", type=int, default=2)
    options.add_argument("--attention", type=int, nargs="*", default=[1], help="levels with self-attention")
    options.add_argument("--size", type=int, default=32)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--compile", action="store_true", help="the compiled networks too")
    options.add_argument("--seconds", type=float, default=60.0, help="to spend on all rounds")
    args = options.parse_args(argv)
    if args.quick:
        args.channels, args.depth, args.size, args.batch, args.seconds = [32, 32], 1, 8, 1, 0.2
    attends = [level in args.attention for level in range(len(args.channels))]
    make = (args.channels, args.depth, attends, min(32, args.channels[-1]))
    networks = {"diffusers": theirs(*make), "kdiff": ours(*make)}
    networks |= {"kdiff, channels last": ours(*make).to(memory_format=torch.channels_last)}
    if args.compile:
        networks |= {"diffusers, compiled": theirs(*make), "kdiff, compiled": ours(*make)}
    x = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    time = torch.linspace(1, 900, args.batch, device=args.device)
    runs = {}
    for name, network in networks.items():
        network.to(args.device).train()
        if "compiled" in name:
            network.compile()
        last = "last" in name
        own = x.contiguous(memory_format=torch.channels_last) if last else x
        runs |= {(name, what): call for what, call in calls(network, own, time).items()}
    with pinned(args.device == "cpu"):
        seconds = interleaved(runs, args.seconds, least=3, device=args.device)  # type: ignore[arg-type, type-var]
    rows: list[Row] = []
    for name, network in networks.items():
        row: Row = {"network": name, "parameters": sum(p.numel() for p in network.parameters())}
        for what in ("forward", "training step"):
            took, usual = (min(seconds[each, what]) for each in (name, "diffusers"))  # type: ignore[index]
            row |= {f"{what} ms": took * 1e3, f"{what}, of diffusers'": took / usual}
        rows.append(row)
    title = f"{tuple(x.shape)} on {args.device}, channels {args.channels}, depth {args.depth}"
    show(title, rows, "one thread" if args.device == "cpu" else None)
    save(args.json, {"unet": rows})


if __name__ == "__main__":
    main()
