"""`dspt_atlas.fit`: the command line's prompts, from every kind of data, in any thread, and nothing is left behind."""

import logging
import random
import shutil
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clip.clip
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

import dspt_atlas as da
from dspt_atlas.config import files
from dspt_atlas.datasets.formats import read_split_json
from dspt_atlas.errors import UserError
from dspt_atlas.results.read import load as load_results
from dspt_atlas.run.fit import _configuration
from dspt_atlas.run.train import run_arguments
from dspt_atlas.tools.labels.command import main as labels
from dspt_atlas.tools.predict import main as predict
from dspt_atlas.trainers.clip import photos

SMALL = {"DATALOADER.TRAIN_X.BATCH_SIZE": 8, "TRAINER.COOP.N_CTX": 2, "OPTIM.LR": 0.02}
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def small(tiny_clip_path):
    return {"shots": 4, "epochs": 2, "backbone": tiny_clip_path, "config": "rn50_ep50", **SMALL}


@pytest.fixture(scope="module")
def of_the_command(tiny_dataset, small, tmp_path_factory):
    """Folder of the same run by the command line."""
    folder = tmp_path_factory.mktemp("command") / "run"
    flags = ["--trainer", "CoOpDSPT", "--seed", 1, "--backbone", small["backbone"], "--output-dir", folder]
    flags += ["--config-file", files.config_path("CoOp", "rn50_ep50"), "DATASET.NAME", "OwnFolder"]
    flags += ["DATASET.OWN.PATH", tiny_dataset, "DATASET.NUM_SHOTS", 4, "OPTIM.MAX_EPOCH", 2]
    flags += [*(part for pair in SMALL.items() for part in pair), "DATALOADER.NUM_WORKERS", 2]
    run_arguments([str(flag) for flag in flags])
    return folder


@pytest.fixture
def leaves_no_file(tmp_path, monkeypatch):
    """Nothing new may lie in the home folder, the current one, the cache or the folder of temporary files."""
    for name in ("home", "here", "cache", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "here")
    before = {*tmp_path.rglob("*")}
    yield
    assert {*tmp_path.rglob("*")} == before


class Samples(torch.utils.data.Dataset):
    """Pictures and labels of an ImageFolder, without an end of its own."""

    def __init__(self, folder, kind):
        self.folder, self.kind, self.classes = ImageFolder(folder), kind, ImageFolder(folder).classes

    def __len__(self):
        return len(self.folder)

    def __getitem__(self, index):
        image, label = self.folder[index % len(self)]
        return (pil_to_tensor(image), torch.tensor(label)) if self.kind is tuple else {"image": image, "label": label}


def pairs_of(folder, by_name=True):
    found = ImageFolder(folder)
    return [(path, found.classes[label] if by_name else label) for path, label in found.samples]


def prompts_of(model):
    return model._trainer.model.prompt_learner.state_dict()["ctx"]


def process_state():
    return (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        (sys.stdout, sys.stderr, sys.excepthook, list(logging.root.handlers), logging.root.level, warnings.filters[:]),
        (torch.get_default_dtype(), torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.is_grad_enabled()),
        [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()],
    )


def test_the_prompts_are_those_of_the_command_line(tiny_dataset, small, of_the_command, leaves_no_file, capfd):
    before = process_state()
    model = da.fit(tiny_dataset, **small)
    assert process_state() == before and capfd.readouterr().out == ""
    command = da.load(of_the_command)
    assert torch.equal(prompts_of(model), prompts_of(command)) and model.classnames == command.classnames
    assert model.accuracy == command.accuracy and [entry["epoch"] for entry in model.history] == [1, 2]
    assert model.predict(next(tiny_dataset.rglob("*.png"))) and model.with_classes(["owl", "fox"]).accuracy is None


def test_lists_and_datasets_give_the_same_prompts_as_their_folders(tiny_dataset, small, of_the_command, leaves_no_file):
    expected = prompts_of(da.load(of_the_command))
    train, val, test = (tiny_dataset / split for split in SPLITS)
    classes = ImageFolder(train).classes
    kinds = {
        "names": (pairs_of(train), {"val": pairs_of(val), "test": pairs_of(test)}),
        "numbers": (pairs_of(train, False), {"test": iter(pairs_of(test, False)), "classnames": classes}),
        "ImageFolder": (ImageFolder(train), {"test": ImageFolder(test)}),
        "tensors": (Samples(train, tuple), {"test": Samples(test, tuple)}),
        "dicts": (Samples(train, dict), {"test": pairs_of(test)}),
        "pictures": ([(Image.open(path), name) for path, name in pairs_of(train)], {"test": pairs_of(test)}),
    }
    for kind, (dataset, more) in kinds.items():
        model = da.fit(dataset, **small, **more)
        assert torch.equal(prompts_of(model), expected), kind
        assert model.classnames == classes and model.result["total"] == 16


