"""Configuration keys and options that cannot have an effect in a run: the user is told before anything is done.

Keys on the command line are refused, because they are meant for this run. Keys in a yaml are named in one line. One
yaml is used for several runs, so keys of other trainers are not named, and keys of training neither if nothing is
trained.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from dspt_atlas import register_standard
from dspt_atlas.config.needs import Run, is_of_learner, is_of_method, is_ours, nodes_of
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import KEYS, Need, needs_training, node_of
from dspt_atlas.trainers.learners.coop import WordsLearned
from dspt_atlas.trainers.learners.prompts import context_length
from dspt_atlas.trainers.zeroshot import ZeroshotCLIP

_said: set[str] = set()


def check_effect(run: Run) -> None:
    """Raise UserError for given keys and options that have no effect or contradict the run; print those of a yaml."""
    if not run.before:  # a finished run is only read
        _check_options(run)
        _check_noise(run)
        _check_data(run)
    judged = {*_check_trainer(run), *_check_zero_shot(run), *_check_evaluation(run)}
    notes = [*_context_length_notes(run), *_zero_shot_notes(run)]
    for need, keys in _given_by_need(run, judged):
        if need.has_effect(run):
            continue
        if refused := [key for key in keys if key in run.command]:
            raise UserError(
                f"{_shown(run, refused)} has no effect in this run: it needs {need.words}; leave it out, or set what "
                "it needs."
            )
        notes.append(f"{_shown(run, keys)} of a yaml has no effect in this run: it needs {need.words}.")
    if run.is_data("EmbeddedDataset") and run.given("DATASET.ROOT") and run.cfg.DATASET.ROOT:
        notes.append(f"DATASET.ROOT has no effect with {run.dataset.__name__}: its images come with the package.")
    for note in notes:
        say(note)


def _given_by_need(run, judged) -> list[tuple[Need, list[str]]]:
    """Return {need: given keys}, for keys that are not judged yet and not switched off."""
    found: dict[str, tuple[Need, list[str]]] = {}
    given = {*run.given("*")}.difference(judged)
    for key in KEYS.values():
        if key.name in given and key.node in ("", *run.nodes) and not run.is_off(key.name):
            for need in key.needs:
                found.setdefault(need.words, (need, []))[1].append(key.name)
    return [(need, sorted(keys)) for need, keys in found.values()]


def _check_options(run):
    options = run.options
    alone = [
        f"--{name.replace('_', '-')}" for name in ("model_dir", "load_epoch") if options.get(name) not in (None, "")
    ]
    if alone and not run.is_evaluation:
        raise UserError(f"{' and '.join(alone)} has no effect without --eval-only: add that, or leave it out to train.")
    if run.is_evaluation and options.get("no_train"):
        raise UserError("--no-train has no effect with --eval-only, which trains nothing: use one of the two.")


def _check_noise(run):
    noise = run.cfg.DATASET.NOISE
    if not run.has_noise and noise.RATE > 0:
        raise UserError(
            f"DATASET.NOISE.RATE is {noise.RATE}, but without DATASET.NOISE.TYPE all labels stay right: set it to sym, "
            "asym, symflip or pairflip, or leave out the rate."
        )
    if noise.MATRIX and noise.TYPE != "none":
        raise UserError(
            f"DATASET.NOISE.MATRIX and DATASET.NOISE.TYPE {noise.TYPE} both say how labels become wrong: give one."
        )
    has_rate = noise.FILE or noise.WRONG or "DATASET.NOISE.RATE" in run.command | run.files | run.before
    if noise.TYPE != "none" and not has_rate:
        raise UserError(
            f"DATASET.NOISE.TYPE is {noise.TYPE}, but without DATASET.NOISE.RATE all labels stay right: set a rate, "
            "such as 0.5, or leave out the type."
        )
    if run.has_noise and not isinstance(DATASET_REGISTRY.get(run.cfg.DATASET.NAME), type):
        raise UserError(
            f"DATASET.NOISE needs a data set that is a class, but {run.cfg.DATASET.NAME} is registered as a function: "
            "register a class, or set DATASET.NOISE.TYPE none."
        )


def _check_data(run):
    is_tested_only = run.is_evaluation or run.is_zero_shot or run.options.get("no_train")
    if getattr(run.dataset, "test_only", False) and run.trainer is not None and not is_tested_only:
        raise UserError(
            f"{run.dataset.__name__} has only test images, so nothing can be trained: test a trained model on it by "
            "--eval-only and --model-dir."
        )


def _check_trainer(run) -> list[str]:
    """Return the keys of other trainers; refuse those of the command line, except learners' with zero-shot CLIP."""
    keys = [key for key in run.given("TRAINER.*.*") if run.trainer is not None and not uses(run.trainer, key)]
    refused = [key for key in keys if not (run.is_zero_shot and is_of_learner(key))]
    _refuse_given(run, refused, f"the trainer {run.cfg.TRAINER.NAME}, which does not read it")
    return keys


