"""A tiny data set, a linear trainer and a backbone, registered with dassl for the engine's tests."""

import random

import numpy as np
import torch
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.modeling import BACKBONE_REGISTRY, Backbone
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import nn
from torch.nn import functional as F

CLASS_NAMES = ["cat", "dog", "owl"]


@DATASET_REGISTRY.register()
class EngineToyData(DatasetBase):
    """15 training, 6 val and 6 test images of 3 classes under cfg.DATASET.ROOT; 9 unlabelled ones."""

    def __init__(self, cfg):
        def items(start, stop):
            return [
                Datum(f"{cfg.DATASET.ROOT}/{i}.png", label=i % 3, domain=i % 2, classname=CLASS_NAMES[i % 3])
                for i in range(start, stop)
            ]

        val = items(15, 21) if cfg.DATASET.VAL_PERCENT > 0 else None
        super().__init__(train_x=items(0, 15), train_u=items(0, 9), val=val, test=items(21, 27))


@TRAINER_REGISTRY.register()
class EngineToyTrainer(TrainerX):
    """A linear classifier whose training draws from all three global generators and counts its steps."""

    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, self.num_classes))
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("prompt_learner", self.model, self.optim, self.sched)
        self.steps = 0
        self.losses = []

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        image = image * (1 + 0.1 * random.random()) + 0.1 * np.random.randn() + 0.1 * torch.randn(1)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        self.steps += 1
        self.losses.append(loss.item())
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}

    def extra_state(self):
        return {"steps": self.steps}

    def load_extra_state(self, state):
        self.steps = state["steps"]


@BACKBONE_REGISTRY.register()
class EngineToyBackbone(Backbone):
    """Mean colour."""

    def __init__(self, pretrained=True):
        super().__init__()
        self._out_features = 3

    def forward(self, x):
        return x.mean(dim=(2, 3))
