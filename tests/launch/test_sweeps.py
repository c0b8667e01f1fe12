"""Sweeps of shell scripts: the runs of a yaml, their state, order, retries, skipped tests, locks."""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from dspt_atlas.errors import UserError
from dspt_atlas.launch import Options, make_launcher, process, slurm
from dspt_atlas.launch.execute import drive
from dspt_atlas.launch.listing import listing, summary
from dspt_atlas.launch.local import Local
from dspt_atlas.launch.pool import execute
from dspt_atlas.launch.state import Journal, feature_key, scan
from dspt_atlas.plan.planner import PLANS, plan_path, read_plan
from dspt_atlas.tools import run_plan
from dspt_atlas.tools import sweep as command
from support.refusals import refused

# A run that notes that it was started, and ends as its method says; CoOpMAE fails the first time.
FAKE = """
while [ $# -gt 0 ]; do
  case $1 in --output-dir) folder=$2;; --trainer) trainer=$2;; esac
  shift
done
echo "$folder" >> "$STARTED"
[ $trainer = CoOpGCE ] && { echo "it is broken" >&2; exit 1; }
[ $trainer = CoOpMAE ] && [ $(grep -cx "$folder" "$STARTED") = 1 ] && kill -9 $$
mkdir -p "$folder" && echo '{"seconds": 30, "accuracy": 50}' > "$folder/result.json"
"""


