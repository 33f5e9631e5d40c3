"""Generate the demo data set: deterministic, parallel, streaming and resumable."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from data_tools.demo.clip import keypoints_path, video_path, write_clip
from data_tools.demo.plan import GENERATOR_VERSION, plan_clip
from lisa_video.data.manifest import ClipRecord, read_header, write_manifest
from lisa_video.errors import UserError
from lisa_video.processes import end_with_parent

MANIFEST_NAME = "manifest.jsonl"
SETTINGS_NAME = "generation.json"
TOOL = "lisa-video demo-data"
ATTRIBUTION = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with funding from "
    "NSF EIA-0196217. Further motion: DeepMimic clips of pybullet_data (zlib). Body: mannequin-x (Apache-2.0)."
)

_BATCH = 8  # clips per task: enough to make the cost of handing over a task small
_IN_FLIGHT_PER_WORKER = 3
_AVX2 = 11  # CV_CPU_AVX2, to which cv2 gives no name
_AVX512 = ("X86_V4", "AVX512")  # how NumPy's names of these features begin
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Settings:
    """What decides the content of each clip, whatever the number of clips."""

    seed: int
    size: int
    num_frames: int
    fps: float
    val_fraction: float
    generator_version: int = GENERATOR_VERSION


def generate_demo_data(
    out: str | Path,
    *,
    clips: int,
    seed: int = 0,
    size: int = 64,
    num_frames: int = 16,
    fps: float = 12.0,
    val_fraction: float = 0.15,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Render clips of a moving figure with exact COCO-17 keypoints and write their manifest.

    Clip i is the same whatever the number of clips and workers. A run that was stopped goes on where it was; a data
    set that is complete is left alone. The manifest is put in place last.

    Args:
        out: folder of the data set; created if need be.
        clips: number of clips, train and val together.
        seed: any number from 0; another one gives other clips.
        size: pixels of the square frames, a multiple of 8 in 32 to 512.
        num_frames: frames per clip, 1 to 1000.
        fps: frames per second, 1 to 60.
        val_fraction: share of clips of split "val", in [0, 1).
        workers: processes; None takes one per usable core, 0 renders in this process, with whatever kernels its BLAS
            and NumPy have chosen: the bytes may then differ from those of workers, which are the same on every x86 CPU
            with AVX2.
        progress: show a progress bar.

    Returns:
        Path of the manifest.

    Raises:
        UserError: a bad argument, too little free disk, or a folder that holds another data set.
    """
    settings = _Settings(seed, size, num_frames, float(fps), float(val_fraction))
    workers = _usable_cores() if workers is None else workers
    _check_arguments(settings, clips, workers)
    out = Path(out)
    manifest = out / MANIFEST_NAME
    header = {"tool": TOOL, "clips": clips, **asdict(settings), "attribution": ATTRIBUTION}
    if manifest.exists():
        _check_same(read_header(manifest), header, manifest)
        _logger.info("%s is complete already; nothing to do", manifest)
        return manifest
    _check_disk(out, clips, size, num_frames)
    out.mkdir(parents=True, exist_ok=True)
    with _only_run(out / SETTINGS_NAME):
        _remember_settings(out / SETTINGS_NAME, asdict(settings))
        digests = tqdm(_digests(out, settings, clips, workers), total=clips, unit="clip", disable=not progress)
        records = (_record(settings, index, digest) for index, digest in enumerate(digests))
        write_manifest(manifest, records, **header)
    return manifest


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _only_run(path: Path) -> Iterator[None]:
    """Hold a lock on the settings file, so that two runs do not write the same files at once."""
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                "another run is filling this folder", where=path.parent, remedy="wait for it, or name another folder"
            ) from error
        yield


def _check_arguments(settings: _Settings, clips: int, workers: int) -> None:
    rules = (
        ("clips", clips, 1 <= clips <= 10**6, "a number from 1 to 1,000,000"),
        ("seed", settings.seed, settings.seed >= 0, "a number from 0"),
        ("size", settings.size, settings.size % 8 == 0 and 32 <= settings.size <= 512, "a multiple of 8, 32 to 512"),
        ("num_frames", settings.num_frames, 1 <= settings.num_frames <= 1000, "a number from 1 to 1000"),
        ("fps", settings.fps, 1 <= settings.fps <= 60, "a number from 1 to 60"),
        ("val_fraction", settings.val_fraction, 0 <= settings.val_fraction < 1, "a number from 0, below 1"),
        ("workers", workers, workers >= 0, "a number from 0"),
    )
    for name, value, good, rule in rules:
        if not good:
            raise UserError(f"{name} is {value}", remedy=f"give {name} {rule}")


