"""`Report`: the scores with all that they depend on, as a table and as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import asdict, frozen

from kdiff_core.files import write_whole

from .levels import LevelLoss

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


class Score(NamedTuple):
    """One score.

    Attributes:
        name: What it is.
        value: Of what was generated, against held-out data.
        floor: The same of other real data, as many; None where there is none.
        better: "lower", "higher" or "not below": no lower than the floor.
    """

    name: str
    value: float
    floor: float | None
    better: str


@frozen
class Report:
    """Scores, and how they came about.

    Attributes:
        data: The data.
        n: Number of samples on either side.
        features: The feature network.
        features_sha256: Hash of its weights, if it has any.
        sampler: What drew the samples; "" if they were given or none were needed.
        schedule: The schedule.
        steps: Number of steps.
        evaluations: Model calls for a sample.
        seed: Seed of the samples.
        guidance: Scale of the guidance, or None.
        conditional: Whether samples were drawn of the classes that the held-out data have.
        scores: The scores.
        loss: The errors by level; empty if they were not asked for.
    """

    data: str
    n: int
    features: str
    features_sha256: str | None = None
    sampler: str = ""
    schedule: str = ""
    steps: int = 0
    evaluations: int = 0
    seed: Any = 0
    guidance: float | None = None
    conditional: bool = False
    scores: tuple[Score, ...] = ()
    loss: tuple[LevelLoss, ...] = ()

    def __getitem__(self, name: str) -> Score:
        """Return a score by its name."""
        found = {score.name: score for score in self.scores}
        if name not in found:
            raise KeyError(f"no score {name!r}; there are {', '.join(found)}")
        return found[name]

    def to_json(self) -> str:
        """Return all of it as JSON."""
        values = asdict(self, recurse=False)
        values["scores"] = [score._asdict() for score in self.scores]
        values["loss"] = [level._asdict() for level in self.loss]
        return json.dumps(values, indent=1, allow_nan=True)

    def write(self, file: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_whole(file, self.to_json().encode())

    def conditions(self) -> str:
        """Return in a line what the scores depend on."""
        words = [f"n={self.n}"]
        if self.sampler:
            words += [
                f"{self.sampler} {self.schedule}, {self.steps} steps",
                f"{self.evaluations} evaluations",
            ]
            words += [f"seed {self.seed}"]
        if self.guidance is not None:
            words += [f"guidance {self.guidance:g}"]
        if self.conditional:
            words += ["classes as in the data"]
        words += [
            f"features {self.features}" + (f" {self.features_sha256[:8]}" if self.features_sha256 else "")
        ]
        return f"{self.data}: " + ", ".join(words)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show the tables."""
        from rich.table import Table

        yield self.conditions()
        scores = Table(
            "score", "generated", "real", "better", caption="real: data against other data, as many"
        )
        for score in self.scores:
            floor = "" if score.floor is None else f"{score.floor:.4g}"
            scores.add_row(score.name, f"{score.value:.4g}", floor, score.better)
        if self.scores:
            yield scores
        levels = Table(
            "sigma",
            "loss, held out",
            "loss, train",
            caption="1: the best linear denoiser of independent values",
        )
        for level in self.loss:
            train = "" if level.train is None else f"{level.train:.4f}"
            levels.add_row(f"{level.sigma:.4g}", f"{level.held_out:.4f}", train)
        if self.loss:
            yield levels

    def __str__(self) -> str:
        """The tables as text."""
        from rich.console import Console

        out = io.StringIO()
        Console(file=out, width=100).print(self)
        return out.getvalue().rstrip()
