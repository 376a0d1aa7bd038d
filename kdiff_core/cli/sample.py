"""`kdiff sample` and `kdiff replay`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ParameterError
from .checks import check_file, check_options
from .console import complete, console, parse_options, say

if TYPE_CHECKING:
    from ..result import Result
    from ..sample_job import SampleJob
    from ..setup import Setup

_OUTPUTS = (".png", ".npz")
_REPLAYED = (".png", ".npz", ".gif")
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
    steps: Annotated[int | None, typer.Option(min=1, help="Number of steps. Default: 20.")] = None,
    evaluations: Annotated[
        int | None, typer.Option(min=1, help="Most calls of the (guided) model, in place of --steps.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Sample i of a seed is the same whatever else there is.")
    ] = 0,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Number of samples.")] = 64,
    label: Annotated[
        str | None,
        typer.Option("--class", help="Class of the samples, a number or a name. Default: any."),
    ] = None,
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

    for file, allowed in ((output, _OUTPUTS), (trajectory, _SHEETS), (save_plan, (".json",))):
        check_file(file, allowed)
    given = parse_options(options or [])
    check_options(given, model, sampler, schedule)
    job = SampleJob(
        model, n, sampler, schedule, steps, seed, None, _label(label), guidance, None, None, device, dtype,
        model_options=given["model"], sampler_options=given["sampler"], schedule_options=given["schedule"],
        evaluations=evaluations,
    )  # fmt: skip
    setup = _setup(job)
    output = _output(output, model, setup)
    check_file(output, _OUTPUTS)
    _check_images(setup, output, trajectory)
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
    file: Annotated[Path, typer.Argument(help="A .png, .npz or .gif file that kdiff sample wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: FILE's name with -replay.")
    ] = None,
) -> None:
    """Run again what made a file, and compare bit for bit: status 0 if equal, 1 if not.

    Example: `kdiff replay digits.png`
    """
    from ..manifest import data_change, differences, read_manifest
    from ..sample_job import SampleJob

    manifest = read_manifest(file)
    output = output or file.with_name(f"{file.stem}-replay{file.suffix}")
    if output.suffix.lower() != file.suffix.lower():
        raise ParameterError(f"{output}: must be a {file.suffix} file, to be compared with {file}")
    check_file(output, _REPLAYED)
    setup = SampleJob.from_manifest(manifest).setup()
    _check_images(setup, output)
    picture = manifest.get("picture") or {}
    sheet = picture.get("kind") == "trajectory"
    result, seconds = _run(setup, sheet)
    (_write_trajectory if sheet else _write)(output, setup, result, picture.get("columns"))
    say(f"wrote {output} in {seconds:.2f} s")
    if _same(file, output):
        console().print(f"[green]equal, bit for bit[/]: {file}", soft_wrap=True)
        if changed := data_change(manifest, setup):
            say(f"though {changed}")
        return
    _say_why(file, differences(manifest, setup))
    raise typer.Exit(1)


def _say_why(file: Path, reasons: list[str]) -> None:
    """Say that a replay is not what was replayed, and what may be the cause."""
    console().print(f"[bold red]different[/]: {file}", soft_wrap=True)
    say(
        "What has changed since:"
        if reasons
        else "Nothing that the manifest records has changed: was the file edited?"
    )
    for reason in reasons:
        say(f"  {reason}")


def _label(text: str | None) -> int | str | None:
    """Return a class by its number, or else by its name."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return text


def _setup(job: SampleJob) -> Setup:
    """Build the run; what is wrong with the class is said of the option that gave it."""
    try:
        return job.setup()
    except ParameterError as error:
        if found := re.match(r"label=(\S+?): ", str(error)):
            raise ParameterError(f"--class {found[1]}: {str(error)[found.end() :]}") from error
        raise


def _output(output: Path | None, model: str, setup: Setup) -> Path:
    """Return where to write: by default a picture named after the model, or an array if it is no image."""
    from .picture import image_shape

    if output is not None:
        return output
    image = image_shape(setup.like.shape[1:]) is not None
    return Path(re.sub(r"[^\w.-]+", "-", model) + (".png" if image else ".npz"))


def _check_images(setup: Setup, *files: Path | None) -> None:
    """Refuse, before the model is called, a picture of samples that are no images."""
    from .picture import require_image

    for file in files:
        if file is not None and file.suffix.lower() in _SHEETS:
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

    manifest = manifest_of(setup, result, picture={"kind": "trajectory", "columns": columns})
    if file.suffix.lower() == ".gif":
        return f"{file} ({picture.write_animation(file, setup, result, columns, manifest)} frames)"
    write_png(file, picture.contact_sheet(setup, result), manifest)
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
            frames = range(getattr(image, "n_frames", 1))
            return np.stack([_frame(image, number) for number in frames])

    a, b = content(file), content(other)
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def _frame(image: Any, number: int) -> Any:
    """Return the pixels of one frame of a picture."""
    import numpy as np

    image.seek(number)
    return np.asarray(image.convert("RGB"))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _report(setup: Setup, result: Result, seconds: float, written: list[str]) -> None:
    """Say what was made, how, and how to make it again."""
    schedule = setup.schedule_name if isinstance(setup.schedule_name, str) else repr(setup.schedule)
    console().print(f"[green]wrote[/] {', '.join(written)}", soft_wrap=True)
    say(
        f"{_counted(setup.job.n, 'sample')} of {setup.job.model}: sampler {setup.sampler_name}, "
        f"schedule {schedule}, {_counted(setup.grid.steps, 'step')}, "
        f"{_counted(result.evaluations, 'evaluation')}, seed {setup.job.seed}, {seconds:.2f} s"
    )
    say(f"kdiff replay {written[0]}  makes the same bits again")
