"""Download a data set, laid out as the CoOp family expects, or say where to get it.

    python scripts/download_data.py dtd --root /path/to/data
    python scripts/download_data.py dtd --root /path/to/data --split-url https://my.mirror/split_zhou_DescribableTextures.json

Exit status 0: the data set is complete (images are not decoded: scripts/check_data.py does that); 2: not.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dspt_atlas.config.defaults import default_cfg
from dspt_atlas.datasets import register_all
from dspt_atlas.datasets.checks import find_dataset, report
from dspt_atlas.datasets.downloads import ARCHIVES, SOURCES, fetch, fetch_split_file, split_file_source
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home


def main(argv=None):
    """Run the download that the command line asks for and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="registered or yaml name, such as OxfordPets or oxford_pets")
    parser.add_argument("--root", default=os.environ.get("DATA", ""), help="data root; default: environment DATA")
    parser.add_argument("--url", action="append", default=[], help="another address of the archive (repeatable)")
    parser.add_argument("--split-url", default="", help="an address of the family's split file")
    arguments = parser.parse_args(argv)
    register_all()
    try:
        return 0 if download_dataset(find_dataset(arguments.name), arguments) else 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def download_dataset(dataset, arguments):
    """Fetch what can be fetched of `dataset`, say where the rest comes from, and return whether it is complete."""
    if not arguments.root:
        raise UserError("No data root is set: give --root DIR, the folder that holds the data sets")
    root = Path(os.path.abspath(expand_home(arguments.root)))
    root.mkdir(parents=True, exist_ok=True)
    name = dataset.__name__
    if arguments.split_url and not split_file_source(dataset):
        raise UserError(f"{name} has no split file: leave out --split-url")
    if name in ARCHIVES:
        fetch(name, root, arguments.url)
    elif arguments.url:
        raise UserError(f"{name} cannot be downloaded by this script: {SOURCES.get(name, 'it is your own data')}")
    if arguments.split_url:
        fetch_split_file(dataset, root, arguments.split_url)
    cfg = default_cfg()
    cfg.DATASET.ROOT = str(root)
    complete = report(dataset, cfg, decode=False)
    hints = [hint for hint in (SOURCES.get(name), split_file_source(dataset)) if hint]
    if not complete and hints:
        print("Where to get what is missing:", *hints, sep="\n  ")
    return complete


if __name__ == "__main__":
    sys.exit(main())
