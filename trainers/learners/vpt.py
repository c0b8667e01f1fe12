"""VPT (visual prompt tuning, as in MaPLe's repository): deep prompts in the image tower; the text does not change."""

from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import at_least
from dspt_atlas.trainers.declare import learner
from dspt_atlas.trainers.keys import declare_precision
from dspt_atlas.trainers.learners.ivlp import IVLPPromptLearner
from dspt_atlas.trainers.trainer import PromptTrainer

declare("TRAINER.VPT.N_CTX_VISION", 8, "learned image tokens", at_least(1))
declare("TRAINER.VPT.PROMPT_DEPTH_VISION", 12, "image blocks that get prompts", at_least(1))
declare_precision("VPT")


@learner(
    **dict.fromkeys(("noisy", "fewshot", "base2new", "transfer"), "vit_b16_c2_ep5_batch4_8ctx"), embedded="emoji_vit"
)
class VPT(PromptTrainer):
    """VPT (Jia et al., ECCV 2022, on CLIP): image prompts alone; the text is "a photo of a NAME." for all data sets."""

    config_node = "VPT"
    prompts_images = True

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner with the settings of TRAINER.VPT."""
        node = self.cfg.TRAINER.VPT
        return IVLPPromptLearner(
            clip_model,
            classnames,
            n_ctx_vision=node.N_CTX_VISION,
            depth_text=0,
            depth_vision=node.PROMPT_DEPTH_VISION,
        )
