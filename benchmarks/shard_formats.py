"""litdata against mosaicml-streaming as random-access stores of cached clips, in one run on one machine.

A clip is what the latent cache keeps of it: latents of 64 frames of 512 x 512 pixels, image embeddings, keypoints. A
sample is a window of 14 frames from a random start. Each store writes the same clips, then serves the same windows
in random and in sequential order, cold processes each, warm page cache. "plain" is numpy's memmap: the floor.

    python benchmarks/shard_formats.py OUT.json [--clips 150] [--stores plain litdata litdata-windows mosaic]

mosaicml-streaming 0.13 cannot be installed next to this package (it wants transformers < 5 and numpy < 2.2). To repeat
its figures: `pip install --no-deps --target DIR mosaicml-streaming`, then what its imports ask for, DIR on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

FRAMES, WINDOW, SHARD_BYTES = 64, 14, 64 * 2**20
LATENTS, EMBEDDING, KEYPOINTS = (4, 64, 64), (1024,), (1, 17, 3)
Read = Callable[[int, int], np.ndarray]


def make_clip(number: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    return {
        "latents": random.standard_normal((FRAMES, *LATENTS), np.float32).astype(np.float16),
        "embedding": random.standard_normal((FRAMES, *EMBEDDING), np.float32).astype(np.float16),
        "keypoints": random.random((FRAMES, *KEYPOINTS), np.float32),
    }


def write_plain(folder: Path, clips: int) -> None:
    for number in range(clips):
        for name, array in make_clip(number).items():
            np.save(folder / f"{number}-{name}.npy", array)


def open_plain(folder: Path) -> Read:
    def read(clip: int, start: int) -> np.ndarray:
        names = ("latents", "embedding", "keypoints")
        fields = {name: np.load(folder / f"{clip}-{name}.npy", mmap_mode="r") for name in names}
        return {name: np.array(field[start : start + WINDOW]) for name, field in fields.items()}["latents"]

    return read


def write_litdata(folder: Path, clips: int, windows: bool = False) -> None:
    from litdata import TemporalArrayLoader
    from litdata.streaming import Cache

    cache = Cache(str(folder), chunk_bytes=SHARD_BYTES, item_loader=TemporalArrayLoader() if windows else None)
    for number in range(clips):
        cache[number] = make_clip(number)
    cache.done()
    cache.merge()


def open_litdata(folder: Path) -> Read:
    from litdata import StreamingDataset

    dataset = StreamingDataset(str(folder))
    return lambda clip, start: dataset[clip]["latents"][start : start + WINDOW]


def open_litdata_windows(folder: Path) -> Read:
    from litdata import StreamingDataset, TemporalArrayLoader

    dataset = StreamingDataset(str(folder), item_loader=TemporalArrayLoader())
    return lambda clip, start: dataset.read_window(clip, start, WINDOW)["latents"]


def write_mosaic(folder: Path, clips: int) -> None:
    from streaming import MDSWriter

    columns = {"latents": "ndarray:float16", "embedding": "ndarray:float16", "keypoints": "ndarray:float32"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=SHARD_BYTES) as writer:
        for number in range(clips):
            writer.write(make_clip(number))


def open_mosaic(folder: Path) -> Read:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder), batch_size=1)
    return lambda clip, start: dataset[clip]["latents"][start : start + WINDOW]


STORES = {
    "plain": (write_plain, open_plain),
    "litdata": (write_litdata, open_litdata),
    "litdata-windows": (lambda folder, clips: write_litdata(folder, clips, windows=True), open_litdata_windows),
    "mosaic": (write_mosaic, open_mosaic),
}


def measure_reading(store: str, folder: Path, clips: int, order: str, reads: int) -> dict[str, float]:
    """In a process of its own: seconds until the first window, then windows per second."""
    random = np.random.default_rng(1)
    chosen = random.integers(0, clips, reads) if order == "random" else np.arange(reads) % clips
    starts = random.integers(0, FRAMES - WINDOW, reads, endpoint=True)
    expected = {int(clip): make_clip(int(clip))["latents"] for clip in chosen[:8]}
    began = time.perf_counter()
    read = STORES[store][1](folder)
    read(int(chosen[0]), int(starts[0]))
    opened = time.perf_counter()
    for clip, start in zip(chosen[1:].tolist(), starts[1:].tolist(), strict=True):
        read(clip, start)
    seconds = time.perf_counter() - opened
    for clip, start in zip(chosen[:8].tolist(), starts[:8].tolist(), strict=True):
        assert np.array_equal(read(clip, start), expected[clip][start : start + WINDOW]), store
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first_window_s": opened - began, "windows_per_s": (reads - 1) / seconds, "peak_memory_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=150)
    parser.add_argument("--reads", type=int, default=600)
    parser.add_argument("--stores", nargs="+", default=list(STORES), choices=list(STORES))
    parser.add_argument("--one", nargs=3, metavar=("STORE", "FOLDER", "ORDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        store, folder, order = options.one
        print("RESULT" + json.dumps(measure_reading(store, Path(folder), options.clips, order, options.reads)))
        return
    results: dict[str, dict[str, float]] = {}
    payload = sum(array.nbytes for array in make_clip(0).values()) * options.clips
    for store in options.stores:
        folder = Path(tempfile.mkdtemp(prefix=f"{store}-"))
        began = time.perf_counter()
        STORES[store][0](folder, options.clips)
        row = {"write_mib_per_s": payload / 2**20 / (time.perf_counter() - began)}
        files = [path for path in folder.rglob("*") if path.is_file()]
        row |= {"files": len(files), "size_over_payload": sum(path.stat().st_size for path in files) / payload}
        for order in ("random", "sequential", "random"):  # the last one counts: the page cache is warm by then
            command = [sys.executable, __file__, "-", "--clips", str(options.clips), "--reads", str(options.reads)]
            command += ["--one", store, str(folder), order]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
            row |= {f"{order}_{name}": value for name, value in json.loads(line.removeprefix("RESULT")).items()}
        results[store] = {name: round(value, 4) for name, value in row.items()}
        print(store, json.dumps(results[store], indent=1))
        shutil.rmtree(folder)
    facts = {"clips": options.clips, "reads": options.reads, "payload_mib": payload / 2**20, "cores": os.cpu_count()}
    options.out.write_text(json.dumps({"facts": facts, "stores": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
