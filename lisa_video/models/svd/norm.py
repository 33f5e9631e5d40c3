"""The number of groups in normalisation layers, which the stock classes fix at 32."""

from __future__ import annotations

from torch import nn

STOCK_GROUPS = 32


def set_norm_groups(module: nn.Module, groups: int) -> None:
    """Change the groups of all group normalisations; their parameters are per channel and stay as they are.

    At published widths 32 groups have four to forty channels each. At tiny widths they would have one or two, which
    erases what a layer knows of absolute brightness and colour.
    """
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            if part.num_channels % groups:
                raise ValueError(f"{part.num_channels} channels do not divide into {groups} groups")
            part.num_groups = groups
