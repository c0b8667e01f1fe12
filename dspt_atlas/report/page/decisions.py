"""The page of `dspt-atlas labels`: a person decides on each doubtful label and saves the decisions as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from dspt_atlas.datasets.images import read_image
from dspt_atlas.report.page.page import fill_template, jpeg_url

DECISIONS_FILE = "label_decisions.csv"  # as the browser saves it
COLUMNS = ("split", "path", "given_label", "decision", "new_label")  # of this file
RIGHT, SUGGESTED, OTHER, REMOVE = DECISIONS = ("right", "suggested", "other", "remove")
SIDE = 224  # pixels of the longer side of a picture


class Doubt(NamedTuple):
    """A label that a model contradicts, or nearly: the class names given and suggested, with their probabilities."""

    rank: int
    split: str
    path: str
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float


def render_decisions_page(
    title: str,
    doubts: Iterable[Doubt],
    total: int,
    judge: str,
    classnames: Sequence[str],
    command: str,
    known_by: str,
) -> bytes:
    """Return the page on the most doubtful of `total` labels, in UTF-8.

    judge: who judged them, in words. command: the one that takes the decisions. known_by: a digest of all labels; the
    browser keeps decisions for these. Raises UserError for an image that cannot be read.
    """
    doubts = list(doubts)
    shown = [
        {
            **doubt._asdict(),
            "file": Path(doubt.path).name,
            "image": _picture(doubt.path),
            "alike": doubt.given == doubt.suggested,
        }
        for doubt in doubts
    ]
    return fill_template(
        "decisions.html",
        "decisions.js",
        title=title,
        judge=judge,
        total=total,
        count=len(shown),
        command=command,
        data={
            "doubts": shown,
            "classnames": list(classnames),
            "columns": COLUMNS,
            "file": DECISIONS_FILE,
            "store": f"dspt-atlas-labels {known_by}",
        },
    )


def _picture(path: str) -> str:
    return jpeg_url(ImageOps.contain(read_image(path), (SIDE, SIDE), Image.Resampling.BICUBIC), quality=80)
