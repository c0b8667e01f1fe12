"""Whether a data set is usable: `dspt-atlas check-data`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.config.reading import is_yaml, key_value_pairs, read_yaml
from dspt_atlas.keys.declare import check_values, flatten
from dspt_atlas.paths import CONFIGS, expand_home, write_atomically


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas check-data`."""
    parser = Parser(
        "check-data",
        example="OwnCSV --root /path/to/data DATASET.OWN.PATH birds.csv --page birds.html",
        more="It prints expected and found files, counts, unreadable and missing images, and writes nothing but the "
        "page of --page. Exit status 0: usable; 2: not.",
        pairs=True,
    )
    parser.add_argument("name", metavar="DATASET", help="name such as oxford_pets or OxfordPets, or a yaml file")
    parser.add_argument("--root", default=os.environ.get("DATA", ""), help="folder of the data sets (default: $DATA)")
    parser.add_argument("--no-images", action="store_true", help="do not decode the images, but those on the page")
    parser.add_argument(
        "--page", type=Path, metavar="FILE.html", help="write a page too: counts, images, prompts, warnings"
    )
    return parser


def check_data(options) -> int:
    """Print the report on a data set, write its page; return 0 if it is usable, otherwise 2. Raises UserError."""
    from dspt_atlas.datasets.checks import report  # it loads torch

    page = options.page and _free_page(options.page)
    dataset, cfg, given = data_set(options.name, options.root, options.pairs)
    if unused := sorted(key for key in given if key == "DATASET.NUM_SHOTS" or key.startswith("DATASET.NOISE.")):
        print(f"NOTE: {', '.join(unused)} has no effect here: the whole data set is looked at, with its own labels.")
    checked = report(dataset, cfg, decode=not options.no_images)
    if checked and page:
        content = _page(checked, cfg, given, compared=not options.no_images)
        write_atomically(page, content)
        print(f"Wrote {page} ({len(content) / 1e6:.1f} MB)")
    return 0 if checked else 2


def data_set(name: str, root: str, pairs: Sequence[str]):
    """Return the class of a data set, the configuration that reads it, and the keys that were given for it.

    name: in any spelling, or a yaml. No backbone is needed. Raises UserError.
    """
    from dspt_atlas.config.build import merge  # these load torch
    from dspt_atlas.config.defaults import default_cfg
    from dspt_atlas.config.files import find_dataset
    from dspt_atlas.datasets import register_all

    register_all()
    cfg = default_cfg()
    dataset, given = find_dataset(name), set()
    cfg.INPUT.INTERPOLATION = read_yaml(CONFIGS / "trainers" / "base.yaml")["INPUT"]["INTERPOLATION"]  # all runs' own
    if is_yaml(name):
        given |= merge(cfg, flatten(read_yaml(name)), name)
    cfg.merge_from_list(["DATASET.NAME", dataset.__name__, "DATASET.ROOT", root or cfg.DATASET.ROOT])
    given |= merge(cfg, key_value_pairs(pairs), "the command line")
    check_values(cfg)
    return dataset, cfg, given


def _free_page(path):
    from dspt_atlas.report.page.data import check_page  # it loads torch

    check_page(path := expand_home(path))
    return path


def _page(checked, cfg, given, compared):
    from dassl.data.transforms import build_transform  # these load torch
    from torchvision.transforms.functional import to_pil_image

    from dspt_atlas.config.build import follow_backbone
    from dspt_atlas.datasets.images import read_image
    from dspt_atlas.report.page.data import render_data_page
    from dspt_atlas.run.trained import quiet
    from dspt_atlas.trainers.templates import chosen_templates, fill

    notes = follow_backbone(cfg, given) if cfg.MODEL.BACKBONE.NAME else []
    with quiet():
        transform: Any = build_transform(cfg, is_train=False, choices=())  # without the normalisation
    templates = chosen_templates(checked.dataset, cfg.TRAINER.ZEROSHOT.TEMPLATE)
    words = checked.dataset.prompt_words
    size = " x ".join(map(str, cfg.INPUT.SIZE))
    seen_as = f"{size} pixels from the middle, by {cfg.INPUT.INTERPOLATION} interpolation"
    return render_data_page(
        checked,
        templates,
        prompt=lambda name: fill(templates[0], words.get(name, name)),
        see=lambda path: to_pil_image(transform(read_image(path))),
        seen_as="; ".join([seen_as, *notes]),
        compared=compared,
    )


main = main_of(build_parser, check_data)
