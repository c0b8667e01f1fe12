"""The table of scripts/test_bad_input.py: mistakes and expected answers. Cases write files and return arguments."""

import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from support.paths import CONFIGS

OWN = {"folder": "own_folder", "split": "own_split", "csv": "own_csv"}
WORKS = 0  # not a mistake: the run is done


class Place:
    """Where a case plays: `data/set` with two classes of four images, a tiny backbone, `out/run`."""

    def __init__(self, root: Path, backbone: str):
        self.root, self.data, self.out, self.backbone = root, root / "data", root / "out" / "run", backbone

    def train(self, *arguments, own="folder", path="set", trainer="CoOp", before=()):
        """Return train.py's arguments for one epoch on the own data set at `path`."""
        training = ["OPTIM.MAX_EPOCH", "1", "DATALOADER.TRAIN_X.BATCH_SIZE", "2", "OPTIM.NAME", "sgd"]
        is_training = trainer != "ZeroshotCLIP" and "--eval-only" not in before
        return [
            "--dataset-config-file", str(CONFIGS / "datasets" / f"{OWN[own]}.yaml"), "--root", str(self.data),
            "--backbone", self.backbone, "--trainer", trainer, "--output-dir", str(self.out), "--seed", "1", *before,
            "DATASET.OWN.PATH", path, "DATALOADER.NUM_WORKERS", "0", "VERBOSE", "False",
            *(training if is_training else []), *(["TRAINER.COOP.N_CTX", "2"] if trainer == "CoOp" else []), *arguments,
        ]  # fmt: skip

    def images(self, *names, folder="set", count=4):
        """Write images to class folders."""
        for name in names:
            for number in range(count):
                self.image(f"{folder}/{name}/{number}.png")

    def image(self, path, mode="RGB", size=(12, 10), **options):
        """Write a random image below the data root and return its path."""
        target = self.data / path
        target.parent.mkdir(parents=True, exist_ok=True)
        channels = {"RGB": (3,), "CMYK": (4,)}.get(mode, ())
        high, kind = (2**16, np.uint16) if mode == "I;16" else (256, np.uint8)
        pixels = np.random.default_rng(len(path)).integers(0, high, (size[1], size[0], *channels), dtype=kind)
        Image.fromarray(pixels, *([mode] if mode == "CMYK" else [])).save(target, **options)
        return target

    def file(self, path, content=""):
        """Write a file below the case's folder and return its path."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return target

    def split(self, *rows, **splits):
        """Write data/split.json, by default with the images of the set, changed by `rows` in train."""
        splits = {"train": [*self.rows(0, 1), *rows], "test": self.rows(2, 3), **splits}
        self.file("data/split.json", json.dumps(splits))
        return self.train(own="split", path="split.json")

    def rows(self, *numbers, names=("cat", "dog")):
        """Return split rows of the images with these numbers."""
        return [[f"set/{folder}/{n}.png", label, names[label]] for label, folder in enumerate(("cat", "dog"))
                for n in numbers]  # fmt: skip

    def checkpoint(self, path="model/prompt_learner", ctx=(2, 64), **extra):
        """Write a checkpoint of a prompt with its pointer file; return the folder of the model."""
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        state = {"ctx": torch.zeros(*ctx), **extra}
        torch.save({"state_dict": state, "epoch": 1, "optimizer": None, "scheduler": None}, folder / "model.pth.tar-1")
        (folder / "checkpoint").write_text("model.pth.tar-1\n")
        return folder.parent

    def evaluate(self, folder, *arguments, **options):
        """Return train.py's arguments to evaluate the first epoch of the model in a folder."""
        before = ["--eval-only", "--model-dir", str(folder), "--load-epoch", "1"]
        return self.train(*arguments, before=before, **options)


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


class Case(NamedTuple):
    """`status` and `named`: the fact that the sentence, or the output where the case works, has to name."""

    status: int
    named: str
    prepare: object
    command: str = "train"


CASES: dict[str, Case] = {}
ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # to be shown turned by 90 degrees


