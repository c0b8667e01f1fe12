"""Whether a data set is usable: `dspt-atlas check-data`."""

from __future__ import annotations

import os

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.config.reading import is_yaml, key_value_pairs, read_yaml, registered_name
from dspt_atlas.keys.declare import flatten


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas check-data`."""
    parser = Parser(
        "check-data",
        example="OwnCSV --root /path/to/data DATASET.OWN.PATH birds.csv",
        more="It prints expected and found files, counts, unreadable and missing images, and writes nothing. Exit "
        "status 0: usable; 2: not.",
        pairs=True,
    )
    parser.add_argument("name", metavar="DATASET", help="name such as oxford_pets or OxfordPets, or a yaml file")
    parser.add_argument("--root", default=os.environ.get("DATA", ""), help="folder of the data sets (default: $DATA)")
    parser.add_argument("--no-images", action="store_true", help="do not decode the images")
    return parser


def check_data(options) -> int:
    """Print the report on a data set; return 0 if it is usable, otherwise 2. Raises UserError."""
    from dspt_atlas.config.build import merge  # it loads torch
    from dspt_atlas.config.defaults import default_cfg
    from dspt_atlas.datasets import register_all
    from dspt_atlas.datasets.checks import find_dataset, report

    register_all()
    cfg = default_cfg()
    dataset = find_dataset(registered_name(options.name))
    if is_yaml(options.name):
        merge(cfg, flatten(read_yaml(options.name)), options.name)
    cfg.merge_from_list(["DATASET.NAME", dataset.__name__, "DATASET.ROOT", options.root or cfg.DATASET.ROOT])
    merge(cfg, key_value_pairs(options.pairs), "the command line")
    return 0 if report(dataset, cfg, decode=not options.no_images) else 2


main = main_of(build_parser, check_data)
