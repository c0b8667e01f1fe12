"""Train PhotoEN's text tower: a caption's feature lies where the image tower would put the thing. Seeded, resumable.

    python scripts/embedded/photo_distil.py --targets DIR/targets.pt --out DIR

The tower is CLIP's own, 4 layers of width 256, with CLIP's tokens. A caption has a noun of WordNet in a template, after
filler words, or after random vectors (as a random context has). The loss has the cosine with the noun's target, and the
divergence between the similarities of captions to the targets of the batch and those of the targets themselves.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from captions import FILLERS, pad
from clip.model import CLIP
from clip.simple_tokenizer import SimpleTokenizer
from photo_targets import SEEN
from text_tower import encode_text, write

TEXT = {"context_length": 77, "transformer_width": 256, "transformer_heads": 4, "transformer_layers": 4}
TEMPLATES = (
    "a photo of a {}.",
    "a photo of a {}",
    "a photo of the {}.",
    "a picture of a {}",
    "{}",
    "{}.",
    "a {}",
    "the {}",
    "a close-up photo of a {}.",
    "a bad photo of a {}.",
    "a good photo of the {}.",
    "a photo of many {}.",
    "a photo of one {}.",
    "itap of a {}.",
    "a cropped photo of the {}.",
    "this is a photo of a {}",
)
WITH_HYPERNYM = ("a photo of a {}, a type of {}.", "{}, a {}", "a {}, which is a {}")
LENGTH = 60


class Captions:
    """Draws captions of nouns; every choice comes from one `random.Random`."""

    def __init__(self, targets: dict, seed: int) -> None:
        self.names, self.owners = targets["names"], targets["owners"].tolist()
        self.hypernyms, self.rng = targets["hypernyms"], random.Random(seed)
        tokenizer = SimpleTokenizer()
        self.start, self.end = (tokenizer.encoder[t] for t in ("<|startoftext|>", "<|endoftext|>"))
        self.encode = lru_cache(maxsize=None)(tokenizer.encode)
        is_imagenet = torch.zeros(len(targets["targets"]), dtype=torch.bool)
        is_imagenet[targets["imagenet"]] = True
        files = targets["files"].tolist()
        weights = [
            (8.0 if is_imagenet[owner] else 2.0 if files[owner] in SEEN else 0.7) / (1 + name.count(" "))
            for name, owner in zip(self.names, self.owners, strict=True)
        ]
        self.cumulated = torch.tensor(weights, dtype=torch.float64).cumsum(0).tolist()

    def sample(self, count: int) -> tuple[list[list[int]], list[int], list[int]]:
        """Return token rows, the synset of each, and how many tokens after the first are random vectors instead."""
        rows, owners, vectors = [], [], []
        for index in self.rng.choices(range(len(self.names)), cum_weights=self.cumulated, k=count):
            kind, owner = self.rng.random(), self.owners[index]
            filler, template = [], self.rng.choice(TEMPLATES)
            if kind < 0.35:
                filler, template = ["x"] * self.rng.choice((2, 4, 4, 8, 16, 16)), self.rng.choice(("{}", "{}."))
            elif kind < 0.55:
                filler = [self.rng.choice(FILLERS) for _ in range(self.rng.randint(1, 8))]
            elif kind < 0.65 and self.hypernyms[owner]:
                template = self.rng.choice(WITH_HYPERNYM)
            text = template.format(self.names[index].lower(), self.hypernyms[owner].lower())
            rows.append(self.row([*filler, text]))
            owners.append(owner)
            vectors.append(len(filler) if kind < 0.35 else 0)
        return rows, owners, vectors

    def row(self, texts: list[str]) -> list[int]:
        """Return the tokens of texts behind one another, from start to end token."""
        tokens = [token for text in texts for word in text.split(" ") for token in self.encode(word)]
        return [self.start, *tokens[-LENGTH:], self.end]

    def used(self) -> torch.Tensor:
        """Return which of the 49,408 tokens a caption may have: bool."""
        words = {word for text in (*self.names, *self.hypernyms, *FILLERS) for word in text.lower().split(" ")}
        words |= {word for text in (*TEMPLATES, *WITH_HYPERNYM) for word in text.replace("{}", "x").split(" ")}
        words |= {f"{word}." for word in words} | {f"{word}," for word in words} | {"_", ".", ",", "s"}
        used = torch.zeros(49408, dtype=torch.bool)
        used[[self.start, self.end, *(token for word in words for token in self.encode(word))]] = True
        return used


class Distiller:
    """One run: the tower, the optimiser, the generators, the checkpoint and the log."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.data = torch.load(args.targets, weights_only=True)
        self.captions = Captions(self.data, args.seed)
        self.targets = self.data["targets"].float()
        self.used = self.captions.used()
        torch.manual_seed(args.seed)
        self.model = CLIP(
            embed_dim=1280, image_resolution=32, vision_layers=1, vision_width=64, vision_patch_size=32,
            vocab_size=49408, **TEXT,
        ).float()  # fmt: skip
        del self.model.visual
        # a table of the used tokens alone: the optimiser passes over it in each step
        self.place = (self.used.cumsum(0) - 1).clamp(min=0)  # padding has token 0
        self.model.token_embedding = torch.nn.Embedding.from_pretrained(
            self.model.token_embedding.weight[self.used].detach().clone(), freeze=False
        )
        named = [(n, p) for n, p in self.model.named_parameters() if n != "logit_scale"]
        matrices = [p for n, p in named if p.ndim > 1 and "embedding" not in n]
        others = [p for n, p in named if p.ndim <= 1 or "embedding" in n]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}],
            lr=args.lr, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        self.generator = torch.Generator().manual_seed(args.seed)
        self.step, self.seconds, self.meters = 0, 0.0, {}

    def train_step(self) -> None:
        start = time.time()
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        rows, owners, vectors = self.captions.sample(self.args.batch)
        targets = self.targets[owners]
        features = self.encode(rows, vectors)
        cosine = (features * targets).sum(1).mean()
        wanted = (self.args.scale * targets @ targets.T).softmax(1)
        found = (self.args.scale * features @ targets.T).log_softmax(1)
        divergence = F.kl_div(found, wanted, reduction="batchmean")
        self.optimiser.zero_grad()
        (10 * (1 - cosine) + self.args.divergence * divergence).backward()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], 1.0)
        self.optimiser.step()
        self.step += 1
        self.seconds += time.time() - start
        for name, value in {"cosine": cosine, "divergence": divergence}.items():
            self.meters[name] = 0.98 * self.meters.get(name, value.item()) + 0.02 * value.item()

    def encode(self, rows: list[list[int]], vectors: list[int], groups: int = 6) -> torch.Tensor:
        """Return the features (B, 1280), of length 1; captions of similar length go together."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        parts = []
        for chosen in torch.tensor(order).tensor_split(groups):
            tokens, ends = pad([rows[i] for i in chosen])
            positions = torch.arange(tokens.shape[1])
            where = (positions > 0) & (positions <= torch.tensor([[vectors[i]] for i in chosen]))
            deviation = 0.02 + 0.04 * torch.rand(len(where), 1, 1, generator=self.generator)
            fill = deviation * torch.randn(*where.shape, TEXT["transformer_width"], generator=self.generator)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                parts.append(encode_text(self.model, self.place[tokens], ends, (where[..., None], fill)))
        features = torch.empty(len(rows), 1280).index_copy(0, torch.tensor(order), torch.cat(parts).float())
        return F.normalize(features, dim=1)

    def learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 200)
        return self.args.lr * warm * max(0.01, 0.5 * (1 + math.cos(math.pi * self.step / self.args.steps)))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """How often the nearest of ImageNet's 1,000 targets is the name's own, in percent, per kind of caption."""
        state = self.generator.get_state()
        first = {}
        for name, owner in zip(self.captions.names, self.captions.owners, strict=True):
            first.setdefault(owner, name.lower())
        owners = [o for o in self.data["imagenet"].tolist() if o in first]
        wanted, result = self.targets[owners], {}
        for kind, (filler, template) in {
            "name": ([], "{}"), "template": ([], "a photo of a {}."), "random": (["x"] * 16, "{}."),
        }.items():  # fmt: skip
            rows = [self.captions.row([*filler, template.format(first[owner])]) for owner in owners]
            features = self.encode(rows, [len(filler)] * len(rows))
            nearest = (features @ wanted.T).argmax(1)
            hit = (wanted[nearest] * wanted).sum(1) > 0.999  # several rows may have one synset
            result[kind] = round(100 * hit.float().mean().item(), 2)
        self.generator.set_state(state)
        return result

    def log(self) -> None:
        row = {"step": self.step, "seconds": round(self.seconds), "lr": round(self.learning_rate(), 6)}
        row |= {name: round(value, 4) for name, value in self.meters.items()} | self.evaluate()
        with open(self.args.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "rng": json.dumps(self.captions.rng.getstate()),
            "step": self.step,
            "seconds": self.seconds,
            "meters": self.meters,
        }
        write(state, self.args.out / "checkpoint.pt")

    def resume(self) -> None:
        """Restore the last checkpoint, with the random generators, if there is one."""
        if not (path := self.args.out / "checkpoint.pt").is_file():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        version, numbers, gauss = json.loads(state["rng"])
        self.captions.rng.setstate((version, tuple(numbers), gauss))
        self.step, self.seconds, self.meters = state["step"], state["seconds"], state["meters"]
        print(f"resumed at step {self.step}", flush=True)

    def export(self) -> None:
        """Write `text.pt`: OpenAI's names, the used tokens' rows, which tokens these are, and the images' mean."""
        state = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        state["logit_scale"] = torch.tensor(math.log(100))
        state["token_embedding.used"] = self.used.nonzero().flatten()
        state["visual.mean"] = self.data["mean"]
        write(state, self.args.out / "text.pt")


def main() -> None:
    """Train or resume up to the last step; then export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--stop-at", type=int, help="stop at this step, to be resumed")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--scale", type=float, default=20.0, help="of the similarities in the divergence")
    parser.add_argument("--divergence", type=float, default=1.0, help="its weight")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evaluate-every", type=int, default=250)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    distiller = Distiller(args)
    distiller.resume()
    while distiller.step < min(args.steps, args.stop_at or args.steps):
        distiller.train_step()
        if distiller.step % args.evaluate_every == 0 or distiller.step == args.steps:
            distiller.save()
            distiller.log()
    distiller.export()


if __name__ == "__main__":
    main()
