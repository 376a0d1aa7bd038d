"""The random states that everybody shares, watched."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .catalogue import require


@contextmanager
def global_randomness_untouched(whose: str) -> Iterator[None]:
    """Require that nothing draws from, or seeds, the generators that everybody shares."""
    kept = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    # A step on, since seeding anew may lead to the very state that the last example left.
    torch.rand(()), np.random.random(), random.random()
    before = _states()
    try:
        yield
        after = _states()
    finally:
        torch.random.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])
    for name, state in after.items():
        message = f"{whose} draws from {name}'s global generator; use one of its own"
        require(state == before.get(name, state), message)


def _states() -> dict[str, Any]:
    found: dict[str, Any] = {"torch": torch.random.get_rng_state().tolist(), "Python": random.getstate()}
    found["NumPy"] = pickle.dumps(np.random.get_state(legacy=False))
    if torch.cuda._initialized:
        found["CUDA"] = torch.cuda.get_rng_state().tolist()
    return found
