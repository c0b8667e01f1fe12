"""A random text tower in the layout of PhotoEN's file."""

import math

import torch
from clip.model import CLIP


def random_photo_text(layers=4, width=256, seed=0, used=None):
    """Return the dict of the file: `used` tokens have rows of the table, or all of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(1280, 32, 1, 64, 32, 77, 49408, width, width // 64, layers)
        used = torch.arange(49408, dtype=torch.int32) if used is None else used
        table = {
            "rows": torch.randint(-127, 128, (len(used), width), dtype=torch.int8),
            "scale": (0.05 * torch.rand(len(used)) / 127).half(),
            "used": used,
        }
        mean = torch.rand(1280).half()
    text = {key: value.half() for key, value in model.state_dict().items() if not key.startswith("visual.")}
    del text["token_embedding.weight"]
    text |= {f"token_embedding.{key}": value for key, value in table.items()} | {"visual.mean": mean}
    return {**text, "logit_scale": torch.tensor(math.log(100))}