def _check_same(found: dict[str, Any], wanted: dict[str, Any], where: Path) -> None:
    different = [key for key in wanted if found.get(key) != wanted[key] and key != "attribution"]
    if different:
        changes = ", ".join(f"{key} is {found.get(key)!r}, not {wanted[key]!r}" for key in different)
        remedy = "use the same arguments, name another folder, or delete this one"
        if different == ["clips"]:
            remedy = f"use the same number, name another folder, or delete {where} alone: finished clips are kept"
        raise UserError(f"the folder holds another data set: {changes}", where=where, remedy=remedy)


def _remember_settings(path: Path, settings: dict[str, Any]) -> None:
    """Keep the settings of an unfinished run, so that no other one mixes its clips in."""
    known = path.read_text(encoding="utf-8")
    if known.endswith("\n"):
        _check_same(json.loads(known), settings, path)
    else:  # new, or cut off while it was written: there are no clips yet
        path.write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _check_disk(out: Path, clips: int, size: int, num_frames: int) -> None:
    # Measured: 0.25 bytes per pixel and frame of video at most, keypoints and file system blocks besides.
    need = clips * int(0.25 * size * size * num_frames + 12_000)
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < need:
        raise UserError(
            f"{clips} clips need about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=out,
            remedy="free some disk, name a folder on another disk, or ask for fewer clips",
        )


def _record(settings: _Settings, index: int, digest: str) -> ClipRecord:
    plan = plan_clip(settings.seed, index, settings.num_frames, settings.fps, settings.val_fraction)
    return ClipRecord(
        clip_id=plan.name,
        video=video_path(index),
        start_frame=0,
        num_frames=settings.num_frames,
        fps=settings.fps,
        width=settings.size,
        height=settings.size,
        keypoints=keypoints_path(index),
        split=plan.split,
        source=plan.take,
        source_digest=digest,
        attributes={
            "motion": plan.take, "look": plan.look_name, "mirrored": str(plan.mirrored).lower(),
            "speed": f"{plan.speed:.2f}",
        },
    )  # fmt: skip


def _write_batch(out: Path, settings: _Settings, start: int, stop: int) -> list[str]:
    """Make clips [start, stop) and return the digests of their videos; runs in a worker."""
    result = []
    for index in range(start, stop):
        plan = plan_clip(settings.seed, index, settings.num_frames, settings.fps, settings.val_fraction)
        result.append(write_clip(out, plan, settings.size, settings.num_frames, settings.fps))
    return result


def _start_worker() -> None:
    """Set up a worker: one thread per process, and no life beyond that of the parent."""
    cv2.setNumThreads(1)
    end_with_parent()


@contextmanager
def _same_arithmetic() -> Iterator[None]:
    """Processes that start meanwhile have one set of kernels on all x86 CPUs with AVX2.

    OpenBLAS and NumPy take the best of the CPU otherwise, which round otherwise: with Sandybridge's of OpenBLAS all
    videos were others, with NumPy's of AVX-512 61 of 2,000.
    """
    wanted = {}
    if cv2.checkHardwareSupport(_AVX2):
        found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
        left_out = " ".join(name for name in found if name.startswith(_AVX512))
        wanted = {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": left_out}
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def _digests(out: Path, settings: _Settings, clips: int, workers: int) -> Iterator[str]:
    """Make all clips and yield their digests in order; only a few batches are under way at any time."""
    batches = ((start, min(start + _BATCH, clips)) for start in range(0, clips, _BATCH))
    if workers == 0:
        for start, stop in batches:
            yield from _write_batch(out, settings, start, stop)
        return
    under_way: deque[Future[list[str]]] = deque()
    # Not forked: a fork copies the locks of the threads that this process may have (torch, a progress bar).
    with (
        _same_arithmetic(),
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool,
    ):
        try:
            for start, stop in batches:
                under_way.append(pool.submit(_write_batch, out, settings, start, stop))
                if len(under_way) >= workers * _IN_FLIGHT_PER_WORKER:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died, most likely for want of memory",
                where=out,
                remedy="run the same command again with fewer workers, and it goes on where it stopped; a script "
                "of yours must be a file that can be imported (if __name__ == '__main__')",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
