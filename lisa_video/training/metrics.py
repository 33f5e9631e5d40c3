"""Metrics of a run: one JSON Lines file, TensorBoard, and the numbers beside the progress bar. Rank 0 writes."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, final

import torch
from torch.utils.tensorboard import SummaryWriter

from lisa_video import distributed
from lisa_video.data.loader import shard
from lisa_video.objective import LossTerms
from lisa_video.training.tracker import Tracker

SPEED_FILE = "speed.jsonl"
_SIGMA_EDGES = (0.5, 2.0, 8.0)  # noise-level bins of the LISA ratio


@final
class LossMeter:
    """Sums of loss terms since the last report, over micro-batches and ranks."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)

    def state_dict(self) -> list[dict[str, float]]:
        """The sums of all ranks, for a checkpoint; every rank must call it."""
        return distributed.gather(dict(self._sums))

    def load_state_dict(self, sums_of_ranks: list[dict[str, float]]) -> None:
        """Restore this rank's sums; with another number of ranks, each takes a share."""
        self._sums.clear()
        for sums in shard(sums_of_ranks, distributed.rank(), distributed.world_size()):
            for key, value in sums.items():
                self._sums[key] += value

    def add(self, terms: LossTerms) -> None:
        """Add one micro-batch, without clips whose losses are not finite."""
        values = torch.stack([terms.denoising, terms.lisa.mean(dim=1), terms.residual.mean(dim=1)])
        finite = values.isfinite().all(dim=0)
        values, sigma = values[:, finite], terms.sigma[finite]
        self._add("all", *values)
        bins = torch.bucketize(sigma, torch.tensor(_SIGMA_EDGES, device=sigma.device))
        for number in sorted(set(bins.tolist())):
            self._add(f"sigma_bin_{number}", *values[:, bins == number])
        if terms.residual.any():
            for name, losses in (("lisa", terms.lisa), ("residual", terms.residual)):
                for frame, value in enumerate(losses[finite].sum(dim=0).tolist()):
                    self._sums[f"frame_{frame:02d}/{name}"] += value

    def _add(self, group: str, *values: torch.Tensor) -> None:
        for name, value in zip(("denoising", "lisa", "residual"), values, strict=True):
            self._sums[f"{group}/{name}"] += float(value.sum())
        self._sums[f"{group}/count"] += len(values[0])
        self._sums[f"{group}/aligned"] += int((values[2] > 0).sum())  # clips with a LISA loss

    def report(self) -> dict[str, float]:
        """Means over all ranks, then start again; every rank must call it.

        `lisa_ratio` is L_lisa / mean (y - m0)^2: below 1, the decoder explains part of what the frozen net lacks.
        """
        totals: dict[str, float] = defaultdict(float)
        for sums in distributed.gather(dict(self._sums)):
            for key, value in sums.items():
                totals[key] += value
        self._sums.clear()
        metrics: dict[str, float] = {}
        for group in sorted({key.rpartition("/")[0] for key, value in totals.items() if value > 0}):
            suffix = "" if group == "all" else f"/{group}"
            if totals[f"{group}/count"] > 0:  # frames have only the ratio
                metrics[f"denoising{suffix}"] = totals[f"{group}/denoising"] / totals[f"{group}/count"]
            if totals[f"{group}/aligned"] > 0:
                metrics[f"lisa{suffix}"] = totals[f"{group}/lisa"] / totals[f"{group}/aligned"]
            if totals[f"{group}/residual"] > 0:
                metrics[f"lisa_ratio{suffix}"] = totals[f"{group}/lisa"] / totals[f"{group}/residual"]
        return metrics


@final
class MetricsLog:
    """`metrics.jsonl` and TensorBoard files of a run; a no-op on other ranks than 0.

    Args:
        run_dir: of the run.
        resumed_at: step of the checkpoint that training continues from; later rows are dropped, so that a resumed
            run's file equals an uninterrupted one's.
        tracker: gets the same numbers.
    """

    def __init__(self, run_dir: Path, resumed_at: int, tracker: Tracker | None = None) -> None:
        self._path, self._tracker = run_dir / "metrics.jsonl", tracker
        self._writer = None
        if distributed.is_main():
            drop_rows_after(self._path, resumed_at)
            drop_rows_after(self._path.with_name(SPEED_FILE), resumed_at)
            self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=resumed_at + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append a row."""
        self._append(self._path, "", step, values)

    def write_speed(self, step: int, values: dict[str, float]) -> None:
        """Append a row to `speed.jsonl`, whose numbers differ from one repetition of a run to the next."""
        if values:
            self._append(self._path.with_name(SPEED_FILE), "speed/", step, values)

    def _append(self, path: Path, prefix: str, step: int, values: dict[str, Any]) -> None:
        if self._writer is None:
            return
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        numbers = {prefix + name: value for name, value in values.items() if isinstance(value, int | float)}
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
        if self._tracker is not None:
            self._tracker.write(step, numbers)

    def close(self) -> None:
        """Flush and close TensorBoard's file, and the tracker."""
        if self._writer is not None:
            self._writer.close()
        if self._tracker is not None:
            self._tracker.close()


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Rows of a run's `metrics.jsonl`; empty if there is none."""
    return read_rows(run_dir / "metrics.jsonl")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file, without a last line that was cut off; empty if there is no file."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def drop_rows_after(path: Path, step: int) -> None:
    """Drop what an interrupted run wrote after its last checkpoint: these steps are made again."""
    if path.is_file():
        kept = [row for row in read_rows(path) if row["step"] <= step]
        draft = path.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        draft.replace(path)
