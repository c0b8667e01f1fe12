"""Unreadable images found before training; `dspt-atlas check-data` and `download`, and a loopback server."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple

import pytest

from dspt_atlas.config.files import find_dataset
from dspt_atlas.datasets import downloads, register_all
from dspt_atlas.datasets.catalogue import Caltech101
from dspt_atlas.datasets.readable import Examined, check_images
from dspt_atlas.errors import UserError
from dspt_atlas.tools import check_data, download, run_plan
from support.paths import CONFIGS
from support.refusals import refused
from support.server import served

pytestmark = pytest.mark.usefixtures("private_cache")


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function (module of a command, arguments) that calls its `main`."""
    monkeypatch.delenv("DATA", raising=False)

    def call(command, *arguments):
        capsys.readouterr()
        status = command.main(list(map(str, arguments)))
        return Result(status, *capsys.readouterr())

    return call


@pytest.mark.parametrize("script", ["check-data", "download"])
@pytest.mark.slow
def test_scripts_start_and_refuse_with_status_2(script, tmp_path):
    command = [sys.executable, "-m", "dspt_atlas", script, "pets", "--root", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert '"pets"' in result.stderr and "cifar100n" in result.stderr.lower()


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def test_unreadable_images_are_named(caltech_tree, load_dataset):
    items = load_dataset("Caltech101", caltech_tree).train_x
    check_images(items)
    _truncate(Path(items[3].impath))
    Path(items[7].impath).write_bytes(b"")
    Path(items[9].impath).write_text("<html>not found</html>")
    with refused("3 of 40", *(items[index].impath for index in (3, 7, 9))):
        check_images(items)


def test_a_list_found_good_is_not_decoded_again(caltech_tree, load_dataset, monkeypatch):
    items = load_dataset("Caltech101", caltech_tree).train_x
    check_images(items)
    again = "dspt_atlas.datasets.readable._examine"
    monkeypatch.setattr(again, lambda path: Examined(path, "decoded again", "", False))
    check_images(items)
    os.utime(items[0].impath)
    with pytest.raises(UserError, match="decoded again"):
        check_images(items)


def test_an_image_that_changed_under_the_same_size_and_time_is_decoded_again(caltech_tree, load_dataset):
    items = load_dataset("Caltech101", caltech_tree).train_x
    check_images(items)
    path = Path(items[2].impath)
    state = path.stat()
    while path.stat().st_ctime_ns == state.st_ctime_ns:
        path.write_bytes(bytes(state.st_size))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with refused(items[2].impath):
        check_images(items)


@pytest.mark.parametrize(
    "name, found",
    [
        ("OxfordPets", "OxfordPets"),
        ("oxford_pets", "OxfordPets"),
        ("dtd", "DescribableTextures"),
        ("emoji_v2", "EmojiV2"),
    ],
)
def test_names_of_data_sets(name, found):
    register_all()
    assert find_dataset(name).__name__ == found


def test_every_yaml_name_is_known():
    register_all()
    for path in (CONFIGS / "datasets").glob("*.yaml"):
        if f'"{find_dataset(path.stem).__name__}"' not in path.read_text():
            pytest.fail(f"{path.name} names another data set")


def test_check_data_of_a_usable_data_set(caltech_tree, run):
    before = sorted(caltech_tree.rglob("*"))
    result = run(check_data, "caltech101", "--root", caltech_tree)
    assert result.returncode == 0, result.stderr
    assert f"{caltech_tree}/caltech-101/101_ObjectCategories" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["3", "name_3", "8", "5", "3"] in rows
    assert "5 classes" in result.stdout
    assert sorted(caltech_tree.rglob("*")) == before


def test_check_data_lists_missing_and_unreadable_images(caltech_tree, run):
    images = caltech_tree / "caltech-101" / "101_ObjectCategories"
    (images / "dir2" / "train1.jpg").unlink()
    _truncate(images / "dir0" / "test0.jpg")
    result = run(check_data, "Caltech101", "--root", caltech_tree)
    assert result.returncode == 2
    assert "1 of 80" in result.stdout and f"{images}/dir2/train1.jpg" in result.stdout
    assert result.stdout.count("1 of 80") == 2 and f"{images}/dir0/test0.jpg (OSError" in result.stdout
    assert "test0.jpg" not in run(check_data, "Caltech101", "--root", caltech_tree, "--no-images").stdout


def test_check_data_counts_the_classes_that_a_run_would_have(caltech_tree, run):
    def counted(*pairs, choice):
        result = run(check_data, "caltech101", "--root", caltech_tree, "DATASET.SUBSAMPLE_CLASSES", choice, *pairs)
        assert result.returncode == 0, result.stderr
        return [name for name in (f"name_{number}" for number in range(5)) if name in result.stdout]

    listed = ("DATASET.BASE_CLASSES", "['name_4', 'name_1']")
    assert counted(choice="base") == ["name_0", "name_1", "name_2"]
    assert counted(*listed, choice="base") == ["name_1", "name_4"]
    assert counted(*listed, choice="new") == ["name_0", "name_2", "name_3"]
    assert len(counted(*listed, choice="all")) == 5


def test_check_data_says_that_shots_and_noise_have_no_effect(caltech_tree, run):
    keys = {"DATASET.NUM_SHOTS": "1", "DATASET.NOISE.TYPE": "sym", "DATASET.NOISE.RATE": "0.5"}
    plain, asked = (
        run(check_data, "caltech101", "--root", caltech_tree, "--no-images", *pairs)
        for pairs in ((), [word for pair in keys.items() for word in pair])
    )
    notes = [line for line in asked.stdout.splitlines() if line.startswith("NOTE") and all(key in line for key in keys)]
    assert asked.returncode == 0 and len(notes) == 1
    assert asked.stdout.replace(f"{notes[0]}\n", "") == plain.stdout


@pytest.mark.parametrize("choice", ["all", "base"])
@pytest.mark.parametrize(
    "base, new, named",
    [(["name_1", "nam_2"], [], "nam_2"), (["name_1", "name_2"], ["nam_3"], "nam_3"), ([], ["name_3"], "BASE_CLASSES")],
)
def test_check_data_refuses_lists_of_classes_that_a_run_refuses(base, new, named, choice, caltech_tree, run):
    pairs = "DATASET.SUBSAMPLE_CLASSES", choice, "DATASET.BASE_CLASSES", base, "DATASET.NEW_CLASSES", new
    result = run(check_data, "caltech101", "--root", caltech_tree, "--no-images", *map(str, pairs))
    assert result.returncode == 2 and named in result.stdout


def test_check_data_says_what_is_left_out(caltech_tree, run):
    path = caltech_tree / "caltech-101" / "101_ObjectCategories" / "dir0" / "test0.jpg"
    _truncate(path)
    result = run(check_data, "caltech101", "--root", caltech_tree, "DATASET.SKIP_BROKEN", "True")
    assert result.returncode == 0
    assert any("1 of 80" in line and str(path) in line for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("dtd",), "dtd/images"),
        (("pets",), "cifar100n"),
        (("OwnCSV", "DATASET.OWN.PATH", "table.csv"), "table.csv"),
        (("OwnCSV", "DATASET.OWN.PATHS", "x"), "DATASET.OWN.PATH?"),
        (("own_csv",), "DATASET.OWN.PATH "),
        (("OwnSplit",), "DATASET.OWN.PATH "),
        (("own.yaml",), "own.yaml"),
        (("caltech101", "--root", "absent"), "absent"),
    ],
)
def test_check_data_of_what_is_not_there(arguments, said, tmp_path, run):
    result = run(check_data, *arguments[:1], "--root", tmp_path, *arguments[1:])
    assert result.returncode == 2
    assert said in result.stdout + result.stderr


