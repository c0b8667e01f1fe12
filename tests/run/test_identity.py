"""A run knows its identity: which runs are the same, and what is refused after a change."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from dspt_atlas.config.differences import differences
from dspt_atlas.config.roles import role
from dspt_atlas.datasets.own import OwnFolder
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import KEYS
from dspt_atlas.results.read import load
from dspt_atlas.run.identity import run_identity
from dspt_atlas.run.train import main as train_main
from dspt_atlas.run.train import read_arguments
from dspt_atlas.run.trained import open_run
from dspt_atlas.signals import Interrupted
from dspt_atlas.tools import run_plan as plan_command
from dspt_atlas.trainers.trainer import PromptTrainer
from support.refusals import assert_names
from support.runs import result_of, train_arguments

CLASSES = ("cat", "dog", "owl", "eel")


def write_class(folder, count, seed):
    """Write images with their own colour into a class folder."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, 3) + generator.integers(-60, 60, (40, 48, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


@pytest.fixture
def pets(tmp_path):
    """Return a data root with the class folders `pets/<class>/<n>.png`, 8 images per class."""
    for seed, name in enumerate(CLASSES):
        write_class(tmp_path / "data" / "pets" / name, 8, seed)
    return tmp_path / "data"


@pytest.fixture
def arguments(pets, tiny_clip_path):
    """Return a function (folder, *pairs, option=value) -> train.py's arguments of a run of two epochs on `pets`."""

    common = ("DATASET.NUM_SHOTS", "2")
    return partial(train_arguments, data=pets / "pets", backbone=tiny_clip_path, epochs=2, common=common)


def stopped_after_an_epoch(arguments, monkeypatch):
    """Do the first epoch of a run, whose checkpoint stays."""
    whole = PromptTrainer.after_epoch

    def stop(self):
        whole(self)
        raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(PromptTrainer, "after_epoch", stop)
        assert train_main(arguments) == 143


def add_images(pets):
    write_class(pets / "more", 12, 9)
    for path in (pets / "more").iterdir():
        path.rename(pets / "pets" / "owl" / f"more{path.name}")


def add_class(pets):
    write_class(pets / "pets" / "newt", 8, 7)


def rename_class(pets):
    (pets / "pets" / "owl").rename(pets / "pets" / "barn owl")


def swap_classes(pets):
    (pets / "pets" / "cat").rename(pets / "pets" / "other")
    (pets / "pets" / "dog").rename(pets / "pets" / "cat")
    (pets / "pets" / "other").rename(pets / "pets" / "dog")


def replace_image(pets):
    Image.new("RGB", (90, 70)).save(pets / "pets" / "eel" / "3.png")


