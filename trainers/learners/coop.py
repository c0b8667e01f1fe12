"""CoOp (Zhou et al., IJCV 2022): a learned context, shared by all classes or one per class."""

from torch import nn

from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import one_of
from dspt_atlas.trainers.clip.towers import tokenizer_of
from dspt_atlas.trainers.declare import learner
from dspt_atlas.trainers.keys import declare_context
from dspt_atlas.trainers.learners.prompts import (
    class_digest,
    context_words,
    has_words_of_several_tokens,
    initial_context,
    prompt_sequences,
    words_of_context,
)
from dspt_atlas.trainers.trainer import PromptTrainer

_POSITIONS = ("end", "middle", "front")

declare_context("COOP", n_ctx=16)
declare("TRAINER.COOP.CSC", False, "learn one context per class")
declare("TRAINER.COOP.CLASS_TOKEN_POSITION", "end", "the position of the class name", one_of(*_POSITIONS))


class CoOpPromptLearner(nn.Module):
    """`n_ctx` learned context vectors, shared by all classes or (csc) per class (CoOp, Zhou et al. 2022).

    `forward()` returns the context (1, n_ctx or C n_ctx, w); `sequences` is what SharedPrefixTextEncoder takes. The
    context starts as the first tokens of `ctx_init` (n_ctx is then its number of words, and tokens beyond stay fixed)
    or as normal noise of deviation 0.02.
    Raises UserError for an unknown class_token_position and for class names that do not fit.
    """

    prompts_images = False
    conditional = False
    unused: tuple[str, ...] = ()  # beginnings of entries of other people's files that mean nothing here

    def __init__(self, clip_model, classnames, n_ctx=16, ctx_init="", csc=False, class_token_position="end"):
        super().__init__()
        if class_token_position not in _POSITIONS:
            raise UserError(
                f"Expected CLASS_TOKEN_POSITION to be one of {', '.join(_POSITIONS)}, got '{class_token_position}'."
            )
        sets = (len(classnames),) if csc else ()
        words, n_ctx = words_of_context(ctx_init, n_ctx, tokenizer_of(clip_model))
        context = initial_context(clip_model, words, n_ctx, *sets)
        self.ctx = nn.Parameter(context)
        if csc:  # saved with the context, which means nothing for other classes
            self.register_buffer("ctx_classes", class_digest(classnames).to(context.device))
        self.sequences = prompt_sequences(
            classnames, n_ctx, class_token_position, csc, words, tokenizer=tokenizer_of(clip_model)
        )

    def forward(self):
        return self.ctx.view(1, -1, self.ctx.shape[-1])


class WordsLearned(PromptTrainer):
    """Learns one vector per word of CTX_INIT."""

    @classmethod
    def revisions(cls, cfg):
        """Return the revision numbers; the learner's is one more if a word of CTX_INIT has several tokens."""
        found = super().revisions(cfg)
        found["learner"] += has_words_of_several_tokens(context_words(cfg.TRAINER[cls.config_node]))
        return found


@learner(
    noisy="rn50_ep50",
    fewshot={"imagenet": "rn50_ep50", 1: "rn50_ep50", 2: "rn50_ep100", 4: "rn50_ep100", "": "rn50"},
    base2new="vit_b16_ep50_ctxv1",
    transfer="vit_b16_ep50",
    embedded="emoji_rn",
    photos="photo_en",
)
class CoOp(WordsLearned):
    """CoOp (Zhou et al., IJCV 2022): a learned context, shared or per class."""

    config_node = "COOP"

    @classmethod
    def reads_templates(cls, cfg):
        """Return False: nothing is compared with a hand-written prompt."""
        return False

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner with the settings of TRAINER.COOP."""
        node = self.cfg.TRAINER.COOP
        return CoOpPromptLearner(
            clip_model,
            classnames,
            n_ctx=node.N_CTX,
            ctx_init=context_words(node),
            csc=node.CSC,
            class_token_position=node.CLASS_TOKEN_POSITION,
        )
