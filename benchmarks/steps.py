"""The timed steps of each case, by the naive reference and by ours, on the same random weights and inputs."""

import contextlib
import functools
import itertools
import math
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import deep
import numpy as np
import torch
from clip.clip import _tokenizer
from guided import guided
from reference import NaiveTextEncoder, encode_prompted_images, gradients, random_clip

from dspt_atlas.trainers.clip.prompted_clip import PromptedCLIP
from dspt_atlas.trainers.features.entry import CHUNK_BYTES, FORMAT
from dspt_atlas.trainers.features.store import FeatureStore
from dspt_atlas.trainers.learners.cocoop import CoCoOpPromptLearner
from dspt_atlas.trainers.learners.coop import CoOpPromptLearner
from dspt_atlas.trainers.learners.dept import DecoupledPromptLearner, RawPromptedCLIP
from dspt_atlas.trainers.learners.maple import MaPLePromptLearner

ROOT = Path(__file__).resolve().parents[1]
# Names of ImageNet have 1 to 6 tokens, most of them 1 to 3.
NAME_LENGTHS = (1, 1, 2, 2, 2, 3, 3, 4, 5, 6)
REFERENCE_BYTES_PER_CLASS = 40e6  # forward and backward at ViT-B/16's text size, measured with 100 classes
TEXT_ONLY = {"image_size": 32, "vision_layers": 1, "vision_width": 64, "patch": 16}
VIT_B_16 = {"image_size": 224, "vision_layers": 12, "vision_width": 768, "patch": 16}
TEXT_SIZE = {"text_width": 512, "text_layers": 12, "embed_dim": 512}
QUICK = {
    "image_size": 32,
    "vision_layers": 2,
    "vision_width": 64,
    "patch": 16,
    "text_width": 64,
    "text_layers": 2,
    "embed_dim": 64,
}


