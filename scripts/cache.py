"""The cache of image features: `python scripts/cache.py list`, `check` or `clear`."""

import sys

from dspt_atlas.tools.cache import main

if __name__ == "__main__":
    sys.exit(main())
