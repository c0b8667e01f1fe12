"""PromptSRC (Khattak et al., ICCV 2023): IVLP that stays near frozen CLIP, and ends as a mean of its epochs."""

import torch
import torch.nn.functional as F

from dspt_atlas.datasets.prompts import prompt_names
from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import at_least, positive
from dspt_atlas.trainers.checkpoints import saved_tensor
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
from dspt_atlas.trainers.declare import learner
from dspt_atlas.trainers.learners.ivlp import IVLP, declare_towers
from dspt_atlas.trainers.templates import SIXTY

declare_towers("PROMPTSRC", least_vision=1)
declare("TRAINER.PROMPTSRC.TEXT_LOSS_WEIGHT", 25.0, "weight of the text features' distance to CLIP's", at_least(0))
declare("TRAINER.PROMPTSRC.IMAGE_LOSS_WEIGHT", 10.0, "weight of the image features' distance to CLIP's", at_least(0))
declare("TRAINER.PROMPTSRC.GPA_MEAN", 15.0, "epoch that weighs most in the mean of the epochs' prompts")
declare("TRAINER.PROMPTSRC.GPA_STD", 1.0, "deviation of these weights, in epochs", positive())


def gaussian_weights(epochs, mean, deviation):
    """Return the weights (epochs,) float64 of epochs 1, 2, ... with sum 1, in proportion to exp(-(e - μ)² / (2 σ²))."""
    distances = (torch.arange(1, epochs + 1, dtype=torch.float64) - mean) / deviation
    return torch.softmax(-0.5 * distances.square(), dim=0)


def consistency(output, fixed, text_weight, image_weight):
    """Return w_t mean|T - T0| + w_i mean|I - I0| + KL(softmax(z0) ‖ softmax(z)) / (B C) of an Output and frozen CLIP's.

    The authors average the last term over B C; it is C times smaller than a mean over the batch.
    """
    log_p, log_fixed = output.logits.log_softmax(dim=1), fixed.logits.log_softmax(dim=1)
    return (
        text_weight * F.l1_loss(output.text_features, fixed.text_features)
        + image_weight * F.l1_loss(output.image_features, fixed.image_features)
        + F.kl_div(log_p, log_fixed, reduction="none", log_target=True).mean()
    )


@learner(
    **dict.fromkeys(("noisy", "base2new"), "vit_b16_c2_ep20_batch4_4+4ctx"),
    fewshot={
        "": "vit_b16_c2_ep50_batch4_4+4ctx_few_shot",
        **dict.fromkeys(
            ("stanford_cars", "oxford_flowers", "fgvc_aircraft", "dtd", "eurosat"),
            "vit_b16_c2_ep50_batch4_4+4ctx_few_shot_late",
        ),
    },
    transfer="vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets",
    embedded="emoji_vit",
)
class PromptSRC(IVLP):
    """PromptSRC (Khattak et al., ICCV 2023): IVLP with three terms that see no label, and prompts averaged at the end.

    With T, I, z of the prompted and T0, I0, z0 of frozen CLIP (T0 over 60 templates, I0 of the same augmented images)
    the step adds 25 mean|T - T0| + 10 mean|I - I0| + KL(softmax(z0) ‖ softmax(z)) / (B C). After the last epoch the
    prompts become Σ_e g_e θ_e, the mean of those at the ends of the epochs, weighted by `gaussian_weights`.
    """

    config_node = "PROMPTSRC"

    def build_state(self):
        """Encode the training classes' text (C, d) and the training images' views (V, N, d) by frozen CLIP."""
        super().build_state()
        clip_model, data = self.model.clip_model, self.train_loader_x.dataset
        self._fixed_text = zero_shot_features(clip_model, prompt_names(self.dm.dataset), SIXTY, normalise_each=False)
        self._fixed_images = self.image_features(data.data_source, data.transform, views=data.views)
        node = self.cfg.TRAINER.PROMPTSRC
        self._weights = gaussian_weights(self.max_epoch, node.GPA_MEAN, node.GPA_STD).tolist()
        learned = self.model.prompt_learner.named_parameters()
        self._sum = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in learned}

    def regulariser(self, output, batch):
        node, view = self.cfg.TRAINER.PROMPTSRC, self.train_loader_x.dataset.view
        images = torch.tensor(self._fixed_images[view, batch["index"].cpu().numpy()], device=self.device)
        fixed = self.model.output(images, self._fixed_text)
        return consistency(output, fixed, node.TEXT_LOSS_WEIGHT, node.IMAGE_LOSS_WEIGHT)

    @torch.no_grad()
    def finish_epoch(self):
        """Add the epoch's prompts to the weighted sum; after the last epoch, the sum is what is tested and saved."""
        learned = dict(self.model.prompt_learner.named_parameters())
        for name, value in learned.items():
            self._sum[name] += self._weights[self.epoch] * value.float()
        if self.epoch + 1 == self.max_epoch:
            for name, value in learned.items():
                value.copy_(self._sum[name])
        super().finish_epoch()

    def extra_state(self):
        """Return the trainer's state for checkpoints, with the sum so far."""
        return {**super().extra_state(), "prompt_sum": dict(self._sum)}

    def load_extra_state(self, state):
        """Restore the state; raises UserError if it has no sum of these prompts."""
        super().load_extra_state(state)
        saved = state.get("prompt_sum") or {}
        for name, value in self._sum.items():
            value.copy_(saved_tensor(saved.get(name), value.shape, f"sum of {name} over the epochs"))
