"""One noise at a time in a fork: what DATASET.NOISE asks for, what a fork's Dassl does by itself, and the names."""

import json
import random
import shutil
import subprocess
import sys

import dassl
import pytest
from dassl.data.data_manager import DatasetWrapper
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from dassl.engine import TrainerX, build_trainer
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import nn
from torch.nn import functional as F

from dspt_atlas import with_loss
from dspt_atlas.datasets.noise import NoiseRecord
from dspt_atlas.datasets.noisy import register_noisy
from dspt_atlas.errors import UserError

OURS = ("DATASET.NOISE.TYPE", "asym", "DATASET.NOISE.RATE", 0.5)
THEIRS = {"NOISE_LABEL": True, "NOISE_TYPE": "sym", "NOISE_RATE": 0.25, "num_class": 4}


class Relabelling(DatasetWrapper):
    """As in NLPrompt's Dassl: overwrites the labels of the training items when the training loader is made."""

    def __init__(self, cfg, data_source, transform=None, is_train=False):
        if is_train and cfg.DATASET.get("NOISE_LABEL", True):
            count = int(cfg.DATASET.get("NOISE_RATE", 0.25) * len(data_source))
            for index in random.sample(range(len(data_source)), count):
                item = data_source[index]
                item._label = random.choice([label for label in range(4) if label != item.label])
        super().__init__(cfg, data_source, transform, is_train)


@pytest.fixture
def relabelling(monkeypatch):
    """The engine, with data loaders that relabel."""
    monkeypatch.setattr("dassl.data.data_manager.DatasetWrapper", Relabelling)


@pytest.fixture
def fork_cfg(tiny_cfg, tiny_clip_path, tmp_path):
    """Return a function (their keys, KEY, VALUE, ...) -> the frozen config of CoOpDSPT in a fork with these keys."""

    def build(theirs, *options):
        cfg = tiny_cfg("CoOpDSPT", tiny_clip_path, tmp_path / "run", *options)
        cfg.defrost()
        cfg.DATASET.update(theirs)
        cfg.freeze()
        return cfg

    return build


def _labels(items):
    return [item.label for item in items]


def test_labels_that_a_dassl_changed_beside_ours_are_refused_before_a_step(relabelling, fork_cfg, tmp_path):
    trainer = build_trainer(fork_cfg({}, *OURS))
    given, now = trainer.dm.dataset.noise.given, _labels(trainer.dm.dataset.train_x)
    wrong = sum(before != after for before, after in zip(given, now, strict=True))
    with pytest.raises(UserError, match=f"^{wrong} of 24 "):
        trainer.train()
    assert not (tmp_path / "run" / "noise.json").exists()


def test_labels_that_a_dassl_changed_without_being_asked_are_refused(relabelling, fork_cfg):
    with pytest.raises(UserError, match="^6 of 24 "):
        build_trainer(fork_cfg({})).train()


def test_two_noises_at_once_are_refused_whoever_trains(fork_cfg):
    with pytest.raises(UserError, match="NOISE_LABEL"):
        build_dataset(fork_cfg(THEIRS, *OURS))
    assert build_dataset(fork_cfg({**THEIRS, "NOISE_RATE": 0.0}, *OURS)).noise.realised_rate == 0.5
    assert build_dataset(fork_cfg({**THEIRS, "NOISE_LABEL": False}, *OURS)).noise.realised_rate == 0.5


def test_noise_of_the_fork_alone_is_trained_on_and_recorded_as_it_is(relabelling, fork_cfg, tmp_path, capsys):
    cfg = fork_cfg(THEIRS)
    trainer = build_trainer(cfg)
    trainer.train()
    record = NoiseRecord.load(tmp_path / "run" / "noise.json")
    assert (record.type, record.rate, record.realised_rate) == ("sym", 0.25, 0.25)
    assert record.given == _labels(trainer.dm.dataset.train_x)
    assert record.clean == [label for label in range(4) for _ in range(6)]
    assert "6 of 24" in capsys.readouterr().out
    assert all(0 <= epoch["wrong_memorised"] <= 100 for epoch in trainer.report["history"])


def test_noise_of_the_fork_that_this_dassl_does_not_make_is_refused(fork_cfg):
    with pytest.raises(UserError, match="NOISE_LABEL"):
        build_trainer(fork_cfg(THEIRS)).train()


# noise.json of a trainer of the fork


class Theirs(TrainerX):
    """Registers nothing and knows nothing of us."""

    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.register_model("model", self.model, self.optim, build_lr_scheduler(self.optim, self.cfg.OPTIM))

    def forward_backward(self, batch):
        self.model_backward_and_update(F.cross_entropy(self.model(batch["img"]), batch["label"]))


@pytest.mark.parametrize("trainer", [Theirs, with_loss(Theirs, "DSPT")])
def test_every_trainer_that_trains_on_wrong_labels_records_them(trainer, fork_cfg, tmp_path):
    made = trainer(fork_cfg({}, *OURS, "DATASET.NAME", "NoisyTinyImages"))
    made.test()
    assert not (tmp_path / "run" / "noise.json").exists()
    made.train()
    assert NoiseRecord.load(tmp_path / "run" / "noise.json") == made.dm.dataset.noise


def test_the_noise_of_a_forks_dassl_is_recorded_for_its_own_trainer_too(relabelling, fork_cfg, tmp_path):
    Theirs(fork_cfg(THEIRS)).train()
    assert NoiseRecord.load(tmp_path / "run" / "noise.json").realised_rate == 0.25


