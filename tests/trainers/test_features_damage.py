"""A feature cache that was damaged, changed or filled with foreign files: the same numbers as with an empty one."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.model import load_clip
from dspt_atlas.trainers.features.cached import frozen_features
from dspt_atlas.trainers.features.entry import FORMAT, Unusable, entry_key
from dspt_atlas.trainers.features.store import FeatureStore

ROWS, WIDTH = 700, 8  # several pages
MARKED = f"{socket.gethostname()}-{{}}-0123abcd"


def array_of(name="a"):
    return np.random.default_rng(len(name)).random((2, ROWS, WIDTH), dtype=np.float32)


def get(folder, name="a", encode=None):
    def usual(first_view):
        yield from array_of(name)[first_view:]

    return FeatureStore(folder).get(
        {"format": FORMAT, "name": name}, (2, ROWS, WIDTH), encode or usual, max_bytes=2**30
    )


def entry_of(folder, name="a"):
    (found,) = [
        entry for entry in FeatureStore(folder).entries() if entry.key == entry_key({"format": FORMAT, "name": name})
    ]
    return found


@pytest.fixture
def ended():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def change(path, edit):
    """Edit a file's bytes as a failing disk does: size and both times of the content stay."""
    state, data = path.stat(), bytearray(path.read_bytes())
    edit(data)
    with open(path, "r+b") as file:
        file.write(data)
        file.truncate(len(data))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def flip_one_bit(data):
    data[5000] ^= 1


def flip_the_last_bit(data):
    data[-1] ^= 128


def zero_a_page(data):
    data[4096:8192] = bytes(4096)


def swap_two_rows(data):
    first, second = slice(128, 128 + 4 * WIDTH), slice(128 + 40 * WIDTH, 128 + 44 * WIDTH)
    data[first], data[second] = data[second], data[first]


def swap_two_views(data):
    half = 4 * ROWS * WIDTH
    data[128:] = data[128 + half :] + data[128 : 128 + half]


def cut_the_end(data):
    del data[-4:]


def cut_all(data):
    del data[:]


def add_to_the_end(data):
    data += bytes(4 * WIDTH)


def change_the_header(data):
    data[10:128] = data[10:128].replace(b"False", b"True ")


def damage_the_header(data):
    data[10:40] = b"[" * 30


ARRAY_DAMAGES = [flip_one_bit, flip_the_last_bit, zero_a_page, swap_two_rows, swap_two_views, cut_the_end, cut_all,
                 add_to_the_end, change_the_header, damage_the_header]  # fmt: skip


@pytest.mark.parametrize("damage", ARRAY_DAMAGES)
def test_a_damaged_array_is_made_anew_with_one_line(damage, tmp_path, capsys):
    get(tmp_path)
    change(entry_of(tmp_path).array_path, damage)
    capsys.readouterr()
    np.testing.assert_array_equal(get(tmp_path), array_of())
    assert len([line for line in capsys.readouterr().out.splitlines() if str(entry_of(tmp_path).path) in line]) == 1
    entry_of(tmp_path).check()
    np.testing.assert_array_equal(get(tmp_path), array_of())
    assert "Encoding" not in capsys.readouterr().out


def other_meta(entry, other):
    shutil.copy(other.path / "meta.json", entry.path)


def other_array(entry, other):
    shutil.copy(other.array_path, entry.path)


def other_entry(entry, other):
    shutil.copytree(other.path, entry.path, dirs_exist_ok=True)


def edit_meta(**changes):
    def edit(entry, other):
        (entry.path / "meta.json").write_text(json.dumps(entry.meta | changes))

    return edit


def write_meta(text):
    def edit(entry, other):
        (entry.path / "meta.json").write_text(text)

    return edit


