"""DePT (Zhang et al., CVPR 2024): a classifier of the training classes beside the prompts of CoOp, KgCoOp and MaPLe."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dspt_atlas.keys.declare import declare
from dspt_atlas.keys.ranges import one_of, positive, share
from dspt_atlas.trainers.clip.prompted_clip import Output, PromptedCLIP, normalise, widen
from dspt_atlas.trainers.clip.towers import feature_width
from dspt_atlas.trainers.declare import learner
from dspt_atlas.trainers.learners.coop import CoOp
from dspt_atlas.trainers.learners.kgcoop import KgCoOp
from dspt_atlas.trainers.learners.maple import MaPLe
from dspt_atlas.trainers.learners.prompts import WHOLE, learned_entries
from dspt_atlas.trainers.losses import cross_entropy_loss
from dspt_atlas.trainers.trainer import PromptTrainer, repeat_batch

HEAD = ("film_lp_", "linear_probe_")  # the beginnings of the keys of maps and classifier
ROWS = ("linear_probe_proj.weight", "linear_probe_proj.bias", "linear_probe_classes")  # keys with a row per class
HEAD_LOSSES = ("method", "ce", "ce_for_text")

declare("TRAINER.LINEAR_PROBE.WEIGHT", 0.7, "weight of the classifier, in the loss and in predictions", share())
declare("TRAINER.LINEAR_PROBE.TEST_TIME_FUSION", True, "predict by both logits; False: by the classifier alone")
declare("TRAINER.LINEAR_PROBE.LR_FACTOR", 6.5, "learning rate of classifier and maps, times OPTIM.LR", positive())
declare(
    "TRAINER.LINEAR_PROBE.LOSS",
    "method",
    "the classifier's loss: the method's, ce, or ce for its text rows and the method's for its images; the last two "
    "are ours",
    one_of(*HEAD_LOSSES),
)


@dataclass(frozen=True)
class RawOutput(Output):
    """An Output that also has both features as the towers give them, not normalised: I^r (B, d) and T^r (C, d)."""

    raw_image_features: Tensor
    raw_text_features: Tensor


class RawPromptedCLIP(PromptedCLIP):
    """PromptedCLIP whose features are not normalised; cached features of images have their norms too."""

    def scaled(self, features):
        """Return features as they are, in float32 at least."""
        return widen(features)

    @property
    def text_features(self):
        """Normalised text features (C, d)."""
        return normalise(super().text_features)

    def output(self, image_features, text_features):
        """Return the RawOutput of raw features (B, d) and (C, d)."""
        plain = super().output(normalise(image_features), normalise(text_features))
        return RawOutput(**vars(plain), raw_image_features=image_features, raw_text_features=text_features)


class AffineMap(nn.Module):
    """scale * x + bias, per feature; it starts as the identity."""

    def __init__(self, width, device):
        super().__init__()
        self.scale, self.bias = (nn.Parameter(start(width, device=device)) for start in (torch.ones, torch.zeros))

    def forward(self, features):
        return self.scale * features + self.bias


class DecoupledPromptLearner(nn.Module):
    """A prompt learner with DePT's classifier of raw features, u = M f(x) + m, f an affine map per modality.

    Classifier and maps mean something for the classes that they were trained on. `has_head` is False after loading
    prompts of other classes. The authors' files do not name their classes; they are taken for files of `assumed` class
    names if they have as many.
    """

    def __init__(self, prompt_learner, classnames, width, device, assumed=()):
        super().__init__()
        self.prompts_images, self.conditional = prompt_learner.prompts_images, prompt_learner.conditional
        self.sequences, self.prompt_learner = prompt_learner.sequences, prompt_learner
        self.film_lp_img, self.film_lp_text = AffineMap(width, device), AffineMap(width, device)
        self.linear_probe_proj = nn.Linear(width, len(classnames), device=device)
        self.register_buffer("linear_probe_classes", _digests(classnames).to(device))
        self.assumed = _digests(assumed).to(device)
        self.has_head = True

    def forward(self, *image_features):
        return self.prompt_learner(*image_features)

    def head_parameters(self):
        """Return the parameters of classifier and maps."""
        own = (self.film_lp_img, self.film_lp_text, self.linear_probe_proj)
        return [parameter for module in own for parameter in module.parameters()]

    def classify(self, image_features, *text_features):
        """Return u (B or 2B, C) of raw image features (B, d), after those of raw text features (B, d) if given."""
        rows = [*map(self.film_lp_text, text_features), self.film_lp_img(image_features)]
        with torch.autocast(image_features.device.type, enabled=False):
            return self.linear_probe_proj(torch.cat(rows))

    def entries(self, state_dict):
        """Return the entries of a checkpoint for these classes, and say whether it was trained on them.

        The rows of M and m are those of these classes. Classifier and maps of other classes are left out.
        """
        own, weight, bias, classes = self.state_dict(), *ROWS
        entries = learned_entries(state_dict, getattr(self.prompt_learner, "unused", ()))
        found = {key if key.startswith(HEAD) else WHOLE + key: value for key, value in entries.items()}
        if weight not in found or bias not in found:
            return found
        if classes not in found and len(found[weight]) == len(self.assumed):
            found[classes] = self.assumed
        rows = {digest: row for row, digest in enumerate(found.get(classes, torch.empty(0)).tolist())}
        self.has_head = rows.keys() >= set(own[classes].tolist())
        if not self.has_head:
            return found | {key: value for key, value in own.items() if key.startswith(HEAD)}
        chosen = [rows[digest] for digest in own[classes].tolist()]
        is_whole = all(len(found[key]) == len(rows) for key in ROWS)
        return found | {key: found[key][chosen] for key in ROWS if is_whole}


def _digests(classnames):
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in classnames]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])  # (C,) int64


class DePT(PromptTrainer):
    """DePT on a prompt learner: (1 - w) L(z, y) + w L(u, [y; y]) with w = TRAINER.LINEAR_PROBE.WEIGHT.

    L is the method's criterion, and z are the prompts' logits. The 2B rows of u are M f + m of the raw features of the
    labels' texts and of the images. Training classes are predicted by (1 - w) z + w u, all others by z.
    """

    head_node = "LINEAR_PROBE"
    model_name = "PromptLearner"
    model_class = RawPromptedCLIP
    takes_raw_features = True
    criterion_calls = 2

    def build_prompt_learner(self, clip_model, classnames):
        """Return the base's prompt learner with classifier and maps."""
        base = super().build_prompt_learner(clip_model, classnames)
        width, is_new = feature_width(clip_model), self.cfg.DATASET.SUBSAMPLE_CLASSES == "new"
        assumed = () if is_new else getattr(self.dm.dataset, "source_classnames", classnames)
        return DecoupledPromptLearner(base, classnames, width, clip_model.logit_scale.device, assumed)

    def build_state(self):
        """Begin to train classifier and maps, whatever prompts were loaded."""
        super().build_state()
        self.model.prompt_learner.has_head = True

    def load_model(self, directory, epoch=None):
        """Load the prompts, and classifier and maps if they were trained on these classes."""
        super().load_model(directory, epoch)
        if not self.model.prompt_learner.has_head:
            print("The classifier was trained on other classes: the prompts alone predict")

    def parameter_groups(self, prompt_learner):
        """Return the prompts, and classifier and maps with their own learning rate."""
        rate = self.cfg.TRAINER.LINEAR_PROBE.LR_FACTOR * self.cfg.OPTIM.LR
        base = list(prompt_learner.prompt_learner.parameters())
        return [{"params": base}, {"params": prompt_learner.head_parameters(), "lr": rate}]

    def label_loss(self, output, batch, criterion):
        """Return the weighted sum of both logits' losses."""
        node, label = self.cfg.TRAINER.LINEAR_PROBE, batch["label"]
        text = output.raw_text_features[label]
        logits = self.model.prompt_learner.classify(output.raw_image_features, text)  # (2B, C)
        if node.LOSS == "ce_for_text":
            of_text, of_images = logits.chunk(2)
            head = (cross_entropy_loss(of_text, label) + criterion(of_images, batch)) / 2
        elif node.LOSS == "ce":
            head = cross_entropy_loss(logits, label.repeat(2))
        else:
            head = criterion(logits, repeat_batch(batch, 2))
        return (1 - node.WEIGHT) * criterion(output.logits, batch) + node.WEIGHT * head

    def predict(self, output):
        """Return both logits mixed for the training classes, and the prompts' logits for others."""
        node, learner = self.cfg.TRAINER.LINEAR_PROBE, self.model.prompt_learner
        if not learner.has_head:
            return output.logits
        weight = node.WEIGHT if node.TEST_TIME_FUSION else 1
        return (1 - weight) * output.logits + weight * learner.classify(output.raw_image_features)


@learner(**dict.fromkeys(("noisy", "fewshot", "base2new", "transfer"), "vit_b16_c16_ep10_batch4"), embedded="emoji_rn")
class DePTCoOp(DePT, CoOp):
    """DePT on CoOp."""


@learner(
    **dict.fromkeys(("noisy", "fewshot", "base2new", "transfer"), "vit_b16_c4_ep10_batch4_ctxv1"), embedded="emoji_rn"
)
class DePTKgCoOp(DePT, KgCoOp):
    """DePT on KgCoOp; KgCoOp's term stays."""


@learner(
    **dict.fromkeys(("noisy", "fewshot", "base2new", "transfer"), "vit_b16_c2_ep10_batch4_2ctx"), embedded="emoji_vit"
)
class DePTMaPLe(DePT, MaPLe):
    """DePT on MaPLe."""

    model_name = MaPLe.model_name
