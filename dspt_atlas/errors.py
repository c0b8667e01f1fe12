"""Mistakes of a user and failures of the machine, each told in one sentence."""

from __future__ import annotations

import os

import torch


class UserError(ValueError):
    """A user's mistake, in one sentence: what was expected, what came, the valid choices, what to do."""


class FolderHeldError(UserError):
    """Another process is at work in a run's folder: the same start may go well later."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h


try:
    from dassl.utils.errors import InvalidInputError
except ImportError:  # upstream's dassl
    InvalidInputError = UserError

MISTAKES = (UserError, InvalidInputError)
FAILURES = (OSError, FloatingPointError, torch.cuda.OutOfMemoryError)


def status_of(error: BaseException) -> int:
    """Return the exit status of a command that ends with this error: 2 for a mistake, 1 for a failure."""
    return getattr(error, "exit_status", 2 if isinstance(error, MISTAKES) else 1)


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, without the stack trace that a data loader's worker puts into it."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        message = f"{os.fsdecode(error.filename)}: {error.strerror}"
    if "Original Traceback" in message:
        message = message.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(message.split()) or type(error).__name__
