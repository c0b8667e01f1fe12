"""Tables of results: `python scripts/parse_results.py output/ --baseline CoOp`."""

import sys

from dspt_atlas.report.table import main

if __name__ == "__main__":
    sys.exit(main())
