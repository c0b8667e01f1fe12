"""CLIP with a prompt learner: from images, or image features, to logits and the features behind them."""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.encoders import ImageEncoder, SharedPrefixTextEncoder, text_sequences
from dspt_atlas.trainers.clip.towers import is_encoded_whole, tokenizer_of
from dspt_atlas.trainers.clip.whole import WholeTextEncoder
from dspt_atlas.trainers.templates import fill


class Prompts(NamedTuple):
    """What a prompt learner's forward returns; a tensor alone is its context.

    context: (1 or B, V, w), the vectors that its sequences refer to; None: it learns no text. deep: (V, w) per text
    block from block 1 on. images: (V, v) per image block from the first on.
    """

    context: Tensor | None
    deep: Sequence[Tensor] = ()
    images: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Output:
    """The result of a forward pass, in float32 or float64. A learner that adds something returns a subclass.

    logits: `s · I Tᵀ` (B, C). image_features: I (B, d). text_features: T (C, d), or (B, C, d) if prompts depend on
    images. Both features are L2-normalised.
    """

    logits: Tensor
    image_features: Tensor
    text_features: Tensor


class PromptedCLIP(nn.Module):
    """CLIP with the prompts of a prompt learner in the text, in the images, or in both.

    Text without learned prompts is encoded once. A learner may bring its own `text_encoder`. `class_chunk`: so many
    classes at a time have their text features computed, and recomputed in the backward pass; 0 for all at once.
    """

    prompt_learner: Any

    def __init__(self, clip_model, prompt_learner, class_chunk=0):
        super().__init__()
        self.clip_model, self.prompt_learner = clip_model, prompt_learner
        self.image_encoder = ImageEncoder(clip_model)
        text_encoder = getattr(prompt_learner, "text_encoder", text_encoder_of)
        self.text_encoder = text_encoder(clip_model, prompt_learner.sequences, class_chunk)
        self._fixed_text = self._unprompted_text = None

    def forward(self, images_or_features):
        """Return the Output of images (B, 3, H, W), or of normalised features (B, d) if images get no prompts."""
        if images_or_features.dim() == 4:
            image_features = self.encode_image(images_or_features)
        elif self.prompt_learner.prompts_images:
            raise UserError(
                "Expected images, got encoded features: this method prompts the image tower, so its features "
                "cannot be cached; set INPUT.CACHE none."
            )
        else:
            image_features = images_or_features
        text_features = self.encode_text(image_features)
        with torch.autocast(image_features.device.type, enabled=False):
            return self.output(widen(image_features), widen(text_features))

    def output(self, image_features, text_features):
        """Return the Output of features (B, d), and (C, d) or (B, C, d), that are scaled by `scaled`."""
        scale = self.clip_model.logit_scale.exp()
        if text_features.dim() == 3:
            logits = scale * (text_features @ image_features[:, :, None]).squeeze(-1)
        else:
            logits = scale * image_features @ text_features.t()
        return Output(logits, image_features, text_features)

    def scaled(self, features):
        """Return features of a tower as the model uses them: L2-normalised."""
        return normalise(features)

    def encode_image(self, images):
        """Normalised features (B, d) of images (B, 3, H, W)."""
        prompts = self._prompts().images if self.prompt_learner.prompts_images else ()
        return self.scaled(self.image_encoder(images, prompts))

    def encode_text(self, image_features=None):
        """Normalised text features (C, d), or (B, C, d) if prompts depend on the features (B, d) of images."""
        if self._fixed_text is not None:
            return self._fixed_text
        if self.prompt_learner.conditional:
            return self.scaled(self.text_encoder(self._prompts(image_features).context))
        prompts = self._prompts()
        if prompts.context is not None:
            return self.scaled(self.text_encoder(prompts.context, prompts.deep)[0])
        if self._unprompted_text is None:
            with torch.no_grad():
                self._unprompted_text = self.scaled(self.text_encoder()[0])
        return self._unprompted_text

    @property
    def text_features(self):
        """Normalised text features (C, d); raises UserError if they depend on images."""
        if self.prompt_learner.conditional:
            raise UserError("The text features of this learner depend on each image (CoCoOp): there are none alone.")
        return self.encode_text()

    @torch.no_grad()
    def keep_text(self):
        """Encode the text once for all that follows (unless it depends on images): the prompts do not change again."""
        self._fixed_text = self._unprompted_text = None
        self._fixed_text = None if self.prompt_learner.conditional else self.encode_text()

    def _prompts(self, *image_features):
        prompts = self.prompt_learner(*image_features)
        return prompts if isinstance(prompts, Prompts) else Prompts(prompts)

    @contextmanager
    def fixed_text(self):
        """No gradients, and text features computed once until the block ends (unless they depend on images)."""
        with torch.no_grad():
            self._fixed_text = None if self.prompt_learner.conditional else self.encode_text()
            try:
                yield self
            finally:
                self._fixed_text = None


def text_encoder_of(clip_model, sequences, class_chunk=0):
    """Return the encoder of one prompt per class: the shared start once for OpenAI's kind, others' texts whole."""
    encoder = WholeTextEncoder if is_encoded_whole(clip_model) else SharedPrefixTextEncoder
    return encoder(clip_model, sequences, class_chunk)


@torch.no_grad()
def zero_shot_features(clip_model, classnames, templates, normalise_each=True):
    """Normalised text features (C, d) of the filled templates, the normalised mean over the templates.

    normalise_each: whether each template's features are normalised before the mean (CLIP's way; not PromptSRC's).
    """
    texts = ([fill(template, name) for name in classnames] for template in templates)
    tokenizer = tokenizer_of(clip_model)
    features = [text_encoder_of(clip_model, text_sequences(filled, tokenizer))()[0] for filled in texts]
    return ensemble(torch.stack(features), normalise_each)


def ensemble(features, normalise_each=True):
    """Normalised mean (C, d) over the templates of raw text features (M, C, d), each normalised before it or not."""
    return F.normalize((normalise(features) if normalise_each else widen(features)).mean(0), dim=-1)


def widen(features):
    """Return features in float32, or in float64 if they have it."""
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def normalise(features):
    """Return features (..., d) of length 1, in float32 or float64."""
    features = widen(features)
    return features / features.norm(dim=-1, keepdim=True)
