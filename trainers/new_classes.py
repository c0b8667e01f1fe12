"""The classes that a run trained on base classes has not seen, evaluated while it trains."""

import torch
from dassl.data.datasets import build_dataset

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from dspt_atlas.trainers.learners.prompts import load_prompts


class NewClasses:
    """The new classes' test images and a model with their names, which takes the trainer's prompts as they are now."""

    def __init__(self, trainer):
        cfg = trainer.cfg.clone()
        cfg.defrost()
        # All shots: the few-shot subset would be drawn for nothing, without a seed from the global generator.
        pairs = ["DATASET.SUBSAMPLE_CLASSES", "new", "DATASET.NUM_SHOTS", -1, "DATASET.NOISE.TYPE", "none"]
        cfg.merge_from_list([*pairs, "DATASET.NOISE.FILE", ""])
        dataset = build_dataset(cfg)
        clip_model = trainer.model.clip_model
        with torch.random.fork_rng():
            learner = trainer.build_prompt_learner(clip_model, dataset.classnames).to(trainer.device)
        self._model = PromptedCLIP(clip_model, learner, class_chunk=cfg.MODEL.CLASS_CHUNK)
        self._loader = trainer.items_loader(dataset.test)

    def accuracy(self, trainer):
        """Return the accuracy in percent on the test images of the new classes."""
        trained = trainer.model
        load_prompts(self._model.prompt_learner, trained.prompt_learner.state_dict())
        trainer.model = self._model
        try:
            return trainer.loader_accuracy(self._loader)
        finally:
            trainer.model = trained


def check_new_classes(cfg):
    """Raise UserError where TEST.NEW_CLASSES is set for a run that it means nothing to."""
    if cfg.TEST.NEW_CLASSES and (cfg.DATASET.SUBSAMPLE_CLASSES != "base" or cfg.TEST.PERIOD < 1):
        raise UserError(
            "TEST.NEW_CLASSES evaluates the new classes while the base classes are learned: it goes with "
            f"DATASET.SUBSAMPLE_CLASSES base (got {cfg.DATASET.SUBSAMPLE_CLASSES}) and TEST.PERIOD above 0 (got "
            f"{cfg.TEST.PERIOD})."
        )
