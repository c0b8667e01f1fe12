"""In a fork: a miniature one (support/miniature_fork) that we adopt, import in every order, train in; its keys."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from yacs.config import CfgNode

import dspt_atlas
from dspt_atlas.config.reading import read_yaml
from dspt_atlas.datasets.noise import NoiseRecord
from dspt_atlas.tools import adopt
from support.paths import ROOT
from support.refusals import refused


@pytest.fixture
def fork(tiny_fork):
    return tiny_fork


def _snapshot(folder):
    paths = [path for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(paths)}


def _run(fork, tmp_path, *command, **environment):
    variables = {**os.environ, "DSPT_ATLAS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    variables.update(PYTHON=sys.executable, **environment)
    return subprocess.run(command, cwd=fork, env=variables, capture_output=True, text=True, timeout=300, check=False)


def _adopt(fork, *options):
    return adopt.main([str(fork), *options])


# What each import order must leave as it was: prints as JSON what is registered, whose it is, and how CLIP computes.
PROBE = """
import json, sys
for line in sys.argv[1:]:
    exec(line)
import clip.clip, clip.model, datasets, trainers, torch
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode
from dspt_atlas.trainers.clip import model as clip_model
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
cfg = get_cfg_default()
cfg.TRAINER.COOP = CfgNode({"N_CTX": 3})
cfg.TRAINER.GCE = CfgNode({"Q": 0.25, "THEIRS": "kept"})
dspt_atlas.extend_cfg(cfg)
dspt_atlas.extend_cfg(cfg)
model = clip_model.load_clip("clip/tiny.pt")
names = ["cat", "longer_name"]
theirs = model.encode_text(clip.clip.tokenize(["a photo of a cat.", "a photo of a longer name."]))
ours = zero_shot_features(model, names, ["a photo of a {}."])
registries = {"trainers": TRAINER_REGISTRY, "datasets": DATASET_REGISTRY}
print(json.dumps({
    **{kind: {n: names.get(n).__module__ for n in names.registered_names()} for kind, names in registries.items()},
    "noisy_bases": {n: DATASET_REGISTRY.get("Noisy" + n).__mro__[1].__module__ for n in ("Caltech101", "Blobs")},
    "files": [module.__file__ for module in (clip, clip_model.clip, datasets, trainers)],
    "coop": [cfg.TRAINER.COOP.N_CTX, cfg.TRAINER.COOP.CSC], "gce": dict(cfg.TRAINER.GCE),
    "noise": cfg.DATASET.NOISE.TYPE,
    "text_difference": (torch.nn.functional.normalize(theirs, dim=-1) - ours).abs().max().item(),
    "text_distance": (ours[0] - ours[1]).abs().max().item(),
}))
"""
OURS = "import dspt_atlas"
THEIRS = (
    "import trainers.coop, trainers.cocoop, trainers.gce",
    "import datasets.caltech101, datasets.blobs",
    "from clip import clip",
)
ORDERS = {"first": (OURS, *THEIRS), "between": (*THEIRS[:1], OURS, *THEIRS[1:]), "last": (*THEIRS, OURS)}


UPSTREAM = "import dassl.utils; del dassl.utils.Registry.register_default"  # which upstream's Dassl does not have


@pytest.mark.slow
@pytest.mark.parametrize(
    "before, order", [*(((), order) for order in ORDERS), ((UPSTREAM,), "first"), ((UPSTREAM,), "last")]
)
def test_what_the_fork_has_stays_its_own_in_every_import_order(before, order, fork, tmp_path):
    ours_by_name = "from .coop import TRAINER_REGISTRY, CoOp\nTRAINER_REGISTRY.register(type('CoOpGCE', (CoOp,), {}))\n"
    (fork / "trainers" / "gce.py").write_text(ours_by_name)
    done = _run(fork, tmp_path, sys.executable, "-c", PROBE, *before, *ORDERS[order])
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    own = {"CoOp": "trainers.coop", "CoCoOp": "trainers.cocoop", "CoOpGCE": "trainers.gce"}
    assert {name: module for name, module in seen["trainers"].items() if module.startswith("trainers")} == own
    ours = set(seen["trainers"]) - set(own)
    assert {"CoOpDSPT", "CoCoOpGCE", "MaPLeMAE", "MaPLeATLaS"} <= ours
    assert all(seen["trainers"][name].startswith("dspt_atlas.trainers.") for name in ours)
    assert not {"MaPLe", "ZeroshotCLIP"} & ours
    assert set(seen["datasets"]) == {"Caltech101", "Blobs", "NoisyCaltech101", "NoisyBlobs"}
    assert seen["noisy_bases"] == {"Caltech101": "datasets.caltech101", "Blobs": "datasets.blobs"}
    assert seen["datasets"]["Caltech101"] == "datasets.caltech101"
    assert all(Path(file).is_relative_to(fork) for file in seen["files"])
    assert seen["coop"] == [3, False]
    assert seen["gce"] == {"Q": 0.25, "THEIRS": "kept"}
    assert seen["noise"] == "none"
    assert seen["text_difference"] < 1e-5
    assert seen["text_distance"] > 1e-3


@pytest.mark.slow
def test_an_adopted_fork_trains_our_methods_with_its_own_train_py(fork, tiny_dataset, tmp_path):
    done = _run(fork, tmp_path, sys.executable, "-m", "dspt_atlas", "adopt", ".")
    assert done.returncode == 0, done.stderr
    patch = _run(fork, tmp_path, "git", "apply", "scripts/dspt_atlas/train.patch")
    assert patch.returncode == 0, patch.stderr
    assert "dspt_atlas.extend_cfg(cfg)\n" in (fork / "train.py").read_text()

    settings = {"DATA": str(tiny_dataset.parent), "SEEDS": "1", "SHOTS": "4"}
    noisy = ("bash", "scripts/dspt_atlas/noisy.sh", "CoOpDSPT", "blobs", "sym", "0.5")
    done = _run(fork, tmp_path, *noisy, **settings)
    assert done.returncode == 0, done.stderr
    assert "Loading trainer: CoOpDSPT" in done.stdout and "Loading dataset: Blobs" in done.stdout
    assert "* accuracy: " in done.stdout.partition("=> result")[2]
    folder = fork / "output/noisy/blobs/sym-0.5/CoOpDSPT/CoOp_rn50_ep50_4shots/seed1"
    noise = NoiseRecord.load(folder / "noise.json")
    assert sum(clean != given for clean, given in zip(noise.clean, noise.given, strict=True)) == 8
    assert torch.load(folder / "prompt_learner/model.pth.tar-2", weights_only=True)["state_dict"]["ctx"].shape == (
        3,
        64,
    )
    assert _run(fork, tmp_path, *noisy, **settings).stdout.count("\n") == 1

    pairs = ("TRAINER.MAPLE.PROMPT_DEPTH", "2", "TRAINER.MAPLE.PREC", "fp32")
    base2new = ("bash", "scripts/dspt_atlas/base2new.sh", "MaPLeATLaS", "caltech101", *pairs)
    done = _run(fork, tmp_path, *base2new, **settings, CONFIG="CoOp/rn50_ep50")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("=> result") == 2
    assert len(list((fork / "output/base2new").rglob("done"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["CoOp", "CoOpDoubleSoftmax", "CoCoOpDoubleSoftmax"])
def test_their_trainers_stay_theirs_and_get_robust_variants(trainer, fork, tiny_dataset, tmp_path):
    train = (fork / "train.py").read_text()
    train = train.replace("    extend_cfg(cfg)\n", "    extend_cfg(cfg)\n    dspt_atlas.extend_cfg(cfg)\n")
    register = "TRAINER_REGISTRY.register(dspt_atlas.with_loss({}, dspt_atlas.DoubleSoftmax))\n".format
    imports = "from dassl.engine import TRAINER_REGISTRY\n"
    train = f"import dspt_atlas\n{train}".replace(
        "\n\ndef reset_cfg",
        f"{imports}{register('trainers.coop.CoOp')}{register('trainers.cocoop.CoCoOp')}\n\ndef reset_cfg",
    )
    (fork / "train.py").write_text(train)
    configs = (
        "--dataset-config-file",
        "configs/datasets/blobs.yaml",
        "--config-file",
        "configs/trainers/CoOp/rn50_ep50.yaml",
    )
    command = (
        sys.executable,
        "train.py",
        "--root",
        str(tiny_dataset.parent),
        "--seed",
        "1",
        "--output-dir",
        "out",
        *configs,
    )
    noise = ("DATASET.NAME", "NoisyBlobs", "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5")
    done = _run(fork, tmp_path, *command, "--trainer", trainer, *noise)
    assert f"Building the fork's own {trainer}" in done.stdout
    assert done.returncode == 0, done.stderr
    assert NoiseRecord.load(fork / "out/noise.json").realised_rate == 0.5
    assert "* accuracy: " in done.stdout.partition("=> result")[2]
    saved = torch.load(fork / "out/prompt_learner/model.pth.tar-2", weights_only=True)["state_dict"]
    assert {"ctx", "token_prefix", "token_suffix"} == set(saved)


# dspt-atlas adopt


def test_a_dry_run_writes_nothing_and_shows_the_diff(fork, capsys):
    before = _snapshot(fork)
    assert _adopt(fork, "--dry-run") == 0
    assert _snapshot(fork) == before
    printed = capsys.readouterr().out
    assert "+import dspt_atlas\n" in printed and "+    dspt_atlas.extend_cfg(cfg)\n" in printed
    assert "new: scripts/dspt_atlas/noisy.sh" in printed
    assert "kept, the fork's own: configs/trainers/CoOp/rn50_ep50.yaml" in printed


def test_adopting_changes_no_file_of_the_fork_and_undo_restores_it(fork, capsys):
    before = _snapshot(fork)
    assert _adopt(fork) == 0
    after = _snapshot(fork)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if "emoji" in name.lower()]
    assert {"scripts/dspt_atlas/noisy.sh", "scripts/dspt_atlas/runs.sh", "configs/trainers/MaPLe"} <= set(after)
    capsys.readouterr()
    assert _adopt(fork) == 0
    assert "0 new files" in capsys.readouterr().out
    assert _snapshot(fork) == after
    assert _adopt(fork, "--undo", "--dry-run") == 0
    assert _snapshot(fork) == after
    assert _adopt(fork, "--undo") == 0
    assert _snapshot(fork) == before


def test_every_copied_configuration_merges_as_a_fork_merges_it(fork):
    before = _snapshot(fork)
    _adopt(fork)
    copied = [fork / name for name in _snapshot(fork) if name.endswith(".yaml") and name not in before]
    assert len(copied) > 30
    for path in copied:
        cfg = get_cfg_default()
        dspt_atlas.extend_cfg(cfg)
        cfg.merge_from_file(str(path))
        if "trainers" in path.parts:
            original = read_yaml(ROOT / path.relative_to(fork))
            assert original["MODEL"]["BACKBONE"]["NAME"] == cfg.MODEL.BACKBONE.NAME
            assert (cfg.OPTIM.LR, cfg.INPUT.SIZE) == (original["OPTIM"]["LR"], (224, 224))
            assert cfg.INPUT.PIXEL_MEAN == [0.48145466, 0.4578275, 0.40821073]


BOOLEAN = """    cfg.TRAINER.COOP.CTX_INIT = False
    cfg.SEED = int("1")
    cfg.TRAINER.COCOOP = CN({"N_CTX": "16"})
    cfg.TRAINER.COCOOP.CTX_INIT = False
