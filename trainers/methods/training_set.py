"""Shared code of methods that look at the whole training set and tell clean from noisy labels."""

import torch
from dassl.data.transforms import build_transform

from dspt_atlas.trainers.declare import Method


class TrainingSetMixin(Method):
    """Logits of all training images under the test transform (frozen image towers only), and their partition.

    The images are encoded once and cached on disk, whatever INPUT.CACHE says.
    """

    @staticmethod
    def goes_with(learner):
        """Return whether all epochs share one feature per image, and all images share one context."""
        return not (learner.prompts_images or learner.conditional)

    def build_state(self):
        """Encode the training images."""
        super().build_state()
        items = self.dm.dataset.train_x
        features = self.image_features(items, build_transform(self.cfg, is_train=False))
        self._train_features = torch.tensor(features, device=self.device)  # (N, d)
        self._train_labels = torch.tensor([item.label for item in items], device=self.device)  # (N,)
        self._partition = {}

    @torch.no_grad()
    def training_logits(self):
        """Return logits (N, C) of all training images with the current prompts."""
        with self.autocast(), self.fixed_text():
            return torch.cat([self.model(features).logits for features in self._train_features.split(4096)])

    def report_partition(self, is_clean):
        """Print the percentage of is_clean (N,) bool; with noise, also for rightly and wrongly labelled samples."""
        shares = {"judged_clean": is_clean}
        noise = getattr(self.dm.dataset, "noise", None)
        if noise is not None:
            is_right = torch.tensor(noise.clean, device=self.device) == self._train_labels
            shares |= {"right_judged_clean": is_clean[is_right], "wrong_judged_clean": is_clean[~is_right]}
        self._partition = {key: 100 * part.float().mean().item() if len(part) else None for key, part in shares.items()}
        shown = ", ".join(
            f"{key.replace('_', ' ')} {'none' if share is None else f'{share:.1f}%'}"
            for key, share in self._partition.items()
        )
        print(f"epoch [{self.epoch + 1}/{self.max_epoch}] {shown}")

    def finish_epoch(self):
        """Add the epoch's partition to the history."""
        super().finish_epoch()
        self.report["history"][-1].update(self._partition)
