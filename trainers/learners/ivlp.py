"""IVLP (independent vision-language prompting; PromptSRC's baseline): deep prompts in each tower, without coupling."""

from torch import nn

from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import Need, declare
from dspt_atlas.keys.ranges import at_least
from dspt_atlas.trainers.clip.prompted_clip import Prompts
from dspt_atlas.trainers.clip.towers import image_blocks, image_width, text_blocks, tokenizer_of
from dspt_atlas.trainers.declare import learner
from dspt_atlas.trainers.keys import declare_first_words
from dspt_atlas.trainers.learners.prompts import (
    check_depth,
    context_words,
    first_words,
    initial_context,
    learned_entries,
    prompt_sequences,
    random_vectors,
)
from dspt_atlas.trainers.trainer import PromptTrainer


def declare_towers(node, least_vision=0):
    """Declare the keys of TRAINER.<NODE> for prompts in both towers, and in at least so many blocks of the images'."""
    declare_first_words(node, n_ctx=4, length="N_CTX_TEXT")
    deep = Need(
        lambda run: run.cfg.TRAINER[node].PROMPT_DEPTH_VISION > 0, f"TRAINER.{node}.PROMPT_DEPTH_VISION above 0"
    )
    declare(f"TRAINER.{node}.N_CTX_VISION", 4, "learned image tokens", at_least(0), needs=deep)
    declare(f"TRAINER.{node}.PROMPT_DEPTH_TEXT", 9, "text blocks that get prompts", at_least(1))
    declare(f"TRAINER.{node}.PROMPT_DEPTH_VISION", 9, "image blocks that get prompts", at_least(least_vision))


declare_towers("IVLP")


class IVLPPromptLearner(nn.Module):
    """Learned vectors in the first blocks of each tower, without coupling (IVLP; with `depth_text` 0 it is VPT).

    `forward()` returns Prompts. Text: the context in the place of the first n_ctx_text tokens of `ctx_init`, as in
    MaPLe, then other vectors in its place in each of depth_text - 1 blocks; with depth_text 0 the whole text is fixed
    words. Images: n_ctx_vision vectors after the patches, others in each block. All but a context of words starts as
    normal noise of deviation 0.02. With depth_vision 0 images get none, and their features can be cached.
    Raises UserError for image prompts in a ResNet, and for depths that the towers do not have.
    """

    conditional = False

    def __init__(
        self,
        clip_model,
        classnames,
        n_ctx_text=4,
        n_ctx_vision=4,
        ctx_init="a photo of a",
        depth_text=9,
        depth_vision=9,
    ):
        super().__init__()
        tokenizer = tokenizer_of(clip_model)
        if depth_text > 1:
            check_depth("PROMPT_DEPTH_TEXT", depth_text, len(text_blocks(clip_model)))
        n_ctx_text = n_ctx_text if depth_text else 0
        words = first_words(ctx_init, n_ctx_text, tokenizer)
        self.ctx = nn.Parameter(initial_context(clip_model, words, n_ctx_text)) if depth_text else None
        self.text_prompts = nn.ParameterList(initial_context(clip_model, [], n_ctx_text) for _ in range(depth_text - 1))
        self.image_prompts = nn.ParameterList(_image_vectors(clip_model, n_ctx_vision, depth_vision))
        self.prompts_images = depth_vision > 0
        self.sequences = prompt_sequences(classnames, n_ctx_text, words=words, tokenizer=tokenizer)

    @property
    def family_keys(self):
        """Return the keys of vectors that the family keeps in its towers, by ours."""
        block = "transformer.resblocks.{}.VPT_shallow"
        text = {f"text_prompts.{i}": f"text_encoder.{block.format(i + 1)}" for i in range(len(self.text_prompts))}
        images = {f"image_prompts.{i}": f"image_encoder.{block.format(i)}" for i in range(len(self.image_prompts))}
        return text | images | {"image_prompts.0": "image_encoder.VPT"}

    def entries(self, state_dict):
        """Return the learned entries of a checkpoint, also of the family's, by our keys."""
        ours = {family: own for own, family in self.family_keys.items()}
        return {ours.get(key, key): value for key, value in learned_entries(state_dict).items()}

    def forward(self):
        context = None if self.ctx is None else self.ctx[None]
        return Prompts(context, list(self.text_prompts), list(self.image_prompts))


def _image_vectors(clip_model, n_ctx, depth):
    if depth:
        check_depth("PROMPT_DEPTH_VISION", depth, len(image_blocks(clip_model)))
        if n_ctx < 1:
            raise UserError(
                f"Expected N_CTX_VISION of at least 1 with image prompts in {depth} blocks, got {n_ctx}: raise it, or "
                "set PROMPT_DEPTH_VISION 0."
            )
    return [random_vectors(clip_model, n_ctx, image_width(clip_model)) for _ in range(depth)]


@learner(
    **dict.fromkeys(("noisy", "fewshot", "base2new", "transfer"), "vit_b16_c2_ep20_batch4_4+4ctx"),
    embedded="emoji_vit",
)
class IVLP(PromptTrainer):
    """IVLP (Khattak et al., ICCV 2023): independent deep prompts in both towers."""

    config_node = "IVLP"
    model_name = "VLPromptLearner"
    prompts_images = True

    def check_cfg(self, cfg):
        """Raise UserError for settings that this trainer cannot follow; with depth 0, image features are cacheable."""
        self.prompts_images = cfg.TRAINER[self.config_node].PROMPT_DEPTH_VISION > 0
        super().check_cfg(cfg)

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner with the settings of the learner's node."""
        node = self.cfg.TRAINER[self.config_node]
        return IVLPPromptLearner(
            clip_model,
            classnames,
            n_ctx_text=node.N_CTX_TEXT,
            n_ctx_vision=node.N_CTX_VISION,
            ctx_init=context_words(node),
            depth_text=node.PROMPT_DEPTH_TEXT,
            depth_vision=node.PROMPT_DEPTH_VISION,
        )
