"""An unknown home folder: a sentence, status 2, nothing written; a cache from the environment is used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dspt_atlas.datasets import embedded
from dspt_atlas.errors import UserError
from dspt_atlas.paths import cache_dir, expand_home
from dspt_atlas.run.train import main as train_main
from dspt_atlas.tools import adopt, cache, check_data, evidence, sweep
from dspt_atlas.tools import download as download_data
from dspt_atlas.tools import run_plan as plan_command
from dspt_atlas.trainers.clip.checkpoints import checkpoint_path
from support.paths import OWN_FOLDER, ROOT

YAML = OWN_FOLDER


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """An empty working folder, no home folder, no cache folder."""
    for name in ("DSPT_ATLAS_CACHE", "XDG_CACHE_HOME", "DATA", "DSPT_ATLAS_CLIP_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRAIN = ["--trainer", "CoOp", "--output-dir", "out", "--backbone", "EmojiRN"]
COMMANDS = {
    "train, cache": (train_main, [*TRAIN, "--dataset-config-file", str(ROOT / "configs/datasets/emoji.yaml")]),
    "train, root": (train_main, [*TRAIN, "--root", "~/x", "--dataset-config-file", str(YAML), "DATASET.OWN.PATH", "a"]),
    "train, yaml": (train_main, [*TRAIN, "--dataset-config-file", "~/x.yaml"]),
    "train, backbone": (train_main, [*TRAIN[:-1], "~/x.pt", "--dataset-config-file", str(YAML)]),
    "cache list": (cache.main, ["list"]),
    "cache clear": (cache.main, ["--cache", "~/x", "clear", "--all"]),
    "check_data": (check_data.main, ["caltech101", "--root", "~/x"]),
    "download_data": (download_data.main, ["caltech101", "--root", "~/x"]),
    "protocol, output": (plan_command.main, ["noisy", "emoji", "none", "--output", "~/x"]),
    "protocol, root": (plan_command.main, ["noisy", "caltech101", "none", "--root", "~/x"]),
    "protocol, data set": (plan_command.main, ["noisy", "~/x.yaml", "none", "--root", "."]),
    "protocol, config": (plan_command.main, ["noisy", "emoji", "none", "--config", "~/x.yaml"]),
    "sweep, output": (sweep.main, ["dspt_noisy", "--output", "~/x"]),
    "sweep, root": (sweep.main, ["dspt_noisy", "--root", "~/x"]),
    "sweep, yaml": (sweep.main, ["~/x.yaml"]),
    "evidence": (evidence.main, ["--output", "~/x"]),
    "adopt": (adopt.main, ["~/x"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_path_below_an_unknown_home_folder_is_a_sentence(name, homeless, capsys):
    main, arguments = COMMANDS[name]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "HOME" in error
    assert list(homeless.iterdir()) == []


def test_weights_without_a_home_folder_are_a_sentence(homeless):
    with pytest.raises(UserError, match="HOME"):
        checkpoint_path("RN50")
    assert list(homeless.iterdir()) == []


def test_an_unknown_user_is_named(homeless, monkeypatch):
    with pytest.raises(UserError, match="nobody-of-this-name"):
        expand_home("~nobody-of-this-name/data")
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home("~/data") == Path("/home/me/data") and expand_home("a/~b") == Path("a/~b")


def test_a_cache_folder_named_in_full_needs_no_home(homeless, monkeypatch):
    with pytest.raises(UserError):
        cache_dir()
    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(homeless / "cache"))
    assert Path(embedded.unpack(embedded.DATA / "emoji_flat.zip")).is_relative_to(homeless / "cache")


@pytest.mark.slow
def test_a_user_without_an_account_and_home_gets_a_sentence_or_a_run(tmp_path):
    """As in a container that is started under any number."""
    as_nobody = ["unshare", "--user", "--map-user=54321"]
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "OMP_NUM_THREADS")}

    def run(*arguments, **variables):
        command = [*as_nobody, sys.executable, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment | variables, capture_output=True, text=True, check=False
        )

    if not shutil.which("unshare") or run("-c", "import os, sys; sys.exit(os.getuid() != 54321)").returncode:
        pytest.skip("this machine lets no process take a user number without an account")
    listed = run("-m", "dspt_atlas", "cache", "list")
    assert listed.returncode == 2 and listed.stderr.count("\n") == 1, listed.stderr
    arguments = ["--no-train", *COMMANDS["train, cache"][1]]
    built = run("-m", "dspt_atlas", "train", *arguments, DSPT_ATLAS_CACHE=str(tmp_path / "cache"))
    assert built.returncode == 0 and (tmp_path / "cache" / "embedded").is_dir(), built.stderr