@dataclass
class Problem:
    """Weights, class names and size of a case. `quick`: tiny weights, to check that everything runs."""

    classes: int
    quick: bool = False
    batch: int = 1
    class_chunk: int = 0
    device: str = "cpu"

    def clip(self, with_images):
        sizes = QUICK if self.quick else {**(VIT_B_16 if with_images else TEXT_ONLY), **TEXT_SIZE}
        model = weights(tuple(sizes.items()), self.device)
        torch.manual_seed(1)
        return model, torch.randn(self.batch, 3, sizes["image_size"], sizes["image_size"]).to(self.device)

    def names(self):
        draw = random.Random(0)
        encoder = _tokenizer.encoder
        words = [word[:-4] for word in encoder if word.endswith("</w>") and word[:-4].isalpha() and len(word) > 7]
        words = [word for word in words[1000:8000] if len(_tokenizer.encode(word)) == 1]
        return [" ".join(draw.choices(words, k=draw.choice(NAME_LENGTHS))) for _ in range(self.classes)]

    def upstream(self, *shape):
        """A fixed gradient in place of a loss's gradient; it costs nothing on either side."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(self.device)


@functools.lru_cache(maxsize=1)
def weights(sizes, device):
    """The frozen model of a case, kept for the next one."""
    torch.manual_seed(0)
    return random_clip(**dict(sizes)).to(device)


def normalise(features):
    return features / features.norm(dim=-1, keepdim=True)


def kibibytes(table, key):
    """An entry of a table of Linux in bytes; Linux keeps it in KiB."""
    line = next(line for line in Path(table).read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def number_of_parts(problem):
    """The number of equal parts of the classes for the reference, because all may not fit into memory."""
    if problem.device == "cuda":
        available = 0.8 * torch.cuda.mem_get_info()[0]
    else:
        available = 0.6 * kibibytes("/proc/meminfo", "MemAvailable")
    return 1 if problem.quick else math.ceil(problem.classes * REFERENCE_BYTES_PER_CLASS / available)


def naive_encoders(model, learner, problem):
    """(slices of the classes, a naive encoder for each)."""
    size = math.ceil(problem.classes / number_of_parts(problem))
    slices = [slice(start, min(start + size, problem.classes)) for start in range(0, problem.classes, size)]
    return slices, [NaiveTextEncoder(model, learner.sequences[part]) for part in slices]


def text(side, problem):
    """Text tower, forward and backward, 16 context tokens."""
    model, _ = problem.clip(with_images=False)
    learner = CoOpPromptLearner(model, problem.names(), 16)
    upstream = problem.upstream(problem.classes, model.text_projection.shape[1])
    if side == "ours":
        slices, encoders = [slice(None)], [PromptedCLIP(model, learner, problem.class_chunk).text_encoder]
    else:
        slices, encoders = naive_encoders(model, learner, problem)

    def step():
        learner.zero_grad()
        for part, encoder in zip(slices, encoders, strict=True):
            (normalise(encoder(learner())[0]) * upstream[part]).sum().backward()
        return gradients(learner)

    step.parts = len(slices)
    return step


def coop(side, problem):
    """CoOp step on a batch of images; ours has their features cached."""
    model, images = problem.clip(with_images=True)
    learner = CoOpPromptLearner(model, problem.names(), 16)
    prompted, naive = PromptedCLIP(model, learner), NaiveTextEncoder(model, learner.sequences)
    features = prompted.encode_image(images)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.002)
    upstream = problem.upstream(problem.batch, problem.classes)

    def step():
        optimizer.zero_grad()
        if side == "ours":
            logits = prompted(features).logits
        else:
            with torch.no_grad():
                image_features = normalise(model.encode_image(images))
            logits = model.logit_scale.exp() * image_features @ normalise(naive(learner())[0]).t()
        (logits * upstream).sum().backward()
        gradient = gradients(learner)
        optimizer.step()
        return gradient

    return step


def cocoop(side, problem):
    """CoCoOp step with the image tower; the reference takes one image after another, as the family has to."""
    model, images = problem.clip(with_images=True)
    learner = CoCoOpPromptLearner(model, problem.names(), 4)
    prompted, naive = PromptedCLIP(model, learner), NaiveTextEncoder(model, learner.sequences)
    upstream = problem.upstream(problem.batch, problem.classes)

    def step():
        learner.zero_grad()
        if side == "ours":
            (prompted(images).logits * upstream).sum().backward()
            return gradients(learner)
        for image, weights in zip(images, upstream, strict=True):
            with torch.no_grad():
                feature = normalise(model.encode_image(image[None]))
            logits = model.logit_scale.exp() * normalise(naive(learner(feature))[0]) @ feature[0]
            (logits * weights).sum().backward()
        return gradients(learner)

    return step


def both_towers(make, side, problem):
    """MaPLe or IVLP step, both towers, prompts in 9 layers."""
    model, images = problem.clip(with_images=True)
    learner = make(model, problem.names(), depth=2 if problem.quick else 9)
    upstream = problem.upstream(problem.batch, problem.classes)
    prompted = PromptedCLIP(model, learner, problem.class_chunk)
    slices, encoders = ([], []) if side == "ours" else naive_encoders(model, learner, problem)

    def step():
        learner.zero_grad()
        if side == "ours":
            (prompted(images).logits * upstream).sum().backward()
            return gradients(learner)
        image_features = normalise(encode_prompted_images(model, images, learner()[2]))
        leaf = image_features.detach().requires_grad_()
        for part, encoder in zip(slices, encoders, strict=True):
            context, deep, _ = learner()
            logits = model.logit_scale.exp() * leaf @ normalise(encoder(context, deep)[0]).t()
            (logits * upstream[:, part]).sum().backward()
        image_features.backward(leaf.grad)
        return gradients(learner)

    step.parts = max(1, len(encoders))
    return step


def maple_learner(model, names, depth):
    return MaPLePromptLearner(model, names, 2, prompt_depth=depth)


maple, ivlp = (functools.partial(both_towers, make) for make in (maple_learner, deep.ivlp_learner))
vpt, vptimages = (functools.partial(deep.vpt, encodes_text) for encodes_text in (True, False))
promptsrc = deep.promptsrc


def dept(base, side, problem):
    """DePT step: the gradients of z and of the classifier's two rows per image; ours caches raw features if it can."""
    model, images = problem.clip(with_images=True)
    names, deep = problem.names(), base == "maple"
    if deep:
        prompts = MaPLePromptLearner(model, names, 2, prompt_depth=2 if problem.quick else 9)
    else:
        prompts = CoOpPromptLearner(model, names, {"coop": 16, "kgcoop": 4}[base])
    learner = DecoupledPromptLearner(prompts, names, model.text_projection.shape[1], problem.device)
    prompted, naive = RawPromptedCLIP(model, learner), NaiveTextEncoder(model, learner.sequences)
    label = torch.arange(problem.batch, device=problem.device) % problem.classes
    upstreams = [problem.upstream(rows * problem.batch, problem.classes) for rows in (1, 2)]
    fixed = normalise(problem.upstream(problem.classes, model.text_projection.shape[1]))  # KgCoOp's
    with torch.no_grad():
        inputs = prompted.encode_image(images) if side == "ours" and not deep else images

    def ours():
        output = prompted(inputs)
        logits = learner.classify(output.raw_image_features, output.raw_text_features[label])
        return output.logits, logits, output.text_features

    def reference():
        context, blocks, visual = learner() if deep else (learner(), (), ())
        image = encode_prompted_images(model, images, visual) if deep else model.encode_image(images)
        text = naive(context, blocks)[0]
        maps, head = (learner.film_lp_text, learner.film_lp_img), learner.linear_probe_proj
        rows = torch.cat([each.scale * x + each.bias for each, x in zip(maps, (text[label], image), strict=True)])
        logits = model.logit_scale.exp() * normalise(image) @ normalise(text).t()
        return logits, rows @ head.weight.t() + head.bias, normalise(text)

    def step():
        learner.zero_grad()
        *logits, text = (ours if side == "ours" else reference)()
        loss = torch.stack([(each * upstream).sum() for each, upstream in zip(logits, upstreams, strict=True)]).sum()
        (loss + (text * fixed).sum() if base == "kgcoop" else loss).backward()
        return gradients(learner)

    return step