@pytest.fixture
def plan(tmp_path):
    """Return a function (text of a sweep) -> its jobs."""

    def make(text, *pairs, root="", name="sweep.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return read_plan(path).jobs(root, tmp_path / "output", pairs)

    return make


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The file in which the fake runs note that they were started."""
    path = tmp_path / "started"
    path.touch()
    monkeypatch.setenv("STARTED", str(path))
    return path


def sweep_with_fakes(jobs, folder, workers=2, retries=0):
    journal = Journal(folder / "failures.jsonl")
    runs = scan(jobs, journal)
    with contextlib.closing(Local(Options(workers=workers, program=("sh", "-c", FAKE, "sh")))) as launcher:
        drive(runs, launcher, journal, retries)
    return {run.job.folder: run for run in runs}


def test_a_launcher_does_the_runs_of_a_plan_in_place_of_this_process(plan, started, tmp_path):
    jobs = plan("protocol: noisy\ndatasets: emoji\nseeds: [1, 2]\ntrainers: [CoOp, CoOpGCE]\nnoise: none\n")
    done = []
    launcher = Local(Options(workers=2, program=("sh", "-c", FAKE, "sh")))
    assert execute(jobs, on_done=done.append, launcher=launcher) == 1  # CoOpGCE's status
    assert sorted(done) == [job.folder for job in jobs if job.option("--trainer") == "CoOp"]
    assert sorted(started.read_text().split()) == sorted(str(job.folder) for job in jobs)


@pytest.mark.slow
def test_run_gives_a_plans_runs_to_a_launcher(tiny_clip_path, tmp_path, capsys):
    arguments = ["noisy", "emoji", "none", "--trainer", "ZeroshotCLIP", "--seeds", "1", "--output", str(tmp_path)]
    pairs = ["MODEL.BACKBONE.NAME", tiny_clip_path, "DATALOADER.NUM_WORKERS", "0"]
    assert run_plan.main([*arguments, "--launcher", "local", *pairs]) == 0
    assert "| ZeroshotCLIP" in capsys.readouterr().out and len(list(tmp_path.rglob("result.json"))) == 1
    assert run_plan.main([*arguments, "--launcher", "local", "--workers", "-1", *pairs]) == 2


def test_a_product_with_exclusions(plan):
    jobs = plan(
        "protocol: noisy\ndatasets: [emoji, emoji_objects]\ntrainers: [CoOp, CoOpDSPT]\nnoise: [none, sym 0.5]\n"
        "OPTIM.LR: [0.01, 0.02]\nOPTIM.MAX_EPOCH: 3\nexclude:\n"
        "  - {trainers: CoOp, noise: sym 0.5}\n  - {datasets: emoji_objects, OPTIM.LR: [0.02]}\n"
    )
    assert len(jobs) == 2 * 3 * 3 * 2 - 3 * 3
    folders = [str(job.folder) for job in jobs]
    assert not any("sym_0.5" in folder and "/CoOp/" in folder for folder in folders)
    assert not any("emoji_objects" in folder and "OPTIM.LR=0.02" in folder for folder in folders)
    assert all(
        job.pairs["OPTIM.MAX_EPOCH"] == "3" and f"OPTIM.LR={job.pairs['OPTIM.LR']}" in str(job.folder) for job in jobs
    )


def test_an_exclusion_may_name_what_only_another_step_has(plan):
    jobs = plan(
        "protocol: noisy\ndatasets: emoji\nseeds: [1, 2]\nexclude: {trainers: CoOp, noise: sym 0.5}\n"
        "steps:\n  - {trainers: [CoOp, CoOpDSPT], noise: [none, sym 0.5]}\n  - trainers: ZeroshotCLIP\n"
    )
    assert len(jobs) == 2 * 4 + 2 - 2


@given(
    st.lists(st.sampled_from(["CoOp", "CoOpDSPT", "CoOpGCE"]), min_size=1, unique=True),
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(1, 16), min_size=1, max_size=3, unique=True),
)
@settings(max_examples=20, deadline=None)
def test_a_plan_has_every_combination_once(tmp_path_factory, trainers, seeds, shots):
    path = tmp_path_factory.mktemp("sweep") / "sweep.yaml"
    path.write_text(
        json.dumps({"protocol": "fewshot", "datasets": "emoji", "trainers": trainers, "seeds": seeds, "shots": shots})
    )
    jobs = read_plan(path).jobs("", path.parent)
    found = Counter((job.option("--trainer"), job.option("--seed"), job.pairs["DATASET.NUM_SHOTS"]) for job in jobs)
    assert found == Counter((trainer, str(seed), str(k)) for trainer in trainers for seed in seeds for k in shots)
    assert len({job.folder for job in jobs}) == len(jobs)


def test_steps_share_a_training_that_is_the_same(plan):
    jobs = plan(
        "datasets: emoji\ntrainers: CoOp\nseeds: 1\n"
        "steps:\n  - protocol: crossdataset\n  - protocol: domain_generalisation\n"
    )
    assert [job.option("--model-dir") for job in jobs].count("") == 1
    assert len(jobs) == 1 + 1 + 3 and len({job.trained_in for job in jobs}) == 1


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_plans_that_come_with_it_can_be_planned(path, tmp_path):
    plan = read_plan(path)
    given = {"datasets": ["emoji"]} if plan.is_protocol else {}
    given |= {"targets": ["emoji_ink"]} if path.stem == "transfer" else {}
    jobs = plan.jobs(str(tmp_path), tmp_path, (), given)
    folders = {job.folder for job in jobs}
    assert all(job.trained_in in folders for job in jobs)
    assert plan_path(path.stem) == path


@pytest.mark.parametrize(
    "text, said",
    [
        ("protocol: noisy\ndatasets: emoji\ntrainers: CoOp\nnoise: sym 50\n", "50"),
        ("protocol: noisy\ndatasets: emoji\ntrainers: CoOp\nnoise: sym\n", "needs a rate"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nnoise: sym 0.5\n", "protocol: noisy"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOpDPST\n", "did you mean CoOpDSPT"),
        ("protocol: fewshot\ndatasets: emojis\ntrainers: CoOp\n", "no data set"),
        ("protocol: fewshot\ndatasets: caltech101\ntrainers: CoOp\n", "folder of the data sets"),
        ("protocol: few\ndatasets: emoji\ntrainers: CoOp\n", 'no protocol "few"'),
        ("protocol: fewshot\ndatasets: emoji\n", "expected trainers in every step"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nseed: 1\n", "did you mean seeds"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nshots: [0]\n", "whole numbers from 1"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nOPTIM.LRR: 1\n", "OPTIM.LR"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nOPTIM.LR: [a]\n", "float"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nexclude: {colour: 1}\n", "exclude names colour"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nexclude: {trainers: CoOp}\n", "no run"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nsteps: 3\n", "list of steps"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nsteps: [{}, {OPTIM.LR: 1}]\n", "share the folder"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nsoft_labels: soft\n", "ls, csl, isl"),
        ("a: [", "cannot be read"),
        ("protocol: 3\ndatasets: emoji\ntrainers: CoOp\n", 'no protocol "3"'),
        ("protocol: noisy\ndatasets: emoji\ntrainers: CoOp\nnoise: sym 0.5 0.6\n", "a type and a rate"),
        ("protocol: noisy\ndatasets: emoji\ntrainers: CoOp\nnoise: 'sym,asym 0.5'\n", "a type and a rate"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nexclude: {trainers: CoOpDPST}\n", "list has CoOp."),
        (
            "protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nOPTIM.LR: [2e-3, 1]\nexclude: {OPTIM.LR: 0.002}\n",
            "has 2e-3, 1.",
        ),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nOPTIM.LR: []\n", "expected OPTIM.LR in every step"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nsteps: []\n", "list of steps"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\ntargets: dtd\n", "transfer, crossdataset"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nSEED: [5, 6]\n", "SEED is set by seeds"),
        ("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nDATASET.NUM_SHOTS: 4\n", "NUM_SHOTS is set by shots"),
        ("protocol: base2new\ndatasets: emoji\ntrainers: CoOp\nDATASET.SUBSAMPLE_CLASSES: all\n", "set by protocol"),
    ],
)
def test_mistakes_in_a_sweep_are_one_sentence(text, said, plan):
    with pytest.raises(UserError) as caught:
        plan(text, root="/nowhere")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_states_and_times_of_runs(plan, tmp_path):
    jobs = plan(
        "protocol: fewshot\ndatasets: emoji\ntrainers: [CoOp, CoOpDSPT]\nseeds: [1, 2, 3, 4]\n"
        "DATALOADER.NUM_WORKERS: 8\n"
    )
    for job in jobs[:6]:
        job.folder.mkdir(parents=True)
    config = {"SEED": 1, "DATALOADER": {"NUM_WORKERS": 2}, "INPUT": {"CACHE": "features", "VIEWS": 10}}
    (jobs[0].folder / "result.json").write_text(json.dumps({"seconds": 100, "accuracy": 71.25, "config": config}))
    (jobs[1].folder / "result.json").write_text('{"seconds": 100, "accuracy": 71.25, "config": {"SEED": 7}}')
    (jobs[2].folder / "result.json").write_text("{")
    (jobs[3].folder / "failed.json").write_text('{"epoch": 3, "error": "the loss is nan"}')
    (jobs[4].folder / "config.yaml").write_text("")
    (jobs[4].folder / "log.txt").write_text("first\nepoch [7/50]\n\n")
    (jobs[4].folder / "prompt_learner").mkdir()
    (jobs[4].folder / "prompt_learner" / "model.pth.tar-7").touch()
    (jobs[4].folder / "prompt_learner" / "model.pth.tar-8.tmp123").touch()  # killed while writing
    holder = json.dumps({"pid": os.getpid(), "host": platform.node()})
    (jobs[4].folder / ".holder.json").write_text(holder)
    journal = Journal(tmp_path / "failures.jsonl")
    journal.add(jobs[5].folder, "first")
    journal.add(jobs[5].folder, "killed by SIGKILL")
    (jobs[5].folder / "log.txt").write_text("epoch [2/50]\n")
    with open(journal.path, "a") as file:
        file.write('{"folder": "unfin')
    runs = scan(jobs, journal)
    assert [run.state for run in runs] == ["done", "failed", "failed", "failed", "resumable", "failed", "new", "new"]
    assert "SEED 2" in runs[1].detail and "cannot be read as JSON" in runs[2].detail
    assert runs[3].detail == "epoch 3: the loss is nan" and runs[5].detail == "killed by SIGKILL; log: epoch [2/50]"
    assert runs[4].detail == f"running (process {os.getpid()} on {platform.node()}); 7 epochs done; epoch [7/50]"
    assert {run.seconds for run in runs} == {100}  # the other method's runs take as long as those that are done
    text = listing(runs, tmp_path / "output")
    assert "8 runs: 1 done, 4 failed, 1 resumable, 2 new" in text and "12 min" in text


def test_the_time_of_the_first_runs_is_known_on_the_embedded_benchmark_alone(plan, tmp_path):
    text = "protocol: fewshot\ndatasets: [emoji, caltech101]\ntrainers: [CoOp, MaPLe]\nseeds: [1, 2]\n"
    runs = scan(plan(text, root=str(tmp_path)), Journal(tmp_path / "none"))
    times = {(run.job.option("--trainer"), run.job.option("--root") == ""): run.seconds for run in runs}
    assert times["CoOp", False] is None and times["MaPLe", False] is None
    assert all(times[trainer, True] for trainer in ("CoOp", "MaPLe"))
    assert "4 runs of unknown time" in listing(runs, tmp_path)


def test_runs_that_share_features_wait_for_the_first(plan, tmp_path):
    jobs = plan(
        "protocol: noisy\ndatasets: emoji\ntrainers: [CoOp, CoOpDSPT]\nseeds: [1, 2]\n"
        "noise: [none, sym 0.5]\nOPTIM.LR: [1, 2]\n"
    )
    runs = scan(jobs, Journal(tmp_path / "none"))
    leaders = [run for run in runs if not run.after]
    assert sorted(run.job.option("--seed") for run in leaders) == ["1", "2"]
    for run in runs:
        if run.after:
            leader = next(other for other in leaders if [other.job.folder] == run.after)
            assert leader.job.option("--seed") == run.job.option("--seed")
    leaders[0].job.folder.mkdir(parents=True)
    (leaders[0].job.folder / "result.json").write_text('{"seconds": 1}')
    assert sum(not run.after for run in scan(jobs, Journal(tmp_path / "none"))) == 1 + len(jobs) // 2
    maple = plan("protocol: base2new\ndatasets: emoji\ntrainers: MaPLe\nseeds: 1\n", name="maple.yaml")
    assert [feature_key(job) for job in maple] == [None, None]


def test_every_run_is_done_once_in_order(plan, started, tmp_path):
    jobs = plan("protocol: base2new\ndatasets: emoji\ntrainers: [CoOp, CoOpDSPT]\nseeds: [1, 2, 3]\n")
    runs = sweep_with_fakes(jobs, tmp_path, workers=4)
    order = started.read_text().splitlines()
    assert sorted(order) == sorted(str(job.folder) for job in jobs)
    assert all(order.index(str(job.trained_in)) <= order.index(str(job.folder)) for job in jobs)
    assert {run.state for run in runs.values()} == {"done"}
    sweep_with_fakes(jobs, tmp_path)
    assert started.read_text().splitlines() == order


def test_failures_are_tried_again_stop_no_other_and_are_explained(plan, started, tmp_path):
    jobs = plan("protocol: base2new\ndatasets: emoji\ntrainers: [CoOp, CoOpGCE, CoOpMAE]\nseeds: 1\n")
    runs = list(sweep_with_fakes(jobs, tmp_path, retries=2).values())
    counts = Counter(started.read_text().splitlines())
    assert [run.state for run in runs] == ["done", "done", "failed", "skipped", "done", "done"]
    assert [counts[str(job.folder)] for job in jobs] == [1, 1, 3, 0, 2, 2]
    text = summary(runs, tmp_path / "output", "dspt-atlas sweep 'my sweep.yaml'")
    assert (
        "it is broken" in text and "because its training failed" in text and "dspt-atlas sweep 'my sweep.yaml'" in text
    )
    assert "6 runs: 4 done, 1 failed, 1 skipped" in text
    states = [run.state for run in scan(jobs, Journal(tmp_path / "failures.jsonl"))]
    assert states == ["done", "done", "failed", "new", "done", "done"]


def test_a_closed_launcher_ends_its_processes(plan, tmp_path):
    job = plan("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nseeds: 1\n")[0]
    launcher = Local(Options(workers=1, program=("sh", "-c", "exec sleep 1000", "sh")))
    launcher.submit([job, job])
    assert launcher.wait(timeout=0.5) == []
    launcher.close()
    assert any(outcome[1:] == (-15, "killed by SIGTERM") for outcome in launcher.wait(timeout=10))


def test_a_run_that_another_process_holds_is_waited_for(tmp_path, monkeypatch):
    lock = FileLock(tmp_path / ".lock")
    lock.acquire()
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        lock.release()

    monkeypatch.setattr(process.time, "sleep", pause)
    script = f"[ -e {tmp_path}/again ] && exit 0; touch {tmp_path}/again; exit {os.EX_TEMPFAIL}"
    assert process.run_process(["sh", "-c", script], tmp_path) == (0, "")
    assert pauses == [process.POLL_SECONDS]


def test_a_slurm_job_about_to_be_preempted_ends_its_process_and_is_queued_again(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed (pip install submitit)")
    run, queued, pauses = slurm.Restartable(["sleep", "1000"], tmp_path), [], []
    monkeypatch.setattr(slurm.time, "sleep", pauses.append)

    def warn(signum, frame):
        if run._process is not None and not queued:
            queued.append(run.checkpoint())

    before = signal.signal(signal.SIGALRM, warn)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        assert run() == (-15, "killed by SIGTERM")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pauses == [slurm.PATIENCE_SECONDS]  # so that Slurm ends the job before it has a result
    assert (queued[0].function.command, queued[0].function.folder) == (run.command, tmp_path)


@pytest.mark.parametrize("launcher, package", [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_named(launcher, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    if launcher == "slurm":
        monkeypatch.setitem(sys.modules, "cloudpickle", type(sys)("cloudpickle"))
    with pytest.raises(UserError, match=rf"pip install dspt-atlas\[{launcher}\]"):
        make_launcher(launcher, Options())


@pytest.fixture
def slurm_commands(tmp_path, monkeypatch):
    """Return a function (name, script) that puts a command in the place of Slurm's; srun is there."""
    pytest.importorskip("submitit", reason="submitit is not installed (pip install submitit)")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def put(name, script=""):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    put("srun")
    return put


def test_runs_that_slurm_does_not_take_are_a_sentence(plan, slurm_commands, tmp_path):
    slurm_commands(
        "sbatch", "[ -e $0.once ] && { echo 'sbatch: error:\ntoo many' >&2; exit 1; }; touch $0.once; echo job 7"
    )
    jobs = plan("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nseeds: [1, 2, 3]\n")
    launcher = make_launcher("slurm", Options(folder=tmp_path))
    launcher.submit(jobs[:1])
    with refused("2 of the runs", "sbatch: error: too many", "--slurm"):
        launcher.submit(jobs[1:])
    assert json.loads((tmp_path / "slurm.json").read_text()) == {str(jobs[0].folder): "7"}


def test_arrays_that_slurm_took_are_noted_though_it_refuses_the_next(plan, slurm_commands, tmp_path, monkeypatch):
    slurm_commands("sbatch", "[ -e $0.once ] && { echo full >&2; exit 1; }; touch $0.once; echo job 7")
    monkeypatch.setattr(slurm, "ARRAY", 2)
    jobs = plan("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nseeds: [1, 2, 3]\n")
    with refused("1 of the runs", "full"):
        make_launcher("slurm", Options(folder=tmp_path)).submit(jobs)
    assert json.loads((tmp_path / "slurm.json").read_text()) == {
        str(jobs[0].folder): "7_0",
        str(jobs[1].folder): "7_1",
    }


@pytest.mark.parametrize(
    "parameter, said",
    [
        ("partition", "--slurm KEY=VALUE"),
        ("requeu=1", "requeu"),
        ("stderr_to_stdout=1", "--slurm without stderr_to_stdout"),
    ],
)
def test_mistaken_parameters_of_slurm_write_nothing(parameter, said, slurm_commands, tmp_path, capsys):
    output = tmp_path / "output"
    arguments = ["embedded_fewshot", "--launcher", "slurm", "--slurm", parameter, "--output", str(output)]
    assert command.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not output.exists()


def test_a_sweep_that_runs_already_is_refused_before_its_launcher_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "make_launcher", lambda *_: pytest.fail("a launcher was made"))
    (tmp_path / "sweep.yaml").write_text("protocol: fewshot\ndatasets: emoji\ntrainers: CoOp\nseeds: 1\n")
    arguments = [str(tmp_path / "sweep.yaml"), "--output", str(tmp_path / "output")]
    folder = tmp_path / "output" / "sweeps" / "sweep"
    folder.mkdir(parents=True)
    with FileLock(folder / "lock"):
        assert command.main(arguments) == 2
        assert str(folder) in capsys.readouterr().err
        assert command.main([*arguments, "--dry-run"]) == 0
    assert "fewshot/emoji/shots_16/CoOp/emoji_rn/seed1" in capsys.readouterr().out
    assert os.listdir(folder) == ["lock"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["nothing"], "There is no plan nothing"),
        (["embedded_noisy", "--workers", "-1"], "--workers to be at least 0"),
        (["embedded_noisy", "--", "OPTIM.LR"], "odd number"),
        (["embedded_noisy", "--", "OPTIM.LRX", "1"], "no configuration key"),
        (["embedded_noisy", "--", "SEED", "1"], "SEED is set by seeds"),
    ],
)
def test_mistakes_on_the_command_line_write_nothing(arguments, said, tmp_path, capsys):
    split = arguments.index("--") if "--" in arguments else len(arguments)
    output = tmp_path / "output"
    assert command.main([*arguments[:split], "--output", str(output), *arguments[split:]]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not output.exists()


@pytest.mark.slow
def test_the_script_says_what_failed_and_goes_on(tmp_path, tiny_dataset, tiny_clip_path):
    (tmp_path / "tiny.yaml").write_text(f"DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: {tiny_dataset.name}\n")
    (tmp_path / "sweep.yaml").write_text(
        f"protocol: fewshot\ndatasets: {tmp_path / 'tiny.yaml'}\nconfigs: rn50_ep50\nseeds: 1\nshots: 2\n"
        f"trainers: ZeroshotCLIP\nMODEL.BACKBONE.NAME: ['{tiny_clip_path}', /nowhere/clip.pt]\n"
        "DATALOADER.NUM_WORKERS: 0\n"
    )
    arguments = [sys.executable, "-m", "dspt_atlas", "sweep", str(tmp_path / "sweep.yaml")]
    arguments += ["--output", str(tmp_path / "out put"), "--root", str(tiny_dataset.parent), "--retries", "0"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=500)
    assert done.returncode == 1, done.stderr
    assert (
        "2 runs: 1 done, 1 failed" in done.stdout
        and "/nowhere/clip.pt" in done.stdout
        and "'out put'" not in done.stderr
    )
    assert "Traceback" not in done.stdout + done.stderr and "run/s" not in done.stderr
    assert len(list(Path(tmp_path, "out put").rglob("result.json"))) == 1


def test_a_slurm_option_that_is_a_digit_but_no_number_stays_text(tmp_path):
    texts = ["gpus_per_node=2", "account=\u00b2", "comment=-1", "qos=" + "9" * 5000]
    options = SimpleNamespace(slurm=texts, workers=1, address="", time=60)
    parameters = {text.partition("=")[0]: text.partition("=")[2] for text in texts}
    assert Options.of(options, tmp_path).slurm == parameters | {"gpus_per_node": 2}
