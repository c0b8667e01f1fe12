"""Trainers whose model calls cross-entropy: each in the way of the repository that it is named after."""

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from torch.nn import functional as F

from .cocoop import Stepping
from .coop import CustomCLIP


class SwitchedCLIP(CustomCLIP):
    def forward(self, image, label=None, training=False):
        logits = self.logits(image)
        return F.cross_entropy(logits, label) if training else logits


@TRAINER_REGISTRY.register()
class VPT(Stepping):
    """An argument says that the model trains."""

    custom_clip = SwitchedCLIP

    def compute_loss(self, image, label):
        return self.model(image, label, training=True)


class ShiftingCLIP(CustomCLIP):
    """A learned shift of the image features stands for prompts in the image tower."""

    def __init__(self, cfg, classnames, clip_model):
        super().__init__(cfg, classnames, clip_model)
        self.prompt_learner.shift = nn.Parameter(0.1 * torch.randn(clip_model.text_projection.shape[1]))

    def forward(self, image, label=None):
        fixed_image, text = self.features(image)
        image = F.normalize(fixed_image + self.prompt_learner.shift, dim=-1)
        text, fixed_image = F.normalize(text, dim=-1), F.normalize(fixed_image, dim=-1)
        logits = self.similarity(image, text)
        if not self.prompt_learner.training:
            return logits
        loss = F.cross_entropy(logits, label)
        return loss, text, self.fixed, fixed_image, image, self.similarity(fixed_image, self.fixed), logits


@TRAINER_REGISTRY.register()
class PromptSRC(Stepping):
    """A tuple from the model, the loss first; terms without labels in the trainer."""

    custom_clip = ShiftingCLIP

    def compute_loss(self, image, label):
        loss, text, fixed_text, fixed_image, image, fixed_logits, logits = self.model(image, label)
        loss_text = 25 * F.l1_loss(text, fixed_text)
        loss_image = 10 * F.l1_loss(image, fixed_image)
        student, teacher = F.log_softmax(logits, dim=1), F.log_softmax(fixed_logits, dim=1)
        divergence = F.kl_div(student, teacher, reduction="sum", log_target=True) / logits.numel()
        return loss + loss_text + loss_image + divergence


class JoinedCLIP(CustomCLIP):
    def forward(self, image, label=None):
        image, text = self.features(image)
        logits = self.similarity(image, text)
        if not self.prompt_learner.training:
            return logits
        return logits, F.cross_entropy(logits, label) + 8.0 * (1 - F.cosine_similarity(text, self.fixed).mean())


@TRAINER_REGISTRY.register()
class TCP(Stepping):
    """Logits and loss from the model; a term without labels in the same expression."""

    custom_clip = JoinedCLIP

    def compute_loss(self, image, label):
        return self.model(image, label)[1]


class DecoupledCLIP(CustomCLIP):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__(cfg, classnames, clip_model)
        width = clip_model.text_projection.shape[1]
        self.prompt_learner.affine = nn.Linear(width, width)
        self.prompt_learner.head = nn.Linear(width, len(classnames))

    def forward(self, image, label=None):
        image, text = self.features(image)
        logits = self.similarity(image, text)
        if not self.prompt_learner.training:
            return logits
        rows = self.prompt_learner.affine(torch.cat([text[label], image]))
        other = F.cross_entropy(self.prompt_learner.head(rows), torch.cat([label, label]))
        return 0.3 * F.cross_entropy(logits, label) + 0.7 * other


@TRAINER_REGISTRY.register()
class DePT(Stepping):
    """Two calls in the model, the second on 2B rows, half of which are chosen by the labels."""

    custom_clip = DecoupledCLIP


class ConsistentCLIP(CustomCLIP):
    def forward(self, image, label=None):
        fixed_image, text = self.features(image)
        logits = self.similarity(fixed_image, text)
        if not self.prompt_learner.training:
            return logits
        other_image, _ = self.features(image.flip(3))
        distance = 1 - F.cosine_similarity(text, self.fixed).mean()
        distance = distance + 1 - F.cosine_similarity(other_image, fixed_image).mean()
        return F.cross_entropy(logits, label) + 8.0 * distance


@TRAINER_REGISTRY.register()
class CoPrompt(Stepping):
    """The trainer takes the mean of the loss from the model."""

    custom_clip = ConsistentCLIP

    def compute_loss(self, image, label):
        return self.model(image, label).mean()
