"""Checkpoints: folders of safetensors and JSON, written whole or not at all.

A checkpoint is a folder ``checkpoint-IMAGES``. It is written under another name, every file and the folder
itself are synced, and then it is renamed. Its ``state.json`` has the size and the hash of the other files,
so that one that was torn otherwise (a copy cut short, a disk that failed) is seen, and the newest whole one
is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdiff_core.errors import ParameterError

FORMAT = 1
STATE = "state.json"
_NAME = re.compile(r"checkpoint-(\d{12})")
_PARTIAL = ".partial-"


class Checkpoint(NamedTuple):
    """What a run goes on from.

    Attributes:
        images: Images seen.
        tensors: Tensors by name, by the file they are in.
        state: Everything else, as JSON has it.
    """

    images: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def write_checkpoint(
    folder: str | Path, images: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Any, keep: int
) -> Path:
    """Write a checkpoint, whole or not at all; then delete all but the newest.

    Args:
        folder: Of the run's checkpoints; made if need be.
        images: Images seen, which the checkpoint is named by.
        tensors: Tensors by name, for each file of tensors.
        state: Anything else that JSON can hold.
        keep: How many checkpoints to keep, at least 1.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: It cannot be written; the older ones are still there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"checkpoint-{images:012d}"
    partial = folder / f"{_PARTIAL}{images:012d}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _fill(partial, tensors, {"format": FORMAT, "images": images, "state": state})
        if final.exists():  # of the same images: one that is torn, or of a run that began anew
            _remove(final)
        os.replace(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync(folder)
    for old in checkpoints(folder)[keep:]:
        _remove(old)
    return final


def _fill(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]) -> None:
    written = {}
    for name, each in tensors.items():
        file = folder / f"{name}.safetensors"
        # Cloned: safetensors refuses tensors that share memory, as tied weights do.
        save_file({key: value.detach().cpu().contiguous().clone() for key, value in each.items()}, file)
        _sync(file)
        written[file.name] = {"bytes": file.stat().st_size, "sha256": _hash(file)}
    text = json.dumps({**state, "files": written}, indent=1, allow_nan=True)
    (folder / STATE).write_text(text, encoding="utf-8")
    _sync(folder / STATE)
    _sync(folder)


def checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints in a folder, newest first, whole or not; partial ones are not among them."""
    folder = Path(folder)
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: path.name, reverse=True)


def newest(folder: str | Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that is whole, or None, and a message for each that was passed over."""
    messages: list[str] = []
    for path in checkpoints(folder):
        try:
            return read_checkpoint(path), messages
        except ParameterError as error:
            messages.append(str(error))
    return None, messages


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ParameterError: It is not whole, or of another format.
    """
    folder = Path(folder)
    try:
        found = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ParameterError(f"{folder} has the format {found['format']}; this version reads {FORMAT}")
        for name, said in found["files"].items():
            file = folder / name
            if file.stat().st_size != said["bytes"] or _hash(file) != said["sha256"]:
                raise ParameterError(f"{folder} is torn: {name} is not what was written")
        tensors = {name.removesuffix(".safetensors"): load_file(folder / name) for name in found["files"]}
        return Checkpoint(found["images"], tensors, found["state"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError(f"{folder} is torn: {type(error).__name__}: {error}") from error


def tidy(folder: str | Path) -> None:
    """Delete what a writer that was killed left behind. No other may be writing there."""
    for path in Path(folder).glob(f"{_PARTIAL}*") if Path(folder).is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    """Delete a checkpoint; one that is deleted in part does not count as one."""
    away = path.with_name(f"{_PARTIAL}{path.name}-{os.getpid()}")
    shutil.rmtree(away, ignore_errors=True)
    os.replace(path, away)
    shutil.rmtree(away, ignore_errors=True)


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    flags = os.O_RDONLY | (getattr(os, "O_DIRECTORY", 0) if path.is_dir() else 0)
    try:
        handle = os.open(path, flags)
    except PermissionError:  # where folders cannot be opened
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
