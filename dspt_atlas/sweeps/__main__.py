"""All runs of a table: `python -m dspt_atlas.sweeps SWEEP.yaml`."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
