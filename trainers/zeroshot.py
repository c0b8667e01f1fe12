"""Zero-shot CLIP: hand-written prompts; nothing is learned."""

import time
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from dspt_atlas.datasets.prompts import prompt_names
from dspt_atlas.keys.declare import declare
from dspt_atlas.trainers.clip.encoders import ImageEncoder
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
from dspt_atlas.trainers.clip_trainer import ClipTrainer
from dspt_atlas.trainers.kept_classes import KeptClasses
from dspt_atlas.trainers.learners.coop import CoOp
from dspt_atlas.trainers.templates import OWN, chosen_templates

declare("TRAINER.ZEROSHOT.TEMPLATE", "", "hand-written prompts; empty: the data set's own")


class ZeroshotModel(nn.Module):
    """CLIP with the text features (C, d) of filled templates."""

    text_features: torch.Tensor

    def __init__(self, clip_model, classnames, templates):
        super().__init__()
        self.clip_model, self.image_encoder = clip_model, ImageEncoder(clip_model)
        self.register_buffer("text_features", zero_shot_features(clip_model, classnames, templates), persistent=False)

    def forward(self, images_or_features):
        """Return logits (B, C) of images (B, 3, H, W) or of normalised features (B, d)."""
        features = images_or_features
        if features.dim() == 4:
            features = F.normalize(self.image_encoder(features), dim=-1)
        return self.clip_model.logit_scale.exp() * features @ self.text_features.T


class ZeroshotCLIP(ClipTrainer):
    """Classifies by the text features of TRAINER.ZEROSHOT.TEMPLATE, averaged if there are several.

    "" is the data set's first template, "all" are all of its templates, "ensemble" is its first and those of ENSEMBLE.
    Other templates are separated by "|".
    """

    config_node = "ZEROSHOT"

    @classmethod
    def reads_templates(cls, cfg):
        """Return whether TRAINER.ZEROSHOT.TEMPLATE asks for them."""
        return cfg.TRAINER.ZEROSHOT.TEMPLATE in OWN

    configurations_folder = "CoOp"  # the backbone and the images of the trainer that it is compared with
    configurations: ClassVar[dict] = {**CoOp.configurations, "zeroshot": "rn50"}

    def check_cfg(self, cfg):
        """Raise UserError for templates that cannot be filled, before the data is read."""
        super().check_cfg(cfg)
        chosen_templates(None, cfg.TRAINER.ZEROSHOT.TEMPLATE)

    def build_model(self):
        """Build CLIP and encode the class names."""
        self.templates = chosen_templates(self.dm.dataset, self.cfg.TRAINER.ZEROSHOT.TEMPLATE)
        print(f"Templates: {', '.join(self.templates)}")
        self.model = ZeroshotModel(self.load_clip(), prompt_names(self.dm.dataset), self.templates)

    def model_of(self, classnames):
        """Return a model of other classes that shares CLIP."""
        return ZeroshotModel(self.model.clip_model, classnames, self.templates)

    def train(self):
        """Evaluate only, because there is nothing to learn."""
        print("Nothing to learn: zero-shot CLIP is only evaluated")
        self.time_start = time.time()
        KeptClasses.of(self.cfg, self.dm.dataset).save(self.output_dir)
        self.after_train()

    def load_model(self, directory, epoch=None):
        """Do nothing: there is nothing to load."""
