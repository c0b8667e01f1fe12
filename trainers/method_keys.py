"""The configuration keys of prompt learners and methods."""

from __future__ import annotations

from dspt_atlas.config.keys import Need, declare
from dspt_atlas.config.ranges import Allowed, at_least, fraction, one_of, positive, share

LONGEST_CONTEXT = 75  # tokens: the first and the last of CLIP's 77 positions are taken
MOST_MAPLE_WORDS = 4
CONTEXT = Allowed(
    lambda count: 1 <= count <= LONGEST_CONTEXT,
    f"to be from 1 to {LONGEST_CONTEXT}, since CLIP's text tower has 77 positions",
)
PRECISION = one_of("fp16", "fp32", "amp", "bf16")


def _soft_labels(*kinds):
    return Need(
        lambda run: run.cfg.TRAINER.ATLAS.SOFT_LABELS in kinds, f"TRAINER.ATLAS.SOFT_LABELS {' or '.join(kinds)}"
    )


declare("TRAINER.COOP.N_CTX", 16, "learned context tokens", CONTEXT)
declare("TRAINER.COOP.CSC", False, "a context of its own for every class")
declare("TRAINER.COOP.CTX_INIT", "", "words that the context starts from, one vector per word; empty: random")
declare("TRAINER.COOP.PREC", "fp16", "precision on a GPU; a CPU computes in fp32", PRECISION)
declare("TRAINER.COOP.CLASS_TOKEN_POSITION", "end", "end, middle or front")
declare("TRAINER.COCOOP.N_CTX", 16, "learned context tokens", CONTEXT)
declare("TRAINER.COCOOP.CTX_INIT", "", "words that the context starts from, one vector per word; empty: random")
declare("TRAINER.COCOOP.PREC", "fp16", "precision on a GPU; a CPU computes in fp32", PRECISION)
declare("TRAINER.MAPLE.N_CTX", 2, "learned context tokens in both towers", CONTEXT)
declare(
    "TRAINER.MAPLE.CTX_INIT",
    "a photo of a",
    "its first N_CTX tokens are learned, the others stay; random beyond N_CTX 4",
    needs=Need(
        lambda run: run.cfg.TRAINER.MAPLE.N_CTX <= MOST_MAPLE_WORDS,
        f"TRAINER.MAPLE.N_CTX of at most {MOST_MAPLE_WORDS}, above which the family's context is random",
    ),
)
declare("TRAINER.MAPLE.PREC", "fp16", "precision on a GPU; a CPU computes in fp32", PRECISION)
declare("TRAINER.MAPLE.PROMPT_DEPTH", 9, "layers that get prompts, 1 to the number of layers")
declare("TRAINER.ZEROSHOT.TEMPLATE", "", "hand-written prompts; empty: the data set's own")
# Ablations of ours, not in the paper: other values than these are not DSPT.
declare("TRAINER.DSPT.TEMPERATURE", 1.0, "of the second softmax; another value is not DSPT", positive())
declare("TRAINER.DSPT.PRECISION", "fp32", "of the second softmax; another value is not DSPT", one_of("fp32", "bf16"))
declare("TRAINER.GCE.Q", 0.7, "(1 - p_y^Q) / Q; Zhang & Sabuncu 2018", fraction())
declare("TRAINER.LS.ALPHA", 0.1, "(1 - ALPHA) one-hot + ALPHA uniform, at every epoch; Szegedy 2016", fraction())
declare("TRAINER.TFKD.ALPHA", 0.1, "weight of the virtual teacher; Yuan 2020", fraction())
declare("TRAINER.TFKD.TEMPERATURE", 20.0, "temperature of the virtual teacher", positive())
declare("TRAINER.TFKD.MULTIPLIER", 100.0, "factor of the teacher's term", positive())
declare("TRAINER.OLS.A", 0.5, "weight of the given labels, the rest goes to the online ones; Zhang 2021", share())
declare("TRAINER.NLPROMPT.REG", 0.01, "entropic regularisation of the optimal transport; CVPR 2025", positive())
declare(
    "TRAINER.JOAPR.WARMUP", 1, "epochs before the first partition; the paper tunes it per data set, ours is one value"
)
declare("TRAINER.JOAPR.ALPHA_1", 0.5, "weight of the negative entropy during warm-up; as WARMUP", at_least(0))
declare("TRAINER.JOAPR.ALPHA_2", 0.5, "weight of KL(uniform || mean prediction) afterwards; as WARMUP", at_least(0))
declare("TRAINER.ATLAS.PERIOD", 2, "K: every K-th epoch uses soft labels; our choice")
declare("TRAINER.ATLAS.ALPHA", 0.1, "weight of the soft part; our choice", fraction())
declare("TRAINER.ATLAS.SOFT_LABELS", "ls", "the kind of soft labels (paper)", one_of("ls", "csl", "isl"))
declare("TRAINER.ATLAS.CSL_TEMPERATURE", 0.1, "our choice", positive(), needs=_soft_labels("csl"))
declare("TRAINER.ATLAS.CSL_KEEP_DIAGONAL", True, "our choice", needs=_soft_labels("csl"))
declare(
    "TRAINER.ATLAS.ISL_TEMPERATURE", 1.0, "relative to CLIP's own; our choice", positive(), needs=_soft_labels("isl")
)
declare(
    "TRAINER.ATLAS.TEMPLATE",
    "",
    "the hand-written prompt of CSL and ISL; empty: the data set's own",
    needs=_soft_labels("csl", "isl"),
)
declare(
    "TRAINER.ATLAS.HARD_LOSS",
    "ce",
    "loss of the hard epochs: ce (paper) or dspt (ours)",
    one_of("ce", "dspt"),
    needs=Need(
        lambda run: run.cfg.TRAINER.ATLAS.PERIOD > 1,
        "TRAINER.ATLAS.PERIOD above 1, since with 1 each epoch has soft labels",
    ),
)
