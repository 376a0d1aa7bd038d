"""`kdiff sample -n 50000 --output shards/`: many samples in files, by one process or several."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ParameterError
from .console import console, say
from .outputs import write_plan

if TYPE_CHECKING:
    from ..sample_job import SampleJob
    from ..setup import Setup
    from ..shards import Process, Shards


def split(
    output: str | None, size: int | None, trajectory: Path | None, preview: Path | None, columns: int | None
) -> tuple[Path | None, Path | None]:
    """Return what is to be written as a folder or as a file: one of them, or neither by default.

    Raises:
        ParameterError: An option does not go with it.
    """
    if output is None or not (output.endswith("/") or Path(output).is_dir()):
        if size is not None:
            raise ParameterError("--shard-size is of a folder: give --output shards/ too")
        return None, None if output is None else Path(output)
    given = {"--trajectory": trajectory, "--preview": preview, "--columns": columns}
    if wrong := [option for option, value in given.items() if value is not None]:
        raise ParameterError(f"{wrong[0]} is of one picture; --output {output} is a folder of many samples")
    return Path(output), None


def shards(job: SampleJob, folder: Path | None, size: int | None) -> Shards | None:
    """Return the job in files, or None without a folder for them.

    Raises:
        ParameterError: The process is one of several that were not launched as such.
    """
    from ..shards import DEFAULT_SIZE, Process, Shards

    if folder is None:
        return None
    Process.current().take_gpu()  # before the model is built
    return Shards(job, folder, DEFAULT_SIZE if size is None else size)


def run(shards: Shards, setup: Setup, save_plan: Path | None) -> None:
    """Make the files that are missing, behind a progress bar; the first process alone says so."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..shards import Process

    process = Process.current()
    mine = [number for number in shards.missing() if number % process.world == process.rank]
    began, out, quiet = time.perf_counter(), console(stderr=True), process.rank > 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    with Progress(
        *columns, TimeRemainingColumn(), console=out, transient=True, disable=quiet or not out.is_terminal
    ) as progress:
        task = progress.add_task(str(setup.sampler_name), total=len(mine))
        made = shards.run(process, lambda *_: progress.advance(task), setup)
    if quiet:
        return
    if save_plan is not None:
        write_plan(save_plan, setup)
    _report(shards, setup, process, len(made), time.perf_counter() - began)


def _report(shards: Shards, setup: Setup, process: Process, made: int, seconds: float) -> None:
    """Say what was made and what was there."""
    folder, missing = shards.folder, len(shards.missing())
    console().print(f"[green]wrote[/] {made} of {shards.count} files to {folder}/", soft_wrap=True)
    say(
        f"{shards.job.n} samples of {shards.job.model}, {shards.size} in a file: "
        f"sampler {setup.sampler_name}, {setup.grid.steps} steps, seed {shards.job.seed}, {seconds:.2f} s"
    )
    if missing and process.world > 1:
        say(f"{missing} files are missing as yet; the other processes make them")
