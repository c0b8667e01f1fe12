"""Other people's published figures next to ours, marked as theirs."""

from __future__ import annotations

import yaml

from dspt_atlas.paths import CONFIGS
from dspt_atlas.results.tables import Mean, Table

PUBLISHED = CONFIGS / "published.yaml"
MARK = "†"


def add_published(tables: list[Table]) -> str:
    """Add the figures of configs/published.yaml to tables with the same title, or as new tables, in place.

    A dagger and the backbone mark their methods. Return a note on their origin.
    """
    by_title = {table.title: table for table in tables}
    sources = {}
    for entry in yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")):
        index = tuple(entry["index"])
        if (table := by_title.get(entry["title"])) is None:
            tables.append(table := Table(f"{MARK} {entry['title']}", index, [], {}))
        for key, figures in entry["rows"]:
            told = dict(zip(index, key, strict=True)) | {"method": f"{MARK} {key[-1]} ({entry['backbone']})"}
            # Published figures name their noise in columns.
            marked = tuple(told.get(name, "clean") for name in table.index)
            table.rows[marked] = {column: Mean(value) for column, value in figures.items()}
            table.columns += [column for column in figures if column not in table.columns]
        sources.setdefault(f"{entry['source']} ({entry['backbone']})", []).append(entry["title"])
    listed = "; ".join(f"{', '.join(titles)}: {source}" for source, titles in sources.items())
    return f"{MARK} Published by others, not measured by this project, from second-hand notes. {listed}."
