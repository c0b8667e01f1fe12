"""The environment of a run: versions, commit, kind of machine (never its name)."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("dspt-atlas", "dassl", "dspt-atlas-engine", "torch", "torchvision", "numpy", "rf-clip")
OF_BACKBONES = {"transformers": "transformers", "open_clip": "open_clip_torch", "timm": "timm"}  # module: package


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on: those of backbones once in use."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *(package for module, package in OF_BACKBONES.items() if module in sys.modules)):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit() -> str | None:
    """Return this project's commit, with "+changes" if files differ from it; None outside of a git checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]  # nosec B607: the user's own git, found as a shell would find it
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


@functools.cache
def host_kind() -> dict[str, Any]:
    """Return the processor's model, the cores that this process may use, and the GPU's model or None."""
    import torch  # it takes seconds, and commands that only read results do not need it

    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