def test_threads_train_at_once_and_leave_the_process_as_it_was(tiny_dataset, small, of_the_command, leaves_no_file):
    expected, before = prompts_of(da.load(of_the_command)), process_state()
    with ThreadPoolExecutor(3) as pool:
        models = list(pool.map(lambda _: da.fit(tiny_dataset, **small), range(2)))
        assert threading.active_count() > 1
    assert all(torch.equal(prompts_of(model), expected) for model in models)
    assert process_state() == before


def test_a_folder_of_output_is_a_usual_run(tiny_dataset, small, tmp_path, capsys):
    folder, data = tmp_path / "runs" / "mine", Samples(tiny_dataset / "train", tuple)
    model = da.fit(data, output=folder, **small)
    again = da.load(folder)
    assert torch.equal(prompts_of(again), prompts_of(model)) and again.accuracy == model.accuracy is not None
    frame = da.results(tmp_path / "runs")
    assert list(frame["accuracy"]) == [model.accuracy] and list(frame["dataset"]) == ["Samples"]
    assert list(frame) == list(load_results([folder]).frame) and callable(da.results)
    assert predict([str(folder), str(tiny_dataset / "test" / "blue" / "0.png")]) == 0
    splits = read_split_json(folder / "data" / "Samples.json", folder / "data" / "images" / "train")
    assert [len(split) for split in splits] == [12, 4, 8]  # 50/20/30 within each class of 6
    errors = da.label_errors(folder)
    assert len(errors) == 24 and {*errors["given_label"]} == {*model.classnames}
    assert list(errors["split"].value_counts().sort_index()) == [8, 12, 4]  # test, train, val
    files_before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}
    files_before.pop(folder / ".lock")  # taken again, and empty
    assert da.fit(data, output=folder, **small).result == model.result  # a finished run is only read
    with pytest.raises(UserError, match="data"):
        da.fit(Samples(tiny_dataset / "test", tuple), output=folder, **small)
    with pytest.raises(UserError, match="SEED"):
        da.fit(data, output=folder, seed=2, **small)
    assert {path: path.stat().st_mtime_ns for path in files_before} == files_before


def test_the_folder_of_the_images_is_no_folder_for_a_run(tiny_dataset, small, tmp_path):
    photos = shutil.copytree(tiny_dataset / "train", tmp_path / "photos")
    before = sorted(photos.rglob("*"))
    for dataset in (photos, pairs_of(photos)):
        with pytest.raises(UserError, match=f"{photos}.*output="):
            da.fit(dataset, output=photos, **small)
        assert sorted(photos.rglob("*")) == before


@pytest.mark.parametrize("judge, count", [("cross-fitted", 48), ("run", 24), ("zero-shot", 24)])
def test_label_errors_are_those_of_the_command(judge, count, tiny_noisy_run, tmp_path):
    before, files_before = process_state(), {*tiny_noisy_run.rglob("*")}
    frame = da.label_errors(tiny_noisy_run, judge=judge)
    assert process_state() == before and {*tiny_noisy_run.rglob("*")} == files_before
    assert labels([str(tiny_noisy_run), "--judge", judge, "--output", str(tmp_path)]) == 0
    table = pd.read_csv(next(tmp_path.glob("*.csv")))
    assert len(frame) == count
    pd.testing.assert_frame_equal(frame.astype(table.dtypes), table)
    with pytest.raises(UserError, match="normalized_margin"):
        da.label_errors(tiny_noisy_run, score="margin")
    with pytest.raises(UserError, match="cross-fitted"):
        da.label_errors(tiny_noisy_run, judge="nobody")


def test_a_start_that_is_interrupted_leaves_no_file(tiny_dataset, small, tmp_path, monkeypatch):
    def interrupted(self, logits, batch):
        raise KeyboardInterrupt

    before, data = process_state(), Samples(tiny_dataset / "train", tuple)
    monkeypatch.setattr(da.DoubleSoftmax, "criterion", interrupted)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for output in (None, tmp_path / "run"):
        with pytest.raises(KeyboardInterrupt):
            da.fit(data, output=output, **small)
    assert process_state() == before and not list(tmp_path.iterdir())


