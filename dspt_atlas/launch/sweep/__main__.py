"""All runs of a table: `python -m dspt_atlas.launch.sweep SWEEP.yaml`."""

import sys

from dspt_atlas.launch.sweep.command import main

if __name__ == "__main__":
    sys.exit(main())
