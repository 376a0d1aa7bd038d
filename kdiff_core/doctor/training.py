"""Checks of a training run by the files in its folder: ``log.jsonl``, ``checkpoints`` and the model file.

Only files are read, as the trainer writes them: a line of JSON for each event, and folders
``checkpoint-IMAGES`` of safetensors with a ``state.json`` that has their sizes and hashes.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import KdiffError, ParameterError
from . import Check, Seen, ok, problem, skipped, warning

_FEWEST = 10  # reports of the loss, to say something of its course
_STATE = "state.json"


class Training:
    """The files of a training run.

    Args:
        folder: The run's.

    Attributes:
        folder: The same.

    Raises:
        ParameterError: It is no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not is_training(self.folder):
            raise ParameterError(f"{folder}: has neither log.jsonl nor checkpoints; give a training's folder")

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the log."""
        file = self.folder / "log.jsonl"
        return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The events that can be read."""
        found = []
        for line in self.lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and {"event", "images"} <= event.keys():
                found.append(event)
        return found

    @cached_property
    def reports(self) -> list[dict[str, Any]]:
        """The reports that have a loss."""
        return [e for e in self.events if e["event"] == "log" and isinstance(e.get("loss"), int | float)]

    @property
    def images(self) -> int:
        """Images seen, by the log."""
        return int(self.events[-1]["images"]) if self.events else 0

    @cached_property
    def checkpoints(self) -> list[Path]:
        """The checkpoints, newest first, whole or not."""
        found = (self.folder / "checkpoints").glob("checkpoint-*")
        return sorted(found, key=lambda path: path.name, reverse=True)

    @cached_property
    def torn(self) -> dict[Path, str]:
        """What is wrong with those checkpoints that are not whole."""
        found = {path: _torn(path) for path in self.checkpoints}
        # A run that goes on deletes its oldest meanwhile.
        return {path: why for path, why in found.items() if why and path.is_dir()}

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint that is whole."""
        return next((path for path in self.checkpoints if path not in self.torn), None)


def is_training(folder: str | Path) -> bool:
    """Return whether a folder is a training run's."""
    folder = Path(folder)
    return folder.is_dir() and ((folder / "log.jsonl").is_file() or (folder / "checkpoints").is_dir())


def _torn(folder: Path) -> str:
    """Return what is wrong with a checkpoint, or nothing."""
    try:
        said = json.loads((folder / _STATE).read_text(encoding="utf-8"))["files"]
        for name, what in said.items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != what["sha256"]:
                    return f"{name} is not what was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def log(of: Training) -> Seen:
    """The log: every line of it can be read."""
    if not of.events:
        return problem("no events", "the run has not begun, or its log is lost", "begin it again")
    if bad := len(of.lines) - len(of.events):
        return warning(
            f"{bad} of {len(of.lines)} lines cannot be read",
            "the run was killed while it wrote; a resume cuts such a line off",
            "go on with the run; if it was not killed, look at the disk",
        )
    return ok(f"{len(of.events)} events, {of.images} images")


def finite_losses(of: Training) -> Seen:
    """Losses and gradients that are finite."""
    skips = [event for event in of.events if event["event"] == "skip"]
    bad = [event for event in of.reports if not math.isfinite(event["loss"])]
    change = (
        "a lower learning rate or a longer warm-up; precision bf16 or no in place of fp16; look at the data "
        "that the log names; go on from an older checkpoint"
    )
    if bad:
        return problem(
            f"the loss is {bad[0]['loss']} at image {bad[0]['images']}", "the training is lost", change
        )
    row = max((int(event.get("in_a_row", 1)) for event in skips), default=0)
    updates = max((int(event.get("updates", 0)) for event in of.reports), default=0)
    seen = f"{len(skips)} updates left out, at most {row} in a row"
    if row >= 5 or len(skips) > 0.01 * max(updates, 100):
        return problem(f"{seen}: {skips[-1].get('message', '')}", "losses or gradients overflow", change)
    return ok(seen)


