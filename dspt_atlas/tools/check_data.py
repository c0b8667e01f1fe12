"""Say whether a data set is usable: what was expected, what is there, counts, unreadable and missing images.

    python scripts/check_data.py caltech101 --root /path/to/data
    python scripts/check_data.py OwnCSV --root /path/to/data DATASET.OWN.PATH birds.csv

Exit status 0: usable; 2: not. Writes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys

from dspt_atlas.config.build import key_value_pairs, merge
from dspt_atlas.config.defaults import default_cfg
from dspt_atlas.datasets import register_all
from dspt_atlas.datasets.checks import find_dataset, report
from dspt_atlas.errors import UserError


def main(argv=None):
    """Run the check that the command line asks for and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="registered or yaml name, such as OxfordPets or oxford_pets")
    parser.add_argument("--root", default=os.environ.get("DATA", ""), help="data root; default: environment DATA")
    parser.add_argument("--no-images", action="store_true", help="do not decode the images")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="such as DATASET.OWN.PATH birds.csv")
    arguments = parser.parse_intermixed_args(argv)
    register_all()
    cfg = default_cfg()
    try:
        dataset = find_dataset(arguments.name)
        cfg.merge_from_list(["DATASET.NAME", dataset.__name__, "DATASET.ROOT", arguments.root])
        merge(cfg, key_value_pairs(arguments.opts), "the command line")
        return 0 if report(dataset, cfg, decode=not arguments.no_images) else 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