def _zero_shot_notes(run) -> list[str]:
    """Return a note on keys of a prompt learner for zero-shot CLIP, which the family's scripts give."""
    if not run.is_zero_shot:
        return []
    keys = [key for key in filter(is_of_learner, run.given("*")) if key in run.command and not run.is_off(key)]
    options = ["load_epoch"] if run.options.get("load_epoch") is not None else []  # protocols pass --model-dir to all
    words = [*keys, *(f"--{name.replace('_', '-')}" for name in options)]
    return [f"{', '.join(words)} has no effect with {run.cfg.TRAINER.NAME}, which learns nothing."] if words else []


def _check_zero_shot(run) -> list[str]:
    """Return the keys of training if nothing is learned; refuse those of the command line."""
    keys = list(filter(needs_training, run.given("*"))) if run.is_zero_shot else []
    return _refuse_given(run, keys, f"{run.cfg.TRAINER.NAME}, which learns nothing")


def _refuse_given(run, keys, what):
    if refused := [key for key in keys if key in run.command and not run.is_off(key)]:
        raise UserError(f"{_shown(run, refused)} has no effect with {what}: leave it out, or give another --trainer.")
    return keys


def _check_evaluation(run) -> list[str]:
    """Return the keys of training in a run that only tests; refuse those that differ from its training's."""
    if not run.is_evaluation or run.is_zero_shot:
        return []
    noise = run.given("DATASET.NOISE.*")
    keys = [key for key in run.given("*") if needs_training(key) or is_of_method(key) or key in noise]
    if (trained := run.trained) is None:
        return keys
    for key in keys:
        asked, found = run.value(key), trained.get(key)
        if key in run.command and not run.is_off(key) and asked != found:
            known = f"the training had {found!r}" if key in trained else "nothing is trained"
            raise UserError(f"{key} {asked!r} has no effect with --eval-only, because {known}: leave it out.")
    return keys


def _context_length_notes(run) -> list[str]:
    """Return a note if the words of CTX_INIT override the number of context vectors, as in the family's commands."""
    node = getattr(run.trainer, "config_node", "")
    if run.trainer is None or not issubclass(run.trainer, WordsLearned) or not run.cfg.TRAINER[node].CTX_INIT:
        return []
    key, words = f"TRAINER.{node}.N_CTX", run.cfg.TRAINER[node].CTX_INIT
    learned = context_length(words, 0)
    if not run.given(key) or run.value(key) == learned:
        return []
    return [f'{key} {run.value(key)} has no effect: {learned} vectors are learned, one per word of CTX_INIT "{words}".']


def uses(trainer: type, key: str) -> bool:
    """Return whether our trainer can depend on a key.

    It does not depend on other trainers' keys, nor on keys of training if it learns nothing.
    """
    node = node_of(key)
    if not node:
        return not (issubclass(trainer, ZeroshotCLIP) and needs_training(key))
    others = {*get_cfg_default().TRAINER, *(declared.node for declared in KEYS.values())}
    return node in nodes_of(trainer) or node not in others


@functools.cache
def reads(name: str | None, key: str) -> bool:
    """Return whether a run of a trainer, by its name, can depend on a key; other people's trainers read every key."""
    register_standard()
    trainer = TRAINER_REGISTRY.get(name) if name in TRAINER_REGISTRY.registered_names() else None
    return not is_ours(trainer) or uses(trainer, key)


def used_pairs(name: str, pairs: Sequence[str]) -> tuple[str, ...]:
    """Return those of the shared KEY VALUE pairs that one of these trainers uses."""
    register_standard()
    trainer = TRAINER_REGISTRY.get(name)
    if not is_ours(trainer):
        return tuple(pairs)
    both = zip(pairs[::2], pairs[1::2], strict=True)
    return tuple(part for key, value in both if uses(trainer, key) for part in (key, value))


def check_shared(keys: Iterable[str], names: Iterable[str]) -> None:
    """Raise UserError for a key that no trainer of these names uses."""
    trainers = {name: TRAINER_REGISTRY.get(name) for name in names}
    for key in keys:
        if not any(not is_ours(trainer) or uses(trainer, key) for trainer in trainers.values()):
            raise UserError(
                f"{key} has no effect with {', '.join(trainers)}: leave it out, or give a trainer that reads it."
            )


def _shown(run, keys):
    return ", ".join(f"{key} {run.value(key)!r}" for key in keys)


def say(text: str) -> None:
    """Print a note once in a process, which may do many runs."""
    if text not in _said:
        _said.add(text)
        print(f"NOTE: {text}", file=sys.stderr)
