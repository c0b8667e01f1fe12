"""What the page says about each run: a line of the list, and the details behind it."""

from __future__ import annotations

import base64
import functools
import json
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import yaml

from dspt_atlas.config.keys import flatten
from dspt_atlas.errors import UserError
from dspt_atlas.results.read import Loaded, Record, noise_label, result_of, unfinished
from dspt_atlas.run.files import MARKS, find_runs
from dspt_atlas.run.folder import running_process
from dspt_atlas.run.records import RESULT_FILE, read_json

COLUMNS = (
    "state",
    "method",
    "data set",
    "labels",
    "shots",
    "classes",
    "trained on",
    "seed",
    "accuracy",
    "macro F1",
    "seconds",
    "folder",
)
STATES = ("done", "running", "half-finished", "failed", "unreadable")
LOG_LINES, LOG_BYTES = 12, 8192
EPOCHS_SHOWN, CLASSES_SHOWN = 12, 10
CHUNK = 100  # runs whose details are compressed together
IDENTITY = ("trainer", "dataset", "noise", "shots", "subsample", "seed")


@dataclass(frozen=True)
class RunEntry:
    """A run: the values of COLUMNS, and its details as sections [title, [[name, value], ...]] with the log's end."""

    row: tuple
    details: dict

    @property
    def state(self) -> str:
        """Return one of STATES."""
        return self.row[0]


def run_folders(roots: list[Path]) -> list[Path]:
    """Return the folders of runs below folders, finished or not, in order."""
    return sorted(find_runs(roots)[0])


def run_entries(roots: list[Path], loaded: Loaded) -> list[RunEntry]:
    """Return all runs below folders, those that the tables count and the others."""
    counted = {record.folder: record for record in loaded.records}
    base = Path(os.path.commonpath([os.path.abspath(root) for root in roots]))
    folders = sorted(counted.keys() | loaded.problems.keys())
    return [_run_entry(folder, base, counted.get(folder), loaded) for folder in folders]


def _run_entry(folder: Path, base: Path, record: Record | None, loaded: Loaded) -> RunEntry:
    """Return the entry of one run; `record` is what the tables count of it, if they do."""
    progress = _epochs_done(folder)
    if record and record.archive:
        result = result_of(record)
        details = {"sections": _all_sections(result, folder, _stamp(record.archive)), "log": ""}
        read = {"state": "done", "note": "", "identity": _identity_of_result(result), "details": details}
    else:
        read = _read_run(folder, tuple(_stamp(folder / name) for name in MARKS), progress)
    state = "done" if record else read["state"]
    own = read["identity"]
    if record:
        own = {**own, "trainer": record.method, "dataset": record.dataset, "shots": record.shots, "seed": record.seed}
        own |= {"labels": record.noise, "subsample": record.subsample, "source": record.source, **record.values}
    name = os.path.relpath(os.path.abspath(folder), base)
    fields = ("trainer", "dataset", "labels", "shots", "subsample", "source", "seed", "accuracy", "macro_f1", "seconds")
    note = read["note"]
    process = running_process(folder) if state == "half-finished" else None
    if process:
        state, note = "running", f"{note} ({process})"
    if folder in loaded.doubles:
        other = loaded.doubles[folder] or "another folder holds the same experiment."
        state, note = "done", f"Not counted in the tables: {other}"
    elif not record and loaded.problems[folder] != progress:
        state, note = "unreadable", loaded.problems[folder]
    return RunEntry((state, *(plain(own.get(field)) for field in fields), name), {**read["details"], "note": note})


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _epochs_done(folder: Path) -> str:
    return "" if (folder / RESULT_FILE).exists() else unfinished(folder)