def test_noise_that_did_not_come_is_refused_before_a_trainer_of_the_fork_trains(late, fork_cfg, tmp_path):
    with pytest.raises(UserError):
        Theirs(late(*OURS)).train()
    with pytest.raises(UserError):
        Theirs(fork_cfg(THEIRS)).train()
    assert not (tmp_path / "run").exists()


def test_a_trainer_of_the_fork_without_noise_may_choose_its_training_images(fork_cfg, tmp_path):
    trainer = Theirs(fork_cfg({}))
    del trainer.dm.dataset.train_x[::2]
    trainer.train()
    assert not (tmp_path / "run" / "noise.json").exists()


# Names


def test_the_clean_name_follows_the_noise_that_is_asked_for(fork_cfg):
    clean, noisy = build_dataset(fork_cfg({})), build_dataset(fork_cfg({}, *OURS))
    by_name = build_dataset(fork_cfg({}, *OURS, "DATASET.NAME", "NoisyTinyImages"))
    assert not hasattr(clean, "noise")
    assert noisy.noise.realised_rate == 0.5
    assert _labels(noisy.train_x) == noisy.noise.given == _labels(by_name.train_x)
    assert noisy.noise == by_name.noise


def test_a_trainer_that_looks_up_templates_by_the_data_sets_name_finds_them(fork_cfg):
    cfg = fork_cfg({}, *OURS, "DATASET.NAME", "NoisyTinyImages")
    assert build_dataset(cfg).noise.realised_rate == 0.5
    assert {"TinyImages": "a photo of a {}."}[cfg.DATASET.NAME]
    assert cfg.is_frozen()
    assert build_dataset(cfg).noise.realised_rate == 0.5


@pytest.fixture
def late(fork_cfg):
    """Registers a data set after dspt_atlas.extend_cfg; returns the function of `fork_cfg`, with its name."""
    base = DATASET_REGISTRY.get("TinyImages").clean_class

    def build(*options):
        cfg = fork_cfg({}, *options)
        DATASET_REGISTRY.register(type("Late", (base,), {}), force=True)
        cfg.defrost()
        cfg.DATASET.NAME = "Late"
        cfg.freeze()
        return cfg

    return build


def test_noise_that_a_data_set_registered_too_late_does_not_get_is_refused(late):
    with pytest.raises(UserError, match="Late .*extend_cfg"):
        build_trainer(late(*OURS)).train()


def test_changed_labels_of_a_data_set_registered_too_late_are_known_by_their_class_names(late, relabelling):
    with pytest.raises(UserError, match="^6 of 24 "):
        build_trainer(late()).train()


def test_a_clean_name_stays_one_class_however_often_it_is_registered(fork_cfg):
    fork_cfg({})
    first = DATASET_REGISTRY.get("TinyImages")
    register_noisy()
    assert DATASET_REGISTRY.get("TinyImages") is first
    assert first.__mro__[1] is first.clean_class and first.__module__ == first.clean_class.__module__


# A fork whose own Dassl relabels

RELABEL = """
    def __init__(self, cfg, data_source, transform=None, is_train=False):
        if is_train and cfg.DATASET.NOISE_LABEL:
            import random
            for index in random.sample(range(len(data_source)), int(cfg.DATASET.NOISE_RATE * len(data_source))):
                item = data_source[index]
                item._label = (item.label + random.randint(1, cfg.DATASET.num_class - 1)) % cfg.DATASET.num_class
"""


@pytest.mark.slow
def test_in_a_fork_with_such_a_dassl_one_noise_trains_and_two_are_refused(tiny_fork, tiny_dataset, tmp_path):
    shutil.copytree(dassl.__path__[0], tiny_fork / "dassl", ignore=shutil.ignore_patterns("__pycache__"))
    manager = tiny_fork / "dassl" / "data" / "data_manager.py"
    before = "\n    def __init__(self, cfg, data_source, transform=None, is_train=False):\n"
    assert manager.read_text().count(before) == 1
    manager.write_text(manager.read_text().replace(before, RELABEL))
    train = (tiny_fork / "train.py").read_text()
    keys = "".join(f"    cfg.DATASET.{key} = {value!r}\n" for key, value in THEIRS.items())
    train = train.replace("    extend_cfg(cfg)\n", f"    extend_cfg(cfg)\n{keys}    dspt_atlas.extend_cfg(cfg)\n")
    (tiny_fork / "train.py").write_text(f"import dspt_atlas\n{train}")
    command = (sys.executable, "train.py", "--root", tiny_dataset.parent, "--seed", 1, "--trainer", "CoOpDSPT")
    command += ("--dataset-config-file", "configs/datasets/blobs.yaml")
    command += ("--config-file", "configs/trainers/CoOp/rn50_ep50.yaml")

    def run(folder, *pairs):
        arguments = [str(part) for part in (*command, "--output-dir", folder, *pairs)]
        return subprocess.run(arguments, cwd=tiny_fork, capture_output=True, text=True, timeout=300, check=False)

    done = run("one", "DATASET.NUM_SHOTS", 4)
    assert done.returncode == 0, done.stderr
    samples = json.loads((tiny_fork / "one" / "noise.json").read_text())["samples"]
    assert sum(sample["clean"] != sample["given"] for sample in samples) == 4
    assert [sample["clean"] for sample in samples] == sorted(list(range(4)) * 4)

    done = run("two", "DATASET.NAME", "NoisyBlobs", *map(str, OURS))
    assert done.returncode != 0 and "NOISE_LABEL" in done.stderr.splitlines()[-1]
    assert not list((tiny_fork / "two").rglob("model*"))
