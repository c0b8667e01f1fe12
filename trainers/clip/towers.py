"""What learners, encoders and the feature cache ask of a CLIP, whoever made its towers."""

from dataclasses import dataclass

from torch import nn

from dspt_atlas.errors import UserError


class ImageTower(nn.Module):
    """An image tower that is not of OpenAI's `clip`: `module` makes features (B, d) of images (B, 3, H, W).

    name: what it is, for refusals and the cache. input_resolution: H and W; output_dim: d. facts: whatever it computes
    with and its weights do not say; they count in its fingerprint.
    """

    def __init__(self, module, name, input_resolution, output_dim, facts=()):
        super().__init__()
        self.module, self.name, self.facts = module, name, (name, *facts)
        self.input_resolution, self.output_dim = input_resolution, output_dim

    def forward(self, images):
        return self.module(images)


@dataclass(frozen=True)
class Family:
    """A kind of backbone that is not wholly OpenAI's `clip.model.CLIP`. Its kinds are frozen dataclasses too.

    Their names and fields are the part of a backbone's identity that its weights do not say. image_resolution: side of
    its images in pixels.
    """

    image_resolution: int

    def build(self, source):
        """Return the model of a `sources.Source`, on the CPU; raises UserError for weights of something else."""
        raise NotImplementedError


def text_width(clip_model):
    """Return the width w of text tokens."""
    return clip_model.token_embedding.weight.shape[1]


def feature_width(clip_model):
    """Return the width d of the features of both towers."""
    return clip_model.visual.output_dim


def image_dtype(visual):
    """Return the type that an image tower computes in."""
    return next(visual.parameters()).dtype


def is_vit(clip_model):
    """Return whether the image tower is OpenAI's vision transformer."""
    return isinstance(getattr(clip_model.visual, "transformer", None), nn.Module)


def require_vit(clip_model):
    """Raise UserError for an image tower that takes no prompts."""
    if not is_vit(clip_model):
        raise UserError(
            "Expected a vision transformer (ViT-B/32, ViT-B/16, ViT-L/14), because prompts go into the image tower, "
            f"got {getattr(clip_model.visual, 'name', 'a ResNet')}: choose another backbone, or CoOp or CoCoOp."
        )
