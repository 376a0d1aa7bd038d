"""Images per second of a whole run: kdiff beside diffusers' own loop, with one UNet and one grid.

The UNet is a ``UNet2DConditionModel`` with random weights: tiny, where the time between the model's kernels
shows, or of the size of Stable Diffusion 1. Eager, compiled (``--compiled``; on a GPU always) and, on a GPU,
captured as a CUDA graph. All runs start from one state; *difference* is the largest to diffusers' eager
result, over that result's largest value.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from harness import Row, interleaved, median, parser, pinned, save, show
from peers import diffusers_class, missing
from torch import Tensor

import kdiff_core as kd
from kdiff_core.captured import capture

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "sample_size": 8, "layers_per_block": 1, "block_out_channels": (32, 64), "cross_attention_dim": 32,
        "attention_head_dim": 8, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    "sd1": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
}  # fmt: skip
# kdiff's name -> diffusers' scheduler, which gives the levels of both.
SOLVERS = {
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"euler_at_final": False, "final_sigmas_type": "zero"}),
}
TRAINED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Setting(NamedTuple):
    """What both libraries are given."""

    unet: Any
    text: Tensor
    x: Tensor
    steps: int


def setting(size: str, batch: int, steps: int, device: str) -> Setting:
    """A UNet with random weights, a text's embedding and unit noise."""
    from diffusers import UNet2DConditionModel

    dtype = torch.float16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SIZES[size]).to(device, dtype).eval().requires_grad_(False)
    text = torch.randn(batch, 77, SIZES[size]["cross_attention_dim"]).to(device, dtype)
    side = SIZES[size]["sample_size"]
    return Setting(unet, text, torch.randn(batch, 4, side, side).to(device), steps)


def runs_of(solver: str, given: Setting, compiled: bool) -> dict[str, Callable[[], Tensor]]:
    """The runs to be timed, by name."""
    from kdiff_sd.diffusers_models import from_diffusers

    name, options = SOLVERS[solver]
    scheduler = diffusers_class(name)(**TRAINED, **options)
    scheduler.set_timesteps(given.steps)
    levels = [float(v) for v in scheduler.sigmas]
    # Both begin at the first level with the same state, in the units of VE.
    x = given.x * levels[0]
    denoiser, sampler = from_diffusers(given.unet, scheduler), kd.get_sampler(solver)
    cond = {"encoder_hidden_states": given.text}
    begin = x if scheduler.init_noise_sigma != 1 else given.x * (levels[0] / (1 + levels[0] ** 2) ** 0.5)

    def loop(unet: Any) -> Tensor:
        state = begin
        scheduler.set_timesteps(given.steps, device=state.device)
        for t in scheduler.timesteps:
            seen = scheduler.scale_model_input(state, t).to(given.text.dtype)
            state = scheduler.step(
                unet(seen, t, encoder_hidden_states=given.text).sample, t, state
            ).prev_sample
        return state

    runs = {
        "diffusers, eager": lambda: loop(given.unet),
        "kdiff, eager": lambda: sampler(denoiser, x, levels, cond=cond),
    }
    if compiled:
        unet = torch.compile(given.unet, dynamic=False)
        runs["diffusers, compiled"] = lambda: loop(unet)
        runs["kdiff, compiled"] = lambda: sampler(denoiser, x, levels, cond=cond, compile="model")
    if x.is_cuda:
        captured = capture(sampler, denoiser, x, levels, cond=cond)
        runs["kdiff, captured"] = lambda: captured(x)
    return runs


def rows_of(solver: str, given: Setting, compiled: bool, budget: float, least: int) -> list[Row]:
    """The rows of a solver: its runs, timed in turns."""
    runs = runs_of(solver, given, compiled)
    expected = runs["diffusers, eager"]()
    apart = {name: float((run() - expected).abs().max() / expected.abs().max()) for name, run in runs.items()}
    device = given.x.device.type
    times = {name: median(found) for name, found in interleaved(runs, budget, least, device).items()}
    slowest = times["diffusers, eager"]
    return [
        {
            "run": f"{solver}: {name}",
            "images/s": len(given.x) / seconds,
            "ms a step": seconds / given.steps * 1e3,
            "times diffusers, eager": slowest / seconds,
            "difference": apart[name],
        }
        for name, seconds in times.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__, "the tiny UNet, few steps")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--size", choices=list(SIZES), default="tiny")
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--compiled", action="store_true", help="time compiled models on the CPU too")
    options.add_argument("--budget", type=float, default=20.0, help="seconds for each solver")
    args: argparse.Namespace = options.parse_args(argv)
    if args.quick:
        args.size, args.steps, args.budget = "tiny", 2, 0.0
    if (why := missing("diffusers")) is not None:
        rows: list[Row] = [{"run": "nothing", "why": why}]
    else:
        with pinned(args.device == "cpu"), torch.no_grad():
            given = setting(args.size, args.batch, args.steps, args.device)
            compiled = args.compiled or args.device == "cuda"
            rows = [
                row
                for solver in SOLVERS
                for row in rows_of(solver, given, compiled, args.budget, 1 if args.quick else 5)
            ]
    show(f"{args.size} UNet, batch {args.batch}, {args.steps} steps on {args.device}", rows)
    save(args.json, {"speed": rows})


if __name__ == "__main__":
    main()
