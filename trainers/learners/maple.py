"""MaPLe (Khattak et al., CVPR 2023): coupled deep prompts in both towers."""

from copy import deepcopy

from torch import nn

from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import at_least
from dspt_atlas.trainers.clip.prompted_clip import Prompts
from dspt_atlas.trainers.clip.towers import image_blocks, image_width, text_blocks, text_width, tokenizer_of
from dspt_atlas.trainers.declare import learner
from dspt_atlas.trainers.keys import declare_first_words
from dspt_atlas.trainers.learners.prompts import (
    check_depth,
    context_words,
    first_words,
    initial_context,
    prompt_sequences,
)
from dspt_atlas.trainers.trainer import PromptTrainer

declare_first_words("MAPLE", n_ctx=2)
declare("TRAINER.MAPLE.PROMPT_DEPTH", 9, "layers that get prompts, up to the number of layers", at_least(1))


class MaPLePromptLearner(nn.Module):
    """Context in the first `prompt_depth` layers of both towers; the image side is a linear function of the text side
    (MaPLe, Khattak et al. 2023, section 3.2).

    `forward()` returns Prompts: context (1, n_ctx, w), deep text prompts (n_ctx, w), image prompts (n_ctx, v).
    Up to n_ctx 4 the prompt is `ctx_init`, then the name. The vectors take the place of its first n_ctx tokens and
    start as these tokens; the other tokens stay fixed. With more vectors `ctx_init` is ignored, as in the official
    code. Raises UserError for a ResNet, for a prompt_depth that the towers do not have, and if the vectors would take
    the place of a whole class name.
    """

    prompts_images = True
    conditional = False

    def __init__(self, clip_model, classnames, n_ctx=2, ctx_init="a photo of a", prompt_depth=9):
        super().__init__()
        tokenizer, vision_layers = tokenizer_of(clip_model), len(image_blocks(clip_model))
        layers = min(len(text_blocks(clip_model)), vision_layers) if prompt_depth > 1 else vision_layers
        check_depth("PROMPT_DEPTH", prompt_depth, layers)
        width, vision_width = text_width(clip_model), image_width(clip_model)
        device = clip_model.logit_scale.device
        words = first_words(ctx_init, n_ctx, tokenizer)
        self.ctx = nn.Parameter(initial_context(clip_model, words, n_ctx))
        self.proj = nn.Linear(width, vision_width, device=device)
        self.compound_prompts_text = nn.ParameterList(
            initial_context(clip_model, [], n_ctx) for _ in range(prompt_depth - 1)
        )
        coupling = nn.Linear(width, vision_width, device=device)  # all start alike, as in the official code
        self.compound_prompt_projections = nn.ModuleList(deepcopy(coupling) for _ in range(prompt_depth - 1))
        self.sequences = prompt_sequences(classnames, n_ctx, words=words, tokenizer=tokenizer)

    def forward(self):
        deep = list(self.compound_prompts_text)
        couplings = zip(self.compound_prompt_projections, deep, strict=True)
        images = [self.proj(self.ctx), *(coupling(prompt) for coupling, prompt in couplings)]
        return Prompts(self.ctx[None], deep, images)


@learner(
    **dict.fromkeys(("noisy", "fewshot", "base2new"), "vit_b16_c2_ep5_batch4_2ctx"),
    transfer="vit_b16_c2_ep5_batch4_2ctx_cross_datasets",
    embedded="emoji_vit",
)
class MaPLe(PromptTrainer):
    """MaPLe (Khattak et al., CVPR 2023): coupled deep prompts in both towers."""

    config_node = "MAPLE"
    model_name = "MultiModalPromptLearner"
    prompts_images = MaPLePromptLearner.prompts_images
    learner_revision = 2  # words of CTX_INIT beyond N_CTX stay in the prompt

    @classmethod
    def reads_templates(cls, cfg):
        """Return False: nothing is compared with a hand-written prompt."""
        return False

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner with the settings of TRAINER.MAPLE."""
        node = self.cfg.TRAINER.MAPLE
        return MaPLePromptLearner(
            clip_model, classnames, n_ctx=node.N_CTX, ctx_init=context_words(node), prompt_depth=node.PROMPT_DEPTH
        )
