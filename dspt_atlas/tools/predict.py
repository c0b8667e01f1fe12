"""Class names with probabilities for a user's own images: `dspt-atlas predict`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError


def best_classes(probs: np.ndarray, names: list[str], top: int) -> list[dict]:
    """Return the `top` most probable classes of an image, probs (C,), as dicts of class and probability, best first."""
    return [{"class": names[c], "probability": float(probs[c])} for c in np.argsort(-probs, kind="stable")[:top]]


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas predict`."""
    parser = Parser("predict", example="--run output/emoji cat.png dog.png --top 3", more="It needs no data set.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", type=Path)
    parser.add_argument("--run", required=True, type=Path, help="output folder of a training run")
    parser.add_argument("--load-epoch", type=int, help="of the checkpoint (default: the best, or the last)")
    parser.add_argument("--top", type=int, default=5, help="classes to show per image (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--root", help=argparse.SUPPRESS)  # every other command that opens a run takes it
    return parser


def print_predictions(options) -> None:
    """Print the most probable classes of each image; raises UserError."""
    from dspt_atlas.run.trained import image_items, open_for_prediction, probabilities  # they load torch

    if options.top < 1:
        raise UserError(f"Expected --top of at least 1, got {options.top}.")
    items = image_items(options.images)  # before the model is built, which takes longer
    if options.root:
        print("NOTE: --root has no effect, because no data set is needed", file=sys.stderr)
    trainer = open_for_prediction(options.run, options.load_epoch)
    names = trainer.dm.dataset.classnames
    found = [
        {"image": str(path), "classes": best_classes(row, names, options.top)}
        for path, row in zip(options.images, probabilities(trainer, items), strict=True)
    ]
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for entry in found:
        print(entry["image"])
        for guess in entry["classes"]:
            print(f"  {100 * guess['probability']:5.1f}%  {guess['class']}")


main = main_of(build_parser, print_predictions)
