"""`kdiff sample` and `kdiff replay`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ParameterError
from .console import complete, console, parse_options, say

if TYPE_CHECKING:
    from ..result import Result
    from ..setup import Setup

_OUTPUTS = (".png", ".npz")
_SHEETS = (".png", ".gif")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (sample, replay):
        app.command(rich_help_panel="Sample")(command)


def sample(
    model: Annotated[
        str,
        typer.Argument(help="A model; `kdiff denoisers` lists them.", autocompletion=complete("denoiser")),
    ] = "digits",
    sampler: Annotated[
        str,
        typer.Option(
            "--sampler",
            "-s",
            help='A sampler, or a label such as "DPM++ 2M Karras".',
            autocompletion=complete("sampler"),
        ),
    ] = "dpmpp_2m",
    schedule: Annotated[
        str | None,
        typer.Option(help="A noise schedule. Default: karras.", autocompletion=complete("schedule")),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps.")] = 20,
    seed: Annotated[
        int, typer.Option(min=0, help="Sample i of a seed is the same whatever else there is.")
    ] = 0,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Number of samples.")] = 64,
    label: Annotated[int | None, typer.Option("--class", help="Class of the samples. Default: any.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of the guidance to the class.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... Default: where the model is.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the states.")] = "float32",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .png picture or an .npz array. Default: MODEL.png."),
    ] = None,
    trajectory: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The way from noise: a .png sheet or a .gif animation."),
    ] = None,
    save_plan: Annotated[Path | None, typer.Option(metavar="FILE", help="The plan, as JSON.")] = None,
    columns: Annotated[
        int | None, typer.Option(min=1, help="Columns of the picture. Default: as square as can be.")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A parameter: s_churn=40, schedule.rho=5, model.path=flow."
        ),
    ] = None,
) -> None:
    """Sample from a model and write a picture that remembers how it was made.

    Without arguments: 64 handwritten digits, to `digits.png`.

    Example: `kdiff sample digits -s "DPM++ 2M SDE Karras" --class 7 --guidance 2 -o sevens.png`
    """  # fmt: skip
    from ..sample_job import SampleJob

    given = parse_options(options or [])
    job = SampleJob(
        model, n, sampler, schedule, steps, seed, None, label, guidance, None, None, device, dtype,
        model_options=given["model"], sampler_options=given["sampler"], schedule_options=given["schedule"],
    )  # fmt: skip
    setup = job.setup()
    output = _output(output, model, setup)
    for file, allowed in ((output, _OUTPUTS), (trajectory, _SHEETS), (save_plan, (".json",))):
        _check_file(file, allowed, setup)
    if trajectory is not None and trajectory.absolute() == output.absolute():
        raise ParameterError(f"--output and --trajectory are both {output}; give them different names")
    if save_plan is not None:
        _plan(setup)  # refused now rather than after the run
    result, seconds = _run(setup, trajectory is not None)
    written = [_write(output, setup, result, columns)]
    if trajectory is not None:
        written.append(_write_trajectory(trajectory, setup, result, columns))
    if save_plan is not None:
        written.append(_write_plan(save_plan, setup))
    _report(setup, result, seconds, written)


def replay(
    file: Annotated[Path, typer.Argument(help="A .png or .npz file that kdiff sample wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: FILE's name with -replay.")
    ] = None,
) -> None:
    """Run again what made a file, and compare bit for bit: status 0 if equal, 1 if not.

    Example: `kdiff replay digits.png`
    """
    from ..manifest import differences, read_manifest
    from ..sample_job import SampleJob

    manifest = read_manifest(file)
    if file.suffix.lower() not in _OUTPUTS:
        raise ParameterError(f"{file}: replay a .png or .npz file, which holds what to compare with")
    output = output or file.with_name(f"{file.stem}-replay{file.suffix}")
    setup = SampleJob.from_manifest(manifest).setup()
    if output.suffix.lower() != file.suffix.lower():
        raise ParameterError(f"{output}: must be a {file.suffix} file, to be compared with {file}")
    _check_file(output, _OUTPUTS, setup)
    picture = manifest.get("picture") or {}
    sheet = picture.get("kind") == "trajectory"
    result, seconds = _run(setup, sheet)
    _write_trajectory(output, setup, result, None) if sheet else _write(
        output, setup, result, picture.get("columns")
    )
    equal = _same(file, output)
    say(f"wrote {output} in {seconds:.2f} s")
    if equal:
        console().print(f"[green]equal, bit for bit[/]: {file}")
        return
    console().print(f"[bold red]different[/]: {file}")
    reasons = differences(manifest, setup)
    say(
        "What has changed since:"
        if reasons
        else "Nothing that the manifest records has changed: was the file edited?"
    )
    for reason in reasons:
        say(f"  {reason}")
    raise typer.Exit(1)


def _output(output: Path | None, model: str, setup: Setup) -> Path:
    """Return where to write: by default a picture named after the model, or an array if it is no image."""
    from .picture import image_shape

    if output is not None:
        return output
    image = image_shape(setup.like.shape[1:]) is not None
    return Path(re.sub(r"[^\w.-]+", "-", model) + (".png" if image else ".npz"))


def _check_file(file: Path | None, allowed: tuple[str, ...], setup: Setup) -> None:
    """Refuse, before the model is called, a file that could not be written afterwards."""
    if file is None:
        return
    if file.suffix.lower() not in allowed:
        raise ParameterError(f"{file}: the name must end in {' or '.join(allowed)}")
    if not file.absolute().parent.is_dir():
        raise ParameterError(f"{file}: there is no folder {file.parent}")
    if file.suffix.lower() in _SHEETS:
        from .picture import require_image

        require_image(setup, file)


def _run(setup: Setup, trajectory: bool) -> tuple[Result, float]:
    """Sample behind a progress bar that counts model calls, and take the time."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    plan = setup.plan()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("model calls"))
    began = time.perf_counter()
    out = console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=out, transient=True, disable=not out.is_terminal
    ) as progress:
        task = progress.add_task(str(setup.sampler_name), total=None if plan is None else plan.evaluations)
        result = setup.run(
            lambda info: progress.update(task, completed=info.evaluations), trajectory=trajectory
        )
    return result, time.perf_counter() - began


