"""What to do when the process is asked to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_signal(number: signal.Signals, stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on a signal, in place of what was done before; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(number, before)
