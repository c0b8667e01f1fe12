"""The world of test_sequences: data that changes, weights that are replaced, and the results of clean runs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from support.paths import CONFIGS, SUPPORT
from support.runs import result_of
from support.tiny_clip import build_tiny_clip

PETS, BIRDS = ("ant", "cat", "dog", "eel", "owl"), ("finch", "heron", "robin", "stork")
EDITS = {
    "pets": ("a class more", "a class renamed", "a class fewer", "an image replaced", "an image more"),
    "birds": ("a row relabelled", "a name changed", "a picture replaced"),
}
COUNT = 10  # images per class
SHOTS = 4
MEASURES = ("accuracy", "macro_f1", "per_class_accuracy", "total", "correct", "num_train", "num_classes")


@dataclass(frozen=True)
class Spec:
    """An experiment, as a start asks for it. `data`: the edits of the data set; `tested`: (training's spec, epoch)."""

    trainer: str = "CoOp"
    seed: int = 1
    rate: float = 0.5
    epochs: int = 1
    noise: bool = False
    classes: str = "all"
    split: str = "test"
    kind: str = "pets"
    data: frozenset = frozenset()
    weights: int = 0
    tested: tuple | None = None
    drawn: int | None = None  # the seed of a run without one

    @property
    def asked(self):
        """Return what a start asks for, without what was drawn."""
        tested = self.tested and (self.tested[0].asked, self.tested[1])
        return replace(self._read, drawn=None, tested=tested)

    @property
    def row(self):
        """Return what has to be the same for two results in one row."""
        if self.tested:
            training, epoch = self.tested
            epoch = None if epoch == training.epochs else epoch
            own, trained = [(spec.classes, spec.split, spec.kind, spec.data) for spec in (self, training)]
            return training.row if epoch is None and own == trained else (replace(training, split="").row, epoch, own)
        return replace(self._read, seed=0, drawn=None)

    @property
    def _read(self):
        """Return what a run depends on: where nothing is learned, not on the optimiser."""
        return replace(self, rate=0, epochs=0) if self.trainer.startswith("Zeroshot") else self


class Driver:
    """The process that starts commands; see sequences_driver."""

    def __init__(self, scratch):
        self.scratch = Path(scratch)
        command = [sys.executable, str(SUPPORT / "sequences_driver.py")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, command, cache, folder="/", watched="", signal=0, moment=0):
        """Return the exit status and the standard error of a command, without its notes."""
        errors = self.scratch / "standard_error.txt"
        request = {"command": list(map(str, command)), "errors": str(errors), "folder": str(folder)}
        request |= {"environment": {"DSPT_ATLAS_CACHE": str(cache)}, "watched": str(watched)}
        self.process.stdin.write(json.dumps({**request, "signal": signal, "moment": moment}) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        lines = errors.read_text().splitlines(keepends=True)
        return status, "".join(line for line in lines if not line.startswith("NOTE: "))

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def write_picture(path, seed, number):
    """Write a picture in a colour of the seed's; another number gives another file size."""
    generator = np.random.default_rng([seed, number])
    pixels = np.random.default_rng(seed).integers(0, 256, 3) + generator.integers(-60, 60, (32, 32 + number % 40, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def write_class(folder, seed):
    """Write the pictures of a class."""
    for number in range(COUNT):
        write_picture(folder / f"{number}.png", seed, number)


def write_data(root):
    """Write the pictures of a data root to which no edit was made yet."""
    for seed, name in enumerate(PETS):
        write_class(root / "pets" / name, seed)
    for seed, name in enumerate(BIRDS):
        for number in range(COUNT):
            write_picture(root / "birds" / f"{name}{number}.png", seed + 10, number)


class Data:
    """A data root with `pets/<class>/<n>.png` and the table birds.csv; its content follows from its edits alone."""

    def __init__(self, root, pristine):
        self.root, self.edits = Path(root), {"pets": set(), "birds": set()}
        shutil.copytree(pristine, root)
        self._write_table()

    def fingerprint(self, kind):
        """Return what the content of a data set follows from."""
        return frozenset(self.edits[kind])

    def edit(self, kind, edit):
        """Make an edit, or undo it."""
        self.edits[kind] ^= {edit}
        is_made = edit in self.edits[kind]
        if kind == "birds":
            write_picture(self.root / "birds" / "stork2.png", 13, 33 if "a picture replaced" in self.edits[kind] else 2)
            self._write_table()
            return
        pets = self.root / "pets"
        {
            "a class more": lambda: write_class(pets / "bat", 7) if is_made else shutil.rmtree(pets / "bat"),
            "a class renamed": lambda: os.rename(*[pets / name for name in ("dog", "hound")[:: 1 if is_made else -1]]),
            "a class fewer": lambda: shutil.rmtree(pets / "owl") if is_made else write_class(pets / "owl", 4),
            "an image replaced": lambda: write_picture(pets / "cat" / "0.png", 1, 33 if is_made else 0),
            "an image more": lambda: (
                write_picture(pets / "eel" / "new.png", 3, 34) if is_made else (pets / "eel" / "new.png").unlink()
            ),
        }[edit]()

    def _write_table(self):
        edits, lines = self.edits["birds"], ["path,classname"]
        for name in BIRDS:
            written = "red robin" if (name, "a name changed" in edits) == ("robin", True) else name
            for number in range(COUNT):
                is_moved = (name, number) == ("finch", 4) and "a row relabelled" in edits
                lines.append(f"birds/{name}{number}.png,{'heron' if is_moved else written}")
        (self.root / "birds.csv").write_text("\n".join(lines) + "\n")


def write_yamls(folder, rate, epochs):
    """Write the yamls of the two data sets and of the trainers, own.yaml."""
    base = CONFIGS / "trainers" / "CoOp" / "rn50_ep50.yaml"
    for kind, name, path in (("pets", "OwnFolder", "pets"), ("birds", "OwnCSV", "birds.csv")):
        (folder / f"{kind}.yaml").write_text(f"DATASET:\n  NAME: {name}\n  OWN:\n    PATH: {path}\n")
    (folder / "own.yaml").write_text(
        f"_BASE_: {base}\nOPTIM:\n  MAX_EPOCH: {epochs}\n  LR: {rate}\n  WARMUP_CONS_LR: {rate / 2}\n"
        "INPUT:\n  CACHE: features\nDATALOADER:\n  NUM_WORKERS: 0\n  TRAIN_X:\n    BATCH_SIZE: 8\n"
        "TRAINER:\n  COOP:\n    N_CTX: 2\nDATASET:\n  CHECK_IMAGES: False\n"
    )


class CleanRuns:
    """Results of clean runs, each in a new folder with its own data, weights and cache; remembered by spec."""

    def __init__(self, folder, driver):
        self.folder, self.driver, self._results, self._data = Path(folder), driver, {}, {}
        self.pristine = self.folder / "pristine"
        write_data(self.pristine)
        for variant in (0, 1):
            (self.folder / "weights").mkdir(exist_ok=True)
            torch.save(build_tiny_clip("vit", seed=variant, layers=1).state_dict(), self.weights(variant))

    def weights(self, variant):
        """Return the path of a backbone."""
        return self.folder / "weights" / f"clip{variant}.pt"

    def __len__(self):
        return len(self._results)

    def result(self, spec):
        """Return the measures of a clean run and its history, and its folder."""
        spec = _given_seed(spec)
        if spec not in self._results:
            self._results[spec] = self._run(spec)
        return self._results[spec]

    def _run(self, spec):
        folder = self.folder / f"run{len(self._results)}_{os.urandom(2).hex()}"
        folder.mkdir()
        training = spec.tested[0] if spec.tested else spec
        write_yamls(folder, training.rate, training.epochs)
        command = start(folder, self._root(spec), spec, self.weights(spec.weights), folder / "output")
        if spec.tested:
            command[1:1] = ["--eval-only", "--model-dir", self._trained(spec.tested[0])]
            command[1:1] = [] if spec.tested[1] is None else ["--load-epoch", spec.tested[1]]
        status, errors = self.driver.ask(command, folder / "cache")
        assert status == 0, errors
        shutil.rmtree(folder / "cache", ignore_errors=True)
        return measured(folder / "output")

    def _trained(self, spec):
        return self.result(spec)["folder"]

    def _root(self, spec):
        key = spec.kind, spec.data
        if key not in self._data:
            self._data[key] = Data(self.folder / f"data{len(self._data)}", self.pristine)
            for edit in sorted(spec.data):
                self._data[key].edit(spec.kind, edit)
        return self._data[key].root


def _given_seed(spec):
    """Return an experiment with the seed that was drawn as the one that is given."""
    tested = spec.tested and (_given_seed(spec.tested[0]), spec.tested[1])
    return replace(spec, seed=spec.seed if spec.drawn is None else spec.drawn, drawn=None, tested=tested)


def measured(folder):
    """Return what has to be the same in two runs of one spec, as result.json tells it, and the folder."""
    result = result_of(folder)
    history = [
        {name: value for name, value in entry.items() if name != "seconds"} for entry in result.get("history", [])
    ]
    return {**{name: result[name] for name in MEASURES}, "history": history, "folder": folder}


def pairs_of(spec):
    """Return the KEY VALUE pairs that differ between specs, as protocols order them."""
    pairs = ["DATASET.NUM_SHOTS", SHOTS]
    pairs += ["DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5"] if spec.noise else []
    pairs += ["DATASET.SUBSAMPLE_CLASSES", spec.classes] if spec.classes != "all" else []
    return pairs + (["TEST.SPLIT", spec.split] if spec.split != "test" else [])


def start(folder, root, spec, weights, output):
    """Return the command of one run as a script starts it, with the yamls in a folder."""
    return [
        "train", "--dataset-config-file", folder / f"{spec.kind}.yaml", "--config-file", folder / "own.yaml",
        "--root", root, "--trainer", spec.trainer, "--seed", spec.seed, "--output-dir", output, *pairs_of(spec),
        "MODEL.BACKBONE.NAME", weights,
    ]  # fmt: skip


def snapshot(folder):
    """Return {path: the content's digest and time, or "folder"} of all below a folder.

    What a dead process left half written, and what says who holds a folder, is left out: a refused start may clear it.
    """
    found = {}
    for parent, names, files in os.walk(folder):
        found.update({os.path.join(parent, name): "folder" for name in names})
        for path in (os.path.join(parent, name) for name in files if not _is_passing(name)):
            with open(path, "rb") as file:
                found[path] = hashlib.sha256(file.read()).hexdigest(), os.stat(path).st_mtime_ns
    return found


def _is_passing(name):
    return name in (".holder.json", ".lock") or ".dspt-atlas-" in name
