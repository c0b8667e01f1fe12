"""The plan paper/photos."""

from pathlib import Path

from dspt_atlas.plan.evidence import skipped_parts
from dspt_atlas.plan.planner import plan_names, read_plan
from dspt_atlas.tools import run_plan

METHODS = {"CoOp", "CoOpLS", "CoOpGCE", "CoOpMAE", "CoOpNLPrompt", "CoOpJoAPR", "CoOpDSPT"}
NOISE = {"clean", "sym_0.25", "sym_0.5", "sym_0.75", "asym_0.25", "asym_0.5"}


def test_all_of_a_seed_comes_before_the_next_seed():
    assert "paper/photos" in plan_names()
    jobs = read_plan("paper/photos").jobs("", Path("output"))
    seeds = [int(job.option("--seed")) for job in jobs]
    assert seeds == sorted(seeds) and set(seeds) == {1, 2, 3, 4, 5}
    once = [job for job in jobs if "MODEL.BACKBONE.NAME" in job.pairs]
    assert {job.option("--seed") for job in once} == {"1"}
    assert {seeds.count(seed) - len(once) * (seed == 1) for seed in set(seeds)} == {seeds.count(2)}
    assert {Path(job.option("--config-file")).stem for job in jobs} == {"photo_en"}
    assert {job.part for job in jobs} == {"photos"}


def test_every_method_noise_and_rate_is_run_and_base_to_new_with_five_learners():
    jobs = [job for job in read_plan("paper/photos").jobs("", Path()) if job.option("--seed") == "1"]
    noisy = [
        job
        for job in jobs
        if job.folder.parts[0] == "noisy"
        and not {"MODEL.LOGIT_SCALE", "TRAINER.COOP.CSC", "MODEL.BACKBONE.NAME"} & {*job.pairs}
    ]
    found = {(job.option("--trainer"), job.folder.parts[2], job.pairs.get("OPTIM.LR")) for job in noisy}
    rates = ("0.002", "0.01", "0.05")
    trained = {(method, noise, rate) for method in METHODS for noise in NOISE for rate in rates}
    assert found == trained | {("ZeroshotCLIP", noise, None) for noise in NOISE}
    assert all(job.pairs["TEST.NOISY_VAL"] == "True" for job in noisy if job.option("--trainer") != "ZeroshotCLIP")
    trainings = [job for job in jobs if job.folder.parts[:2] == ("base2new", "train_base")]
    names = [f"{learner}{method}" for learner in ("CoOp", "CoCoOp", "KgCoOp", "ProGrad", "TCP") for method in
             ("", "LS", "DSPT", "ATLaS", "ATLaS", "ATLaS")]  # fmt: skip
    assert sorted(job.option("--trainer") for job in trainings) == sorted([*names, "ZeroshotCLIP"])


def test_two_text_towers_are_compared_at_one_setting():
    jobs = read_plan("paper/photos").jobs("", Path())
    pairs = [(job.option("--trainer"), job.pairs) for job in jobs if "MODEL.BACKBONE.NAME" in job.pairs]
    kinds = [(trainer, keys["DATASET.NOISE.TYPE"], keys["MODEL.BACKBONE.NAME"]) for trainer, keys in pairs]
    towers = ("PhotoEN", "PhotoEN-MiniLM")
    trained = [(name, noise, tower) for name in ("CoOp", "CoOpDSPT") for noise in ("none", "sym") for tower in towers]
    assert sorted(kinds) == sorted([*trained, ("ZeroshotCLIP", "none", "PhotoEN-MiniLM")])
    (settings,) = {
        tuple(value for key, value in keys.items() if key.split(".")[0] in ("OPTIM", "TRAINER") or "SCALE" in key)
        for trainer, keys in pairs
        if trainer != "ZeroshotCLIP"
    }
    assert settings == ("0.03", "20", "100", "16")


def test_without_the_data_it_is_skipped_and_the_missing_file_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    assert run_plan.main(["paper/photos", "--output", str(tmp_path / "output")]) == 0
    said = capsys.readouterr().err
    assert str(tmp_path / "caltech-101" / "split_zhou_Caltech101.json") in said and said.count("\n") == 1
    assert not (tmp_path / "output").exists()
    assert skipped_parts().keys() == {"photos"}
