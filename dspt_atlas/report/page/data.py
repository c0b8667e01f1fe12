"""The page of `dspt-atlas check-data --page`: what a model is given, for a person to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dspt_atlas.datasets.checks import Checked
from dspt_atlas.datasets.formats import Item, Splits
from dspt_atlas.errors import UserError
from dspt_atlas.report.contact_sheet import COLUMNS, contact_sheet
from dspt_atlas.report.figures.style import COLOURS, add_legend, literal, panels, picture
from dspt_atlas.report.page.page import MIME, data_url, fill_template, jpeg_url

GENERATOR = "dspt-atlas check-data"
# Nobody looks at more of them, and a page has to open: a sheet has about 40 kB.
MOST_SHEETS, MOST_COPIES, MOST_NAMED = 200, 50, 200
_HATCHES = ("", "///", "...")


class ClassView(NamedTuple):
    """A class: label, name, prompt, number of images per split, and (split, item) of each image."""

    label: int
    name: str
    prompt: str
    counts: list[int]
    items: list[tuple[str, Item]]


def check_page(path: Path) -> None:
    """Raise UserError if a page cannot be written there: a folder, or a file that is not such a page."""
    if path.is_dir():
        raise UserError(f"Expected --page to be a file to write, but {path} is a folder: give a file in it.")
    if path.exists() and f'<meta name="generator" content="{GENERATOR}">'.encode() not in path.read_bytes():
        raise UserError(
            f"Expected --page to be a new file or a page of an earlier check, but {path} is another file: choose "
            "another name, or remove it."
        )


def render_data_page(
    checked: Checked,
    templates: Sequence[str],
    prompt: Callable[[str], str],
    see: Callable[[str], Image.Image],
    seen_as: str,
    compared: bool = True,
) -> bytes:
    """Return the page on a data set that was checked, in UTF-8.

    prompt: from a class name to its prompt by the first template. see: from an image's path to what the model sees, in
    words `seen_as`. compared: whether contents were compared. Raises UserError for an image that cannot be read.
    """
    splits, name = checked.splits, type(checked.dataset).__name__
    classes = _classes(splits, prompt)
    return fill_template(
        "data.html",
        title=f"{name}: what a model is given",
        generator=GENERATOR,
        warnings=checked.warnings,
        totals={split: len(items) for split, items in zip(splits._fields, splits, strict=True)},
        plot=_plot(classes, splits._fields),
        compared=compared,
        copies={
            "In several splits": checked.copies.across_splits,
            "With several labels": checked.copies.across_labels,
        },
        most_copies=MOST_COPIES,
        templates=templates,
        classes=classes,
        seen_as=seen_as,
        per_class=COLUMNS,
        sheets=[(view, _sheet(view, see)) for view in classes[:MOST_SHEETS]],
    )


def _classes(splits: Splits, prompt) -> list[ClassView]:
    items: dict[int, list[tuple[str, Item]]] = {}
    for split, listed in zip(splits._fields, splits, strict=True):
        for item in listed:
            items.setdefault(item.label, []).append((split, item))
    views = []
    for label, found in sorted(items.items()):
        counts, name = Counter(split for split, _ in found), found[0][1].classname
        views.append(ClassView(label, name, prompt(name), [counts[split] for split in splits._fields], found))
    return views


def _sheet(view: ClassView, see) -> str:
    """Return a sheet of images from the whole list of a class, at equal distances."""
    count = min(COLUMNS, len(view.items))
    chosen = (view.items[number * len(view.items) // count] for number in range(count))
    sheet = contact_sheet((see(item.impath), f"{split}\n{Path(item.impath).name}") for split, item in chosen)
    return jpeg_url(sheet, quality=85)


def _plot(classes: list[ClassView], splits: Sequence[str]) -> str:
    figure, (panel,) = panels(1, width=8, height=1.2 + 0.18 * min(len(classes), MOST_NAMED))
    lefts = [[0, *accumulate(view.counts)] for view in classes]
    rows = range(len(classes))
    for number, split in enumerate(splits):
        if any(widths := [view.counts[number] for view in classes]):
            left, style = [ends[number] for ends in lefts], {"color": COLOURS[number], "hatch": _HATCHES[number]}
            panel.barh(rows, widths, left=left, label=split, edgecolor="white", linewidth=0, **style)
    panel.set(xlabel="images", ylim=(len(classes) - 0.4, -0.6))
    if len(classes) <= MOST_NAMED:
        panel.set_yticks(rows, [literal(view.name.replace("_", " ")) for view in classes], fontsize=8)
    else:
        panel.set(ylabel="label")
    add_legend(figure, [panel])
    kind, content = min(
        ((kind, picture(figure, kind, "counts")) for kind in ("svg", "png")), key=lambda one: len(one[1])
    )
    return data_url(MIME[f".{kind}"], content)
