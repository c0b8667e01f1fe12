"""Other people's files are not touched: what a start writes and removes in folders that have, or get, such files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from torch.utils.tensorboard import SummaryWriter

from dspt_atlas.config.files import find_dataset
from dspt_atlas.datasets import register_all
from dspt_atlas.datasets.downloads import fetch_split_file
from dspt_atlas.errors import UserError
from dspt_atlas.paths import is_leftover, write_atomically
from dspt_atlas.run.folder import hold
from dspt_atlas.run.train import main as train_main
from dspt_atlas.tools import run_plan as plan_command
from support.interruptions import at_epoch, stop, wait_for
from support.paths import ROOT

FOREIGN = {"result.json": '{"accuracy": 90}', "notes/paper.txt": "mine", "a.tmp123": "x", ".result.json.abcdefgh": "x"}


def content(folder):
    """Return {path: bytes, or None for a folder or where a link leads} of all below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


def put(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@contextmanager
def stopped_before_its_first_checkpoint(arguments):
    """Start train.py, stop it once its configuration is there, and let it go on to the end afterwards."""
    folder = Path(arguments[arguments.index("--output-dir") + 1])
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_for((folder / "config.yaml").exists, process)
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.error = process.communicate(timeout=240)[1]


@pytest.mark.slow
@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT, signal.SIGTERM)])
def test_signals_before_the_first_checkpoint_remove_what_the_start_wrote_alone(signals, arguments, tmp_path):
    """Two come to a run of a sweep that is stopped by Ctrl-C: one from the terminal, one from the sweep."""
    parent = tmp_path / "D"
    with stopped_before_its_first_checkpoint(arguments(parent / "runs" / "A" / "seed1")) as process:
        put(parent / "runs" / "B", FOREIGN)
        before = content(parent / "runs" / "B")
        for signum in signals:
            process.send_signal(signum)
    assert process.returncode in [128 + signum for signum in signals] and process.error.count("\n") == 1
    assert content(parent / "runs" / "B") == before
    left = [path for path in parent.rglob("*") if "B" not in path.parts]
    assert left == [parent / "runs"], process.error


