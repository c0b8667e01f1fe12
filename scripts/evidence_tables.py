"""Tables and figures of kept evidence: `python scripts/evidence_tables.py docs/evidence/runs --out docs/evidence`."""

import sys

from dspt_atlas.report.evidence import main

if __name__ == "__main__":
    sys.exit(main())
