"""Tiny random CLIPs in OpenAI's layout."""

import torch

TINY_RESOLUTION = 32


def build_tiny_clip(tower, seed=0, width=64, layers=2, resolution=TINY_RESOLUTION, embed_dim=32):
    """Return a random `clip.model.CLIP` in float32 and eval mode; tower "vit" or "resnet"."""
    from clip.model import CLIP

    vision = {"vit": (layers, width, resolution // 2), "resnet": ((1, 1, 1, 1), 8, None)}[tower]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(embed_dim, resolution, *vision, 77, 49408, width, width // 64, layers)
        for name, parameter in model.named_parameters():
            # OpenAI's initialisation of these is 0 or so small that whatever uses them would go untested.
            if name.endswith(("bn3.weight", "bias", "positional_embedding")):
                torch.nn.init.normal_(parameter, std=0.5 if name.endswith("bn3.weight") else 0.05)
        if tower == "resnet":
            _calibrate_batch_norms(model.visual, resolution)
    return model.float().eval()


def _calibrate_batch_norms(visual, resolution):
    """Set the running statistics from noise; without them a random ResNet maps all images to nearly one point."""
    for module in visual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # cumulative average
    with torch.no_grad():
        visual.train()(torch.randn(16, 3, resolution, resolution) + torch.randn(16, 3, 1, 1))
