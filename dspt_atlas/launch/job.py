"""One run, as a folder and arguments of train.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dspt_atlas.commands import command_line


@dataclass(frozen=True)
class Job:
    """One run: its folder and the arguments of train.py; `part` is the name of its part of a plan."""

    folder: Path
    arguments: tuple[str, ...]
    part: str = field(default="", compare=False)

    def command(self) -> str:
        """Return the shell command of this run."""
        return command_line("train", *self.arguments)

    def option(self, name: str) -> str:
        """Return the value of an option of train.py, or "" if it is not given."""
        return self.arguments[self.arguments.index(name) + 1] if name in self.arguments else ""

    @property
    def trained_in(self) -> Path:
        """Return the folder of the training that this run tests, or its own folder if it trains."""
        return Path(self.option("--model-dir") or self.folder)

    @property
    def pairs(self) -> dict[str, str]:
        """Return the trailing KEY VALUE pairs; the last value of a key counts."""
        values = self.arguments[self.arguments.index("DATASET.NUM_SHOTS") :]
        return dict(zip(values[::2], values[1::2], strict=True))


@dataclass
class Run:
    """A run of a plan. `state`: done, resumable, failed, new, and at the end skipped or left; `detail` says more."""

    job: Job
    state: str = "new"
    detail: str = ""
    seconds: float | None = None
    attempts: int = 0
    status: int = 0  # the exit status of the last attempt
    after: list[Path] = field(default_factory=list)  # runs that have to end before this one starts
