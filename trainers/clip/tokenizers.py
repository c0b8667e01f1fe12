"""Tokenizers of open_clip and transformers, as `towers.Tokenizer`."""

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.checkpoints import optional_package
from dspt_atlas.trainers.clip.towers import CONTEXT_LENGTH, Tokenizer

_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "vocab.txt")
_READ_TOO = ("added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.model", "vocab.json")


def files_beside(path):
    """Return a tokenizer's files in the folder of weights."""
    return [file for name in (*_FILES, *_READ_TOO) if (file := path.parent / name).is_file()]


def of_open_clip(text, source):
    """Return the tokenizer of an open_clip `text_cfg`: from files beside the weights, or by its name from the hub.

    Raises UserError if it cannot be had, and for a way of padding that nothing here computes.
    """
    open_clip = optional_package("open_clip", "open-clip", source.name)
    name, options = text.get("hf_tokenizer_name"), text.get("tokenizer_kwargs") or {}
    length = text.get("context_length", CONTEXT_LENGTH)
    if not name:
        simple = open_clip.SimpleTokenizer(context_length=length, **options)
        ends = (simple.sot_token_id,), (simple.eot_token_id,)
        return Tokenizer(simple.encode, simple.vocab_size, *ends, context_length=length, decode=simple.decode)
    if mode := text.get("tokenizer_mode"):
        raise UserError(f"Expected one of open_clip's usual tokenizers, but {source.name} has the mode '{mode}'.")
    folder = source.path.parent
    place = folder if any((folder / file).is_file() for file in _FILES) else name
    try:
        options = {**options, "trust_remote_code": False}  # also where the configuration asks for it
        found = open_clip.tokenizer.HFTokenizer(str(place), context_length=length, **options)
    except Exception as error:  # the package, its hub and the network raise many types
        raise _unavailable(source, place, error) from error
    replaced = {found.tokenizer.sep_token_id: 0} if found.strip_sep_token else {}
    return _of_transformers(found.tokenizer, length, found.clean_fn, replaced)


def of_snapshot(source, length):
    """Return the tokenizer in the folder of a transformers snapshot; raises UserError if there is none."""
    transformers = optional_package("transformers", "hf", source.name)
    try:
        found = transformers.AutoTokenizer.from_pretrained(source.path.parent, trust_remote_code=False)
        return _of_transformers(found, length)
    except Exception as error:  # the package raises many types for files that are missing or damaged
        raise _unavailable(source, source.path.parent, error) from error


def _of_transformers(tokenizer, length, clean=str, replaced=None):
    """Return a tokenizer of transformers; what it puts around each text is around an "x" too."""

    def encode(text):
        return list(tokenizer(clean(text), add_special_tokens=False).input_ids)

    word, whole = encode("x"), list(tokenizer(clean("x")).input_ids)
    at = next(index for index in range(len(whole)) if whole[index : index + len(word)] == word)
    return Tokenizer(
        encode,
        len(tokenizer),
        tuple(whole[:at]),
        tuple((replaced or {}).get(token, token) for token in whole[at + len(word) :]),
        tokenizer.pad_token_id,
        length,
        joins_spaces=encode("x x") != 2 * word,
        pads_left=tokenizer.padding_side == "left",
        decode=tokenizer.decode,
    )


def _unavailable(source, place, error):
    reason = f"{type(error).__name__}: {error}".strip().split("\n")[0][:160]
    return UserError(
        f"Expected the tokenizer of {source.name} in {place}, but it cannot be had ({reason}): put its files beside "
        f"the weights in {source.path.parent}."
    )
