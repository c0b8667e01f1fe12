"""CIFAR-10N and CIFAR-100N over CIFAR's binary version, cut down to a few images, in the true layout."""

import numpy as np
import pytest
import torch
from PIL import Image

from dspt_atlas.datasets import cifar
from dspt_atlas.datasets.cifar import read_label_file
from dspt_atlas.errors import UserError
from dspt_atlas.run.train import run_arguments
from dspt_atlas.run.trained import open_run
from dspt_atlas.tools.labels.judge import judge_training
from support.paths import CONFIGS
from support.refusals import refused

CLASSES = ("airplane", "automobile", "bird")

pytestmark = pytest.mark.usefixtures("private_cache")


def _write_binary(path, labels, coarse, generator):
    pixels = generator.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    columns = [np.zeros_like(labels)] * coarse + [labels]
    np.concatenate([*(column[:, None].astype(np.uint8) for column in columns), pixels], 1).tofile(path)
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.fixture
def cifar10(tmp_path):
    """A root with CIFAR-10 of 3 classes: five training files of 6 images, 6 test images, and human labels."""
    folder = tmp_path / "data" / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    generator = np.random.default_rng(0)
    labels = np.arange(6) % 3
    names = [f"data_batch_{number}.bin" for number in range(1, 6)]
    images = [_write_binary(folder / name, labels, False, generator) for name in names]
    _write_binary(folder / "test_batch.bin", labels, False, generator)
    clean = np.tile(labels, 5)
    worse = clean.copy()
    worse[::4] = (clean[::4] + 1) % 3
    content = {"clean_label": clean, "worse_label": worse, "aggre_label": clean}
    if torch.__version__ >= cifar.READS_ARRAYS:
        torch.save(content, folder.parent / "CIFAR-10_human.pt")
    else:
        pytest.skip("a .pt file of arrays needs torch 2.6")
    return tmp_path / "data", np.concatenate(images), clean, worse


def test_images_and_human_labels(cifar10, load_dataset):
    root, images, clean, worse = cifar10
    before = sorted(root.rglob("*"))
    dataset = load_dataset("CIFAR10N", root)
    assert [item.label for item in dataset.train_x] == worse.tolist()
    assert [item.label for item in dataset.test] == [0, 1, 2, 0, 1, 2]
    assert dataset.classnames == list(CLASSES)
    for item, expected in zip(dataset.train_x, images, strict=True):
        assert np.array_equal(np.asarray(Image.open(item.impath)), expected)
    assert dataset.noise.clean == clean.tolist() and dataset.noise.given == worse.tolist()
    assert dataset.noise.realised_rate == pytest.approx(8 / 30)
    assert (dataset.noise.family, dataset.noise.type) == ("real", "worse_label")
    assert dataset.noise.paths[7] == "train/00007.png"
    assert sorted(root.rglob("*")) == before


def test_images_are_exported_once(cifar10, load_dataset, tmp_path):
    first = load_dataset("CIFAR10N", cifar10[0])
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    again = load_dataset("CIFAR10N", cifar10[0])
    assert len(times) == 36
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    assert [item.impath for item in again.train_x] == [item.impath for item in first.train_x]


def test_few_shots_are_of_the_given_labels_and_the_record_follows(cifar10, load_dataset, tmp_path):
    dataset = load_dataset("CIFAR10N", cifar10[0], "DATASET.NUM_SHOTS", 2)
    true = dict(zip((f"train/{index:05}.png" for index in range(30)), cifar10[2].tolist(), strict=True))
    assert [item.label for item in dataset.train_x] == dataset.noise.given
    assert sorted(dataset.noise.given) == [0, 0, 1, 1, 2, 2]
    assert dataset.noise.clean == [true[path] for path in dataset.noise.paths]
    dataset.noise.save(tmp_path / "noise.json")
    assert type(dataset.noise).load(tmp_path / "noise.json") == dataset.noise


def test_another_label_set(cifar10, load_dataset):
    dataset = load_dataset("CIFAR10N", cifar10[0], "DATASET.CIFARN.LABELS", "aggre_label")
    assert dataset.noise.realised_rate == 0
    with refused("clean_label, worse_label, aggre_label", '"best_label"', "DATASET.CIFARN.LABELS"):
        load_dataset("CIFAR10N", cifar10[0], "DATASET.CIFARN.LABELS", "best_label")


def test_cifar100_has_a_coarse_label_before_the_fine_one(tmp_path, load_dataset):
    folder = tmp_path / "data" / "cifar-100-binary"  # directly under the root
    folder.mkdir(parents=True)
    (folder / "fine_label_names.txt").write_text("apple\naquarium_fish\n")
    labels = np.array([1, 0, 1])
    for name in ("train.bin", "test.bin"):
        _write_binary(folder / name, labels, True, np.random.default_rng(1))
    (folder.parent / "l.csv").write_text("clean_label,noisy_label\n1,1\n0,0\n1,0\n")
    dataset = load_dataset("CIFAR100N", folder.parent, "DATASET.CIFARN.FILE", "l.csv")
    assert [item.label for item in dataset.train_x] == [1, 0, 0]
    assert dataset.classnames == ["apple", "aquarium_fish"]


