"""What CI says beside the tests' results: `check.py audit` known vulnerabilities, `check.py coverage` branch coverage."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDERS = ("trainers", "datasets", "engine/dassl")
LEAST = 90


def audit():
    """Ask pip-audit's service about what is installed; a service that answers for no package is no pass: "not run"."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, subprocess.TimeoutExpired):
        print("pip-audit: not run, the vulnerability service gives no answer")
        return 0
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        print(f"pip-audit: not run, the vulnerability service knows none of the {len(packages)} packages")
        return 0
    found = [(package, weakness) for package in asked for weakness in package["vulns"]]
    for package, weakness in found:
        print(f"{package['name']} {package['version']}: {weakness['id']}, fixed in {weakness['fix_versions']}")
    print(
        f"pip-audit: {len(found)} known vulnerabilities in {len(asked)} packages, {len(packages) - len(asked)} skipped"
    )
    return 1 if found else 0


def coverage():
    """Print the branch coverage of the three folders and of their files below the limit; fail below the limit."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "--quiet", "-o", report], check=True)
        files = json.loads(report.read_text())["files"]
    total = [0, 0]
    for folder in FOLDERS:
        summaries = {name: file["summary"] for name, file in files.items() if name.startswith(f"{folder}/")}
        counts = [sum(s[key] for s in summaries.values()) for key in ("covered_branches", "num_branches")]
        total = [sum(pair) for pair in zip(total, counts, strict=True)]
        print(f"Branch coverage of {folder}: {_percent(*counts)}")
        for name, summary in summaries.items():
            if summary["covered_branches"] * 100 < LEAST * summary["num_branches"]:
                print(f"    {name}: {_percent(summary['covered_branches'], summary['num_branches'])}")
    print(f"Branch coverage of the three: {_percent(*total)}; at least {LEAST} % is asked for")
    return 1 if total[0] * 100 < LEAST * total[1] or not total[1] else 0


def _percent(covered, number):
    return f"{100 * covered / max(number, 1):.1f} % ({covered} of {number})"


if __name__ == "__main__":
    sys.exit({"audit": audit, "coverage": coverage}[sys.argv[1]]())
