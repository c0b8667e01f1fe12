"""KgCoOp (Yao et al., CVPR 2023): CoOp with text features that stay near those of hand-written prompts."""

from dspt_atlas.datasets.prompts import prompt_names
from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import at_least
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
from dspt_atlas.trainers.declare import learner
from dspt_atlas.trainers.keys import declare_context
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner, WordsLearned
from dspt_atlas.trainers.learners.prompts import context_words
from dspt_atlas.trainers.losses import cosine_distance
from dspt_atlas.trainers.templates import KGCOOP, authors_template, prompts_name

declare_context("KGCOOP", n_ctx=4, ctx_init="a photo of a")
declare("TRAINER.KGCOOP.W", 8.0, "weight of the distance to hand-written prompts; official scripts", at_least(0))


@learner(
    noisy="rn50_ep100_ctxv1",
    fewshot="vit_b16_ep100_ctxv1_batch32",
    base2new="vit_b16_ep100_ctxv1",
    transfer="vit_b16_ep100_ctxv1",
    embedded="emoji_rn",
    photos="photo_en",
)
class KgCoOp(WordsLearned):
    """KgCoOp (Yao et al., CVPR 2023): CoOp's context plus W (1 - mean over the classes of cos(T_c, T0_c)).

    T are the learned prompts' text features. T0 are those of one hand-written template per data set; they do not
    change.
    """

    config_node = "KGCOOP"

    def build_prompt_learner(self, clip_model, classnames):
        """Return CoOp's prompt learner with the settings of TRAINER.KGCOOP."""
        node = self.cfg.TRAINER.KGCOOP
        learner = CoOpPromptLearner(clip_model, classnames, n_ctx=node.N_CTX, ctx_init=context_words(node))
        learner.unused = ("bias_vectors", "meta_net.linear1.", "adapter.")  # the authors save them, or DePT's do
        return learner

    def build_state(self):
        """Encode the hand-written prompts of the training classes, (C, d)."""
        super().build_state()
        template = authors_template(KGCOOP, self.dm.dataset, prompts_name(self.cfg))
        self._fixed_features = zero_shot_features(self.model.clip_model, prompt_names(self.dm.dataset), (template,))

    def regulariser(self, output, batch):
        return self.cfg.TRAINER.KGCOOP.W * cosine_distance(output.text_features, self._fixed_features)