@pytest.mark.slow
def test_a_start_that_is_killed_leaves_nothing_that_stands_in_the_way(arguments, tmp_path):
    folder = tmp_path / "D" / "run"
    with stopped_before_its_first_checkpoint(arguments(folder)) as process:
        process.kill()
    assert train_main(arguments(folder)) == 0
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.slow
def test_a_sweep_stopped_by_ctrl_c_keeps_what_is_finished(tiny_dataset, tiny_clip_path, tmp_path):
    sweep, data, output = tmp_path / "two.yaml", tmp_path / "own.yaml", tmp_path / "output"
    data.write_text(f"DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: {tiny_dataset.name}\n")
    sweep.write_text(
        f"protocol: fewshot\ntrainers: CoOp\nconfigs: rn50_ep50\ndatasets: {data}\nshots: 4\nseeds: [1, 2]\n"
        f"MODEL.BACKBONE.NAME: {tiny_clip_path}\nINPUT.CACHE: features\nOPTIM.MAX_EPOCH: 2\nDATALOADER.NUM_WORKERS: 0\n"
    )
    command = [sys.executable, "-m", "dspt_atlas", "sweep", str(sweep), "--workers", "2", "--retries", "0"]
    command += ["--root", str(tiny_dataset.parent), "--output", str(output)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as process:  # fmt: skip
        wait_for(lambda: any(output.rglob("config.yaml")), process)
        first = next(output.rglob("config.yaml")).parent  # the one that made the folders above
        pid = json.loads((first / ".holder.json").read_text())["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda: any(output.rglob("result.json")), process)
            (finished,) = output.rglob("result.json")
            before = finished.read_bytes()
            os.killpg(process.pid, signal.SIGINT)
        finally:
            os.kill(pid, signal.SIGCONT)
        error = process.communicate(timeout=240)[1]
    assert process.returncode == 130 and "Traceback" not in error, error
    assert finished.read_bytes() == before and finished.parent != first
    assert not first.exists()


@pytest.mark.parametrize("fail", [stop, lambda: stop(signal.SIGINT), lambda: _raise(UserError("bad data")),
                                  lambda: _raise(OSError(28, "No space left on device"))],
                         ids=["SIGTERM", "SIGINT", "bad data", "full disk"])  # fmt: skip
def test_what_appears_in_a_new_folder_outlives_a_start_that_fails(fail, arguments, tmp_path, monkeypatch):
    folder = tmp_path / "D" / "run"
    files = {**FOREIGN, "tensorboard/theirs": "x", "prompt_learner/notes.txt": "x"}

    def appear_and_fail():
        put(folder, files)
        (folder / "empty").mkdir()
        fail()

    with at_epoch(monkeypatch, 1, appear_and_fail):
        assert train_main(arguments(folder)) in (1, 2, 130, 143)
    there = {name: data for name, data in content(folder).items() if data is not None}
    assert there == {name: text.encode() for name, text in files.items()} and (folder / "empty").is_dir()


def _raise(error):
    raise error


def test_a_configuration_put_in_place_of_ours_outlives_a_start_that_fails(arguments, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def replace():
        shutil.rmtree(folder)
        put(folder, {"config.yaml": "theirs", ".lock": "", ".holder.json": "{}", "noise.json": "theirs"})
        stop()

    with at_epoch(monkeypatch, 1, replace):
        assert train_main(arguments(folder)) == 143
    assert content(folder) == {"config.yaml": b"theirs", ".lock": b"", ".holder.json": b"{}", "noise.json": b"theirs"}


def test_a_start_that_fails_alone_leaves_no_trace(arguments, tmp_path, monkeypatch):
    with at_epoch(monkeypatch, 1, stop):
        assert train_main(arguments(tmp_path / "D" / "E" / "run")) == 143
    assert train_main(arguments(tmp_path / "D" / "run", "DATASET.OWN.PATH", "missing")) == 2
    assert not (tmp_path / "D").exists()


@pytest.mark.parametrize("name", ["__init__", "add_scalar", "close"])
def test_a_signal_while_tensorboard_is_at_work_waits_and_leaves_no_thread_that_writes(
    name, arguments, tmp_path, monkeypatch
):
    original, ended = getattr(SummaryWriter, name), []

    def be_stopped(self, *args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        original(self, *args, **options)
        ended.append(name)

    monkeypatch.setattr(SummaryWriter, name, be_stopped)
    before = set(threading.enumerate())
    assert train_main(arguments(tmp_path / "run", "TRAIN.LOGGERS", "['tensorboard']")) == 143
    assert ended and not any("_AsyncWriterThread" in str(thread) for thread in set(threading.enumerate()) - before)


def test_what_was_there_before_a_start_that_fails_is_there_after_it(arguments, tmp_path, monkeypatch):
    target = tmp_path / "elsewhere"
    put(target, {"notes/paper.txt": "mine", "log.txt": "", "model_of_mine/model.py": "x"})
    (tmp_path / "link").symlink_to(target)
    before = content(target)
    with at_epoch(monkeypatch, 1, stop):
        assert train_main(arguments(tmp_path / "link")) == 143
        assert train_main(arguments(tmp_path / "link" / "seed1")) == 143
    assert (tmp_path / "link").is_symlink() and content(target).keys() == before.keys()
    assert (target / "notes" / "paper.txt").read_text() == "mine"


def _all_sections(**changes):
    names = ["OUTPUT_DIR", "SEED", "INPUT", "DATASET", "DATALOADER", "MODEL", "OPTIM", "TRAIN", "TEST", "TRAINER"]
    return yaml.safe_dump({**{name: {} for name in names}, **changes})


@pytest.mark.parametrize("name, text", [
    ("config.yaml", "server: 8080\n"), ("config.yaml", ""), ("config.yaml", "a: ["), ("config.yaml", "- 1\n"),
    ("config.yaml", "MODEL:\n  BACKBONE:\n    NAME: RN50\nOPTIM:\n  LR: 0.1\n"), ("config.yaml", "\0\1"),
    ("config.yaml", _all_sections(SEED=5)), ("log.txt", "theirs"), ("noise.json", "{}"), ("failed.json", "{}"),
    ("prompt_learner/checkpoint", "model.pth.tar-3\n"), ("prompt_learner/model.pth.tar-1", "x"),
])  # fmt: skip
def test_a_folder_with_files_that_no_run_wrote_is_refused_untouched(name, text, arguments, tmp_path, capsys):
    folder = tmp_path / "run"
    put(folder, {name: text, "notes.txt": "mine"})
    before = content(folder)
    assert train_main(arguments(folder)) == 2
    error = capsys.readouterr().err
    assert str(folder) in error and error.count("\n") == 1
    assert content(folder) == before


def test_a_link_to_nowhere_is_refused_untouched(arguments, tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "nowhere")
    assert train_main(arguments(tmp_path / "run")) in (1, 2)
    assert train_main(arguments(tmp_path / "run" / "seed1")) in (1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["run"] and (tmp_path / "run").is_symlink()


def test_a_second_start_that_is_refused_touches_nothing(tmp_path):
    with hold(tmp_path / "D" / "run"):
        before = content(tmp_path)
        with pytest.raises(UserError), hold(tmp_path / "D" / "run"):
            pass
        assert content(tmp_path) == before
        with hold(tmp_path / "D" / "other"):
            pass
        assert content(tmp_path) == before
    assert not (tmp_path / "D").exists()


def test_tables_that_no_reproduction_wrote_are_not_overwritten(tmp_path):
    put(tmp_path, {"tables.md": "mine"})
    assert plan_command.main(["embedded", "--output", str(tmp_path)]) == 2
    assert content(tmp_path) == {"tables.md": b"mine"}


def test_a_split_file_that_is_there_is_not_overwritten(tmp_path):
    path = tmp_path / "caltech-101" / "split_zhou_Caltech101.json"
    put(path.parent, {path.name: "mine"})
    register_all()
    fetch_split_file(find_dataset("Caltech101"), tmp_path, "http://127.0.0.1:9/split.json")
    assert content(path.parent) == {path.name: b"mine"}


HOLD_AND_FAIL = """
import sys
from pathlib import Path
from dspt_atlas.run.folder import hold
for number in range(150):
    try:
        with hold(Path(sys.argv[1], str(number % 3), sys.argv[2])):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
"""


@pytest.mark.slow
def test_starts_that_fail_at_once_under_one_missing_parent_do_not_disturb_each_other(tmp_path):
    command = [sys.executable, "-c", HOLD_AND_FAIL, str(tmp_path / "D" / "E")]
    processes = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in ("a", "b")]
    errors = [process.communicate()[1] for process in processes]
    assert errors == ["", ""]
    assert all(path.is_dir() for path in tmp_path.rglob("*"))  # who made a folder may be gone before it is empty


DIE_WHILE_WRITING = """
import os, signal, sys
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
folder = sys.argv[1]
if sys.argv[2] == "engine":
    from dassl.utils import atomic_path
    with atomic_path(folder + "/file") as path:
        open(path, "w").close()
else:
    from dspt_atlas.paths import write_atomically
    write_atomically(folder + "/file", "half")
"""


@pytest.mark.parametrize("writer", ["engine", "plugin"])
def test_what_a_process_killed_while_it_wrote_left_is_removed_and_nothing_like_it(writer, tmp_path):
    foreign = {"file.tmp123": "x", ".file.abcdefgh": "x", ".file.tmp": "x", ".file.dspt-atlas-1-2-3.tmp": "x"}
    put(tmp_path, foreign)
    killed = subprocess.run([sys.executable, "-c", DIE_WHILE_WRITING, str(tmp_path), writer], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = [path for path in tmp_path.iterdir() if path.name not in foreign]
    assert is_leftover(left)
    write_atomically(tmp_path / "another", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {*foreign, "another"}


def test_a_temporary_file_of_a_live_process_or_another_machine_is_left(tmp_path, monkeypatch):
    with pytest.raises(ZeroDivisionError), monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda temporary, path: seen.append(Path(temporary).name) or 1 / 0)
        seen = []
        write_atomically(tmp_path / "file", "x")
    name = seen[0].replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    elsewhere = tmp_path / ".file.dspt-atlas-4194305-00000000-0123abcd.tmp"
    put(tmp_path, {name: "x", elsewhere.name: "x"})
    assert not is_leftover(tmp_path / name) and not is_leftover(elsewhere)
    os.utime(elsewhere, (0, 0))
    assert is_leftover(elsewhere)
    with suppress(FileNotFoundError):
        (tmp_path / seen[0]).unlink()
