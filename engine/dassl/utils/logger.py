"""Copy stdout to a log file."""

import os
import sys
import time

from .tools import mkdir_if_missing

__all__ = ["Logger", "setup_logger"]


class Logger:
    """Text stream that writes to the console and, in UTF-8, to the file `fpath` (truncated; parents are created).

    Everything else that a text stream has (`isatty`, `fileno`, `encoding`, ...) is the console's.
    """

    def __init__(self, fpath=None):
        self.console = sys.stdout
        self.file = None
        if fpath is not None:
            mkdir_if_missing(os.path.dirname(fpath))
            self.file = open(fpath, "w", encoding="utf-8")  # noqa: SIM115

    def __getattr__(self, name):
        if name == "console":  # not constructed yet: delegation would call itself
            raise AttributeError(name)
        return getattr(self.console, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def write(self, message):
        """Write text and flush after a newline; characters that the console's encoding lacks appear there as `?`."""
        try:
            self.console.write(message)
        except UnicodeEncodeError:
            encoding = self.console.encoding
            self.console.write(message.encode(encoding, "replace").decode(encoding))
        if self.file is not None:
            self.file.write(message)
        if "\n" in message:
            self.flush()
        return len(message)

    def writelines(self, lines):
        """Write each of the strings."""
        for line in lines:
            self.write(line)

    def flush(self):
        """Flush console and file."""
        self.console.flush()
        if self.file is not None:
            self.file.flush()

    def close(self):
        """Close the file; the console stays open."""
        if self.file is not None:
            self.file.close()
            self.file = None


def setup_logger(output=None):
    """Copy stdout to `output` (a .txt or .log file, or a folder for log.txt); None does nothing.

    An existing log is never overwritten: the new one gets the local time as a suffix.
    """
    if output is None:
        return
    fpath = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    if os.path.exists(fpath):
        stamped = fpath + time.strftime("-%Y-%m-%d-%H-%M-%S")
        fpath, copies = stamped, 1
        while os.path.exists(fpath):  # several within one second
            copies += 1
            fpath = f"{stamped}-{copies}"
    sys.stdout = Logger(fpath)
