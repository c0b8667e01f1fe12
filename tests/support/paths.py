"""Where this repository's files lie, for tests and what they start."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
BENCHMARKS, CONFIGS, SCRIPTS = (ROOT / name for name in ("benchmarks", "configs", "scripts"))
OWN_FOLDER = CONFIGS / "datasets" / "own_folder.yaml"
