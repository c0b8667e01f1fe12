"""Figures of the runs under folders: `python scripts/figures.py output/ --out figures`."""

import sys

from dspt_atlas.report.figures import main

if __name__ == "__main__":
    sys.exit(main())
