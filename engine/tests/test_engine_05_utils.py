"""CONTRACT.md, sections 5.1 to 5.3: tools, logger, meters."""

import io
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from dassl import utils


def test_files(tmp_path, monkeypatch):
    utils.mkdir_if_missing(str(tmp_path / "a" / "b"))
    utils.mkdir_if_missing("")
    with pytest.warns(UserWarning, match="No file found at"):
        assert utils.check_isfile(str(tmp_path / "none")) is False
    monkeypatch.chdir(tmp_path)
    utils.write_json({"é": [1, 2]}, "bare.json")  # F24
    assert (tmp_path / "bare.json").read_text() == '{\n    "\\u00e9": [\n        1,\n        2\n    ]\n}'
    assert utils.read_json("bare.json") == {"é": [1, 2]}
    for name in ("c", "a.txt", ".hidden"):
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / name).touch()
    assert utils.listdir_nohidden(tmp_path / "b") == ["a.txt", "c"]


def test_atomic_path_keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "value"
    path.write_text("old")
    with pytest.raises(RuntimeError), utils.atomic_path(path) as temporary:
        with open(temporary, "w") as file:
            file.write("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["value"]
    assert path.read_text() == "old"


def test_seed_covers_three_generators_and_states_are_restored():
    def draw():
        return random.random(), np.random.randn(), torch.rand(1).item()

    utils.set_random_seed(0)
    first = draw()
    utils.set_random_seed(0)
    assert draw() == first
    state = utils.get_random_state()
    second = draw()
    utils.set_random_state(state)
    assert draw() == second


def test_read_image_gives_rgb_and_names_what_it_cannot_read(tmp_path):
    Image.new("LA", (4, 3)).save(tmp_path / "grey.png")
    assert utils.read_image(str(tmp_path / "grey.png")).mode == "RGB"
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(FileNotFoundError, match=r"gone\.png.*split_fewshot"):  # F44
        utils.read_image(str(tmp_path / "gone.png"))
    with pytest.raises(OSError, match=r"broken\.png"):
        utils.read_image(str(tmp_path / "broken.png"))


def test_tolist_if_not_wraps_everything_but_lists():
    assert utils.tolist_if_not([1]) == [1]
    assert utils.tolist_if_not((1, 2)) == [(1, 2)]


def test_collect_env_info_names_pillow_and_draws_nothing(monkeypatch):
    import torch.utils.collect_env

    monkeypatch.setattr(torch.utils.collect_env, "get_pretty_env_info", lambda: "torch 1")
    assert utils.collect_env_info().startswith("torch 1\n        Pillow (")


def test_download_url(tmp_path, capsys):
    (tmp_path / "source").write_bytes(b"x" * 3000)
    utils.download_url((tmp_path / "source").as_uri(), str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"x" * 3000
    lines = capsys.readouterr().out
    assert lines.startswith('* url="file://')
    assert lines.endswith("passed\n")


LOG_SCRIPT = """
import sys
from dassl.utils import setup_logger
setup_logger(sys.argv[1])
print("first line")
print("no newline é", end="")
sys.stdout.write("!\\n")
assert sys.stdout.isatty() is False and sys.stdout.fileno() == 1 and sys.stdout.encoding == "ascii"
assert sys.stdout.writable() and not sys.stdout.closed and sys.stdout.buffer is not None
import os
os._exit(1)  # killed: nothing is flushed at exit
"""


def test_log_survives_a_kill_and_an_ascii_console(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", LOG_SCRIPT, str(tmp_path / "new")],
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert run.stderr == b""
    assert run.stdout == b"first line\nno newline ?!\n"
    assert (tmp_path / "new" / "log.txt").read_text(encoding="utf-8") == "first line\nno newline é!\n"


def test_old_logs_are_never_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    console = sys.stdout
    monkeypatch.setattr(time, "strftime", lambda pattern: "-2026-01-31-10-00-00")
    for number in range(3):
        utils.setup_logger(str(tmp_path))
        print(number)
    utils.setup_logger(None)
    assert console.getvalue() == "0\n1\n2\n"
    logs = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert logs == {  # later text goes to all of them
        "log.txt": "0\n1\n2\n",
        "log.txt-2026-01-31-10-00-00": "1\n2\n",
        "log.txt-2026-01-31-10-00-00-2": "2\n",
    }


def test_logger_as_context_returns_itself_and_leaves_the_console_open(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.chdir(tmp_path)
    with utils.Logger("bare.txt") as logger:
        logger.writelines(["a\n", "b\n"])
    logger.write("c\n")
    assert not sys.stdout.closed
    assert (tmp_path / "bare.txt").read_text() == "a\nb\n"


def test_meters():
    meter = utils.AverageMeter()
    assert (meter.val, meter.avg, meter.sum, meter.count) == (0, 0, 0, 0)
    meter.update(torch.tensor([4.0]), n=3)
    meter.update(0.0)
    assert (meter.val, meter.avg, meter.sum, meter.count) == (0.0, 3.0, 12.0, 4)
    ema = utils.AverageMeter(ema=True)
    ema.update(10)
    assert ema.avg == 1.0
    meters = utils.MetricMeter()
    meters.update(None)
    meters.update({"loss": 1.5, "acc": 2})
    meters.update({"loss": torch.tensor(0.5), "acc": 2})
    assert str(meters) == "loss 0.5000 (1.0000) acc 2.0000 (2.0000)"
    with pytest.raises(TypeError):
        meters.update([1])
