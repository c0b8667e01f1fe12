"""What the prompt learners share: the places of learned vectors in prompts, their initial values, and loading them."""

import hashlib

import torch
from torch import nn

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.towers import openais_tokenizer, text_width, tokenizer_of
from dspt_atlas.trainers.keys import MOST_WORDS

CONTEXT_OF_FLAG = {True: "a photo of a", False: ""}  # what a boolean CTX_INIT means in KgCoOp's fork and TCP's

WHOLE = "prompt_learner."  # the beginning of its keys in a file of a whole model
FROZEN = ("image_encoder.", "text_encoder.", "logit_scale")  # and of frozen parts, in which IVLP's vectors are VPT...
FROZEN_BELOW = ("token_prefix", "token_suffix", "ZS_image_encoder.")  # frozen parts below `prompt_learner.`


def context_words(node):
    """Return the words of a node's CTX_INIT; in some forks it is a boolean."""
    if not isinstance(node.CTX_INIT, bool):
        return node.CTX_INIT
    words = CONTEXT_OF_FLAG[node.CTX_INIT]
    start = f'as "{words}"' if words else "random"
    print(f"CTX_INIT is {node.CTX_INIT} in this fork: the context starts {start}")
    return words


def prompt_sequences(classnames, n_ctx, class_token_position="end", csc=False, words=(), ending=".", tokenizer=None):
    """Tokens of `[context] [name][ending]` per class, for the text encoder, by OpenAI's tokenizer or another one.

    `words`: tokens; the context takes the places of the first n_ctx. Further tokens stay fixed before the name. If
    there are fewer, the context also takes places of the name, as in the family's code. Raises UserError if a prompt is
    too long or nothing of a name is left.
    """
    tokenizer = tokenizer or openais_tokenizer()
    is_first = class_token_position == "front" or not (n_ctx or words)
    tokenize = tokenizer.encode if is_first else tokenizer.following
    _check_told_apart([name.replace("_", " ") for name in classnames], tokenizer)
    sequences, too_long, hidden = [], [], []
    for index, name in enumerate(classnames):
        name = name.replace("_", " ")
        name_tokens, length = tokenize(name + ending), len(tokenize(name))
        rest = [*words, *name_tokens][n_ctx:] if words else name_tokens
        first = index * n_ctx if csc else 0
        context = [-1 - first - slot for slot in range(n_ctx)]
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[class_token_position]
        split = len(rest) if class_token_position == "end" else length
        own = [*context[:before], *rest[:split], *context[before:], *rest[split:]]
        sequence = [*tokenizer.start, *own, *tokenizer.end]
        sequences.append(sequence)
        if len(sequence) > tokenizer.context_length:
            too_long.append(f"'{name}' ({len(name_tokens)} tokens)")
        if words and n_ctx - len(words) >= length:
            hidden.append(f"'{name}' ({length} {'token' if length == 1 else 'tokens'})")
    if too_long:
        raise UserError(
            f"Expected class names that fit into CLIP's {tokenizer.context_length} positions with "
            f"{max(n_ctx, len(words))} context tokens, got {_listed(too_long)}: shorten the names or the context "
            "(N_CTX, CTX_INIT)."
        )
    if hidden:
        raise UserError(
            f"Expected class names of more than {n_ctx - len(words)} tokens, because N_CTX is {n_ctx}, CTX_INIT has "
            f"{len(words)} and the context takes the place of the others, got {_listed(hidden)}: lower N_CTX, lengthen "
            'CTX_INIT, or set it to "" for a random context before the name.'
        )
    return sequences


def _check_told_apart(names, tokenizer):
    """Say which classes have the tokens of another one; raises UserError for a name without any.

    The data sets have checked it by OpenAI's tokenizer; others drop punctuation (SigLIP) or have fewer words.
    """
    if tokenizer.encode is openais_tokenizer().encode:
        return
    found = {}
    for name in names:
        if not (tokens := tuple(tokenizer.encode(name))):
            raise UserError(f"Expected class names of which the backbone's tokenizer leaves something, got '{name}'.")
        found.setdefault(tokens, []).append(name)
    if alike := [" and ".join(group) for group in found.values() if len(group) > 1]:
        print(f"By the backbone's tokenizer these classes have one name and cannot be told apart: {_listed(alike)}")


def _listed(names):
    return f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"


class OtherClassesError(UserError):
    """A class-specific context was learned for other classes, or for these in another order."""


