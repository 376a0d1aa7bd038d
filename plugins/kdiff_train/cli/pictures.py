"""The pictures of a run: samples, a row for each class, and the loss over the run and by noise level."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdiff_core.errors import KdiffError
from kdiff_core.sample_job import SampleJob

from ..config import SamplesConfig
from ..events import Event

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = 10


class Pictures:
    """Writes ``samples/IMAGES.png`` when it is time to draw, and ``loss.png`` then and at each checkpoint.

    Samples that are no images become ``samples/IMAGES.npz``. What cannot be drawn is said, and ends no run.

    Args:
        folder: The run's.
        say: Is given a line to show.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say

    def __call__(self, event: Event) -> None:
        """Draw, if it is time to."""
        try:
            if event.kind == "samples":
                write_samples(
                    event.trainer.denoiser(), event.trainer.config.samples, self.folder, event.images
                )
            if event.kind in ("samples", "checkpoint", "end"):
                write_loss(self.folder)
        except KdiffError as error:
            self.say(f"image {event.images:,}: no picture: {error}")


def write_samples(denoiser: Any, config: SamplesConfig, folder: Path, images: int) -> Path:
    """Draw samples, and write them with a row for each class, or for each of ten where there are more.

    Args:
        denoiser: The model.
        config: How many, and how.
        folder: The run's.
        images: Images seen, for the file's name.

    Returns:
        The file.

    Raises:
        KdiffError: The model cannot be sampled from as it is, such as one that needs a condition.
    """
    from kdiff_core.cli.outputs import write
    from kdiff_core.cli.picture import image_shape

    labels, columns = _labels(denoiser, config.n)
    setup = SampleJob(
        denoiser,
        config.n if labels is None else len(labels),
        config.sampler,
        steps=config.steps,
        seed=config.seed,
        label=labels,
        guidance=config.guidance,
    ).setup()
    place = folder / "samples"
    place.mkdir(parents=True, exist_ok=True)
    ending = "npz" if image_shape(setup.sample_shape) is None else "png"
    file = place / f"{images:012d}.{ending}"
    write(file, setup, setup.run(), columns)
    return file


def _labels(denoiser: Any, n: int) -> tuple[tuple[int, ...] | None, int | None]:
    """Return the classes of the samples, row by row, and the number of columns."""
    classes = getattr(denoiser, "classes", None)
    if not classes:
        return None, None
    rows = min(classes, _ROWS, n)
    columns = n // rows
    return tuple(row * classes // rows for row in range(rows) for _ in range(columns)), columns


def write_loss(folder: Path) -> Path | None:
    """Draw the loss over the run, and by noise level, of what ``log.jsonl`` says so far.

    Returns:
        The file, or None as long as there is nothing to draw.
    """
    from kdiff_core.testing.drawing import save

    log = folder / "log.jsonl"
    lines = (
        [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    )
    reports = [line for line in lines if line["event"] == "log" and line["loss"]]
    if not reports:
        return None
    file = folder / "loss.png"
    save(draw_loss(reports), file)
    return file


def draw_loss(reports: list[dict[str, Any]]) -> Figure:
    """Draw reports of the log: on the left the loss, on the right that of each part of the density."""
    from kdiff_core.testing.drawing import COLOURS, blank, finish

    figure, (whole, parts) = blank(2)
    images = [report["images"] for report in reports]
    whole.plot(images, [report["loss"] for report in reports], color=COLOURS[0], label="all levels")
    for number, part in enumerate(reports[-1]["loss_by_level"]):
        levels = [report["loss_by_level"] for report in reports]
        points = [
            (x, each[number]["loss"])
            for x, each in zip(images, levels, strict=True)
            if number < len(each) and each[number]["loss"]
        ]
        if points:
            name = f"{part['sigma_low']:.3g} to {part['sigma_high']:.3g}"
            style = "-" if number < len(COLOURS) else "--"
            parts.plot(*zip(*points, strict=True), color=COLOURS[number % len(COLOURS)], ls=style, label=name)
    for axes, title, legend in ((whole, "loss", ""), (parts, "loss by noise level", "sigma")):
        finish(axes, title, "images", legend)
        axes.set_xscale("linear")
    return figure
