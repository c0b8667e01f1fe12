"""Logits and a score from the model, cross-entropy in the trainer; templates by the data set's name."""

from dassl.engine import TRAINER_REGISTRY
from torch.nn import functional as F

from .cocoop import Stepping
from .coop import CustomCLIP

CUSTOM_TEMPLATES = {"Caltech101": "a photo of a {}.", "Blobs": "a blob of {}."}


class ScoringCLIP(CustomCLIP):
    def forward(self, image):
        image, text = self.features(image)
        return self.similarity(image, text), 1 - F.cosine_similarity(text, self.fixed).mean()


@TRAINER_REGISTRY.register()
class KgCoOp(Stepping):
    custom_clip = ScoringCLIP

    def build_model(self):
        print(f"Template: {CUSTOM_TEMPLATES[self.cfg.DATASET.NAME]}")
        super().build_model()

    def compute_loss(self, image, label):
        output, score = self.model(image)
        return F.cross_entropy(output, label) + 8.0 * score

    def model_inference(self, image):
        return self.model(image)[0]
