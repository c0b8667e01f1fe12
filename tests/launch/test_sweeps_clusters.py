"""Sweeps end as if nothing had happened: a run killed, a Ray node gone, a Slurm job cancelled and queued again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dspt_atlas.launch.pool import execute
from dspt_atlas.plan.planner import read_plan
from dspt_atlas.report.table import report
from support.interruptions import wait_for
from support.one_machine_slurm import NoSlurm, one_machine_slurm

PATIENCE = 400
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sweep_file(tiny_dataset, tiny_clip_path, tmp_path_factory):
    """A sweep of two trainings and their tests."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "tiny.yaml").write_text(f"DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: {tiny_dataset.name}\n")
    sweep_file = folder / "sweep.yaml"
    sweep_file.write_text(
        f"protocol: base2new\ndatasets: {folder / 'tiny.yaml'}\ntrainers: [CoOp, CoOpDSPT]\nseeds: 1\nshots: 2\n"
        f"configs: rn50_ep50\nMODEL.BACKBONE.NAME: {tiny_clip_path}\nOPTIM.MAX_EPOCH: 100\nDATALOADER.NUM_WORKERS: 0\n"
        "TRAINER.COOP.N_CTX: 2\nDATALOADER.TRAIN_X.BATCH_SIZE: 4\n"
    )
    return sweep_file


@pytest.fixture(scope="module")
def sweep(sweep_file, tiny_dataset):
    """Return a function (output, arguments) -> the process of the sweep."""

    def start(output, *arguments, **environment):
        command = [sys.executable, "-m", "dspt_atlas", "sweep", str(sweep_file), "--output", str(output)]
        command += ["--root", str(tiny_dataset.parent), *map(str, arguments)]
        return subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture(scope="module")
def sequential(sweep_file, tiny_dataset, tmp_path_factory):
    """The output of the sweep, one run after the other in this process with one thread, undisturbed."""
    output, threads = tmp_path_factory.mktemp("sequential"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert execute(read_plan(sweep_file).jobs(str(tiny_dataset.parent), output, ()), workers=1) == 0
    finally:
        torch.set_num_threads(threads)
    return output


def checkpoints(output):
    """Return the trainings that have saved something and are not done."""
    folders = {path.parents[1] for path in output.glob("base2new/train_base/**/checkpoint")}
    return [folder for folder in folders if not (folder / "result.json").exists()]


def training_processes(output, name="train.py"):
    """Return {folder: process id} of the runs of an output that are alive."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if "--output-dir" in words and any(word.endswith(name) for word in words[:3]):
            folder = Path(words[words.index("--output-dir") + 1])
            if folder.is_relative_to(output) and words[0] == sys.executable:
                found[folder] = int(path.parent.name)
    return found


def assert_as_sequential(process, output, sequential):
    """The sweep ended well, every run was finished once, and the tables are those of the sequential sweep."""
    text = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, text
    assert "4 runs: 4 done" in text
    folders = [path.parent.relative_to(sequential) for path in sorted(sequential.rglob("result.json"))]
    assert len(folders) == 4
    assert [path.parent.relative_to(output) for path in sorted(output.rglob("result.json"))] == folders
    for folder in folders:
        log = (output / folder / "log.txt").read_text()
        assert log.count("=> result") == 1, folder
        assert log.count("Finish training") == int("train_base" in folder.parts), folder
    assert report([output])[0] == report([sequential])[0]


def was_resumed(output):
    return any(path.read_text().count("** Config **") > 1 for path in output.rglob("log.txt"))


def test_local_with_a_run_killed(sweep, sequential, tmp_path):
    process = sweep(tmp_path, "--workers", "2")
    folder = wait_for(lambda: checkpoints(tmp_path), process, PATIENCE)[0]
    os.kill(training_processes(tmp_path)[folder], signal.SIGKILL)
    assert_as_sequential(process, tmp_path, sequential)
    failures = [json.loads(line) for line in (tmp_path / "sweeps/sweep/failures.jsonl").read_text().splitlines()]
    assert failures == [{"folder": str(folder), "error": "killed by SIGKILL"}]
    assert was_resumed(tmp_path)


def test_ray_with_a_node_killed(sweep, sequential, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed (pip install ray)")
    from ray.cluster_utils import Cluster

    handler = signal.getsignal(signal.SIGTERM)  # Ray sets its own
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        process = sweep(tmp_path, "--launcher", "ray", "--address", cluster.address)
        wait_for(lambda: len(checkpoints(tmp_path)) == 2, process, PATIENCE)
        cluster.remove_node(node, allow_graceful=False)
        assert_as_sequential(process, tmp_path, sequential)
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)
    assert was_resumed(tmp_path)


@pytest.fixture
def slurm():
    """A Slurm of this machine alone, as a function that calls one of its commands and returns what it prints."""
    pytest.importorskip("submitit", reason="submitit is not installed (pip install submitit)")
    with contextlib.ExitStack() as stack:
        try:
            environment = stack.enter_context(one_machine_slurm())
        except NoSlurm as reason:
            pytest.skip(str(reason))

        def call(*command):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            return done.stdout if done.returncode == 0 else ""

        call.environment = environment
        yield call


def test_slurm_with_a_job_cancelled_and_requeued(slurm, sweep, sequential, tmp_path):
    process = sweep(tmp_path, "--launcher", "slurm", "--time", "30", SLURM_CONF=slurm.environment["SLURM_CONF"])
    both = wait_for(lambda: len(found := checkpoints(tmp_path)) == 2 and found, process, PATIENCE)
    numbers = json.loads((tmp_path / "sweeps/sweep/slurm.json").read_text())
    requeued, cancelled = (numbers[str(folder)] for folder in both)
    slurm("scontrol", "requeue", requeued)
    slurm("scancel", cancelled)
    queue = ("squeue", "--noheader", f"--jobs={requeued}", "--format=%t")
    wait_for(lambda: "PD" in slurm(*queue), process, PATIENCE)
    slurm("scontrol", "update", f"JobId={requeued}", "StartTime=now")  # not after the two minutes that Slurm adds
    assert_as_sequential(process, tmp_path, sequential)
    assert was_resumed(tmp_path)
    failures = (tmp_path / "sweeps/sweep/failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["folder"] for line in failures] == [str(both[1])]
