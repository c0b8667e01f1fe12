"""Random captions for emoji drawings: names, keywords and categories inside templates, styles and filler words."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from clip.simple_tokenizer import SimpleTokenizer

if TYPE_CHECKING:
    from drawings import Concept

STYLE_WORDS = {
    "noto": ("shaded", "cartoon"),
    "twemoji": ("flat", "simple"),
    "streamline-emojis": ("outlined", "sticker"),
    "fxemoji": ("soft", "pastel"),
    "emojione-monotone": ("silhouette", "one color"),
}
BACKGROUNDS = ("white", "black", "gray", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown")
TEMPLATES = (
    "a photo of a {}",
    "a {}",
    "{}",
    "a drawing of a {}",
    "a picture of a {}",
    "an icon of a {}",
    "a {} emoji",
    "the {}",
    "an illustration of a {}",
    "this is a {}",
    "a photo of the {}",
    "a small {}",
    "a photo of a {}, a symbol",
)
STYLE_TEMPLATES = ("a {s} drawing of a {{}}", "a {s} {{}}", "a {s} icon of a {{}}", "{s} style, a {{}}")
GROUND_PHRASES = ("{{}} on a {b} background", "a {{}} over {b}", "{b} behind a {{}}")
_FILLERS = """
    good nice one two very some other new old big small best first last with from that this which image picture view
    scene thing object kind type sort made shown seen here there bright dark clean close far left right top many few
    round sharp color light line shape style art design game world day time home hand work life part place case week
    point number group problem fact x of and in the a to for on by at as it or an be is are was"""
FILLERS = tuple(_FILLERS.split())
ATTRIBUTE_SHARE = 0.25
FILLER_SHARE = 0.5
RANDOM_VECTOR_SHARE = 0.7  # of the fillers, if asked for: random vectors, as in a random context at its start


@dataclass
class CaptionBatch:
    """Token ids (M, L) int64 with EOT position (M,), the concepts of the text (M, N) bool, and attributes or -1 (M,).

    `vectors` (M,) counts the tokens after SOS that random vectors replace.
    """

    tokens: torch.Tensor
    eot: torch.Tensor
    concepts: torch.Tensor
    style: torch.Tensor
    ground: torch.Tensor
    vectors: torch.Tensor


@dataclass
class CaptionSampler:
    """Draws captions for concepts; every choice comes from the given `random.Random`."""

    concepts: list[Concept]
    styles: tuple[str, ...]
    terms: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._tokenizer = SimpleTokenizer()
        self.sot, self.eot = (self._tokenizer.encoder[t] for t in ("<|startoftext|>", "<|endoftext|>"))
        self.encode = lru_cache(maxsize=None)(self._tokenizer.encode)
        self._members: dict[str, set[int]] = {}
        self.terms = []
        for i, concept in enumerate(self.concepts):
            terms = [concept.label, *(t for t in (*concept.tags, *category_words(concept.subgroup)) if _is_word(t))]
            self.terms.append(terms)
            for term in terms:
                self._members.setdefault(term, set()).add(i)
        counts = {term: len(members) for term, members in self._members.items()}
        self.terms = [[t for t in terms if counts[t] <= 90] or terms[:1] for terms in self.terms]

    def sample(
        self, ids: list[int], styles: list[int], grounds: list[int], rng: random.Random, random_vectors: bool = False
    ) -> CaptionBatch:
        """Draw one caption for each image from its concept, style and background colour (-1: none)."""
        rows, members, style_of, ground_of, vectors = [], [], [], [], []
        for concept, style, ground in zip(ids, styles, grounds, strict=True):
            terms = self.terms[concept]
            term = terms[0] if len(terms) == 1 or rng.random() < 0.5 else rng.choice(terms[1:])
            template, s, g = self._template(style, ground, rng)
            filler = [rng.choice(FILLERS) for _ in range(rng.randint(1, 16))] if rng.random() < FILLER_SHARE else []
            vectors.append(0)
            if random_vectors and filler and rng.random() < RANDOM_VECTOR_SHARE:
                filler, template, s, g = ["x"] * rng.randint(2, 20), rng.choice(("{}", "{} .")), -1, -1
                vectors[-1] = len(filler)
            rows.append([self.sot, *self._ids(filler, template.format(term)), self.eot])
            members.append(self._members[term])
            style_of.append(s)
            ground_of.append(g)
        meant = torch.zeros(len(rows), len(self.concepts), dtype=torch.bool)
        for row, group in enumerate(members):
            meant[row, list(group)] = True
        return CaptionBatch(*pad(rows), meant, torch.tensor(style_of), torch.tensor(ground_of), torch.tensor(vectors))

    def _template(self, style: int, ground: int, rng: random.Random) -> tuple[str, int, int]:
        if rng.random() < ATTRIBUTE_SHARE:
            if ground >= 0 and rng.random() < 0.5:
                return rng.choice(GROUND_PHRASES).format(b=BACKGROUNDS[ground]), -1, ground
            return rng.choice(STYLE_TEMPLATES).format(s=rng.choice(STYLE_WORDS[self.styles[style]])), style, -1
        return rng.choice(TEMPLATES), -1, -1

    def _ids(self, filler: list[str], text: str) -> list[int]:
        ids = [i for word in (*filler, *text.split(" ")) for i in self.encode(word)]
        return ids[-60:]

    def used_tokens(self) -> torch.Tensor:
        """All token ids that a caption can contain, sorted, as int64."""
        words = {w for terms in self.terms for t in terms for w in t.split(" ")} | set(FILLERS) | set(BACKGROUNDS)
        for text in (*TEMPLATES, *STYLE_TEMPLATES, *GROUND_PHRASES, *(w for ws in STYLE_WORDS.values() for w in ws)):
            words |= set(text.replace("{", " ").replace("}", " ").split())
        ids = {i for w in words for i in self.encode(w)} | set(self.encode("a photo of a x, x.")) | {self.sot, self.eot}
        return torch.tensor(sorted(ids))


def category_words(subgroup: str) -> tuple[str, ...]:
    """Plain words of a CLDR subgroup: `animal-bird` gives `bird`, `musical-instrument` gives `musical instrument`."""
    head, _, tail = subgroup.partition("-")
    if head in ("animal", "food", "plant", "transport", "place", "person", "face"):
        return (tail.replace("-", " "),) if tail not in ("other", "person", "role", "activity") else ()
    return (subgroup.replace("-", " "),)


def pad(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack token rows to (M, L) with zeros at the end, and return the position of each row's last token."""
    length = max(map(len, rows))
    return torch.tensor([r + [0] * (length - len(r)) for r in rows]), torch.tensor([len(r) - 1 for r in rows])


def _is_word(text: str) -> bool:
    return all(c.isalpha() or c in " -" for c in text) and text.isascii() and len(text) > 2
