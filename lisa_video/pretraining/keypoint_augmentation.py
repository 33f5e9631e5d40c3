"""Random changes to training pictures, so that the keypoint network stays valid on generated, imperfect frames.

Generated frames are softer, noisier and differently coloured than rendered ones, and have passed an autoencoder.
Everything works on a whole batch, with random numbers from one generator.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


class PosedFrames(NamedTuple):
    """A batch of pictures with their joints.

    Attributes:
        frames: (N, 3, H, W) in [-1, 1].
        xy: (N, K, 2) pixels, NaN where unknown.
        score: (N, K) in [0, 1]; 0 means unknown or outside the frame.
    """

    frames: Tensor
    xy: Tensor
    score: Tensor


def augment(batch: PosedFrames, flip_index: Int[Tensor, " K"], generator: torch.Generator) -> PosedFrames:
    """All changes, each with its own probability; joints follow the picture, those that leave it get score 0."""
    batch = mirror(batch, flip_index, generator)
    batch = move(batch, generator)
    batch = cover(batch, generator)
    frames = soften(batch.frames, generator)
    frames = recolour(frames, generator)
    frames = frames + 0.12 * _uniform(len(frames), 4, generator) ** 2 * _normal(frames.shape, generator)
    return batch._replace(frames=frames.clamp(-1.0, 1.0))


def mirror(batch: PosedFrames, flip_index: Int[Tensor, " K"], generator: torch.Generator) -> PosedFrames:
    """Mirror half of the pictures; the person's left then is where its right was."""
    chosen = torch.rand(len(batch.frames), generator=generator) < 0.5
    x = batch.frames.shape[3] - batch.xy[..., 0]
    mirrored_xy = torch.stack([x, batch.xy[..., 1]], dim=-1)[:, flip_index]
    return PosedFrames(
        torch.where(chosen[:, None, None, None], batch.frames.flip(3), batch.frames),
        torch.where(chosen[:, None, None], mirrored_xy, batch.xy),
        torch.where(chosen[:, None], batch.score[:, flip_index], batch.score),
    )


def move(batch: PosedFrames, generator: torch.Generator) -> PosedFrames:
    """Turn by up to 10 degrees, scale by 0.8 to 1.2 and shift by up to 8 % about the centre."""
    count, _, height, width = batch.frames.shape
    draws = torch.rand(count, 4, generator=generator) * 2 - 1
    angle, scale = draws[:, 0] * 0.175, 1.0 + 0.2 * draws[:, 1]
    centre = torch.tensor([width, height]) / 2
    shift = draws[:, 2:] * 0.08 * 2 * centre  # pixels
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    forward = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # (N,2,2)
    # affine_grid wants, for each output place, the input place, in units of half the picture.
    backward = torch.linalg.inv(forward) * (centre / centre[:, None])
    offset = -(torch.linalg.inv(forward) @ shift[..., None]) / centre[:, None]
    grid = functional.affine_grid(torch.cat([backward, offset], dim=2), list(batch.frames.shape), align_corners=False)
    frames = functional.grid_sample(batch.frames, grid, padding_mode="border", align_corners=False)
    xy = torch.einsum("nij,nkj->nki", forward, batch.xy - centre) + centre + shift[:, None]
    inside = ((xy >= 0) & (xy < 2 * centre)).all(dim=2)
    return PosedFrames(frames, xy, torch.where(inside, batch.score, 0.0))


def cover(batch: PosedFrames, generator: torch.Generator) -> PosedFrames:
    """Cover a rectangle of a third of the pictures with one colour; joints beneath it count as hidden (score 0.4)."""
    count, _, height, width = batch.frames.shape
    size = torch.tensor([width, height])
    extent = (0.08 + 0.25 * torch.rand(count, 2, generator=generator)) * size
    extent = extent * (torch.rand(count, 1, generator=generator) < 0.33)
    corner = torch.rand(count, 2, generator=generator) * (size - extent)
    columns, rows = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    across = (columns >= corner[:, :1]) & (columns < (corner + extent)[:, :1])
    down = (rows >= corner[:, 1:]) & (rows < (corner + extent)[:, 1:])
    colour = torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1
    frames = torch.where((down[:, :, None] & across[:, None, :])[:, None], colour, batch.frames)
    beneath = ((batch.xy >= corner[:, None]) & (batch.xy < (corner + extent)[:, None])).all(dim=2)
    return PosedFrames(frames, batch.xy, torch.where(beneath, batch.score.clamp(max=0.4), batch.score))


def soften(frames: Float[Tensor, "N 3 H W"], generator: torch.Generator) -> Float[Tensor, "N 3 H W"]:
    """Mix in blurred or shrunk-and-enlarged copies, and faint blotches such as an autoencoder leaves."""
    small = functional.interpolate(frames, scale_factor=0.5, mode="bilinear", antialias=True)
    shrunk = functional.interpolate(small, frames.shape[2:], mode="bicubic")
    blurred = functional.avg_pool2d(functional.pad(frames, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = _uniform(len(frames), 4, generator)
    kind = _uniform(len(frames), 4, generator)
    softened = torch.where(kind < 0.35, blurred, torch.where(kind < 0.7, shrunk, frames))
    blotches = _normal((*frames.shape[:2], frames.shape[2] // 8, frames.shape[3] // 8), generator)
    blotches = functional.interpolate(blotches, frames.shape[2:], mode="bilinear")
    return torch.lerp(frames, softened, share) + 0.06 * _uniform(len(frames), 4, generator) * blotches


def recolour(frames: Float[Tensor, "N 3 H W"], generator: torch.Generator) -> Float[Tensor, "N 3 H W"]:
    """Vary contrast, saturation, brightness and the tint of each colour channel."""
    count = len(frames)
    grey = frames.mean(dim=1, keepdim=True)
    frames = torch.lerp(grey, frames, 0.5 + _uniform(count, 4, generator))
    mean = frames.mean(dim=(1, 2, 3), keepdim=True)
    frames = mean + (frames - mean) * (0.7 + 0.6 * _uniform(count, 4, generator))
    tint = torch.rand(count, 3, 1, 1, generator=generator) - 0.5
    return frames + 0.25 * tint + 0.4 * (_uniform(count, 4, generator) - 0.5)


def _uniform(count: int, dimensions: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, *[1] * (dimensions - 1), generator=generator)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)
