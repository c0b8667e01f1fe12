"""CLIP's text tower with vectors of each class in the context's places from one block on (TCP, Yao et al. 2024)."""

import torch
from torch import nn

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.encoders import SharedPrefixTextEncoder, _Packs
from dspt_atlas.trainers.clip.towers import is_encoded_whole, text_blocks
from dspt_atlas.trainers.clip.whole import WholeTextEncoder


def class_vectors_encoder(clip_model, sequences, class_chunk=0, block=8):
    """Return the encoder with vectors of each class at a block's input, of a tower of OpenAI's kind or another one.

    Raises UserError for a block that the tower does not have, and for block 0, whose input is the context itself.
    """
    last = len(text_blocks(clip_model)) - 1
    if not 1 <= block <= last:
        raise UserError(
            f"Expected BLOCK from 1 to {last}, the text tower's blocks after the first, got {block}: choose one of "
            "them."
        )
    encoder = WholeTextEncoder if is_encoded_whole(clip_model) else ClassVectorsTextEncoder
    return encoder(clip_model, sequences, class_chunk, block=block)


class ClassVectorsTextEncoder(SharedPrefixTextEncoder):
    """CLIP's text features, with the context replaced by vectors of each class at the input of block `block`.

    Every sequence begins with the start token and the same n context entries. The context of `forward` is
    (1, n + C n, w): the shared vectors, then those of each class. Up to that block, all classes share start token and
    context. From it on they share the start token alone, and each class's vectors lead its own tokens.
    """

    _encodes_together = False

    def __init__(self, clip_model, sequences, class_chunk=0, block=8):
        count = sum(entry < 0 for entry in sequences[0])
        super().__init__(clip_model, sequences, class_chunk, prefix_length=1 + count)
        self.block = block
        starts = [count * (1 + index) for index in range(len(sequences))]
        later = [
            [sequence[0], *(-1 - start - slot for slot in range(count)), *sequence[1 + count :]]
            for start, sequence in zip(starts, sequences, strict=True)
        ]
        ends = torch.tensor([len(chunk.end) for chunk in self.chunks]).cumsum(0).tolist()
        self.chunks = nn.ModuleList(
            _TwoPacks(clip_model, packs, later[end - len(packs.end) : end], count)
            for packs, end in zip(self.chunks, ends, strict=True)
        )

    def _encode_own(self, packs, context, *key_values):
        before, start_token = key_values[: self.block], [entry[:, :1] for entry in key_values[self.block :]]
        x = self._own_blocks(packs.before, packs.before.base[None], before)
        return self._project(self._own_blocks(packs.after, packs.replaced(x, context), start_token, self.block))


class _TwoPacks(nn.Module):
    """The own tokens of a run of classes without and with their vectors, and the way from the ones to the others."""

    source: torch.Tensor
    target: torch.Tensor

    def __init__(self, clip_model, before, sequences, count):
        super().__init__()
        self.before, self.after = before, _Packs(clip_model, sequences, 1)
        for name, packs in (("source", before), ("target", self.after)):
            places = [
                end - back
                for end, sequence in zip(packs.end.tolist(), sequences, strict=True)
                for back in reversed(range(len(sequence) - 1 - count))
            ]
            self.register_buffer(name, torch.tensor(places, device=packs.end.device), persistent=False)

    def replaced(self, x, context):
        """Return the tokens (1, N', S', w): those of x (1, N, S, w), with each class's vectors before its own."""
        count, size, width = self.after.base.shape
        tokens = x.new_zeros(1, count * size, width)
        tokens = tokens.index_copy(1, self.target, x.flatten(1, 2).index_select(1, self.source))
        vectors = context.to(x.dtype).index_select(1, self.after.vectors)
        return tokens.index_copy(1, self.after.slots, vectors).view(1, count, size, width)