def _write(file: Path, setup: Setup, result: Result, columns: int | None) -> str:
    """Write the samples with their manifest."""
    from ..manifest import manifest_of, write_npz, write_png

    if file.suffix.lower() == ".npz":
        write_npz(file, {"samples": _array(result.x)}, manifest_of(setup, result))
    else:
        from . import picture

        how = {"kind": "grid", "columns": columns}
        write_png(file, picture.grid(setup, result, columns), manifest_of(setup, result, picture=how))
    return str(file)


def _write_trajectory(file: Path, setup: Setup, result: Result, columns: int | None) -> str:
    from ..manifest import manifest_of, write_png
    from . import picture

    if file.suffix.lower() == ".gif":
        return f"{file} ({picture.write_animation(file, setup, result, columns)} frames)"
    how = {"kind": "trajectory"}
    write_png(file, picture.contact_sheet(setup, result), manifest_of(setup, result, picture=how))
    return str(file)


def _plan(setup: Setup) -> Any:
    return setup.sampler.plan(setup.grid, setup.path, getattr(setup.denoiser, "process", None))


def _write_plan(file: Path, setup: Setup) -> str:
    import json

    from ..files import write_whole

    write_whole(file, json.dumps(_plan(setup).to_dict(), indent=1).encode())
    return str(file)


def _array(x: Any) -> Any:
    """Return a tensor as an array; NumPy has no bfloat16, float32 holds it exactly."""
    host = x.detach().cpu()
    return (host.float() if host.dtype.itemsize < 4 else host).numpy()


def _same(file: Path, other: Path) -> bool:
    """Whether two files hold the same pixels, or the same samples."""
    import numpy as np

    from ..manifest import pillow

    def content(place: Path) -> Any:
        if place.suffix.lower() == ".npz":
            with np.load(place, allow_pickle=False) as stored:
                return stored["samples"]
        with pillow().open(place) as image:
            return np.asarray(image.convert("RGB"))

    a, b = content(file), content(other)
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def _report(setup: Setup, result: Result, seconds: float, written: list[str]) -> None:
    """Say what was made, how, and how to make it again."""
    schedule = setup.schedule_name if isinstance(setup.schedule_name, str) else repr(setup.schedule)
    console().print(f"[green]wrote[/] {', '.join(written)}", soft_wrap=True)
    n = setup.job.n
    say(
        f"{n} sample{'s' * (n > 1)} of {setup.job.model}: sampler {setup.sampler_name}, schedule {schedule}, "
        f"{setup.grid.steps} steps, {result.evaluations} evaluations, seed {setup.job.seed}, {seconds:.2f} s"
    )
    say(f"kdiff replay {written[0]}  makes the same bits again")
