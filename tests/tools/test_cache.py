"""`dspt-atlas cache` as a user runs it."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import xxhash
from torchvision import transforms as T

from dspt_atlas.tools.cache import main
from dspt_atlas.trainers.clip.model import load_clip
from dspt_atlas.trainers.features.cached import frozen_features
from dspt_atlas.trainers.features.entry import entry_key
from dspt_atlas.trainers.features.store import FeatureStore


@pytest.fixture
def cache(tmp_path, tiny_dataset, tiny_clip_path):
    """A cache with training views and test features; the entries' keys as attributes."""
    return fill(tmp_path / "cache", tiny_dataset, tiny_clip_path)


def fill(folder, data, clip_path, backbone=None, transform=None):
    model = load_clip(clip_path)
    keys = []
    for views in (3, 0):
        items = [SimpleNamespace(impath=str(p), label=0, domain=0) for p in sorted(data.rglob("test/*/*.png"))]
        transform = transform or T.Compose([T.RandomResizedCrop(32), T.ToTensor(), T.Normalize((0.5,) * 3, (0.2,) * 3)])
        frozen_features(model, items, transform, cache_dir=folder, max_bytes=2**30, views=views, seed=4,
                        backbone=clip_path if backbone is None else backbone)  # fmt: skip
        keys += [entry.key for entry in FeatureStore(folder).entries() if entry.key not in keys]
    return SimpleNamespace(folder=folder, views=keys[0], test=keys[1], path=lambda key: folder / "features" / key)


def keys_left(cache):
    return {entry.key for entry in FeatureStore(cache.folder).entries()}


def test_list_shows_every_entry(cache, tiny_clip_path, capsys):
    (cache.path(cache.views)).rename(cache.path(cache.views + ".part"))
    assert main(["--cache", str(cache.folder), "list"]) == 0
    out = capsys.readouterr().out
    assert all(fact in out for fact in (tiny_clip_path, "16 images", "3 views", "seed 4"))
    assert out.count("16 images") == 2 and "unfinished" in out and "2 entries" in out
    assert main(["--cache", str(cache.folder / "none"), "list"]) == 0
    assert str(cache.folder / "none") in capsys.readouterr().out


def test_check_recomputes_samples(cache, capsys):
    assert main(["--cache", str(cache.folder), "check"]) == 0
    out = capsys.readouterr().out
    assert out.count("4 recomputed") == 2 and "WRONG" not in out


def test_check_finds_bytes_that_changed(cache, capsys):
    data = bytearray((cache.path(cache.test) / "features.npy").read_bytes())
    data[-1] ^= 1
    (cache.path(cache.test) / "features.npy").write_bytes(data)
    assert main(["--cache", str(cache.folder), "check", cache.views]) == 0
    assert main(["--cache", str(cache.folder), "check"]) == 1
    out = capsys.readouterr().out
    assert cache.test[:12] in out and "WRONG: " in out and "features.npy" in out and "1 of 2" in out


def test_check_finds_features_that_never_were_right(cache, capsys):
    path = cache.path(cache.views)
    array = np.load(path / "features.npy")[:, :, ::-1].copy()
    np.save(path / "features.npy", array)
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(meta | {"xxh3_128": xxhash.xxh3_128_hexdigest(array)}))
    assert main(["--cache", str(cache.folder), "check"]) == 1
    assert "WRONG: 4 recomputed" in capsys.readouterr().out


def test_check_says_why_it_could_not_recompute(tmp_path, tiny_dataset, tiny_clip_path, tiny_resnet_clip_path, capsys):
    shutil.copytree(tiny_dataset, tmp_path / "data")
    cache = fill(tmp_path / "cache", tmp_path / "data", tiny_clip_path, backbone="")
    command = ["--cache", str(cache.folder), "check", cache.test[:8]]

    def reason(*options):
        assert main([*command, *options]) == 0
        return capsys.readouterr().out

    assert "--backbone" in reason()
    assert tiny_resnet_clip_path in reason("--backbone", tiny_resnet_clip_path)
    assert "recomputed" in reason("--backbone", tiny_clip_path)
    assert "'RN5'" in reason("--backbone", "RN5")
    first = min((tmp_path / "data").rglob("test/*/*.png"))
    os.utime(first)
    assert str(first) in reason("--backbone", tiny_clip_path)
    first.unlink()
    assert str(first) in reason("--backbone", tiny_clip_path)


def test_clear_removes_what_is_asked_for(cache, capsys):
    os.utime(cache.path(cache.test) / "used", (0, 0))
    command = ["--cache", str(cache.folder), "clear"]
    assert main([*command, "--older-than", "2"]) == 0
    assert keys_left(cache) == {cache.views}
    assert main([*command, "--older-than", "2"]) == 0
    assert "0 entries" in capsys.readouterr().out
    assert main([*command, cache.views[:6]]) == 0
    assert keys_left(cache) == set()


def test_clear_keeps_what_is_in_use(cache, capsys):
    array = FeatureStore(cache.folder).entries()[0].open()
    assert main(["--cache", str(cache.folder), "clear", "--all"]) == 1
    assert "in use" in capsys.readouterr().out
    assert len(keys_left(cache)) == 1
    del array
    assert main(["--cache", str(cache.folder), "clear", "--all"]) == 0
    assert keys_left(cache) == set()


def test_foreign_files_stop_no_command_and_stay(cache, capsys):
    foreign = [cache.path(cache.views) / "users" / "notes", cache.path(cache.test) / "users" / ".nfs-1-2"]
    foreign += [cache.path(cache.views) / "notes.txt", cache.folder / "features" / "notes.txt"]
    for path in foreign:
        path.write_text("mine")
    for command in (["list"], ["check"], ["clear", "--all"], ["list"]):
        assert main(["--cache", str(cache.folder), *command]) == 0
    assert keys_left(cache) == set()
    assert all(path.read_text() == "mine" for path in foreign)


@pytest.mark.parametrize("content", ["[]", "[1, 2]", "{}", "[[1, 2, 3]]", "", '[["a", "1:2:3"]]'])
def test_check_finds_a_damaged_list_of_images(cache, capsys, content):
    (cache.path(cache.test) / "images.json").write_text(content)
    assert main(["--cache", str(cache.folder), "check"]) == 1
    assert "images.json" in capsys.readouterr().out


def test_what_another_version_wrote_is_not_wrong_and_can_be_cleared(tmp_path, capsys):
    inputs = {"format": 1, "name": "old"}
    folder = tmp_path / "features" / entry_key(inputs)
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"inputs": inputs, "shape": [1, 2, 3], "crc32": 0}))
    (folder / ".progress.json.abcd_123").touch()  # of a process that was killed
    for command in (["list"], ["check"], ["clear", "--all"]):
        assert main(["--cache", str(tmp_path), *command]) == 0
    assert not folder.exists()


@pytest.mark.parametrize("options", [["clear"], ["clear", "--all", "abc"], ["clear", "xyz"], ["check", "xyz"],
                                     ["check", "--samples", "-1"]])  # fmt: skip
def test_mistakes_are_sentences_and_remove_nothing(cache, capsys, options):
    assert main(["--cache", str(cache.folder), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(keys_left(cache)) == 2


@pytest.mark.slow
def test_as_a_process(cache):
    def run(*arguments):
        environment = os.environ | {"DSPT_ATLAS_CACHE": str(cache.folder)}
        command = [sys.executable, "-m", "dspt_atlas", "cache", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    shown = run("list")
    assert shown.returncode == 0 and cache.views[:12] in shown.stdout
    wrong = run("clear", "nothing")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert len(keys_left(cache)) == 2