"""


@pytest.fixture(params=["train.py", "options/configs.py"])
def boolean_fork(fork, request):
    """The miniature fork with CTX_INIT as a boolean, as in KgCoOp's, set in train.py or in a file that it imports."""
    train = (fork / "train.py").read_text()
    start, end = train.index("def extend_cfg"), train.index("def setup_cfg")
    function = train[start:end].rstrip().replace("    cfg.DATASET", f"{BOOLEAN}    cfg.DATASET") + "\n\n\n"
    place = fork / request.param
    if request.param == "train.py":
        train = train[:start] + function + train[end:]
    else:
        place.parent.mkdir()
        place.write_text(function)
        train = f"from options.configs import extend_cfg\n{train[:start]}{train[end:]}"
    (fork / "train.py").write_text(train)
    return fork


def test_what_is_adopted_merges_with_the_forks_own_defaults(boolean_fork, capsys):
    before = _snapshot(boolean_fork)
    assert _adopt(boolean_fork) == 0
    printed = capsys.readouterr().out
    for name in set(_snapshot(boolean_fork)) - set(before):
        if not name.startswith("configs/trainers") or not name.endswith(".yaml"):
            continue
        cfg = get_cfg_default()
        cfg.TRAINER.COOP = CfgNode({"N_CTX": 3, "PREC": "fp32", "CTX_INIT": False})
        cfg.TRAINER.COCOOP = CfgNode({"N_CTX": "16", "CTX_INIT": False})
        dspt_atlas.extend_cfg(cfg)
        cfg.merge_from_file(str(boolean_fork / name))
        original, adapted = read_yaml(ROOT / name).get("TRAINER", {}), (boolean_fork / name).read_text()
        for learner in ("COOP", "COCOOP"):
            words = original.get(learner, {}).get("CTX_INIT", "")
            assert cfg.TRAINER[learner].CTX_INIT is bool(words)
            assert not words or f"TRAINER.{learner}.CTX_INIT is True" in adapted
        if "COCOOP" in original:
            assert "TRAINER.COCOOP.N_CTX" in adapted and cfg.TRAINER.COCOOP.N_CTX == "16"
            assert f"new: {name}\n  TRAINER.COCOOP.N_CTX" in printed


