"""The kit's marks and options in pytest, and the header line that says what was chosen.

pytest loads this wherever kdiff-core is installed: at start-up it imports pytest, and nothing else that takes
time. The options travel in the environment, where `Settings.from_environment` finds them in workers and
subprocesses too.
"""

from __future__ import annotations

import os
import secrets
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .settings import Settings

PREFIX = "KDIFF_CHECK_"  # as in `settings`, which needs attrs
NAMES = ("device", "dtype", "examples", "seed", "slow")
NO_GPU = " (cuda was asked for: there is no GPU)"
_NOTE = pytest.StashKey[str]()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}: give a whole number of at least 1")
    return int(text)


def _seed(text: str) -> int | str:
    try:
        return text if text == "random" else int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r}: give a whole number, or random") from None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; each of them is None where it is not given."""
    group = parser.getgroup("kdiff", "checks of kdiff's conformance kit")
    group.addoption(
        "--kdiff-device", choices=("cpu", "cuda"), help="where they run (cpu); without a GPU on the CPU"
    )
    group.addoption("--kdiff-dtype", choices=("float64", "float32"), help="of the states (float64)")
    group.addoption("--kdiff-examples", type=_count, metavar="N", help="random examples of a check (20)")
    group.addoption(
        "--kdiff-seed",
        type=_seed,
        metavar="N|random",
        help="seed of the examples (0); random: another each time, shown in the header",
    )
    group.addoption(
        "--kdiff-slow",
        action="store_const",
        const=1,
        help="run the tests marked kdiff_slow too, which compile or start processes",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and put the options into the environment for as long as pytest runs."""
    config.addinivalue_line("markers", "kdiff: a check of kdiff's conformance kit")
    config.addinivalue_line("markers", "kdiff_slow: compiles or starts processes; run with --kdiff-slow")
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name, value in _chosen(config).items():
        patch.setenv(name, value)
    try:
        _settings()
    except ValueError as error:
        raise pytest.UsageError(f"in the environment, as {PREFIX}...: {error}") from None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give the environment's choices, a random seed among them, to a worker of pytest-xdist."""
    variables = [f"{PREFIX}{name.upper()}" for name in NAMES]
    node.workerinput["kdiff"] = {name: os.environ[name] for name in variables if name in os.environ}


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what was chosen, unless all is as it is by default."""
    note, chosen = config.stash.get(_NOTE, ""), _settings()
    if chosen is None:
        return None
    from .settings import Settings

    if chosen == Settings() and not note:
        return None
    slow = ", slow checks too" if chosen.slow else ""
    budget = f"{chosen.examples} example{'s' * (chosen.examples > 1)}, seed {chosen.seed}"
    return f"kdiff: device {chosen.device}{note}, {chosen.dtype}, {budget}{slow}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is slow, unless it was asked for."""
    chosen = _settings()
    if chosen is not None and chosen.slow:
        return
    for item in items:
        if item.get_closest_marker("kdiff_slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --kdiff-slow"))


def _chosen(config: pytest.Config) -> dict[str, str]:
    """What goes into the environment: a worker takes what its controller chose."""
    workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
    if workerinput is not None:
        return dict(workerinput.get("kdiff", {}))
    given = {name: getattr(config.option, f"kdiff_{name}") for name in NAMES}
    if given["seed"] == "random":
        given["seed"] = 1 + secrets.randbelow(2**32 - 1)
    if "cuda" in (given["device"], None if given["device"] else os.environ.get(f"{PREFIX}DEVICE")):
        import torch

        given["device"] = "cuda" if torch.cuda.is_available() else "cpu"
        config.stash[_NOTE] = "" if given["device"] == "cuda" else NO_GPU
    return {f"{PREFIX}{name.upper()}": str(value) for name, value in given.items() if value is not None}


def _settings() -> Settings | None:
    """The environment's settings, or None, at no cost, where it has none."""
    if not any(os.environ.get(f"{PREFIX}{name.upper()}") for name in NAMES):
        return None
    from .settings import Settings

    return Settings.from_environment()
