"""The scripts that made the embedded benchmark, on a few drawings in the packages' layout."""

import json
import subprocess
import sys
import zipfile

import pytest
import torch

from support.paths import SCRIPTS

EMBEDDED = SCRIPTS / "embedded"
SHAPES = {
    "red circle": '<circle cx="8" cy="8" r="6" fill="red"/>',
    "blue box": '<rect x="2" y="2" width="12" height="12" fill="blue"/>',
    "green bar": '<rect x="1" y="6" width="14" height="4" fill="green"/>',
    "ink drop": '<path d="M8 1 L14 14 L2 14 Z" fill="currentColor"/>',
}
STYLES = ("noto", "twemoji", "streamline-emojis", "fxemoji", "emojione-monotone", "emojione", "fluent-emoji-flat")


@pytest.fixture
def packages(tmp_path):
    """A node_modules folder with four emoji in seven styles; one style knows them by name only."""
    npm = tmp_path / "node_modules"
    names = {f"1F{number}": label for number, label in enumerate(SHAPES, 400)}
    emoji = [
        {"hexcode": code, "label": label, "tags": [label.split()[1]], "group": 3, "subgroup": 34}
        for code, label in names.items()
    ]
    write_json(npm / "emojibase-data/en/data.json", emoji)
    write_json(npm / "emojibase-data/meta/groups.json", {"subgroups": {"34": "animal-mammal"}})
    (npm / "emojibase-data/en/shortcodes").mkdir()
    for style in STYLES:
        icons = {label.replace(" ", "-"): {"body": SHAPES[label]} for label in SHAPES}
        write_json(npm / "@iconify-json" / style / "icons.json", {"icons": icons, "width": 16, "height": 16})
        codes = {code.lower(): label.replace(" ", "-") for code, label in names.items()} if style != "fxemoji" else {}
        write_json(npm / "@iconify-json" / style / "chars.json", codes)
    return npm


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def pretrain(packages, out, *arguments):
    command = [sys.executable, str(EMBEDDED / "pretrain.py"), "--npm", str(packages), "--out", str(out), "--batch", "4"]
    command += ["--random-vectors", "--evaluate-every", "4", "--checkpoint-every", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return torch.load(out / "checkpoint.pt", weights_only=True)


@pytest.mark.slow
def test_pretraining_goes_on_where_it_stopped_and_its_checkpoint_ships(packages, tmp_path):
    whole = pretrain(packages, tmp_path / "whole", "--steps", "4")
    pretrain(packages, tmp_path / "parts", "--steps", "4", "--stop-at", "2")
    parts = pretrain(packages, tmp_path / "parts", "--steps", "4")
    assert parts["step"] == 4
    for name, value in whole["model"].items():
        assert torch.equal(value, parts["model"][name]), name

    shipped = tmp_path / "tiny.pt"
    command = [sys.executable, str(EMBEDDED / "package_backbone.py"), str(tmp_path / "whole/model.pt"), str(shipped)]
    subprocess.run(command, check=True, capture_output=True)
    from dspt_atlas.trainers.clip.model import load_clip

    loaded = load_clip(str(shipped)).state_dict()
    for name, value in torch.load(tmp_path / "whole/model.pt", weights_only=True).items():
        assert torch.allclose(loaded[name], value, atol=1e-3, rtol=1e-3), name


@pytest.mark.slow
def test_a_benchmark_is_built_the_same_twice(packages, tmp_path):
    program = f"""
import sys; sys.path.insert(0, {str(EMBEDDED)!r})
from pathlib import Path
import build_images as build
styles = ("emojione", "fluent-emoji-flat")
build.BENCHMARKS = (build.Benchmark("tiny", {list(SHAPES)!r}, styles, {{"train": 2, "test": 1}}),)
build.main()
"""
    for out in ("one", "two"):
        command = [sys.executable, "-c", program, "--npm", str(packages), "--out", str(tmp_path / out)]
        subprocess.run(command, check=True, capture_output=True)
    archives = [tmp_path / out / "tiny.zip" for out in ("one", "two")]
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with zipfile.ZipFile(archives[0]) as archive:
        split = json.loads(archive.read("split.json"))
        assert {part: len(items) for part, items in split.items()} == {"train": 8, "val": 0, "test": 4}
        assert all(f"images/{name}" in archive.namelist() for items in split.values() for name, _, _ in items)
