"""How far a run came, read from its folder: the one reader for sweeps, tables and pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspt_atlas.errors import UserError
from dspt_atlas.run.folder import running_process
from dspt_atlas.run.records import CONFIG_FILE, RESULT_FILE, checkpoint_epochs, read_json

FAILED_FILE = "failed.json"


@dataclass(frozen=True)
class RunState:
    """How far a run came. `name`: done, unreadable, failed, unfinished, or new if no run was started.

    `result` and `failed` are the contents of result.json and failed.json; `problem` says why one cannot be read.
    """

    folder: Path
    name: str
    result: dict | None = None
    failed: dict | None = None
    problem: str = ""

    @property
    def epochs(self) -> int:
        """Return how many epochs are done, from the checkpoints."""
        return max(checkpoint_epochs(self.folder), default=0)

    @property
    def process(self) -> str | None:
        """Return which process is doing the run, or None."""
        return running_process(self.folder)

    @property
    def log(self) -> str:
        """Return the last line of the log, or ""."""
        return log_end(self.folder, 1)

    @property
    def failure(self) -> str:
        """Return the epoch in which the last attempt failed, and why."""
        failed = self.failed or {}
        return self.problem or f"epoch {failed.get('epoch')}: {failed.get('error')}"

    @property
    def words(self) -> str:
        """Return how far an unfinished run came."""
        if self.name == "failed":
            return f"failed in {self.failure}" if self.failed else f"failed: {self.problem}"
        return f"is not finished ({f'{self.epochs} epochs' if self.epochs else 'no epoch'} done)"


def read_state(folder: Path) -> RunState:
    """Return how far the run in a folder came."""
    folder = Path(folder)
    for file, name, field in ((RESULT_FILE, "done", "result"), (FAILED_FILE, "failed", "failed")):
        if (folder / file).is_file():
            try:
                content: dict[str, Any] = {field: read_json(folder / file)}
                return RunState(folder, name, **content)
            except UserError as error:
                return RunState(folder, "unreadable" if name == "done" else name, problem=str(error))
    return RunState(folder, "unfinished" if (folder / CONFIG_FILE).is_file() else "new")


def log_end(folder: Path, lines: int, size: int = 8192) -> str:
    """Return the last non-empty lines of a run's log, from its last `size` bytes; "" if there are none."""
    try:
        with open(folder / "log.txt", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - size))
            text = file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join([" ".join(line.split()) for line in text.splitlines() if line.strip()][-lines:])
