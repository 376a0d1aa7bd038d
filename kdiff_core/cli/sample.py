"""`kdiff sample` and `kdiff replay`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ParameterError
from . import many
from . import sample_options as given
from .checks import check_distinct, check_file, check_options
from .console import console, parse_options, say
from .outputs import (
    OUTPUTS,
    PREVIEWS,
    REPLAYED,
    SHEETS,
    plan_of,
    preview_of,
    same,
    write,
    write_plan,
    write_trajectory,
)

if TYPE_CHECKING:
    from ..protocols import Callback
    from ..result import Result, StepInfo
    from ..sample_job import SampleJob
    from ..setup import Setup

_SAMPLES = 64  # without prompts, each of which asks for one


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (sample, replay):
        app.command(rich_help_panel="Sample")(command)


def sample(
    name: given.ModelArgument = None,
    model: given.Model = None,
    sampler: given.Sampler = "dpmpp_2m",
    schedule: given.Schedule = None,
    steps: given.Steps = None,
    evaluations: given.Evaluations = None,
    seed: given.Seed = 0,
    n: given.Number = None,
    label: given.Label = None,
    prompt: given.Prompts = None,
    negative: given.Negatives = None,
    guidance: given.Guidance = None,
    guide: given.Guide = None,
    init: given.Init = None,
    strength: given.Strength = None,
    mask: given.Mask = None,
    resize: given.Resize = False,
    variation_seed: given.VariationSeed = None,
    variation_strength: given.VariationStrength = 0.0,
    height: given.Height = None,
    width: given.Width = None,
    device: given.Device = None,
    dtype: given.Dtype = "float32",
    chunk: given.Chunk = None,
    offload: given.Offload = False,
    compile: given.Compile = None,
    dry_run: given.DryRun = False,
    output: given.Output = None,
    shard_size: given.ShardSize = None,
    trajectory: given.Trajectory = None,
    preview: given.Preview = None,
    save_plan: given.SavePlan = None,
    columns: given.Columns = None,
    options: given.Options = None,
) -> None:
    """Sample from a model and write a picture that remembers how it was made.

    Without arguments: 64 handwritten digits, to `mnist.png`.

    Example: `kdiff sample mnist -s "DPM++ 2M SDE Karras" --class 7 --guidance 2 -o sevens.png`

    Example: `kdiff sample --model diffusers:FOLDER --prompt "a cat" --negative "a dog" --guidance 6`

    Example: `kdiff sample -n 50000 --class 0-9 -o shards/` for files of 256; again to go on where it stopped
    """  # fmt: skip
    from ..sample_job import SampleJob

    folder, file = many.split(output, shard_size, trajectory, preview, columns)
    kinds = ((file, OUTPUTS), (trajectory, SHEETS), (preview, PREVIEWS), (save_plan, (".json",)))
    for each, allowed in kinds:
        check_file(each, allowed)
    model = _one_model(name, model)
    parts = parse_options(options or [], ("sampler", "schedule", "model", "guide"))
    parts["model"] |= {key: v for key, v in (("height", height), ("width", width)) if v is not None}
    check_options(parts, model, sampler, schedule, guide)
    n = n or (None if prompt is None else len(prompt)) or _SAMPLES
    job = SampleJob(
        model, n, sampler, schedule, steps, seed, None, _label(label, n),
        guidance, None, None, device, dtype, model_options=parts["model"],
        sampler_options=parts["sampler"], schedule_options=parts["schedule"], evaluations=evaluations,
        prompt=_texts(prompt), negative=_texts(negative), guide=guide, guide_options=parts["guide"],
        init=init, strength=strength, mask=mask, resize=resize,
        variation_seed=variation_seed, variation_strength=variation_strength,
        chunk=_chunk(chunk), offload=offload, compile=compile or False,
    )  # fmt: skip
    shards = many.shards(job, folder, shard_size)
    setup = _setup(job if shards is None else shards.part(0))
    if dry_run:
        say(setup.memory().table())
        return
    if save_plan is not None:
        plan_of(setup)  # refused now rather than after the run
    if shards is not None:
        many.run(shards, setup, save_plan)
        return
    file = _output(file, model, setup)
    check_file(file, OUTPUTS)
    _check_images(setup, file, trajectory)
    check_distinct({"--output": file, "--trajectory": trajectory, "--preview": preview})
    result, seconds = _run(setup, trajectory is not None, preview_of(setup, preview))
    written = [write(file, setup, result, columns)]
    if trajectory is not None:
        written.append(write_trajectory(trajectory, setup, result, columns))
    if preview is not None:
        written.append(str(preview))
    if save_plan is not None:
        written.append(write_plan(save_plan, setup))
    _report(setup, result, seconds, written)


def replay(
    file: Annotated[Path, typer.Argument(help="A .png, .npz or .gif file that kdiff sample wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: FILE's name with -replay.")
    ] = None,
) -> None:
    """Run again what made a file, and compare bit for bit: status 0 if equal, 1 if not.

    Example: `kdiff replay mnist.png`
    """
    from ..manifest import data_change, differences, read_manifest
    from ..sample_job import SampleJob

    manifest = read_manifest(file)
    output = output or file.with_name(f"{file.stem}-replay{file.suffix}")
    if output.suffix.lower() != file.suffix.lower():
        raise ParameterError(f"{output}: must be a {file.suffix} file, to be compared with {file}")
    check_file(output, REPLAYED)
    setup = SampleJob.from_manifest(manifest).setup()
    _check_images(setup, output)
    picture = manifest.get("picture") or {}
    sheet = picture.get("kind") == "trajectory"
    result, seconds = _run(setup, sheet)
    (write_trajectory if sheet else write)(output, setup, result, picture.get("columns"))
    say(f"wrote {output} in {seconds:.2f} s")
    if same(file, output):
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


def _one_model(argument: str | None, option: str | None) -> str:
    """Return the model, which is given as an argument or as an option."""
    if argument is not None and option is not None:
        raise ParameterError(f"two models are given, {argument!r} and --model {option!r}; give one")
    return argument or option or "mnist"


def _texts(words: list[str] | None) -> str | tuple[str, ...] | None:
    """Return one text, which is for all samples, or one for each."""
    return (words[0] if len(words) == 1 else tuple(words)) if words else None


def _chunk(text: str | None) -> Any:
    """Return a number of samples, or the word that is given in its place."""
    return int(text) if text is not None and text.isdecimal() else text


def _label(text: str | None, n: int) -> Any:
    """Return a class by its number or its name; of a list such as 0-9 or 1,7 each in turn, n in all."""
    if text is None or re.fullmatch(r"-?\d+", text):
        return None if text is None else int(text)
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        return text
    ends = [[int(number) for number in part.split("-")] for part in text.split(",")]
    classes = [label for part in ends for label in range(part[0], part[-1] + 1)]
    if not classes:
        raise ParameterError(f"--class {text}: write a list of classes as 0-9 or 1,7")
    return tuple(classes[i % len(classes)] for i in range(n))


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
    image = image_shape(setup.sample_shape) is not None
    return Path(re.sub(r"[^\w.-]+", "-", model) + (".png" if image else ".npz"))


def _check_images(setup: Setup, *files: Path | None) -> None:
    """Refuse, before the model is called, a picture of samples that are no images."""
    from .picture import require_image

    for file in files:
        if file is not None and file.suffix.lower() in SHEETS:
            require_image(setup, file)


def _run(setup: Setup, trajectory: bool, preview: Callback | None = None) -> tuple[Result, float]:
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

        def show(info: StepInfo) -> None:
            progress.update(task, completed=info.evaluations)
            if preview is not None:
                preview(info)

        in_one = setup.job.compile == "run"  # nothing is shown then, and a preview is refused
        result = setup.run(preview if in_one else show, trajectory=trajectory)
    return result, time.perf_counter() - began


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
