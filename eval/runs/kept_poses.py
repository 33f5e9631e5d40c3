"""Poses found in the clips of a job: spread over processes, a file a clip, so that nothing is searched twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from eval.pose_accuracy.found_poses import detector_protocol
from eval.protocol import protocol_id
from eval.runs.generate import GenerationJob
from eval.runs.job_clips import JobClips
from lisa_video.pose.detectors.scoring import named_detector
from lisa_video.pose.keypoints import Keypoints, load_keypoints, save_keypoints
from lisa_video.processes import end_with_parent

_PART = 2  # clips handed to a process at a time


def find_poses(job: GenerationJob, detector: str, num_processes: int = 1) -> Path:
    """Find the poses that are not known yet; returns the folder of `CLIP_ID.npz`.

    Args:
        job: whose clips; they must have been sampled.
        detector: see `named_detector`.
        num_processes: 1 works in this process.

    Raises:
        UserError: no such detector, or it cannot be loaded here.
    """
    clips = JobClips(job)
    folder = clips.folder / "poses" / protocol_id(detector_protocol(_named(detector)))
    folder.mkdir(parents=True, exist_ok=True)
    missing = [place for place in range(len(clips)) if not (folder / f"{clips.clip_id(place)}.npz").is_file()]
    if not missing:
        return folder
    title = f"poses by {Path(detector).name} in {clips.folder.name}"
    with tqdm(total=len(clips), initial=len(clips) - len(missing), desc=title, unit="clip") as bar:
        for done in _in_parts(job, detector, folder, missing, num_processes):
            bar.update(done)
    return folder


def load_found(folder: Path, clip_id: str) -> Keypoints:
    """Poses that `find_poses` found.

    Raises:
        UserError: there are none.
    """
    return load_keypoints(folder / f"{clip_id}.npz")


def _in_parts(
    job: GenerationJob, detector: str, folder: Path, places: Sequence[int], num_processes: int
) -> Iterator[int]:
    parts = [places[start : start + _PART] for start in range(0, len(places), _PART)]
    if num_processes == 1 or len(parts) == 1:
        yield from (_find(job, detector, folder, part) for part in parts)
        return
    with ProcessPoolExecutor(
        min(num_processes, len(parts)), mp_context=get_context("spawn"), initializer=_start_worker
    ) as pool:
        try:
            for future in as_completed([pool.submit(_find, job, detector, folder, part) for part in parts]):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _find(job: GenerationJob, detector: str, folder: Path, places: Sequence[int]) -> int:
    clips, finder = _clips(job), _named(detector)
    for place in places:
        frames = clips.frames(place)
        if frames is not None:
            save_keypoints(folder / f"{clips.clip_id(place)}.npz", finder.detect(frames, clips.fps(place)))
    return len(places)


_clips = lru_cache(maxsize=1)(JobClips)
_named = lru_cache(maxsize=4)(named_detector)


def _start_worker() -> None:
    torch.set_num_threads(1)
    end_with_parent()
