"""`kdiff tune grid`, `kdiff tune weights` and `kdiff tune steps`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ParameterError
from .checks import check_file
from .console import complete, console, parse_options, say, table

if TYPE_CHECKING:
    from ..tuning.lessons import Lessons
    from ..tuning.tuned import Tuned

HELP = """Tune a sampler for few steps, on a model.

A teacher's fine run shows where each start belongs; what is tuned comes nearer to that in few steps. Some
starts are fitted on, others decide when to stop, a third part is held out and only reported. The result is a
small JSON file that stands wherever the name of a sampler or a schedule does.

Example: `kdiff tune grid --model digits -n 6 --out tuned.json`, then
`kdiff sample digits --schedule tuned.json`
"""

tunes = typer.Typer(name="tune", help=HELP, no_args_is_help=True, rich_markup_mode="markdown")

Sampler = Annotated[
    str,
    typer.Option("--sampler", "-s", help="A deterministic sampler.", autocompletion=complete("sampler")),
]
Model = Annotated[str, typer.Option("--model", "-m", help="A model.", autocompletion=complete("denoiser"))]
Steps = Annotated[int, typer.Option("--steps", "-n", min=1, help="Number of steps.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The .json file to write.")]
ScheduleName = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        help="What to begin with and to compare with. Default: the best there is.",
        autocompletion=complete("schedule"),
    ),
]
Starts = Annotated[
    int, typer.Option(min=2, help="Starts to fit on; half as many choose, and as many again are held out.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the starts.")]
TeacherSteps = Annotated[int, typer.Option("--teacher-steps", min=1, help="Steps of the teacher's run.")]
Iterations = Annotated[int, typer.Option(min=1, help="Most iterations; it may stop earlier.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ... Default: where the model is.")]
Dtype = Annotated[str, typer.Option(help="Of the states: float32 if the model takes nothing else.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A parameter: solver_type=heun, model.path=flow."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(tunes, rich_help_panel="Sample")


@tunes.command()
def grid(
    out: Out = Path("tuned.json"),
    sampler: Sampler = "dpmpp_2m",
    model: Model = "digits",
    steps: Steps = 6,
    method: Annotated[
        str, typer.Option(help="gradient; or dynamic, which only calls the model.")
    ] = "gradient",
    schedule: ScheduleName = None,
    starts: Starts = 128,
    seed: Seed = 0,
    teacher_steps: TeacherSteps = 400,
    iterations: Iterations = 60,
    device: Device = None,
    dtype: Dtype = "float64",
    options: Options = None,
) -> None:
    """Tune the noise levels: a schedule that every sampler can use, best with the one it was tuned for.

    Example: `kdiff tune grid --sampler dpmpp_2m --model digits -n 6 --out tuned.json`

    `kdiff sample digits --sampler dpmpp_2m --schedule tuned.json` uses it.
    """
    from ..tuning.grids import tune_grid

    solver, lessons = _begin(out, sampler, model, starts, seed, teacher_steps, device, dtype, options)
    shown = console(stderr=True).is_terminal
    tuned = tune_grid(
        solver, lessons, steps, method=method, schedule=schedule, iterations=iterations, progress=shown
    )
    _finish(tuned, out, f"kdiff sample {model} --sampler {sampler} --schedule {out}")


@tunes.command()
def weights(
    out: Out = Path("tuned.json"),
    sampler: Sampler = "dpmpp_2m",
    model: Model = "digits",
    steps: Steps = 6,
    free: Annotated[
        bool, typer.Option("--free", help="Give up that a constant denoiser is followed exactly.")
    ] = False,
    levels: Annotated[bool, typer.Option(help="Tune the noise levels as well.")] = True,
    history: Annotated[
        int | None, typer.Option(min=1, help="Newest model outputs that a state reads. Default: all.")
    ] = None,
    schedule: ScheduleName = None,
    starts: Starts = 128,
    seed: Seed = 0,
    teacher_steps: TeacherSteps = 400,
    iterations: Iterations = 120,
    device: Device = None,
    dtype: Dtype = "float64",
    options: Options = None,
) -> None:
    """Tune the weights of a sampler's plan, and its levels: a sampler of its own, for one number of steps.

    Example: `kdiff tune weights --sampler dpmpp_2m --model digits -n 6 --out tuned.json`

    `kdiff sample digits --sampler tuned.json` uses it, with its own levels.
    """
    from ..tuning.solvers import tune_weights

    solver, lessons = _begin(out, sampler, model, starts, seed, teacher_steps, device, dtype, options)
    shown = console(stderr=True).is_terminal
    tuned = tune_weights(
        solver, lessons, steps, levels=levels, keep=not free, history=history, schedule=schedule,
        iterations=iterations, progress=shown,
    )  # fmt: skip
    _finish(tuned, out, f"kdiff sample {model} --sampler {out}")


@tunes.command()
def steps(
    error: Annotated[float, typer.Option(help="Largest median error, in units of the data.")],
    out: Out = Path("tuned.json"),
    sampler: Sampler = "dpmpp_2m",
    model: Model = "digits",
    most: Annotated[int, typer.Option(min=1, help="Most steps to try.")] = 64,
    method: Annotated[
        str | None, typer.Option(help="Tune each grid too: gradient or dynamic. Default: no.")
    ] = None,
    schedule: ScheduleName = None,
    starts: Starts = 128,
    seed: Seed = 0,
    teacher_steps: TeacherSteps = 400,
    iterations: Iterations = 60,
    device: Device = None,
    dtype: Dtype = "float64",
    options: Options = None,
) -> None:
    """Find how many steps a wanted error takes, and the schedule that does it.

    Example: `kdiff tune steps --error 0.01 --model digits --out tuned.json`
    """
    from ..tuning.counts import tune_steps

    solver, lessons = _begin(out, sampler, model, starts, seed, teacher_steps, device, dtype, options)
    shown = console(stderr=True).is_terminal
    tuned = tune_steps(
        solver, lessons, error, most=most, method=method, schedule=schedule, iterations=iterations,
        progress=shown,
    )  # fmt: skip
    _finish(tuned, out, f"kdiff sample {model} --sampler {sampler} --schedule {out}")


def _begin(
    out: Path,
    sampler: str,
    model: str,
    starts: int,
    seed: int,
    teacher_steps: int,
    device: str | None,
    dtype: str,
    options: list[str] | None,
) -> tuple[Any, Lessons]:
    """Check what can be checked, and run the teacher."""
    from ..lookup import get_denoiser, get_sampler
    from ..tuning.lessons import Lessons, deterministic

    check_file(out, (".json",))
    given = parse_options(options or [])
    if given["schedule"]:
        raise ParameterError("--set schedule.KEY: tuning takes a schedule by its name alone")
    solver = get_sampler(sampler, **given["sampler"])
    deterministic(solver)
    lessons = Lessons.of(
        get_denoiser(model, **given["model"]) if given["model"] else model,
        starts=(starts, (starts + 1) // 2, starts),
        seed=seed,
        teacher_steps=teacher_steps,
        device=device,
        dtype=dtype,
        progress=console(stderr=True).is_terminal,
    )
    return solver, lessons


def _finish(tuned: Tuned, out: Path, use: str) -> None:
    """Write the file, and say what was gained."""
    tuned.save(out)
    facts = tuned.provenance
    rows = [[name, *(f"{error:.4g}" for error in found.values())] for name, found in facts["errors"].items()]
    rows[0][0] = f"untuned ({facts['untuned_schedule']})"
    table(["error, median", *("held out" if s == "held_out" else s for s in facts["starts"])], rows)
    console().print(f"[green]wrote[/] {out}", soft_wrap=True)
    say(f"{facts['sampler']}, {tuned.grid.steps} steps, levels " + ", ".join(f"{v:.4g}" for v in tuned.grid))
    say(f"{use}  uses it")
