"""All runs of a table, on one machine, Ray or Slurm: `python scripts/sweep.py SWEEP.yaml`."""

import sys

from dspt_atlas.plan.sweep_command import main

if __name__ == "__main__":
    sys.exit(main())
