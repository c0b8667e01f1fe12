"""Archives of data sets: files and folders come out unchanged; anything else is refused before writing."""

import io
import os
import stat
import tarfile
import zipfile

import pytest

from dspt_atlas.datasets import downloads
from dspt_atlas.datasets.archives import extract
from dspt_atlas.errors import UserError

GOOD = [
    ("data/", tarfile.DIRTYPE, ""),
    ("data/images/1.jpg", tarfile.REGTYPE, ""),
    ("data/list.txt", tarfile.REGTYPE, ""),
]
FILE, FOLDER, SYMBOLIC, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def tar_of(path, members, mode="w:gz"):
    """Write a tar of (name, type, target of a link), in their order."""
    with tarfile.open(path, mode) as archive:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            content = b"content of " + name.encode() if kind == FILE else b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zip_of(path, members):
    """Write a zip of (name, type of the file as in its mode, content)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, kind, content in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name  # ZipInfo itself would tidy it
            info.external_attr = (kind | 0o755) << 16
            archive.writestr(info, content)
    return path


def link_chain_beyond_path_max(outside):
    """The members of CVE-2025-4517: links too long to be resolved, so that the last one leads to `outside` unseen."""
    members, path, letters = [], "", "abcdefghijklmnop"
    for letter in letters:
        members += [(os.path.join(path, "d" * 247), FOLDER, ""), (os.path.join(path, letter), SYMBOLIC, "d" * 247)]
        path = os.path.join(path, "d" * 247)
    long = os.path.join(*letters, "l" * 254)
    members += [(long, SYMBOLIC, "../" * len(letters)), ("way", SYMBOLIC, f"{long}/../{outside}")]
    return [*members, ("way/escaped.txt", FILE, "")]


def everything_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


BAD_TAR = {
    "a symbolic link": [("data/link", SYMBOLIC, "list.txt")],
    "a link to a folder and a file through it": [("data/link", SYMBOLIC, "/tmp"), ("data/link/escaped.txt", FILE, "")],
    "a hard link": [("data/link", HARD, "data/list.txt")],
    "a hard link upward": [("data/link", HARD, "../secret")],
    "a character device": [("data/null", tarfile.CHRTYPE, "")],
    "a block device": [("data/disk", tarfile.BLKTYPE, "")],
    "a pipe": [("data/pipe", tarfile.FIFOTYPE, "")],
    "an absolute path": [("/tmp/escaped.txt", FILE, "")],
    "an absolute folder": [("/tmp/escaped/", FOLDER, "")],
    "an upward path": [("../escaped.txt", FILE, "")],
    "an upward path in the middle": [("data/../../escaped.txt", FILE, "")],
    "an upward path that stays inside": [("data/../escaped.txt", FILE, "")],
    "a backslash": [("data\\..\\escaped.txt", FILE, "")],
    "a drive": [("C:/escaped.txt", FILE, "")],
    "the same file twice": [("data/list.txt", FILE, "")],
    "the same file twice, spelled otherwise": [("./data//list.txt", FILE, "")],
    "a file that is a folder too": [("data/list.txt/more.txt", FILE, "")],
    "a folder that is a file too": [("data/images", FILE, "")],
    "a file without a name": [(".", FILE, "")],
    "a name that is too long": [("data/" + "n" * 256, FILE, "")],
    "a path that is too long": [("/".join(["n" * 250] * 17), FILE, "")],
}
BAD_ZIP = {
    "a symbolic link": [("link", stat.S_IFLNK, "/etc")],
    "a device": [("device", stat.S_IFCHR, "")],
    "an absolute path": [("/tmp/escaped.txt", stat.S_IFREG, "x")],
    "an upward path": [("a/../../escaped.txt", stat.S_IFREG, "x")],
    "a backslash": [("..\\escaped.txt", stat.S_IFREG, "x")],
    "the same file twice": [("list.txt", stat.S_IFREG, "other")],
}


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "a" / "out"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("mode", ["w:gz", "w", "w:xz"])
def test_files_and_folders_of_a_tar_come_out_as_they_are(mode, tmp_path, out):
    extract(tar_of(tmp_path / "x.tar", [*GOOD, ("empty", FOLDER, ""), ("data", FOLDER, "")], mode), out)
    assert everything_below(out) == {name: b"content of " + name.encode() for name, kind, _ in GOOD if kind == FILE}
    assert (out / "empty").is_dir()


def test_files_and_folders_of_a_zip_come_out_as_they_are(tmp_path, out):
    members = [("data/", stat.S_IFDIR, ""), ("data/list.txt", stat.S_IFREG, "a"), ("data/images/1.jpg", 0, "b")]
    extract(zip_of(tmp_path / "x.zip", members), out)
    assert everything_below(out) == {"data/list.txt": b"a", "data/images/1.jpg": b"b"}


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("what", BAD_TAR)
def test_a_tar_with_anything_else_is_refused_before_anything_is_written(what, place, tmp_path, out):
    members = [*BAD_TAR[what], *GOOD] if place == "first" else [*GOOD, *BAD_TAR[what]]
    refused(tar_of(tmp_path / "x.tar.gz", members), tmp_path, out)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", BAD_ZIP)
def test_a_zip_with_anything_else_is_refused_before_anything_is_written(what, tmp_path, out):
    refused(zip_of(tmp_path / "x.zip", [("list.txt", stat.S_IFREG, "x"), *BAD_ZIP[what]]), tmp_path, out)


def test_links_too_long_to_be_resolved_lead_nowhere(tmp_path, out):
    (tmp_path / "outside").mkdir()
    refused(tar_of(tmp_path / "x.tar", link_chain_beyond_path_max("../outside"), "w"), tmp_path, out)


def refused(archive, around, out):
    before = sorted(around.rglob("*"))
    with pytest.raises(UserError) as error:
        extract(archive, out)
    assert archive.name in str(error.value) and "\n" not in str(error.value)
    assert sorted(around.rglob("*")) == before


def test_a_damaged_member_is_a_sentence(tmp_path, out):
    path = zip_of(tmp_path / "x.zip", [("list.txt", stat.S_IFREG, "some content")])
    path.write_bytes(path.read_bytes().replace(b"some content", b"SOME CONTENT"))
    with pytest.raises(UserError, match=r"x\.zip"):
        extract(path, out)
    path = tar_of(tmp_path / "x.tgz", GOOD)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"x\.tgz"):
        extract(path, out)


def test_an_archive_is_kept_where_the_disk_does_not_take_its_files(tmp_path):
    path, blocked = tar_of(tmp_path / "x.tar", [("x/list.txt", FILE, "")]), tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"x\.tar"):
        downloads._place(downloads.Archive("", None, {"x": "x"}), path, blocked, tmp_path)
    assert path.exists()
