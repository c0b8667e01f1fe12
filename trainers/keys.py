"""The configuration keys of all trainers: backbone, cached features, what is recorded while a run trains."""

from __future__ import annotations

from dspt_atlas.keys.declare import TRAINING, Need, declare
from dspt_atlas.keys.ranges import Allowed, at_least, one_of

LONGEST_CONTEXT = 75  # tokens: the first and the last of CLIP's 77 positions are taken
CONTEXT = Allowed(
    lambda count: 1 <= count <= LONGEST_CONTEXT,
    f"to be from 1 to {LONGEST_CONTEXT}, because CLIP's text tower has 77 positions",
)
WORDS = "words that the context starts from, one vector per word; empty: random"
LOGGERS = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}  # and what is imported for them
MOST_WORDS = 4  # more vectors than this start at random whatever CTX_INIT is, as in the code of MaPLe and IVLP
OPENAIS = Need(lambda run: run.has_backbone_of_openai, "one of OpenAI's backbones, by its name")
SELECTS = Need(
    lambda run: run.cfg.TEST.FINAL_MODEL == "best_val" and not run.cfg.TEST.NO_TEST, "TEST.FINAL_MODEL best_val"
)
LAST_EPOCH = Need(lambda run: not run.cfg.TEST.NOISY_VAL, "TEST.NOISY_VAL False, which only the last epoch measures")

declare(
    "MODEL.CLASS_CHUNK",
    0,
    "number of classes that are encoded at once, if memory is short; 0: all",
    at_least(0),
    "machine",
)
declare("MODEL.CLIP_DIR", "", "folder of OpenAI's weights; empty: the clip package's", role="machine", needs=OPENAIS)
declare("MODEL.LOGIT_SCALE", 0.0, "factor of the cosines in the logits; 0: the backbone's own", at_least(0))
declare("INPUT.VIEWS", 0, "number of augmented views of every training image; 0: one per epoch", needs=TRAINING)
declare("INPUT.CACHE", "none", "features: encode images once (frozen image towers only)", one_of("none", "features"))
declare(
    "INPUT.CACHE_GB",
    20.0,
    "the cache stays below this; the least recently used entries are removed first",
    role="machine",
)
declare(
    "TEST.PERIOD", 0, "epochs between tests while training; 0: one test at the end", role="observing", needs=TRAINING
)
declare("TEST.NEW_CLASSES", False, "test the new classes besides the base classes", role="observing", needs=TRAINING)
declare(
    "TEST.NOISY_VAL",
    False,
    "test the trained prompt on validation images with labels as wrong as DATASET.NOISE says; to choose settings by",
    role="observing",
    needs=TRAINING,
)
declare(
    "TRAIN.PATIENCE",
    0,
    "stop after so many epochs in a row without a better validation accuracy; 0: never",
    at_least(0),
    needs=(TRAINING, SELECTS, LAST_EPOCH),
)
declare("TRAIN.GRADIENT_PROFILE", False, "keep the norms of samples' gradients", role="observing", needs=TRAINING)
declare(
    "TRAIN.GRADIENT_SHARE",
    False,
    "keep the gradient norms of criterion and regulariser at each epoch's first step",
    role="observing",
    needs=TRAINING,
)
declare(
    "TRAIN.LOGGERS",
    [],
    "write curves for tensorboard, wandb or both, such as ['tensorboard']",
    Allowed(lambda names: set(names) <= set(LOGGERS), f"to be a list of {' and '.join(LOGGERS)}"),
    role="machine",
    needs=TRAINING,
)


def declare_context(node, n_ctx, ctx_init: str | bool = "", words=WORDS, needs=(), length="N_CTX"):
    """Declare the keys of TRAINER.<NODE> for a learned context: `length`, CTX_INIT (text `words`), PREC."""
    declare(f"TRAINER.{node}.{length}", n_ctx, "learned context tokens", CONTEXT)
    declare(f"TRAINER.{node}.CTX_INIT", ctx_init, words, needs=needs)
    declare_precision(node)


def declare_first_words(node, n_ctx, length="N_CTX"):
    """Declare the keys of TRAINER.<NODE> for a context in the place of the first tokens of CTX_INIT."""
    key = f"TRAINER.{node}.{length}"
    reason = "because the family's context is random above it"
    needs = Need(lambda run: run.cfg.TRAINER[node][length] <= MOST_WORDS, f"{key} of at most {MOST_WORDS}, {reason}")
    words = f"its first {length} tokens are learned, the others stay; random beyond {length} {MOST_WORDS}"
    declare_context(node, n_ctx, "a photo of a", words, needs, length)


def declare_precision(node):
    """Declare TRAINER.<NODE>.PREC."""
    precisions = one_of("fp16", "fp32", "amp", "bf16")
    declare(f"TRAINER.{node}.PREC", "fp16", "precision on a GPU; a CPU computes in fp32", precisions)
