"""The configuration keys of this project, added to a Dassl configuration."""

from __future__ import annotations

from yacs.config import CfgNode

from dspt_atlas.errors import UserError

DEFAULTS = {
    "TRAINER": {
        "COOP": {
            "N_CTX": 16,  # learned context tokens
            "CSC": False,  # a context of its own for every class
            "CTX_INIT": "",  # words that the context starts from, one vector per word; "" = random
            "PREC": "fp16",  # fp16, fp32 or amp, on a GPU; a CPU computes in fp32
            "CLASS_TOKEN_POSITION": "end",  # end, middle or front
        },
        "COCOOP": {"N_CTX": 16, "CTX_INIT": "", "PREC": "fp16"},
        "MAPLE": {
            "N_CTX": 2,
            "CTX_INIT": "a photo of a",  # its first N_CTX tokens are learned, the others stay; random beyond N_CTX 4
            "PREC": "fp16",
            "PROMPT_DEPTH": 9,  # layers that get prompts, 1 to the number of layers
        },
        "DSPT": {  # ablations of ours, not in the paper: other values than these are not DSPT
            "TEMPERATURE": 1.0,  # of the second softmax
            "PRECISION": "fp32",  # of the second softmax: fp32 or bf16
        },
        "GCE": {"Q": 0.7},  # (1 - p_y^Q) / Q; Zhang & Sabuncu 2018
        "LS": {"ALPHA": 0.1},  # (1 - ALPHA) one-hot + ALPHA uniform, at every epoch; Szegedy 2016
        "TFKD": {  # Tf-KD's regularisation form; Yuan 2020
            "ALPHA": 0.1,  # weight of the virtual teacher
            "TEMPERATURE": 20.0,
            "MULTIPLIER": 100.0,
        },
        "OLS": {"A": 0.5},  # weight of the given labels, the rest goes to the online ones; Zhang 2021
        "NLPROMPT": {"REG": 0.01},  # entropic regularisation of the optimal transport; CVPR 2025
        "JOAPR": {
            "WARMUP": 1,  # epochs before the first partition; the paper tunes it per data set, one value is our choice
            "ALPHA_1": 0.5,  # weight of the negative entropy during warm-up; as WARMUP
            "ALPHA_2": 0.5,  # weight of KL(uniform || mean prediction) afterwards; as WARMUP
        },
        "ATLAS": {
            "PERIOD": 2,  # K: every K-th epoch uses soft labels; our choice
            "ALPHA": 0.1,  # weight of the soft part; our choice
            "SOFT_LABELS": "ls",  # ls, csl or isl (paper)
            "CSL_TEMPERATURE": 0.1,  # our choice
            "CSL_KEEP_DIAGONAL": True,  # our choice
            "ISL_TEMPERATURE": 1.0,  # relative to CLIP's own; our choice
            "TEMPLATE": "",  # the hand-written prompt of CSL and ISL; "" = the data set's own
            "HARD_LOSS": "ce",  # loss of the hard epochs: ce (paper) or dspt (ours)
        },
        "ZEROSHOT": {"TEMPLATE": ""},  # "" = the data set's own
    },
    "DATASET": {
        "CHECK_IMAGES": True,  # decode every image in use once before training; lists found good are remembered
        "SUBSAMPLE_CLASSES": "all",  # all, base (first half of the classes) or new (the rest)
        "NOISE": {
            "FAMILY": "relabel",  # relabel or swap: not comparable with each other
            "TYPE": "none",  # none, sym, asym (relabel); symflip, pairflip (swap)
            "RATE": 0.0,  # fraction of wrong labels, in [0, 1)
            "SEED": -1,  # -1 = the run's seed
            "PER_CLASS": False,  # exact count in every class instead of over the whole set
            "FILE": "",  # a noise.json whose labels are used as they are
        },
    },
    "MODEL": {
        "CLASS_CHUNK": 0,  # classes encoded at once, where memory is short; 0 = all
        "CLIP_DIR": "",  # folder of OpenAI's weights; "" = the clip package's own
    },
    "INPUT": {
        "VIEWS": 0,  # augmented views of every training image; 0 = one an epoch
        "CACHE": "none",  # none or features: encode images once (frozen image towers only)
        "CACHE_GB": 20.0,  # refuse caches that would become larger
    },
    "TEST": {
        "PERIOD": 0,  # evaluate the test set every so many epochs too; 0 = only at the end
        "NEW_CLASSES": False,  # with SUBSAMPLE_CLASSES base: then the new classes' test images as well
    },
    "TRAIN": {"GRADIENT_PROFILE": False},  # norms of the samples' gradients, right and wrong labels apart, every epoch
}


def add_defaults(cfg: CfgNode, defaults: dict) -> None:
    """Add what `cfg` lacks of a nested dict, in place; keys that exist keep their values.

    Raises UserError where `cfg` has a value in place of a group of keys, or the reverse.
    """
    for key, value in defaults.items():
        if key not in cfg:
            cfg[key] = CfgNode() if isinstance(value, dict) else value
        if isinstance(value, dict) != isinstance(cfg[key], CfgNode):
            raise UserError(
                f"The configuration key {key} is {cfg[key]!r} here, but dspt_atlas has "
                f"{'a group of keys' if isinstance(value, dict) else 'one value'} of that name: rename yours."
            )
        if isinstance(value, dict):
            add_defaults(cfg[key], value)


def default_cfg() -> CfgNode:
    """Return Dassl's default configuration with our keys, as `extend_cfg` adds them."""
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    extend_cfg(cfg)
    return cfg


def extend_cfg(cfg: CfgNode) -> None:
    """Add our keys to a Dassl configuration; register our trainers and `Noisy<Name>` of every data set so far.

    Overwrites nothing that exists; may be called repeatedly.
    """
    from dspt_atlas.datasets import add_dataset_config, register_noisy
    from dspt_atlas.trainers.registry import register_methods

    add_defaults(cfg, DEFAULTS)
    add_dataset_config(cfg)
    register_methods()
    register_noisy()
