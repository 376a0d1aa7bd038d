"""`kdiff doctor`: what is wrong with the installation, a run or a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import sample_options as given
from .checks import check_options
from .console import console, parse_options, say, say_json
from .findings import counted, forgive, sign

if TYPE_CHECKING:
    from ..doctor import Finding

_SAMPLES = 4
# Mark, mark where the output has no such characters, style.
_MARKS = {
    "ok": ("\N{CHECK MARK}", "ok", "green"),
    "warning": ("!", "!", "yellow"),
    "problem": ("\N{BALLOT X}", "X", "bold red"),
    "skipped": ("-", "-", "dim"),
}

Subject = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL|FOLDER", help="A model, or the folder of a training. Default: the installation."
    ),
]
Number = Annotated[
    int, typer.Option("--n", "-n", min=1, help="Samples of the run: its memory counts. At most 4 are drawn.")
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A real image to try the model on. Default: the samples of the run."),
]
SigmaMin = Annotated[float | None, typer.Option(help="Lowest level above 0. Default: the model's.")]
SigmaMax = Annotated[float | None, typer.Option(help="Highest level. Default: the model's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also what each check looks at.")]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look closer")(doctor)


def doctor(
    subject: Subject = None,
    sampler: given.Sampler = "dpmpp_2m",
    schedule: given.Schedule = None,
    steps: given.Steps = None,
    seed: given.Seed = 0,
    n: Number = _SAMPLES,
    label: given.Label = None,
    prompt: given.Prompts = None,
    negative: given.Negatives = None,
    guidance: given.Guidance = None,
    guide: given.Guide = None,
    data: Data = None,
    sigma_min: SigmaMin = None,
    sigma_max: SigmaMax = None,
    device: given.Device = None,
    dtype: given.Dtype = "float32",
    chunk: given.Chunk = None,
    offload: given.Offload = False,
    options: given.Options = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find what is wrong with the installation, with a run as `kdiff sample` makes it, or with a training.

    Each check says what it saw, what that means and what to change. Status 0 if there is no problem
    (warnings may be), 1 if there is one.

    Example: `kdiff doctor`

    `kdiff doctor mnist -s dpmpp_3m --steps 5 --class 7 --guidance 8`

    `kdiff doctor runs/digits` for the folder of a training
    """
    from ..doctor import examine_machine, examine_run, examine_training
    from ..doctor.training import is_training

    forgive()
    if subject is None:
        found = examine_machine()
    elif is_training(subject):
        found = examine_training(subject)
    else:
        from ..sample_job import SampleJob
        from .sample import _chunk, _label, _texts

        parts = parse_options(options or [], ("sampler", "schedule", "model", "guide"))
        check_options(parts, subject, sampler, schedule, guide)
        job = SampleJob(
            subject, n, sampler, schedule, steps, seed, None, _label(label, n), guidance, sigma_min,
            sigma_max, device, dtype, model_options=parts["model"], sampler_options=parts["sampler"],
            schedule_options=parts["schedule"], prompt=_texts(prompt), negative=_texts(negative),
            guide=guide, guide_options=parts["guide"], chunk=_chunk(chunk), offload=offload,
        )  # fmt: skip
        found = examine_run(job, data)
    if as_json:
        say_json([finding._asdict() for finding in found])
    else:
        _show(found, verbose)
    raise typer.Exit(int(any(finding.status == "problem" for finding in found)))


def _show(found: Sequence[Finding], verbose: bool) -> None:
    """Print a line for each check, and of what is not well also what it means and what to change."""
    from rich.text import Text

    width = max(len(finding.name) for finding in found)
    for finding in found:
        unicode, ascii, style = _MARKS[finding.status]
        line = Text.assemble(
            (f"{sign(unicode, ascii):2} ", style), (f"{finding.name:{width}}", "bold"), f"  {finding.seen}"
        )
        if finding.status == "skipped":
            line.stylize("dim")
        console().print(line, soft_wrap=True)
        told = {"means": finding.means, "change": finding.change}
        if verbose:
            told = {"checked": finding.checked, **told}
        for label, text in told.items():
            if text:
                say(f"{'':{width + 5}}{label}: {text}")
    worse = [
        counted(sum(f.status == status for f in found), status)
        for status in ("problem", "warning")
        if any(f.status == status for f in found)
    ]
    left = sum(finding.status == "skipped" for finding in found)
    what = counted(len(found), "check") + (f", {left} skipped" if left else "")
    say(f"{what}: {', '.join(worse) or 'all is well'}")
