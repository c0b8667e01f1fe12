"""Class names with probabilities for a user's own images: `dspt-atlas predict`."""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home
from dspt_atlas.results.cells import csv_text

COLUMNS = ("image", "rank", "class", "probability")
SHOWN = 5  # files in a sentence


def best_classes(probs: np.ndarray, names: list[str], top: int) -> list[dict]:
    """Return the `top` most probable classes of an image, probs (C,), as dicts of class and probability, best first."""
    return [{"class": names[c], "probability": float(probs[c])} for c in np.argsort(-probs, kind="stable")[:top]]


def image_paths(words: list[str]) -> list[str]:
    """Return the images that files, folders (with all below) and globs mean, in the order of the words.

    Raises UserError for a word without an image.
    """
    from dspt_atlas.datasets.formats import folder_files, is_image  # it loads torch

    found, missing = [], []
    for word in words:
        path = expand_home(word)
        if path.is_dir():
            paths = [file for file in folder_files(path) if is_image(file)]
        elif path.is_file():
            paths = [str(path)]
        else:
            paths = sorted(file for file in glob.glob(str(path), recursive=True) if Path(file).is_file())
        found += paths
        missing += [] if paths else [word]
    if missing:
        raise UserError(
            f"Expected images, but {', '.join(missing)} is not a file, a folder with images or a glob of some: give "
            'files, folders or globs such as "photos/**/*.jpg".'
        )
    return found


def class_list(path: Path) -> list[str]:
    """Return the class names in a text file, one per line; raises UserError if it is not a text."""
    try:
        lines = expand_home(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Expected --classnames to be a text file in UTF-8 with one class name per line, but {path} is not "
            f"({error})."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def judged(model, paths: list[str], top: int, batch_size: int, broken: list[str]) -> Iterator[dict]:
    """Yield each image with its best classes; images that cannot be read are added to `broken` with the reason."""
    import torch

    names = model.classnames

    def read(path):
        try:
            return path, model.preprocess(path)
        except UserError as error:
            return path, error

    disable = None if not sys.stdout.isatty() else True  # on a terminal, the output itself is the progress
    with ThreadPoolExecutor() as pool, tqdm(total=len(paths), leave=False, disable=disable) as progress:
        for start in range(0, len(paths), batch_size):
            pairs = list(pool.map(read, paths[start : start + batch_size]))
            broken += [f"{path} ({image.__cause__ or image})" for path, image in pairs if isinstance(image, UserError)]
            good = [(path, image) for path, image in pairs if isinstance(image, torch.Tensor)]
            rows = model.probabilities([image for _, image in good], batch_size, preprocessed=True).numpy()
            for (path, _), row in zip(good, rows, strict=True):
                yield {"image": path, "classes": best_classes(row, names, top)}
            progress.update(len(pairs))


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas predict`."""
    parser = Parser(
        "predict",
        example='output/emoji cat.png photos/ "more/**/*.jpg" --format csv --top-k 1 > classes.csv',
        more="It needs no data set. Images that cannot be read are named and left out.",
        mixed=True,
    )
    parser.add_argument("first", metavar="RUN", help="output folder of a training run; with --run an image")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files, folders with all below, globs")
    parser.add_argument("--run", type=Path, help="the run, if it is not the first argument")
    parser.add_load_epoch()
    parser.add_argument("--top-k", "--top", type=int, default=5, help="classes to show per image (default: 5)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the output (default: text)")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    parser.add_classnames()
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time (default: 64)")
    parser.add_argument("--root", help=argparse.SUPPRESS)  # every other command that opens a run takes it
    return parser


def _text(entries):
    for entry in entries:
        print(entry["image"])
        for guess in entry["classes"]:
            print(f"  {100 * guess['probability']:5.1f}%  {guess['class']}")


def _csv(entries):
    print(csv_text(COLUMNS, ()), end="")
    for entry in entries:
        rows = [[entry["image"], rank, *guess.values()] for rank, guess in enumerate(entry["classes"], 1)]
        print(csv_text(rows[0], rows[1:]), end="")


def _json_lines(entries):
    for entry in entries:
        print(json.dumps(entry, ensure_ascii=False))


def _json(entries):
    print(json.dumps(list(entries), indent=1, ensure_ascii=False))


FORMATS = {"text": _text, "csv": _csv, "jsonl": _json_lines, "json": _json}


def print_predictions(options) -> None:
    """Print the most probable classes of each image; raises UserError, also if no image can be read."""
    for name in ("top_k", "batch_size"):
        if (number := getattr(options, name)) < 1:
            raise UserError(f"Expected --{name.replace('_', '-')} of at least 1, got {number}.")
    run, *words = [*filter(None, [options.run]), options.first, *options.images]
    if not words:
        raise UserError(f"Expected a run's folder and images, got {run} alone: give files, folders or globs after it.")
    paths = image_paths(words)  # before the model is loaded, which takes longer
    names = None if options.classnames is None else class_list(options.classnames)
    if options.root:
        print("NOTE: --root has no effect, because no data set is needed", file=sys.stderr)
    from dspt_atlas.run.model import load  # it loads torch

    model = load(run, options.load_epoch)
    if names is not None:
        model = model.with_classes(names)
    broken: list[str] = []
    entries = judged(model, paths, options.top_k, options.batch_size, broken)
    first = next(entries, None)
    if first is None:
        listed = "; ".join(broken[:SHOWN])
        raise UserError(f"{len(broken)} of {len(paths)} images cannot be read: {listed}: repair or replace them.")
    FORMATS[options.format](chain([first], entries))
    if broken:
        lines = [f"NOTE: {len(broken)} of {len(paths)} images cannot be read and were left out:", *broken]
        print(*lines, sep="\n  ", file=sys.stderr)


main = main_of(build_parser, print_predictions)
