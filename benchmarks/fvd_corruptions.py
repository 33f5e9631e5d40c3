"""Does FVD notice spoilt videos? Six corruptions at four strengths, each against the same clips as they were.

    python benchmarks/fvd_corruptions.py real=clips demo=runs/demo/videos --clips 24 --cache runs/fvd_corruptions
    python benchmarks/fvd_corruptions.py demo=runs/demo/videos ... --only noise,blur        # a part, into the cache

Features are kept clip by clip in the cache, so a killed study continues. The clips of a folder are drawn by a fixed
seed. `benchmarks/real_footage.py` makes the real clips; nothing of them is stored in the results.
"""

from __future__ import annotations

import argparse
import logging
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from eval.bootstrap import Estimate, estimate
from eval.distances.clip_features import clip_features
from eval.distances.corruptions import MEANINGS, STRENGTHS, CorruptedFeatures
from eval.distances.extractors.load import load_extractor
from eval.distances.features import FeatureExtractor
from eval.distances.frechet import frechet_of_features
from eval.distances.frechet_estimates import DRAWS, real_floor
from eval.distances.kernel_distance import paired_kernel_distance
from eval.json_files import write_json
from eval.protocol import protocol_id
from eval.videos import ClipPlace, ClipProtocol, VideoFolder

RESULTS = Path(__file__).parent / "results" / "fvd_corruptions.json"
PLOT = Path(__file__).parents[1] / "docs" / "images" / "fvd_corruptions.png"
SEED = 0


def drawn(folder: VideoFolder, clips: int) -> list[ClipPlace]:
    """Clips by the seed; a smaller number is part of a larger one."""
    order = np.random.default_rng(SEED).permutation(len(folder.places))
    return [folder.places[index] for index in sorted(order[:clips])]


def study(
    folder: VideoFolder, extractor: FeatureExtractor, clips: int, kinds: list[str], cache: Path
) -> dict[str, Any]:
    """Distances of one folder's clips from their spoilt copies."""
    places = drawn(folder, clips)
    plain = clip_features(folder, extractor, places=places, cache=cache)
    real = plain.features.astype(np.float64)
    scores: dict[str, Any] = {}
    for kind in kinds:
        scores[kind] = []
        for strength in STRENGTHS[kind]:
            spoilt = CorruptedFeatures(extractor, kind, strength)
            found = clip_features(folder, spoilt, places=plain.places, cache=cache).features.astype(np.float64)
            frechet, kernel = paired_interval(real, found), paired_kernel_distance(real, found)
            scores[kind].append({
                "strength": strength, "fvd": frechet.value, "fvd_low": frechet.low, "fvd_high": frechet.high,
                "kvd": kernel.value, "kvd_error": kernel.error,
            })  # fmt: skip
    return {
        "clips": len(real),
        "fps": sorted({round(place.fps, 3) for place in plain.places}),
        "sizes": sorted({f"{place.size[1]} x {place.size[0]}" for place in plain.places}),
        "skipped": len(folder.skipped),
        "floor_of_halves": real_floor(real, seed=SEED),
        "scores": scores,
        "fvd_rises": {kind: _rises(rows, "fvd") for kind, rows in scores.items()},
        "kvd_rises": {kind: _rises(rows, "kvd") for kind, rows in scores.items()},
    }


def paired_interval(real: np.ndarray, found: np.ndarray) -> Estimate:
    """As `frechet_interval`, but clips are drawn together with their spoilt copies."""
    generator, value = np.random.default_rng(SEED), frechet_of_features(real, found)
    draws = [generator.integers(len(real), size=len(real)) for _ in range(DRAWS)]
    drawn = np.array([frechet_of_features(real[rows], found[rows]) for rows in draws])
    return estimate(value, np.maximum(0.0, drawn - drawn.mean() + value))


def _rises(rows: list[dict[str, float]], score: str) -> bool:
    values = [row[score] for row in rows]
    return values[0] > 0 and all(a < b for a, b in pairwise(values))


def plot(sets: dict[str, Any], path: Path) -> None:
    """A panel for each corruption; a line for each folder, with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(10, 5.6), sharey=True, layout="constrained")
    for axis, kind in zip(axes.flat, STRENGTHS, strict=True):
        for number, (name, found) in enumerate(sets.items()):
            rows, colour = found["scores"][kind], f"C{number}"
            places, values = range(len(rows)), [row["fvd"] for row in rows]
            axis.plot(places, values, "o-", color=colour, label=f"{name}, {found['clips']} clips")
            lows, highs = ([max(1.0, row[key]) for row in rows] for key in ("fvd_low", "fvd_high"))
            axis.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)
            axis.axhline(found["floor_of_halves"], color=colour, linestyle=":", linewidth=1)
        axis.set(title=kind, yscale="log", xticks=range(4), xticklabels=[f"{value:g}" for value in STRENGTHS[kind]])
        axis.set_xlabel(textwrap.fill(MEANINGS[kind].partition(" (")[0], 44), fontsize=7)
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("FVD against the clips as they were")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="NAME=FOLDER of videos, or NAME=FOLDER@CLIPS")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--extractor", default="i3d")
    parser.add_argument("--only", help="corruptions such as noise,blur: fills the cache, writes no results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, default=PLOT)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    extractor = load_extractor(arguments.extractor)
    protocol = ClipProtocol(num_frames=16, clips_per_video=None)
    kinds = arguments.only.split(",") if arguments.only else list(STRENGTHS)
    sets = {}
    for named in arguments.folders:
        name, _, place = named.partition("=")
        folder, _, clips = place.partition("@")
        count = int(clips or arguments.clips)
        sets[name] = study(VideoFolder(folder, protocol), extractor, count, kinds, arguments.cache)
        for kind, rows in sets[name]["scores"].items():
            print(f"{name} {kind}: FVD " + " ".join(f"{row['fvd']:.1f}" for row in rows))
    if arguments.only:
        return
    facts = {
        "score": "FVD and KVD of spoilt clips against the same clips",
        "frames": protocol.to_json(), "features": extractor.protocol, "covariance": "unbiased, float64",
        "interval": f"95 % bootstrap over clips with their copies, {DRAWS} draws, centred, seed {SEED}",
        "kernel": "(x.y / D + 1)^3 over different pairs, without partners; error by jackknife",
        "clips": {name: found["clips"] for name, found in sets.items()} | {"seed": SEED},
        "strengths": STRENGTHS, "meanings": MEANINGS,
    }  # fmt: skip
    write_json(arguments.out, {"protocol_id": protocol_id(facts), "protocol": facts, "sets": sets})
    plot(sets, arguments.plot)
    print(f"{arguments.out}\n{arguments.plot}")


if __name__ == "__main__":
    main()
