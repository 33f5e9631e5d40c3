"""Frames of generated videos against the frames of the real ones: the metrics of `eval.frame_metrics` on folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from eval.bootstrap import RESAMPLES, Estimate, mean_estimate
from eval.clip_pairs import RESIZE, ClipPair, ClipPairs, find_pairs
from eval.frame_metrics.frechet_frames import FrameFrechet
from eval.frame_metrics.metric import Column, FrameMetric
from eval.protocol import UnderProtocol, clips_digest
from lisa_video.data.manifest import file_digest
from lisa_video.data.video_io import VideoReadError
from lisa_video.errors import UserError

MIN_CLIPS = 2
MAX_CLIP_BYTES = 2 * 2**30
"""Both videos of a pair are in memory, so clips are bounded."""


@dataclass(frozen=True)
class FrameReport(UnderProtocol):
    """Everything that `eval frames` found out.

    Attributes:
        protocol: everything that the numbers depend on.
        columns: what the numbers are, in order.
        means: key of the column -> mean over clips with its interval.
        fid: see `FrameFrechet.values`; None without its network.
        clips: clip name -> key -> number.
        skipped: (name, reason).
        omitted: (metric, reason).
        notes: what a reader has to know.
    """

    columns: tuple[Column, ...]
    means: dict[str, Estimate]
    fid: dict[str, float | int] | None
    clips: dict[str, dict[str, float]]
    skipped: list[tuple[str, str]]
    omitted: list[tuple[str, str]]
    notes: list[str]


@dataclass(frozen=True)
class _Measured:
    """One clip: numbers by column, and the features of FID if it is wanted."""

    values: dict[str, float]
    real: Float[np.ndarray, "F D"]
    generated: Float[np.ndarray, "F D"]


def score_frames(
    real: str | Path,
    generated: str | Path,
    metrics: Sequence[FrameMetric],
    fid: FrameFrechet | None = None,
    *,
    max_frames: int | None = None,
    stride: int = 1,
    seed: int = 0,
    cache: str | Path | None = None,
    progress: bool = True,
) -> FrameReport:
    """Compare the videos of two folders by name, one pair at a time.

    Args:
        real: folder of real videos.
        generated: folder of generated videos with the names of the real ones.
        metrics: those that need larger frames than some clip has are left out for all, and said so.
        fid: distance over the frames of all clips.
        max_frames: of a clip; None: all.
        stride: take every so many-th frame.
        seed: of the bootstrap.
        cache: folder for the numbers of each clip, so that a killed evaluation continues.
        progress: show a bar.

    Raises:
        UserError: folders without videos or names in common, fewer than two clips that can be used, or clips that
            do not fit into memory.
    """
    pairs = find_pairs(generated, real, max_frames=max_frames, stride=stride)
    for one in pairs.pairs:
        _check_memory(one)
    used, omitted = _applicable(metrics, pairs)
    named = {type(metric).__name__: metric.protocol for metric in used}
    named |= {"FID": fid.protocol} if fid is not None else {}
    memory = _Memory(cache, named)
    clips: dict[str, dict[str, float]] = {}
    kept = []
    for one in tqdm(pairs.pairs, desc="compare frames", unit="clip", disable=not progress):
        try:
            measured = memory.measured(one, used, fid)
        except VideoReadError as error:
            pairs.skip(one.name, str(error))
            continue
        clips[one.name] = measured.values
        kept.append(one)
        if fid is not None:
            fid.update(measured.real, measured.generated)
    if len(clips) < MIN_CLIPS:
        raise UserError(
            f"{len(clips)} clips could be compared, at least {MIN_CLIPS} are needed",
            where=generated,
            remedy="see the warnings; give more videos",
        )
    pairs.pairs = kept
    columns = tuple(column for metric in used for column in metric.columns)
    means = {
        column.key: mean_estimate(np.array([clip[column.key] for clip in clips.values()]), seed=seed)
        for column in columns
    }
    values = fid.values() if fid is not None else None
    if values is not None and values["fid_frames"] <= values["fid_dimensions"]:
        pairs.note(
            f"FID over {values['fid_frames']} frames of {values['fid_dimensions']} dimensions: the covariance is "
            "singular and the distance far too large; compare it with its floor only"
        )
    return FrameReport(
        _protocol(pairs, named, seed), columns, means, values, clips, pairs.skipped, omitted, pairs.notes
    )  # fmt: skip


def _applicable(metrics: Sequence[FrameMetric], pairs: ClipPairs) -> tuple[list[FrameMetric], list[tuple[str, str]]]:
    smallest = min(min(one.size) for one in pairs.pairs)
    omitted = [
        (type(metric).__name__, f"needs frames of {metric.min_side} pixels at least, the smallest have {smallest}")
        for metric in metrics
        if metric.min_side > smallest
    ]
    return [metric for metric in metrics if metric.min_side <= smallest], omitted


class _Memory:
    """Measures clips, and keeps the numbers in files if there is a folder for them."""

    def __init__(self, folder: str | Path | None, protocol: dict[str, Any]) -> None:
        self._folder, self._protocol = Path(folder) if folder is not None else None, protocol
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def measured(self, one: ClipPair, metrics: Sequence[FrameMetric], fid: FrameFrechet | None) -> _Measured:
        if self._folder is None:
            return _measure(one, metrics, fid)
        assert one.real is not None
        facts = [file_digest(one.real), file_digest(one.generated), one.num_frames, one.stride, self._protocol]
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        file = self._folder / f"{key}.npz"
        if file.is_file():
            with np.load(file) as arrays:
                values = dict(zip(arrays["keys"].tolist(), arrays["values"].tolist(), strict=True))
                return _Measured(values, arrays["real"], arrays["generated"])
        found = _measure(one, metrics, fid)
        draft = file.with_suffix(".tmp")
        with open(draft, "wb") as stream:
            np.savez(
                stream, keys=np.array(list(found.values), np.str_), values=np.array(list(found.values.values())),
                real=found.real, generated=found.generated,
            )  # fmt: skip
        draft.replace(file)
        return found


def _measure(one: ClipPair, metrics: Sequence[FrameMetric], fid: FrameFrechet | None) -> _Measured:
    real, generated = (np.concatenate(list(frames)) for frames in (one.real_frames(), one.generated_frames()))
    values: dict[str, float] = {}
    for metric in metrics:
        values |= metric.measure(real, generated)
    nothing = np.zeros((0, 0))
    features = (nothing, nothing) if fid is None else (fid.features(real), fid.features(generated))
    return _Measured(values, *features)


def _check_memory(one: ClipPair) -> None:
    wanted = 2 * one.num_frames * one.size[0] * one.size[1] * 3
    if wanted > MAX_CLIP_BYTES:
        raise UserError(
            f"{one.num_frames} frames of {one.size[1]} x {one.size[0]} pixels take {wanted / 2**30:.1f} GiB a pair, "
            f"the bound is {MAX_CLIP_BYTES / 2**30:g}",
            where=one.generated,
            remedy="compare fewer frames: --frames 100",
        )


def _protocol(pairs: ClipPairs, metrics: dict[str, Any], seed: int) -> dict[str, Any]:
    names = [one.name for one in pairs.pairs]
    return {
        "metric": "frames against those of the real clip",
        "clips": len(names),
        "clips_digest": clips_digest(names),
        **pairs.protocol,
        "resize": RESIZE,
        "average": "over frames of a clip, then over clips",
        "metrics": metrics,
        "interval": f"95 % percentile bootstrap over clips, {RESAMPLES} draws, seed {seed}",
    }
