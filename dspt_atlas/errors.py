"""Mistakes of a user and failures of the machine, each in one sentence. Loads neither torch nor dassl."""

from __future__ import annotations

import os
import sys

NO_DASSL = (
    "dspt_atlas needs the package `dassl`, which is not installed: install upstream's from "
    "https://github.com/KaiyangZhou/Dassl.pytorch, or ours by `pip install ./engine` in the folder of this project."
)

NO_PACKAGE = (
    ": install what is needed by `bash scripts/demo.sh`, or in your environment by `pip install -e engine -e .`"
)


class UserError(ValueError):
    """A user's mistake, in one sentence: what was expected, what came, the valid choices, what to do."""


class FolderHeldError(UserError):
    """Another process is using a run's folder: the same start may succeed later."""

    exit_status = os.EX_TEMPFAIL


class NonFiniteError(UserError, RuntimeError):
    """The loss or the prompts are not finite; the run stops and its checkpoints do not change."""


def is_mistake(error: BaseException) -> bool:
    """Return whether an error is a user's mistake; a package that is not installed is one."""
    return isinstance(error, (UserError, *_loaded("dassl.utils.errors", "InvalidInputError"))) or lacks_package(error)


def is_failure(error: BaseException) -> bool:
    """Return whether an error is a failure of the machine: of a disk, of memory on a GPU, or of arithmetic."""
    return isinstance(error, (OSError, FloatingPointError, *_loaded("torch.cuda", "OutOfMemoryError")))


def status_of(error: BaseException) -> int:
    """Return the exit status of a command that ends with this error: 2 for a mistake, 1 for a failure."""
    return getattr(error, "exit_status", 2 if is_mistake(error) else 1)


def _loaded(module: str, name: str) -> tuple:
    """Return (class,) of a module, or () if it is not loaded; then no error can be of that class."""
    found = getattr(sys.modules.get(module), name, None)
    return () if found is None else (found,)


def lacks_package(error: BaseException) -> bool:
    """Return whether an import failed because another package is not installed."""
    return isinstance(error, ModuleNotFoundError) and not (error.name or "dspt_atlas").startswith("dspt_atlas")


def lacks_dassl(error: BaseException) -> bool:
    """Return whether an import failed because no `dassl` is installed."""
    return isinstance(error, ModuleNotFoundError) and error.name == "dassl"


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, without the stack trace of a data loader's worker."""
    message = NO_DASSL if lacks_dassl(error) else f"{error}{NO_PACKAGE}" if lacks_package(error) else str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        message = f"{os.fsdecode(error.filename)}: {error.strerror}"
    if "Original Traceback" in message:
        message = message.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(message.split()) or type(error).__name__