@pytest.mark.parametrize(
    "name, said", [("birds", "own_folder --root birds"), ("birds.csv", "own_csv"), ("birds.json", "own_split")]
)
def test_what_lies_in_the_folder_is_not_a_name_and_how_to_read_it_is_said(name, said, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds.csv").write_text("path,class\n")
    (tmp_path / "birds.json").write_text("{}")
    for command, plan in ((check_data, []), (run_plan, ["fewshot"])):
        result = run(command, *plan, name)
        assert result.returncode == 2 and said in result.stderr and (name == "birds" or str(tmp_path) in result.stderr)


@pytest.fixture
def server(tmp_path):
    """A folder, and the address under which it is served on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with served(partial(Quiet, directory=str(folder))) as address:
        yield folder, address


def _tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _image(write_images, tmp_path):
    write_images(tmp_path, ["image.png"])
    return (tmp_path / "image.png").read_bytes()


@pytest.fixture
def aircraft(server, write_images, tmp_path):
    """The address of a tiny FGVC-Aircraft archive in its true layout, and its members."""
    image = _image(write_images, tmp_path)
    lists = {
        "variants.txt": b"707\n747\n",
        **{f"images_variant_{s}.txt": f"1{n} 707\n2{n} 747\n".encode() for n, s in enumerate(("train", "val", "test"))},
    }
    members = {**lists, **{f"images/{c}{n}.jpg": image for c in (1, 2) for n in range(3)}}
    members = {f"fgvc-aircraft-2013b/data/{name}": content for name, content in members.items()}
    _tar(server[0] / "aircraft.tar.gz", members)
    return f"{server[1]}/aircraft.tar.gz", members


def test_download_into_the_family_s_layout(aircraft, tmp_path, run):
    root = tmp_path / "data"
    result = run(download, "fgvc_aircraft", "--root", root, "--url", aircraft[0])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "100%" in result.stderr  # the progress bar
    assert sorted(path.name for path in root.iterdir()) == ["fgvc_aircraft"]
    assert run(check_data, "fgvc_aircraft", "--root", root).returncode == 0
    again = run(download, "fgvc_aircraft", "--root", root, "--url", "http://127.0.0.1:9/absent.tar.gz")
    assert again.returncode == 0 and str(root) in again.stdout


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda path, members: path.write_bytes(path.read_bytes()[:-200]), "aircraft.tar.gz"),
        (lambda path, members: path.write_text("<html>moved</html>"), "aircraft.tar.gz"),
        (lambda path, members: path.unlink(), "aircraft.tar.gz"),
        (lambda path, members: _tar(path, {"fgvc-aircraft-2013b/x": b""}), "fgvc-aircraft-2013b/data"),
        (lambda path, members: _tar(path, {**members, "../../escaped.txt": b"x"}), "../../escaped.txt"),
        (
            lambda path, members: _tar(path, {**members, "/tmp/escaped-dspt-atlas.txt": b"x"}),
            "/tmp/escaped-dspt-atlas.txt",
        ),
    ],
)
def test_broken_and_malicious_archives_leave_nothing(damage, said, aircraft, server, tmp_path, run):
    damage(server[0] / "aircraft.tar.gz", aircraft[1])
    root = tmp_path / "data"
    result = run(download, "FGVCAircraft", "--root", root, "--url", aircraft[0])
    assert result.returncode == 2
    assert said in result.stderr
    assert not [path for path in root.rglob("*") if path.is_file()]
    assert not list(tmp_path.rglob("*escaped*")) and not Path("/tmp/escaped-dspt-atlas.txt").exists()


@pytest.mark.parametrize("target", ["/etc", "../../..", "../../other", "../..", "variants.txt"])
def test_a_download_with_a_link_leaves_nothing(target, aircraft, server, tmp_path, run):
    with tarfile.open(server[0] / "aircraft.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("fgvc-aircraft-2013b/data/images")
        link.type, link.linkname = tarfile.SYMTYPE, target
        archive.addfile(link)
    root = tmp_path / "data"
    result = run(download, "FGVCAircraft", "--root", root, "--url", aircraft[0])
    assert result.returncode == 2 and "fgvc-aircraft-2013b/data/images" in result.stderr
    assert not [path for path in root.rglob("*") if path.is_symlink() or path.is_file()]


def test_a_download_has_its_name_only_when_it_is_whole(server, tmp_path, monkeypatch, capsys):
    folder, address = server
    (folder / "x.tgz").write_bytes(b"content")
    target = tmp_path / "in"
    target.mkdir()
    (target / "x.tgz.part").write_bytes(b"left by a killed download")
    original, during = downloads.download_url, []

    def watched(*arguments):
        original(*arguments)
        during.append(sorted(path.name for path in target.iterdir()))

    monkeypatch.setattr(downloads, "download_url", watched)
    assert downloads.download(f"{address}/x.tgz", target, None).read_bytes() == b"content"
    assert during == [["x.tgz.part"]] and [path.name for path in target.iterdir()] == ["x.tgz"]
    assert hashlib.sha256(b"content").hexdigest() in capsys.readouterr().out


def test_an_archive_in_an_archive_and_the_split_file(server, caltech_tree, tmp_path, run):
    folder, address = server
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        archive.add(caltech_tree / "caltech-101" / "101_ObjectCategories", "101_ObjectCategories")
    with zipfile.ZipFile(folder / "caltech-101.zip", "w") as archive:
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", inner.getvalue())
    (folder / "split.json").write_bytes((caltech_tree / "caltech-101" / "split_zhou_Caltech101.json").read_bytes())
    root = tmp_path / "fresh"
    arguments = (download, "caltech101", "--root", root, "--url", f"{address}/caltech-101.zip")
    first = run(*arguments)
    assert first.returncode == 2  # without the split file
    assert "split_zhou_Caltech101.json" in first.stdout and "https://" in first.stdout
    second = run(*arguments, "--split-url", f"{address}/split.json")
    assert second.returncode == 0, second.stdout + second.stderr
    assert run(check_data, "caltech101", "--root", root).returncode == 0


def test_a_wrong_checksum_is_refused_and_the_file_removed(server, tmp_path):
    folder, address = server
    (folder / "x.tgz").write_bytes(b"content")
    digest = hashlib.md5(b"content").hexdigest()
    assert downloads.download(f"{address}/x.tgz", tmp_path / "in", digest).read_bytes() == b"content"
    with refused("x.tgz"):
        downloads.download(f"{address}/x.tgz", tmp_path / "in", "0" * 32)
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize("name, said", [("imagenet", "image-net.org"), ("ucf101", "split_zhou_UCF101.json")])
def test_what_cannot_be_downloaded_is_explained(name, said, tmp_path, run):
    result = run(download, name, "--root", tmp_path)
    assert result.returncode == 2
    assert said in result.stdout


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("imagenet", "--url", "http://127.0.0.1:9/x"), "ImageNet"),
        (("oxford_pets", "--url", "http://127.0.0.1:9/x"), "2 archives"),
        (("imagenet", "--split-url", "http://127.0.0.1:9/x"), "ImageNet"),
        (("dtd",), "--root"),
    ],
)
def test_impossible_requests_are_refused(arguments, said, tmp_path, run):
    root = () if arguments == ("dtd",) else ("--root", tmp_path)
    result = run(download, *arguments, *root)
    assert result.returncode == 2 and said in result.stderr


def test_without_a_network_the_split_file_of_caltech101_and_its_place_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(downloads.SPLIT_FILES, "Caltech101", ("http://127.0.0.1:9/split.json", "0" * 32))
    target = tmp_path / "caltech-101" / "split_zhou_Caltech101.json"
    with refused("http://127.0.0.1:9/split.json", target):
        downloads.fetch_split_file(Caltech101, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_was_fetched_elsewhere_is_taken_where_it_was_asked_for(tmp_path):
    digest = hashlib.md5(b"content").hexdigest()
    with refused("http://127.0.0.1:9/x.tgz", tmp_path / "in"):
        downloads.download("http://127.0.0.1:9/x.tgz", tmp_path / "in", digest)
    (tmp_path / "in" / "x.tgz").write_bytes(b"content")
    assert downloads.download("http://127.0.0.1:9/x.tgz", tmp_path / "in", digest) == tmp_path / "in" / "x.tgz"
