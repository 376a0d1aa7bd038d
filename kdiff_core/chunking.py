"""`Chunked`: calls a model on a few samples at a time, on fewer where memory does not suffice."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch

from .context import Prediction
from .errors import ParameterError
from .shared_call import joined, map_rows
from .state import Leaves, check_output, flatten, rebuild
from .wrapped import Wrapped

# What backends without a class of their own for it say. A word of memory elsewhere is not enough: a
# message may speak of an index "out of memory bounds".
_MESSAGES = re.compile(
    r"(CUDA|HIP|XPU|NPU)( error:)? out of memory"
    r"|MPS backend out of memory"
    r"|DefaultCPUAllocator: (can't allocate|not enough) memory"
)
_FAILED = object()


class ChunkWarning(UserWarning):
    """A model ran out of memory, and the run goes on with fewer samples a call."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory is full: torch's class for it, or a `RuntimeError` that does."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return type(error) is RuntimeError and _MESSAGES.search(str(error)) is not None


def check_chunk(chunk: Any) -> int | None:
    """Return the number of samples that ``chunk=`` asks for, None for the whole batch ("auto").

    Raises:
        ParameterError: It is neither "auto" nor a whole number of at least 1.
    """
    if chunk == "auto":
        return None
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ParameterError(
            f"chunk={chunk!r:.40}: give the most samples of a model call, at least 1, or 'auto': the whole "
            "batch, and less where memory does not suffice"
        )
    return chunk


class Chunked(Wrapped):
    """A denoiser that calls another one on at most `size` samples at a time.

    Tensors in the conditions that have a row for each sample are split with the state; everything else
    goes whole to each call. What the denoiser itself keeps for each sample is not split, so guidance with
    such conditions goes around: ``get_guidance("cfg", Chunked(model, 4), uncond=...)``.

    When a call runs out of memory `size` is halved and the samples that are left are computed in smaller
    calls. Results do not depend on it where the model treats samples alone; many kernels of matrix products
    choose their order of summation by the batch, and then differ by rounding.

    Args:
        denoiser: The denoiser.
        chunk: Most samples of a call, or "auto" for the whole batch to begin with.

    Attributes:
        size: Most samples of a call as it stands; None for the whole batch.

    Raises:
        ParameterError: `chunk` is neither "auto" nor a whole number of at least 1.
    """

    def __init__(self, denoiser: Any, chunk: Any = "auto") -> None:
        super().__init__(denoiser)
        self.size = check_chunk(chunk)
        self._failed: int | None = None
        self._warned = False

    def __call__(self, x: Any, sigma: Any, **cond: Any) -> Any:
        """Denoise."""
        return self._in_chunks(self.denoiser, (), x, sigma, cond)

    @property
    def predict(self) -> Callable[..., Any]:
        """``predict`` of the denoiser inside, in chunks; missing if it has none."""
        inner = self.denoiser.predict

        def predict(x: Any, sigma: Any, **cond: Any) -> Any:
            return self._in_chunks(inner, Prediction._fields, x, sigma, cond)

        return predict

    @property
    def degraded(self) -> Callable[..., Chunked]:
        """``degraded`` of the denoiser inside, its branches in chunks too; missing if it has none."""
        inner, chunk = self.denoiser.degraded, "auto" if self.size is None else self.size
        return lambda name, **options: Chunked(inner(name, **options), chunk)

    def _in_chunks(self, call: Any, fields: tuple[str, ...], x: Any, sigma: Any, cond: dict[str, Any]) -> Any:
        """Call for some samples after others; `fields` are the names of several outputs."""
        batch, start = len(sigma), 0
        parts: list[list[Leaves]] = []
        while start < batch:
            rows = slice(start, start + min(self.size or batch, batch - start))
            size = rows.stop - start
            if size == batch:
                answer = self._attempt(call, x, sigma, cond, size)
            else:
                part = rebuild(x, [leaf[rows] for leaf in flatten(x)])
                given = map_rows(cond, batch, itemgetter(rows))
                answer = self._attempt(call, part, sigma[rows], given, size)
            if answer is _FAILED:
                self._failed, self.size = self._failed or size, size // 2
                continue
            self._say_once()
            if size == batch:
                return answer
            outputs = [getattr(answer, name) for name in fields] if fields else [answer]
            parts.append([check_output(output, part, flatten(part)) for output in outputs])
            start = rows.stop
        whole = [rebuild(x, joined(list(leaves))) for leaves in zip(*parts, strict=True)]
        return Prediction(*whole) if fields else whole[0]

    def _attempt(self, call: Any, x: Any, sigma: Any, cond: dict[str, Any], size: int) -> Any:
        """Make a call; `_FAILED` if there is no memory for it. What it took is free again."""
        try:
            return call(x, sigma, **cond)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                error.add_note(
                    "kdiff: the model does not fit in memory with one sample. What is left: offload=True, "
                    "which moves the sampler's history to the CPU; a smaller state; half precision; tiling"
                )
                raise
        # The exception is gone, and with it the frames that held what the model had computed.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return _FAILED

    def _say_once(self) -> None:
        """Warn of halving, once, when it is known which size goes."""
        if self._failed is None or self._warned:
            return
        self._warned = True
        warnings.warn(
            f"the model ran out of memory with {self._failed} samples; the run goes on with {self.size} a "
            f"call, to the same result. chunk={self.size} begins with that",
            ChunkWarning,
            stacklevel=2,
        )
