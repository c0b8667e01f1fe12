"""Statistics of a training epoch, summed on the device so that a step never waits for the host."""

import math

import torch
from torch import Tensor

from dspt_atlas.trainers.gradients import LOSSES, logit_gradient_norms


class EpochMonitor:
    """Losses and accuracies of an epoch; with label noise, separately for rightly and wrongly labelled samples.

    noise: the data set's record with `clean` labels in the order of the training items; None without noise.
    profiles_gradients: also sum the norms of the samples' gradients with respect to the logits, for each of `LOSSES`.
    """

    def __init__(self, device, noise=None, profiles_gradients=False):
        self._profiles_gradients = profiles_gradients
        self._clean = None if noise is None else torch.tensor(noise.clean, device=device)  # (N,)
        self.reset()

    def reset(self):
        """Start an epoch."""
        self._unread, self._steps = [], []
        self._sums, self._batches = torch.zeros(2, dtype=torch.float64), 0
        self._noise_counts = self._norm_sums = self._norm_counts = torch.zeros((), dtype=torch.long)

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, batch: dict, step: int) -> None:
        """Add the scalar loss and the logits (B, C) of a batch: dict of label (B,), index (B,) and impath."""
        label = batch["label"]
        predicted = logits.argmax(dim=1)
        is_given = predicted == label
        self._unread.append(torch.stack([loss.detach().float(), 100 * is_given.float().mean()]))
        self.last_step = step, batch["impath"]
        self._steps.append(self.last_step)
        if self._clean is not None:
            clean = self._clean[batch["index"]]
            wrong = clean != label
            counted = [~wrong, ~wrong & is_given, wrong, wrong & is_given, wrong & (predicted == clean)]
            self._noise_counts = self._noise_counts + torch.stack(counted).sum(dim=1)
        if self._profiles_gradients:
            wrong = torch.zeros_like(label, dtype=torch.bool) if self._clean is None else wrong
            parts = torch.stack([~wrong, wrong]).float()  # (2, B)
            self._norm_sums = self._norm_sums + logit_gradient_norms(logits.float(), label) @ parts.T  # (losses, 2)
            self._norm_counts = self._norm_counts + parts.sum(dim=1)

    def read(self):
        """Return mean loss and accuracy in percent since the last read, and the first step whose loss is not finite.

        The step is (batch index, image paths, loss), or None. This waits for the device.
        """
        values = torch.stack(self._unread).cpu().double()  # (steps, 2)
        losses = values[:, 0].tolist()
        broken = [(*step, loss) for step, loss in zip(self._steps, losses, strict=True) if not math.isfinite(loss)]
        loss, accuracy = values.mean(dim=0).tolist()
        self._sums += values.sum(dim=0)
        self._batches += len(values)
        self._unread, self._steps = [], []
        return {"loss": loss, "acc": accuracy}, broken[0] if broken else None

    def summary(self):
        """Return the epoch's means so far: train_loss and percentages, counted while training.

        train_accuracy compares with the given labels. With noise there are also right_accuracy of rightly labelled
        samples, and two shares of wrongly labelled ones: wrong_memorised are predicted as the given label,
        wrong_corrected as the clean one (None without such samples). With gradients: {loss: mean norms of right and
        wrong labels, wrong_share of their sum}.
        """
        train_loss, train_accuracy = (self._sums / self._batches).tolist()
        summary = {"train_loss": train_loss, "train_accuracy": train_accuracy}
        if self._clean is not None:
            right, right_correct, wrong, memorised, corrected = self._noise_counts.tolist()
            summary["right_accuracy"] = 100 * right_correct / right if right else None
            summary["wrong_memorised"] = 100 * memorised / wrong if wrong else None
            summary["wrong_corrected"] = 100 * corrected / wrong if wrong else None
        if self._profiles_gradients:
            counts = self._norm_counts.tolist()
            sums = dict(zip(LOSSES, self._norm_sums.tolist(), strict=True))
            summary["gradient"] = {loss: gradient_summary(pair, counts) for loss, pair in sums.items()}
        return summary


def gradient_summary(sums, counts):
    """Return mean norms of right and wrong labels (None without such samples) and the share of wrong labels in the sum.

    sums, counts: first of rightly, then of wrongly labelled samples.
    """
    right, wrong = (total / count if count else None for total, count in zip(sums, counts, strict=True))
    return {"right": right, "wrong": wrong, "wrong_share": sums[1] / sum(sums) if counts[1] and sum(sums) else None}
