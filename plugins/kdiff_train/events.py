"""What a run tells those who watch: events, and the log that is always written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from kdiff_core.files import write_whole

if TYPE_CHECKING:
    from .trainer import Trainer


class Event(NamedTuple):
    """Something that happened; told in the main process only.

    Attributes:
        kind: "start", "resume", "update" (each update of the weights), "log", "skip" (an update left out for
            what is not finite), "samples" (images are to be drawn), "checkpoint" or "end".
        images: Images seen.
        values: By name. Of "update" ``loss``, ``lr`` and ``gradient_norm``; of "log" the means since the last
            one, ``images_per_second``, ``loss_by_level`` and others; of "checkpoint" ``path``; of "resume"
            ``passed_over`` and ``changed``; of "skip" ``message``; of "end" ``model``, the file, or None.
        trainer: The run: its config, ``folder``, `kdiff_train.trainer.Trainer.denoiser`.
    """

    kind: str
    images: int
    values: Mapping[str, Any]
    trainer: Trainer


Callback: TypeAlias = Callable[[Event], None]


class JsonLog:
    """A line of JSON for each event but "update", in the file ``log.jsonl``.

    Args:
        file: Where.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def cut(self, images: int) -> None:
        """Leave out lines behind `images`, which come again, and a last one that was not written whole."""
        if not self.file.exists():
            return
        kept = []
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["images"] <= images:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue
        write_whole(self.file, "".join(f"{line}\n" for line in kept).encode())

    def __call__(self, event: Event) -> None:
        """Write an event."""
        if event.kind == "update":
            return
        line = json.dumps({"event": event.kind, "images": event.images, **event.values}, default=str)
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(line + "\n")


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among values, those of ``loss_by_level`` each under a name, for trackers."""
    found = {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    for number, each in enumerate(values.get("loss_by_level", ())):
        if each["loss"] is not None:
            found[f"loss_by_level/{number}"] = each["loss"]
    return found
