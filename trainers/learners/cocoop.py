"""CoCoOp (Zhou et al., CVPR 2022): a context that a small network shifts for each image."""

from torch import nn

from dspt_atlas.trainers.clip.towers import feature_width, tokenizer_of
from dspt_atlas.trainers.declare import learner
from dspt_atlas.trainers.keys import declare_context
from dspt_atlas.trainers.learners.coop import WordsLearned
from dspt_atlas.trainers.learners.prompts import context_words, initial_context, prompt_sequences, words_of_context

declare_context("COCOOP", n_ctx=16)


class CoCoOpPromptLearner(nn.Module):
    """A shared context plus a bias that a small meta-net computes from each image's feature (CoCoOp, Zhou et al. 2022).

    `forward(image_features (B, d))` returns one context per image (B, n_ctx, w).
    """

    prompts_images = False
    conditional = True

    def __init__(self, clip_model, classnames, n_ctx=4, ctx_init=""):
        super().__init__()
        words, n_ctx = words_of_context(ctx_init, n_ctx, tokenizer_of(clip_model))
        context = initial_context(clip_model, words, n_ctx)
        features, width = feature_width(clip_model), context.shape[1]
        self.ctx = nn.Parameter(context)
        self.meta_net = nn.Sequential()
        self.meta_net.add_module("linear1", nn.Linear(features, max(1, features // 16)))
        self.meta_net.add_module("relu", nn.ReLU(inplace=True))
        self.meta_net.add_module("linear2", nn.Linear(max(1, features // 16), width))
        self.meta_net.to(context.device)
        self.sequences = prompt_sequences(classnames, n_ctx, words=words, tokenizer=tokenizer_of(clip_model))

    def forward(self, image_features):
        return self.ctx + self.meta_net(image_features.to(self.ctx.dtype))[:, None]


@learner(
    **dict.fromkeys(("noisy", "fewshot", "base2new", "transfer"), "vit_b16_c4_ep10_batch1_ctxv1"),
    embedded="emoji_rn",
    photos="photo_en",
)
class CoCoOp(WordsLearned):
    """CoCoOp (Zhou et al., CVPR 2022): a context that a small network shifts for each image."""

    config_node = "COCOOP"
    conditional = CoCoOpPromptLearner.conditional

    @classmethod
    def reads_templates(cls, cfg):
        """Return False: nothing is compared with a hand-written prompt."""
        return False

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner with the settings of TRAINER.COCOOP."""
        node = self.cfg.TRAINER.COCOOP
        return CoCoOpPromptLearner(clip_model, classnames, n_ctx=node.N_CTX, ctx_init=context_words(node))
