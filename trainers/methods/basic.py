"""The prompt learners' trainers, and the methods: mixins that override the loss of any of them."""

import time

import torch
from dassl.data.transforms import build_transform

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
from dspt_atlas.trainers.clip_trainer import check_choice, check_fraction, check_positive
from dspt_atlas.trainers.learners.prompts import (
    CoCoOpPromptLearner,
    CoOpPromptLearner,
    MaPLePromptLearner,
    has_words_of_several_tokens,
)
from dspt_atlas.trainers.losses import (
    cross_entropy_loss,
    double_softmax_loss,
    gce_loss,
    mae_loss,
    soft_cross_entropy_loss,
)
from dspt_atlas.trainers.soft_labels import (
    KINDS,
    class_similarity,
    instance_similarity,
    is_soft_epoch,
    mean_entropy,
    smooth_labels,
    uniform_distribution,
)
from dspt_atlas.trainers.templates import chosen_templates
from dspt_atlas.trainers.trainer import PromptTrainer

SECOND_SOFTMAX = {"fp32": None, "bf16": torch.bfloat16}  # None: the first softmax's, float32 at least
HARD_LOSSES = {"ce": cross_entropy_loss, "dspt": double_softmax_loss}
CONTEXT_OF_FLAG = {True: "a photo of a", False: ""}  # what a boolean CTX_INIT means in KgCoOp's fork and TCP's


def context_words(node):
    """Return the words of a node's CTX_INIT, which forks also have as a boolean."""
    if not isinstance(node.CTX_INIT, bool):
        return node.CTX_INIT
    words = CONTEXT_OF_FLAG[node.CTX_INIT]
    start = f'as "{words}"' if words else "random"
    print(f"CTX_INIT is {node.CTX_INIT} in this fork: the context starts {start}")
    return words


class _WordsLearned(PromptTrainer):
    """Learns one vector per word of CTX_INIT."""

    @classmethod
    def revisions(cls, cfg):
        """Return the revision numbers; the learner's is one more where a word has several tokens, once learned singly."""
        found = super().revisions(cfg)
        found["learner"] += has_words_of_several_tokens(context_words(cfg.TRAINER[cls.config_node]))
        return found


class CoOp(_WordsLearned):
    """CoOp (Zhou et al., IJCV 2022): a learned context, shared or per class."""

    config_node = "COOP"

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner with the settings of TRAINER.COOP."""
        node = self.cfg.TRAINER.COOP
        return CoOpPromptLearner(
            clip_model,
            classnames,
            n_ctx=node.N_CTX,
            ctx_init=context_words(node),
            csc=node.CSC,
            class_token_position=node.CLASS_TOKEN_POSITION,
        )


class CoCoOp(_WordsLearned):
    """CoCoOp (Zhou et al., CVPR 2022): a context that a small network shifts for each image."""

    config_node = "COCOOP"

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner with the settings of TRAINER.COCOOP."""
        node = self.cfg.TRAINER.COCOOP
        return CoCoOpPromptLearner(clip_model, classnames, n_ctx=node.N_CTX, ctx_init=context_words(node))


class MaPLe(PromptTrainer):
    """MaPLe (Khattak et al., CVPR 2023): coupled deep prompts in both towers."""

    config_node = "MAPLE"
    model_name = "MultiModalPromptLearner"
    prompts_images = True
    learner_revision = 2  # words of CTX_INIT beyond N_CTX stay in the prompt

    def build_prompt_learner(self, clip_model, classnames):
        """Return the prompt learner with the settings of TRAINER.MAPLE."""
        node = self.cfg.TRAINER.MAPLE
        return MaPLePromptLearner(
            clip_model, classnames, n_ctx=node.N_CTX, ctx_init=context_words(node), prompt_depth=node.PROMPT_DEPTH
        )


class DoubleSoftmax:
    """DSPT (arXiv 2605.00591): the double-softmax loss; TRAINER.DSPT holds ablations of its second softmax."""

    def check_cfg(self, cfg):
        """Raise UserError for settings out of range."""
        super().check_cfg(cfg)
        check_positive("TRAINER.DSPT.TEMPERATURE", cfg.TRAINER.DSPT.TEMPERATURE)
        check_choice("TRAINER.DSPT.PRECISION", cfg.TRAINER.DSPT.PRECISION, tuple(SECOND_SOFTMAX))

    def loss(self, logits, batch):
        node = self.cfg.TRAINER.DSPT
        return double_softmax_loss(logits, batch["label"], node.TEMPERATURE, SECOND_SOFTMAX[node.PRECISION])


class MAE:
    """Mean absolute error (NLPrompt's PromptMAE)."""

    def loss(self, logits, batch):
        return mae_loss(logits, batch["label"])


