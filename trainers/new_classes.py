"""Evaluation on the new classes while a run trains on the base classes."""

from dassl.data.datasets import build_dataset

from dspt_atlas.datasets.noise import clean_pairs
from dspt_atlas.datasets.prompts import prompt_names
from dspt_atlas.errors import UserError
from dspt_atlas.trainers.learners.prompts import load_prompts


class NewClasses:
    """The test images of the new classes, and a model with their names that takes the trainer's current prompts."""

    def __init__(self, trainer):
        cfg = trainer.cfg.clone()
        cfg.defrost()
        # All shots: a few-shot subset is not needed, and without a seed the global generator would draw it.
        cfg.merge_from_list(["DATASET.SUBSAMPLE_CLASSES", "new", "DATASET.NUM_SHOTS", -1, *clean_pairs()])
        dataset = build_dataset(cfg)
        self._model = trainer.model_of(prompt_names(dataset))
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
    """Raise UserError if TEST.NEW_CLASSES is set for a run in which it has no meaning."""
    if cfg.TEST.NEW_CLASSES and (cfg.DATASET.SUBSAMPLE_CLASSES != "base" or cfg.TEST.PERIOD < 1):
        raise UserError(
            "TEST.NEW_CLASSES evaluates the new classes while the base classes are learned: it needs "
            f"DATASET.SUBSAMPLE_CLASSES base (got {cfg.DATASET.SUBSAMPLE_CLASSES}) and TEST.PERIOD above 0 (got "
            f"{cfg.TEST.PERIOD})."
        )
