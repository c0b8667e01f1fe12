"""The cases of device.py: a device's numbers compared with a CPU's in fp32, and its speed."""

import contextlib
import functools
import gc
import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path

import device_backbones
import steps
import torch
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from reference import random_clip

from dspt_atlas.run.train import read_arguments

LEARNERS = {  # images per step
    **dict.fromkeys(("CoOp", "KgCoOp", "ProGrad", "TCP"), 32),
    "CoCoOp": 8,
    **dict.fromkeys(("MaPLe", "IVLP", "VPT", "PromptSRC", "DePTCoOp", "DePTKgCoOp", "DePTMaPLe"), 4),
}
CACHED = ("CoOp", "CoCoOp", "KgCoOp", "ProGrad", "TCP", "DePTCoOp")
METHODS = {"CE": "", "DSPT": "DSPT", "ATLaS": "ATLaS"}
# From fp32 on the CPU: greatest relative difference of logits (centred in each row) and losses, and of the gradient's
# direction. fp16 and amp are the same here, autocast with a scaled loss; a GPU's convolutions round to 11 bits in fp32
# too.
DIRECTION = "1 - cosine"
TOLERANCES = {
    "fp32": {"logits": 5e-3, "loss": 2e-3, DIRECTION: 1e-3},
    "fp16": {"logits": 0.03, "loss": 0.01, DIRECTION: 0.01},
    "amp": {"logits": 0.03, "loss": 0.01, DIRECTION: 0.01},
    "bf16": {"logits": 0.25, "loss": 0.05, DIRECTION: 0.25},
}
MOST_SKIPS = 16  # after so many halvings, a scale of 65,536 is 1