@pytest.mark.parametrize("learner", ["COOP", "COCOOP"])
@pytest.mark.parametrize("flag, words", [(True, "a photo of a"), (False, "")])
def test_a_boolean_of_the_fork_starts_our_context_as_the_words_that_it_means(
    learner, flag, words, tiny_cfg, tiny_run, tiny_clip_path, tmp_path
):
    trainer = {"COOP": "CoOpDSPT", "COCOOP": "CoCoOpDSPT"}[learner]
    cfg = tiny_cfg(trainer, tiny_clip_path, tmp_path / "boolean")
    cfg.defrost()
    cfg.TRAINER[learner].CTX_INIT = flag
    cfg.freeze()
    torch.manual_seed(1)
    boolean = build_trainer(cfg).model.prompt_learner
    reference = tiny_run(trainer, tiny_clip_path, tmp_path, f"TRAINER.{learner}.CTX_INIT", words).model.prompt_learner
    assert torch.equal(boolean.ctx, reference.ctx)
    assert boolean.sequences == reference.sequences


def test_undo_keeps_what_was_changed_since_and_names_lines_in_train_py(fork, capsys):
    _adopt(fork)
    changed, stays = fork / "configs/trainers/CoOp/rn50.yaml", fork / "configs/trainers/CoOp/mine.yaml"
    changed.write_text("SEED: 5\n")
    stays.write_text("SEED: 6\n")
    (fork / "train.py").write_text("import dspt_atlas\n" + (fork / "train.py").read_text())
    capsys.readouterr()
    assert _adopt(fork, "--undo") == 0
    printed = capsys.readouterr().out
    assert "kept, changed since: configs/trainers/CoOp/rn50.yaml" in printed
    assert "line 1: import dspt_atlas" in printed
    assert changed.read_text() == "SEED: 5\n" and stays.exists()
    assert not (fork / "scripts").exists() and not (fork / adopt.MANIFEST).exists()