def test_added_noise_and_split_classes_are_refused(cifar10, load_dataset):
    with refused("CIFAR10N"):
        load_dataset("NoisyCIFAR10N", cifar10[0], "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", 0.5)
    with pytest.raises(UserError, match="SUBSAMPLE_CLASSES all"):
        load_dataset("CIFAR10N", cifar10[0], "DATASET.SUBSAMPLE_CLASSES", "base")


def test_label_files_in_other_formats(tmp_path):
    np.save(tmp_path / "l.npy", np.array([2, 0, 1]))
    (tmp_path / "l.txt").write_text("2\n0\n1\n")
    (tmp_path / "l.csv").write_text("clean_label,worse_label\n0,2\n1,0\n2,1\n")
    assert read_label_file(tmp_path / "l.npy", "worse_label") == ([2, 0, 1], None)
    assert read_label_file(tmp_path / "l.txt", "worse_label") == ([2, 0, 1], None)
    assert read_label_file(tmp_path / "l.csv", "worse_label") == ([2, 0, 1], [0, 1, 2])


class _Malicious:
    def __reduce__(self):
        return print, ("executed",)


def test_a_label_file_cannot_execute_code(tmp_path, capsys):
    torch.save({"worse_label": _Malicious()}, tmp_path / "l.pt")
    with refused(tmp_path / "l.pt"):
        read_label_file(tmp_path / "l.pt", "worse_label")
    assert "executed" not in capsys.readouterr().out


def test_a_torch_that_cannot_read_arrays_is_named(tmp_path, monkeypatch):
    torch.save({"worse_label": np.zeros(3, int)}, tmp_path / "l.pt")
    monkeypatch.setattr(cifar, "READS_ARRAYS", "99.0")
    with refused("99.0", "DATASET.CIFARN.FILE"):
        read_label_file(tmp_path / "l.pt", "worse_label")


@pytest.mark.parametrize(
    "write, facts",
    [
        (lambda path: None, ("CIFAR-N",)),
        (lambda path: path.write_bytes(b"broken"), ()),
        (lambda path: torch.save([1, 2], path), ("dictionary", "list")),
        (
            lambda path: torch.save({"worse_label": torch.zeros((2, 2), dtype=int)}, path),
            ("int64", "(2, 2)"),
        ),
        (lambda path: torch.save({"worse_label": torch.zeros(3)}, path), ("float32",)),
    ],
)
def test_unusable_label_files_are_refused(write, facts, tmp_path):
    write(tmp_path / "l.pt")
    with refused("l.pt", *facts):
        read_label_file(tmp_path / "l.pt", "worse_label")


@pytest.mark.parametrize(
    "labels, facts",
    [
        ({"worse_label": np.zeros(29, int)}, ("29", "30")),
        ({"worse_label": np.zeros(30, int), "clean_label": np.zeros(30, int)}, ("30",)),
        ({"worse_label": np.full(30, 3)}, ("0 to 2",)),
    ],
)
def test_labels_of_something_else_are_refused(labels, facts, cifar10, load_dataset):
    torch.save(labels, cifar10[0] / "cifar10" / "CIFAR-10_human.pt")
    with refused("CIFAR-10_human.pt", *facts):
        load_dataset("CIFAR10N", cifar10[0])


def test_a_truncated_or_foreign_cifar_is_refused(cifar10, load_dataset):
    folder = cifar10[0] / "cifar10" / "cifar-10-batches-bin"
    path = folder / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-5])
    with refused(path):
        load_dataset("CIFAR10N", cifar10[0])
    folder.rename(folder.with_name("cifar-10-batches-py"))  # without the official checksums nothing is unpickled
    with refused("cifar-10-batches-py"):
        load_dataset("CIFAR10N", cifar10[0])


def test_a_run_on_human_labels_is_opened_again_with_them(cifar10, tiny_clip_path, tmp_path):
    root, _, clean, worse = cifar10
    folder = tmp_path / "run"
    arguments = ["--root", str(root), "--dataset-config-file", str(CONFIGS / "datasets" / "cifar10n.yaml")]
    arguments += ["--trainer", "CoOp", "--backbone", tiny_clip_path, "--seed", "1", "--output-dir", str(folder)]
    arguments += ["OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", "0", "TRAINER.COOP.N_CTX", "2"]
    run_arguments(arguments)
    errors, _ = judge_training(open_run(folder))
    assert errors.given.tolist() == worse.tolist() and errors.clean.tolist() == clean.tolist()
    label_file = root / "cifar10" / "CIFAR-10_human.pt"
    torch.save({"clean_label": clean, "worse_label": clean, "aggre_label": clean}, label_file)
    with pytest.raises(UserError, match="airplane"):
        open_run(folder)
