"""TCP (Yao et al., CVPR 2024): vectors of each class, made from its hand-written prompt, inside of the text tower."""

from collections import OrderedDict
from functools import partial

import torch
from clip.model import QuickGELU
from torch import nn

from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import at_least
from dspt_atlas.trainers.clip.class_vectors import class_vectors_encoder
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
from dspt_atlas.trainers.clip.towers import tokenizer_of
from dspt_atlas.trainers.declare import learner
from dspt_atlas.trainers.keys import declare_context
from dspt_atlas.trainers.learners.coop import WordsLearned
from dspt_atlas.trainers.learners.prompts import context_words, initial_context, prompt_sequences, words_of_context
from dspt_atlas.trainers.losses import cosine_distance
from dspt_atlas.trainers.templates import DEFAULT, TCP_FROZEN, TCP_PROMPT, authors_template, prompts_name

declare_context("TCP", n_ctx=4)
declare("TRAINER.TCP.W", 8.0, "weight of the distance to hand-written prompts; the official code", at_least(0))
declare("TRAINER.TCP.BLOCK", 8, "the text block that takes the classes' vectors; the first is 0", at_least(1))


class TCPPromptLearner(nn.Module):
    """A shared context up to block `block` of the text tower, and vectors of each class in its places from there on.

    A small network makes the vectors (C, n_ctx, w) of `features` (C, d), those of hand-written prompts. `forward()`
    returns the context (1, n_ctx + C n_ctx, w), the shared vectors first. The vectors take the first n_ctx places of
    `template`; its other words stay, and an X is no word. Raises UserError for a block that the tower does not have.
    """

    prompts_images = False
    conditional = False

    def __init__(self, clip_model, classnames, features, n_ctx=4, ctx_init="", template=DEFAULT[0], block=8):
        super().__init__()
        tokenizer = tokenizer_of(clip_model)
        words, n_ctx = words_of_context(ctx_init, n_ctx, tokenizer)
        context = initial_context(clip_model, words, n_ctx)
        hidden = max(1, features.shape[1] // 4)
        layers = {
            "linear1": nn.Linear(features.shape[1], hidden),
            "gelu": QuickGELU(),
            "linear2": nn.Linear(hidden, context.numel()),
        }
        self.ctx = nn.Parameter(context)
        self.meta_net = nn.Sequential(OrderedDict(layers)).to(context.device)
        self.register_buffer("features", features, persistent=False)
        before, ending = template.split("{}")
        fixed = tokenizer.encode(" ".join(word for word in before.split() if word != "X"))
        places = [*fixed, *[0] * (n_ctx - len(fixed))]
        self.sequences = prompt_sequences(classnames, n_ctx, words=places, ending=ending, tokenizer=tokenizer)
        self.text_encoder = partial(class_vectors_encoder, block=block)

    def forward(self):
        vectors = self.meta_net(self.features)  # (C, n_ctx w)
        return torch.cat([self.ctx, vectors.view(-1, self.ctx.shape[1])])[None]


EPOCHS = {"imagenet": "vit_b16_ep25", "sun397": "vit_b16_ep25", "": "vit_b16_ep50"}  # by data set


@learner(
    noisy="rn50_ep50",
    fewshot=EPOCHS,
    base2new=EPOCHS,
    transfer="vit_b16_ep25",
    embedded="emoji_rn",
    photos="photo_en",
)
class TCP(WordsLearned):
    """TCP (Yao et al., CVPR 2024): vectors of each class inside of the text tower, and KgCoOp's regulariser.

    The network's input T0 are the text features of one hand-written template per data set, of the classes at hand: also
    of classes that were not trained on. The regulariser is W (1 - mean over the classes of cos(T_c, T0_c)).
    """

    config_node = "TCP"

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner with the settings of TRAINER.TCP."""
        node, dataset, name = self.cfg.TRAINER.TCP, self.dm.dataset, prompts_name(self.cfg)
        frozen, prompt = (authors_template(table, dataset, name) for table in (TCP_FROZEN, TCP_PROMPT))
        return TCPPromptLearner(
            clip_model,
            classnames,
            zero_shot_features(clip_model, classnames, (frozen,)),
            n_ctx=node.N_CTX,
            ctx_init=context_words(node),
            template=prompt,
            block=node.BLOCK,
        )

    def regulariser(self, output, batch):
        return self.cfg.TRAINER.TCP.W * cosine_distance(output.text_features, self.model.prompt_learner.features)
