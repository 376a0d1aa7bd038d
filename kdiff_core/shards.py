"""Many samples in files of equal size: made by any number of processes, resumed where they stopped.

Which samples stand in a file depends on its number alone, and sample i on the seed and i; so the files are
the same, bit for bit, for any number of processes and after any crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from .errors import ParameterError
from .files import write_whole
from .manifest import dumped, manifest_of, read_manifest, write_npz
from .manifest_file import UNREADABLE
from .names import quoted
from .setup import at_least_one

if TYPE_CHECKING:
    from .sample_job import SampleJob
    from .setup import Setup

DEFAULT_SIZE = 256
INDEX = "shards.json"
# What a job may have one of for each sample.
_EACH = ("seed", "label", "prompt", "negative", "variation_seed", "init", "mask")
# What a run may have otherwise than the one that began the folder.
_FREE = ("torch", "cpu", "threads", "gpu", "device", "evaluations")
_SHARD = re.compile(r"shard-\d+\.npz")


@frozen
class Process:
    """One of the processes that share the work.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        local: Its number on its machine.

    Raises:
        ParameterError: They do not fit together.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    def __attrs_post_init__(self) -> None:
        if not (0 <= self.rank < self.world and self.local >= 0):
            raise ParameterError(f"rank={self.rank}, world={self.world}: 0 <= rank < world is needed")

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> Process:
        """Return what ``accelerate launch`` and ``torchrun`` say, or the only process.

        Raises:
            ParameterError: ``RANK``, ``WORLD_SIZE`` or ``LOCAL_RANK`` are not what they set.
        """
        usual = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        given = {name: environment.get(name, value) for name, value in usual.items()}
        if bad := [f"{name}={value!r}" for name, value in given.items() if not value.isdecimal()]:
            raise ParameterError(f"{bad[0]} must be a whole number, as torchrun sets it")
        return cls(*map(int, given.values()))

    def take_gpu(self) -> None:
        """Make "cuda" stand for a GPU of its own, where processes share a machine."""
        import torch

        if self.world > 1 and torch.cuda.is_available():
            torch.cuda.set_device(self.local % torch.cuda.device_count())