@functools.lru_cache(maxsize=20_000)
def _read_run(folder: Path, stamps: tuple, progress: str) -> dict:
    """Return state, note, identity and details; read again only when a file's time or size has changed."""
    note = progress.removeprefix(f"{folder} ").capitalize()
    state = "failed" if stamps[1] else "half-finished"
    try:
        if stamps[0]:
            state = "unreadable"
            result = read_json(folder / RESULT_FILE)
            identity = _identity_of_result(result)
            sections = _all_sections(result, folder, stamps[0])
            state, note = "done", ""
        else:
            config = _read_config(folder)
            identity, sections = _identity_of_config(config), _configuration(config)
    except (UserError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        identity, sections = {}, []
        file = RESULT_FILE if stamps[0] else "config.yaml"
        note = str(error) if isinstance(error, UserError) else f"{file} is not what a run writes ({error!r:.200})."
    details = {"sections": sections, "log": _log_end(folder / "log.txt", stamps[3])}
    return {"state": state, "note": note, "identity": identity, "details": details}


def _identity_of_result(result: dict) -> dict:
    identity = {name: result.get(name) for name in (*IDENTITY, "accuracy", "macro_f1", "seconds")}
    return {**identity, "labels": noise_label(result.get("noise"))}


def _identity_of_config(config: dict) -> dict:
    dataset = config.get("DATASET", {})
    noise = dataset.get("NOISE") or {}
    is_noisy = str(dataset.get("NAME", "")).startswith("Noisy") and noise.get("TYPE", "none") != "none"
    return {
        "trainer": config.get("TRAINER", {}).get("NAME"),
        "dataset": str(dataset.get("NAME") or "").removeprefix("Noisy"),
        "labels": noise_label({key.lower(): value for key, value in noise.items()} if is_noisy else None),
        "shots": dataset.get("NUM_SHOTS"),
        "subsample": dataset.get("SUBSAMPLE_CLASSES"),
        "seed": config.get("SEED"),
    }


def _read_config(folder: Path) -> dict:
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        config = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text).get_single_data()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{folder / 'config.yaml'} is damaged ({type(error).__name__}).") from error
    return config if isinstance(config, dict) else {}


def _all_sections(result: dict, folder: Path, stamp: tuple[int, int]) -> list[dict]:
    return [*_sections(result, folder, stamp), *_configuration(result["config"])]


def _configuration(config: dict) -> list[dict]:
    return [_section("Configuration", dict(flatten(config)))] if config else []


def _sections(result: dict, folder: Path, stamp: tuple[int, int]) -> Iterator[dict]:
    """Yield what a finished run says about itself, a title and its lines at a time."""
    names = ("config_name", "backbone", "precision", "split", "num_classes", "num_train", "total", "correct")
    own = {name.replace("_", " "): result.get(name) for name in names}
    yield _section("Run", {"folder": str(folder), **own, **dict(flatten({"evaluated": result.get("evaluated") or {}}))})
    history = [entry for entry in result.get("history") or [] if isinstance(entry, dict)]
    memory = result.get("peak_memory_bytes")
    times = {
        "finished": datetime.fromtimestamp(stamp[0] / 1e9, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
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


def _section(title: str, values: dict) -> dict:
    return {"title": title, "values": [[str(key), _shown(value)] for key, value in values.items() if value is not None]}


def _epochs(history: list[dict]) -> dict:
    """Return a table of at most EPOCHS_SHOWN epochs, evenly spaced, the last one among them."""
    step = math.ceil(len(history) / EPOCHS_SHOWN)
    shown = history[::-1][::step][::-1]
    columns = [name for name, value in shown[-1].items() if isinstance(value, (int, float))]
    rows = [[_shown(entry.get(name)) for name in columns] for entry in shown]
    title = "Epochs" if step == 1 else f"Epochs ({len(shown)} of {len(history)})"
    return {"title": title, "columns": [name.replace("_", " ") for name in columns], "rows": rows}


def _shown(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def plain(value) -> str | int | float | None:
    """Return a value that JSON has: numbers that are none become None, what is no number becomes a text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (int, str)) else str(value)


def _log_end(path: Path, stamp: tuple[int, int] | None) -> str:
    """Return the last lines of a log; "" if there is none or it cannot be read."""
    if not stamp:
        return ""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, stamp[1] - LOG_BYTES))
            text = file.read(LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(line[:400] for line in text.splitlines()[-LOG_LINES:])


def compressed_details(entries: list[RunEntry]) -> list[str]:
    """Return the details as base64 of zlib streams of JSON lists of CHUNK runs, which the browser opens on demand."""
    texts = [
        json.dumps([entry.details for entry in entries[start : start + CHUNK]])
        for start in range(0, len(entries), CHUNK)
    ]
    return [base64.b64encode(zlib.compress(text.encode())).decode() for text in texts]
