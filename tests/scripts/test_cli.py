"""train.py's command line: which source overrides which, and refusals with their facts and exit status."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dspt_atlas.commands import guarded
from dspt_atlas.config.build import build_cfg
from dspt_atlas.config.reading import read_yaml
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import flatten
from dspt_atlas.run.train import main as train_main
from support.paths import CONFIGS, OWN_FOLDER, ROOT
from support.refusals import refused

EMOJI = str(CONFIGS / "datasets" / "emoji.yaml")


def _write(path, text):
    path.write_text(text)
    return str(path)


@pytest.fixture
def tiny_arguments(tiny_clip_path):
    return {"dataset_config_file": EMOJI, "trainer": "CoOpDSPT", "backbone": tiny_clip_path}


def test_later_sources_win(tiny_arguments, tmp_path):
    dataset = _write(
        tmp_path / "d.yaml", "DATASET: {NAME: Emoji, NUM_SHOTS: 1}\nSEED: 1\nOPTIM: {LR: 0.1, MAX_EPOCH: 1}\n"
    )
    trainer = _write(tmp_path / "t.yaml", "SEED: 2\nOPTIM: {LR: 0.2}\nTRAINER: {NAME: CoOp}\n")
    files = {**tiny_arguments, "dataset_config_file": dataset, "config_file": trainer}
    cfg = build_cfg({**files, "seed": 3}, ["OPTIM.LR", "0.4", "TRAINER.NAME", "CoOpGCE"])
    assert (cfg.DATASET.NUM_SHOTS, cfg.SEED, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH) == (1, 3, 0.4, 1)
    assert cfg.TRAINER.NAME == "CoOpGCE"
    assert build_cfg(files).SEED == 2


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_every_seed_is_a_seed(tiny_arguments, seed):
    assert build_cfg({**tiny_arguments, "seed": seed}).SEED == seed


def test_arguments_that_are_empty_are_taken_too(tiny_arguments):
    assert build_cfg({**tiny_arguments, "root": ""}).DATASET.ROOT == ""
    cfg = build_cfg({**tiny_arguments, "transforms": ["random_flip", "normalize"]}, ["DATASET.ROOT", "somewhere"])
    assert (cfg.DATASET.ROOT, tuple(cfg.INPUT.TRANSFORMS)) == ("somewhere", ("random_flip", "normalize"))


def test_values_are_read_as_the_keys_type(tiny_arguments):
    pairs = [
        "OPTIM.LR",
        "1",
        "OUTPUT_DIR",
        "2024",
        "TRAINER.COOP.CTX_INIT",
        "a photo of a",
        "OPTIM.WARMUP_MIN_LR",
        "1e-5",
        "OPTIM.WARMUP_EPOCH",
        "1",
    ]
    cfg = build_cfg(tiny_arguments, [*pairs, "INPUT.TRANSFORMS", "['random_flip']"])
    assert (cfg.OPTIM.LR, type(cfg.OPTIM.LR), cfg.OUTPUT_DIR) == (1.0, float, "2024")
    assert (cfg.TRAINER.COOP.CTX_INIT, cfg.OPTIM.WARMUP_MIN_LR) == ("a photo of a", 1e-5)
    assert tuple(cfg.INPUT.TRANSFORMS) == ("random_flip",)


@pytest.mark.parametrize("text", ["{{}}", "{[]}", "-" * 3000 + "1", "it's", "($x$"])
def test_any_text_is_taken_where_a_key_is_text(text, tiny_arguments):
    assert build_cfg(tiny_arguments, ["DATASET.ROOT", text]).DATASET.ROOT == text


def test_size_and_normalisation_follow_the_backbone_unless_given(tiny_arguments):
    cfg = build_cfg(tiny_arguments)
    assert tuple(cfg.INPUT.SIZE) == (32, 32)
    assert cfg.INPUT.PIXEL_MEAN[0] == pytest.approx(0.48145466)
    pairs = ["INPUT.SIZE", "(48, 48)", "INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]", "INPUT.TRANSFORMS", "('normalize',)"]
    cfg = build_cfg(tiny_arguments, pairs)
    assert (tuple(cfg.INPUT.SIZE), cfg.INPUT.PIXEL_MEAN) == ((48, 48), [0.5, 0.5, 0.5])
    assert tuple(build_cfg({**tiny_arguments, "backbone": "RN50x4"}).INPUT.SIZE) == (288, 288)


def test_asking_for_noise_chooses_the_noisy_data_set(tiny_arguments):
    assert build_cfg(tiny_arguments).DATASET.NAME == "Emoji"
    noise = ["DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5"]
    assert build_cfg(tiny_arguments, noise).DATASET.NAME == "NoisyEmoji"
    assert build_cfg(tiny_arguments, [*noise, "DATASET.NAME", "NoisyEmoji"]).DATASET.NAME == "NoisyEmoji"


def test_a_yaml_extends_its_base_relative_to_itself(tmp_path):
    (tmp_path / "sub").mkdir()
    _write(tmp_path / "base.yaml", "A: {B: 1, C: 2}\nD: 3\n")
    _write(tmp_path / "middle.yaml", '_BASE_: "base.yaml"\nA: {B: 10}\n')
    child = _write(tmp_path / "sub" / "child.yaml", "_BASE_: ../middle.yaml\nA: {E: 5}\n")
    assert read_yaml(child) == {"A": {"B": 10, "C": 2, "E": 5}, "D": 3}


def test_a_base_that_leads_back_is_refused(tmp_path):
    _write(tmp_path / "a.yaml", "_BASE_: b.yaml\n")
    _write(tmp_path / "b.yaml", "_BASE_: a.yaml\n")
    with refused(tmp_path / "a.yaml", "_BASE_"):
        read_yaml(tmp_path / "a.yaml")


@given(st.recursive(st.integers(), lambda tree: st.dictionaries(st.text("abc", min_size=1), tree, min_size=1)))
def test_flatten_keeps_every_leaf(tree):
    tree = {"root": tree}
    rebuilt = {}
    for key, value in flatten(tree):
        *parents, last = key.split(".")
        node = rebuilt
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    assert rebuilt == tree


def _trainer_configs():
    return sorted(path for path in (CONFIGS / "trainers").glob("*/*.yaml"))


@pytest.mark.parametrize("path", _trainer_configs(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_configuration_fits_its_trainer(path, tiny_clip_path):
    head = path.read_text().split("_BASE_")[0]
    assert f"--config-file {path.relative_to(ROOT)}" in head and f"--trainer {path.parent.name}" in head
    arguments = {"config_file": str(path), "dataset_config_file": EMOJI, "trainer": path.parent.name}
    backbone = dict(flatten(read_yaml(path)))["MODEL.BACKBONE.NAME"]
    if backbone.startswith("Emoji"):
        arguments["backbone"] = tiny_clip_path
    cfg = build_cfg(arguments)
    is_tcp = path.parent.name == "TCP"  # Adam with an eps of its own, and 500 test images at a time
    assert (cfg.OPTIM.NAME, cfg.OPTIM.ADAM_EPS) == (("adam", 1e-3) if is_tcp else ("sgd", 1e-8))
    assert cfg.DATALOADER.TEST.BATCH_SIZE == (500 if is_tcp and not backbone.startswith(("Emoji", "Photo")) else 100)
    assert (cfg.OPTIM.LR_SCHEDULER, cfg.OPTIM.WARMUP_EPOCH, cfg.OPTIM.WARMUP_CONS_LR) == ("cosine", 1, 1e-5)
    assert (cfg.OPTIM.WEIGHT_DECAY, cfg.OPTIM.MOMENTUM) == (5e-4, 0.9)
    assert cfg.INPUT.INTERPOLATION == "bicubic" and cfg.TEST.FINAL_MODEL == "last_step"
    assert tuple(cfg.INPUT.TRANSFORMS) == ("random_resized_crop", "random_flip", "normalize")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("CoOp/rn50", ("RN50", 0.002, 200, 32, 16, "")),
        ("CoOp/rn50_ep50", ("RN50", 0.002, 50, 32, 16, "")),
        ("CoOp/vit_b16_ep100_ctxv1", ("ViT-B/16", 0.002, 100, 32, 4, "a photo of a")),
        ("CoCoOp/vit_b16_c4_ep10_batch1_ctxv1", ("ViT-B/16", 0.002, 10, 1, 4, "a photo of a")),
        ("KgCoOp/vit_b16_ep100_ctxv1", ("ViT-B/16", 0.002, 100, 128, 4, "a photo of a")),
        ("ProGrad/rn50", ("RN50", 0.002, 200, 32, 16, True)),
        ("ProGrad/rn50_ep50", ("RN50", 0.002, 50, 32, 16, True)),
        ("ProGrad/rn50_ep100", ("RN50", 0.002, 100, 32, 16, True)),
        ("TCP/vit_b16_ep50", ("ViT-B/16", 0.002, 50, 32, 4, "")),
        ("TCP/vit_b16_ep25", ("ViT-B/16", 0.002, 25, 32, 4, "")),
        ("MaPLe/vit_b16_c2_ep5_batch4_2ctx", ("ViT-B/16", 0.0035, 5, 4, 2, "a photo of a", 9)),
        ("MaPLe/vit_b16_c2_ep5_batch4_2ctx_cross_datasets", ("ViT-B/16", 0.0026, 2, 4, 2, "a photo of a", 3)),
    ],
)
def test_the_papers_settings(name, expected):
    learner = name.split("/")[0]
    path = str(CONFIGS / "trainers" / f"{name}.yaml")
    cfg = build_cfg({"config_file": path, "dataset_config_file": EMOJI, "trainer": learner})
    node = cfg.TRAINER[learner.upper()]
    found = (cfg.MODEL.BACKBONE.NAME, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH, cfg.DATALOADER.TRAIN_X.BATCH_SIZE)
    found += (node.N_CTX, node.CTX_INIT, *([node.PROMPT_DEPTH] if learner == "MaPLe" else []))
    assert found == expected


BAD_COMMANDS = {
    "unknown key": (["OPTIM.LT", "1"], "did you mean OPTIM.LR?"),
    "lower case key": (["optim.lr", "1"], "did you mean OPTIM.LR?"),
    "group of keys": (["OPTIM", "1"], "group of keys"),
    "odd pairs": (["OPTIM.LR"], "odd number"),
    "wrong type": (["OPTIM.MAX_EPOCH", "many"], "expected OPTIM.MAX_EPOCH to be int"),
    "one transform as text": (["INPUT.TRANSFORMS", "normalize"], "expected INPUT.TRANSFORMS to be tuple"),
    "unknown trainer": (["--trainer", "CoOpDSP"], "did you mean CoOpDSPT?"),
    "unknown data set": (["DATASET.NAME", "Emojy"], "did you mean Emoji?"),
    "missing yaml": (["--config-file", "nowhere.yaml"], "nowhere.yaml"),
    "negative seed": (["--seed", "-2"], "seed from 0"),
    "seed of 33 bits": (["--seed", str(2**32)], "seed from 0"),
    "seed in words": (["--seed", "one"], "invalid int value"),
    "unknown option": (["--sed", "1"], "--sed"),
    "noise in percent": (["DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "50"], "50"),
    "unknown noise": (["DATASET.NOISE.TYPE", "sim", "DATASET.NOISE.RATE", "0.5"], "sim"),
    "no backbone": (["--backbone", ""], "No backbone"),
    "unknown backbone": (["--backbone", "RN51"], "RN50"),
    "untrained prompt": (["--eval-only"], "--model-dir"),
    "missing model": (["--eval-only", "--model-dir", "nowhere"], "nowhere"),
    "missing init weights": (["MODEL.INIT_WEIGHTS", "nowhere.pt"], "nowhere.pt"),
    "unknown precision": (["TRAINER.COOP.PREC", "fp8"], "fp16"),
    "missing data": (["DATASET.NAME", "Caltech101", "DATASET.ROOT", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("arguments, expected", BAD_COMMANDS.values(), ids=BAD_COMMANDS)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    arguments, expected, tiny_clip_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    common = [
        "--dataset-config-file",
        EMOJI,
        "--trainer",
        "CoOpDSPT",
        "--backbone",
        tiny_clip_path,
        "--output-dir",
        "out/run",
    ]
    try:
        status = train_main([*common, *arguments])
    except SystemExit as stop:  # from argparse
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert expected in error and "Traceback" not in error
    assert error.strip().splitlines()[-1].startswith("dspt-atlas train: ")
    assert not list(tmp_path.iterdir())


def test_a_damaged_yaml_is_named(tiny_arguments, tmp_path):
    for text in ("OPTIM: [1", "- a\n- b\n", "OPTIM: {LR: }\n"):
        with pytest.raises(UserError, match=r"bad\.yaml"):
            build_cfg({**tiny_arguments, "config_file": _write(tmp_path / "bad.yaml", text)})


def test_traceback_is_shown_on_request(capsys):
    assert train_main(["--trainer", "Nothing", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_train_py_as_a_user_runs_it(tiny_dataset, tiny_clip_path, tmp_path):
    folder = tmp_path / "a folder"
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "--root",
        str(tiny_dataset.parent),
        "--seed",
        "0",
        "--trainer",
        "CoOp",
    ]
    command += ["--dataset-config-file", str(OWN_FOLDER), "--backbone", tiny_clip_path]
    command += ["--config-file", str(CONFIGS / "trainers" / "CoOp" / "rn50_ep50.yaml"), "--output-dir", str(folder)]
    command += ["DATASET.OWN.PATH", tiny_dataset.name, "OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.index("Finish training") < lines.index("=> result")
    assert any(line.startswith("* accuracy: ") and line.endswith("%") for line in lines)
    assert yaml.safe_load((folder / "config.yaml").read_text())["SEED"] == 0
    assert (folder / "log.txt").read_text().splitlines()[-3:] == lines[-3:]

    help_text = subprocess.run(
        [*command[:2], "--help"], capture_output=True, text=True, check=True, cwd=Path("/")
    ).stdout
    for option in ("--root", "--output-dir", "--resume", "--source-domains", "--target-domains", "--transforms",
                   "--head", "--eval-only", "--model-dir", "--load-epoch", "--no-train", "--clip-dir"):  # fmt: skip
        assert option in help_text


def test_a_console_that_knows_no_such_letters_stops_no_command(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    assert guarded(lambda: print("Kätzchen 🐈"), "train.py", "start it again") == 0
    console.flush()
    assert console.buffer.getvalue() == b"K\\xe4tzchen \\U0001f408\n"


@pytest.mark.parametrize("length", [10, 1_000_000])  # noticed at the last flush, and while it prints
def test_output_that_nobody_reads_any_more_ends_a_command_without_a_word(length):
    reader, writer = os.pipe()
    os.close(reader)
    code = (
        "import sys; from dspt_atlas.commands import guarded, leave\n"
        f"leave(guarded(lambda: print('x' * {length}), 'figures.py', 'start it again'))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
