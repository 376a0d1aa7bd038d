"""What all tests share: one thread, the options, the device, Hypothesis profiles."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("kdiff", deadline=None, max_examples=50, derandomize="CI" in os.environ)


def pytest_addoption(parser):
    group = parser.getgroup("kdiff")
    group.addoption("--slow", action="store_true", help="run the tests marked slow too")
    group.addoption(
        "--kdiff-device",
        default="cpu",
        choices=("cpu", "cuda"),
        help="where tests that take a device run (cpu); cuda without a GPU runs on the CPU and says so",
    )
    group.addoption("--kdiff-examples", type=int, metavar="N", help="Hypothesis examples a test (50)")


def pytest_configure(config):
    examples = config.getoption("--kdiff-examples")
    if examples is not None:
        settings.register_profile("thorough", deadline=None, max_examples=examples)
    if not config.getoption("hypothesis_profile", None):
        settings.load_profile("kdiff" if examples is None else "thorough")
    os.environ["KDIFF_TEST_DEVICE"] = chosen_device(config)[0]  # for tests/support.py


def chosen_device(config):
    """Return the name of the device asked for, and why it is another one where it is."""
    if config.getoption("--kdiff-device") == "cuda":
        import torch

        return (
            ("cuda", "") if torch.cuda.is_available() else ("cpu", " (cuda was asked for: there is no GPU)")
        )
    return "cpu", ""


def pytest_report_header(config):
    return "kdiff device: {}{}".format(*chosen_device(config))


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Results do not depend on the number of cores, and workers of pytest-xdist do not fight for them."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def device(pytestconfig):
    """The device that was asked for with ``--kdiff-device``."""
    import torch

    return torch.device(chosen_device(pytestconfig)[0])
