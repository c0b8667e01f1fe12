"""Other people's published figures next to ours, marked as theirs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import yaml

from dspt_atlas.paths import CONFIGS
from dspt_atlas.results.tables import Mean, Table

PUBLISHED = CONFIGS / "published.yaml"
MARK = "†"
MEAN = "mean of 11 data sets"


def add_published(tables: list[Table]) -> str:
    """Add the figures of configs/published.yaml to tables with the same title, or as new tables, in place.

    A dagger and the backbone mark their methods. Of a table's data sets, only those that the table already has are
    added, besides the means. Return a note on their origin.
    """
    by_title = {table.title: table for table in tables}
    own = {title: {key[0] for key in table.rows} for title, table in by_title.items()}
    sources = {}
    for entry in yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")):
        index, title = tuple(entry["index"]), entry["title"]
        if (table := by_title.get(title)) is None:
            tables.append(table := Table(f"{MARK} {title}", index, [], {}))
            by_title[title] = table
        shown = {MEAN, *own.get(title, ())}
        for key, figures in published_rows(entry):
            if "data set" in index and key[0] not in shown:
                continue
            told = dict(zip(index, key, strict=True)) | {"method": f"{MARK} {key[-1]} ({entry['backbone']})"}
            # Published figures name their noise in columns.
            marked = tuple(told.get(name, "clean") for name in table.index)
            table.rows[marked] = {column: Mean(value) for column, value in figures.items()}
            table.columns += [column for column in figures if column not in table.columns]
        sources.setdefault(f"{entry['source']} ({entry['backbone']})", {})[title] = None
    listed = "; ".join(f"{', '.join(titles)}: {source}" for source, titles in sources.items())
    return f"{MARK} Published by others, not measured by this project, from second-hand notes. {listed}."


def published_rows(entry: dict) -> Iterator[tuple[list[str], dict[str, float]]]:
    """Yield (key, {column: figure}) of an entry of configs/published.yaml; H is computed where it is not printed."""
    for key, figures in entry.get("rows", ()):
        named = figures if isinstance(figures, dict) else dict(zip(entry["columns"], figures, strict=True))
        yield key, {column: value for column, value in named.items() if value is not None}
    for method, figures in entry.get("base_new", {}).items():
        yield [MEAN, method], figures[MEAN]
        if "base" in figures:
            for dataset, base, new in zip(entry["datasets"], figures["base"], figures["new"], strict=True):
                yield [dataset, method], {"base": base, "new": new, "H": statistics.harmonic_mean([base, new])}
