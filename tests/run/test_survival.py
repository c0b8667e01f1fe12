"""A run survives kill -9, a full disk, folders that are read-only or removed, second starts, signals, broken losses."""

import gc
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from filelock import FileLock

from dspt_atlas.commands import guarded
from dspt_atlas.run.train import main as train_main
from dspt_atlas.trainers.trainer import PromptTrainer
from support.interruptions import at_epoch, stop
from support.paths import ROOT, SUPPORT
from support.refusals import assert_names
from support.runs import result_of

EPOCHS = 3
KILLS = 20
DEAD = 2**22 + 1  # above the largest process number of Linux


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a function arguments -> what `outcome` says of an uninterrupted run, done once."""
    found = {}

    def run(arguments):
        if not found:
            folder = tmp_path_factory.mktemp("uninterrupted") / "run"
            assert train_main(arguments(folder)) == 0
            found.update(outcome(folder))
        return found

    return run


def _without_times(value):
    if isinstance(value, dict):
        gone = ("seconds", "peak_memory_bytes", "OUTPUT_DIR", "commit")
        return {key: _without_times(item) for key, item in value.items() if key not in gone}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _numbers(log):
    """Return {what is reported: numbers} of a log; raises ValueError if one thing is reported differently twice."""
    lines = re.sub(r" (time|data|eta) \S+( \(\S+\))?", "", log).splitlines()
    lines = [line for line in lines if re.match(r"epoch \[|\* [a-z_ 0-9]+:", line)]
    found = {}
    for line in lines:
        if any(other != line and other.startswith(line) for other in lines):  # a full disk cut it
            continue
        match = re.match(r"(epoch \[\S+\](?: batch \[\S+\])?|\* [a-z_ 0-9]+:)(.*)", line)
        if found.setdefault(match[1] + match[2].split()[0], match[2]) != match[2]:
            raise ValueError(line)
    return found


def outcome(folder):
    """Return all that has to be the same whether a run was interrupted or not."""
    prompts = torch.load(folder / "prompt_learner" / f"model.pth.tar-{EPOCHS}", weights_only=True)
    return {
        "result": _without_times(result_of(folder)),
        "prompts": {name: value.tolist() for name, value in prompts["state_dict"].items()},
        "momentum": str(prompts["optimizer"]),
        "log": _numbers((folder / "log.txt").read_text()),
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")
                        if path.parent.name != "tensorboard" and path.name not in (".lock", ".holder.json")),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_any_moment(arguments, tmp_path):
    driver = SUPPORT / "survival_driver.py"
    command = [sys.executable, str(driver), str(tmp_path), str(KILLS), *arguments("FOLDER")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["killed"] == KILLS and "Traceback" not in done.stderr
    expected = outcome(tmp_path / "whole")
    assert len(expected["log"]) > 12 and expected["prompts"]
    chains = sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "whole")
    assert {"half_1", "half_2", "half_3", "killed_0"} <= set(chains)
    for chain in chains:
        assert outcome(tmp_path / chain) == expected, chain


@pytest.mark.slow
def test_kill_9_of_train_py_with_workers(arguments, tmp_path):
    """The workers outlive the process for some seconds, and with them its lock."""
    folder = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), *arguments(folder, "DATALOADER.NUM_WORKERS", "1")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        while not (folder / "prompt_learner" / "checkpoint").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert outcome(folder)["log"]


@pytest.mark.parametrize("content", [b"", b"PK\3\4 half", None], ids=["empty", "foreign", "half"])
def test_a_damaged_checkpoint_is_not_read_but_the_one_before(content, arguments, whole, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    with at_epoch(monkeypatch, 3, stop):
        assert train_main(arguments(folder)) == 143
    newest = folder / "prompt_learner" / "model.pth.tar-2"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2] if content is None else content)
    capsys.readouterr()
    assert train_main(arguments(folder)) == 0
    out = capsys.readouterr().out
    assert "model.pth.tar-2" in out and "Previous epoch: 1" in out
    assert outcome(folder) == whole(arguments)


def test_half_a_line_and_temporary_files_of_a_killed_run(arguments, whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with at_epoch(monkeypatch, 2, stop):
        train_main(arguments(folder))
    with open(folder / "log.txt", "a") as file:
        file.write("epoch [2/3] batch [1/3] loss 1")
    host = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    for name in (".result.json", ".config.yaml", "prompt_learner/.model.pth.tar-2"):
        (folder / f"{name}.dspt-atlas-{DEAD}-{host}-0123abcd.tmp").write_text("half")
    assert train_main(arguments(folder)) == 0
    assert "loss 1\n****" in (folder / "log.txt").read_text()
    text = (folder / "log.txt").read_text().replace("epoch [2/3] batch [1/3] loss 1\n", "")
    (folder / "log.txt").write_text(text)
    assert outcome(folder) == whole(arguments)


@contextmanager
def small_disk(folder):
    """Mount a file system of 300 KB at a folder; skip where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(path):
    with open(path, "wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def _last_epoch(folder):
    return max(int(path.name.rpartition("-")[2]) for path in (folder / "prompt_learner").glob("model.pth.tar-*"))


def test_a_full_disk(arguments, whole, tmp_path, monkeypatch, capsys):
    disk = tmp_path / "disk"
    with small_disk(disk):
        folder = disk / "run"
        with at_epoch(monkeypatch, 3, lambda: _fill(disk / "filler")):
            assert train_main(arguments(folder)) == 1
        error = capsys.readouterr().err
        assert "No space left on device" in error and error.count("\n") == 1 and "train" in error
        assert _last_epoch(folder) == 2 and not list(folder.rglob("*.tmp*"))
        (disk / "filler").unlink()
        assert train_main(arguments(folder)) == 0
        assert outcome(folder) == whole(arguments)


def test_a_disk_that_is_full_when_it_syncs(arguments, whole, tmp_path, monkeypatch, capsys):
    folder, fsync = tmp_path / "run", os.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with at_epoch(monkeypatch, 3, lambda: setattr(os, "fsync", full)):
        try:
            assert train_main(arguments(folder)) == 1
        finally:
            os.fsync = fsync
    error = capsys.readouterr().err
    assert "No space left on device" in error and error.count("\n") == 1
    assert _last_epoch(folder) == 2 and not list(folder.rglob("*.tmp*"))
    assert train_main(arguments(folder)) == 0
    assert outcome(folder) == whole(arguments)


@contextmanager
def read_only(folder):
    """Let nothing be written below a folder; skip where that cannot be had."""
    if os.geteuid():
        paths = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for path in paths:
            path.chmod(0o555)
        yield
        for path in paths:
            path.chmod(0o755)
        return
    bind = [["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,ro,bind", str(folder)]]
    if shutil.which("mount") is None or subprocess.run(bind[0], capture_output=True, check=False).returncode:
        pytest.skip("permissions do not bind root, and file systems cannot be mounted here")
    try:
        subprocess.run(bind[1], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_folder(arguments, whole, tmp_path, monkeypatch, capsys):
    (tmp_path / "output").mkdir()
    with read_only(tmp_path / "output"):
        assert train_main(arguments(tmp_path / "output" / "new")) == 1
    folder = tmp_path / "output" / "run"
    with at_epoch(monkeypatch, 2, stop):
        train_main(arguments(folder))
    capsys.readouterr()
    with read_only(folder):
        assert train_main(arguments(folder)) == 1
        error = capsys.readouterr().err
        assert re.search("Read-only file system|Permission denied", error) and error.count("\n") == 1
        assert str(folder) in error
    assert train_main(arguments(folder)) == 0
    assert outcome(folder) == whole(arguments)
    with read_only(folder):  # what is finished can be read
        assert train_main(arguments(folder)) == 0


def test_a_folder_removed_under_a_run(arguments, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    with at_epoch(monkeypatch, 2, lambda: shutil.rmtree(folder)):
        assert train_main(arguments(folder)) == 1
    error = capsys.readouterr().err
    assert str(folder) in error and error.count("\n") == 1
    assert not folder.exists()


def test_a_folder_removed_under_a_run_and_made_anew_is_left_alone(arguments, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def replace():
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "config.yaml").write_text("another's")

    with at_epoch(monkeypatch, 2, replace):
        assert train_main(arguments(folder)) == 1
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    assert (folder / "config.yaml").read_text() == "another's"


def test_the_second_start_is_refused_with_process_and_host(arguments, tmp_path, monkeypatch, capsys):
    folder, statuses = tmp_path / "run", []
    second = [sys.executable, "-c", "import sys; from dspt_atlas.run.train import main; sys.exit(main(sys.argv[1:]))"]

    def start_again():
        statuses.append(subprocess.run([*second, *arguments(folder)], capture_output=True, text=True, check=False))

    with at_epoch(monkeypatch, 2, start_again):
        assert train_main(arguments(folder)) == 0
    (done,) = statuses
    assert done.returncode == os.EX_TEMPFAIL and done.stderr.count("\n") == 1
    assert f"process {os.getpid()} on {platform.node()}" in done.stderr


@pytest.mark.parametrize("host", [platform.node(), "another-machine"])
def test_the_lock_of_the_dead_does_not_block(host, arguments, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / ".holder.json").write_text(json.dumps({"pid": DEAD, "host": host}))
    assert train_main(arguments(folder)) == 0
    assert not (folder / ".holder.json").exists()


def test_workers_that_outlive_a_killed_process_are_waited_for(arguments, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    workers = FileLock(folder / ".lock", thread_local=False)
    workers.acquire()
    (folder / ".holder.json").write_text(json.dumps({"pid": DEAD, "host": "another-machine"}))
    assert train_main(arguments(folder)) == os.EX_TEMPFAIL  # whether that one lives cannot be known
    assert f"process {DEAD} on another-machine" in capsys.readouterr().err
    (folder / ".holder.json").write_text(json.dumps({"pid": DEAD, "host": platform.node()}))
    timer = threading.Timer(0.5, workers.release)
    timer.start()
    assert train_main(arguments(folder)) == 0
    timer.join()


def test_a_loss_that_is_not_finite_names_its_batch(arguments, whole, tmp_path, monkeypatch, capsys):
    folder, original = tmp_path / "run", PromptTrainer.criterion
    broken = {}

    def criterion(self, logits, batch):
        value = original(self, logits, batch)
        if (self.epoch, self.batch_idx) != (1, 1):
            return value
        broken.update(images=batch["impath"], rate=self.get_current_lr())
        return value * float("nan")

    with monkeypatch.context() as patch:
        patch.setattr(PromptTrainer, "criterion", criterion)
        assert train_main(arguments(folder)) == 2
    error = capsys.readouterr().err
    assert_names(error, "loss", "nan", "epoch 2", "batch 2", f"{broken['rate']:g}", "fp32")
    assert len(broken["images"]) == 8
    assert all(path in error for path in broken["images"])
    assert json.loads((folder / "failed.json").read_text())["epoch"] == 2
    assert _last_epoch(folder) == 1
    assert train_main(arguments(folder)) == 0
    assert outcome(folder) == whole(arguments)


def test_prompts_that_are_not_finite_name_the_batch(arguments, tmp_path, monkeypatch, capsys):
    original = PromptTrainer.update

    def update(self, *terms):
        original(self, *terms)
        if (self.epoch, self.batch_idx) == (1, self.num_batches - 1):
            torch.nn.init.constant_(self.model.prompt_learner.ctx, float("inf"))

    monkeypatch.setattr(PromptTrainer, "update", update)
    assert train_main(arguments(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert_names(error, "prompts", "epoch 2", "batch 3", "0.00", ".png")
    assert _last_epoch(tmp_path / "run") == 1


@pytest.mark.parametrize("finished", [False, True])
def test_a_changed_configuration_is_shown(finished, arguments, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    with at_epoch(monkeypatch, EPOCHS + 1 if finished else 2, stop):
        assert train_main(arguments(folder)) == (0 if finished else 143)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert train_main(arguments(folder, "OPTIM.MAX_EPOCH", "5", "DATASET.NOISE.RATE", "0.25")) == 2
    error = capsys.readouterr().err
    assert "OPTIM.MAX_EPOCH" in error and "DATASET.NOISE.RATE" in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("signum, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_to_the_whole_group_with_workers(signum, status, arguments, tmp_path):
    """As a terminal and Slurm send them: the data loader's workers get them too."""
    folder = tmp_path / "run"
    pairs = ("DATALOADER.NUM_WORKERS", "1", "OPTIM.MAX_EPOCH", "1000")
    command = [sys.executable, str(ROOT / "train.py"), *arguments(folder, *pairs)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as process:  # fmt: skip
        deadline = time.monotonic() + 240
        while not (folder / "prompt_learner" / "checkpoint").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signum)
        error = process.communicate(timeout=120)[1]
    assert process.returncode == status, error
    assert_names(error, signum.name, "--output-dir")
    assert not (folder / "result.json").exists() and (folder / "prompt_learner" / "checkpoint").exists()


class _SignalsWhenDeleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # where the handler's exception is raised, and dropped by Python


def test_a_signal_while_an_object_is_deleted_is_not_lost(capsys):
    ended = []

    def command():
        _SignalsWhenDeleted()
        time.sleep(20)
        ended.append(True)

    assert guarded(command, "train.py", "start it again") == 143
    assert not ended and capsys.readouterr().err == "train.py: stopped by SIGTERM; start it again\n"


def test_what_a_signal_left_half_built_is_no_news(monkeypatch, capsys):
    class Half:
        def __del__(self):
            raise AttributeError("half built")

    def build():
        half = Half()  # noqa: F841
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    assert guarded(build, "train.py", "start it again") == 143
    gc.collect()
    assert not ignored and capsys.readouterr().err.count("\n") == 1
