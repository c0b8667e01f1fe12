"""Finished runs read back: from result.json, and from the logs of family repositories where there is none."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import UserError
from .family_logs import read_family_log
from .identity import MACHINE_KEYS, flatten
from .records import RESULT_FILE, SCHEMA_VERSION, checkpoint_epochs, read_json

OBSERVING_KEYS = ("TEST.NEW_CLASSES", "TEST.PERIOD", "TRAIN.GRADIENT_PROFILE")  # what is noted, not what is learned


@dataclass(frozen=True)
class Record:
    """One finished run. `noise` is "clean" or type and rate; `source` is what a transferred model was trained on."""

    method: str
    config_name: str
    dataset: str
    seed: int
    shots: int
    subsample: str
    noise: str
    source: str | None
    values: dict[str, float] = field(compare=False, hash=False)
    folder: Path = field(compare=False)
    identity: str = field(default="", repr=False)

    @property
    def setting(self) -> tuple:
        """Return what a table's column may stand for."""
        return self.dataset, self.shots, self.subsample, self.noise, self.source


def noise_label(noise: dict | None) -> str:
    """Return "clean", or a noise's type and rate asked for; another family than relabel is named."""
    if not noise:
        return "clean"
    family = "" if noise.get("family", "relabel") == "relabel" else f" ({noise['family']})"
    return f"{noise['type']} {noise['rate']:g}{family}"


def load(roots: list[Path]) -> tuple[list[Record], list[str]]:
    """Return the finished runs under folders, each experiment once, and a line for each other one.

    Raises UserError for a folder that does not exist.
    """
    records, problems, done = {}, [], set()
    for root in map(Path, roots):
        if not root.is_dir():
            raise UserError(f"Expected a folder of results, but {root} is none.")
        for path in sorted(root.rglob(RESULT_FILE)):
            done.add(path.parent)
            try:
                record = read_result(path)
                records.setdefault((record.identity, record.setting, record.method, record.seed), record)
            except UserError as error:
                problems.append(str(error))
        for path in sorted({*root.rglob("config.yaml"), *root.rglob("log.txt")}):
            if path.parent in done:
                continue
            done.add(path.parent)
            record = read_family_log(path.parent) if not (path.parent / "config.yaml").exists() else None
            if record is None:
                problems.append(unfinished(path.parent))
            else:
                record = _record(record, path.parent)
                records.setdefault((record.identity, record.setting, record.method, record.seed), record)
    return distinguish(list(records.values())), problems


def read_result(path: Path) -> Record:
    """Return the run that a result.json describes; raises UserError if it is damaged or of another version."""
    result = read_json(path)
    if result.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {result.get('schema_version')}, not {SCHEMA_VERSION}: it is left out."
        )
    try:
        return _record(result, path.parent)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no complete result ({type(error).__name__}: {error}): it is left out.") from error


def _record(result: dict, folder: Path) -> Record:
    evaluated = result["evaluated"] or {}
    trained = evaluated.get("trained_on")
    method = result["trainer"]
    if "atlas" in result or method.endswith("ATLaS"):
        method += f" ({result['config']['TRAINER']['ATLAS']['SOFT_LABELS']})"
    config = {key: value for key, value in flatten(result["config"]) if key not in MACHINE_KEYS}
    is_transferred = trained and (trained["dataset"] != result["dataset"] or result["subsample"] == "new")
    return Record(
        method=method,
        config_name=result.get("config_name") or "",
        dataset=result["dataset"],
        seed=result["seed"],
        shots=trained["shots"] if trained else result["shots"],
        subsample=result["subsample"],
        noise=noise_label(trained["noise"] if trained else result["noise"]),
        source=trained["dataset"] if is_transferred else None,
        values={name: float(result[name]) for name in ("accuracy", "macro_f1")},
        folder=folder,
        identity=json.dumps([config, trained], sort_keys=True),
    )


def distinguish(records: list[Record]) -> list[Record]:
    """Name what differs where one method has several results for a setting and a seed.

    That is the configuration's name, else the keys with other values, else the folder; all runs of the method are
    named by it, so that the same run at another noise rate or seed stays on the same line.
    """
    for suffixes in (_config_names, _key_values, functools.partial(_key_values, hidden=()), _folders):
        same = defaultdict(list)
        for record in records:
            same[record.method, record.setting, record.seed].append(record)
        clashes = defaultdict(list)
        for (method, _, _), group in same.items():
            if len(group) > 1:
                clashes[method].append(group)
        named = {method: suffixes(groups) for method, groups in clashes.items()}
        records = [
            replace(record, method=f"{record.method} [{suffix}]")
            if record.method in named and (suffix := named[record.method](record))
            else record
            for record in records
        ]
    return records


def _config_names(groups: list[list[Record]]) -> Callable[[Record], str]:
    """Return what names a run by its configuration, where those of one group have several."""
    differ = any(len({record.config_name for record in group}) > 1 for group in groups)
    return lambda record: record.config_name if differ else ""


def _key_values(groups: list[list[Record]], hidden=OBSERVING_KEYS) -> Callable[[Record], str]:
    """Return what names a run by the keys whose values differ within a group, each by as much of its end as is unique."""
    differing = set()
    for group in groups:
        first, *others = map(_config_of, group)
        for other in others:
            differing |= {key for key in first.keys() | other.keys() if first.get(key) != other.get(key)}
    differing -= set(hidden)
    names = {key: _unique_end(key, differing) for key in sorted(differing)}

    def name(record):
        values = _config_of(record)
        return ", ".join(f"{end}={values.get(key)}" for key, end in names.items())

    return name


def _config_of(record: Record) -> dict:
    return dict(json.loads(record.identity)[0]) if record.identity else {}


def _unique_end(key: str, keys: set[str]) -> str:
    """Return the shortest end of a dotted key, cut at dots, that no other of the keys has."""
    parts = key.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)


def _folders(_groups: list[list[Record]]) -> Callable[[Record], str]:
    """Return what names a run by the folder that holds its seeds."""
    return lambda record: str(record.folder.parent)


def unfinished(folder: Path) -> str:
    """Return how far an unfinished run came, in a sentence that starts with its folder."""
    failed = folder / "failed.json"
    if failed.is_file():
        try:
            failure = read_json(failed)
            return f"{folder} failed in epoch {failure.get('epoch')}: {failure.get('error')}"
        except UserError as error:
            return str(error)
    epochs = checkpoint_epochs(folder)
    return f"{folder} is not finished ({f'{epochs[-1]} epochs' if epochs else 'no epoch'} done)"