def course_of_loss(of: Training) -> Seen:
    """The loss over the run: falling, neither rising nor flat."""
    losses = [event["loss"] for event in of.reports if math.isfinite(event["loss"])]
    if len(losses) < _FEWEST:
        return skipped(f"{len(losses)} reports of the loss; {_FEWEST} are needed")
    fifth = len(losses) // 5
    parts = [fmean(losses[i * fifth : (i + 1) * fifth]) for i in range(4)] + [fmean(losses[4 * fifth :])]
    first, last, best = parts[0], parts[-1], min(parts)
    seen = f"from {first:.4g} to {last:.4g}, at best {best:.4g} (means of fifths of the run)"
    spread = max(abs(best), 1e-12)
    if last > best + 0.5 * spread:
        return problem(
            seen,
            "the training diverges",
            "an older checkpoint and a lower learning rate, a longer warm-up, stricter clipping",
        )
    if first - last < 0.02 * max(abs(first), 1e-12):
        return warning(
            seen,
            "nothing was learnt since the first fifth: a plateau",
            "another learning rate; look whether the data are what they should be, and at the loss by level",
        )
    return ok(seen)


def learning_rate(of: Training) -> Seen:
    """The learning rate: above 0 while the run goes on."""
    rates = [event["lr"] for event in of.reports if isinstance(event.get("lr"), int | float)]
    if len(rates) < 2:
        return skipped("no reports of the learning rate")
    zero = sum(rate == 0 for rate in rates)
    seen = f"{min(rates):.3g} to {max(rates):.3g}, now {rates[-1]:.3g}"
    if zero > max(1, 0.1 * len(rates)):
        return problem(
            f"{seen}; 0 in {zero} of {len(rates)} reports",
            "updates change nothing",
            "the warm-up and the length that the rate has, beside the images of the run",
        )
    return ok(seen)


def checkpoints(of: Training) -> Seen:
    """The checkpoints: whole, by their sizes and hashes."""
    if not of.checkpoints:
        return warning("none", "a run that is killed begins again from nothing", "checkpoint.every")
    if of.torn:
        seen = "; ".join(f"{path.name} is torn: {why}" for path, why in of.torn.items())
        if of.newest is None:
            return problem(
                seen, "the run cannot go on", "a copy from elsewhere, or delete them and begin anew"
            )
        return warning(
            seen, f"the run goes on from {of.newest.name}", "look at the disk, or how they were copied"
        )
    return ok(f"{len(of.checkpoints)}, the newest {of.checkpoints[0].name}")


def averages(of: Training) -> Seen:
    """The averages of the weights (EMA), beside the weights, in the newest checkpoint."""
    if of.newest is None:
        return skipped("there is no checkpoint that is whole")
    try:
        from safetensors.torch import load_file
    except ImportError:
        return skipped("safetensors is not installed")
    weights = load_file(of.newest / "weights.safetensors")
    found = {}
    for file in sorted(of.newest.glob("ema.*.safetensors")):
        average = load_file(file)
        both = [(average[k].double(), weights[k].double()) for k in average.keys() & weights.keys()]
        gap = math.sqrt(sum(float((a - w).square().sum()) for a, w in both))
        size = math.sqrt(sum(float(w.square().sum()) for _, w in both))
        found[file.name.removeprefix("ema.").removesuffix(".safetensors")] = gap / max(size, 1e-12)
    if not found:
        return skipped("the run keeps no averages")
    seen = ", ".join(f"{name} is {gap:.0%} of the weights' size from them" for name, gap in found.items())
    if max(found.values()) > 0.5:
        return warning(
            seen,
            "the average is of weights long ago: what is drawn from it is worse than the model is",
            "a shorter half-life of the EMA, a ramp-up, or a longer run",
        )
    return ok(seen)


def model_file(of: Training) -> Seen:
    """The model file: as new as the newest checkpoint."""
    from ..model_file import describe_model

    file = of.folder / "model.safetensors"
    if not file.is_file():
        return skipped("there is none yet; it is written at the end of the run")
    try:
        images = int(describe_model(file)["training"].get("images", 0))
    except KdiffError as error:
        return problem(str(error), "the model cannot be read", "go on with the run, which writes it again")
    newest = 0 if of.newest is None else int(of.newest.name.rpartition("-")[2])
    if newest > images:
        return warning(
            f"of {images} images; the newest checkpoint is of {newest}",
            "the model is older than the training",
            "go on with the run to its end, which writes it again",
        )
    return ok(f"of {images} images")


CHECKS: tuple[Check, ...] = (
    log, finite_losses, course_of_loss, learning_rate, checkpoints, averages, model_file,
)  # fmt: skip
