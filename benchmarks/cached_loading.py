"""Samples a second of the training loader at SVD's size: from videos, and from the latent cache; and its memory.

Clips of 64 frames, windows of 14 at 512 x 512 pixels, COCO-17 keypoints, mirrored half of the time. The videos are
moving textures in H.264 (about 3 Mbit/s at 640 x 480), the latents of the cache random numbers of the real shape and
type: the loader does not care, and no GPU is needed to make them. Both loaders are measured in turns, since machines
are shared. Then 2,000 different clips are read in a row, and the memory of the process is noted on the way.

    python benchmarks/cached_loading.py            # writes benchmarks/results/cached_loading_cpu.json; 1 GB of disk
    python benchmarks/cached_loading.py --url http://host/cache   # the cache of --keep FOLDER, behind any store
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from data_tools.cache_encoding import _pack
from data_tools.cache_parts import EncodedClip, PartWriter, publish, write_atomically
from lisa_video.config.schema import DataConfig
from lisa_video.data.batch import ClipBatch
from lisa_video.data.cache import CacheFacts, clip_key, frames_store
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.geometry import Geometry
from lisa_video.data.loader import build_loader
from lisa_video.data.manifest import ClipRecord, file_digest, iter_records, write_manifest
from lisa_video.data.video_io import write_video
from lisa_video.pose.keypoints import Keypoints, save_keypoints

RESULTS = Path(__file__).parent / "results"
FRAMES, WINDOW, SIZE, SOURCE = 64, 14, (512, 512), (480, 640)
VIDEOS, CLIPS = 24, 2000


def moving_texture(number: int) -> np.ndarray:
    """(FRAMES, H, W, 3) uint8: a smooth random picture that slides, with a little noise of a camera."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (SOURCE[0] // 8, SOURCE[1] // 6, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (SOURCE[1] + 2 * FRAMES, SOURCE[0]), interpolation=cv2.INTER_CUBIC)
    frames = np.stack([picture[:, 2 * shift : 2 * shift + SOURCE[1]] for shift in range(FRAMES)]).astype(np.int16)
    noise = random.normal(0, 2, (*SOURCE, 3)).astype(np.int16)
    return np.clip(frames + np.stack([np.roll(noise, shift) for shift in range(FRAMES)]), 0, 255).astype(np.uint8)


def write_data_set(folder: Path) -> None:
    """24 videos, and a manifest of 2,000 records of them."""
    records = []
    for number in tqdm(range(VIDEOS), desc="videos"):
        write_video(folder / f"{number}.mp4", moving_texture(number), 24, crf=23)
        random = np.random.default_rng(number)
        xy = random.uniform(40, 440, (FRAMES, 1, 17, 2)).astype(np.float32)
        save_keypoints(folder / f"{number}.npz", Keypoints(xy, np.ones((FRAMES, 1, 17), np.float32), np.zeros(1, int)))
    for clip in range(CLIPS):
        name = f"{clip % VIDEOS}"
        records.append(
            ClipRecord(
                clip_id=f"clip-{clip:05d}", video=f"{name}.mp4", start_frame=0, num_frames=FRAMES, fps=24.0,
                width=SOURCE[1], height=SOURCE[0], keypoints=f"{name}.npz", split="train", source=name,
                source_digest=file_digest(folder / f"{name}.mp4"),
            )
        )  # fmt: skip
    write_manifest(folder / "manifest.jsonl", records)


