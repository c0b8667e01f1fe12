"""Make the embedded data sets from the npm packages: one zip of small images and a split file for each.

    npm install emojibase-data@17 @iconify-json/{emojione,noto-v1,fluent-emoji-flat,fluent-emoji-high-contrast}
    python scripts/embedded/build_images.py --npm node_modules --out datasets/embedded_data

Pretraining never sees these styles. Every image is one drawing of one emoji on a random background, after a random
affine map and colour change. The generator is seeded by the image's name.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from augment import compose
from drawings import Concept, load_concepts, render_style
from PIL import Image

SIZE = 72
QUALITY = 82
NATURE = """
    ant bat bear butterfly camel cat chicken crab crocodile deer dog dolphin duck eagle elephant fox frog goat gorilla
    hamster honeybee horse koala leopard lion lizard monkey mouse octopus owl ox panda penguin pig rabbit ram
    rhinoceros rooster scorpion shark shrimp snail snake spider squid tiger turtle whale wolf
    banana carrot cherries grapes lemon mushroom pear pineapple strawberry sunflower watermelon""".split()  # noqa: SIM905 - as a list it would fill a screen
OBJECTS = """
    airplane anchor backpack bed bell bicycle bomb camera castle church crown dress drum factory fountain glasses guitar
    hammer helicopter hospital key laptop lipstick locomotive microphone microscope motorcycle necktie pencil printer
    radio rocket sailboat saxophone scissors taxi telephone television tractor trophy trumpet umbrella violin
    volcano""".split()  # noqa: SIM905 - as a list it would fill a screen


@dataclass(frozen=True)
class Benchmark:
    """One embedded data set: class names, drawing styles, images per class and split, strength of the distortion."""

    name: str
    classes: Sequence[str]
    styles: tuple[str, ...]
    images: dict[str, int]
    strength: float = 0.8


BENCHMARKS = (
    Benchmark("emoji", NATURE, ("emojione", "noto-v1"), {"train": 32, "val": 8, "test": 20}),
    Benchmark("emoji_objects", OBJECTS, ("emojione", "noto-v1"), {"train": 16, "val": 4, "test": 16}),
    Benchmark("emoji_v2", NATURE, ("emojione", "noto-v1"), {"test": 10}, strength=1.3),
    Benchmark("emoji_flat", NATURE, ("fluent-emoji-flat",), {"test": 10}),
    Benchmark("emoji_ink", NATURE, ("fluent-emoji-high-contrast",), {"test": 10}),
)


def main() -> None:
    """Render the styles and write every benchmark's zip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npm", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    concepts = {c.label: c for c in load_concepts(args.npm)}
    drawn: dict[str, dict] = {}
    for benchmark in BENCHMARKS:
        chosen = [concepts[name] for name in benchmark.classes]
        for style in benchmark.styles:
            have = drawn.setdefault(style, {})
            have.update(render_style(args.npm, style, [c for c in chosen if c.hexcode not in have], SIZE))
        path = args.out / f"{benchmark.name}.zip"
        count = write_zip(benchmark, chosen, drawn, path)
        print(f"{path.name}: {len(chosen)} classes, {count} images, {path.stat().st_size / 1e6:.2f} MB", flush=True)


def write_zip(benchmark: Benchmark, chosen: list[Concept], drawn: dict, path: Path) -> int:
    """Write images and `split.json` to a zip with fixed time stamps; returns the number of images."""
    split: dict[str, list] = {"train": [], "val": [], "test": []}
    temporary = path.with_suffix(".tmp")
    count = 0
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for label, concept in enumerate(chosen):
            for part, number in benchmark.images.items():
                for k in range(number):
                    style = benchmark.styles[k % len(benchmark.styles)]
                    name = f"{concept.label.replace(' ', '_')}/{part}_{k:02d}_{style}.webp"
                    add(archive, f"images/{name}", draw(benchmark, drawn[style][concept.hexcode], style, name))
                    split[part].append([name, label, concept.label])
                    count += 1
        add(archive, "split.json", json.dumps(split, separators=(",", ":")).encode())
    os.replace(temporary, path)
    return count


def draw(benchmark: Benchmark, drawing, style: str, name: str) -> bytes:
    """One WebP image."""
    seed = int.from_bytes(hashlib.sha256(f"{benchmark.name}/{name}".encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.from_numpy(drawing.copy()).permute(2, 0, 1)[None].float() / 255
    image, _ = compose(pixels, torch.tensor([style.endswith("high-contrast")]), generator, benchmark.strength)
    data = io.BytesIO()
    picture = Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy())
    picture.save(data, "WEBP", quality=QUALITY, method=6)
    return data.getvalue()


def add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, date_time=(2026, 1, 1, 0, 0, 0)), data)


if __name__ == "__main__":
    main()
