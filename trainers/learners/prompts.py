"""The prompt learners: modules that hold only what is learned and say where in each class's prompt it goes."""

import hashlib
from copy import deepcopy

import torch
from torch import nn

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.model import CONTEXT_LENGTH, is_vit, start_and_end_token, text_width, tokenize

MOST_MAPLE_WORDS = 4  # of N_CTX: above it MaPLe's context is random whatever CTX_INIT is, as in the official code
_POSITIONS = ("end", "middle", "front")


class CoOpPromptLearner(nn.Module):
    """`n_ctx` learned context vectors, shared by all classes or (csc) for each class (CoOp, Zhou et al. 2022).

    `forward()` returns the context (1, n_ctx or C n_ctx, w); `sequences` is what SharedPrefixTextEncoder takes. The
    context starts as the first tokens of `ctx_init` (n_ctx is then its number of words, and tokens beyond stay fixed)
    or as normal noise of deviation 0.02.
    Raises UserError for an unknown class_token_position and for class names that do not fit.
    """

    prompts_images = False
    conditional = False

    def __init__(self, clip_model, classnames, n_ctx=16, ctx_init="", csc=False, class_token_position="end"):
        super().__init__()
        if class_token_position not in _POSITIONS:
            raise UserError(
                f"Expected CLASS_TOKEN_POSITION to be one of {', '.join(_POSITIONS)}, got '{class_token_position}'."
            )
        sets = (len(classnames),) if csc else ()
        words, n_ctx = _words_of_context(ctx_init, n_ctx)
        context = _context(clip_model, words, n_ctx, *sets)
        self.ctx = nn.Parameter(context)
        if csc:  # saved with the context: it means nothing for other classes
            self.register_buffer("ctx_classes", _class_digest(classnames).to(context.device))
        self.sequences = prompt_sequences(classnames, n_ctx, class_token_position, csc, words)

    def forward(self):
        return self.ctx.view(1, -1, self.ctx.shape[-1])


