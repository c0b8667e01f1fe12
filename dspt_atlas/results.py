"""Finished runs read back: from result.json, and from the logs of family repositories where there is none."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import UserError
from .family_logs import read_family_log
from .launch import flatten
from .records import RESULT_FILE, SCHEMA_VERSION, checkpoint_epochs, read_json
from .runs import IRRELEVANT_KEYS


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
    config = {key: value for key, value in flatten(result["config"]) if key not in IRRELEVANT_KEYS}
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
    """Name the configuration, if need be the folder, where one method has several results for a setting and a seed."""
    for suffix in (lambda record: record.config_name, lambda record: str(record.folder.parent)):
        counts = Counter((record.method, record.setting, record.seed) for record in records)
        ambiguous = {method for (method, _, _), count in counts.items() if count > 1}
        records = [
            replace(record, method=f"{record.method} [{suffix(record)}]") if record.method in ambiguous else record
            for record in records
        ]
    return records


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
