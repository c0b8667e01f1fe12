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
OPENAIS = Need(lambda run: run.has_backbone_of_openai, "one of OpenAI's backbones, by its name")

declare(
    "MODEL.CLASS_CHUNK",
    0,
    "number of classes that are encoded at once, if memory is short; 0: all",
    at_least(0),
    "machine",
)
declare("MODEL.CLIP_DIR", "", "folder of OpenAI's weights; empty: the clip package's", role="machine", needs=OPENAIS)
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
declare("TRAIN.GRADIENT_PROFILE", False, "keep the norms of samples' gradients", role="observing", needs=TRAINING)


def declare_context(node, n_ctx, ctx_init="", words=WORDS, needs=()):
    """Declare the keys of TRAINER.<NODE> that every prompt learner has: N_CTX, CTX_INIT (text `words`), PREC."""
    declare(f"TRAINER.{node}.N_CTX", n_ctx, "learned context tokens", CONTEXT)
    declare(f"TRAINER.{node}.CTX_INIT", ctx_init, words, needs=needs)
    precisions = one_of("fp16", "fp32", "amp", "bf16")
    declare(f"TRAINER.{node}.PREC", "fp16", "precision on a GPU; a CPU computes in fp32", precisions)