def case(name, status, named="", command="train"):
    """Register a function Place -> arguments."""

    def register(prepare):
        CASES[name] = Case(status, named, prepare, command)
        return prepare

    return register


def _plain(name, named, *arguments, status=2, **options):
    CASES[name] = Case(status, named, lambda place: place.train(*arguments, **options))


def _noise(type, rate, *more):
    return "DATASET.NOISE.TYPE", type, "DATASET.NOISE.RATE", rate, *more


_plain("unknown trainer", "CoOpDSPT", trainer="CoOpDSP")
_plain("trainer in small letters", "CoOpDSPT", trainer="coopdspt")
_plain("no trainer", "--trainer", trainer="")
_plain("unknown data set", "OwnFolder", "DATASET.NAME", "OwnFolde")
_plain("unknown key", "OPTIM.LR?", "OPTIM.LT", "1")
_plain("a group of keys", "OPTIM.MAX_EPOCH", "OPTIM", "1")
_plain("odd pairs", "OPTIM.LR", "OPTIM.LR")
_plain("wrong type", "OPTIM.MAX_EPOCH", "OPTIM.MAX_EPOCH", "many")
_plain("unknown option", "--sed", before=["--sed", "1"])
_plain("unknown noise type", "sym, asym", *_noise("sim", "0.5"))
_plain("a type of the other noise family", "DATASET.NOISE.FAMILY swap", *_noise("symflip", "0.5"))
_plain("unknown noise family", "relabel, swap", *_noise("sym", "0.5", "DATASET.NOISE.FAMILY", "flip"))
_plain("rate 50", "0.5", *_noise("sym", "50"))
_plain("rate -0.1", "-0.1", *_noise("sym", "-0.1"))
_plain("rate NaN", "nan", *_noise("sym", "nan"))
_plain("rate 1", "[0, 1)", *_noise("sym", "1.0"))
_plain("rate in words", "NOISE.RATE", *_noise("sym", "half"))
_plain("noise file that is missing", "nowhere.json", "DATASET.NOISE.FILE", "nowhere.json")
_plain("shots 0", "DATASET.NUM_SHOTS", "DATASET.NUM_SHOTS", "0")
_plain("shots -2", "DATASET.NUM_SHOTS", "DATASET.NUM_SHOTS", "-2")
_plain("more shots than images", "", "DATASET.NUM_SHOTS", "100", status=WORKS)
_plain("batch larger than the set", "", "DATALOADER.TRAIN_X.BATCH_SIZE", "64", status=WORKS)
_plain("batch 0", "BATCH_SIZE", "DATALOADER.TRAIN_X.BATCH_SIZE", "0")
_plain("test batch -1", "BATCH_SIZE", "DATALOADER.TEST.BATCH_SIZE", "-1")
_plain("workers -1", "NUM_WORKERS", "DATALOADER.NUM_WORKERS", "-1")
_plain("more images of a class than the batch has", "batch_size=2", "DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler")
_plain("no images of a class", "N_INS", "DATALOADER.TRAIN_X.N_INS", "0")
_plain("more domains than there are", "n_domain=3", "DATALOADER.TRAIN_X.SAMPLER", "RandomDomainSampler",
       "DATALOADER.TRAIN_X.N_DOMAIN", "3")  # fmt: skip