class CoCoOpPromptLearner(nn.Module):
    """A shared context plus a bias computed from each image's feature by a small meta-net (CoCoOp, Zhou et al. 2022).

    `forward(image_features (B, d))` returns one context per image (B, n_ctx, w).
    """

    prompts_images = False
    conditional = True

    def __init__(self, clip_model, classnames, n_ctx=4, ctx_init=""):
        super().__init__()
        words, n_ctx = _words_of_context(ctx_init, n_ctx)
        context = _context(clip_model, words, n_ctx)
        features, width = clip_model.text_projection.shape[1], context.shape[1]
        self.ctx = nn.Parameter(context)
        self.meta_net = nn.Sequential()
        self.meta_net.add_module("linear1", nn.Linear(features, max(1, features // 16)))
        self.meta_net.add_module("relu", nn.ReLU(inplace=True))
        self.meta_net.add_module("linear2", nn.Linear(max(1, features // 16), width))
        self.meta_net.to(context.device)
        self.sequences = prompt_sequences(classnames, n_ctx, words=words)

    def forward(self, image_features):
        return self.ctx + self.meta_net(image_features.to(self.ctx.dtype))[:, None]


class MaPLePromptLearner(nn.Module):
    """Context in both towers' first `prompt_depth` layers, the image side a linear function of the text side (MaPLe,
    Khattak et al. 2023, section 3.2).

    `forward()` returns (context (1, n_ctx, w), deep text prompts [(n_ctx, w)], image prompts per layer [(n_ctx, v)]).
    Up to n_ctx 4 the prompt is `ctx_init`, then the name: the vectors take the place of its first n_ctx tokens and
    start as them, the others stay fixed. With more vectors `ctx_init` is left aside, as in the official code.
    Raises UserError for a ResNet, for a prompt_depth that the towers do not have, and where the vectors would take the
    place of a whole class name.
    """

    prompts_images = True
    conditional = False

    def __init__(self, clip_model, classnames, n_ctx=2, ctx_init="a photo of a", prompt_depth=9):
        super().__init__()
        if not is_vit(clip_model):
            raise UserError(
                "Expected a vision transformer (ViT-B/32, ViT-B/16, ViT-L/14) for MaPLe, which puts prompts into "
                "the image tower, got a ResNet: choose another backbone, or CoOp or CoCoOp."
            )
        layers = min(len(clip_model.transformer.resblocks), len(clip_model.visual.transformer.resblocks))
        if not 1 <= prompt_depth <= layers:
            raise UserError(
                f"Expected PROMPT_DEPTH from 1 to {layers}, the layers of this backbone, got {prompt_depth}."
            )
        width, vision_width = text_width(clip_model), clip_model.visual.ln_pre.weight.shape[0]
        device = clip_model.positional_embedding.device
        words = _tokens_of_context(ctx_init) if ctx_init and n_ctx <= MOST_MAPLE_WORDS else []
        if 0 < len(words) < n_ctx:
            print(
                f"N_CTX {n_ctx} is more than the {len(words)} tokens of CTX_INIT: the context also takes the place of "
                f"the first {n_ctx - len(words)} of each class name, as in the official MaPLe"
            )
        self.ctx = nn.Parameter(_context(clip_model, words, n_ctx))
        self.proj = nn.Linear(width, vision_width, device=device)
        self.compound_prompts_text = nn.ParameterList(_context(clip_model, [], n_ctx) for _ in range(prompt_depth - 1))
        coupling = nn.Linear(width, vision_width, device=device)  # all start alike, as in the official code
        self.compound_prompt_projections = nn.ModuleList(deepcopy(coupling) for _ in range(prompt_depth - 1))
        self.sequences = prompt_sequences(classnames, n_ctx, words=words)

    def forward(self):
        deep = list(self.compound_prompts_text)
        couplings = zip(self.compound_prompt_projections, deep, strict=True)
        return self.ctx[None], deep, [self.proj(self.ctx), *(coupling(prompt) for coupling, prompt in couplings)]


def prompt_sequences(classnames, n_ctx, class_token_position="end", csc=False, words=()):
    """Tokens of `[context] [name].` per class, for SharedPrefixTextEncoder.

    `words`: the tokens of which the context takes the first n_ctx places. Those beyond stay fixed before the name;
    where they are fewer, the context takes places of the name too, as in the family's code.
    Raises UserError if a prompt is too long or nothing of a name is left.
    """
    start, end = start_and_end_token()
    sequences, too_long, hidden = [], [], []
    for index, name in enumerate(classnames):
        name = name.replace("_", " ")
        name_tokens, length = tokenize(name + "."), len(tokenize(name))
        rest = [*words, *name_tokens][n_ctx:] if words else name_tokens
        first = index * n_ctx if csc else 0
        context = [-1 - first - slot for slot in range(n_ctx)]
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[class_token_position]
        split = len(rest) if class_token_position == "end" else length
        sequence = [start, *context[:before], *rest[:split], *context[before:], *rest[split:], end]
        sequences.append(sequence)
        if len(sequence) > CONTEXT_LENGTH:
            too_long.append(f"'{name}' ({len(name_tokens)} tokens)")
        if words and n_ctx - len(words) >= length:
            hidden.append(f"'{name}' ({length} {'token' if length == 1 else 'tokens'})")
    if too_long:
        raise UserError(
            f"Expected class names that fit into CLIP's {CONTEXT_LENGTH} positions beside {max(n_ctx, len(words))} "
            f"context tokens, got {_listed(too_long)}: shorten the names or the context (N_CTX, CTX_INIT)."
        )
    if hidden:
        raise UserError(
            f"Expected class names of more than {n_ctx - len(words)} tokens beside N_CTX {n_ctx} and a CTX_INIT of "
            f"{len(words)}, since the context takes the place of these, got {_listed(hidden)}: lower N_CTX, lengthen "
            'CTX_INIT, or set it to "" for a random context before the name.'
        )
    return sequences


def _listed(names):
    return f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"


def text_sequences(texts):
    """Tokens of whole texts, from start to end token; raises UserError if one is too long."""
    start, end = start_and_end_token()
    sequences = [[start, *tokenize(text), end] for text in texts]
    too_long = [text for text, sequence in zip(texts, sequences, strict=True) if len(sequence) > CONTEXT_LENGTH]
    if too_long:
        raise UserError(f"Expected texts of at most {CONTEXT_LENGTH - 2} tokens, got '{too_long[0]}': shorten it.")
    return sequences


def load_prompts(prompt_learner, state_dict):
    """Load learned prompts, also from the CoOp family's files, whose frozen parts are left aside.

    Raises UserError that names every key missing, left over or of another shape, and for a class-specific context of
    other classes.
    """
    nested = {
        key.removeprefix("prompt_learner."): value
        for key, value in state_dict.items()
        if key.startswith("prompt_learner.")
    }
    given = {
        key: value
        for key, value in (nested or state_dict).items()
        if not key.startswith(("token_prefix", "token_suffix"))
    }
    own = prompt_learner.state_dict()
    if "ctx_classes" in own:
        _check_classes(own, given)
        given.setdefault("ctx_classes", own["ctx_classes"])  # the family's files do not say which classes
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


def _check_classes(own, given):
    context, digest = given.get("ctx"), given.get("ctx_classes", own["ctx_classes"])
    other = context is not None and context.dim() == 3 and len(context) != len(own["ctx"])
    if other or not torch.equal(digest.cpu(), own["ctx_classes"].cpu()):
        raise UserError(
            "Expected a class-specific context (CSC) of these very classes, but it was learned for other classes "
            "and means nothing here: evaluate it on its own classes, or train without CSC."
        )


def _class_digest(classnames):
    return torch.tensor(list(hashlib.sha256("\n".join(classnames).encode()).digest()), dtype=torch.uint8)


def _tokens_of_context(text):
    tokens = tokenize(text.replace("_", " "))
    if not tokens:
        raise UserError(f'Expected CTX_INIT with at least one word, or "" for a random context, got {text!r}.')
    return tokens


def _words_of_context(text, n_ctx):
    """Tokens of an initial context and the number of those learned: as many as it has words (CoOp, CoCoOp)."""
    return _tokens_of_context(text) if text else [], context_length(text, n_ctx)


def context_length(text, n_ctx):
    """Return the number of context vectors of CoOp and CoCoOp: of words where there is an initial text, else n_ctx."""
    return len(text.replace("_", " ").split()) if text else n_ctx


def has_words_of_several_tokens(text):
    """Whether an initial context of CoOp's and CoCoOp's has more tokens than words, of which some then stay fixed."""
    words, n_ctx = _words_of_context(text, 0)
    return len(words) > n_ctx


def _context(clip_model, words, n_ctx, *sets):
    """Initial context (*sets, n_ctx, w): the embeddings of the first n_ctx tokens of `words`, random without words."""
    if n_ctx < 1:
        raise UserError(f"Expected N_CTX of at least 1, got {n_ctx}.")
    if not words:
        context = torch.empty(*sets, n_ctx, text_width(clip_model))
        return nn.init.normal_(context, std=0.02).to(clip_model.positional_embedding)
    padded = [
        *words,
        start_and_end_token()[1],
        *[0] * n_ctx,
    ]  # what follows in a sequence of 77, as the family takes it
    tokens = torch.tensor(padded[:n_ctx], device=clip_model.token_embedding.weight.device)
    return clip_model.token_embedding(tokens).detach().expand(*sets, -1, -1).clone()
