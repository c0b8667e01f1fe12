"""Figures of the runs under folders: `python -m dspt_atlas.figures output/ --out figures`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
