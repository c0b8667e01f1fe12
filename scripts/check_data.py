"""Whether a data set is usable: `python scripts/check_data.py caltech101 --root DIR`."""

import sys

from dspt_atlas.tools.check_data import main

if __name__ == "__main__":
    sys.exit(main())