META_DAMAGES = {
    "meta.json of another entry": other_meta,
    "features.npy of another entry": other_array,
    "all of another entry": other_entry,
    "another shape": edit_meta(shape=[2, WIDTH, ROWS]),
    "a shape of text": edit_meta(shape="2, 3"),
    "a negative shape": edit_meta(shape=[-1, ROWS, WIDTH]),
    "an enormous shape": edit_meta(shape=[2, 10**30, WIDTH]),
    "no shape": edit_meta(shape=None),
    "another checksum": edit_meta(xxh3_128="1" * 32),
    "a checksum of text": edit_meta(xxh3_128=1),
    "inputs of text": edit_meta(inputs="a"),
    "inputs as a list": edit_meta(inputs=[]),
    "another format": edit_meta(inputs={"format": FORMAT + 1, "name": "a"}),
    "empty": write_meta(""),
    "a list": write_meta("[]"),
    "not a number": write_meta("NaN"),
    "deep nesting": write_meta("[" * 100_000),
    "bytes that are no text": lambda entry, other: (entry.path / "meta.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("what", META_DAMAGES)
def test_an_entry_that_describes_something_else_is_made_anew(what, tmp_path):
    get(tmp_path, "a")
    get(tmp_path, "other")
    META_DAMAGES[what](entry_of(tmp_path), entry_of(tmp_path, "other"))
    np.testing.assert_array_equal(get(tmp_path), array_of())
    np.testing.assert_array_equal(get(tmp_path, "other"), array_of("other"))


def test_an_array_is_read_again_only_where_its_file_changed(tmp_path):
    """What is held is verified: a file that is damaged afterwards is noticed by who opens it next."""
    first = get(tmp_path)
    change(entry_of(tmp_path).array_path, cut_the_end)
    np.testing.assert_array_equal(get(tmp_path), array_of())
    with pytest.raises(Unusable):
        change(entry_of(tmp_path).array_path, flip_one_bit)
        entry_of(tmp_path).open()
    del first
    assert not entry_of(tmp_path).in_use()


def test_what_is_read_back_wrong_is_refused(tmp_path):
    """A disk that takes the bytes and gives others back."""

    def sabotaged(first_view):
        yield array_of()[0]
        part = next((tmp_path / "features").glob("*.part")) / "features.npy"
        with open(part, "r+b") as file:
            file.seek(1000)
            file.write(b"damage")
        yield array_of()[1]

    with pytest.raises(UserError, match="features"):
        get(tmp_path, encode=sabotaged)


def zero_the_last_rows(data):
    data[-512:] = bytes(512)


CACHED = ("INPUT.CACHE", "features", "INPUT.VIEWS", 2)


@pytest.mark.parametrize("damage", [flip_the_last_bit, zero_the_last_rows, cut_the_end])
def test_a_run_with_a_damaged_cache_has_the_numbers_of_a_run_with_an_empty_one(
    damage, tiny_run, tiny_clip_path, tmp_path, monkeypatch
):
    def trained(name):
        trainer = tiny_run("CoOp", tiny_clip_path, tmp_path / name, *CACHED)
        trainer.train()
        losses = [epoch["train_loss"] for epoch in trainer.report["history"]]
        return losses, trainer.results, trainer.model.prompt_learner.state_dict()

    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(tmp_path / "cache"))
    expected = trained("cold")
    entries = FeatureStore(tmp_path / "cache").entries()
    assert len(entries) >= 2
    for entry in entries:
        change(entry.array_path, damage)
    found = trained("damaged")
    assert found[:2] == expected[:2]
    assert all(torch.equal(value, found[2][name]) for name, value in expected[2].items())


# Images


@pytest.fixture
def image(tmp_path):
    """An item, of which nothing is compressed: another content has the same size."""
    path = tmp_path / "images" / "0.bmp"
    path.parent.mkdir()
    Image.new("RGB", (32, 32), (10, 20, 30)).save(path)
    return SimpleNamespace(impath=str(path), label=0, domain=0)


def replace_unseen(path):
    """Change the content; size and time of change stay."""
    state = path.stat()
    while path.stat().st_ctime_ns == state.st_ctime_ns:
        Image.new("RGB", (32, 32), (200, 100, 0)).save(path)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)


def features_of(clip_path, item, folder, **options):
    transform = T.Compose([T.ToTensor(), T.Normalize((0.5,) * 3, (0.2,) * 3)])
    return frozen_features(load_clip(clip_path), [item], transform, cache_dir=folder, max_bytes=2**30, **options)


def test_an_image_that_changed_under_the_same_size_and_time_is_encoded_anew(image, tiny_clip_path, tmp_path):
    before = np.array(features_of(tiny_clip_path, image, tmp_path / "cache"))
    replace_unseen(Path(image.impath))
    after = features_of(tiny_clip_path, image, tmp_path / "cache")
    assert not np.array_equal(after, before)
    np.testing.assert_array_equal(after, features_of(tiny_clip_path, image, tmp_path / "empty"))