_plain("epochs 0", "MAX_EPOCH", "OPTIM.MAX_EPOCH", "0")
_plain("learning rate -1", "OPTIM.LR", "OPTIM.LR", "-1")
_plain("learning rate NaN", "OPTIM.LR", "OPTIM.LR", "nan")
_plain("unknown optimiser", "adam", "OPTIM.NAME", "sgdd")
_plain("momentum -1", "momentum", "OPTIM.MOMENTUM", "-1")
_plain("Nesterov without momentum", "Nesterov", "OPTIM.SGD_NESTEROV", "True", "OPTIM.MOMENTUM", "0")
_plain("warm-up learning rate inf", "OPTIM.WARMUP_CONS_LR", "OPTIM.WARMUP_CONS_LR", "1e400")
_plain("unknown schedule", "cosine", "OPTIM.LR_SCHEDULER", "cosin")
_plain("unknown transform", "random_flip", "INPUT.TRANSFORMS", "('random_flop',)")
_plain("blur over 2 pixels", "kernel=2", "INPUT.TRANSFORMS", "('gaussian_blur',)", "INPUT.GB_K", "2")
_plain("crop that is larger than the image", "RRCROP_SCALE", "INPUT.RRCROP_SCALE", "(2, 1)")
_plain("no transform", "NO_TRANSFORM", "INPUT.NO_TRANSFORM", "True")
_plain("mean in words", "PIXEL_MEAN", "INPUT.PIXEL_MEAN", "['a', 'b', 'c']")
_plain("standard deviation 0", "PIXEL_STD", "INPUT.PIXEL_STD", "[0, 0, 0]")
_plain("image size of one number", "INPUT.SIZE", "INPUT.SIZE", "(32,)")
_plain("unknown interpolation", "bicubic", "INPUT.INTERPOLATION", "bicubi")
_plain("unknown sampler", "RandomSampler", "DATALOADER.TRAIN_X.SAMPLER", "RandomSample")
_plain("unknown precision", "fp16", "TRAINER.COOP.PREC", "fp8")
_plain("unknown cache", "features", "INPUT.CACHE", "feature")
_plain("unknown subset of classes", "base", "DATASET.SUBSAMPLE_CLASSES", "old")
_plain("context of no tokens", "N_CTX", "TRAINER.COOP.N_CTX", "0")
_plain("context of more tokens than fit into memory", "77", "TRAINER.COOP.N_CTX", str(10**14))
_plain("context of 100 tokens", "77", "TRAINER.COOP.N_CTX", "100")
_plain("base half of two classes", "DATASET.SUBSAMPLE_CLASSES base", "DATASET.SUBSAMPLE_CLASSES", "base")
_plain("unknown split", "TEST.SPLIT", "TEST.SPLIT", "validation")
_plain("unknown final model", "best_val", "TEST.FINAL_MODEL", "best")
_plain("classes at once -1", "CLASS_CHUNK", "MODEL.CLASS_CHUNK", "-1")
_plain("noise seed -2", "NOISE.SEED", *_noise("sym", "0.5", "DATASET.NOISE.SEED", "-2"))
_plain("output folder without a name", "OUTPUT_DIR", before=["--output-dir", ""])
_plain("output folder that is no UTF-8", "UTF-8", before=["--output-dir", "run\udcff"])
_plain("image size of another backbone", "INPUT.SIZE", "INPUT.SIZE", "(64, 64)")
_plain("prompts in layers that are not there", "PROMPT_DEPTH", "TRAINER.MAPLE.PROMPT_DEPTH", "99", trainer="MaPLe")
_plain(
    "image prompts in layers that are not there",
    "PROMPT_DEPTH_VISION",
    "TRAINER.VPT.PROMPT_DEPTH_VISION",
    "99",
    trainer="VPT",
)
_plain("vectors at a block that is not there", "BLOCK", "TRAINER.TCP.BLOCK", "99", trainer="TCP")
_plain("template without a place for the class", "{}", "TRAINER.ZEROSHOT.TEMPLATE", "a photo", trainer="ZeroshotCLIP")
_plain("seed 0", "", before=["--seed", "0"], status=WORKS)
_plain("seed -1: none", "", before=["--seed", "-1"], status=WORKS)
_plain("seed -2", "-2", before=["--seed", "-2"])
_plain("seed 2**32", "4294967296", before=["--seed", str(2**32)])
_plain("seed in words", "'one'", before=["--seed", "one"])
_plain("CUDA asked for without one", "USE_CUDA", "USE_CUDA", "True", status=WORKS)
_plain("no data root", "nowhere", before=["--root", "nowhere"])
_plain("no such own folder", "elsewhere", path="elsewhere")
_plain("no config file", "nowhere.yaml", before=["--config-file", "nowhere.yaml"])
_plain("untrained prompt evaluated", "--model-dir", before=["--eval-only"])
_plain("model folder that is missing", "nowhere", before=["--eval-only", "--model-dir", "nowhere"])
_plain("folder to resume from that is missing", "nowhere", before=["--resume", "nowhere"])
_plain("folder to resume from that has no checkpoints", "--resume", before=["--resume", "data"])
_plain("no backbone", "--backbone", before=["--backbone", ""])
_plain("unknown backbone", "RN50", before=["--backbone", "RN51"])