def load_prompts(prompt_learner, state_dict):
    """Load learned prompts, also from the CoOp family's files, whose frozen parts are ignored.

    Entries that start as one of the learner's `unused` are ignored too: the authors' code saves them, and nothing
    depends on them. A learner's `entries`, if it has them, take a whole checkpoint.
    Raises UserError with every key that is missing, left over or of another shape, and OtherClassesError for a
    class-specific context of other classes.
    """
    if hasattr(prompt_learner, "entries"):
        given = prompt_learner.entries(state_dict)
    else:
        given = learned_entries(state_dict, getattr(prompt_learner, "unused", ()))
    own = prompt_learner.state_dict()
    if (classes := next((key for key in own if key.endswith("ctx_classes")), None)) is not None:
        _check_classes(own, given, classes)
        given.setdefault(classes, own[classes])  # the family's files do not say which classes
    problems = [f"missing {key}" for key in own if key not in given]
    problems += [f"left over {key}" for key in given if key not in own]
    problems += [
        f"{key} of shape {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    problems += [
        f"{key} of type {given[key].dtype} instead of {own[key].dtype}"
        for key in own
        if key in given and given[key].is_floating_point() != own[key].is_floating_point()
    ]
    if problems:
        raise UserError(
            f"Expected prompts of a {type(prompt_learner).__name__} with the same settings, but the file does not "
            f"fit: {'; '.join(problems)}."
        )
    prompt_learner.load_state_dict(given)


def learned_entries(state_dict, unused=()):
    """Return a checkpoint's entries of a prompt learner, also of the family's, without frozen and `unused` ones."""
    learned = {}
    for key, value in state_dict.items():
        name, is_vector = key.removeprefix(WHOLE), key.rpartition(".")[2].startswith("VPT")
        if (is_vector or not key.startswith(FROZEN)) and not name.startswith((*FROZEN_BELOW, *unused)):
            learned[name] = value
    return learned


def _check_classes(own, given, classes):
    key = classes.removesuffix("_classes")
    context, digest = given.get(key), given.get(classes, own[classes])
    other = context is not None and context.dim() == 3 and len(context) != len(own[key])
    if other or not torch.equal(digest.cpu(), own[classes].cpu()):
        raise OtherClassesError(
            "Expected a class-specific context (CSC) of the same classes in the same order, but it was learned for "
            "others, or for these in another order, and means nothing here: evaluate it on its own classes, or train "
            "without CSC."
        )


def class_digest(classnames):
    return torch.tensor(list(hashlib.sha256("\n".join(classnames).encode()).digest()), dtype=torch.uint8)


def tokens_of_context(text, tokenizer=None):
    tokens = (tokenizer or openais_tokenizer()).encode(text.replace("_", " "))
    if not tokens:
        raise UserError(f'Expected CTX_INIT with at least one word, or "" for a random context, got {text!r}.')
    return tokens


def words_of_context(text, n_ctx, tokenizer=None):
    """Tokens of an initial context, and how many are learned: as many as it has words (CoOp, CoCoOp)."""
    return tokens_of_context(text, tokenizer) if text else [], context_length(text, n_ctx)


def context_length(text, n_ctx):
    """Return the number of context vectors of CoOp and CoCoOp: the words of the initial text, or n_ctx without one."""
    return len(text.replace("_", " ").split()) if text else n_ctx


def has_words_of_several_tokens(text):
    """Whether an initial context of CoOp and CoCoOp has more tokens than words; then some tokens stay fixed."""
    words, n_ctx = words_of_context(text, 0)
    return len(words) > n_ctx


def first_words(ctx_init, n_ctx, tokenizer=None):
    """Return the tokens whose first n_ctx the context replaces (MaPLe, IVLP); none if it starts at random."""
    words = tokens_of_context(ctx_init, tokenizer) if ctx_init and n_ctx <= MOST_WORDS else []
    if 0 < len(words) < n_ctx:
        print(
            f"{n_ctx} vectors are more than the {len(words)} tokens of CTX_INIT: the context also takes the place of "
            f"the first {n_ctx - len(words)} of each class name, as in the official code"
        )
    return words


def check_depth(key, depth, layers, least=1):
    """Raise UserError for a number of blocks with prompts that a tower does not have."""
    if not least <= depth <= layers:
        raise UserError(f"Expected {key} from {least} to {layers}, the layers of this backbone, got {depth}.")


def initial_context(clip_model, words, n_ctx, *sets):
    """Initial context (*sets, n_ctx, w): embeddings of the first n_ctx tokens of `words`, or random without words."""
    if n_ctx < 1:
        raise UserError(f"Expected N_CTX of at least 1, got {n_ctx}.")
    if not words:
        return random_vectors(clip_model, *sets, n_ctx, text_width(clip_model))
    tokenizer = tokenizer_of(clip_model)  # the tokens after the words in a whole sequence, as in the family
    padded = [*words, *tokenizer.end, *[tokenizer.pad] * n_ctx]
    tokens = torch.tensor(padded[:n_ctx], device=clip_model.token_embedding.weight.device)
    return clip_model.token_embedding(tokens).detach().expand(*sets, -1, -1).clone()


def random_vectors(clip_model, *shape):
    """Return normal noise of deviation 0.02, with which the family's vectors start where no words are given."""
    return nn.init.normal_(torch.empty(shape), std=0.02).to(clip_model.logit_scale)