@pytest.mark.parametrize("content_hash", [False, True])
def test_an_image_that_changes_while_it_is_encoded_leaves_no_features(image, tiny_clip_path, tmp_path, content_hash):
    class ChangesIt(torch.nn.Module):
        def forward(self, tensor):
            replace_unseen(Path(image.impath))
            return tensor

    model = load_clip(tiny_clip_path)
    model.visual.ln_post = torch.nn.Sequential(model.visual.ln_post, ChangesIt())
    transform = T.ToTensor()
    with pytest.raises(UserError):
        frozen_features(model, [image], transform, cache_dir=tmp_path / "c", max_bytes=2**30, content_hash=content_hash)
    assert FeatureStore(tmp_path / "c").entries() == []


# Foreign files, and what killed processes left


def test_foreign_files_stay_and_stop_nothing(tmp_path, ended):
    get(tmp_path)
    entry = entry_of(tmp_path)
    foreign = [
        entry.path / "users" / name for name in ("notes", ".nfs0001", "a-b-c", "host-notanumber-0123abcd", "x-1-y")
    ]
    foreign += [entry.path / "README", entry.path / ".meta.json", tmp_path / "features" / "README"]
    foreign += [tmp_path / "features" / "f" / "kept.txt", tmp_path / "features" / ("0" * 64) / "kept.txt"]
    foreign += [
        tmp_path / "features" / "trash-notes" / "kept.txt",
        tmp_path / "features" / "1" / "2",
        tmp_path / "kept",
    ]
    (tmp_path / "features" / ("2" * 64)).write_text("a file named as an entry")
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    store = FeatureStore(tmp_path)
    assert [found.key for found in store.entries()] == [entry.key] and not entry.in_use()
    np.testing.assert_array_equal(get(tmp_path), array_of())
    change(entry.array_path, flip_one_bit)
    np.testing.assert_array_equal(get(tmp_path), array_of())  # made anew around them
    assert store.remove(entry_of(tmp_path)) and store.entries() == []
    np.testing.assert_array_equal(get(tmp_path), array_of())
    assert all(path.read_text() == path.name for path in foreign)
    assert (tmp_path / "features" / ("2" * 64)).exists()


def test_marks_and_temporary_files_of_killed_processes_are_cleared(tmp_path, ended):
    get(tmp_path)
    entry = entry_of(tmp_path)
    (entry.path / "users" / MARKED.format(ended)).touch()
    (entry.path / "users" / MARKED.format(10**10 - 1)).touch()  # no process has such a number
    held = get(tmp_path)
    assert [path.name.split("-")[-2] for path in (entry.path / "users").iterdir()] == [str(os.getpid())]
    del held
    for name in (".progress.json.ab12_xyz", ".meta.json.0123abcd"):
        (entry.path / name).touch()
    assert FeatureStore(tmp_path).remove(entry)
    assert not entry.path.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from dspt_atlas.trainers.features.store import FeatureStore
from dspt_atlas import paths
import numpy as np
def encode(first_view):
    yield np.ones((4, 3), np.float32)
    real = os.replace
    os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL) if "progress" in str(names[1]) else real(*names)
    yield np.ones((4, 3), np.float32)
FeatureStore(sys.argv[1]).get({"format": int(sys.argv[2]), "name": "k"}, (2, 4, 3), encode, max_bytes=2**30)
"""


@pytest.mark.slow
def test_a_finished_entry_has_nothing_that_a_killed_process_left(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(FORMAT)], check=False)
    assert done.returncode == -9
    (part,) = (tmp_path / "features").glob("*.part")
    assert len(list(part.glob(".progress.json.*"))) == 1

    def rest(first_view):
        assert first_view == 1
        yield np.ones((4, 3), np.float32)

    FeatureStore(tmp_path).get({"format": FORMAT, "name": "k"}, (2, 4, 3), rest, max_bytes=2**30)
    assert not part.exists()
    entry = entry_of(tmp_path, "k")
    assert sorted(path.name for path in entry.path.iterdir()) == [
        "features.npy",
        "images.json",
        "meta.json",
        "used",
        "users",
    ]
