"""Results with one identity are one row; labels name the differences between rows."""

from __future__ import annotations

import functools

import pandas as pd

from dspt_atlas.keys.declare import with_defaults
from dspt_atlas.results.contents import UNKNOWN, name_contents
from dspt_atlas.results.record import ALWAYS, DIGITS, NOISE_SEED, comparable, depends_on

MOST_FACTS = 4  # in a label; if there are more differences, those that distinguish the rows
SETTING = ["dataset", "shots", "subsample", "noise", "source"]  # a table's cell stands for these


def name_rows(results: pd.DataFrame) -> pd.DataFrame:
    """Return results with the label of the row of each, and in `double_of` the place of the same experiment before it.

    Two results share a row only if no fact that is known of both differs. A key of ours that an older result lacks has
    its default, also one of its learner or method. A fact that is not known of one (a digest of an older result, a key
    of another Dassl) counts as the others' value if they have one value, otherwise as its own value.
    """
    unseeded = results["seed"].lt(0)  # each unknown seed is another seed
    results = name_contents(results.assign(seed=results["seed"].mask(unseeded, -unseeded.cumsum())))
    facts, scopes = _varying_facts(results), _scopes(results)
    labels = pd.Series("", index=results.index, dtype=object)
    for stem, own in results.groupby("stem", sort=False):
        told = _differences(own, facts.loc[own.index], scopes[scopes.index.isin(own.index)])
        always = (_always(*found) for found in own[list(ALWAYS)].itertuples(index=False))
        words = [[*first, *then] for first, then in zip(always, told, strict=True)]
        labels[own.index] = [f"{stem} [{', '.join(found)}]" if found else stem for found in words]
    results = results.assign(row=labels)
    place = pd.Series(results.index, index=results.index)
    first = place.groupby([results[name] for name in ("row", *SETTING, "seed")], dropna=False, sort=False).transform(
        "min"
    )
    return results.assign(double_of=first.where(first != place))


def _varying_facts(results):
    """Return the facts by which some results differ, one column per fact; missing if a run cannot depend on it."""
    distinct = {id(facts): facts for facts in results["facts"]}.values()
    shared = set.intersection(*(set(facts.items()) for facts in distinct)) if distinct else set()
    names = sorted({name for facts in distinct for name, _ in facts.items() - shared})
    values = [[facts.get(name) for name in names] for facts in results["facts"]]
    facts = pd.DataFrame(values, index=results.index, columns=names, dtype=object)
    for pair, own in results.groupby(["trainer", "learner", "method"], sort=False):
        nodes = next((found for found in own["nodes"] if isinstance(found, tuple)), None)
        facts.loc[own.index] = _own(facts.loc[own.index], own["facts"], functools.partial(depends_on, *pair, nodes))
    if NOISE_SEED in facts:
        facts.loc[results["noise"] == "clean", NOISE_SEED] = None
    return facts.join(results[["weights", "initial weights"]].astype(object))


def _own(facts, known, depends):
    """Return a trainer's facts without those that it does not depend on, and with the defaults of keys that are newer.

    known: all facts of each result; depends: says whether the trainer depends on a fact.
    """
    counts, facts = facts.nunique(), facts.copy()
    has_config = known.map(lambda own: any("." in name for name in own))
    is_older = facts.isna().mul(has_config, axis=0)
    judged = {name: depends(name) for name in counts.index[(counts > 1) | (counts.gt(0) & is_older.any())]}
    facts[[name for name, is_own in judged.items() if not is_own]] = None
    for name in filter(judged.get, judged):
        if is_older[name].any():
            facts.loc[is_older[name], name] = _default(name)
    return facts


@functools.cache
def _default(name: str):
    """Return the default of a key of a learner or method, None for another fact. It is declared where torch is."""
    if not name.startswith("TRAINER."):
        return None
    from dspt_atlas import register_standard

    register_standard()
    defaults = with_defaults({}, of_trainers=True)
    return comparable(defaults[name]) if name in defaults else None


