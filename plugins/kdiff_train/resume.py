"""The state of a run, written and taken up: weights, averages, the optimiser's state and counters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list
from torch import Tensor

from kdiff_core.errors import ParameterError
from kdiff_core.names import quoted

from . import checkpoint
from .config import plain
from .optimizers import load_optimizer_state, optimizer_state

if TYPE_CHECKING:
    from .trainer import Trainer

# What makes it another run; all else may be changed between two parts of one.
_IDENTITY = ("model", "denoiser", "seed")


def folder_of(trainer: Trainer) -> Path:
    """Return the folder of a run's checkpoints."""
    assert trainer.folder is not None
    return trainer.folder / "checkpoints"


def save(trainer: Trainer) -> Path | None:
    """Write a checkpoint of a run; the main process does, the others wait."""
    path = None
    if trainer.folder is not None and trainer.accelerator.is_main_process:
        tensors, rest = optimizer_state(trainer.updater.optimizer)
        files: dict[str, dict[str, Tensor]] = {
            "weights": dict(trainer.network.state_dict()),
            "optimizer": tensors,
            **{f"ema.{name}": average.tensors for name, average in trainer.averages.items()},
        }
        scaler = trainer.accelerator.scaler
        state = {
            "config": plain(trainer.config),
            "updates": trainer.updates,
            "skipped": trainer.skipped,
            "skipped_now": trainer._skipped_now,
            "optimizer": rest,
            "noise_scale": trainer.updater.noise_scale.state(),
            "meter": trainer.meter.state(),
            "loss": trainer._loss,
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        keep = trainer.config.checkpoint.keep
        path = checkpoint.write_checkpoint(folder_of(trainer), trainer.images, files, state, keep)
    trainer.accelerator.wait_for_everyone()
    return path


def load(trainer: Trainer) -> dict[str, Any] | None:
    """Go on from the newest checkpoint that is whole, and return what is to be told; None: there is none.

    Raises:
        ParameterError: It is of another run.
    """
    folder = folder_of(trainer)
    if trainer.accelerator.is_main_process:
        checkpoint.tidy(folder)
    found, passed_over = _newest(trainer, folder)
    if found is None:
        if passed_over:
            raise ParameterError(
                f"no checkpoint in {folder} is whole: {'; '.join(passed_over)}. Delete it to begin anew"
            )
        return None
    changed = _compare(plain(trainer.config), found.state["config"], folder)
    _weights(trainer, found)
    state = found.state
    load_optimizer_state(trainer.updater.optimizer, found.tensors["optimizer"], state["optimizer"])
    trainer.updater.noise_scale.load(state["noise_scale"])
    if len(state["meter"][0][0]) == trainer.meter.parts and trainer.accelerator.is_main_process:
        trainer.meter.load(state["meter"])
    trainer._loss = state["loss"]
    if trainer.accelerator.scaler is not None and state["scaler"]:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    trainer.images, trainer.updates = found.images, state["updates"]
    trainer.skipped, trainer._skipped_now = state["skipped"], state["skipped_now"]
    return {"passed_over": passed_over, "changed": changed}


def _newest(trainer: Trainer, folder: Path) -> tuple[checkpoint.Checkpoint | None, list[str]]:
    """Return the newest whole checkpoint: the one that the main process found, for all."""
    if trainer.accelerator.num_processes == 1:
        return checkpoint.newest(folder)
    said: list[Any] = [None, []]
    if trainer.accelerator.is_main_process:
        found, passed_over = checkpoint.newest(folder)
        said = [None if found is None else found.images, passed_over]
    broadcast_object_list(said)
    if said[0] is None:
        return None, said[1]
    return checkpoint.read_checkpoint(folder / f"checkpoint-{said[0]:012d}"), said[1]


def _compare(now: dict[str, Any], then: dict[str, Any], folder: Path) -> list[str]:
    """Return which sections of the config were changed.

    Raises:
        ParameterError: One of those that make it another run.
    """
    changed = [name for name in now if now[name] != then.get(name)]
    if other := [name for name in changed if name in _IDENTITY]:
        raise ParameterError(
            f"{folder} has a checkpoint of another run: it differs in {quoted(other)}. Take another folder, "
            "or delete it"
        )
    return changed


def _weights(trainer: Trainer, found: checkpoint.Checkpoint) -> None:
    try:
        trainer.network.load_state_dict(found.tensors["weights"])
    except RuntimeError as error:
        raise ParameterError(f"the checkpoint's weights are not those of the model: {error}") from error
    for name, average in trainer.averages.items():
        tensors = found.tensors.get(f"ema.{name}")
        if tensors is None:  # an average that is new begins at the weights
            average.load(found.tensors["weights"])
        else:
            average.load(tensors)


def snapshot(trainer: Trainer) -> None:
    """Write the power-function averages as they are, for `kdiff_train.post_hoc`."""
    from .post_hoc import write_snapshot

    if trainer.folder is not None and trainer.accelerator.is_main_process:
        write_snapshot(trainer.folder / "snapshots", trainer.images, trainer.averages)