deptcoop, deptkgcoop, deptmaple = (functools.partial(dept, base) for base in ("coop", "kgcoop", "maple"))


kgcoop, prograd, tcp = (functools.partial(guided, kind) for kind in ("kgcoop", "prograd", "tcp"))


@torch.no_grad()
def evaluation(side, problem):
    """Text side of an evaluation: 25 batches of features; the reference encodes the text again for each batch."""
    model, _ = problem.clip(with_images=False)
    learner = CoOpPromptLearner(model, problem.names(), 16)
    prompted, naive = PromptedCLIP(model, learner), NaiveTextEncoder(model, learner.sequences)
    batches = normalise(problem.upstream(25, problem.batch, model.text_projection.shape[1]))

    @torch.no_grad()
    def step():
        if side == "ours":
            with prompted.fixed_text():
                return torch.cat([prompted(batch).logits for batch in batches])
        return torch.cat([model.logit_scale.exp() * batch @ normalise(naive(learner())[0]).t() for batch in batches])

    return step


def limit(side, problem):
    """Text tower as in `text`; the reference does as many floating-point operations in large matrix products."""
    if side == "ours":
        return text("ours", problem)
    model, _ = problem.clip(with_images=False)
    learner = CoOpPromptLearner(model, problem.names(), 16)
    width, layers = model.transformer.width, model.transformer.layers
    needed = needed_operations([len(sequence) - 17 for sequence in learner.sequences], 17, width, layers)
    side_length = 256 if problem.quick else 2048
    matrix, size = torch.randn(side_length, side_length), 2 * side_length**3
    count = max(3, round(needed / size))

    def step():
        for _ in range(count):
            torch.mm(matrix, matrix)

    step.scale = needed / (count * size)
    return step


def needed_operations(own_lengths, prefix, width, layers):
    """Floating-point operations of forward and backward (to the inputs, the weights are frozen) that are really needed.

    Per layer and token there are 12 w² multiply-adds, and 2 w per key. In the last layer, queries and the following
    steps are needed for end tokens only.
    """
    own, classes = sum(own_lengths), len(own_lengths)
    keys = prefix * (prefix + 1) // 2 + sum(prefix * length + length * (length + 1) // 2 for length in own_lengths)
    inner = (layers - 1) * (12 * width**2 * (prefix + own) + 2 * width * keys)
    last = 2 * width**2 * (prefix + own) + classes * 10 * width**2 + 2 * width * (classes * prefix + own)
    constant = 3 * width**2 * own  # the first layer's projections of the names' tokens need no backward
    return 2 * (2 * (inner + last) - constant)


def cache_check(side, problem):
    """Cached features of 50 views, read from the disk; ours compares them with their checksum, too."""
    folder = tempfile.TemporaryDirectory(prefix="dspt-atlas-benchmark-")
    shape = (50, problem.classes, 1024)
    blocks = np.random.default_rng(0).random((2, *shape[1:]), np.float32)
    store = FeatureStore(folder.name)
    with contextlib.redirect_stdout(sys.stderr):  # standard output is the worker's
        store.get({"format": FORMAT}, shape, lambda first: (blocks[view % 2] for view in range(50)), max_bytes=2**40)
    (entry,) = store.entries()
    buffer = memoryview(bytearray(CHUNK_BYTES))

    def forget():
        with open(entry.array_path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def step():
        if side == "ours":
            entry.check()
        else:
            with open(entry.array_path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    step.prepare, step.folder = forget, folder
    return step


def sweep(side, problem):
    """12 runs of 20 epochs on the embedded benchmark, with their start-up; the reference caches nothing."""
    script = {"ours": ROOT / "train.py", "reference": ROOT / "benchmarks" / "naive_train.py"}[side]
    cache = {"ours": "features", "reference": "none"}[side]
    files = {"--config-file": "trainers/CoOp/emoji_rn_ep20.yaml", "--dataset-config-file": "datasets/emoji.yaml"}
    configs = [part for option, name in files.items() for part in (option, ROOT / "configs" / name)]
    keys = f"DATASET.NUM_SHOTS 16 DATASET.NOISE.RATE 0.5 INPUT.CACHE {cache} DATASET.NOISE.TYPE".split()
    seeds, epochs = ((1,), ["OPTIM.MAX_EPOCH", "1"]) if problem.quick else ((1, 2, 3), [])

    def step():
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "DSPT_ATLAS_CACHE": f"{folder}/cache"}  # empty: encoding the images counts
            for seed, noise, trainer in itertools.product(seeds, ("sym", "asym"), ("CoOp", "CoOpDSPT")):
                output = ["--output-dir", f"{folder}/{trainer}-{noise}-{seed}"]
                run = ["--trainer", trainer, "--seed", str(seed), *configs, *keys, noise, *epochs]
                command = [sys.executable, script, *output, *run]
                if subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL).returncode != 0:
                    sys.exit(f"The sweep's run {trainer} {noise} {seed} failed.")

    return step
