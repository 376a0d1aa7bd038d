"""What all tests share: one thread, the device, Hypothesis profiles. The options are kdiff's plugin's."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

pytest_plugins = ["pytester"]

settings.register_profile("kdiff", deadline=None, max_examples=50, derandomize="CI" in os.environ)


def pytest_configure(config):
    if not config.pluginmanager.has_plugin("kdiff"):
        raise pytest.UsageError('pytest does not find its plugin kdiff; install it: pip install -e ".[test]"')
    examples = config.getoption("--kdiff-examples")
    if examples is not None:
        settings.register_profile("thorough", deadline=None, max_examples=examples)
    if not config.getoption("hypothesis_profile", None):
        settings.load_profile("kdiff" if examples is None else "thorough")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Results do not depend on the number of cores, and workers of pytest-xdist do not fight for them."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def device():
    """The device that was asked for with ``--kdiff-device``."""
    import torch

    return torch.device(os.environ.get("KDIFF_CHECK_DEVICE", "cpu"))
