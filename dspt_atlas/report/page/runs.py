"""The page's parts on each run: a line in the list, and its details."""

from __future__ import annotations

import base64
import json
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from dspt_atlas.datasets.noise import PLACES, clean_name
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import flatten
from dspt_atlas.results.read import Loaded
from dspt_atlas.results.record import history_of, noise_label
from dspt_atlas.run.records import read_config
from dspt_atlas.run.state import log_end, read_state
from dspt_atlas.trainers.measures import MEASURES

STATES = ("done", "running", "half-finished", "failed", "unreadable")
LOG_LINES = 12
EPOCHS_SHOWN, CLASSES_SHOWN = 12, 10
CHUNK = 100  # runs whose details are compressed together


def titles() -> dict[str, str]:
    """Return {column of the data frame: title in the list of runs}."""
    before = {"state": "state", "row": "method", "dataset": "data set", "noise": "labels", "shots": "shots"}
    before |= {"subsample": "classes", "source": "trained on", "seed": "seed"}
    measures = {measure.name: measure.title for measure in MEASURES.values()}
    return {**before, **measures, "seconds": "seconds", "place": "folder"}


def numeric() -> list[str]:
    """Return the titles of the columns with numbers."""
    return [titles()[name] for name in ("shots", "seed", *MEASURES, "seconds")]


@dataclass(frozen=True)
class RunEntry:
    """A run: the values of the columns of `titles`, and its details as JSON: sections, the log's end, a note."""

    row: tuple
    details: str

    @property
    def state(self) -> str:
        """Return one of STATES."""
        return self.row[0]


def described(result: dict, file: Path) -> dict:
    """Return further columns of the data frame for the page, besides those of tables."""
    sections, flaw = [], ""
    try:
        sections = list(_sections(result, file))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        flaw = f"{file.name} is not what a run writes ({error!r:.200})."
    more = {"sections": json.dumps(sections, default=str), "flaw": flaw}
    return {**more, "seconds": result.get("seconds"), "history": history_of(result)}


def run_entries(roots: list[Path], loaded: Loaded) -> list[RunEntry]:
    """Return all runs below folders in order, those that the tables count and the others."""
    base = Path(os.path.commonpath([os.path.abspath(root) for root in roots]))
    entries = {row.folder: _finished(row, loaded.problems.get(row.folder)) for row in loaded.results.itertuples()}
    for folder in loaded.problems.keys() - entries.keys():
        entries[folder] = _unfinished(folder, loaded.problems[folder])
    return [_entry(folder, base, *entries[folder]) for folder in sorted(entries)]


def _entry(folder, base, fields, sections, note):
    fields["place"] = os.path.relpath(os.path.abspath(folder), base)
    details = json.dumps({"log": log_end(folder, LOG_LINES), "note": note})
    row = tuple(plain(fields.get(name)) for name in titles())
    return RunEntry(row, f'{{"sections": {sections}, {details[1:]}')


def _finished(row, problem):
    note = (
        row.flaw
        if problem is None
        else f"Not counted in the tables: {problem or 'another folder holds the same experiment.'}"
    )
    return {**row._asdict(), "state": "done"}, row.sections, note


def _unfinished(folder, problem):
    """Return the details of a run without a readable result."""
    state, config, sections = read_state(folder), {}, []
    name, note = {"unfinished": "half-finished", "failed": "failed"}.get(state.name, "unreadable"), problem
    if name != "unreadable":
        note = problem.removeprefix(f"{folder} ").capitalize()
    if name == "half-finished" and (process := state.process):
        name, note = "running", f"{note} ({process})"
    try:
        config = read_config(folder)
        sections = [_section("Configuration", dict(flatten(config)))] if config else []
        fields = _fields_of(config)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        name, fields = "unreadable", {}
        note = str(error) if isinstance(error, UserError) else f"config.yaml is not what a run writes ({error!r:.200})."
    return {**fields, "state": name}, json.dumps(sections, default=str), note


