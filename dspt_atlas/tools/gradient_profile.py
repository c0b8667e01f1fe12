"""Gradients of each training sample by the logits and by the prompt, under every loss."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch

from dspt_atlas.errors import UserError
from dspt_atlas.report.figures.curves import SUMMARY_FILE
from dspt_atlas.report.figures.gradients import PROFILE_FILE
from dspt_atlas.results.cells import write_csv
from dspt_atlas.run.records import checkpoint_epochs
from dspt_atlas.run.trained import open_run, quiet
from dspt_atlas.seeds import derive_seed
from dspt_atlas.trainers.gradients import LOSSES, logit_gradient_norms, prompt_gradients
from dspt_atlas.trainers.monitor import gradient_summary
from dspt_atlas.trainers.trainer import PromptTrainer

SAMPLE_COLUMNS = ("epoch", "loss", "index", "given", "clean", "wrong", "p_y", "logit_norm", "prompt_norm")
SUMMARY_COLUMNS = (
    "epoch", "loss", "logit_right", "logit_wrong", "logit_wrong_share", "prompt_right", "prompt_wrong",
    "prompt_wrong_share", "update_wrong_share", "update_cosine",
)  # fmt: skip


def profile_run(folder: Path, samples: int = 256, root: str = "") -> list[list]:
    """Profile every checkpoint of a run under each of `LOSSES`; write and return the summary.

    At most so many training samples are drawn by the run's seed; they get the test transform. gradient_profile.csv has
    a row per sample. gradient_summary.csv has a row per epoch and loss, with mean norms of right and wrong labels and
    the share of wrong labels in the sum, by logits and by prompt. For the prompt's whole update it has |G_wrong| /
    (|G_right| + |G_wrong|) and the cosine between both. Raises UserError for a run without prompts.
    """
    trainer = open_run(folder, root=root, prompts=False)
    if not isinstance(trainer, PromptTrainer):
        raise UserError(f"{folder} learned no prompts ({trainer.cfg.TRAINER.NAME}): there is no gradient to profile.")
    epochs = checkpoint_epochs(folder, trainer.model_name)
    if not epochs:
        raise UserError(f"There are no checkpoints in {Path(folder) / trainer.model_name}: train the run first.")
    rows, summary = [], []
    with quiet():
        data = _samples(trainer, samples)
        for epoch in epochs:
            trainer.load_model(str(folder), epoch=epoch)
            for loss, values, shares in _profile(trainer, *data):
                rows += [[epoch, loss, *value] for value in values]
                summary.append([epoch, loss, *shares])
    write_csv(Path(folder) / PROFILE_FILE, SAMPLE_COLUMNS, rows)
    write_csv(Path(folder) / SUMMARY_FILE, SUMMARY_COLUMNS, summary)
    return summary


def _samples(trainer, count):
    """Return index (N,), inputs, given and clean labels (N,) of training samples."""
    items = trainer.dm.dataset.train_x
    generator = random.Random(derive_seed(max(trainer.cfg.SEED, 0), "gradient profile"))
    chosen = sorted(generator.sample(range(len(items)), min(count, len(items))))
    given = torch.tensor([items[i].label for i in chosen])
    noise = getattr(trainer.dm.dataset, "noise", None)
    clean = given if noise is None else torch.tensor(noise.clean)[chosen]
    inputs = torch.cat([batch["img"] for batch in trainer.items_loader([items[i] for i in chosen])])
    return chosen, inputs, given, clean


def _profile(trainer, chosen, inputs, given, clean):
    """Yield each loss's name, its samples' values, and its shares, with the current prompts."""
    wrong = given != clean
    logits, norms, updates = _gradients(trainer, inputs, given, wrong)
    p_y = logits.softmax(dim=1).gather(1, given[:, None])[:, 0]
    known = [chosen, given.tolist(), clean.tolist(), wrong.int().tolist(), p_y.tolist()]
    by_loss = zip(LOSSES, logit_gradient_norms(logits, given), norms, updates, strict=True)
    for loss, by_logits, by_prompt, update in by_loss:
        values = zip(*known, by_logits.tolist(), by_prompt.tolist(), strict=True)
        yield loss, values, _shares(by_logits, by_prompt, update, wrong)


def _gradients(trainer, inputs, given, wrong):
    """Return logits (N, C), norms (4, N) and sums (4, 2, P); one sample at a time if each has its own prompts."""
    learner = trainer.model.prompt_learner
    size = 1 if learner.conditional or learner.prompts_images else len(inputs)
    parts = []
    trainer.set_model_mode("eval")
    for start in range(0, len(inputs), size):
        batch = [part[start : start + size].to(trainer.device) for part in (inputs, given, wrong)]
        with trainer.autocast():
            parts.append([part.float().cpu() for part in prompt_gradients(trainer.model, *batch)])
    logits, norms, sums = zip(*parts, strict=True)
    return torch.cat(logits), torch.cat(norms, dim=1), torch.stack(sums).sum(dim=0)


def _shares(by_logits, by_prompt, update, wrong) -> Iterator[float | None]:
    counts = [int((~wrong).sum()), int(wrong.sum())]
    for norms in (by_logits, by_prompt):
        yield from gradient_summary([norms[~wrong].sum().item(), norms[wrong].sum().item()], counts).values()
    right_norm, wrong_norm = update.norm(dim=1).tolist()
    product = right_norm * wrong_norm
    yield wrong_norm / (right_norm + wrong_norm) if counts[1] and right_norm + wrong_norm else None
    yield (update[0] @ update[1]).item() / product if product else None
