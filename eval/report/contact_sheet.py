"""Clips side by side in one still picture: reference, pose, what was sampled, and truth at two moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from eval.report.arms import ShownClip
from lisa_video.pose.render import draw_pose_maps

_TILE, _GAP, _HEAD = 112, 6, 20  # pixels

Videos = Mapping[str, UInt8[np.ndarray, "F H W 3"]]
"""By the names of clips."""


def write_contact_sheet(path: Path, clips: Sequence[ShownClip], columns: Mapping[str, Videos]) -> None:
    """Write a PNG with a row a clip.

    Args:
        path: the file to write.
        clips: to show.
        columns: samples of each clip, by what made them.
    """
    rows = [_groups(clip, {name: videos[clip.clip_id] for name, videos in columns.items()}) for clip in clips]
    widths = [_TILE * len(group) for group in rows[0]]
    lefts = [sum(widths[:place]) + _GAP * place for place in range(len(widths))]
    sheet = Image.new("RGB", (lefts[-1] + widths[-1], _HEAD + _TILE * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for left, group in zip(lefts, rows[0], strict=True):
        for place, name in enumerate(group):
            pen.text((left + _TILE * place + 4, 3), name, fill="black", font=font)
    for number, row in enumerate(rows):
        for left, group in zip(lefts, row, strict=True):
            for place, frame in enumerate(group.values()):
                tile = Image.fromarray(frame).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
                sheet.paste(tile, (left + _TILE * place, _HEAD + _TILE * number))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _groups(clip: ShownClip, sampled: Videos) -> list[dict[str, UInt8[np.ndarray, "H W 3"]]]:
    """The reference; then pose, samples and truth in the middle and at the end of the clip."""
    frames, height, width = clip.truth.shape[:3]
    poses = draw_pose_maps(clip.driving, (height, width))
    videos = {"pose": poses, **sampled, "truth": clip.truth}
    moments = [{name: video[moment] for name, video in videos.items()} for moment in (frames // 2, frames - 1)]
    return [{"reference": clip.truth[0]}, *moments]
