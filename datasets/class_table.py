"""classes.csv: the names of classes apart from their folders, and the words of their prompts apart from their names."""

from __future__ import annotations

import re
from typing import NamedTuple

from dspt_atlas.datasets.formats import Item, Splits
from dspt_atlas.datasets.prompts import class_text, first_of
from dspt_atlas.datasets.tables import known_columns, read_rows
from dspt_atlas.errors import UserError

CLASS_TABLE = "classes.csv"  # in the folder of the data
_COLUMNS = {
    "folder": "folder class label id wnid classid",
    "name": "name classname displayname",
    "prompt": "prompt promptname promptwords words",
}
_WORDNET, _NUMBERED = re.compile(r"n\d{8}"), re.compile(r"\d+[._ -]+(?=\D)")
SHOWN = 3


class ClassName(NamedTuple):
    """The name of a class in tables and pictures, and its words in prompts."""

    name: str
    prompt: str


def read_class_table(path) -> dict[str, ClassName]:
    """Return {folder or label: ClassName} of a table with the columns folder, name and perhaps prompt.

    Without a header the columns have this order. Without a prompt, the name is its words. Raises UserError.
    """
    first, *body = rows = read_rows(path)
    columns = known_columns(first.cells, _COLUMNS)
    if not {"folder", "name"} <= columns.keys():
        columns, body = dict(zip(_COLUMNS, range(len(first.cells)), strict=False)), rows
    if "name" not in columns:
        raise UserError(f"{path}: expected the columns folder, name and perhaps prompt, but line 1 is {first.cells}")
    table: dict[str, ClassName] = {}
    for line, cells in body:
        found = {column: cells[number] for column, number in columns.items()}
        if not found["name"] or found["folder"] in table:
            raise UserError(
                f'{path}, line {line}: expected a name for each class once, but got "{found["folder"]}", '
                f'"{found["name"]}"'
            )
        table[found["folder"]] = ClassName(found["name"], found.get("prompt") or found["name"])
    return table


def with_names(splits: Splits, table: dict[str, ClassName], path) -> Splits:
    """Return items whose class names are those of a table; classes that it leaves out keep theirs.

    Raises UserError for a class of the table that the data does not have, if the data has one that the table lacks.
    """
    names = {item.classname for items in splits for item in items}
    unknown, missing = sorted(table.keys() - names), sorted(names - table.keys())
    if unknown and missing:
        raise UserError(
            f'{path} names "{unknown[0]}", which is not a class of the data, and does not name "{missing[0]}": write '
            "the folder (or label) of each class as the data has it"
        )
    return Splits(*([_renamed(item, table) for item in items] for items in splits))


def _renamed(item: Item, table) -> Item:
    return item._replace(classname=table[item.classname].name) if item.classname in table else item


def doubtful_names(names) -> list[str]:
    """Return a sentence on class names that are WordNet's ids, numbers, or begin with one, with what to write instead.

    It is about most of the names, or there is none.
    """
    names = sorted(names)
    wordnet = [name for name in names if _WORDNET.fullmatch(name)]
    numbered = [name for name in names if _NUMBERED.match(name) or _is_number(name)]
    found = wordnet or numbered
    if 2 * len(found) <= len(names):
        return []
    first = found[0]
    name = "tench" if wordnet else "wren" if _is_number(first) else class_text(_NUMBERED.sub("", first))
    sentence = (
        f'classes are called {first_of(found, SHOWN)}, so prompts say "a photo of a {class_text(first)}.": write a '
        f"file {CLASS_TABLE} next to the classes, with the header `folder,name` and lines such as `{first},{name}`"
    )
    return [sentence]


def _is_number(name):
    """Return whether a name has digits and no letter, such as 8, 007, 1.5 or 2020-01."""
    return any(map(str.isdigit, name)) and not any(map(str.isalpha, name))
