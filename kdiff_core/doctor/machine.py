"""Checks of the installation: Python, torch, devices, plugins, extras, threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections import defaultdict
from typing import Any

from ..entry import BUILTIN
from ..lookup import list_plugins
from ..names import quoted
from . import Check, Seen, ok, problem, skipped, warning

_OLDEST = (3, 11)
_OLDEST_TORCH = (2, 6)


def cores() -> int:
    """Return the number of cores that this process may use."""
    may = getattr(os, "sched_getaffinity", None)
    return len(may(0)) if may else os.cpu_count() or 1


def python(_: Any) -> Seen:
    """The version of Python."""
    version = platform.python_version()
    if sys.version_info < _OLDEST:
        return problem(
            f"Python {version}", "kdiff is written for 3.11 and later", "install Python 3.11 or later"
        )
    return ok(f"Python {version} on {platform.machine()} {platform.system()}")


def torch(_: Any) -> Seen:
    """The version of torch."""
    import torch as found

    version = tuple(int(part) for part in re.findall(r"\d+", found.__version__)[:2])
    if version < _OLDEST_TORCH:
        return problem(
            f"torch {found.__version__}", "kdiff needs 2.6 or later", "pip install --upgrade torch"
        )
    return ok(f"torch {found.__version__}")


def device(_: Any) -> Seen:
    """A GPU that torch can use."""
    import torch as found

    if found.cuda.is_available():
        free, total = found.cuda.mem_get_info()
        name = found.cuda.get_device_name()
        return ok(f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    if found.backends.mps.is_available():
        return ok("mps")
    if found.version.cuda or getattr(found.version, "hip", None):
        return warning(
            "torch is built for a GPU, and finds none",
            "runs are on the CPU; there is no GPU here, or its driver does not fit torch",
            "if there is one: look at nvidia-smi, CUDA_VISIBLE_DEVICES and the driver's version",
        )
    return ok("the CPU; this torch is not built for a GPU")


def plugins(_: Any) -> Seen:
    """Plugins that are broken or blocked."""
    records = list_plugins()
    if broken := [record for record in records if record.state == "broken"]:
        return problem(
            "; ".join(f"{record.distribution}: {record.error}" for record in broken),
            "what they offer cannot be found by name",
            "mend, update or uninstall them, or leave them out with KDIFF_BLOCK",
        )
    if blocked := [record for record in records if record.state == "blocked"]:
        return warning(
            "; ".join(f"{record.distribution} ({record.entry_point}): {record.error}" for record in blocked),
            "what they offer cannot be found by name",
            "change KDIFF_BLOCK, KDIFF_PLUGINS or KDIFF_DISABLE_PLUGINS, if that is not wanted",
        )
    return ok(f"{len(records)} are loaded")


def extras(_: Any) -> Seen:
    """The optional packages: each extra whole or not there at all."""
    try:
        needs = importlib.metadata.requires(BUILTIN) or []
    except importlib.metadata.PackageNotFoundError:
        return skipped(f"{BUILTIN} is not installed as a distribution")
    packages: defaultdict[str, set[str]] = defaultdict(set)
    for need in needs:
        if extra := re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", need):
            packages[extra[1]].add(re.split(r"[^\w.-]", need)[0])
    missing = {
        extra: sorted(name for name in names - {BUILTIN} if not _installed(name))
        for extra, names in packages.items()
        if extra not in ("test", "docs", "lint")
    }
    absent = [extra for extra, names in missing.items() if names]
    part = [extra for extra in absent if len(missing[extra]) < len(packages[extra] - {BUILTIN})]
    if part:
        return warning(
            "; ".join(f"of {extra!r} there is no {', '.join(missing[extra])}" for extra in part),
            "what needs them refuses to work",
            f"pip install 'kdiff-core[{','.join(part)}]', if it is wanted",
        )
    have = quoted(extra for extra in missing if extra not in absent) or "none"
    return ok(f"installed: {have}; not: {quoted(absent) or 'none'}")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def threads(_: Any) -> Seen:
    """Threads of torch beside the cores, and OMP_NUM_THREADS and MKL_NUM_THREADS."""
    import torch as found

    have, uses = cores(), found.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value and (not value.isdecimal() or int(value) < 1):
            return warning(
                f"{name}={value!r}",
                "it is no number of threads, and is not heeded",
                f"unset it, or {name}={have}",
            )
    if uses > have:
        return warning(
            f"{uses} threads on {have} cores",
            "threads wait for each other, which can make runs on the CPU many times slower",
            f"OMP_NUM_THREADS={have}, or torch.set_num_threads({have})",
        )
    if uses == 1 and have >= 4:
        return warning(
            f"1 thread on {have} cores",
            "runs on the CPU use one core",
            f"unset OMP_NUM_THREADS, or torch.set_num_threads({have}), unless other processes need the rest",
        )
    return ok(f"{uses} of {have} cores are used")


CHECKS: tuple[Check, ...] = (python, torch, device, plugins, extras, threads)
