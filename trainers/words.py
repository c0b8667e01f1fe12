"""Learned context vectors in words: the tokens whose embeddings are nearest."""

from __future__ import annotations

from typing import NamedTuple

import torch

from dspt_atlas.trainers.clip.towers import tokenizer_of


class NearestWord(NamedTuple):
    """A word near the context vector number `token` of a class ("": of all); rank 1 is the nearest."""

    classname: str
    token: int
    rank: int
    word: str
    distance: float


@torch.no_grad()
def nearest_words(model, classnames: list[str], count: int) -> list[NearestWord]:
    """Return the `count` tokens nearest to each context vector, by |v - e| to the embeddings e of all tokens.

    It is the Euclidean distance of CoOp's authors (Zhou et al. 2022, section 4.4). A context that is changed by images
    (CoCoOp) is taken without that change; deeper vectors (MaPLe) are no embeddings and left out. Empty for a model
    without a learned context of text.
    """
    learner = getattr(model, "prompt_learner", None)
    learner = getattr(learner, "prompt_learner", learner)  # DePT wraps another one
    context = getattr(learner, "ctx", None)
    if context is None:
        return []
    tokenizer = tokenizer_of(model.clip_model)
    table = model.clip_model.token_embedding.weight[: tokenizer.vocabulary].float()
    found = []
    for name, vectors in zip(classnames, context, strict=False) if context.dim() == 3 else [("", context)]:
        distances = torch.cdist(vectors.float(), table)
        distances, tokens = distances.topk(min(count, len(table)), largest=False)  # (n, count)
        for number in range(len(vectors)):  # SentencePiece has ▁ for a space
            pairs = zip(tokens[number].tolist(), distances[number].tolist(), strict=True)
            found += [
                NearestWord(name, number + 1, rank, tokenizer.decode([token]).replace("▁", " ").strip(), distance)
                for rank, (token, distance) in enumerate(pairs, 1)
            ]
    return found
