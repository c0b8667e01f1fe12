"""Train the embedded CLIP from scratch on emoji drawings and captions: seeded, resumable, logged.

    python scripts/embedded/pretrain.py --npm DIR --out DIR                      # ResNet image tower and text tower
    python scripts/embedded/pretrain.py --npm DIR --out DIR --tower vit --teacher DIR/model.pt   # ViT for that text
    tower

The loss has a contrastive term between images and captions; every drawing of an emoji that a caption means is a
positive. It also has cross-entropies of both towers against one learned prototype per emoji. So every step sees every
emoji as a negative. The prototypes are not kept. With `--teacher` the text tower is the teacher's and frozen, and the
image features also follow the teacher's.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from augment import compose, degrade
from captions import CaptionSampler, pad
from clip.model import CLIP
from drawings import BENCHMARK_STYLES, PRETRAIN_STYLES, load_concepts, render_style
from text_tower import encode_text, write

SIZE = 64
TOWERS = {
    "resnet": {"vision_layers": (1, 1, 1, 1), "vision_width": 24, "vision_patch_size": None},
    "vit": {"vision_layers": 4, "vision_width": 128, "vision_patch_size": 8},
}
TEXT = {
    "embed_dim": 256,
    "image_resolution": SIZE,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 128,
    "transformer_heads": 2,
    "transformer_layers": 4,
}
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)


def main() -> None:
    """Train or resume up to the last step; then export."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    concepts = load_concepts(args.npm)
    pool = Drawings(args, concepts)
    captions = CaptionSampler(concepts, PRETRAIN_STYLES)
    trainer = Pretrainer(args, len(concepts), pool, captions)
    trainer.resume()
    while trainer.step < min(args.steps, args.stop_at or args.steps):
        trainer.train_step()
        if trainer.step % args.checkpoint_every == 0 or trainer.step == args.steps:
            trainer.save()
        if trainer.step % args.evaluate_every == 0 or trainer.step == args.steps:
            trainer.log(evaluation=trainer.evaluate())
    trainer.export()


def parse_args() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npm", type=Path, required=True, help="a node_modules folder with the drawing packages")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tower", choices=sorted(TOWERS), default="resnet")
    parser.add_argument("--teacher", type=Path, help="an exported model.pt whose text tower is kept")
    parser.add_argument("--steps", type=int, default=6000, help="length of the learning-rate schedule")
    parser.add_argument(
        "--stop-at", type=int, help="stop at this step, so that a later call continues with other settings"
    )
    parser.add_argument("--random-vectors", action="store_true", help="some fillers are random vectors, not words")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoint-every", type=int, default=250)
    parser.add_argument("--evaluate-every", type=int, default=1000)
    return parser.parse_args()


