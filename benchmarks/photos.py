"""Seconds of the first and of a further run on photographs: python benchmarks/photos.py FILE.json --root DATA.

CoOp and CoOpDSPT on Caltech101 with PhotoEN, half of the labels wrong, seed 1, one after the other. The cache is empty
at first, so the first run encodes the views of its seed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dspt_atlas.environment import host_kind, versions
from dspt_atlas.paths import write_atomically


def main():
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="folder with caltech-101")
    options = parser.parse_args()
    protocol = ["run", "noisy", "caltech101", "sym", "0.5", "--config", "photo_en", "--seeds", "1", "--workers", "1"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DATA": str(options.root.resolve()), "DSPT_ATLAS_CACHE": f"{folder}/cache"}
        seconds = {}
        for trainer in ("CoOp", "CoOpDSPT"):
            start = time.perf_counter()
            own = ["--trainer", trainer, "--output", f"{folder}/output"]
            command = [sys.executable, "-m", "dspt_atlas", *protocol, *own]
            subprocess.run(command, check=True, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
            seconds[trainer] = round(time.perf_counter() - start, 1)
    result = {"seconds": seconds, "host": host_kind(), "versions": versions()}
    write_atomically(options.file, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
