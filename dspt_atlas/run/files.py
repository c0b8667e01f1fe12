"""The run folders below a folder, each once; links are followed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from dspt_atlas.run.records import CONFIG_FILE, RESULT_FILE

ARCHIVE = ".results.jsonl"  # names of files with many results end so
MARKS = (RESULT_FILE, "failed.json", CONFIG_FILE, "log.txt")  # a folder with one of these belongs to a run


def find_runs(roots: Iterable[Path]) -> tuple[dict[Path, set[str]], dict[Path, str]]:
    """Return {folder of a run, or archive: its MARKS, or ARCHIVE}, and {unreadable folder: a line that says so}.

    Folders come root by root in the order of their paths. Links are followed; folders that only a link reaches come
    after the others. A folder that is reached in several ways comes once, by the first way.
    """
    runs, problems, seen = {}, {}, set()
    for root in roots:
        found, waiting = {}, deque([Path(root)])
        while waiting:
            folder, links = waiting.popleft(), []
            for path, files in _below(folder, seen, links, problems):
                if marks := files.intersection(MARKS):
                    found[path] = marks
                found |= {path / name: {ARCHIVE} for name in files if name.endswith(ARCHIVE)}
            waiting.extend(sorted(links))
        runs.update(sorted(found.items()))
    return runs, problems


def _below(folder, seen, links, problems):
    """Yield (folder, names of its files) of a tree without links, which are put into `links`."""
    stack = [folder]
    while stack:
        path = stack.pop()
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                files, folders = set(), []
                for entry in entries:
                    if not entry.is_dir():
                        files.add(entry.name)
                    elif entry.is_symlink():
                        links.append(path / entry.name)
                    else:
                        folders.append(path / entry.name)
        except OSError as error:
            problems[path] = f"{path} cannot be read ({error.strerror}): it is left out."
            continue
        if files.intersection(MARKS):  # what W&B keeps there has files of our names
            folders = [below for below in folders if below.name != "wandb"]
        yield path, files
        stack += sorted(folders, reverse=True)
