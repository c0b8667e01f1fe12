"""Which results are one row: those of one identity; what differs between rows is named in their labels."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dspt_atlas.results.contents import DIGITS, UNKNOWN, Contents
from dspt_atlas.results.record import (
    ALWAYS,
    CLASSES,
    EPOCH,
    NOISE,
    NOISE_SEED,
    ORIGIN,
    SPLIT,
    TESTED_WITH,
    TRAINED_DATA,
    Record,
)

MOST_FACTS = 4  # in a label; of more differences those that tell the rows apart


def name_rows(records: list[Record]) -> tuple[list[Record], dict[Path, str]]:
    """Return the records with the labels of their rows, each experiment once, and {folder: line} of each other one.

    The line is "" where the numbers are the same.

    Two results share a row only if no fact that is known of both differs. A fact that is not known of one (a digest of
    an older result, a key of another Dassl) counts as the value of the others where they have one, else as a value of
    its own.
    """
    unknown = itertools.count(-1, -1)  # a seed that nobody knows is another seed each time
    records = [replace(record, seed=next(unknown)) if record.seed < 0 else record for record in records]
    records = _with_contents(records, _shared_facts(records))
    methods = defaultdict(list)
    for record in records:
        methods[record.method].append(record)
    labels = {}
    for group in methods.values():
        labels |= {id(record): label for record, label in zip(group, _Labels(group).all(), strict=True)}
    return _each_once([replace(record, method=labels[id(record)]) for record in records])


def _each_once(records):
    first, doubles = {}, {}
    for record in records:
        other = first.setdefault((record.method, record.setting, record.seed), record)
        before, now = (side.values["accuracy"] for side in (other, record))
        if other is not record:
            doubles[record.folder] = ""
        if before != now:
            doubles[record.folder] = (
                f"{record.folder} is left out: {other.folder} holds the same experiment, with accuracy {before:g} "
                f"where this one has {now:g}."
            )
    return list(first.values()), doubles


def _shared_facts(records):
    """Return the facts of each record, equal ones as one object: most are the same, and are then compared once."""
    shared = {}
    return [shared.setdefault(frozenset(record.facts.items()), record.facts) for record in records]


def _with_contents(records, all_facts):
    """Name data sets, files of wrong labels and weights by what they hold, where a name stands for several contents."""
    contents = Contents()
    for record in records:
        for entry in _named_contents(record).values():
            contents.note(*entry)
    found = [
        {slot: (*entry[:2], contents.content(*entry)) for slot, entry in _named_contents(record).items()}
        for record in records
    ]
    words = {key: contents.words(*key) for key in {entry[:2] for own in found for entry in own.values()}}
    with_weights = functools.cache(
        lambda number, *told: {**distinct[number], **dict(zip(("weights", "initial weights"), told, strict=True))}
    )
    distinct = {id(facts): facts for facts in all_facts}
    return [
        _with_words(record, own, words, functools.partial(with_weights, id(facts)))
        if own
        else replace(record, facts=facts)
        for record, own, facts in zip(records, found, all_facts, strict=True)
    ]


def _named_contents(record):
    """Return {slot: (kind, whose name, place, digest)} of what a record's data, weights and label file are."""
    if not record.contents:
        return {}
    names = {
        "data": ("data", record.dataset),
        "source": ("data", record.source or record.dataset),
        "backbone": ("weights", ""),
        "init_weights": ("initial weights", ""),
        "noise": ("file", (record.dataset, record.shots, record.noise)),
    }
    return {slot: (*names[slot], *content) for slot, content in record.contents.items()}


def _with_words(record, own, words, with_weights):
    told = {slot: words[kind, name][content] for slot, (kind, name, content) in own.items()}
    several = {slot for slot, (kind, name, _) in own.items() if len(words[kind, name]) > 1}
    changes = {"facts": with_weights(told["backbone"], told["init_weights"])}
    if "data" in several:
        changes["dataset"] = f"{record.dataset} ({told['data']})"
    if record.source and (slot := "source" if "source" in own else "data") in several:
        changes["source"] = f"{record.source} ({told[slot]})"
    if "noise" in several and record.noise.endswith("file)"):
        changes["noise"] = record.noise.replace("file)", f"{told['noise']})")
    return replace(record, **changes)


