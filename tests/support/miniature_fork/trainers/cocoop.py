"""The loss in the model: in training it returns the loss, as CoCoOp's, MaPLe's and IVLP's do."""

from dassl.engine import TRAINER_REGISTRY
from torch.nn import functional as F

from .coop import CoOp, CustomCLIP


class LossCLIP(CustomCLIP):
    def forward(self, image, label=None):
        logits = self.logits(image)
        if self.prompt_learner.training:
            return F.cross_entropy(logits, label)
        return logits


class Stepping(CoOp):
    """The step that most trainers of the family have; each has its own loss."""

    def compute_loss(self, image, label):
        return self.model(image, label)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        loss = self.compute_loss(image, label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}


@TRAINER_REGISTRY.register()
class CoCoOp(Stepping):
    custom_clip = LossCLIP
