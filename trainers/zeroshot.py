"""Zero-shot CLIP: hand-written prompts; nothing is learned."""

import time
from types import SimpleNamespace
from typing import ClassVar

import torch.nn.functional as F

from dspt_atlas.keys.declare import declare
from dspt_atlas.trainers.clip.encoders import ImageEncoder
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
from dspt_atlas.trainers.clip_trainer import ClipTrainer
from dspt_atlas.trainers.kept_classes import KeptClasses
from dspt_atlas.trainers.learners.coop import CoOp
from dspt_atlas.trainers.templates import OWN, chosen_templates

declare("TRAINER.ZEROSHOT.TEMPLATE", "", "hand-written prompts; empty: the data set's own")


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
        clip_model, dataset = self.load_clip(), self.dm.dataset
        templates = chosen_templates(dataset, self.cfg.TRAINER.ZEROSHOT.TEMPLATE)
        print(f"Templates: {', '.join(templates)}")
        self.model = SimpleNamespace(clip_model=clip_model)
        self._text_features = zero_shot_features(clip_model, dataset.classnames, templates)  # (C, d)

    def model_inference(self, input):
        """Return logits (B, C) of images (B, 3, H, W) or of normalised features (B, d)."""
        clip_model = self.model.clip_model
        features = input if input.dim() == 2 else F.normalize(ImageEncoder(clip_model)(input), dim=-1)
        return clip_model.logit_scale.exp() * features @ self._text_features.T

    def train(self):
        """Evaluate only, because there is nothing to learn."""
        print("Nothing to learn: zero-shot CLIP is only evaluated")
        self.time_start = time.time()
        KeptClasses.of(self.cfg, self.dm.dataset).save(self.output_dir)
        self.after_train()

    def load_model(self, directory, epoch=None):
        """Do nothing: there is nothing to load."""
