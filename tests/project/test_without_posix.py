"""What only POSIX has stops no import and no command: they are tried in a Python that lacks it, as Windows does.

The libraries are imported before, because they run on Windows in their own way.
"""

import os
import shutil
import subprocess
import sys

import pytest

from support.paths import ROOT

pytestmark = pytest.mark.slow
LIBRARIES = (
    "torch", "torchvision", "pandas", "scipy.stats", "matplotlib.pyplot", "sklearn.metrics", "filelock", "ot", "jinja2",
    "clip", "PIL.Image", "multiprocessing.pool", "concurrent.futures.process", "torch.utils.tensorboard", "yacs.config",
    "importlib.metadata", "tqdm.auto", "threadpoolctl", "xxhash", "tabulate", "torch.multiprocessing", "socket",
    "asyncio", "tempfile", "webbrowser", "http.server", "pydoc", "zipfile", "tarfile",
)  # fmt: skip
POSIX_MODULES = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline", "curses")
POSIX_SIGNALS = (
    "SIGALRM",
    "SIGCHLD",
    "SIGCONT",
    "SIGHUP",
    "SIGKILL",
    "SIGPIPE",
    "SIGQUIT",
    "SIGSTOP",
    "SIGUSR1",
    "SIGUSR2",
)
POSIX_FUNCTIONS = {
    "signal": ("setitimer", "alarm", "pause", "pthread_sigmask", "sigwait", "siginterrupt", "ITIMER_REAL"),
    "select": ("poll", "epoll"),
    "os": (
        "fork", "geteuid", "getgid", "getloadavg", "getpgid", "getuid", "killpg", "mkfifo", "nice", "posix_fadvise",
        "sched_getaffinity", "sched_setaffinity", "setsid", "statvfs", "sync", "uname", "wait4", "O_DIRECTORY",
    ),
}  # fmt: skip
WITHOUT = f"""
import importlib, sys
for name in {LIBRARIES}:
    importlib.import_module(name)
import os, select, signal
for name in {POSIX_MODULES}:
    sys.modules[name] = None
for name in {POSIX_SIGNALS}:
    delattr(signal, name)
for module, names in {POSIX_FUNCTIONS}.items():
    for name in names:
        delattr(sys.modules[module], name)
"""
ALL = """
import pkgutil
for room in ("dspt_atlas", "dassl"):
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, f"{room}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""
COMMANDS = """
from dspt_atlas.cli import main
print(*map(main, (sys.argv[1:], ["table", "."], ["table", "nowhere"])))
"""


def run(code, *arguments, cwd=ROOT):
    words = [sys.executable, "-c", WITHOUT + code, *arguments]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)


def test_a_clone_without_links_is_imported_and_has_its_configurations(tmp_path):
    heavy = shutil.ignore_patterns("embedded_data", "__pycache__")
    for name in ("dspt_atlas", "trainers", "datasets", "configs", "engine/dassl"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=heavy)
    for link in filter(os.path.islink, (tmp_path / "dspt_atlas").iterdir()):
        target = os.readlink(link)
        link.unlink()
        link.write_text(target)  # what git does where links are not allowed
    code = (
        "from dspt_atlas.cli import main\nimport dspt_atlas.trainers as room\nmain(['run', 'noisy', 'emoji', 'none', "
    )
    code += "'--dry-run'])\nprint(room.__file__)"
    paths = os.pathsep.join(map(str, (tmp_path, tmp_path / "engine")))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "dspt-atlas train" in done.stdout and done.stdout.split()[-1] == str(tmp_path / "trainers" / "__init__.py")


def test_every_module_can_be_imported():
    done = run(ALL)
    assert done.returncode == 0, done.stderr
    packages = {".".join(name.split(".")[:2]) for name in done.stdout.split()}
    assert {"dspt_atlas.trainers", "dspt_atlas.datasets", "dspt_atlas.run", "dassl.engine"} <= packages


def test_a_run_its_table_and_a_mistake(arguments, tmp_path):
    done = run(COMMANDS, "train", *arguments(tmp_path / "run"), cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.split()[-3:] == ["0", "0", "2"], done.stderr
    assert (tmp_path / "run" / "result.json").is_file() and done.stderr.splitlines()[-1].count("nowhere") == 1
