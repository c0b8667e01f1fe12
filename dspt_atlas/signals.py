"""Signals that come at a bad moment."""

from __future__ import annotations

import contextlib
import signal
import threading


@contextlib.contextmanager
def undisturbed():
    """Put off SIGINT and SIGTERM; Ctrl-C may come twice to a sweep's run, from the terminal and from the sweep."""
    if threading.current_thread() is not threading.main_thread():  # where no signal is handled
        yield
        return
    came, signals = [], (signal.SIGINT, signal.SIGTERM)
    before = {signum: signal.signal(signum, lambda number, frame: came.append(number)) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for signum in came:
            signal.raise_signal(signum)
