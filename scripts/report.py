"""One HTML page of tables, figures and runs: `python scripts/report.py output/ --watch`."""

import sys

from dspt_atlas.report.page.command import main

if __name__ == "__main__":
    sys.exit(main())
