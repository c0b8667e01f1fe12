"""Mistakes of a user and failures of the machine, each told in one sentence."""

from __future__ import annotations

import os

import torch


class UserError(ValueError):
    """A user's mistake, in one sentence: what was expected, what came, the valid choices, what to do."""


try:
    from dassl.utils.errors import InvalidInputError
except ImportError:  # upstream's dassl
    InvalidInputError = UserError

MISTAKES = (UserError, InvalidInputError)
FAILURES = (OSError, FloatingPointError, torch.cuda.OutOfMemoryError)


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, without the stack trace that a data loader's worker puts into it."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        message = f"{os.fsdecode(error.filename)}: {error.strerror}"
    if "Original Traceback" in message:
        message = message.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(message.split()) or type(error).__name__
