"""Features of a folder of videos: our loop beside cd-fvd's, with the same network, in one run; and our memory.

Both start from files and end with mean and covariance; loading the network is not counted. `cd_fvd_own_network` is
cd-fvd as installed, with its own I3D class (random weights: time does not depend on them). Variants are interleaved,
each in a process of its own, and compared by medians, since machines are shared.

cd-fvd is no dependency of this project. Have it beside in another environment, and run this with that Python:

    python -m venv other && other/bin/pip install cd-fvd==0.1.1 torchcodec    # and this project; FFmpeg's libraries
    other/bin/python benchmarks/fvd_features.py FOLDER --clips 256
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eval.distances.clip_features import clip_features
from eval.distances.extractors.i3d_weights import installed_weights, load_i3d
from eval.distances.extractors.load import load_extractor
from eval.distances.frechet import FeatureStatistics
from eval.json_files import write_json
from eval.videos import ClipProtocol, VideoFolder

RESULTS = Path(__file__).parent / "results" / "fvd_features.json"
VARIANTS = ("ours", "cd_fvd", "cd_fvd_own_network")
FRAMES, BATCH, WORKERS = 16, 4, 2
MEMORY_CLIPS = (16, 64, 256)


def ours(folder: Path, extractor_name: str) -> tuple[float, np.ndarray]:
    """Seconds, and the mean of the features."""
    extractor = load_extractor(extractor_name)
    start = time.perf_counter()
    found = clip_features(VideoFolder(folder, ClipProtocol(FRAMES)), extractor, batch_size=BATCH)
    sums = FeatureStatistics(extractor.dimension)
    sums.update(found.features)
    sums.covariance("unbiased")
    return time.perf_counter() - start, sums.mean


class SameNetwork(nn.Module):
    """Our I3D where cd-fvd expects its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = load_i3d(installed_weights())

    def forward(self, videos: Tensor) -> Tensor:
        """(B, 3, F, 224, 224) in [-1, 1] -> (B, 400)."""
        logits: Tensor = self.net(videos.contiguous(memory_format=torch.channels_last_3d))
        return logits


def cd_fvd(folder: Path, *, own_network: bool) -> tuple[float, np.ndarray]:
    """The same by cd-fvd's loader and loop."""
    import cdfvd.fvd as module  # type: ignore[import-not-found]

    network = module.load_i3d_model.__globals__["pytorch_i3d"].InceptionI3d(400) if own_network else SameNetwork()
    module.load_i3d_model = lambda device, path: network  # it would download its weights
    evaluator = module.cdfvd("i3d", n_real="full", device="cpu")
    start = time.perf_counter()
    loader = evaluator.load_videos(
        str(folder), sequence_length=FRAMES, data_type="video_folder", num_workers=WORKERS, batch_size=BATCH
    )
    mean, _ = evaluator.compute_real_stats(loader).get_mean_cov()
    return time.perf_counter() - start, mean


def linked(videos: list[Path], clips: int, folder: Path) -> None:
    """So many videos in a folder; they repeat by other names if there are fewer."""
    for number in range(clips):
        source = videos[number % len(videos)]
        (folder / f"{number:05d}{source.suffix}").symlink_to(source.resolve())


def child(variant: str, folder: Path, mean_file: Path) -> None:
    """Measure one variant in this process, and print it as JSON."""
    if variant.startswith("cd_fvd"):
        seconds, mean = cd_fvd(folder, own_network=variant == "cd_fvd_own_network")
    else:
        seconds, mean = ours(folder, "keypoint-net" if variant == "memory" else "i3d")
    np.save(mean_file, mean)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = sum(os.times()[:4])  # with loader workers; start and network too
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_mib": usage.ru_maxrss / 1024}))


def measured(variant: str, videos: list[Path], clips: int) -> tuple[dict[str, float], np.ndarray]:
    """Run `child` on so many clips."""
    with tempfile.TemporaryDirectory() as name:
        folder, mean = Path(name) / "videos", Path(name) / "mean.npy"
        folder.mkdir()
        linked(videos, clips, folder)
        command = [sys.executable, __file__, "--child", variant, str(folder), str(mean)]
        ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result: dict[str, float] = json.loads(ended.stdout.strip().splitlines()[-1])
        return result, np.load(mean)


def compare(videos: list[Path], clips: int, repeats: int) -> dict[str, Any]:
    """All variants in turn, several times."""
    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    means = {}
    for repeat in range(repeats):
        for variant in VARIANTS if repeat % 2 == 0 else VARIANTS[::-1]:
            result, means[variant] = measured(variant, videos, clips)
            runs[variant].append(result)
            print(f"{variant}: {result}", flush=True)
    medians = {
        variant: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for variant, found in runs.items()
    }
    return {
        "clips": clips,
        "repeats": repeats,
        "medians": medians,
        "time_ratios": {
            f"ours/{variant}": round(medians["ours"]["seconds"] / medians[variant]["seconds"], 3)
            for variant in VARIANTS[1:]
        },
        "largest_difference_of_mean_logits": float(abs(means["ours"] - means["cd_fvd"]).max()),
    }


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="videos of at least 16 frames")
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="our memory by number of clips too")
    arguments = parser.parse_args()
    folder = VideoFolder(arguments.folder, ClipProtocol(FRAMES))
    videos = list(dict.fromkeys(place.path for place in folder.places))
    counts = MEMORY_CLIPS if arguments.memory else ()
    memory = {clips: measured("memory", videos, clips)[0]["peak_mib"] for clips in counts}
    facts = {
        "machine": {
            "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "torch": torch.__version__, "load": os.getloadavg()[0],
        },
        "setting": {
            "frames": FRAMES, "batch": BATCH, "cd_fvd_workers": WORKERS, "videos": len(videos),
            "sizes": sorted({f"{place.size[1]} x {place.size[0]}" for place in folder.places}),
        },
        "peak_mib_with_keypoint_net_by_clips": memory,
    }  # fmt: skip
    write_json(RESULTS, {**facts, **compare(videos, arguments.clips, arguments.repeats)})
    print(RESULTS)


if __name__ == "__main__":
    main()
