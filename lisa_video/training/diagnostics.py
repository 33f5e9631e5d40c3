"""What is measured beside the training loss, each at its own interval. Nothing here changes a weight or a draw."""

from __future__ import annotations

from lisa_video.held_out_loss import LevelLoss


def held_out_metrics(levels: list[LevelLoss]) -> dict[str, float]:
    """`held_out`, `held_out_ratio` and `pose_gap`, over all levels and by quantile of the noise level.

    The ratio is what is left of the frozen network's own error: below 1, the branch helps. The gap is what the right
    poses are worth in the same unit: above 0, the branch follows them.
    """
    controlled, frozen = sum(level.controlled for level in levels), sum(level.frozen for level in levels)
    gap = sum(level.misled for level in levels) - controlled
    metrics = {"held_out": controlled / len(levels), "held_out_ratio": controlled / frozen, "pose_gap": gap / frozen}
    for level in levels:
        metrics[f"held_out/quantile_{level.quantile:.2f}"] = level.controlled
        metrics[f"held_out_ratio/quantile_{level.quantile:.2f}"] = level.ratio
        metrics[f"pose_gap/quantile_{level.quantile:.2f}"] = level.pose_gap
    return metrics