def _fields_of(config: dict) -> dict:
    dataset = config.get("DATASET", {})
    noise = dataset.get("NOISE") or {}
    name = str(dataset.get("NAME") or "")
    file = next(filter(None, map(noise.get, PLACES)), "")
    is_noisy = name != clean_name(name) and noise.get("TYPE", "none") != "none"
    label = noise_label({key.lower(): value for key, value in noise.items()} if is_noisy else None)
    return {
        "row": config.get("TRAINER", {}).get("NAME"),
        "dataset": clean_name(name),
        "noise": f"by {Path(file).name}" if file else label,
        "shots": dataset.get("NUM_SHOTS"),
        "subsample": dataset.get("SUBSAMPLE_CLASSES"),
        "seed": config.get("SEED"),
    }


def _sections(result: dict, file: Path) -> Iterator[dict]:
    """Yield the record of a finished run: a title with its lines, one after the other."""
    names = ("config_name", "backbone", "precision", "split", "num_classes", "num_train", "total", "correct")
    own = {name.replace("_", " "): result.get(name) for name in names}
    yield _section("Run", {"file": str(file), **own, **dict(flatten({"evaluated": result.get("evaluated") or {}}))})
    history = history_of(result)
    memory = result.get("peak_memory_bytes")
    finished = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    times = {
        "finished": finished.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "seconds in all": result.get("seconds"),
        "seconds per epoch": sum(entry.get("seconds", 0) for entry in history) / len(history) if history else None,
        "peak memory (GiB)": memory / 2**30 if memory else None,
    }
    yield _section("Times", times)
    if result.get("noise"):
        last = history[-1] if history else {}
        measures = ("right_accuracy", "wrong_memorised", "wrong_corrected")
        shown = {f"{name.replace('_', ' ')} (last epoch, %)": last.get(name) for name in measures}
        yield _section("Wrong labels", {**result["noise"], **shown})
    for name in ("atlas", "gradient"):
        if isinstance(result.get(name), dict):
            yield _section(name, dict(flatten(result[name])))
    by_class = result.get("per_class_accuracy") or {}
    lowest = sorted(by_class, key=by_class.get)[:CLASSES_SHOWN]
    yield _section(f"Lowest accuracies of {len(by_class)} classes (%)", {name: by_class[name] for name in lowest})
    if history:
        yield _epochs(history)
    environment = {**(result.get("versions") or {}), "commit": result.get("commit"), **(result.get("host") or {})}
    yield _section("Environment", environment)
    yield _section("Configuration", dict(flatten(result["config"])))


def _section(title: str, values: dict) -> dict:
    return {"title": title, "values": [[str(key), _shown(value)] for key, value in values.items() if value is not None]}


def _epochs(history: list[dict]) -> dict:
    """Return a table of at most EPOCHS_SHOWN epochs, evenly spaced, with the last one."""
    step = math.ceil(len(history) / EPOCHS_SHOWN)
    shown = history[::-1][::step][::-1]
    columns = [name for name, value in shown[-1].items() if isinstance(value, (int, float))]
    rows = [[_shown(entry.get(name)) for name in columns] for entry in shown]
    title = "Epochs" if step == 1 else f"Epochs ({len(shown)} of {len(history)})"
    return {"title": title, "columns": [name.replace("_", " ") for name in columns], "rows": rows}


def _shown(value) -> str:
    if type(value) is str:
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return "–"
    return str(value) if type(value) is int else json.dumps(value, default=str)


def plain(value) -> str | int | float | None:
    """Return a value for JSON: NaN and infinity become None, and values that are not numbers become text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (int, str)) else str(value)


def compressed_details(entries: list[RunEntry]) -> list[str]:
    """Return the details as base64 of zlib streams of JSON lists of CHUNK runs, which the browser opens on demand."""
    texts = [
        f"[{', '.join(entry.details for entry in entries[start : start + CHUNK])}]"
        for start in range(0, len(entries), CHUNK)
    ]
    return [base64.b64encode(zlib.compress(text.encode())).decode() for text in texts]
