"""Download a data set in the layout of the CoOp family, or say where to get it: `dspt-atlas download`."""

from __future__ import annotations

import os
from pathlib import Path

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas download`."""
    parser = Parser(
        "download",
        example="dtd --root /path/to/data",
        more="It gets the layout of the CoOp family. Exit status 0: the data set is complete (`dspt-atlas check-data` "
        "decodes its images); 2: it is not.",
    )
    parser.add_argument("name", metavar="DATASET", help="name such as oxford_pets or OxfordPets, or a yaml file")
    parser.add_argument("--root", default=os.environ.get("DATA", ""), help="folder of the data sets (default: $DATA)")
    parser.add_argument("--url", action="append", default=[], help="another address of the archive (repeatable)")
    parser.add_argument("--split-url", default="", help="an address of the family's split file")
    return parser


def download(options) -> int:
    """Download what can be downloaded; return 0 if the data set is complete, otherwise 2. Raises UserError."""
    from dspt_atlas.config.files import find_dataset
    from dspt_atlas.datasets import register_all  # these load torch, as below

    register_all()
    return 0 if download_dataset(find_dataset(options.name), options) else 2


def download_dataset(dataset, options):
    """Download what can be downloaded, say where to get the rest, and return whether the data set is complete."""
    from dspt_atlas.config.defaults import default_cfg
    from dspt_atlas.datasets.checks import report
    from dspt_atlas.datasets.downloads import ARCHIVES, SOURCES, SPLIT_FILES, fetch, fetch_split_file, split_file_source

    if not options.root:
        raise UserError("The folder of the data sets is not set: give it by --root.")
    root = Path(os.path.abspath(expand_home(options.root)))
    root.mkdir(parents=True, exist_ok=True)
    name = dataset.__name__
    if options.split_url and not split_file_source(dataset):
        raise UserError(f"{name} has no split file: leave out --split-url")
    if name in ARCHIVES:
        fetch(name, root, options.url)
    elif options.url:
        raise UserError(f"{name} cannot be downloaded by this script: {SOURCES.get(name, 'it is your own data')}")
    if options.split_url or (name in SPLIT_FILES and not options.url):
        fetch_split_file(dataset, root, options.split_url)
    cfg = default_cfg()
    cfg.DATASET.ROOT = str(root)
    complete = report(dataset, cfg, decode=False)
    hints = [hint for hint in (SOURCES.get(name), split_file_source(dataset)) if hint]
    if not complete and hints:
        print("Get the missing files here:", *hints, sep="\n  ")
    return complete


main = main_of(build_parser, download)
