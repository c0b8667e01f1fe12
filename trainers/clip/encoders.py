"""CLIP's two towers with learned tokens in their frozen blocks.

Text is encoded exactly; the part that all classes share is computed only once. CLIP's text attention is causal. So the
tokens at the start of every prompt (start token, shared context) have the same keys and values in every layer for every
class, and nothing after the end token has an effect on it. The shared prefix is encoded once. Each class's few own
tokens attend to it and to themselves. Own tokens of several classes lie side by side in packs of equal length; a mask
separates the classes. So short names do not cost as much as long ones, and matrix products stay large.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.towers import ImageTower, image_blocks, image_dtype, openais_tokenizer

_GELU_SCALE = 1.702


class SharedPrefixTextEncoder(nn.Module):
    """CLIP's text features of one prompt per class.

    `sequences`: per class, the tokens from start to end token. An entry >= 0 is a token id; an entry -1 - k is vector k
    of the context in `forward`. `class_chunk`: number of classes at a time (0: all), recomputed in backward.
    `prefix_length`: so many first entries are encoded once for all classes; None: as many as they have in common.
    """

    _encodes_together = True
    prefix: torch.Tensor
    prefix_slots: torch.Tensor
    prefix_vectors: torch.Tensor

    def __init__(self, clip_model, sequences, class_chunk=0, prefix_length=None):
        super().__init__()
        self.transformer, self.ln_final = clip_model.transformer, clip_model.ln_final
        self.text_projection = clip_model.text_projection
        length = prefix_length or shared_prefix_length(sequences)
        prefix = sequences[0][:length]
        base = _embed(clip_model, prefix, range(length))
        self.register_buffer("prefix", base, persistent=False)  # (P, w)
        slots = [position for position, token in enumerate(prefix) if token < 0]
        self.register_buffer(
            "prefix_slots", torch.tensor(slots, dtype=torch.long, device=base.device), persistent=False
        )
        vectors = [-1 - prefix[position] for position in slots]
        self.register_buffer(
            "prefix_vectors", torch.tensor(vectors, dtype=torch.long, device=base.device), persistent=False
        )
        size = class_chunk if class_chunk > 0 else len(sequences)
        self.chunks = nn.ModuleList(
            _Packs(clip_model, sequences[start : start + size], length) for start in range(0, len(sequences), size)
        )

    def forward(self, context=None, deep=()):
        """Text features (B, C, d), not normalised.

        `context` (B, V, w): the vectors that the sequences refer to, one set per image or B = 1; None if they do not
        refer to any. `deep`: tensors (V, w) that replace the context at the input of layers 1, 2, ... (MaPLe).
        """
        if len(self.chunks) == 1 and self._encodes_together:
            return self._encode_all(self.chunks[0], context, deep)
        key_values = self._encode_prefix(context, deep)
        recompute = len(self.chunks) > 1 and torch.is_grad_enabled()
        features = [
            checkpoint(self._encode_own, chunk, context, *key_values, use_reentrant=False)
            if recompute
            else self._encode_own(chunk, context, *key_values)
            for chunk in self.chunks
        ]
        return torch.cat(features, dim=1)

    def _prefix_inputs(self, context):
        """Input embeddings (B, P, w) of the shared prefix."""
        x = self.prefix[None]
        if context is None:
            return x
        vectors = context.to(x.dtype).index_select(1, self.prefix_vectors)
        return x.expand(len(context), -1, -1).index_add(1, self.prefix_slots, vectors)

    def _encode_all(self, packs, context, deep):
        """Features (B, C, d) with prefix and own tokens in the same matrix products: rows of the prefix come first."""
        prefix = self._prefix_inputs(context)
        own = packs.inputs(context).expand(len(prefix), -1, -1, -1)
        (batch, count, size, width), length, last = own.shape, prefix.shape[1], len(self.transformer.resblocks) - 1
        mask = packs.mask.to(own.dtype).repeat(batch, 1, 1, 1)  # (B N, 1, S, P + S)
        parts = [batch * length, batch * count * size]
        x = torch.cat([prefix.flatten(0, 1), own.flatten(0, 2)])
        slots = (length * torch.arange(batch, device=x.device)[:, None] + self.prefix_slots).flatten()
        for layer, block in enumerate(self.transformer.resblocks):
            if 1 <= layer <= len(deep):
                vectors = deep[layer - 1].to(x.dtype).index_select(0, self.prefix_vectors)
                x = x.index_copy(0, slots, vectors.repeat(batch, 1))
            shared, each = (
                part.unflatten(0, shape).split([width, 2 * width], dim=-1)
                for part, shape in zip(
                    _query_key_value(block, x).split(parts), [(batch, length), (batch * count, size)], strict=True
                )
            )
            keys = shared[1][:, None].expand(-1, count, -1, -1).reshape(batch * count, length, -1)
            attended = attend(block, each[0], torch.cat([keys, each[1]], dim=1), mask)
            if layer == last:  # only the end tokens are read
                x, attended = packs.ends(x[parts[0] :], batch), packs.ends(attended, batch)
            else:
                before = attend(block, *shared, causal=True)
                attended = torch.cat([before.flatten(0, 1), attended.flatten(0, 1)])
            x = finish(block, x, attended)
        return self._project(x)

    def _encode_prefix(self, context, deep):
        """Keys and values (B, P, 2w) of the shared prefix in every layer."""
        x = self._prefix_inputs(context)
        key_values = []
        for layer, block in enumerate(self.transformer.resblocks):
            if 1 <= layer <= len(deep):
                vectors = deep[layer - 1].to(x.dtype).index_select(0, self.prefix_vectors)
                x = x.index_copy(1, self.prefix_slots, vectors.expand(len(x), -1, -1))
            query, key_value = query_key_value(block, x)
            key_values.append(key_value)
            if layer + 1 < len(self.transformer.resblocks):
                x = finish(block, x, attend(block, query, key_value, causal=True))
        return key_values

    def _encode_own(self, packs, context, *key_values):
        x = packs.inputs(context).expand(len(key_values[0]), -1, -1, -1)
        return self._project(self._own_blocks(packs, x, key_values))

    def _own_blocks(self, packs, x, key_values, first=0):
        """Run own tokens (B, N, S, w) through one block per entry of key_values, the first of them is block `first`.

        After the last block of all, only the end tokens (B, C, w) are returned.
        """
        blocks = self.transformer.resblocks
        batch, count, size, width = x.shape
        mask = packs.mask.to(key_values[0].dtype).repeat(batch, 1, 1, 1)  # (B N, 1, S, P + S)
        x = x.reshape(batch * count, size, width)
        for layer, prefix in enumerate(key_values, first):
            query, key_value = query_key_value(blocks[layer], x)
            prefix = prefix[:, None].expand(-1, count, -1, -1).reshape(batch * count, -1, 2 * width)
            attended = attend(blocks[layer], query, torch.cat([prefix, key_value], dim=1), mask)
            if is_last := layer + 1 == len(blocks):  # only the end tokens are read
                x, attended = packs.ends(x, batch), packs.ends(attended, batch)
            x = finish(blocks[layer], x, attended)
        return x if is_last else x.view(batch, count, size, width)

    def _project(self, ends):
        return layer_norm(self.ln_final, ends) @ self.text_projection  # (B, C, d)


class _Packs(nn.Module):
    """The own tokens of a run of classes, side by side in packs of equal length, as non-persistent buffers."""

    base: torch.Tensor
    mask: torch.Tensor
    end: torch.Tensor
    slots: torch.Tensor
    vectors: torch.Tensor

    def __init__(self, clip_model, sequences, prefix_length):
        super().__init__()
        own = [sequence[prefix_length:] for sequence in sequences]
        packs, size = pack([len(tokens) for tokens in own], prefix_length, clip_model.ln_final.weight.shape[0])
        device = clip_model.positional_embedding.device
        tokens = torch.zeros(len(packs), size, dtype=torch.long)
        positions = torch.zeros_like(tokens)
        group = torch.full_like(tokens, -1)
        ends = torch.zeros(len(own), dtype=torch.long)
        for row, members in enumerate(packs):
            start = 0
            for member in members:
                stop = start + len(own[member])
                tokens[row, start:stop] = torch.tensor(own[member])
                positions[row, start:stop] = prefix_length + torch.arange(len(own[member]))
                group[row, start:stop] = member
                ends[member] = row * size + stop - 1
                start = stop
        allowed = (group[:, :, None] == group[:, None, :]).tril()
        mask = torch.zeros(len(packs), 1, size, prefix_length + size)
        mask[:, 0, :, prefix_length:].masked_fill_(~allowed, float("-inf"))
        base = _embed(clip_model, tokens.flatten().tolist(), positions.flatten().tolist())
        slots = (tokens.flatten() < 0).nonzero().flatten()
        buffers = {
            "base": base.view(len(packs), size, -1),
            "mask": mask,
            "end": ends,
            "slots": slots,
            "vectors": -1 - tokens.flatten()[slots],
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.to(device), persistent=False)

    def inputs(self, context):
        """Input embeddings (B or 1, N, S, w); B = 1 if no own token depends on the context."""
        if len(self.slots) == 0:
            return self.base[None]
        x = self.base.flatten(0, 1).expand(len(context), -1, -1)
        own = context.to(x.dtype).index_select(1, self.vectors)
        return x.index_add(1, self.slots, own).view(len(context), *self.base.shape)

    def ends(self, x, batch):
        """Rows of the end tokens (B, C, w) from (B N, S, w)."""
        return x.reshape(batch, -1, x.shape[-1]).index_select(1, self.end)


def text_sequences(texts, tokenizer=None):
    """Tokens of whole texts, from start to end token, by OpenAI's tokenizer or another one.

    Raises UserError if a text is too long.
    """
    tokenizer = tokenizer or openais_tokenizer()
    sequences = [[*tokenizer.start, *tokenizer.encode(text), *tokenizer.end] for text in texts]
    most = tokenizer.context_length
    if too_long := [text for text, sequence in zip(texts, sequences, strict=True) if len(sequence) > most]:
        most -= len(tokenizer.start) + len(tokenizer.end)
        raise UserError(f"Expected texts of at most {most} tokens, got '{too_long[0]}': shorten it.")
    return sequences


def shared_prefix_length(sequences):
    """Number of leading entries that all sequences have in common; every class keeps at least its last entry."""
    longest = min(len(sequence) for sequence in sequences) - 1
    columns = zip(*(sequence[:longest] for sequence in sequences), strict=True)
    return next((position for position, column in enumerate(columns) if len(set(column)) > 1), longest)


def pack(lengths, prefix_length, width):
    """Distribute classes over packs of one size with the least work: (list of lists of class indices, size)."""
    by_length = {}
    for index, length in enumerate(lengths):
        by_length.setdefault(length, []).append(index)
    counts = {length: len(members) for length, members in sorted(by_length.items(), reverse=True)}

    def work(size):
        tokens = size * len(_fill(counts, size))
        return tokens * (12 * width + 8 * (prefix_length + size) + 4 * width * prefix_length / size)

    longest = max(lengths)
    size = min(range(longest, longest + 64), key=work)
    size = min(size, sum(lengths))
    pools = {length: iter(members) for length, members in by_length.items()}
    return [[next(pools[length]) for length in lengths_of_pack] for lengths_of_pack in _fill(counts, size)], size


def _fill(counts, size):
    """Lengths in each pack of `size` tokens; the longest that still fits comes first."""
    counts, packs = dict(counts), []
    while any(counts.values()):
        room, members = size, []
        for length in counts:
            taken = min(counts[length], room // length)
            counts[length] -= taken
            room -= taken * length
            members += [length] * taken
        packs.append(members)
    return packs


def _embed(clip_model, tokens, positions):
    """Token plus positional embeddings (L, w); at places of context vectors only the position."""
    tokens = torch.tensor(list(tokens), device=clip_model.positional_embedding.device)
    positions = torch.tensor(list(positions), device=tokens.device)
    embedded = F.embedding(tokens.clamp(min=0), clip_model.token_embedding.weight) * (tokens >= 0)[:, None]
    return (embedded + clip_model.positional_embedding[positions]).detach()


class ImageEncoder(nn.Module):
    """Image features (B, d), not normalised, of images (B, 3, H, W); without prompts no gradients are recorded."""

    def __init__(self, clip_model):
        super().__init__()
        self.visual = clip_model.visual

    def forward(self, images, prompts=()):
        """`prompts`: one (V, w) tensor per layer from the first on; those of layer i > 0 replace layer i - 1's."""
        images = images.to(image_dtype(self.visual))
        if len(prompts) == 0:
            with torch.no_grad():
                return self.visual(images)
        return self._prompted(images, prompts)

    def _prompted(self, images, prompts):
        visual, blocks = self.visual, image_blocks(self)
        if isinstance(visual, ImageTower):
            return visual(images, prompts)
        patches = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, patches, w)
        start = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        x = torch.cat([start, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
        tokens = x.shape[1]
        x = torch.cat(
            [layer_norm(visual.ln_pre, x), self._rows(layer_norm(visual.ln_pre, prompts[0].to(x.dtype)), x)], 1
        )
        for layer, block in enumerate(blocks):
            if 1 <= layer < len(prompts):
                x = torch.cat([x[:, :tokens], self._rows(prompts[layer].to(x.dtype), x)], dim=1)
            query, key_value = query_key_value(block, x)
            if layer + 1 == len(blocks):  # only the class token is read
                x, query = x[:, :1], query[:, :1]
            x = finish(block, x, attend(block, query, key_value))
        features = layer_norm(visual.ln_post, x[:, 0])
        return features if visual.proj is None else features @ visual.proj

    @staticmethod
    def _rows(prompts, x):
        return prompts.expand(len(x), -1, -1)


# One residual attention block of CLIP, computed from the frozen module's weights with fused operations.


def layer_norm(ln, x, scale=1.0):
    """`scale * ln(x)`, in the dtype of `x`."""
    weight, bias = (ln.weight, ln.bias) if scale == 1.0 else (ln.weight * scale, ln.bias * scale)
    return F.layer_norm(x.to(weight.dtype), ln.normalized_shape, weight, bias, ln.eps).to(x.dtype)


def query_key_value(block, x):
    """Queries (..., w) and joined keys and values (..., 2w) of tokens x (..., w)."""
    return _query_key_value(block, x).split([x.shape[-1], 2 * x.shape[-1]], dim=-1)


def _query_key_value(block, x):
    return F.linear(layer_norm(block.ln_1, x), block.attn.in_proj_weight, block.attn.in_proj_bias)


def attend(block, query, key_value, mask=None, causal=False):
    """Attention of (N, L, w) queries over (N, S, 2w) keys and values, before the output projection: (N, L, w)."""
    count, length, width = query.shape
    heads = block.attn.num_heads
    query = query.view(count, length, heads, -1).transpose(1, 2)
    key, value = key_value.view(count, key_value.shape[1], 2, heads, -1).transpose(1, 3).unbind(2)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).reshape(count, length, width)


def finish(block, x, attended):
    """The rest of the block: x + projected attention, then the MLP with QuickGELU or exact GELU; shapes (..., w)."""
    x = x + F.linear(attended, block.attn.out_proj.weight, block.attn.out_proj.bias)
    expand, contract = block.mlp.c_fc, block.mlp.c_proj
    if isinstance(block.mlp.gelu, nn.GELU):
        return x + contract(block.mlp.gelu(expand(layer_norm(block.ln_2, x))))
    # x·sigmoid(1.702x) = silu(1.702x)/1.702; scaling the small vectors makes it one pass over the wide activations
    hidden = F.linear(layer_norm(block.ln_2, x, _GELU_SCALE), expand.weight, expand.bias * _GELU_SCALE)
    out = F.linear(F.silu(hidden), contract.weight, contract.bias * _GELU_SCALE)
    return x.add(out, alpha=1 / _GELU_SCALE)
