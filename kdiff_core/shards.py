"""Many samples in files of equal size: made by any number of processes, resumed where they stopped.

Which samples stand in a file depends on its number alone, and sample i on the seed and i; so the files are
the same, bit for bit, for any number of processes and after any crash.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from attrs import evolve, field, frozen

from .errors import ParameterError
from .files import write_whole
from .manifest import dumped, manifest_of, read_manifest, write_npz
from .setup import at_least_one

if TYPE_CHECKING:
    from .sample_job import SampleJob
    from .setup import Setup

DEFAULT_SIZE = 256
INDEX = "shards.json"
# What a job may have one of for each sample.
_EACH = ("seed", "label", "prompt", "negative", "variation_seed")
# What a run may have otherwise than the one that began the folder.
_FREE = ("torch", "cpu", "threads", "gpu", "device", "evaluations")


@frozen
class Process:
    """One of the processes that share the work.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        device: The accelerator it is to use, or None.
    """

    rank: int = 0
    world: int = 1
    device: str | None = None

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> Process:
        """Return what ``accelerate launch`` and ``torchrun`` say, or the only process.

        Raises:
            ParameterError: ``RANK`` and ``WORLD_SIZE`` are not what they set.
        """
        rank, world = (environment.get(name, usual) for name, usual in (("RANK", "0"), ("WORLD_SIZE", "1")))
        if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
            raise ParameterError(f"RANK={rank!r}, WORLD_SIZE={world!r}: 0 <= RANK < WORLD_SIZE is needed")
        import torch

        several = int(world) > 1 and torch.cuda.is_available()
        device = f"cuda:{environment.get('LOCAL_RANK', rank)}" if several else None
        return cls(int(rank), int(world), device)


@frozen
class Shards:
    """A job whose samples are written to files ``shard-00000.npz``, ``shard-00001.npz``, ...

    Each has ``samples``, ``index`` (the samples' numbers) and a manifest, so that ``kdiff replay`` makes it
    again.

    Args:
        job: All of it; `n` samples.
        folder: Where the files go; made if it is not there.
        size: Samples in a file, and of a batch; the last file may have fewer.

    Raises:
        ParameterError: `size` is no whole number of at least 1.
    """

    job: SampleJob
    folder: Path = field(converter=Path)
    size: int = DEFAULT_SIZE

    def __attrs_post_init__(self) -> None:
        at_least_one("size", self.size, "samples in a file")

    @property
    def count(self) -> int:
        """Number of files."""
        return -(-self.job.n // self.size)

    def file(self, number: int) -> Path:
        """The file of that number."""
        return self.folder / f"shard-{number:05d}.npz"

    def part(self, number: int) -> SampleJob:
        """The job of one file: the numbers of its samples, and what the whole job has one of for each."""
        job, first = self.job, number * self.size
        here = slice(first, min(first + self.size, job.n))
        index = range(job.n) if job.index is None else job.index
        given = {name: getattr(job, name, None) for name in _EACH}
        each = {name: value[here] for name, value in given.items() if isinstance(value, tuple)}
        return evolve(job, n=here.stop - here.start, index=tuple(index[here]), **each)

    def missing(self) -> list[int]:
        """Numbers of the files that are not there, or are not whole."""
        return [number for number in range(self.count) if not self._whole(number)]

    def run(
        self, process: Process | None = None, on_file: Callable[[Path, Setup], None] | None = None
    ) -> list[Path]:
        """Make the files that this process is to make and that are not there yet.

        Args:
            process: This process. Default: what the environment says.
            on_file: Called after each file, with it and its run.

        Returns:
            The files made.

        Raises:
            ParameterError: The folder has the files of another job.
            KdiffError: Something of the job does not fit.
        """
        process = Process.current() if process is None else process
        first = self._setup(0, None, process)
        self._claim(first)
        made = []
        for number in self.missing():
            if number % process.world != process.rank:
                continue
            setup = first if number == 0 else self._setup(number, first.model, process)
            result = setup.run()
            host = result.x.detach().cpu()
            samples = (host.float() if host.dtype.itemsize < 4 else host).numpy()  # NumPy has no bfloat16
            arrays = {"samples": samples, "index": list(setup.job.index or ())}
            write_npz(self.file(number), arrays, manifest_of(setup, result))
            made.append(self.file(number))
            if on_file is not None:
                on_file(made[-1], setup)
        return made

    def _setup(self, number: int, model: Any, process: Process) -> Setup:
        job = self.part(number)
        if job.device is None and process.device is not None:
            job = evolve(job, device=process.device)
        return job.setup(model)

    def _whole(self, number: int) -> bool:
        """Whether a file is there and holds what it should; files are renamed when they are whole."""
        import numpy as np

        file = self.file(number)
        if not file.exists():
            return False
        try:
            with np.load(file, allow_pickle=False) as stored:
                return list(stored["index"]) == list(self.part(number).index or ())
        except (OSError, ValueError, KeyError, BadZipFile, EOFError):
            return False

    def _claim(self, setup: Setup) -> None:
        """Write down what the folder is of, or see that it is of the same.

        Raises:
            ParameterError: It is of another job, or has files of which nobody knows.
        """
        manifest = manifest_of(setup)
        for name in (*_FREE, "noise", "n", "label"):
            manifest.pop(name, None)
        job = self.job
        labels = list(job.label) if isinstance(job.label, tuple) else job.label
        mine = json.loads(
            dumped(
                {
                    "n": job.n,
                    "size": self.size,
                    "seed": job.seed,
                    "index": job.index,
                    "label": labels,
                    **manifest,
                }
            )
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        index = self.folder / INDEX
        if not index.exists():
            if any(re.fullmatch(r"shard-\d+\.npz", file.name) for file in self.folder.iterdir()):
                raise ParameterError(f"{self.folder}: has shards but no {INDEX}; take an empty folder")
            write_whole(index, json.dumps(mine, indent=1).encode())
            return
        theirs = json.loads(index.read_text(encoding="utf-8"))
        other = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
        if other:
            key = other[0]
            raise ParameterError(
                f"{self.folder} holds the samples of another job ({', '.join(other)} differ: {key} is "
                f"{theirs.get(key)!r:.80} there, {mine.get(key)!r:.80} here); take another folder"
            )


def read_shards(folder: str | Path) -> dict[str, Any]:
    """Read all samples of a folder, in the order of their numbers.

    Returns:
        ``samples`` ``(n, ...)``, ``index`` ``(n,)`` and ``manifest``, that of the first file.

    Raises:
        ParameterError: There are none, or some are missing.
    """
    import numpy as np

    place = Path(folder)
    if not (place / INDEX).exists():
        raise ParameterError(
            f"{place}: no {INDEX}; `kdiff sample --output {place}/` makes a folder of samples"
        )
    about = json.loads((place / INDEX).read_text(encoding="utf-8"))
    count = -(-about["n"] // about["size"])
    files = [place / f"shard-{number:05d}.npz" for number in range(count)]
    lacking = [file.name for file in files if not file.exists()]
    if lacking:
        raise ParameterError(
            f"{place}: {len(lacking)} of {count} files are missing, {lacking[0]} the first; run the same "
            "command again: it makes what is missing"
        )
    found: dict[str, list[Any]] = {"samples": [], "index": []}
    for file in files:
        with np.load(file, allow_pickle=False) as stored:
            for name, parts in found.items():
                parts.append(stored[name])
    return {name: np.concatenate(parts) for name, parts in found.items()} | {
        "manifest": read_manifest(files[0])
    }
