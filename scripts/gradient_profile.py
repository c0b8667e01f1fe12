"""Norms of the samples' gradients, right and wrong labels apart: `python scripts/gradient_profile.py RUN`."""

import sys

from dspt_atlas.tools.gradient_profile import main

if __name__ == "__main__":
    sys.exit(main())
