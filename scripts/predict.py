"""Class names for own images: `python scripts/predict.py --run RUN IMAGE...`."""

import sys

from dspt_atlas.tools.predict import main

if __name__ == "__main__":
    sys.exit(main())
