"""Which values of single configuration keys are possible."""

from __future__ import annotations

import math

from dspt_atlas.errors import UserError

MAX_SEED = 2**32 - 1  # NumPy's limit
LONGEST_CONTEXT = 75  # tokens: the first and the last of CLIP's 77 positions are taken


def _at_least(least):
    return lambda value: value >= least, f"at least {least}"


def _one_of(*choices):
    return lambda value: value in choices, " or ".join(choices)


def _is_finite(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(count, is_possible, what):
    def are_possible(values):
        return len(values) == count and all(map(_is_finite, values)) and is_possible(values)

    return are_possible, what


RATE = (lambda rate: 0 <= rate < math.inf, "a finite number of at least 0")
CONTEXT = (
    lambda count: 1 <= count <= LONGEST_CONTEXT,
    f"from 1 to {LONGEST_CONTEXT}, since CLIP's text tower has 77 positions",
)
RANGES = {  # key: (whether a value is possible, what is)
    "OUTPUT_DIR": (bool, "the folder of the run (--output-dir)"),
    "SEED": (lambda seed: -1 <= seed <= MAX_SEED, f"a seed from 0 to {MAX_SEED}, or -1 for none"),
    "DATASET.NUM_SHOTS": (lambda count: count == -1 or count >= 1, "at least 1, or -1 for all images"),
    "DATASET.NOISE.SEED": (lambda seed: seed >= -1, "a seed of at least 0, or -1 for the run's own"),
    "DATALOADER.TRAIN_X.BATCH_SIZE": _at_least(1),
    "DATALOADER.TRAIN_X.N_INS": _at_least(1),
    "DATALOADER.TEST.BATCH_SIZE": _at_least(1),
    "DATALOADER.NUM_WORKERS": _at_least(0),
    "INPUT.SIZE": _numbers(2, lambda size: min(size) >= 1, "height and width in pixels, such as (224, 224)"),
    "INPUT.PIXEL_MEAN": _numbers(3, lambda mean: True, "three numbers, for red, green and blue"),
    "INPUT.PIXEL_STD": _numbers(3, lambda std: min(std) > 0, "three numbers above 0, for red, green and blue"),
    "INPUT.RRCROP_SCALE": _numbers(2, lambda scale: 0 < scale[0] <= scale[1], "two numbers above 0, the smaller first"),
    "INPUT.CROP_PADDING": _at_least(0),
    "INPUT.NO_TRANSFORM": (lambda is_on: not is_on, "False, since CLIP takes tensors of one size"),
    "MODEL.CLASS_CHUNK": _at_least(0),
    "OPTIM.MAX_EPOCH": _at_least(1),
    "OPTIM.LR": RATE,
    "OPTIM.WARMUP_CONS_LR": RATE,
    "OPTIM.WARMUP_MIN_LR": RATE,
    "TEST.SPLIT": _one_of("val", "test"),
    "TEST.FINAL_MODEL": _one_of("last_step", "best_val"),
    "TRAINER.COOP.N_CTX": CONTEXT,
    "TRAINER.COCOOP.N_CTX": CONTEXT,
    "TRAINER.MAPLE.N_CTX": CONTEXT,
}


def check_range(key: str, value) -> None:
    """Raise UserError unless a configuration key may have this value."""
    is_possible, what = RANGES.get(key, (lambda value: True, ""))
    if not is_possible(value):
        raise UserError(f"Expected {key} to be {what}, got {value!r}.")


def whole_number(text: str) -> int | None:
    """Return the whole number of at least 0 that a text writes in digits, None for any other text ("-1", "1.0", "²")."""
    return int(text) if text.isdecimal() and len(text) < 1000 else None  # Python converts no more than 4,300 digits