# Configuration files


@case("yaml that is broken", 2, "bad.yaml")
def _(place):
    return place.train(before=["--config-file", str(place.file("bad.yaml", "OPTIM: [1"))])


@case("yaml with broken UTF-8", 2, "bad.yaml")
def _(place):
    return place.train(before=["--config-file", str(place.file("bad.yaml", b"TRAINER: {NAME: \xff}"))])


@case("yaml that would run code", 2, "bad.yaml")
def _(place):
    text = f"SEED: !!python/object/apply:builtins.open ['{place.root / 'exploded'}', 'w']"
    return place.train(before=["--config-file", str(place.file("bad.yaml", text))])


@case("yaml that is a list", 2, "bad.yaml")
def _(place):
    return place.train(before=["--config-file", str(place.file("bad.yaml", "- a\n- b\n"))])


@case("yaml with two files to build on", 2, "_BASE_")
def _(place):
    return place.train(before=["--config-file", str(place.file("bad.yaml", "_BASE_: [a.yaml, b.yaml]"))])


@case("noise file of something else", 2, "noise.json")
def _(place):
    return place.train("DATASET.NOISE.FILE", str(place.file("noise.json", '{"samples": []}')))


# Weights and checkpoints


@case("no weights and no network", 2, "RN50.pt")
def _(place):
    return place.train(before=["--backbone", "RN50", "--clip-dir", str(place.root / "data")])


