"""noise.json of runs by trainers of another repository."""

from functools import wraps

from dassl.engine import TrainerBase

from dspt_atlas.datasets.noisy import has_noise, save_noise
from dspt_atlas.trainers.trainer import PromptTrainer


def record_noise_of_every_trainer():
    """Let every trainer of this Dassl save noise.json before its first epoch, if its labels are wrong, or should be.

    It wraps `TrainerBase.train`, so trainers that are registered later do it too. Ours do it by themselves, with more
    checks. May be called repeatedly. Training raises UserError if the training labels are not those of the noise.
    """
    train = TrainerBase.train
    if hasattr(train, "__wrapped__"):
        return

    @wraps(train)
    def recording(self, *arguments, **named):
        dataset = getattr(getattr(self, "dm", None), "dataset", None)
        if not isinstance(self, PromptTrainer) and dataset is not None and has_noise(self.cfg, dataset):
            save_noise(dataset, self.cfg, self.output_dir)
        return train(self, *arguments, **named)

    TrainerBase.train = recording
