"""How commands are named to a person: as the scripts of a checkout, as modules where the package is installed alone."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "train.py": "cli",
    "scripts/cache.py": "tools.cache",
    "scripts/check_data.py": "tools.check_data",
    "scripts/download_data.py": "tools.download",
    "scripts/parse_results.py": "report.table",
    "scripts/sweep.py": "plan.sweep_command",
}


def command_of(script: str) -> str:
    """Return the shell's words that start a script of this project, such as `python train.py`."""
    is_checkout = (ROOT / "setup.py").is_file() and (ROOT / script).is_file()
    return f"python {script}" if is_checkout else f"python -m dspt_atlas.{MODULES[script]}"


def started_as() -> list[str]:
    """Return the words that started this process, without its arguments: a script's path, or `-m` and a module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.name.removesuffix(".__main__")] if spec else sys.argv[:1]
    return [Path(sys.executable).name, *program]
