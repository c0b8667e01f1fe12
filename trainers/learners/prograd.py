"""ProGrad (Zhu et al., ICCV 2023): CoOp with gradients that do not contradict zero-shot CLIP."""

from functools import partial

import torch
import torch.nn.functional as F

from dspt_atlas.datasets.prompts import prompt_names
from dspt_atlas.keys.declare import TRAINING, Need, declare
from dspt_atlas.keys.ranges import finite, positive
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
from dspt_atlas.trainers.clip.towers import tokenizer_of
from dspt_atlas.trainers.declare import learner
from dspt_atlas.trainers.keys import declare_context
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from dspt_atlas.trainers.learners.prompts import prompt_sequences
from dspt_atlas.trainers.templates import PROGRAD, authors_template, prompts_name
from dspt_atlas.trainers.trainer import PromptTrainer

NEEDS = TRAINING, Need(lambda run: "PROGRAD" in run.nodes, "ProGrad")

declare_context("PROGRAD", 16, ctx_init=True, words="start from the words of the data set's template; False: random")
declare("TRAINER.PROGRAD.CSC", False, "learn one context per class")
declare("LOSS.LAMBDA", 1.0, "share of the contradicting part that is removed from the gradient", finite(0), needs=NEEDS)
declare("LOSS.T", 1.0, "temperature of the distance to zero-shot CLIP", positive(), needs=NEEDS)


class ProGradPromptLearner(CoOpPromptLearner):
    """CoOp's context that starts from the words of a `template` before the class name; "" is a random context.

    With m words there, the first n_ctx - m vectors are zeros, and the last m are the embeddings of the first m tokens.
    Tokens beyond (a comma is one) stay fixed before the name.
    """

    def __init__(self, clip_model, classnames, n_ctx=16, template="", csc=False):
        super().__init__(clip_model, classnames, n_ctx, csc=csc)
        if template:
            words, tokenizer = template.partition("{}")[0].strip(), tokenizer_of(clip_model)
            tokens, learned = tokenizer.encode(words), min(len(words.split()), n_ctx)
            zeros = n_ctx - learned
            with torch.no_grad():
                self.ctx.zero_()
                self.ctx[..., zeros:, :] = clip_model.token_embedding.weight[tokens[:learned]]
            self.sequences = prompt_sequences(
                classnames, n_ctx, csc=csc, words=[0] * zeros + tokens, tokenizer=tokenizer
            )


@learner(
    noisy="rn50_ep50",
    fewshot={"imagenet": "rn50_ep50", 1: "rn50_ep50", 2: "rn50_ep100", 4: "rn50_ep100", "": "rn50"},
    base2new={"imagenet": "rn50_ep50", "": "rn50_ep100"},
    transfer="rn50_ep50",
    embedded="emoji_rn",
    photos="photo_en",
)
class ProGrad(PromptTrainer):
    """ProGrad (Zhu et al., ICCV 2023): CoOp's context, and the gradient g of the criterion by each tensor projected.

    b is the gradient of L_kl = T² mean_b CE(softmax(z0 / T), softmax(z / T)) with zero-shot CLIP's logits z0. Where
    cos(g, b) < 0, g becomes g - LAMBDA (g · b̂) b̂, with b̂ = b / |b|. L_kl itself is never minimised.
    """

    config_node = "PROGRAD"

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner with the settings of TRAINER.PROGRAD."""
        node = self.cfg.TRAINER.PROGRAD
        template = self._template() if node.CTX_INIT else ""
        return ProGradPromptLearner(clip_model, classnames, n_ctx=node.N_CTX, template=template, csc=node.CSC)

    def _template(self):
        return authors_template(PROGRAD, self.dm.dataset, prompts_name(self.cfg))

    def build_state(self):
        """Encode the hand-written prompts of the training classes, (C, d)."""
        super().build_state()
        classnames = prompt_names(self.dm.dataset)
        self._fixed_features = zero_shot_features(self.model.clip_model, classnames, (self._template(),))

    def regulariser(self, output, batch):
        """Return L_kl, which only shapes the gradient."""
        temperature = self.cfg.LOSS.T
        teacher = self.model.clip_model.logit_scale.exp() * output.image_features @ self._fixed_features.T  # (B, C)
        soft = (teacher / temperature).softmax(dim=1)
        return temperature**2 * F.cross_entropy(output.logits / temperature, soft)

    def minimised(self, criterion, regulariser):
        """Return the criterion alone."""
        return criterion

    def update(self, criterion, regulariser):
        """Step down the projected gradient; both backward passes run through one forward pass."""
        learned = [parameter for parameter in self.model.prompt_learner.parameters() if parameter.requires_grad]
        scaled = regulariser if self.scaler is None else self.scaler.scale(regulariser)
        guides = torch.autograd.grad(scaled, learned, retain_graph=True)
        strength = self.cfg.LOSS.LAMBDA
        hooks = [
            parameter.register_hook(partial(projected, guide=guide, strength=strength))
            for parameter, guide in zip(learned, guides, strict=True)
        ]
        try:
            super().update(criterion, regulariser)
        finally:
            for hook in hooks:
                hook.remove()


def projected(gradient, guide, strength=1.0):
    """Return g - strength min(g · b̂, 0) b̂ of a gradient g and a guide b of one shape; b̂ = b / |b|, and 0 for b = 0.

    A guide that overflowed gives NaN, so that a gradient scaler skips the step.
    """
    size = guide.norm()
    unit = guide / torch.where(size == 0, 1, size)
    return gradient - strength * (gradient * unit).sum().clamp(max=0) * unit
