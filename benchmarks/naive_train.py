"""train.py with the naive text encoder: 77 positions per class, text encoded again for every batch, also in tests."""

import sys
from contextlib import contextmanager

import torch
from reference import NaiveTextEncoder

from dspt_atlas.run.train import main
from dspt_atlas.trainers.clip import prompted_clip


@contextmanager
def nothing_fixed(self):
    with torch.no_grad():
        yield self


if __name__ == "__main__":
    prompted_clip.SharedPrefixTextEncoder = NaiveTextEncoder
    prompted_clip.PromptedCLIP.fixed_text = nothing_fixed
    sys.exit(main())
