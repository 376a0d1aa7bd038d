"""`kdiff train`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdiff_core.cli.console import say
from kdiff_core.errors import ParameterError
from kdiff_core.files import write_whole
from kdiff_core.names import quoted

if TYPE_CHECKING:
    from ..config import Config
    from ..trainer import Summary, Trainer


def command() -> Callable[..., None]:
    """Return the command."""
    return train


def train(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="The config: a .yaml or .json file.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A config that ships, in place of a file.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="The run's folder. Default: runs/NAME."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of the config: batch.size=32."),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on from the newest checkpoint in the folder; else there must be none.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all of it and print the whole config; train nothing.")
    ] = False,
) -> None:
    """Train a model as a config says. The same command again goes on where the run was stopped, or killed.

    In the folder: the model, checkpoints, log.jsonl, loss.png, and samples, a row for each class.

    Example: `kdiff train --preset digits`, then `kdiff sample runs/digits/model.safetensors --class 0-9`

    Example: `kdiff train run.yaml --set images=1e6 --set log.trackers=[tensorboard] -o runs/long`

    Example: `accelerate launch -m kdiff_core.cli train run.yaml` on several devices
    """
    from ..config_file import parse_overrides, read_config
    from ..config_file import preset as read_preset
    from ..trainer import Trainer

    overrides = parse_overrides(changes or [])
    if (config is None) == (preset is None):
        raise ParameterError(
            f"give a config, or --preset with one of {quoted(_presets())}{', not both' if config else ''}"
        )
    read = read_config(config, overrides) if config is not None else read_preset(str(preset), overrides)
    folder = output or Path("runs") / (preset or Path(str(config)).stem)
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f"--output {folder}: is a file; name a folder")
    if not resume and any(folder.glob("checkpoints/checkpoint-*")):
        raise ParameterError(f"--no-resume: {folder} has checkpoints; give another --output, or delete them")
    trainer = Trainer(read, folder)
    main = trainer.accelerator.is_main_process
    if dry_run:
        if main:
            _describe(trainer, folder)
        return
    summary, asked = _run(trainer)
    if main:
        _report(trainer, summary)
    if not summary.finished:
        raise typer.Exit(128 + (signal.SIGINT if asked else signal.SIGTERM))


def _presets() -> list[str]:
    from ..config_file import presets

    return list(presets())


def _run(trainer: Trainer) -> tuple[Summary, bool]:
    """Train behind a progress bar; Ctrl-C ends it in order. Whether that was asked for is returned too."""
    from ..signals import on_signal
    from .pictures import Pictures
    from .progress import Progress

    asked = []

    def interrupt() -> None:
        asked.append(True)
        trainer.stop()

    assert trainer.folder is not None
    if trainer.accelerator.is_main_process:
        trainer.folder.mkdir(parents=True, exist_ok=True)
        write_whole(trainer.folder / "config.yaml", as_yaml(trainer.config).encode())
    with Progress(trainer.config.images) as progress, on_signal(signal.SIGINT, interrupt):
        trainer.callbacks += [progress, Pictures(trainer.folder, progress.say)]
        return trainer.run(), bool(asked)


def as_yaml(config: Config) -> str:
    """Return a config as YAML, all keys with their values; it reads back as the same config."""
    import yaml

    from ..config import plain

    text: str = yaml.safe_dump(plain(config), sort_keys=False)
    return text


def _describe(trainer: Trainer, folder: Path) -> None:
    """Print the config, all keys with their values, and how large things are."""
    parameters = sum(p.numel() for p in trainer.network.parameters())
    say(as_yaml(trainer.config))
    say(f"# parameters: {parameters:,}")
    say(f"# samples in the data: {len(trainer.dataset):,}, each {_shape(trainer.about['sample_shape'])}")
    say(f"# images of the run: {trainer.config.images:,}, {trainer.config.batch.size} to an update")
    say(f"# device: {trainer.accelerator.device}, processes: {trainer.accelerator.num_processes}")
    say(f"# folder: {folder}")


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))


def _report(trainer: Trainer, summary: Summary) -> None:
    """Say how the run ended and what to do next."""
    loss = "" if summary.loss is None else f", loss {summary.loss:.4g}"
    skipped = f", {summary.skipped} updates skipped" if summary.skipped else ""
    say(f"{summary.images:,} images, {summary.updates:,} updates{skipped}{loss}: {trainer.folder}/")
    if summary.finished:
        say(f"kdiff sample {summary.model}  draws from the model")
    else:
        say("stopped, with a checkpoint; the same command goes on from there")
