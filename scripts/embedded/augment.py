"""Drawings on random backgrounds, as batched tensor operations."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

PALETTE = (
    torch.tensor(
        [
            [250, 250, 250],
            [15, 15, 15],
            [128, 128, 128],
            [220, 40, 40],
            [245, 140, 30],
            [250, 220, 60],
            [60, 170, 70],
            [60, 200, 210],
            [50, 90, 220],
            [130, 60, 180],
            [245, 140, 190],
            [120, 75, 40],
        ]
    )
    / 255.0
)


def compose(
    drawings: torch.Tensor, recolour: torch.Tensor, generator: torch.Generator, strength: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put drawings (B, 4, H, W) in [0, 1] on random backgrounds after a random affine and colour change.

    `recolour` (B,) bool marks one-colour drawings, which get a random colour. Returns images (B, 3, H, W) in [0, 1]
    and the background's index into `PALETTE` (B,), -1 if the background has several colours.
    """
    moved = _affine(drawings, generator, strength)  # alpha first: edges would be dark otherwise
    colours, alpha = moved[:, :3], moved[:, 3:]
    grounds, names = backgrounds(len(drawings), drawings.shape[-1], generator)
    ink = torch.rand(len(drawings), 3, 1, 1, generator=generator)
    near = (ink - grounds.mean((2, 3), keepdim=True)).abs().amax(1, keepdim=True) < 0.4
    ink = torch.where(near, 1 - ink, ink)
    mix = torch.eye(3) + 0.18 * strength * torch.randn(len(drawings), 3, 3, generator=generator)
    shift = 0.08 * strength * torch.randn(len(drawings), 3, 1, 1, generator=generator)
    mix = torch.where(recolour.view(-1, 1, 1), torch.zeros(3, 3), mix)
    shift = torch.where(recolour.view(-1, 1, 1, 1), ink, shift)
    colours = torch.baddbmm(shift.flatten(2) * alpha.flatten(2), mix, colours.flatten(2)).view_as(colours)
    return torch.addcmul(colours.clamp_(min=0), grounds, 1 - alpha).clamp_(0, 1), names


def backgrounds(count: int, size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random backgrounds (count, 3, size, size): plain colours, gradients, blotches and stripes; colour index or -1."""
    index = torch.randint(len(PALETTE), (count, 2), generator=generator)
    colour = (PALETTE[index] + 0.06 * torch.randn(count, 2, 3, generator=generator)).clamp(0, 1)
    first, second = colour[:, 0, :, None, None], colour[:, 1, :, None, None]
    kind = torch.randint(5, (count,), generator=generator).view(-1, 1, 1, 1)
    angle = 2 * math.pi * torch.rand(count, 1, 1, 1, generator=generator)
    axis = torch.linspace(-1, 1, size)
    slope = axis.view(1, 1, 1, -1) * angle.cos() + axis.view(1, 1, -1, 1) * angle.sin()
    stripes = ((slope * (3 + 8 * torch.rand(count, 1, 1, 1, generator=generator))).sin() > 0).float()
    noise = F.interpolate(torch.rand(count, 1, 5, 5, generator=generator), size=size, mode="bicubic").clamp(0, 1)
    mix = torch.where(kind == 2, (slope + 1) / 2, torch.where(kind == 3, noise, stripes)).clamp(0, 1)
    mix = torch.where(kind < 2, torch.zeros_like(mix), mix)
    names = torch.where(kind.flatten() < 2, index[:, 0], torch.full((count,), -1))
    return first * (1 - mix) + second * mix, names


def degrade(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur some images, make some grey, erase a square of some, and add weak noise to all."""
    count, _, size, _ = images.shape
    chance = torch.rand(count, 3, 1, 1, 1, generator=generator)
    blurred = F.interpolate(F.avg_pool2d(images, 2), size=size, mode="bilinear", align_corners=False)
    images = torch.where(chance[:, 0] < 0.15, blurred, images)
    images = torch.where(chance[:, 1] < 0.08, images.mean(1, keepdim=True).expand_as(images), images)
    centre = torch.randint(size, (count, 2, 1), generator=generator)
    inside = (torch.arange(size).view(1, 1, -1) - centre).abs() < size // 8
    hole = (inside[:, 0, None, :, None] & inside[:, 1, None, None, :]) & (chance[:, 2] < 0.25)
    images = torch.where(hole, torch.rand(count, 3, 1, 1, generator=generator).expand_as(images), images)
    return (images + 0.02 * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def _affine(drawings: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    count = len(drawings)
    u = torch.rand(count, 6, generator=generator) * 2 - 1
    angle = u[:, 0] * 0.45 * strength
    zoom = torch.exp(0.25 + u[:, 1] * 0.35 * strength)  # coordinates grow, so drawings shrink
    stretch = torch.exp(u[:, 2] * 0.15 * strength)
    mirror = torch.where(u[:, 3] < 0, -1.0, 1.0)
    rows = torch.stack(
        [
            torch.stack([angle.cos() * zoom * mirror, -angle.sin() * zoom, u[:, 4] * 0.3 * strength], 1),
            torch.stack([angle.sin() * zoom * mirror, angle.cos() * zoom * stretch, u[:, 5] * 0.3 * strength], 1),
        ],
        1,
    )
    premultiplied = torch.cat([drawings[:, :3] * drawings[:, 3:], drawings[:, 3:]], 1)
    grid = F.affine_grid(rows, list(drawings.shape), align_corners=False)
    return F.grid_sample(premultiplied, grid, align_corners=False)
