"""The cache of image features of runs with INPUT.CACHE features: `dspt-atlas cache list`, `check`, `clear`."""

from __future__ import annotations

import time
from datetime import datetime

from tabulate import tabulate

from dspt_atlas.commands import Parser, command_line, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.paths import cache_dir, expand_home
from dspt_atlas.trainers.features.entry import Unusable
from dspt_atlas.trainers.features.store import FeatureStore

SHOWN_KEY = 12


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas cache`; the function of the chosen command is its `run`."""
    parser = Parser("cache", example="clear --older-than 30", more="Exit status 1: something is wrong or was kept.")
    parser.add_argument(
        "--cache", metavar="DIR", help="cache folder (default: $DSPT_ATLAS_CACHE, or ~/.cache/dspt-atlas)"
    )
    commands = parser.add_commands("{list,check,clear}")
    listing = commands.add_parser("list", help="show the entries, their size and their last use")
    listing.set_defaults(run=list_entries)
    check = commands.add_parser(
        "check", help="read everything again and compute a few samples again; exit 1 if anything is wrong"
    )
    check.add_argument(
        "keys", nargs="*", metavar="KEY", help="entries by the first letters of their key (default: all)"
    )
    check.add_argument("--backbone", default="", help="name or path of the backbone, if an entry does not have it")
    check.add_argument("--samples", type=int, default=4, help="images to compute again per entry (default: 4)")
    check.set_defaults(run=check_entries)
    clear = commands.add_parser("clear", help="remove entries; entries in use are kept, with exit 1")
    clear.add_argument("keys", nargs="*", metavar="KEY", help="entries by the first letters of their key")
    clear.add_argument("--all", action="store_true", help="remove every entry")
    clear.add_argument("--older-than", type=float, metavar="DAYS", help="remove entries not used for so many days")
    clear.set_defaults(run=clear_entries)
    return parser


def _run(options):
    return options.run(FeatureStore(expand_home(options.cache) if options.cache else cache_dir()), options)


def list_entries(store, options):
    """Print a table of the entries, the last used first."""
    entries = store.entries()
    if not entries:
        print(f"No cached features in {store.folder}.")
        return 0
    rows = [
        [
            entry.key[:SHOWN_KEY],
            contents(entry),
            f"{entry.bytes / 2**20:,.1f}",
            datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M"),
            "unfinished" if entry.unfinished else "in use" if entry.in_use() else "",
        ]
        for entry in reversed(entries)
    ]
    print(
        tabulate(
            rows,
            headers=["key", "what", "MiB", "last used", ""],
            disable_numparse=True,
            colalign=("left", "left", "right", "left", "left"),
        )
    )
    print(f"\n{len(entries)} entries, {sum(entry.bytes for entry in entries) / 2**20:,.1f} MiB in {store.folder}")
    return 0


def contents(entry):
    """Return the content of an entry in words."""
    meta = entry.meta
    try:
        *views, images, width = meta["shape"]
        kind = f"{views[0]} views, seed {meta['inputs']['seed']}" if views else "no augmentation"
        kind += ", not normalised" if meta["inputs"].get("raw") else ""
        return f"{meta.get('backbone') or 'backbone'} ({width}): {images:,} images, {kind}, {meta.get('folder', '')}"
    except (KeyError, TypeError, ValueError):
        return "damaged"


def check_entries(store, options):
    """Print the state of each entry; return 1 if one is wrong. An unfinished or outdated one is not wrong."""
    if options.samples < 0:
        raise UserError(f"Expected at least 0 samples, got {options.samples}.")
    from dspt_atlas.tools.cache_check import NotRecomputed, recompute  # it loads torch

    rows, wrong = [], 0
    for entry in chosen(store, options.keys):
        state = problem = None
        if entry.unfinished:
            state = "unfinished: the next run that needs it continues it"
        elif entry.is_outdated:
            state = "of another version of this project: `clear` removes it"
        else:
            try:
                entry.check()
                problem, state = recompute(entry, options.samples, options.backbone)
            except Unusable as reason:
                problem = reason
            except NotRecomputed as reason:
                state = f"complete; not recomputed: {reason}"
        wrong += problem is not None
        rows.append([entry.key[:SHOWN_KEY], f"WRONG: {problem}" if problem else state])
    print(tabulate(rows, headers=["key", "state"]) if rows else f"No cached features in {store.folder}.")
    if wrong:
        print(
            f"\n{wrong} of {len(rows)} entries are wrong: remove them with `{command_line('cache', 'clear', 'KEY')}`."
        )
    return 1 if wrong else 0


def clear_entries(store, options):
    """Remove entries; return 1 if one was kept because it is in use."""
    if sum((options.all, options.older_than is not None, bool(options.keys))) != 1:
        shown = f"`{command_line('cache', 'list')}`"
        raise UserError(f"Expected what to clear: --all, --older-than DAYS, or keys as {shown} shows them.")
    entries = chosen(store, options.keys)
    if options.older_than is not None:
        entries = [entry for entry in entries if entry.used < time.time() - options.older_than * 86400]
    kept = freed = 0
    for entry in entries:
        size = entry.bytes
        if store.remove(entry):
            freed += size
        else:
            kept += 1
            print(f"{entry.key[:SHOWN_KEY]} is in use by a running process and was kept.")
    print(f"Removed {len(entries) - kept} entries, {freed / 2**20:,.1f} MiB.")
    return 1 if kept else 0


def chosen(store, keys):
    """Return the entries whose keys start with one of `keys`, or all; raises UserError unless a key fits one entry."""
    entries = store.entries()
    if not keys:
        return entries
    found = []
    for key in keys:
        matches = [entry for entry in entries if entry.key.startswith(key)]
        if len({entry.key for entry in matches}) != 1:
            raise UserError(
                f"Expected the first letters of one entry's key, got '{key}', which fits {len(matches)} entries: "
                f"see `{command_line('cache', 'list')}`."
            )
        found += matches
    return found


main = main_of(build_parser, _run)