@case("backbone that is truncated", 2, "truncated")
def _(place):
    content = Path(place.backbone).read_bytes()
    return place.train(before=["--backbone", str(place.file("clip.pt", content[: len(content) // 2]))])


@case("backbone of 0 bytes", 2, "clip.pt")
def _(place):
    return place.train(before=["--backbone", str(place.file("clip.pt"))])


@case("backbone that is a pickle bomb", 2, "clip.pt")
def _(place):
    bomb = pickle.dumps({"state_dict": _Bomb(str(place.root / "exploded"))})
    return place.train(before=["--backbone", str(place.file("clip.pt", bomb))])


@case("backbone that is a pickle bomb in a zip", 2, "clip.pt")
def _(place):
    torch.save(_Bomb(str(place.root / "exploded")), place.root / "clip.pt")
    return place.train(before=["--backbone", str(place.root / "clip.pt")])


@case("backbone of another architecture", 2, "visual.attnpool.positional_embedding")
def _(place):
    torch.save(torch.nn.Linear(2, 2).state_dict(), place.root / "clip.pt")
    return place.train(before=["--backbone", str(place.root / "clip.pt")])


@case("backbone that is a folder", 2, "data")
def _(place):
    return place.train(before=["--backbone", str(place.data)])


@case("prompts that are a pickle bomb", 2, "refused")
def _(place):
    folder = place.checkpoint()
    torch.save(_Bomb(str(place.root / "exploded")), folder / "prompt_learner" / "model.pth.tar-1")
    return place.evaluate(folder)


@case("initial prompts that are a pickle bomb", 2, "refused")
def _(place):
    bomb = place.file("weights.pt", pickle.dumps(_Bomb(str(place.root / "exploded")), protocol=2))
    return place.train("MODEL.INIT_WEIGHTS", str(bomb))


@case("prompts that are truncated", 2, "model.pth.tar-1")
def _(place):
    folder = place.checkpoint()
    path = folder / "prompt_learner" / "model.pth.tar-1"
    path.write_bytes(path.read_bytes()[:300])
    return place.evaluate(folder)


@case("prompts of 0 bytes", 2, "model.pth.tar-1")
def _(place):
    folder = place.checkpoint()
    (folder / "prompt_learner" / "model.pth.tar-1").write_bytes(b"")
    return place.evaluate(folder)


@case("prompts that are a list", 2, "model.pth.tar-1")
def _(place):
    folder = place.checkpoint()
    torch.save({"state_dict": [0], "epoch": 1}, folder / "prompt_learner" / "model.pth.tar-1")
    return place.evaluate(folder)


@case("prompts that are words", 2, "model.pth.tar-1")
def _(place):
    return place.evaluate(place.checkpoint(words="a photo of a"))


@case("prompts of the wrong width", 2, "ctx")
def _(place):
    return place.evaluate(place.checkpoint(ctx=(2, 32)))


@case("prompts of the wrong length", 2, "ctx")
def _(place):
    return place.evaluate(place.checkpoint(ctx=(5, 64)))


@case("prompts of other classes", 2, "class")
def _(place):
    digest = torch.zeros(32, dtype=torch.uint8)
    return place.evaluate(place.checkpoint(ctx=(2, 2, 64), ctx_classes=digest), "TRAINER.COOP.CSC", "True")


@case("prompts of another method", 2, "meta_net")
def _(place):
    return place.evaluate(place.checkpoint(), "TRAINER.COCOOP.N_CTX", "2", trainer="CoCoOp")


@case("a model folder without checkpoints", 2, "model.pth.tar-1")
def _(place):
    (place.root / "model").mkdir()
    return place.evaluate(place.root / "model")


@case("an epoch that is not there", 2, "model.pth.tar-7")
def _(place):
    return place.train(before=["--eval-only", "--model-dir", str(place.checkpoint()), "--load-epoch", "7"])


@case("resuming prompts of the wrong width", 2, "ctx")
def _(place):
    return place.train(before=["--resume", str(place.checkpoint(ctx=(2, 32)))])


@case("resuming a pickle bomb", 2, "refused")
def _(place):
    folder = place.checkpoint()
    torch.save(_Bomb(str(place.root / "exploded")), folder / "prompt_learner" / "model.pth.tar-1")
    return place.train(before=["--resume", str(folder)])


@case("resuming where the pointer to the checkpoint is damaged", WORKS, "epoch [1/1]")
def _(place):
    folder = place.checkpoint()
    (folder / "prompt_learner" / "checkpoint").write_bytes(b"\xff\xfe")
    return place.train(before=["--resume", str(folder)])


@case("resuming where the only checkpoint is truncated", WORKS, "epoch [1/1]")
def _(place):
    folder = place.checkpoint()
    path = folder / "prompt_learner" / "model.pth.tar-1"
    path.write_bytes(path.read_bytes()[:300])
    return place.train(before=["--resume", str(folder)])


@case("a checkpoint in the output folder that no run wrote", 2, "out/run/prompt_learner")
def _(place):
    place.checkpoint("out/run/prompt_learner")
    return place.train()


# Split files and tables


@case("split whose images are missing", 2, "1 of 9")
def _(place):
    return place.split(["set/cat/9.png", 0, "cat"])


@case("split that calls one label two names", 2, '"tiger"')
def _(place):
    return place.split(["set/cat/2.png", 0, "tiger"], test=place.rows(3))


@case("split with a gap in the labels", 2, "[2]")
def _(place):
    return place.split(["set/cat/2.png", 3, "tiger"], test=place.rows(3))


@case("split with a negative label", 2, "negative")
def _(place):
    return place.split(["set/cat/2.png", -1, "tiger"], test=place.rows(3))


@case("split with an absolute path of no image", 2, "cat/missing.png")
def _(place):
    return place.split([str(place.data / "set/cat/missing.png"), 0, "cat"], test=place.rows(3))


@case("split that leaves its folder", 2, "../data/set/cat/2.png")
def _(place):
    return place.split(["../data/set/cat/2.png", 0, "cat"], test=place.rows(3))


@case("split with a NUL in a path", 2, "entry 4")
def _(place):
    return place.split(["set/cat\0/2.png", 0, "cat"])


@case("split with an image twice", 2, "set/cat/2.png")
def _(place):
    return place.split(["set/cat/2.png", 0, "cat"])


@case("split with labels as text", 2, "entry 4")
def _(place):
    return place.split(["set/cat/2.png", "0", "cat"])


@case("split without training images", 2, "training")
def _(place):
    return place.split(train=[])


def _content(name, named, content):
    def prepare(place):
        place.file("data/split.json", content)
        return place.train(own="split", path="split.json")

    CASES[name] = Case(2, named, prepare)


_content("split with broken UTF-8", "UTF-8", b'{"train": [["\xff.png", 0, "cat"]]}')
_content("split of 0 bytes", "split.json", "")
_content("split that is no JSON", "line 1 column 12", '{"train": [')
_content("split that is a list", '"train", "val"', "[]")
_content("split with too deep a nesting", "split.json", "[" * 100_000)


@case("table without the column of paths", 2, "'colour'")
def _(place):
    place.file("data/set.csv", "colour,classname\nred,cat\n")
    return place.train(own="csv", path="set.csv")


@case("table without a class name", 2, "line 3")
def _(place):
    place.file("data/set.csv", "path,classname\nset/cat/0.png,cat\nset/dog/0.png,\n")
    return place.train(own="csv", path="set.csv")


@case("table with an endless field", 2, "set.csv")
def _(place):
    place.file("data/set.csv", f"path,classname\n{'a' * 200_000},cat\n")
    return place.train(own="csv", path="set.csv")


@case("table with an unknown split", 2, "train, val or test")
def _(place):
    place.file("data/set.csv", "path,classname,split\nset/cat/0.png,cat,dev\n")
    return place.train(own="csv", path="set.csv")


def _table(name, named, *labels):
    def prepare(place):
        rows = [f"{row[0]},{label},{row[2]}\n" for row, label in zip(place.rows(0, 1), labels, strict=True)]
        place.file("data/set.csv", "path,label,classname\n" + "".join(rows))
        return place.train(own="csv", path="set.csv")

    CASES[name] = Case(2, named, prepare)


_table("table with a label of 10**11", "[1, 2, 3, 4, 5]", 0, 0, 10**11, 10**11)
_table("table with a label of 400 digits", "[1, 2, 3, 4, 5]", 0, 0, "9" * 400, "9" * 400)
_table("table with a label that is a digit but no number", '"²"',
       0, 0, "²", "²")  # fmt: skip
_table("table with labels as decimals", '"0.0"', "0.0", "0.0", "1.0", "1.0")
_table("table with a label below 0", '"-1"', 0, 0, -1, -1)
_table("table with a label left out", "line 5", 0, 0, 1, "")


@case("split with a label of 10**11", 2, "[2, 3, 4, 5, 6]")
def _(place):
    return place.split(["set/cat/2.png", 10**11, "tiger"], test=place.rows(3))


_content("split with a label of 5,000 digits", "5000 digits", '{"train": [["a.png", ' + "9" * 5000 + ', "cat"]]}')


@case("folder without classes", 2, "data/bare")
def _(place):
    (place.data / "bare").mkdir()
    return place.train(path="bare")


@case("class without images", 2, "set/bird")
def _(place):
    (place.data / "set" / "bird").mkdir()
    return place.train()


# Images


@case("image that is truncated", 2, "cat/0.png")
def _(place):
    path = place.data / "set" / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:-40])
    return place.train()


@case("image of 0 bytes", 2, "0.png")
def _(place):
    (place.data / "set" / "cat" / "0.png").write_bytes(b"")
    return place.train()


@case("image that is a web page", 2, "0.png")
def _(place):
    (place.data / "set" / "cat" / "0.png").write_text("<html>not found</html>")
    return place.train()


def _bomb(path):
    """Make a PNG say that it has 10**10 pixels."""
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 10**5, 10**5) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])