def write_cache(folder: Path, out: Path) -> dict[str, float]:
    """The cache of these clips, with random latents; returns MiB a clip of each kind."""
    (out / "parts").mkdir(parents=True)
    data = DataConfig(manifest=str(folder / "manifest.jsonl"))
    dataset = PoseClipDataset.for_training(data, 0)
    writer, kinds = PartWriter(out), {"latents and embeddings": 0, "pictures": 0, "keypoints": 0}
    for index in tqdm(range(VIDEOS), desc="cache"):
        random = np.random.default_rng(index)
        content = dataset.source.read(
            index, dataset.manifest[index], np.arange(FRAMES), Geometry(SOURCE, SIZE, mirror=False)
        )
        packed = [_pack(frame) for frame in content.frames[: FRAMES - WINDOW + 1]]
        sizes = np.array([len(picture) for picture in packed])
        picture = np.zeros((FRAMES, 2), np.int64)
        picture[: len(sizes)] = np.stack([np.cumsum(sizes) - sizes, sizes], axis=1)
        fields = {"picture": picture}
        for suffix in ("", "_mirrored"):
            fields[f"latents{suffix}"] = random.standard_normal((FRAMES, 4, 64, 64), np.float32).astype(np.float16)
            fields[f"embedding{suffix}"] = random.standard_normal((FRAMES, 1, 1024), np.float32).astype(np.float16)
        clip = EncodedClip(fields, b"".join(packed), (folder / f"{index}.npz").read_bytes())
        writer.add(clip_key(dataset.manifest[index], SIZE), frames_store(SIZE), clip)
        for kind, size in zip(
            kinds, (sum(f.nbytes for f in fields.values()), sizes.sum(), len(clip.poses)), strict=True
        ):
            kinds[kind] += int(size)
        if writer.num_bytes > 128 * 2**20:
            writer.close()
            writer = PartWriter(out)
    writer.close()
    share_records(out, list(iter_records(data.manifest)))
    facts = CacheFacts(codec="none", dtype="float16", mirrored=True, span=WINDOW, manifest=file_digest(data.manifest))
    publish(out, facts)
    return {kind: round(size / VIDEOS / 2**20, 3) for kind, size in kinds.items()}


def share_records(out: Path, records: list[ClipRecord]) -> None:
    """Give every record of the manifest an entry that points at the content of its video."""
    keys = [clip_key(record, SIZE).hex() for record in records]
    for path in (out / "parts").glob("*.json"):
        part = json.loads(path.read_text(encoding="utf-8"))
        same = {clip["key"]: keys[keys.index(clip["key"]) :: VIDEOS] for clip in part["clips"]}
        part["clips"] = [{**clip, "key": key} for clip in part["clips"] for key in same[clip["key"]]]
        write_atomically(path, json.dumps(part).encode())


def batches(data: DataConfig, num_workers: int, start: int = 0) -> Iterator[ClipBatch]:
    dataset = PoseClipDataset.for_training(data, 0)
    loader = build_loader(
        dataset, num_clips=len(dataset), micro_batch_size=1, num_workers=num_workers, start_position=start
    )
    return iter(loader)


def rate(data: DataConfig, num_workers: int, start: int, samples: int) -> float:
    """Samples a second after the first ones, which wait for the processes to start."""
    stream = batches(data, num_workers, start)
    for _ in islice(stream, 2 * max(num_workers, 1) + 2):
        pass
    began = time.perf_counter()
    for batch in islice(stream, samples):
        assert not batch.skipped
    return samples / (time.perf_counter() - began)


def memory() -> dict[str, int]:
    """MiB of this process: its own, and of files that are mapped into it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"own": int(lines["RssAnon"].split()[0]) // 1024, "mapped": int(lines["RssFile"].split()[0]) // 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder for the data; a temporary one if not given")
    parser.add_argument("--url", help="read the cache from here instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--out", type=Path, default=RESULTS / "cached_loading_cpu.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        sizes = {}
        if not (folder / "cache/cache.json").is_file():
            folder.mkdir(exist_ok=True, parents=True)
            write_data_set(folder)
            sizes = write_cache(folder, folder / "cache")
        videos = DataConfig(manifest=str(folder / "manifest.jsonl"), num_workers=0)
        cached = videos.model_copy(update={"cache": options.url or str(folder / "cache")})
        rates: dict[str, list[float]] = {}
        for turn in range(options.rounds):
            for workers in (0, 1, 2):
                for name, data in (("videos", videos), ("cache", cached)):
                    found = rate(data, workers, turn * 300, options.samples)
                    rates.setdefault(f"{name}, {workers} workers", []).append(found)
                    print(f"{name}, {workers} workers: {found:.1f} samples/s", flush=True)
        noted = {}
        for seen, batch in enumerate(islice(batches(cached, 0), CLIPS), start=1):
            assert not batch.skipped
            if seen in (100, 500, 1000, 1500, CLIPS):
                noted[str(seen)] = memory()
                print(seen, noted[str(seen)], flush=True)
    result = {
        "samples_per_second": {name: round(statistics.median(values), 2) for name, values in rates.items()},
        "all_rounds": {name: [round(value, 2) for value in values] for name, values in rates.items()},
        "mib_per_clip": sizes,
        "memory_mib_after_clips": noted,
        "cache": options.url or "local disk, warm page cache",
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
        },
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
