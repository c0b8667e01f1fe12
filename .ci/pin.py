"""Rewrite constraints.txt with the versions installed here: python .ci/pin.py [FILE].

The file keeps its names; requirements of the two packages are added. A name that is not installed keeps its version.
"""

import platform
import re
import sys
from importlib import metadata
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def installed(name):
    """Return a package's version without a build's suffix such as +cu130, or None."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def canonical(name):
    """Return a name in the form in which packages are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(path=CONSTRAINTS):
    """Rewrite the file: a line on its purpose, then the pins in alphabetical order."""
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = dict(line.strip().split("==") for line in lines if "==" in line)
    listed = {canonical(name) for name in pins}
    ours = [package for package in ("dspt-atlas", "dspt-atlas-engine") if installed(package)]
    for requirement in (line for package in ours for line in metadata.requires(package)):
        name = re.match(r"[\w.-]+", requirement)[0]
        if canonical(name) not in listed and installed(name):
            pins[name] = installed(name)
    for name, version in pins.items():
        pins[name] = installed(name) or version
        if not installed(name):
            print(f"{name} is not installed here: it stays at {version}", file=sys.stderr)
    python = ".".join(map(str, sys.version_info[:2]))
    machine = f"Python {python}, {platform.system()}"
    header = f"# Versions that the tests pass with ({machine}): pip install -c constraints.txt ..."
    pinned = sorted((f"{name}=={version}" for name, version in pins.items()), key=str.lower)
    path.write_text("\n".join([header, *pinned, ""]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
