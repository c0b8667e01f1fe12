"""Runs of train.py that take a second: their arguments, and what they leave."""

import json

from support.paths import CONFIGS, OWN_FOLDER

NOISY = ("DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5")
OF_LEARNERS = {  # the tiny CLIP has two layers
    "CoOp": ("TRAINER.COOP.N_CTX", 2),
    **dict.fromkeys(("MaPLe", "DePTMaPLe"), ("TRAINER.MAPLE.PROMPT_DEPTH", 2)),
    "TCP": ("TRAINER.TCP.BLOCK", 1),
    "IVLP": ("TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 2),
    "VPT": ("TRAINER.VPT.PROMPT_DEPTH_VISION", 2),
    "PromptSRC": ("TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 2),
}


def train_arguments(folder, *pairs, data, backbone, epochs=3, common=(), **options):
    """Return train.py's arguments of a run on the class folders `data`; `common` are pairs before the others."""
    from dspt_atlas.trainers.registry import pair_of  # it loads torch, which xdist's first process needs not

    given = {
        "dataset_config_file": OWN_FOLDER,
        "root": data.parent,
        "config_file": CONFIGS / "trainers" / "CoOp" / "rn50_ep50.yaml",
        "backbone": backbone,
        "trainer": "CoOp",
        "seed": 1,
        "output_dir": folder,
        **options,
    }
    flags = [(f"--{name.replace('_', '-')}", value) for name, value in given.items()]
    fixed = ["DATASET.OWN.PATH", data.name, "DATALOADER.NUM_WORKERS", 0]
    if given["trainer"] != "ZeroshotCLIP":
        fixed += ["OPTIM.MAX_EPOCH", epochs, "DATALOADER.TRAIN_X.BATCH_SIZE", 8]
    fixed += OF_LEARNERS.get(pair_of(given["trainer"]).learner, ())
    return [str(part) for part in (*(part for flag in flags for part in flag), *fixed, *common, *pairs)]


def result_of(folder):
    return json.loads((folder / "result.json").read_text())
