"""What is measured beside the training loss, each at its own interval. Nothing here changes a weight or a draw."""

from __future__ import annotations

from lisa_video.held_out_loss import LevelLoss


def held_out_metrics(levels: list[LevelLoss]) -> dict[str, float]:
    """`held_out` and `held_out_ratio`, over all levels and by quantile of the noise level.

    The ratio is what is left of the frozen network's own error: below 1, the branch helps.
    """
    controlled, frozen = sum(level.controlled for level in levels), sum(level.frozen for level in levels)
    metrics = {"held_out": controlled / len(levels), "held_out_ratio": controlled / frozen}
    for level in levels:
        metrics[f"held_out/quantile_{level.quantile:.2f}"] = level.controlled
        metrics[f"held_out_ratio/quantile_{level.quantile:.2f}"] = level.ratio
    return metrics