@case("image that is a decompression bomb", 2, "DecompressionBomb")
def _(place):
    _bomb(place.data / "set" / "cat" / "0.png")
    return place.train()


@case("decompression bomb met in training", 2, "cat/0.png")
def _(place):
    for path in (place.data / "set" / "cat").iterdir():
        _bomb(path)
    return place.train("DATASET.CHECK_IMAGES", "False")


@case("truncated image met in a worker", 2, "cat/0.png")
def _(place):
    for path in (place.data / "set" / "cat").iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    return place.train("DATASET.CHECK_IMAGES", "False", "DATALOADER.NUM_WORKERS", "1")


def _image(name, **options):
    def prepare(place):
        for label in ("cat", "dog"):
            for number in range(4):
                path = place.data / "set" / label / f"{number}.png"
                path.unlink()
                place.image(f"set/{label}/{number}.{options.get('suffix', 'png')}", **options["image"])
        return place.train()

    CASES[name] = Case(WORKS, "", prepare)


_image("images of 1 x 1", image={"size": (1, 1)})
_image("images in CMYK", image={"mode": "CMYK"}, suffix="jpg")
_image("images of 16 bits", image={"mode": "I;16"})
_image("images in grey", image={"mode": "L"})
_image("animated images", image={"mode": "L", "save_all": True, "append_images": [Image.new("L", (12, 10), 9)]},
       suffix="gif")  # fmt: skip