@dataclass
class Machine:
    """Settings of cases: `device` cuda or cpu; `folder` for weights and runs; `is_tiny`: only a check that they run."""

    device: str
    folder: Path
    is_tiny: bool = False

    def backbone(self):
        """Name of random weights of ViT-B/16's size, made once; CLIP's own scale of 100."""
        path = self.folder / "random_vit.pt"
        if not path.exists():
            torch.manual_seed(0)
            model = random_clip(**(steps.QUICK if self.is_tiny else {**steps.VIT_B_16, **steps.TEXT_SIZE}))
            model.logit_scale.fill_(math.log(100))
            torch.save(model.state_dict(), path)
        return f"openai:{path}"

    def trainer(self, learner, method, run, *pairs, on_cpu=False, precision="fp32", backbone=None):
        """A trainer on the embedded emoji, 1 image per class; `run` names its folder."""
        options = {
            "--dataset-config-file": steps.ROOT / "configs" / "datasets" / "emoji.yaml",
            "--trainer": learner + METHODS[method],
            "--backbone": backbone or self.backbone(),
            "--output-dir": self.folder / "runs" / run,
            "--seed": 1,
        }
        keys = {"DATASET.NUM_SHOTS": 1, "DATALOADER.NUM_WORKERS": 0, "OPTIM.LR": 0.02, "OPTIM.WARMUP_EPOCH": 0}
        keys |= {"DATALOADER.TRAIN_X.BATCH_SIZE": 8, "OPTIM.MAX_EPOCH": 4, "TEST.NO_TEST": True, "VERBOSE": False}
        keys |= {"USE_CUDA": self.device == "cuda" and not on_cpu, "TRAIN.CHECKPOINT_FREQ": 1}
        keys |= {"TRAINER.ATLAS.SOFT_LABELS": "csl"} if METHODS[method] == "ATLaS" else {}
        deep = {"IVLP": ("TEXT", "VISION"), "PromptSRC": ("TEXT", "VISION"), "VPT": ("VISION",)}.get(learner, ())
        depths = [f"TRAINER.{learner.upper()}.PROMPT_DEPTH_{tower}" for tower in deep]
        depths += ["TRAINER.MAPLE.PROMPT_DEPTH"] if learner.endswith("MaPLe") else []
        keys |= dict.fromkeys(depths, 2 if self.is_tiny else 9)
        # From the hand-written words, KgCoOp's term has no gradient at first, only that of rounding.
        keys |= {"TRAINER.KGCOOP.CTX_INIT": ""} if learner.endswith("KgCoOp") else {}
        keys |= {"TRAINER.TCP.BLOCK": 1 if self.is_tiny else 8} if learner == "TCP" else {}
        words = [str(part) for pair in (*options.items(), *keys.items()) for part in pair]
        cfg, _ = read_arguments([*words, *map(str, pairs)])
        set_random_seed(cfg.SEED)
        trainer = build_trainer(cfg)
        trainer._use_precision(precision)  # on a CPU only fp32 is allowed; the test of this file avoids that
        return trainer

    def synchronise(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def reset_peak(self):
        """Forget the peak; return the bytes in use, None on a CPU."""
        gc.collect()
        if self.device != "cuda":
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def autocast(self, precision):
        if precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def relative(result, expected):
    """Greatest difference, relative to the greatest expected size."""
    result, expected = (value.detach().double().cpu() for value in (result, expected))
    return ((result - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


def centred(logits):
    """Logits without their mean over the classes, which does not change the softmax."""
    return logits.double().cpu() - logits.double().cpu().mean(dim=1, keepdim=True)


def take_step(trainer, batch, number):
    """One step of a trainer, the second and fourth in an ATLaS epoch of soft labels: logits, loss, gradient, skips."""
    trainer.epoch, trainer.num_batches, trainer.batch_idx = number % 2, 1000, number
    trainer.before_epoch()
    seen, loss = {}, type(trainer).label_loss

    def kept(output, batch, criterion):
        seen["logits"], seen["loss"] = output.logits.detach(), loss(trainer, output, batch, criterion)
        return seen["loss"]

    trainer.label_loss = kept
    before, skips = prompts_of(trainer), -1
    while skips < MOST_SKIPS:
        skips += 1
        trainer.model.prompt_learner.load_state_dict(before)
        trainer.forward_backward(batch)
        gradient = steps.gradients(trainer.model.prompt_learner)
        if gradient.isfinite().all():
            break
    return {**seen, "gradient": gradient, "skips": skips}


def prompts_of(trainer):
    """A copy of the prompts."""
    return {name: value.clone() for name, value in trainer.model.prompt_learner.state_dict().items()}


def direction(result, expected):
    """1 - cosine of two gradients."""
    pair = (value.detach().double().cpu().flatten() for value in (result, expected))
    return 1 - torch.cosine_similarity(*pair, dim=0).item()


def is_within(row, precision):
    """Whether the values of a row are within the tolerances."""
    return all(row[key] <= limit for key, limit in TOLERANCES[precision].items() if key in row)


def reference_steps(machine, learner, method, run="", count=4, **options):
    """Steps in fp32 on the CPU: [(prompts before, batch, result of take_step)]."""
    trainer = machine.trainer(learner, method, f"{run or learner + '-' + method}-cpu", on_cpu=True, **options)
    trainer.before_train()
    records = []
    for number, batch in enumerate(itertools.islice(iter(trainer.train_loader_x), count)):
        records.append((prompts_of(trainer), batch, take_step(trainer, batch, number)))
    return records


def precision_case(machine, learner, method):
    """Steps in each precision, from the same prompts and on the same batches as fp32 on the CPU."""
    expected = reference_steps(machine, learner, method)
    trainer = machine.trainer(learner, method, f"{learner}-{method}")
    for row in compared_steps(trainer, expected):
        yield {"learner": learner, "method": method, **row}


def backbone_case(machine, name, learner):
    """The same with DSPT and another backbone."""
    backbone = device_backbones.backbone(name, machine.folder, machine.is_tiny)
    options = {"run": f"{name}-{learner}", "backbone": backbone}
    expected = reference_steps(machine, learner, "DSPT", count=2, **options)
    trainer = machine.trainer(learner, "DSPT", f"{name}-{learner}", backbone=backbone)
    for row in compared_steps(trainer, expected):
        yield {"backbone": name, "learner": learner, **row}


def compared_steps(trainer, expected):
    """A row per precision: the worst difference of the steps from those of `reference_steps`."""
    trainer.before_train()
    for precision in TOLERANCES:
        trainer._use_precision(precision)
        worst, skips = {"logits": 0.0, "loss": 0.0, DIRECTION: 0.0}, 0
        for number, (before, batch, right) in enumerate(expected):
            trainer.model.prompt_learner.load_state_dict(before)
            found = take_step(trainer, batch, number)
            step = {
                "logits": relative(centred(found["logits"]), centred(right["logits"])),
                "loss": relative(found["loss"], right["loss"]),
                DIRECTION: direction(found["gradient"], right["gradient"]),
            }
            worst, skips = {key: max(worst[key], step[key]) for key in worst}, skips + found["skips"]
        yield {"precision": precision, **worst, "skipped steps": skips, "ok": is_within(worst, precision)}


class Stopped(Exception):
    """The end of a training that resumes later."""


def finished_prompts(trainer, stop_after=None):
    """Train, or stop before epoch `stop_after` (from 0) begins; the prompts at the end."""
    before_epoch = trainer.before_epoch

    def checked():
        if trainer.epoch == stop_after:
            raise Stopped
        before_epoch()

    trainer.before_epoch = checked
    with contextlib.suppress(Stopped):
        trainer.train()
    return torch.cat([value.detach().flatten().float().cpu() for value in trainer.model.prompt_learner.parameters()])


def resume_case(machine, learner, precision):
    """Four epochs, the same again, and the same with a stop after two: how far the prompts are apart at the end."""

    def run(name, stop_after=None):
        trainer = machine.trainer(learner, "ATLaS", f"resume-{learner}-{precision}-{name}", precision=precision)
        return finished_prompts(trainer, stop_after)

    whole, again = run("whole"), run("again")
    halfway = run("resumed", stop_after=2)
    resumed = run("resumed")
    apart = {"same again": relative(again, whole), "resumed": relative(resumed, whole)}
    yield {
        "learner": learner,
        "precision": precision,
        **apart,
        "bit for bit": bool(torch.equal(resumed, whole)),
        "stopped halfway": relative(halfway, whole),
        # A GPU does not fix the order of sums, so runs may differ, resumed or not.
        "ok": apart["resumed"] <= max(1e-5, 10 * apart["same again"]) and relative(halfway, whole) > 0,
    }


def cache_case(machine, learner, precision):
    """Two epochs from images and from cached features, which are encoded in fp32 at every precision."""
    found, losses, seconds = {}, {}, {}
    for cache in ("none", "features"):
        pairs = ("INPUT.CACHE", cache, "OPTIM.MAX_EPOCH", 2)
        trainer = machine.trainer(learner, "CE", f"cache-{learner}-{precision}-{cache}", *pairs, precision=precision)
        machine.synchronise()
        start = time.perf_counter()
        found[cache] = finished_prompts(trainer)
        machine.synchronise()
        seconds[cache] = time.perf_counter() - start
        losses[cache] = torch.tensor([epoch["train_loss"] for epoch in trainer.report["history"]])
    row = {"loss": relative(losses["features"], losses["none"]), "prompts": relative(found["features"], found["none"])}
    yield {
        "learner": learner,
        "precision": precision,
        **row,
        **{f"seconds, {what}": seconds[cache] for cache, what in (("none", "images"), ("features", "features"))},
        "ok": is_within(row, precision),
    }


def timed(machine, step, seconds=1.0, most=20):
    """Median seconds of a step; two before it are not counted."""
    for _ in range(2):
        result = step()
    machine.synchronise()
    taken, begin = [], time.perf_counter()
    while len(taken) < most and (not taken or time.perf_counter() - begin < seconds):
        start = time.perf_counter()
        step()
        machine.synchronise()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2], result


def speed_case(machine, learner, classes, precision):
    """One step at 77 positions per class and one with the shared prefix: seconds and peak memory beyond the weights."""
    batch = LEARNERS[learner]
    problem = steps.Problem(classes, machine.is_tiny, batch, device=machine.device)
    row = {"learner": learner, "classes": classes, "batch": batch, "precision": precision}
    results = {}
    for side in ("ours", "reference"):
        step = getattr(steps, learner.lower())(side, problem)
        base = machine.reset_peak()
        try:
            with machine.autocast(precision):
                row[f"ms, {side}"], results[side] = timed(machine, step, seconds=0.2 if machine.is_tiny else 1.0)
            row[f"ms, {side}"] *= 1000
        except torch.cuda.OutOfMemoryError:
            row[f"ms, {side}"] = None
        if base is not None:
            row[f"MiB, {side}"] = (torch.cuda.max_memory_allocated() - base) / 2**20
        del step
    if row["ms, reference"] and row["ms, ours"]:
        row["ratio"] = row["ms, reference"] / row["ms, ours"]
        row[DIRECTION] = direction(results["ours"], results["reference"])
    yield {**row, "ok": "ours" in results and is_within(row, precision)}


def all_cases(machine):
    """[(stage, name, function without arguments that yields rows)], the most important first."""
    precisions, classes = (("fp32",), (12,)) if machine.is_tiny else (("fp16", "fp32"), (100, 1000))
    pairs = zip(LEARNERS, itertools.cycle(METHODS)) if machine.is_tiny else itertools.product(LEARNERS, METHODS)
    backbones = device_backbones.TINY if machine.is_tiny else device_backbones.BACKBONES
    backbones = [name for name in backbones if not device_backbones.missing_packages(name)]
    others = [(name, "CoOp") for name in backbones]
    others += [(name, "MaPLe") for name in backbones if name in device_backbones.WITH_VISUAL_PROMPTS]
    plan = [
        ("precision", precision_case, pairs),
        ("backbones", backbone_case, others),
        ("resume", resume_case, itertools.product(LEARNERS, precisions[:1])),
        ("cache", cache_case, itertools.product(CACHED, precisions)),
        ("speed", speed_case, ((name, count, prec) for count in classes for prec in precisions for name in LEARNERS)),
        ("resume", resume_case, itertools.product(LEARNERS, precisions[1:])),
    ]
    return [
        (stage, " ".join(map(str, settings)), functools.partial(case, machine, *settings))
        for stage, case, choices in plan
        for settings in choices
    ]