CHANGES = {
    add_images: "owl",
    add_class: "newt",
    rename_class: "barn owl",
    swap_classes: "cat",
    replace_image: "eel",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_other_data_in_the_same_place_are_refused_by_the_name_of_what_changed(
    change, state, pets, arguments, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    if state == "finished":
        assert train_main(arguments(folder)) == 0
    else:
        stopped_after_an_epoch(arguments(folder), monkeypatch)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    change(pets)
    capsys.readouterr()
    assert train_main(arguments(folder)) == 2
    assert CHANGES[change] in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_same_data_elsewhere_are_the_same_run(pets, arguments, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train_main(arguments(folder)) == 0
    moved = tmp_path / "elsewhere" / "data"
    shutil.copytree(pets, moved)
    (moved / "pets").rename(moved / "animals")
    written = (folder / "result.json").stat().st_mtime_ns
    assert train_main(arguments(folder, "DATASET.OWN.PATH", "animals", root=moved)) == 0
    assert (folder / "result.json").stat().st_mtime_ns == written


def test_another_root_with_other_data_gets_no_result_of_the_first(pets, arguments, tmp_path, tiny_clip_path):
    other = tmp_path / "other"
    for seed, name in enumerate(CLASSES):
        write_class(other / "pets" / name, 8, seed + 20)
        write_class(other / "pets" / name / "more", 1, seed)
    yaml = tmp_path / "pets.yaml"
    yaml.write_text('DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: "pets"\n')
    shared = [str(yaml), "none", "--trainer", "CoOp", "--config", "rn50_ep50", "--seeds", "1", "--shots", "2"]
    shared += ["--workers", "1", "--output", str(tmp_path / "output")]
    pairs = ["--", "OPTIM.MAX_EPOCH", "1", "MODEL.BACKBONE.NAME", tiny_clip_path, "TRAINER.COOP.N_CTX", "2"]
    pairs += ["DATALOADER.NUM_WORKERS", "0"]
    assert plan_command.main(["noisy", *shared, "--root", str(pets), *pairs]) == 0
    (path,) = (tmp_path / "output").rglob("result.json")
    before = path.read_bytes()
    assert plan_command.main(["noisy", *shared, "--root", str(other), *pairs]) == 2
    assert path.read_bytes() == before
    assert plan_command.main(["noisy", *shared, "--root", str(pets), *pairs]) == 0


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_another_backbone_under_the_same_name_is_refused(
    state, arguments, tmp_path, tiny_clip_path, monkeypatch, capsys
):
    folder, backbone = tmp_path / "run", tmp_path / "clip.pt"
    shutil.copy(tiny_clip_path, backbone)
    if state == "finished":
        assert train_main(arguments(folder, backbone=backbone)) == 0
    else:
        stopped_after_an_epoch(arguments(folder, backbone=backbone), monkeypatch)
    weights = torch.load(tiny_clip_path, weights_only=True)
    torch.save({"state_dict": dict(reversed(weights.items()))}, tmp_path / "same.pt")
    assert train_main(arguments(folder, backbone=tmp_path / "same.pt")) == 0  # the same weights in another file
    if state == "unfinished":
        return
    weights["text_projection"] += 1e-3
    torch.save(weights, backbone)
    assert train_main(arguments(folder, backbone=backbone)) == 2
    assert "backbone" in capsys.readouterr().err


def test_a_resumed_run_refuses_other_weights(arguments, tmp_path, tiny_clip_path, monkeypatch, capsys):
    folder, backbone = tmp_path / "run", tmp_path / "clip.pt"
    shutil.copy(tiny_clip_path, backbone)
    stopped_after_an_epoch(arguments(folder, backbone=backbone), monkeypatch)
    weights = torch.load(tiny_clip_path, weights_only=True)
    weights["text_projection"] += 1e-3
    torch.save(weights, backbone)
    assert train_main(arguments(folder, backbone=backbone)) == 2
    assert train_main(arguments(tmp_path / "second", backbone=backbone, resume=folder)) == 2
    assert not (tmp_path / "second" / "result.json").exists()


def test_a_resumed_run_refuses_another_configuration_of_the_folder_that_it_resumes_from(
    arguments, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    stopped_after_an_epoch(arguments(folder), monkeypatch)
    assert train_main(arguments(tmp_path / "second", "OPTIM.LR", "0.5", resume=folder)) == 2
    assert "OPTIM.LR 0.5" in capsys.readouterr().err
    assert train_main(arguments(tmp_path / "third", resume=folder)) == 0


def test_the_labels_in_a_noise_file_count_and_its_path_does_not(arguments, tmp_path, monkeypatch, capsys):
    noisy = tmp_path / "noisy"
    assert train_main(arguments(noisy, "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5")) == 0
    labels, folder = tmp_path / "labels.json", tmp_path / "run"
    shutil.copy(noisy / "noise.json", labels)
    stopped_after_an_epoch(arguments(folder, "DATASET.NOISE.FILE", labels), monkeypatch)
    shutil.copy(labels, tmp_path / "copy.json")
    content = json.loads(labels.read_text())
    sample = next(sample for sample in content["samples"] if sample["clean"] == sample["given"])
    sample["given"] = (sample["clean"] + 1) % 4
    content["realised_rate"] += 1 / len(content["samples"])
    labels.write_text(json.dumps(content))
    assert train_main(arguments(folder, "DATASET.NOISE.FILE", labels)) == 2
    assert "DATASET.NOISE.FILE" in capsys.readouterr().err
    assert train_main(arguments(folder, "DATASET.NOISE.FILE", tmp_path / "copy.json")) == 0


def test_a_run_without_a_seed_keeps_what_it_drew(arguments, tmp_path, monkeypatch):
    noise = ("DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5")
    folder = tmp_path / "run"
    stopped_after_an_epoch(arguments(folder, *noise, seed=-1), monkeypatch)
    drawn = (folder / "noise.json").read_bytes()
    assert train_main(arguments(folder, *noise, seed=-1)) == 0
    assert (folder / "noise.json").read_bytes() == drawn
    result = result_of(folder)
    assert result["seed"] == -1 and isinstance(result["identity"]["drawn_seed"], int)
    again = tmp_path / "again"
    assert train_main(arguments(again, *noise, seed=-1)) == 0
    assert result_of(again)["identity"]["drawn_seed"] != result["identity"]["drawn_seed"]
    trainer = open_run(folder)  # with the same images and labels
    assert [item.label for item in trainer.dm.dataset.train_x] == [
        sample["given"] for sample in json.loads(drawn)["samples"]
    ]


def test_a_run_that_drew_another_seed_is_not_resumed_from(arguments, tmp_path, monkeypatch, capsys):
    for name in ("one", "other"):
        stopped_after_an_epoch(arguments(tmp_path / name, seed=-1), monkeypatch)
    before = (tmp_path / "one" / "identity.json").read_bytes()
    capsys.readouterr()
    assert train_main(["--resume", str(tmp_path / "other"), *arguments(tmp_path / "one", seed=-1)]) == 2
    assert str(tmp_path / "other") in capsys.readouterr().err
    assert (tmp_path / "one" / "identity.json").read_bytes() == before


def test_label_errors_of_corrected_labels_are_refused(arguments, pets, tmp_path, capsys):
    rows = [f"{path.relative_to(pets)},{path.parent.name}\n" for path in sorted(pets.rglob("*.png"))]
    table = pets / "labels.csv"
    table.write_text("path,classname\n" + "".join(rows))
    folder, pairs = tmp_path / "run", ("DATASET.NAME", "OwnCSV", "DATASET.OWN.PATH", "labels.csv")
    assert train_main(arguments(folder, *pairs)) == 0
    open_run(folder)
    table.write_text("path,classname\n" + "".join(rows[:-1]) + rows[-1].replace(",owl", ",eel"))
    with pytest.raises(UserError, match="owl"):
        open_run(folder)
    assert train_main(arguments(folder, *pairs)) == 2
    assert "owl" in capsys.readouterr().err


def test_a_table_in_another_order_is_another_run_since_other_images_are_drawn(arguments, pets, tmp_path):
    rows = [f"{path.relative_to(pets)},{path.parent.name}\n" for path in sorted(pets.rglob("*.png"))]
    table, digests = pets / "labels.csv", set()
    for order in (rows, rows[::-1]):
        table.write_text("path,classname\n" + "".join(order))
        pairs = ("DATASET.NAME", "OwnCSV", "DATASET.OWN.PATH", "labels.csv")
        cfg, _ = read_arguments(arguments(tmp_path / "run", *pairs))
        digests.add(run_identity(cfg)["data"])
    assert len(digests) == 2


def test_results_checkpoints_and_noise_hold_the_identity(arguments, tmp_path):
    folder = tmp_path / "run"
    assert train_main(arguments(folder, "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5")) == 0
    identity = result_of(folder)["identity"]
    assert len(identity["data"]) == len(identity["backbone"]) == 64
    assert set(identity["revisions"]) == {"learner", "method", "backbone"}
    checkpoint = torch.load(folder / "prompt_learner" / "model.pth.tar-2", weights_only=True)
    assert checkpoint["extra_state"]["identity"] == identity
    assert json.loads((folder / "noise.json").read_text())["data"] == identity["data"]


def test_a_revision_of_the_code_is_another_run(arguments, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    assert train_main(arguments(folder)) == 0
    monkeypatch.setattr(PromptTrainer, "learner_revision", 7)
    assert train_main(arguments(folder)) == 2
    assert_names(capsys.readouterr().err, "revision 7", "learner")


def test_the_identity_of_data_is_of_the_lists_before_sampling_and_noise(arguments, pets, tmp_path):
    digests = set()
    for pairs in (
        (),
        ("DATASET.NUM_SHOTS", "1"),
        ("DATASET.NOISE.TYPE", "asym", "DATASET.NOISE.RATE", "0.25"),
        ("SEED", "5"),
    ):
        cfg, _ = read_arguments(arguments(tmp_path / "run", *pairs))
        digests.add(run_identity(cfg)["data"])
    base, _ = read_arguments(arguments(tmp_path / "run", "DATASET.SUBSAMPLE_CLASSES", "base"))
    digests.add(run_identity(base)["data"])
    assert len(digests) == 1
    other, _ = read_arguments(arguments(tmp_path / "run", "DATASET.OWN.SPLIT_SEED", "2"))
    assert run_identity(other)["data"] not in digests


def test_keys_have_roles_and_old_results_unknown_digests():
    assert [role(key) for key in ("OPTIM.LR", "TEST.PERIOD", "OUTPUT_DIR", "MODEL.BACKBONE.NAME")] == [
        "identity",
        "observing",
        "machine",
        "location",
    ]
    assert {role(key) for key in ("DATALOADER.TEST.BATCH_SIZE", "MODEL.CLASS_CHUNK", "USE_CUDA")} == {"machine"}
    old, new = {"config": {"OPTIM": {"LR": 0.5}}}, {"config": {"OPTIM": {"LR": 0.5}}, "identity": {"data": "a" * 64}}
    assert differences(old, new) == []
    assert differences(new, {**new, "identity": {"data": "b" * 64}}) != []
    assert differences(old, {**new, "identity": {"revisions": {"learner": 2}}}) != []


@pytest.mark.parametrize("key, default, other", [("BASE_CLASSES", [], ["ant"]), ("SKIP_BROKEN", False, False)])
def test_an_older_run_without_one_of_our_keys_had_its_default(key, default, other):
    old = {"config": {"DATASET": {"NUM_SHOTS": 16}}}
    changed = differences(old, {"config": {"DATASET": {"NUM_SHOTS": 16, key: other}}})
    assert differences(old, {"config": {"DATASET": {"NUM_SHOTS": 16, key: default}}}) == []
    assert [key in words for words in changed] == [True] * (other != default)
    assert differences(old, {"config": {"DATASET": {"NUM_SHOTS": 16, "OF_ANOTHER_DASSL": 1}}}) == []


@pytest.mark.parametrize("choice, counts", [("all", False), ("base", True), ("new", True)])
def test_lists_of_classes_count_where_they_are_read(choice, counts):
    runs = [{"config": {"DATASET": {"SUBSAMPLE_CLASSES": choice, "BASE_CLASSES": names}}} for names in ([], ["ant"])]
    assert bool(differences(*runs)) == counts == bool(differences(*reversed(runs)))


@pytest.mark.parametrize("trainer, counts", [("CoOpDSPT", True), ("CoOp", False)])
def test_an_older_run_without_a_key_of_its_method_had_its_default(trainer, counts):
    old = {"config": {"TRAINER": {"NAME": trainer}}}
    assert KEYS["TRAINER.DSPT.TEMPERATURE"].default == 1.0
    changed = [
        differences(old, {"config": {"TRAINER": {"NAME": trainer, "DSPT": {"TEMPERATURE": value}}}})
        for value in (1.0, 0.5)
    ]
    assert [len(found) for found in changed] == [0, counts]


@pytest.mark.parametrize(
    ("trainer", "key", "counts"),
    [
        ("CoOp", "TRAINER.DSPT.TEMPERATURE", False),
        ("CoOpDSPT", "TRAINER.DSPT.TEMPERATURE", True),
        ("ZeroshotCLIP", "OPTIM.LR", False),
        ("ZeroshotCLIP", "INPUT.INTERPOLATION", True),
        ("AnothersTrainer", "TRAINER.DSPT.TEMPERATURE", True),
    ],
)
def test_keys_that_a_trainer_does_not_read_are_not_its_identity(trainer, key, counts):
    before, now = ({"config": {"TRAINER.NAME": trainer, key: value}} for value in (1.0, 2.0))
    assert bool(differences(before, now)) is counts


@pytest.mark.parametrize(("words", "revision"), [("", 1), ("a photo of a", 1), ("itap of a", 2)])
def test_the_revision_of_coop_follows_its_words(words, revision, arguments, tmp_path):
    """Words of several tokens were learned token by token in revision 1, as the family does not."""
    cfg, _ = read_arguments(arguments(tmp_path / "run", "TRAINER.COOP.CTX_INIT", words or '""'))
    assert run_identity(cfg)["revisions"]["learner"] == revision
    maple, _ = read_arguments(arguments(tmp_path / "run", trainer="MaPLe"))
    assert run_identity(maple)["revisions"]["learner"] == 2


OTHERS = ("a drawing of a {}.",)


def test_other_templates_of_the_data_set_are_another_run_for_a_trainer_that_reads_them(
    arguments, tmp_path, monkeypatch, capsys
):
    folders = {name: tmp_path / name for name in ("KgCoOp", "CoOp")}
    for name, folder in folders.items():
        assert train_main(arguments(folder, trainer=name)) == 0
        assert result_of(folder)["identity"]["templates"] is None  # as declared, or not read
    monkeypatch.setattr(OwnFolder, "templates", OTHERS)
    capsys.readouterr()
    assert train_main(arguments(folders["KgCoOp"], trainer="KgCoOp")) == 2
    assert "templates" in capsys.readouterr().err
    assert train_main(arguments(folders["CoOp"], trainer="CoOp")) == 0
    assert train_main(arguments(tmp_path / "other", trainer="KgCoOp", seed=2)) == 0
    rows = load([tmp_path]).frame
    assert len(set(rows["row"][rows["learner"] == "KgCoOp"])) == 2


@pytest.mark.parametrize(
    ("trainer", "pairs", "reads"),
    [
        ("KgCoOp", (), True),
        ("CoOp", (), False),
        ("MaPLeDSPT", ("INPUT.CACHE", "none"), False),
        ("CoOpATLaS", (), False),
        ("CoOpATLaS", ("TRAINER.ATLAS.SOFT_LABELS", "csl"), True),
        ("CoOpATLaS", ("TRAINER.ATLAS.SOFT_LABELS", "isl"), True),
        ("CoOpATLaS", ("TRAINER.ATLAS.SOFT_LABELS", "isl", "TRAINER.ATLAS.TEMPLATE", "a {}."), False),
        ("ZeroshotCLIP", (), True),
        ("ZeroshotCLIP", ("TRAINER.ZEROSHOT.TEMPLATE", "all"), True),
        ("ZeroshotCLIP", ("TRAINER.ZEROSHOT.TEMPLATE", "a {}."), False),
    ],
)
def test_templates_belong_to_the_identity_of_the_runs_that_read_them(trainer, pairs, reads, arguments, monkeypatch):
    cfg, _ = read_arguments(arguments("output", *pairs, trainer=trainer))
    assert run_identity(cfg)["templates"] is None
    monkeypatch.setattr(OwnFolder, "templates", OTHERS)
    found = run_identity(cfg)["templates"]
    assert (found is not None) == reads
    monkeypatch.setattr(OwnFolder, "templates", ("a photo of the {}.",))
    assert (run_identity(cfg)["templates"] != found) == reads


def test_a_new_run_reads_its_lists_once_and_the_next_run_reads_them_again(pets, arguments, tmp_path, monkeypatch):
    reads, read_splits = [], OwnFolder.read_splits

    def counting(self, cfg):
        reads.append(cfg.OUTPUT_DIR)
        return read_splits(self, cfg)

    monkeypatch.setattr(OwnFolder, "read_splits", counting)
    assert train_main(arguments(tmp_path / "first")) == 0
    assert train_main(arguments(tmp_path / "first")) == 0  # finished: for its identity
    add_class(pets)
    assert train_main(arguments(tmp_path / "second")) == 0
    assert [path.rpartition("/")[2] for path in reads] == ["first", "first", "second"]
    assert [result_of(tmp_path / name)["num_classes"] for name in ("first", "second")] == [4, 5]
