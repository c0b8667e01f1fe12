"""Fetch a data set or say where it is: `python scripts/download_data.py dtd --root DIR`."""

import sys

from dspt_atlas.tools.download import main

if __name__ == "__main__":
    sys.exit(main())
