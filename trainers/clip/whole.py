"""Text towers that are not of OpenAI's kind: every text is encoded whole, by the tower's own library."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.towers import text_blocks


class WholeTextEncoder(nn.Module):
    """Text features of one prompt per class by a TextTower; called like SharedPrefixTextEncoder.

    Texts have the length that the tower's authors use if it sees padding, otherwise that of the longest. block: the
    block whose input takes vectors of each class in the context's places, as in ClassVectorsTextEncoder; 0 for none.
    Raises UserError for sequences that are too long or of another tokenizer, and for blocks that are not there.
    """

    ids: torch.Tensor
    vectors: torch.Tensor
    clip_model: Any

    def __init__(self, clip_model, sequences, class_chunk=0, block=0):
        super().__init__()
        self.clip_model, self.block = clip_model, block
        self.class_chunk = class_chunk if class_chunk > 0 else len(sequences)
        tokenizer = clip_model.text.tokenizer
        if any((*s[: len(tokenizer.start)], *s[len(s) - len(tokenizer.end) :]) != _ends(tokenizer) for s in sequences):
            raise UserError(
                f"Expected prompts by the tokenizer of {clip_model.text.name}, but they are of another one: give "
                "prompt_sequences the tokenizer_of the model."
            )
        longest, most = max(map(len, sequences)), tokenizer.context_length
        if longest > most:
            raise UserError(f"Expected prompts of at most {most} tokens for {clip_model.text.name}, got {longest}.")
        length = most if clip_model.text.sees_padding else longest
        pads = [[tokenizer.pad] * (length - len(sequence)) for sequence in sequences]
        parts = (pads, sequences) if tokenizer.pads_left else (sequences, pads)
        rows = torch.tensor([[*left, *right] for left, right in zip(*parts, strict=True)])
        filler = tokenizer.encode("x")[0]  # neither pad nor end; its embedding is replaced
        device = clip_model.logit_scale.device
        self.register_buffer("ids", rows.where(rows >= 0, torch.tensor(filler)).to(device), persistent=False)  # (C, L)
        self.register_buffer("vectors", (-1 - rows).clamp(min=-1).to(device), persistent=False)  # (C, L), -1 for none

    def forward(self, context=None, deep=()):
        """Text features (B, C, d), not normalised; `context` (B, V, w) and `deep` as in SharedPrefixTextEncoder."""
        if len(deep):
            text_blocks(self.clip_model)
        recompute = len(self.ids) > self.class_chunk and torch.is_grad_enabled()
        features = []
        for classes in torch.arange(len(self.ids), device=self.ids.device).split(self.class_chunk):
            arguments = (classes, context, *deep)
            features.append(
                checkpoint(self._encode, *arguments, use_reentrant=False) if recompute else self._encode(*arguments)
            )
        return torch.cat(features, dim=1)

    def _encode(self, classes, context, *deep):
        ids, vectors = self.ids[classes], self.vectors[classes]
        batch = 1 if context is None else len(context)
        rows, places = (vectors >= 0).nonzero().unbind(1)  # of the entries that are vectors
        index = vectors[rows, places]
        offsets = len(ids) * torch.arange(batch, device=rows.device)[:, None]

        def put(values):  # (B, K, w) into the places of the vectors
            def replace(x):  # (B C, L, w)
                flat = ((offsets + rows) * x.shape[1] + places).flatten()
                values_ = values.to(x.dtype).expand(batch, -1, -1).flatten(0, 1)
                return x.flatten(0, 1).index_copy(0, flat, values_).view(x.shape)

            return replace

        def unchanged(x):
            return x

        replaced = [(number, put(layer[index][None])) for number, layer in enumerate(deep, 1)]
        if self.block and context is not None:
            count = self.vectors.max() + 1
            replaced.append((self.block, put(context[:, index + count * (1 + classes[rows])])))
        start = unchanged if context is None or not len(index) else put(context[:, index])
        features = self.clip_model.text(ids.repeat(batch, 1), start, replaced)
        return features.unflatten(0, (batch, len(ids)))


def _ends(tokenizer):
    return (*tokenizer.start, *tokenizer.end)
