"""Unpacking other people's archives: only files and folders, all checked before the first is written."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dspt_atlas.errors import UserError

LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of Linux
ZIP_KINDS = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
BY_HAND = "nothing was unpacked; if you trust its source, unpack it by hand"


class Member(NamedTuple):
    """One entry of an archive: its name there, its kind ("file", "folder", "link", ...), and how to open a file."""

    name: str
    kind: str
    open: Callable


def extract(path, folder):
    """Unpack a zip or tar archive into `folder`.

    Raises UserError before anything is written if the archive has a link, a device, a path that is absolute, goes up or
    is too long, or two members with one name. Raises UserError for a broken archive, and OSError if the disk fails.
    """
    try:
        with closing(zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path)) as archive:
            members = _zip_members(archive) if isinstance(archive, zipfile.ZipFile) else _tar_members(archive)
            for target, member in _checked(path.name, members, folder).items():
                if member.kind == "folder":
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    except UserError:
        raise
    except Exception as error:  # a damaged archive raises a dozen kinds
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path.name} is broken or not an archive ({error}): try again") from None


def _zip_members(archive):
    for info in archive.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)
        kind = "folder" if info.is_dir() else ZIP_KINDS.get(mode, "device")
        kind = "encrypted file" if info.flag_bits & 1 else kind
        yield Member(info.orig_filename, kind, partial(archive.open, info))


def _tar_members(archive):
    for info in archive.getmembers():
        kind = "link" if info.issym() or info.islnk() else "device"
        kind = "file" if info.isfile() else "folder" if info.isdir() else kind
        yield Member(info.name, kind, partial(archive.extractfile, info))


def _checked(archive, members, folder):
    """Return {path to write: member}, with each folder once; raises UserError for a member that must not be written."""
    targets, parents = {}, set()
    for member in members:
        problem = _problem(member, folder)
        target = folder.joinpath(*PurePosixPath(member.name).parts)
        if not problem and target in targets and "file" in (member.kind, targets[target].kind):
            problem = "is there twice"
        if problem:
            raise UserError(f"{archive}: the member {member.name!r} {problem}: {BY_HAND}")
        if target != folder:
            targets[target] = member
            parents.update(target.parents)
    for target in parents & targets.keys():
        if targets[target].kind == "file":
            raise UserError(f"{archive}: the member {targets[target].name!r} is a file and a folder: {BY_HAND}")
    return targets


def _problem(member, folder):
    """Return why a member must not be written, or "" if it may be."""
    name, path = member.name, PurePosixPath(member.name)
    if member.kind not in ("file", "folder"):
        return f"is a {member.kind}, but data sets have only files and folders"
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name[1:2] == ":":
        return "leaves the folder that it is unpacked into"
    sizes = [len(os.fsencode(part)) for part in path.parts]
    if max(sizes, default=0) > LONGEST_NAME or len(os.fsencode(Path(folder, path).absolute())) > LONGEST_PATH:
        return "has a longer name than a file may have"
    return "" if path.parts or member.kind == "folder" else "has no name"
