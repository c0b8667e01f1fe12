"""Trains the trainers of a miniature fork, the current folder, and saves what they learn; its argument is a data root.

In a fork edited by hand (support/wanted.py) by those losses, otherwise by cross-entropy and by `with_loss`.
"""

import importlib
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import torch

TRAINERS = ("CoOp", "CoCoOp", "VPT", "PromptSRC", "KgCoOp", "ProGrad", "TCP", "DePT", "CoPrompt", "MMRL", "TwoSteps")
RUNS = [(trainer, "DSPT") for trainer in TRAINERS]
RUNS += [(trainer, "isl") for trainer in ("KgCoOp", "PromptSRC", "ProGrad", "DePT", "TwoSteps")]
RUNS += [("CoCoOp", loss) for loss in ("MAE", "GCE", "LS", "ls", "csl")]
RESUMED = [("ProGrad", "DSPT"), ("DePT", "isl"), ("TwoSteps", "isl")]
REFUSED = ["NLPrompt", "DPC"]
KINDS = ("ls", "csl", "isl")  # of ATLaS's soft labels


def configuration(train, root, output, trainer, loss):
    """Return the frozen configuration of a run of three epochs, by the fork's train.py with our keys."""
    pairs = ["DATASET.NUM_SHOTS", 4, "TRAIN.CHECKPOINT_FREQ", 1, "OPTIM.MAX_EPOCH", 3, "TRAINER.GCE.Q", 0.5]
    pairs += ["VERBOSE", False, "USE_CUDA", False, "TEST.NO_TEST", True]
    pairs += ["TRAINER.ATLAS.ALPHA", 0.8, "TRAINER.ATLAS.ISL_TEMPERATURE", 0.05]
    pairs += ["TRAINER.ATLAS.SOFT_LABELS", loss] if loss in KINDS else []
    return train.setup_cfg(
        SimpleNamespace(
            root=root,
            output_dir=str(output),
            seed=1,
            trainer=trainer,
            dataset_config_file="configs/datasets/blobs.yaml",
            config_file="configs/trainers/CoOp/rn50_ep50.yaml",
            opts=pairs,
        )
    )


def learned(trainer, cfg):
    """Return the weights that a trainer has at the end of its training, or when it is refused."""
    from dassl.utils import set_random_seed

    from dspt_atlas.errors import UserError

    set_random_seed(1)
    made = trainer(cfg)
    with suppress(UserError):
        made.train()
    return {name: value.clone() for name, value in made.model.prompt_learner.named_parameters()}


def resumed(trainer, cfg):
    """Return the same for a run that goes on from the first checkpoint of the run in its folder."""
    folder = Path(cfg.OUTPUT_DIR, "prompt_learner")
    for path in folder.glob("model.pth.tar-[23]"):
        path.unlink()
    (folder / "checkpoint").write_text("model.pth.tar-1\n")
    return learned(trainer, cfg)


def main(root):
    """Train by every loss; save the weights by (trainer, loss)."""
    sys.path.insert(0, ".")
    from dassl.engine import TRAINER_REGISTRY

    import dspt_atlas
    import train

    own = train.extend_cfg
    train.extend_cfg = lambda cfg: (own(cfg), dspt_atlas.extend_cfg(cfg))
    weights = {}

    def keep(key, trainer, learn=learned):
        name, loss = key[:2]
        weights[key] = learn(trainer, configuration(train, root, Path("out", f"{name}-{loss}"), name, loss))

    if Path("trainers/wanted.py").exists():
        wanted = importlib.import_module("trainers.wanted")
        for name, loss in RUNS:
            keep((name, loss), wanted.by_hand(TRAINER_REGISTRY.get(name), loss))
    else:
        for name in TRAINERS:
            keep((name, "CE"), TRAINER_REGISTRY.get(name))
        for name, loss in (*RUNS, *((name, "DSPT") for name in REFUSED)):
            robust = dspt_atlas.with_loss(TRAINER_REGISTRY.get(name), "ATLaS" if loss in KINDS else loss)
            keep((name, loss), robust)
            if (name, loss) in RESUMED:
                keep((name, loss, "resumed"), robust, resumed)
        for name in REFUSED:
            untrained = type(name, (TRAINER_REGISTRY.get(name),), {"train": lambda self: None})
            keep((name, "untrained"), untrained)
    torch.save(weights, "weights.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