_image("images with EXIF rotation", image={"exif": ROTATED}, suffix="jpg")


# Class names


def _names(name, status, named, *names):
    def prepare(place):
        splits = {s: place.rows(*n, names=names) for s, n in (("train", (0, 1)), ("test", (2, 3)))}
        return place.split(**splits)

    CASES[name] = Case(status, named, prepare)


_names("class name that is empty", 2, "label 1", "cat", "")
_names("class name of blanks", 2, "label 1", "cat", " _ ")
_names("class names that are equal", 2, '"cat"', "cat", "cat")
_names("class names that prompts cannot tell apart", 2, '"big_cat"', "big cat", "big_cat")
_names("class names of other case", 2, '0 "Owl" and 1 "owl"', "Owl", "owl")
_names("class names with an HTML entity", 2, '0 "cat & dog" and 1 "cat &amp; dog"', "cat & dog", "cat &amp; dog")
_names(
    "class names with composed and decomposed accents", 2, '0 "caf\u00e9" and 1 "cafe\u0301"', "caf\u00e9", "cafe\u0301"
)
_names("class names of other blanks", 2, '"big cat"', "big  cat ", "big cat")
_names("class name that is an HTML blank", 2, "label 1", "cat", "&#32;")
_names("class name of 80 tokens", 2, "77", "cat", "dog " * 80)
_names("class names with underscores", WORKS, "", "big_cat", "small_dog")
_names("class names that are emoji", WORKS, "", "🐈", "🐕‍🦺")
_names("class names in CJK", WORKS, "", "猫", "犬")


@case("class folder that is no UTF-8", 2, "UTF-8")
def _(place):
    place.images("b\udcff")
    return place.train()


@case("one class", 2, "data/single/cat")
def _(place):
    place.images("cat", folder="single")
    return place.train(path="single")


def _folders(name, named, *paths):
    def prepare(place):
        for path in paths:
            place.image(f"folders/{path}")
        return place.train(path="folders")

    CASES[name] = Case(2, named, prepare)


_folders("a folder that holds the folder of classes", "folders/birds", "birds/cat/1.png",
         "birds/dog/1.png")  # fmt: skip
_folders("two folders of validation images", "val and valid", "train/a/1.png", "train/b/1.png", "test/a/1.png",
         "test/b/1.png", "val/a/1.png", "valid/a/1.png")  # fmt: skip


@case("paths with spaces and characters beyond ASCII", WORKS)
def _(place):
    place.images("Kätzchen", "小犬 🐕", folder="mes données")
    place.out = place.root / "résultats du 1er" / "run ü"
    return place.train(before=["--backbone", str(place.file("ма дель.pt", Path(place.backbone).read_bytes()))],
                       path="mes données")  # fmt: skip


# Output folders


@case("output folder that is a file", 2, "run")
def _(place):
    place.file("out/run")
    return place.train()


@case("output folder below a file", 2, "out")
def _(place):
    place.file("out")
    return place.train()