def _no_train_py(fork):
    (fork / "train.py").unlink()


def _no_config(fork):
    (fork / "train.py").write_text("print('hello')\n")


def _python_2(fork):
    (fork / "train.py").write_text("print 'hello'\n")


def _escaping(fork):
    (fork / adopt.MANIFEST).write_text('{"files": {"../other.txt": "0"}, "folders": []}')


def _damaged(fork):
    (fork / adopt.MANIFEST).write_text("{")


@pytest.mark.parametrize(
    "damage, option, fact",
    [
        (_no_train_py, "--dry-run", "train.py"),
        (_no_config, "--dry-run", "extend_cfg"),
        (_python_2, "--dry-run", "line 1"),
        (lambda fork: None, "--undo", "a fork"),
        (_escaping, "--undo", adopt.MANIFEST),
        (_damaged, "--undo", adopt.MANIFEST),
    ],
)
def test_what_cannot_be_adopted_or_undone_is_refused_in_one_sentence(damage, option, fact, fork, capsys):
    damage(fork)
    before = _snapshot(fork)
    assert _adopt(fork, option) == 2
    error = capsys.readouterr().err
    assert fact in error and error.count("\n") == 1
    assert _snapshot(fork) == before


def test_this_project_is_no_fork_of_its_own(capsys):
    assert _adopt(ROOT, "--dry-run") == 2
    assert str(ROOT) in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, added",
    [
        ("import dassl\ncfg = get_cfg_default()\n", ["import dspt_atlas\n", "dspt_atlas.extend_cfg(cfg)\n"]),
        ("import dassl\r\nc = config.get_cfg_default()\r\n", ["import dspt_atlas\r\n", "dspt_atlas.extend_cfg(c)\r\n"]),
        ("import dspt_atlas\ndef f(c):\n  extend_cfg(\n    c\n  )\n", ["  dspt_atlas.extend_cfg(c)\n"]),
        ("import dspt_atlas\nextend_cfg(cfg)\ndspt_atlas.extend_cfg(cfg)\n", []),
        (
            '"""Doc."""\nfrom x import (\n  y,\n)\nextend_cfg(cfg)',
            ["import dspt_atlas\n", "extend_cfg(cfg)\n", "dspt_atlas.extend_cfg(cfg)\n"],
        ),
    ],
)
def test_the_diff_adds_what_a_train_py_lacks_and_applies(text, added, fork, tmp_path):
    (fork / "train.py").write_bytes(text.encode())
    diff = adopt.train_diff(fork)
    assert [line[1:] for line in diff.splitlines(keepends=True)[2:] if line.startswith("+")] == added
    if added:
        (fork / "train.patch").write_bytes(diff.encode())
        applied = _run(fork, tmp_path, "git", "apply", "train.patch")
        assert applied.returncode == 0, applied.stderr
    assert adopt.train_diff(fork) == ""


# Configuration keys


def test_a_key_of_the_fork_where_we_need_a_group_is_named():
    cfg = get_cfg_default()
    cfg.DATASET.NOISE = 0.5
    with refused("NOISE", "0.5"):
        dspt_atlas.extend_cfg(cfg)
    cfg = get_cfg_default()
    cfg.DATASET.NOISE = CfgNode({"RATE": 0.5})
    dspt_atlas.extend_cfg(cfg)
    assert (cfg.DATASET.NOISE.RATE, cfg.DATASET.NOISE.TYPE) == (0.5, "none")
