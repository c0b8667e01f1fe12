"""SIGINT and SIGTERM: they raise an exception in the command that they are meant for, and wait at a bad moment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import traceback

ALARM = getattr(signal, "SIGALRM", None)  # Windows has none, and no SIGCHLD and no timer either
SAME_SIGNAL_SECONDS = 2  # within this time, a second signal means the same as the first


class Interrupted(BaseException):
    """SIGINT or SIGTERM came; `exit_status` is 130 or 143."""

    def __init__(self, signum):
        super().__init__(signal.Signals(signum).name)
        self.exit_status = 128 + signum


def is_alive(pid: int) -> bool:
    """Return whether this machine has a process of that number, anybody's."""
    if sys.platform == "win32":  # os.kill(pid, 0) would be Ctrl-C there
        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        return bool(handle and ctypes.windll.kernel32.CloseHandle(handle))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def undisturbed():
    """Delay SIGINT and SIGTERM; Ctrl-C may come twice to a sweep's run, from the terminal and from the sweep."""
    if threading.current_thread() is not threading.main_thread():  # no signal is handled there
        yield
        return
    came, before = [], {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        for signum in before:
            signal.signal(signum, lambda number, frame: came.append(number))
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for signum in came:
            signal.raise_signal(signum)


class ending:
    """Call a function after the block, undisturbed. In two of these, it is called though a signal comes in between."""

    def __init__(self, end):
        self.end = end

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with undisturbed():
            self.end()


@contextlib.contextmanager
def signals_raised():
    """Turn SIGINT and SIGTERM into `Interrupted` in this process; a data loader's worker only ends.

    A second signal that follows immediately means the same (a sweep's run gets Ctrl-C from the terminal and from the
    sweep). If a signal comes while an object is being deleted, Python drops the exception; it is raised again after
    that.
    """
    owner, hook, usual, came, first = os.getpid(), sys.unraisablehook, sys.excepthook, [], []

    def stop(signum, frame):
        if os.getpid() != owner:
            os._exit(128 + signum)
        if signum != ALARM:
            first.append(time.monotonic())
            if first[-1] - first[0] < SAME_SIGNAL_SECONDS and len(first) > 1:
                return
        # Loaders' workers end too, and torch's handler would raise an error for them until this process ends.
        if ALARM:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        came.append(signum)
        raise Interrupted(came[0] if signum == ALARM else signum)

    def raise_again(dropped):
        if isinstance(dropped.exc_value, Interrupted):
            came[:] = [dropped.exc_value.exit_status - 128]
            raise_alarm_after(0.05)
        elif not came:  # errors of objects that are deleted after a stop, such as loaders, do not matter
            hook(dropped)

    def raise_alarm_after(seconds):  # 0: never
        if ALARM:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def say(kind, error, trace):
        # A worker that was sending a batch when its run was stopped prints nothing.
        if os.getpid() == owner or not issubclass(kind, (EOFError, ConnectionError)):
            usual(kind, error, trace)

    handled = (signal.SIGINT, signal.SIGTERM, *filter(None, [ALARM]))
    before = {signum: signal.signal(signum, stop) for signum in handled}
    sys.unraisablehook, sys.excepthook = raise_again, say
    try:
        yield
    except Interrupted as interrupted:
        # So that objects of the frames, such as an incomplete loader, are deleted while this hook exists.
        traceback.clear_frames(interrupted.__traceback__)
        raise
    finally:
        sys.unraisablehook, sys.excepthook = hook, usual
        raise_alarm_after(0)
        for signum, handler in before.items():
            signal.signal(signum, handler)