@frozen
class Shards:
    """A job whose samples are written to files ``shard-00000.npz``, ``shard-00001.npz``, ...

    Each has ``samples``, ``index`` (the samples' numbers) and a manifest, so that ``kdiff replay`` makes it
    again.

    Args:
        job: All of it; `n` samples. An array to begin with is one for each sample if its first axis is n.
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
        usual = range(job.n) if isinstance(job.seed, int) else (0,) * job.n  # as `KeyedNoise` has it
        index = usual if job.index is None else job.index
        given = {name: getattr(job, name) for name in _EACH}
        each = {name: value[here] for name, value in given.items() if _is_each(value, job.n)}
        return evolve(job, n=here.stop - here.start, index=tuple(index[here]), **each)

    def missing(self) -> list[int]:
        """Numbers of the files that are not there, or are not whole."""
        return [number for number in range(self.count) if not self._whole(number)]

    def setup(self) -> Setup:
        """Build and check the run of the first file; the model is not called.

        Raises:
            KdiffError: As `SampleJob.setup`.
        """
        return self.part(0).setup()

    def run(
        self,
        process: Process | None = None,
        on_file: Callable[[Path, Setup], None] | None = None,
        first: Setup | None = None,
    ) -> list[Path]:
        """Make the files that this process is to make and that are not there yet.

        Args:
            process: This process. Default: what the environment says.
            on_file: Called after each file, with it and its run.
            first: What `setup` returned, in place of building it again.

        Returns:
            The files made.

        Raises:
            ParameterError: The folder has the files of another job.
            KdiffError: Something of the job does not fit.
        """
        process = Process.current() if process is None else process
        process.take_gpu()
        first = self.setup() if first is None else first
        self._claim(first)
        made = []
        for number in self.missing():
            if number % process.world == process.rank:
                setup = self.part(number).setup(first.model)
                self._make(self.file(number), setup)
                made.append(self.file(number))
                if on_file is not None:
                    on_file(made[-1], setup)
        return made

    def _make(self, file: Path, setup: Setup) -> None:
        """Sample, and write one file; which of several GPUs it was made on is not said in it."""
        result = setup.run()
        arrays = {"samples": as_array(setup.decoded(result.x)), "index": list(setup.job.index or ())}
        where = setup.job.device or setup.like.device.type
        write_npz(file, arrays, manifest_of(setup, result, device=where))

    def _whole(self, number: int) -> bool:
        """Whether a file is there and holds what it should; files are renamed when they are whole."""
        import numpy as np

        file = self.file(number)
        if not file.exists():
            return False
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
                return list(stored["index"]) == list(self.part(number).index or ())
        except UNREADABLE:
            return False

    def _claim(self, setup: Setup) -> None:
        """Write down what the folder is of, or see that it is of the same.

        Raises:
            ParameterError: It is of another job, or has files of which nobody knows.
        """
        mine = self._identity(setup)
        self.folder.mkdir(parents=True, exist_ok=True)
        index = self.folder / INDEX
        # Other processes may be at it: files that were there before the index are nobody's.
        strays = [file.name for file in self.folder.iterdir() if _SHARD.fullmatch(file.name)]
        if not index.exists():
            if strays:
                raise ParameterError(
                    f"{self.folder}: has {strays[0]}, but no {INDEX} that says of what; take an empty folder"
                )
            write_whole(index, json.dumps(mine, indent=1).encode())
            return
        theirs = _read_index(self.folder)
        other = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
        if other:
            key = other[0]
            raise ParameterError(
                f"{self.folder} holds the samples of another job, which differs in {quoted(other)}: {key} is "
                f"{theirs.get(key)!r:.80} there, {mine.get(key)!r:.80} here; take another folder"
            )

    def _identity(self, setup: Setup) -> dict[str, Any]:
        """Return what decides the samples, as JSON has it."""
        manifest = manifest_of(setup)
        for name in (*_FREE, "noise"):
            del manifest[name]
        job = self.job
        whole = {name: getattr(job, name) for name in ("n", "index", *_EACH)}
        for name in ("init", "mask"):  # files stand in the manifest
            whole[name] = manifest[name] if isinstance(whole[name], str | Path) else _digest(whole[name])
        text = dumped({**manifest, **whole, "size": self.size})
        found: dict[str, Any] = json.loads(re.sub(r" at 0x[0-9a-f]+", "", text))  # of an object's repr
        return found


def as_array(x: Any) -> Any:
    """Return a tensor as an array; NumPy has no bfloat16, float32 holds it exactly."""
    host = x.detach().cpu()
    return (host.float() if host.dtype.itemsize < 4 else host).numpy()


def _is_each(value: Any, n: int) -> bool:
    """Whether it is one for each of n samples; an array for a batch of one is for all."""
    return isinstance(value, tuple) or (hasattr(value, "shape") and n > 1 and value.shape[:1] == (n,))


def _digest(array: Any) -> str | None:
    """Return what tells an array from another, None for nothing."""
    import torch

    if array is None:
        return None
    data = as_array(torch.as_tensor(array))
    return f"{data.shape} {hashlib.sha256(data.tobytes()).hexdigest()}"


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no mapping")
    except (OSError, ValueError) as error:
        raise ParameterError(f"{folder / INDEX} cannot be read: {error}") from error
    return found


def read_shards(folder: str | Path) -> dict[str, Any]:
    """Read all samples of a folder, in the order of their numbers.

    Returns:
        ``samples`` ``(n, ...)``, ``index`` ``(n,)`` and ``manifest``, that of the first file.

    Raises:
        ParameterError: There are none, or some are missing or damaged.
    """
    import numpy as np

    place = Path(folder)
    if not (place / INDEX).exists():
        raise ParameterError(
            f"{place}: no {INDEX}; `kdiff sample --output {place}/` makes a folder of samples"
        )
    about = _read_index(place)
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
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
                for name, parts in found.items():
                    parts.append(stored[name])
        except UNREADABLE as error:
            raise ParameterError(
                f"{file}: is damaged ({error}); delete it and run the same command again"
            ) from error
    return {name: np.concatenate(parts) for name, parts in found.items()} | {
        "manifest": read_manifest(files[0])
    }