class _Labels:
    """The labels of a method's records: its name, and in brackets what the rows differ by."""

    def __init__(self, records):
        self.records = records
        self.facts = [record.facts for record in records]
        moved = {(record.source, record.shots) for record in records if record.source and record.subsample == "all"}
        self.scopes = [_scopes(record, facts, moved) for record, facts in zip(records, self.facts, strict=True)]
        self.known = self._known()
        several = {name for known in self.known.values() for name, values in known.items() if len(values) > 1}
        self.differing = sorted(several.difference(ALWAYS))

    def all(self) -> list[str]:
        """Return a label for each record."""
        told = [_always(facts) for facts in self.facts]
        if self.differing:
            values = self._values()
            own = self._config_names(values) or self._key_values(values)
            told = [[*always, *words] for always, words in zip(told, own, strict=True)]
        return [
            f"{record.method} [{', '.join(words)}]" if words else record.method
            for record, words in zip(self.records, told, strict=True)
        ]

    def _known(self):
        """Return {scope: {fact: its known values}}."""
        groups = defaultdict(dict)
        for facts, scopes in zip(self.facts, self.scopes, strict=True):
            for scope in scopes:
                groups[scope][id(facts)] = facts
        known = {scope: defaultdict(set) for scope in groups}
        for scope, group in groups.items():
            for facts in group.values():
                for name, value in facts.items():
                    known[scope][name].add(value)
        return known

    def _values(self):
        """Return {differing fact: value} of each record; what it does not know is filled in if its scopes know it."""
        return [
            {name: self._value(name, facts, scopes) for name in self.differing}
            for facts, scopes in zip(self.facts, self.scopes, strict=True)
        ]

    def _value(self, name, facts, scopes):
        if name in facts:
            return facts[name]
        found = [values for scope in scopes if (values := self.known[scope].get(name))]
        if name == NOISE_SEED:
            return None  # of clean labels
        if any(len(values) > 1 for values in found):
            return UNKNOWN
        return next((next(iter(values)) for values in found), None)

    def _config_names(self, values):
        """Return the configuration's name of each record, None unless names and rows are one to one in each scope."""
        rows, names = defaultdict(set), defaultdict(set)
        for record, own, scopes in zip(self.records, values, self.scopes, strict=True):
            for scope in scopes:
                rows[scope, record.config_name].add(tuple(own.values()))
                names[scope, tuple(own.values())].add(record.config_name)
        tells_all = all(len(found) == 1 for found in (*rows.values(), *names.values()))
        if not tells_all or not all(record.config_name for record in self.records):
            return None
        return [[record.config_name] for record in self.records]

    def _key_values(self, values):
        """Return the words for the differing facts of each record; of many, for those that tell the rows apart."""
        told = self.differing
        if len(told) > MOST_FACTS:
            told = self._sufficient(values)
        more = [f"{len(self.differing) - len(told)} more"] if len(told) < len(self.differing) else []
        ends = {name: _unique_end(name, [*told, "SEED"]) for name in told}  # SEED alone is the run's
        return [[_word(name, ends[name], own[name]) for name in told if own[name] is not None] + more for own in values]

    def _sufficient(self, values):
        """Return few of the differing facts that tell the same rows apart, chosen one by one."""

        def count(names):
            return len(
                {
                    (scope, tuple(own[name] for name in names))
                    for own, scopes in zip(values, self.scopes, strict=True)
                    for scope in scopes
                }
            )

        chosen, wanted = [], count(self.differing)
        while count(chosen) < wanted:
            chosen.append(max(self.differing, key=lambda name: count([*chosen, name])))
        return sorted(chosen)


def _scopes(record, facts, moved):
    """Return the groups of settings within which a method's rows must be told apart.

    That is one data set and number of shots; base and new classes of all data sets, since they are averaged; all
    targets of one source, with the source itself.
    """
    always = tuple(facts.get(name) for name in ALWAYS)
    if record.subsample != "all" and record.source in (None, record.dataset):
        return (("base to new", record.shots, always),)
    if record.source is not None:
        return (("transfer", record.source, record.shots, record.subsample, always),)
    own = ("plain", record.dataset, record.shots, always)
    if (record.dataset, record.shots) in moved:
        return own, ("transfer", record.dataset, record.shots, record.subsample, always)
    return (own,)


def _always(facts: Mapping) -> list[str]:
    """Return the words for what a row always tells."""
    words = {
        SPLIT: lambda split: f"{split} split" if split != "test" else "",
        EPOCH: lambda epoch: f"epoch {epoch}",
        ORIGIN: lambda origin: f"origin {origin}",
        CLASSES: lambda classes: f"trained on {classes} classes",
        TRAINED_DATA: lambda digest: f"trained on data {digest[:DIGITS]}",
        TESTED_WITH: lambda others: f"tested with {others}",
        NOISE: lambda state: f"noise as configured, {state}",
    }
    return [word for name in ALWAYS if name in facts and (word := words[name](facts[name]))]


def _word(name: str, end: str, value) -> str:
    """Return the words for a fact: a sentence's end for what is not a key, else as much of the key as is unique."""
    if name.endswith(" revision"):
        return f"{name} {value}"
    if name in ("precision", "weights", "initial weights"):
        return f"{name} {UNKNOWN}" if value == UNKNOWN else str(value)
    if name == "read from":
        return f"from {value}"
    return f"{end}={value}"


def _unique_end(key: str, keys: list[str]) -> str:
    """Return the shortest end of a dotted key, cut at dots, that no other of the keys has."""
    parts = key.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)