class GCE:
    """Generalised cross-entropy with TRAINER.GCE.Q (PTNL, ICCV 2023)."""

    def check_cfg(self, cfg):
        """Raise UserError for Q out of range."""
        super().check_cfg(cfg)
        check_fraction("TRAINER.GCE.Q", cfg.TRAINER.GCE.Q)

    def loss(self, logits, batch):
        return gce_loss(logits, batch["label"], q=self.cfg.TRAINER.GCE.Q)


class ATLaS:
    """ATLaS (arXiv 2508.17846): soft labels supervise every TRAINER.ATLAS.PERIOD-th epoch, given ones the others.

    The labels are made once, before training, over the training classes; evaluation never makes them.
    """

    def check_cfg(self, cfg):
        """Raise UserError for settings out of range, and for a schedule without a soft epoch."""
        super().check_cfg(cfg)
        node = cfg.TRAINER.ATLAS
        check_choice("TRAINER.ATLAS.SOFT_LABELS", node.SOFT_LABELS, KINDS)
        check_choice("TRAINER.ATLAS.HARD_LOSS", node.HARD_LOSS, tuple(HARD_LOSSES))
        if not 1 <= node.PERIOD <= cfg.OPTIM.MAX_EPOCH:
            raise UserError(
                f"Expected TRAINER.ATLAS.PERIOD from 1 to OPTIM.MAX_EPOCH ({cfg.OPTIM.MAX_EPOCH}), got {node.PERIOD}: "
                "no epoch would use soft labels."
            )
        check_fraction("TRAINER.ATLAS.ALPHA", node.ALPHA)
        chosen_templates(None, node.TEMPLATE)
        for key in ("CSL_TEMPERATURE", "ISL_TEMPERATURE"):
            check_positive(f"TRAINER.ATLAS.{key}", node[key])

    def before_train(self):
        """Make the soft labels and report their schedule, mean entropy (nats) and cost in seconds."""
        node, start = self.cfg.TRAINER.ATLAS, time.perf_counter()
        self._similarity = self.build_similarity().to(self.device)
        labels = torch.tensor([item.label for item in self.dm.dataset.train_x], device=self.device)
        indices = torch.arange(len(labels), device=self.device)
        entropy = mean_entropy(self._soft_labels(labels, indices))
        epochs = range(1, self.max_epoch + 1)
        self.report["atlas"] = {
            "soft_labels": node.SOFT_LABELS,
            "period": node.PERIOD,
            "alpha": node.ALPHA,
            "hard_loss": node.HARD_LOSS,
            "schedule": ["soft" if is_soft_epoch(epoch, node.PERIOD) else "hard" for epoch in epochs],
            "mean_entropy": entropy,
            "seconds": time.perf_counter() - start,
        }
        seconds = self.report["atlas"]["seconds"]
        print(f"ATLaS: {node.SOFT_LABELS} labels made in {seconds:.1f} s, mean entropy {entropy:.3f} nats")
        super().before_train()

    @torch.no_grad()
    def build_similarity(self):
        """Return `u`: (1, C) for ls, (C, C) by label for csl, (N, C) by training index for isl."""
        node, dataset = self.cfg.TRAINER.ATLAS, self.dm.dataset
        if node.SOFT_LABELS == "ls":
            return uniform_distribution(len(dataset.classnames))
        clip_model = self.model.clip_model
        text = zero_shot_features(clip_model, dataset.classnames, chosen_templates(dataset, node.TEMPLATE))
        if node.SOFT_LABELS == "csl":
            return class_similarity(text, node.CSL_TEMPERATURE, node.CSL_KEEP_DIAGONAL)
        images = self.image_features(dataset.train_x, build_transform(self.cfg, is_train=False))
        scale = clip_model.logit_scale.exp().item()
        return instance_similarity(torch.tensor(images, device=self.device), text, scale, node.ISL_TEMPERATURE)

    def _soft_labels(self, label, index):
        rows = {"ls": slice(None), "csl": label, "isl": index}[self.cfg.TRAINER.ATLAS.SOFT_LABELS]
        return smooth_labels(label, self._similarity[rows], self.cfg.TRAINER.ATLAS.ALPHA)

    def _is_soft(self):
        return is_soft_epoch(self.epoch + 1, self.cfg.TRAINER.ATLAS.PERIOD)

    def before_epoch(self):
        """Say which labels supervise the epoch."""
        super().before_epoch()
        node = self.cfg.TRAINER.ATLAS
        labels = f"soft labels ({node.SOFT_LABELS})" if self._is_soft() else f"given labels ({node.HARD_LOSS})"
        print(f"epoch [{self.epoch + 1}/{self.max_epoch}] supervised by {labels}")

    def loss(self, logits, batch):
        if self._is_soft():
            return soft_cross_entropy_loss(logits, self._soft_labels(batch["label"], batch["index"]))
        return HARD_LOSSES[self.cfg.TRAINER.ATLAS.HARD_LOSS](logits, batch["label"])
