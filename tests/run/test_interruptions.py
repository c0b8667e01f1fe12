"""A signal at any line of what makes, holds and notes a run's folder leaves nothing of a start that came to nothing."""

import contextlib
import os
import signal
import sys

import pytest

from dspt_atlas.errors import UserError
from dspt_atlas.run import folder as folders
from dspt_atlas.signals import Interrupted, ending, signals_raised

FUNCTIONS = (
    folders.hold,
    folders._make,
    folders._acquire,
    folders._take,
    folders._let_go,
    folders.log,
    ending.__exit__,
)
CODES = {getattr(function, "__wrapped__", function).__code__ for function in FUNCTIONS}


@contextlib.contextmanager
def signal_at(number):
    """Send SIGTERM to this process before the given line (from 0) of FUNCTIONS; yield the lines that were reached."""
    reached = []

    def trace(frame, event, argument):
        if event == "line":
            reached.append((frame.f_code.co_name, frame.f_lineno))
            if len(reached) == number + 1:
                os.kill(os.getpid(), signal.SIGTERM)
        return trace

    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: trace if frame.f_code in CODES else None)
    try:
        yield reached
    finally:
        sys.settrace(before)


def start(folder, error):
    """Begin a run as `dspt_atlas.run.runs` does; it fails if there is an error."""
    with folders.hold(folder) as is_new:
        try:
            with folders.log(folder / "log.txt"):
                print("the data set is read")
                if error:
                    raise error
        except BaseException as failure:
            if is_new and folders.came_to_nothing(folder, failure):
                folders.remove_start(folder, ())
            raise


def lines_of(folder, error):
    """Return the lines that a start reaches when no signal comes."""
    with signal_at(-1) as reached, contextlib.suppress(UserError):
        start(folder, error)
    return reached


@pytest.mark.parametrize("error", [UserError("bad data"), None], ids=["it fails", "it goes on"])
def test_a_signal_at_any_line_leaves_nothing(error, tmp_path, capsys):
    (tmp_path / "of others").mkdir()
    for number in range(len(lines_of(tmp_path / "counted" / "new" / "run", error))):
        folder = tmp_path / str(number) / "new" / "run"
        handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        with pytest.raises(Interrupted), signals_raised(), signal_at(number) as reached:
            start(folder, error)
        if error is not None or not (folder / "log.txt").is_file():
            assert not (tmp_path / str(number)).exists(), reached[number]
        assert not list(folder.glob(".*")), reached[number]
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers, reached[number]
    assert (tmp_path / "of others").is_dir()
