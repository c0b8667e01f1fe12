"""Class names as CLIP reads them in prompts."""

from __future__ import annotations

import functools
from collections import defaultdict

import clip.clip

from dspt_atlas.datasets.noise import clean_name
from dspt_atlas.errors import UserError
from dspt_atlas.paths import is_utf8

REPEATING = (
    "ImageNet",
)  # in its published list, and in data sets derived from it, two pairs of classes have the same name
SHOWN = 3


def tokenize(text):
    """Token ids of a text by CLIP's own tokenizer, without start and end token."""
    return clip.clip._tokenizer.encode(text)


def class_text(classname):
    """Return a class name as prompts hold it, with spaces for underscores."""
    return classname.replace("_", " ")


def prompt_names(dataset):
    """Return the class names of a data set as its prompts say them: those of `prompt_words`, where it has some."""
    words = getattr(dataset, "prompt_words", {})
    return [words.get(name, name) for name in dataset.classnames]


def check_prompts(names, dataset):
    """Check by tokens that every class of {label: class name} has its own prompt; `dataset` is the name of the data.

    Raises UserError for a name without a token, and for classes with the same prompt. Those of ImageNet's published
    list are only printed, because its accuracy is published with them.
    """
    labels = defaultdict(list)
    for label, name in sorted(names.items()):
        if not is_utf8(name):
            raise UserError(
                f"{dataset}: the class name {name!r} is not UTF-8 text: rename it, or set PYTHONUTF8=1 if it is"
            )
        if not tokenize(class_text(name)):
            raise UserError(f"{dataset}: label {label} has an empty class name, but prompts are made of class names")
        labels[tuple(tokenize(class_text(name) + "."))].append(label)
    alike = [
        f'{group[0]} "{names[group[0]]}" and {label} "{names[label]}"'
        for group in labels.values()
        for label in group[1:]
    ]
    if not alike:
        return
    listed = first_of(alike, SHOWN)
    if clean_name(dataset).startswith(REPEATING):
        say(f"{dataset}: the classes {listed} have the same prompt, as in the published list, and cannot be told apart")
        return
    raise UserError(
        f"{dataset}: the classes {listed} have the same prompt (CLIP's tokenizer ignores case, spaces, HTML "
        "entities and the way to write an accent): rename one of them, or make them one class"
    )


def first_of(names, most):
    """Return the first names of a list in words, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@functools.cache  # lists are read several times in a run
def say(sentence):
    """Print a sentence once in a process."""
    print(sentence)
