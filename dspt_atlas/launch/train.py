"""The command line by which launchers start train.py: the same in a checkout and in an installed package."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Not `-m`: in the working folder, a fork may have its own packages named `clip` or `dassl`. And this folder's
    # `ray` is not the package of that name.
    packages = str(Path(__file__).parents[2])
    sys.path[:1] = [] if packages in sys.path[1:] else [packages]
    from dspt_atlas.commands import leave
    from dspt_atlas.run.train import main

    leave(main())
