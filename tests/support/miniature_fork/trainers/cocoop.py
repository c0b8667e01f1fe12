"""A trainer of the fork that hides its loss: in training the model returns it, as CoCoOp's and MaPLe's do."""

from dassl.engine import TRAINER_REGISTRY
from torch.nn import functional as F

from .coop import CoOp, CustomCLIP


class LossCLIP(CustomCLIP):
    def forward(self, image, label=None):
        logits = self.logits(image)
        if self.prompt_learner.training:
            return F.cross_entropy(logits, label)
        return logits


@TRAINER_REGISTRY.register()
class CoCoOp(CoOp):
    custom_clip = LossCLIP

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        loss = self.model(image, label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}
