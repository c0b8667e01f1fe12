"""Tables of results, as the CoOp family calls it: `python scripts/parse_results.py output/ --baseline CoOp`."""

import sys

from dspt_atlas.cli import main

if __name__ == "__main__":
    sys.exit(main(["table", *sys.argv[1:]]))