def test_a_backbone_that_cannot_be_had_is_replaced_with_one_warning(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(clip.clip._MODELS, "RN50", "http://127.0.0.1:9/0/RN50.pt")
    monkeypatch.setattr(files, "_KNOWN_WEIGHTS", {})
    monkeypatch.setattr(photos, "TEXT_FILE", tmp_path / "no.pt")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.warns(UserWarning, match="EmojiRN") as warned:
        model = da.fit(tiny_dataset, shots=1, epochs=1)
    assert len(warned) == 1 and "RN50.pt" in str(warned[0].message) and warned[0].filename == __file__
    assert model.backbone == "EmojiRN"


def test_a_backbone_of_ours_has_its_own_configuration(tiny_dataset):
    model = da.fit(tiny_dataset, "ZeroshotCLIP", backbone="EmojiViT", shots=None)
    assert model.result["config_name"] == "emoji_rn" and model.backbone == "EmojiViT"
    assert model.accuracy is not None and model.history == []


@pytest.mark.parametrize(
    "backbone, name",
    {"EmojiRN": "emoji_rn", "PhotoEN": "photo_en", "PhotoEN-MiniLM": "photo_en", "ViT-B/16": "rn50_ep100"}.items(),
)
def test_a_named_backbone_chooses_the_configuration(backbone, name):
    assert _configuration("CoOpDSPT", "", 4, {"MODEL.BACKBONE.NAME": backbone}).stem == name


@pytest.mark.parametrize(
    "dataset, more, words",
    [
        *((name, {}, f"{name}.*folder.*list") for name in ("nowhere", "./nowhere", "nowhere.csv", "nowhere/x.json")),
        (Path("nowhere"), {}, "nowhere"),
        ("", {}, "''"),
        ("9" * 5000, {}, "999"),
        (3, {}, "int"),
        ([], {}, "none"),
        ([3], {}, "3"),
        ([("a.png", 0), ("b.png", 1)], {}, "classnames"),
        ([("a.png", 0), ("b.png", 2)], {"classnames": ["x", "y"]}, "b.png"),
        ([("a.png", "x"), ("b.png", "z")], {"classnames": ["x", "y"]}, "z"),
        ([("a.png", "x"), ("b.png", 1.5)], {}, "1.5"),
        ([("a.png", "x"), ("b.png", "y")], {"classnames": "xy"}, "classnames"),
        ([("a.png", "x"), ("b.png", "y")], {}, '"x" has 1 image'),
        *(
            ([(f"{n}{c}.png", c) for c in "xy" for n in range(4)], {"classnames": names}, '"zebra"')
            for names in (["x", "y", "zebra"], ["zebra", "x", "y"], ["x", "zebra", "y"])
        ),
        ([("a.png", "x"), ("b.png", "y")], {"test": [("c.png", "x"), ("d.png", "zebra")]}, '"zebra".*test'),
        ([("a.png", "x"), ("b.png", "y")], {"classnames": ["x", "y", "x"]}, '"x" twice'),
        ([("a.png", "x"), ("b.png", "y")], {"test": "photos"}, "test"),
        ([("a.png", "x"), ("b.png", "y")], {"test": [("c.png", "x"), ("d.png", "y")]}, "a.png"),
        ([(torch.zeros(9, 2, 2), "x")], {}, "9, 2, 2"),
        (".", {"classnames": ["x", "y"]}, "classnames"),
        (".", {"learner": "Coop"}, "CoOp"),
        (".", {"OPTIM__LRR": 1}, "OPTIM.LR"),
        (".", {"DATASET.NOISE.RATE": 0.5}, "DATASET.NOISE.TYPE"),
    ],
)
def test_mistakes_name_what_is_wrong(dataset, more, words, small, leaves_no_file, tmp_path):
    before = process_state()
    for output in (None, tmp_path / "here" / "run"):
        with pytest.raises(UserError, match=words):
            da.fit(dataset, **{**small, "output": output, **more})
    assert process_state() == before


@pytest.mark.parametrize(
    "arguments, named",
    [({"method": None}, "method"), ({"learner": "CoOpDSPT"}, "DSPT"), ({"epoch": 1}, "epochs"), ({"learner": 3}, "3")],
)
def test_a_wrong_argument_is_named(arguments, named, tiny_dataset):
    with pytest.raises(UserError, match=named):
        da.fit(tiny_dataset, **arguments)
