"""Training samples whose label a model contradicts: `python scripts/find_label_errors.py RUN`."""

import sys

from dspt_atlas.tools.label_errors import main

if __name__ == "__main__":
    sys.exit(main())
