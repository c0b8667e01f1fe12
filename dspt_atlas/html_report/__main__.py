"""One HTML page of tables, figures and runs: `python -m dspt_atlas.html_report output/`."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
