"""`kdiff eval`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kdiff_core.cli.checks import check_file
from kdiff_core.cli.console import complete, console, parse_options, say
from kdiff_core.errors import ParameterError


def command() -> Callable[..., None]:
    """Return the command."""
    return evaluate


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A model, its .safetensors file, or a folder that kdiff sample wrote.")
    ],
    data: Annotated[
        str, typer.Option(help="The data; their split test is held out.", autocompletion=complete("dataset"))
    ],
    n: Annotated[
        int | None, typer.Option("--n", "-n", min=2, help="Samples, and real ones. Default: all held out.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler", "-s", help="What draws. Default: dpmpp_2m.", autocompletion=complete("sampler")
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="A noise schedule. Default: karras.", autocompletion=complete("schedule")),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of steps. Default: 20.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of the guidance to the class.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the samples. Default: 0.")] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAMES", help="fid,kid,... Default: all but log_likelihood.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="What images are compared by. Default: the data's.", autocompletion=complete("features")
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... Default: where the model is.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples drawn at once.")] = 256,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="A .json file for the report.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter: data.path=FOLDER, model.file=FILE."),
    ] = None,
) -> None:
    """Compare what a model draws with held-out data, and with how near real data are to each other.

    Example: `kdiff eval runs/digits/model.safetensors --data digits --guidance 2 -o report.json`

    Example: `kdiff sample FILE -n 1000 -o shards/`, then `kdiff eval shards/ --data mnist`
    """
    from kdiff_core.lookup import get_denoiser

    check_file(output, (".json",))
    own = parse_options(options or [], ("model", "data"))
    given = {"schedule": schedule, "steps": steps, "guidance": guidance, "seed": seed, "sampler": sampler}
    sampling: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    common: dict[str, Any] = {
        "n": n,
        "metrics": None if metrics is None else [name.strip() for name in metrics.split(",")],
        "features": features,
        "batch": batch,
        "data_options": own["data"],
    }
    from ..evaluate import evaluate as compare

    if Path(model).is_dir():
        if refused := [*sampling, *own["model"], *(["device"] if device else [])]:
            raise ParameterError(f"{refused[0]}: the samples of {model} are drawn already; leave it out")
        report = compare(None, data, samples=_samples(Path(model)), **common)
    else:
        progress = console(stderr=True).is_terminal
        made = get_denoiser(model, **own["model"])
        if device is not None and callable(getattr(made, "to", None)):
            made = made.to(device)
        report = compare(made, data, device=device, progress=progress, **common, **sampling)
    if output is not None:
        report.write(output)
    say(report.to_json()) if as_json else console().print(report)
    if output is not None and not as_json:
        say(f"wrote {output}")


def _samples(folder: Path) -> Any:
    """Return the samples in a folder.

    Raises:
        ParameterError: There are none, or some are missing.
    """
    import torch

    from kdiff_core.shards import read_shards

    return torch.from_numpy(read_shards(folder)["samples"]).float()