def _scopes(results) -> pd.Series:
    """Return the groups of settings within which rows must be distinguished, one or two for each result.

    A group is one data set and number of shots, or base and new classes of all data sets, because they are averaged, or
    all targets of one source, with the source itself.
    """
    moved = results[results["source"].notna() & (results["subsample"] == "all")]
    moved = set(zip(moved["stem"], moved["source"], moved["shots"], strict=True))

    def scopes(stem, dataset, shots, subsample, source, *always):
        if subsample != "all" and source in (None, dataset):
            return [("base to new", shots, always)]
        if source is not None:
            return [("transfer", source, shots, subsample, always)]
        own = ("plain", dataset, shots, always)
        is_source = (stem, dataset, shots) in moved
        return [own, ("transfer", dataset, shots, subsample, always)] if is_source else [own]

    columns = results[["stem", "dataset", "shots", "subsample", "source", *ALWAYS]]
    found = [[str((found[0], *scope)) for scope in scopes(*found)] for found in columns.itertuples(index=False)]
    return pd.Series(found, index=results.index, dtype=object).explode()


def _differences(own, facts, scopes) -> list[list[str]]:
    """Return the words that distinguish each result of one stem from other rows."""
    facts = facts.loc[:, facts.nunique() > 1]
    if facts.columns.empty:
        return [[]] * len(own)
    long = facts.loc[scopes.index]
    known = long.groupby(scopes.to_numpy())
    is_ambiguous = known.transform("nunique") > 1
    differing = sorted(facts.columns[is_ambiguous.any()])
    if not differing:
        return [[]] * len(own)
    # Unknown facts of a result are filled in if its scopes know them.
    filled = known.transform("first")[differing].groupby(level=0).first()
    filled = filled.mask(is_ambiguous[differing].groupby(level=0).any(), UNKNOWN)
    if NOISE_SEED in filled:
        filled[NOISE_SEED] = None  # of clean labels
    values = facts[differing].where(facts[differing].notna(), filled)
    numbers = values.groupby(differing, dropna=False, sort=False).ngroup()
    if _names_tell(own["config_name"], numbers, scopes):
        return [[name] for name in own["config_name"]]
    words = _key_values(values, scopes)
    told = {number: words(found) for number, found in zip(numbers, values.to_dict("records"), strict=True)}
    return [told[number] for number in numbers]


def _names_tell(names, numbers, scopes) -> bool:
    """Return whether each configuration's name means exactly one row in each scope, and each row has one name."""
    found = pd.DataFrame({"scope": scopes, "name": names[scopes.index], "row": numbers[scopes.index]}).drop_duplicates()
    tells = not any(found.duplicated(["scope", side]).any() for side in ("name", "row"))
    return tells and bool(names.ne("").all())


def _key_values(values, scopes):
    """Return a function that gives the words for a row's differing facts; of many, only those that suffice."""
    told = list(values.columns)
    if len(told) > MOST_FACTS:
        told = _sufficient(values.loc[scopes.index].assign(scope=scopes), told)
    rest = len(values.columns) - len(told)
    ends = {name: _unique_end(name, [*told, "SEED"]) for name in told}  # SEED alone is the run's
    more = [f"{rest} more"] if rest else []
    return lambda row: [_word(name, ends[name], row[name]) for name in told if pd.notna(row[name])] + more


def _sufficient(long, names) -> list[str]:
    """Return few of the differing facts that distinguish the same rows, chosen one by one."""

    def count(chosen):
        return len(long[["scope", *chosen]].drop_duplicates())

    chosen, wanted = [], count(names)
    while count(chosen) < wanted:
        chosen.append(max(names, key=lambda name: count([*chosen, name])))
    return sorted(chosen)


@functools.cache
def _always(split, epoch, origin, classes, data, others, noise) -> tuple[str, ...]:
    """Return the words that a row always has, in the order of ALWAYS."""
    words = (
        f"{split} split" if split != "test" else "",
        f"epoch {epoch}" if epoch else "",
        f"origin {origin}" if origin else "",
        f"trained on {classes} classes" if classes else "",
        f"trained on data {data[:DIGITS]}" if data else "",
        f"tested with {others}" if others else "",
        f"noise as configured, {noise}" if noise else "",
    )
    return tuple(filter(None, words))


def _word(name: str, end: str, value) -> str:
    """Return the words for a fact: the unique end of a key, or the end of a sentence for other facts."""
    if name.endswith(" revision"):
        return f"{name} {value}"
    if name in ("precision", "weights", "initial weights"):
        return f"{name} {UNKNOWN}" if value == UNKNOWN else str(value)
    if name == "templates":
        return f"templates {value[:DIGITS] if len(value) == 64 else value}"
    if name == "read from":
        return f"from {value}"
    return f"{end}={value}"


def _unique_end(key: str, keys: list[str]) -> str:
    """Return the shortest end of a dotted key, cut at dots, that no other of the keys has."""
    parts = key.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)
