"""Trainers with steps or targets of their own: each in the way of the repository that it is named after."""

import torch
from dassl.data.data_manager import DatasetWrapper, build_data_loader
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY, TrainerX
from torch import nn
from torch.nn import functional as F

from .cocoop import Stepping
from .coop import CoOp, CustomCLIP


class NoIndex(DatasetWrapper):
    def __getitem__(self, idx):
        return {key: value for key, value in super().__getitem__(idx).items() if key != "index"}


class EditedTrainerX(TrainerX):
    """What a repository's edited Dassl has: one more way to step, and batches without `index`."""

    def build_data_loader(self):
        super().build_data_loader()
        self.train_loader_x.dataset.__class__ = NoIndex

    def prograd_backward_and_update(self, loss_a, loss_b, lambda_):
        """Step along the gradient of a, without its part against that of b."""
        parameters = list(self.model.prompt_learner.parameters())
        self.model_zero_grad()
        self.model_backward_keeping_graph(loss_b)
        guides = [F.normalize(parameter.grad.flatten(), dim=0) for parameter in parameters]
        self.model_zero_grad()
        self.model_backward(loss_a)
        for parameter, guide in zip(parameters, guides, strict=True):
            along = parameter.grad.flatten() @ guide
            if along < 0:
                parameter.grad = parameter.grad - lambda_ * along * guide.view_as(parameter)
        self.model_update()

    def model_backward_keeping_graph(self, loss):
        self.detect_anomaly(loss)
        loss.backward(retain_graph=True)


class ProGradLoss(nn.Module):
    def forward(self, logits, teacher_logits, label):
        divergence = -(teacher_logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        return F.cross_entropy(logits, label), divergence


@TRAINER_REGISTRY.register()
class ProGrad(EditedTrainerX, CoOp):
    """A criterion module; its second loss shapes the gradient of the first; an edited base class."""

    def build_model(self):
        super().build_model()
        self.criterion = ProGradLoss()

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        logits = self.model(image)
        with torch.no_grad():
            teacher_logits = self.model.similarity(self.model.clip_model.encode_image(image), self.model.fixed)
        loss, divergence = self.criterion(logits, teacher_logits, label)
        self.prograd_backward_and_update(loss, divergence, 1.0)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "divergence": divergence.item()}


class TwoViewsCLIP(CustomCLIP):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__(cfg, classnames, clip_model)
        self.prompt_learner.shift = nn.Parameter(0.1 * torch.randn(clip_model.text_projection.shape[1]))

    def forward(self, image):
        fixed_image, text = self.features(image)
        image = fixed_image + self.prompt_learner.shift
        logits, other_logits = self.similarity(fixed_image, text), self.similarity(image, text)
        return (logits, other_logits, image, fixed_image, text) if self.prompt_learner.training else logits


class MMRLLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss()

    def forward(self, logits, other_logits, label, consistency):
        return 0.7 * self.cross_entropy(logits, label) + 0.3 * self.cross_entropy(other_logits, label) + consistency


@TRAINER_REGISTRY.register()
class MMRL(Stepping):
    """A criterion module that calls cross-entropy twice."""

    custom_clip = TwoViewsCLIP

    def build_model(self):
        super().build_model()
        self.criterion = MMRLLoss()

    def compute_loss(self, image, label):
        logits, other_logits, image, fixed_image, text = self.model(image)
        consistency = 2 - F.cosine_similarity(image, fixed_image).mean()
        consistency = consistency - F.cosine_similarity(text, self.model.fixed).mean()
        return self.criterion(logits, other_logits, label, 0.5 * consistency)


@TRAINER_REGISTRY.register()
class TwoSteps(CoOp):
    """An epoch and steps of other names, on loaders of parts of the training set, in whose batches `index` counts."""

    def run_epoch(self):
        self.set_model_mode("train")
        items = self.dm.dataset.train_x
        for step, part in ((self.step_on_clean, items[::2]), (self.step_on_noisy, items[1::2])):
            loader = build_data_loader(
                self.cfg,
                data_source=part,
                batch_size=4,
                tfm=build_transform(self.cfg, is_train=True),
                is_train=True,
            )
            for batch in loader:
                step(batch)
        self.update_lr()

    def step_on_clean(self, batch):
        image, label = self.parse_batch_train(batch)
        self.model_backward_and_update(F.cross_entropy(self.model(image), label))

    step_on_noisy = step_on_clean


@TRAINER_REGISTRY.register()
class NLPrompt(TwoSteps):
    """Its second step minimises a loss that is written out, and no cross-entropy."""

    def step_on_noisy(self, batch):
        image, label = self.parse_batch_train(batch)
        correct = self.model(image).softmax(dim=1).gather(1, label[:, None])
        self.model_backward_and_update((1 - correct - 1e-6).mean())


@TRAINER_REGISTRY.register()
class DPC(Stepping):
    """Its targets are positions in the batch, not labels."""

    def compute_loss(self, image, label):
        image, text = self.model.features(image)
        logits = self.model.similarity(image, text[label])
        positions = torch.arange(len(image), device=image.device)
        return (F.cross_entropy(logits, positions) + F.cross_entropy(logits.t(), positions)) / 2