class Drawings:
    """All drawings of the pretraining styles as one uint8 tensor, and a sampler over concepts."""

    def __init__(self, args: argparse.Namespace, concepts: list) -> None:
        pixels, self.concept, self.style = [], [], []
        order = {c.hexcode: i for i, c in enumerate(concepts)}
        for s, style in enumerate(PRETRAIN_STYLES):
            for hexcode, drawing in render_style(args.npm, style, concepts, SIZE).items():
                pixels.append(torch.from_numpy(drawing.copy()).permute(2, 0, 1))
                self.concept.append(order[hexcode])
                self.style.append(s)
        self.pixels = torch.stack(pixels)
        self.of_concept: dict[int, list[int]] = {}
        for i, concept in enumerate(self.concept):
            self.of_concept.setdefault(concept, []).append(i)

    def sample(self, batch: int, rng: random.Random) -> list[int]:
        """Half as many concepts as images; each concept has two drawings."""
        chosen = rng.sample(sorted(self.of_concept), batch // 2)
        return [i for c in chosen for i in rng.sample(self.of_concept[c] * 2, 2)]


class Pretrainer:
    """One run: model, prototypes, optimiser, generators, checkpoint and log."""

    def __init__(self, args: argparse.Namespace, num_concepts: int, pool: Drawings, captions: CaptionSampler) -> None:
        self.args, self.pool, self.captions = args, pool, captions
        self.model = CLIP(**TEXT, **TOWERS[args.tower]).float()
        self.teacher = None
        if args.teacher:
            self.teacher = CLIP(**TEXT, **TOWERS["resnet"]).float().eval().requires_grad_(False)
            self.teacher.load_state_dict(torch.load(args.teacher, weights_only=True))
            own = {k: v for k, v in self.teacher.state_dict().items() if not k.startswith("visual.")}
            self.model.load_state_dict(own, strict=False)
        self.model.visual.to(memory_format=torch.channels_last)
        self.prototypes = torch.nn.Parameter(F.normalize(torch.randn(num_concepts, TEXT["embed_dim"]), dim=1))
        text = [p for n, p in self.model.named_parameters() if not n.startswith("visual.") and n != "logit_scale"]
        if self.teacher:
            for parameter in text:
                parameter.requires_grad_(False)
            text = []
        matrices = [p for p in (*self.model.visual.parameters(), *text) if p.ndim > 1]
        vectors = [p for p in (*self.model.visual.parameters(), *text) if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": 0.05},
                {"params": vectors, "weight_decay": 0.0},
                {"params": [self.prototypes, self.model.logit_scale], "weight_decay": 0.0, "speed": 3.0},
            ],
            lr=args.lr,
            betas=(0.9, 0.98),
        )
        self.rng, self.generator = random.Random(args.seed), torch.Generator().manual_seed(args.seed)
        self.step, self.images, self.seconds, self.meters = 0, 0, 0.0, {}

    def train_step(self) -> None:
        """Take one step; a loss that is not finite ends the program and keeps the last checkpoint."""
        start = time.time()
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate() * group.get("speed", 1.0)
        images, captions, targets, positives = self.batch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = self.model.visual(images)
            with torch.set_grad_enabled(self.teacher is None):
                text = encode_text(self.model, captions.tokens, captions.eot, self.fill(captions))
        image, text = F.normalize(features.float(), dim=1), F.normalize(text.float(), dim=1)
        losses = self.losses(image, text, targets, captions, positives)
        if self.teacher:
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                wanted = F.normalize(self.teacher.visual(images).float(), dim=1)
            losses["distil"] = 10 * (1 - (image * wanted).sum(1)).mean()
        loss = sum(losses.values(), torch.tensor(0.0))
        if not math.isfinite(loss.item()):
            sys.exit(f"loss is {loss.item()} at step {self.step}; the last checkpoint is kept")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], 1.0)
        self.optimiser.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(100))
        self.step += 1
        self.images += self.args.batch
        self.seconds += time.time() - start
        self.note(losses, image, targets)

    def fill(self, captions) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Positions where random vectors replace filler tokens (M, L, 1) bool, and the vectors (M, L, width)."""
        if not self.args.random_vectors:
            return None
        position = torch.arange(captions.tokens.shape[1])
        where = (position > 0) & (position <= captions.vectors[:, None])
        deviation = 0.02 + 0.04 * torch.rand(len(where), 1, 1, generator=self.generator)
        return where[..., None], deviation * torch.randn(
            *where.shape, TEXT["transformer_width"], generator=self.generator
        )

    def batch(self):
        """Return images (B, 3, 64, 64), captions (M), concepts (B,) and which caption fits which image (B, M)."""
        picks = self.pool.sample(self.args.batch, self.rng)
        concept, style = [self.pool.concept[i] for i in picks], [self.pool.style[i] for i in picks]
        recolour = torch.tensor([PRETRAIN_STYLES[s] == "emojione-monotone" for s in style])
        images, ground = compose(self.pool.pixels[picks].float() / 255, recolour, self.generator)
        images = ((degrade(images, self.generator) - MEAN) / STD).to(memory_format=torch.channels_last)
        half = slice(0, None, 2)  # one caption for each concept, because text costs as much as images
        captions = self.captions.sample(
            concept[half], style[half], ground[half].tolist(), self.rng, self.args.random_vectors
        )
        targets, styles = torch.tensor(concept), torch.tensor(style)
        positives = captions.concepts[:, targets].T  # (B, M)
        positives = positives & ((captions.style < 0) | (captions.style == styles[:, None]))
        positives = positives & ((captions.ground < 0) | (captions.ground == ground[:, None]))
        return images, captions, targets, positives

    def losses(self, image, text, targets, captions, positives) -> dict[str, torch.Tensor]:
        """Return the four terms for normalised features of images (B, d) and captions (M, d)."""
        scale = self.model.logit_scale.exp()
        logits = scale * image @ text.T  # (B, M)
        log_p, has = logits.log_softmax(1), positives.any(1)
        matched = torch.logsumexp(log_p.masked_fill(~positives, -1e4), 1)
        weights = positives.float() / positives.sum(0).clamp(min=1)
        back = (logits.log_softmax(0) * weights).sum(0)
        prototypes = F.normalize(self.prototypes, dim=1)
        meant = captions.concepts.float() / captions.concepts.sum(1, keepdim=True)
        text_logits = (scale * text @ prototypes.T).log_softmax(1)
        return {
            "image_to_text": -matched[has].mean(),
            "text_to_image": -back[positives.any(0)].mean(),
            "image_to_concept": F.cross_entropy(scale * image @ prototypes.T, targets, label_smoothing=0.02),
            "text_to_concept": -(text_logits * meant).sum(1).mean(),
        }

    def learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 300)
        return self.args.lr * warm * max(0.01, 0.5 * (1 + math.cos(math.pi * self.step / self.args.steps)))

    def note(self, losses, image, targets) -> None:
        hit = (image.detach() @ F.normalize(self.prototypes.detach(), dim=1).T).argmax(1).eq(targets).float().mean()
        for name, value in {**losses, "concept_accuracy": hit}.items():
            self.meters[name] = 0.98 * self.meters.get(name, value.item()) + 0.02 * value.item()
        if self.step % 100 == 0:
            self.log()

    def log(self, **extra) -> None:
        row = {
            "step": self.step,
            "images": self.images,
            "seconds": round(self.seconds),
            "lr": round(self.learning_rate(), 6),
            "scale": round(self.model.logit_scale.exp().item(), 2),
            **{k: round(v, 4) for k, v in self.meters.items()},
            **extra,
        }
        with open(self.args.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Zero-shot top-1 in percent among all emoji names, on plain drawings of a style that is not trained on."""
        self.model.eval()
        concepts = self.captions.concepts
        drawn = render_style(self.args.npm, BENCHMARK_STYLES[0], concepts, SIZE)
        order = [i for i, c in enumerate(concepts) if c.hexcode in drawn]
        pixels = torch.stack([torch.from_numpy(drawn[concepts[i].hexcode].copy()).permute(2, 0, 1) for i in order])
        generator = torch.Generator().manual_seed(0)
        images, _ = compose(pixels.float() / 255, torch.zeros(len(order), dtype=torch.bool), generator, 0.3)
        image = F.normalize(torch.cat([self.model.visual((x - MEAN) / STD) for x in images.split(256)]), dim=1)
        sampler = self.captions
        rows = [[sampler.sot, *sampler._ids([], f"a photo of a {concepts[i].label}"), sampler.eot] for i in order]
        text = F.normalize(encode_text(self.model, *pad(rows)), dim=1)
        scores = image @ text.T
        top1 = scores.argmax(1).eq(torch.arange(len(order))).float().mean().item()
        chosen = torch.arange(0, len(order), max(1, len(order) // 100))[:100]
        small = scores[chosen][:, chosen].argmax(1).eq(torch.arange(len(chosen))).float().mean().item()
        return {"unseen_style_top1_all": round(100 * top1, 2), "unseen_style_top1_of_100": round(100 * small, 2)}

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "prototypes": self.prototypes.data,
            "step": self.step,
            "images": self.images,
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "rng": json.dumps(self.rng.getstate()),
            "seconds": self.seconds,
            "meters": self.meters,
        }
        write(state, self.args.out / "checkpoint.pt")

    def resume(self) -> None:
        """Restore the state of the last checkpoint, with random generators, if there is one."""
        path = self.args.out / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.prototypes.data.copy_(state["prototypes"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        version, numbers, gauss = json.loads(state["rng"])
        self.rng.setstate((version, tuple(numbers), gauss))
        self.step, self.images = state["step"], state["images"]
        self.seconds, self.meters = state["seconds"], state["meters"]
        print(f"resumed at step {self.step}", flush=True)

    def export(self) -> None:
        """Write `model.pt`: OpenAI's state-dict layout, fp32; unused token embeddings are zero."""
        state = {k: v.contiguous() for k, v in self.model.state_dict().items()}
        used = torch.zeros(TEXT["vocab_size"], 1)
        used[self.captions.used_tokens()] = 1
        state["token_embedding.weight"] = state["token_embedding.weight"] * used
        write(state, self.args.out / "model.pt")


if __name__ == "__main__":
    main()
