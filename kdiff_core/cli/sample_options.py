"""The options of `kdiff sample`, in the order of its help; each is the type of an argument."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from .console import complete

ModelArgument: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        help="A model; `kdiff denoisers` lists them. Default: mnist.", autocompletion=complete("denoiser")
    ),
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="The same, as an option: diffusers:PATH.", autocompletion=complete("denoiser")
    ),
]
Sampler: TypeAlias = Annotated[
    str,
    typer.Option(
        "--sampler",
        "-s",
        help='A sampler, or a label such as "DPM++ 2M Karras".',
        autocompletion=complete("sampler"),
    ),
]
Schedule: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A noise schedule. Default: karras.", autocompletion=complete("schedule")),
]
Steps: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Number of steps. Default: 20.")]
Evaluations: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Most calls of the (guided) model, in place of --steps.")
]
Seed: TypeAlias = Annotated[
    int, typer.Option(min=0, help="Sample i of a seed is the same whatever else there is.")
]
Number: TypeAlias = Annotated[
    int | None,
    typer.Option("--n", "-n", min=1, help="Number of samples. Default: one for each prompt, else 64."),
]
Label: TypeAlias = Annotated[
    str | None,
    typer.Option("--class", help="A number or a name; 0-9 or 1,7: each in turn. Default: any."),
]
Prompts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--prompt", "-p", help="What to show: one for all samples, or repeated, one for each."),
]
Negatives: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--negative", help="What guidance leads away from: one for all, or one for each."),
]
Guidance: TypeAlias = Annotated[
    float | None, typer.Option(help="Scale of the guidance to the class or the prompt.")
]
Guide: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Kinds of guidance, the first innermost: apg, cfg+rescale. Default: cfg.",
        autocompletion=complete("guidance"),
    ),
]
Init: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="An image to begin with; with --strength or --mask.")
]
Strength: TypeAlias = Annotated[
    float | None, typer.Option(help="How much of the way is gone, 0 to 1: how much of --init may change.")
]
Mask: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="White: made anew. Black: --init is kept, exactly.")
]
Resize: TypeAlias = Annotated[
    bool, typer.Option("--resize", help="Scale --init and --mask to cover the samples' size, and cut them.")
]
VariationSeed: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="A seed towards whose noise the initial noise is turned ...")
]
VariationStrength: TypeAlias = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="... so far: 0 not at all, 1 wholly.")
]
Height: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Of the images, in pixels. Default: the model's.")
]
Width: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Likewise.")]
Device: TypeAlias = Annotated[str | None, typer.Option(help="cpu, cuda, ... Default: where the model is.")]
Dtype: TypeAlias = Annotated[str, typer.Option(help="Of the states.")]
Chunk: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Most samples of a model call; auto: fewer where memory does not suffice. Default: all."
    ),
]
Offload: TypeAlias = Annotated[
    bool, typer.Option("--offload", help="Keep states that wait for a later step on the CPU.")
]
Compile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="model|run", help="What torch compiles: the model, or the whole run. Default: nothing."
    ),
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Say how much memory the run would need; run nothing.")
]
Output: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="A .png picture, an .npz array, or a folder/ for many samples in files. Default: MODEL.png.",
    ),
]
ShardSize: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Samples in each file of a folder, and of a batch. Default: 256.")
]
Trajectory: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The way from noise: a .png sheet or a .gif animation."),
]
Preview: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A .png picture of what the run is about to make, after each step."),
]
SavePlan: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="The plan, as JSON.")]
Columns: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Columns of the picture. Default: as square as can be.")
]
Options: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A parameter: s_churn=40, schedule.rho=5, model.path=flow, guide.eta=0.5.",
    ),
]
