"""A wheel, installed into an empty environment: every command works from an empty folder, without a checkout."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import dassl
import pytest

from dspt_atlas.commands import COMMANDS
from support.paths import ROOT

pytestmark = pytest.mark.slow
KEYS = [
    "OPTIM.MAX_EPOCH",
    1,
    "TEST.PERIOD",
    1,
    "INPUT.CACHE",
    "features",
    "INPUT.VIEWS",
    1,
    "DATALOADER.NUM_WORKERS",
    0,
]
PIP_WHEEL = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
HELP = """
import contextlib, io
from dspt_atlas.cli import main
from dspt_atlas.commands import COMMANDS
for name in COMMANDS:
    said, status = io.StringIO(), "no status"
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = main([name, "--help"])
        except SystemExit as stop:
            status = stop.code
    print(name, status, len(said.getvalue()) > 100)
"""

IN_ONE_PROCESS = """
import shlex, sys
from dspt_atlas.cli import main
for command in sys.argv[1:]:
    assert main(shlex.split(command)) == 0, command
    print("=== done ===", flush=True)
"""


def build(*arguments, cwd, out):
    """Run a command of Python that builds one file into the folder `out`; return that file."""
    done = subprocess.run([sys.executable, *arguments, out], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the tracked files, links as links, as a clone has them."""
    folder = tmp_path_factory.mktemp("checkout")
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=False)
    if tracked.returncode:
        pytest.skip("this is not a git checkout: which files belong to the project is not known")
    for name in filter(None, tracked.stdout.decode().split("\0")):
        if (ROOT / name).exists() and not name.startswith("docs/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def sdist(checkout, tmp_path_factory):
    return build("setup.py", "--quiet", "sdist", "--dist-dir", cwd=checkout, out=tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel that is made of the sdist."""
    return build(*PIP_WHEEL, sdist, "--wheel-dir", cwd=sdist.parent, out=tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Return a function (arguments) that starts the installed dspt-atlas in an empty folder."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    (packages,) = environment.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "--quiet", "--python", environment / "bin" / "python", "install"]
    subprocess.run([*install, "--no-deps", "--no-index", wheel], check=True)
    # The packages that it needs, but not this checkout: a path in a .pth file does not load that folder's .pth files.
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    others.append(str(Path(dassl.__file__).resolve().parents[1]))
    (packages / "others.pth").write_text("\n".join(others) + "\n")
    folder, cache = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("cache_of_the_wheel")
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DATA", "OUTPUT")}
    variables |= {"DSPT_ATLAS_CACHE": str(cache), "HOME": str(folder), "MPLCONFIGDIR": str(cache)}

    def start(*arguments, program=("dspt-atlas",)):
        command = [environment / "bin" / program[0], *program[1:], *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    place = start("import dspt_atlas; print(dspt_atlas.__file__)", program=("python", "-c")).strip()
    assert Path(place).is_relative_to(packages)
    start.folder, start.cache = folder, cache
    return start


def test_every_sub_command_can_be_started(run):
    assert run("--help").count("\n") > len(COMMANDS)
    said = run(HELP, program=("python", "-c"))
    assert said.splitlines() == [f"{name} 0 True" for name in COMMANDS]


def test_train_sweep_tables_figures_and_page_from_an_empty_folder(run):
    configs = run("from dspt_atlas.paths import CONFIGS; print(CONFIGS)", program=("python", "-c")).strip()
    yaml = ["--dataset-config-file", f"{configs}/datasets/emoji.yaml"]
    yaml += ["--config-file", f"{configs}/trainers/CoOp/emoji_rn.yaml"]
    options = ["--trainer", "CoOpDSPT", "--seed", 1, "--output-dir", "out/CoOpDSPT/seed1", *yaml]
    run("train", *options, *KEYS, "DATASET.NUM_SHOTS", 1)
    assert "accuracy" in json.loads((run.folder / "out/CoOpDSPT/seed1/result.json").read_text())
    sweep = run.folder / "one.yaml"
    sweep.write_text("protocol: noisy\ndatasets: emoji\ntrainers: CoOp\nnoise: none\nshots: 1\nseeds: 1\n")
    said = run("sweep", "one.yaml", "--output", "swept", "--workers", 1, *KEYS)
    (result,) = (run.folder / "swept").rglob("result.json")
    assert json.loads(result.read_text())["trainer"] == "CoOp"
    assert "dspt-atlas table" in said and "scripts/" not in said
    image = next(path for path in run.cache.rglob("*.webp"))
    commands = (
        "table out swept --published", "report out swept --output page.html --no-figures",
        "figures out --output drawn --figure accuracy_by_epoch", "cache list", "cache check --samples 1",
        f"predict --run out/CoOpDSPT/seed1 {image}", "check-data emoji_flat --no-images",
    )  # fmt: skip
    said = dict(
        zip(commands, run(IN_ONE_PROCESS, *commands, program=("python", "-c")).split("=== done ===\n"), strict=False)
    )
    for command, expected in (("table", "CoOpDSPT"), ("cache list", "MiB"), ("predict", "%")):
        assert [expected in text for words, text in said.items() if words.startswith(command)] == [True]
    assert "CoOpDSPT" in (run.folder / "page.html").read_text()
    assert list((run.folder / "drawn").glob("*.svg"))


def test_protocols_and_evidence_plan_from_the_installed_configurations(run):
    assert "dspt-atlas train" in run("run", "noisy", "emoji", "sym", "0.5", "--dry-run")
    run("sweep", "embedded_48", "--root", ".", "--dry-run")


def test_a_fork_is_adopted_without_a_checkout(run):
    (run.folder / "fork").mkdir(exist_ok=True)
    (run.folder / "fork" / "train.py").write_text("cfg = get_cfg_default()\n")
    run("adopt", "fork")
    assert (run.folder / "fork" / "scripts" / "dspt_atlas" / "noisy.sh").is_file()
    assert list((run.folder / "fork" / "configs" / "trainers" / "CoOp").glob("*.yaml"))


def test_a_wheel_of_a_checkout_and_one_of_its_sdist_hold_the_same_and_all_of_the_product(checkout, wheel, tmp_path):
    contents = {}
    for path in (build(*PIP_WHEEL, checkout, "--wheel-dir", cwd=tmp_path, out=tmp_path / "wheel"), wheel):
        with zipfile.ZipFile(path) as archive:
            contents[path] = {name: archive.read(name) for name in archive.namelist() if "dist-info" not in name}
    first, second = contents.values()
    assert first == second
    folders = ("dspt_atlas", "trainers", "datasets", "configs")
    product = {path for folder in folders for kind in ("py", "yaml") for path in (checkout / folder).rglob(f"*.{kind}")}
    packed = {name.removeprefix("dspt_atlas/") if name.split("/")[1] in folders else name for name in first}
    assert {path.relative_to(checkout).as_posix() for path in product} <= packed


def test_an_sdist_holds_no_half_of_the_tests(sdist):
    with tarfile.open(sdist) as archive:
        assert not [name for name in archive.getnames() if "/tests/" in name]
