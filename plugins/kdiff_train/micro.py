"""The largest micro-batch that fits into memory."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from kdiff_core.errors import ParameterError

_WORDS = (
    "out of memory",
    "can't allocate memory",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up, on a GPU or the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def fits(attempt: Callable[[int], None], count: int) -> bool:
    """Whether `attempt` has memory enough for `count` images; other errors are raised."""
    try:
        attempt(count)
    except Exception as error:
        if not out_of_memory(error):
            raise
        found = False
    else:
        found = True
    if torch.cuda.is_available():
        # Not in the handler, where the traceback still holds the tensors.
        gc.collect()
        torch.cuda.empty_cache()
    return found


def largest(attempt: Callable[[int], None], most: int) -> int:
    """Return the largest number of images, at most `most`, for which `attempt` has memory enough.

    Doubled until it does not fit, then bisected: about ``2 log2(most)`` attempts.

    Args:
        attempt: Does with so many images what training does; raises where memory does not suffice.
        most: Images that would suffice.

    Raises:
        ParameterError: Not even one fits.
    """
    good, bad = 0, most + 1
    count = 1
    while good < most and bad - good > 1:
        if fits(attempt, count):
            good = count
        else:
            bad = count
        count = min(2 * good, most) if bad > most else (good + bad) // 2
        if not good and bad == 1:
            raise ParameterError(
                "not even a micro-batch of one image fits into memory: use a smaller network or image, "
                "checkpointing: true, or precision: bf16"
            )
    return good