@case("result of another version", 2, "99")
def _(place):
    place.file("out/run/result.json", '{"schema_version": 99}')
    return place.train()


@case("result that is damaged", 2, "result.json")
def _(place):
    place.file("out/run/result.json", "{")
    return place.train()


@case("result whose accuracy is no number", 2, "result.json")
def _(place):
    place.file("out/run/result.json", json.dumps({**finished_result(), "accuracy": "high"}))
    return place.train()


@case("result whose origin is no origin", 2, "result.json")
def _(place):
    place.file("out/run/result.json", json.dumps({**finished_result(), "evaluated": "x"}))
    return place.train()


@case("settings that are damaged", 2, "damaged")
def _(place):
    place.file("out/run/config.yaml", "a: [")
    return place.train()


@case("settings that are no settings", 2, "damaged")
def _(place):
    place.file("out/run/config.yaml", "- a\n")
    return place.train()


@case("results: no such folder", 2, "nowhere", "results")
def _(place):
    return [str(place.root / "nowhere")]


@case("results: an empty folder", 2, "out.", "results")
def _(place):
    place.out.mkdir(parents=True)
    return [str(place.root / "out")]


@case("results: half-finished", 2, "out/run", "results")
def _(place):
    place.checkpoint("out/run/prompt_learner")
    place.file("out/run/prompt_learner/model.pth.tar-2.tmp123", "half")
    place.file("out/run/config.yaml", "SEED: 1\n")
    return [str(place.root / "out")]


@case("results: another version's", 2, "99", "results")
def _(place):
    place.file("out/run/result.json", '{"schema_version": 99}')
    return [str(place.root / "out")]


@case("results: of 0 bytes", 2, "result.json", "results")
def _(place):
    place.file("out/run/result.json")
    return [str(place.root / "out")]


@case("results: a log that is no text", 2, "out/run", "results")
def _(place):
    place.file("out/run/log.txt", b"\xff\xfe\x00")
    return [str(place.root / "out")]


def finished_result():
    """Return a result as a finished run writes it, as far as tables read it."""
    return {
        "schema_version": 1, "trainer": "CoOp", "dataset": "set", "seed": 1, "shots": 1, "subsample": "all",
        "noise": None, "evaluated": None, "config": {}, "config_name": "", "accuracy": 50.0, "macro_f1": 50.0,
    }  # fmt: skip


@case("results: mixed with unfinished and damaged ones", WORKS, "50.0", "results")
def _(place):
    place.file("out/good/result.json", json.dumps(finished_result()))
    place.file("out/other/result.json", '{"schema_version": 99}')
    place.file("out/half/config.yaml", "SEED: 1\n")
    return [str(place.root / "out")]


@case("results: accuracy that is no number", 2, "out/run/result.json", "results")
def _(place):
    place.file("out/run/result.json", json.dumps({**finished_result(), "accuracy": "high"}))
    return [str(place.root / "out")]


@case("protocol: no such protocol", 2, "noisy_base2new", "protocol")
def _(place):
    return ["noise"]


@case("protocol: shots that are a digit but no number", 2, "²", "protocol")
def _(place):
    return ["noisy", "emoji", "sym", "0.5", "--shots", "²"]


@case("protocol: shots of 5,000 digits", 2, "--shots", "protocol")
def _(place):
    return ["noisy", "emoji", "sym", "0.5", "--shots", "9" * 5000]


@case("protocol: shots 0", 2, "--shots", "protocol")
def _(place):
    return ["noisy", "emoji", "sym", "0.5", "--shots", "0"]


@case("check_data: unknown data set", 2, "own_folder", "check_data")
def _(place):
    return ["pets", "--root", str(place.data)]


@case("check_data: unknown key", 2, "DATASET.ONW", "check_data")
def _(place):
    return ["OwnFolder", "--root", str(place.data), "DATASET.ONW.PATH", "set"]


@case("archive instead of a data root", 2, "data.zip")
def _(place):
    with zipfile.ZipFile(place.root / "data.zip", "w") as archive:
        archive.writestr("a", "b")
    return place.train(before=["--root", str(place.root / "data.zip")])
