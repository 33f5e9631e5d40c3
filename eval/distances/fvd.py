"""Frechet and kernel distance between two folders of videos, with everything that a reader of them must know."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.bootstrap import Estimate
from eval.distances import frechet_estimates as estimates
from eval.distances.clip_features import ClipFeatures, clip_features
from eval.distances.features import FeatureExtractor
from eval.distances.frechet import FeatureStatistics, frechet_distance
from eval.distances.kernel_distance import KernelDistance, kernel_distance, paired_kernel_distance
from eval.protocol import protocol_id
from eval.videos import ClipPlace, ClipProtocol, VideoFolder
from lisa_video.errors import UserError


@dataclass(frozen=True)
class FVDSettings:
    """How two folders are compared.

    Attributes:
        clips: which frames of a video make a clip.
        max_clips: of each folder at most, drawn with the seed; None: all.
        infinite: whether to extrapolate to infinitely many clips; needs 4 clips of each folder.
        seed: of the choice of clips, the interval, the floor and the extrapolation.
        batch_size: clips that go through the network at once.
    """

    clips: ClipProtocol
    max_clips: int | None = None
    infinite: bool = False
    seed: int = 0
    batch_size: int = 4


@dataclass
class SetFacts:
    """What one folder held.

    Attributes:
        folder: its path.
        videos: files that look like videos.
        clips: that were used.
        ignored: files that are no videos.
        skipped: (name, reason) of videos that could not be used.
        fps: frames per second of the clips, from lowest to highest; a single number if all are alike.
        sizes: "W x H" of the clips, the most frequent five first.
        digest: of what was used: contents of the videos and first frames, in any order.
    """

    folder: str
    videos: int
    clips: int
    ignored: int
    skipped: list[tuple[str, str]]
    fps: list[float]
    sizes: list[str]
    digest: str


@dataclass
class FVDResult:
    """Distances between the clips of two folders.

    Attributes:
        protocol: everything that the numbers depend on besides the fake clips.
        protocol_id: short name of the protocol.
        frechet: squared Frechet distance, with the spread that other clips would give; see `frechet_interval`.
        kernel: squared kernel distance with its standard error.
        floor: Frechet distance of random halves of the real clips; NaN below four.
        infinite: Frechet distance extrapolated to infinitely many clips, if asked for.
        real: of the real folder.
        fake: of the generated folder.
        notes: what a reader of the numbers has to know.
    """

    protocol: dict[str, Any]
    protocol_id: str
    frechet: Estimate
    kernel: KernelDistance
    floor: float
    infinite: estimates.InfiniteEstimate | None
    real: SetFacts
    fake: SetFacts
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON values, but NaN."""
        return asdict(self)


def run_fvd(
    real_dir: str | Path,
    fake_dir: str | Path,
    extractor: FeatureExtractor,
    settings: FVDSettings,
    *,
    cache: Path | None = None,
) -> FVDResult:
    """Compare two folders of videos.

    Args:
        real_dir: real videos.
        fake_dir: generated videos.
        extractor: of the features.
        settings: how.
        cache: folder where features are kept, so that nothing is computed twice; None: nowhere.

    Raises:
        UserError: no such folder, no videos, fewer than two usable clips, clips of a length that the network does not
            take, or features that are not finite.
    """
    extractor.check_length(settings.clips.num_frames)
    real, fake = VideoFolder(real_dir, settings.clips), VideoFolder(fake_dir, settings.clips)
    chosen = [_chosen(folder, settings) for folder in (real, fake)]  # both, before any work

    def features(folder: VideoFolder, places: list[ClipPlace]) -> ClipFeatures:
        found = clip_features(folder, extractor, places=places, cache=cache, batch_size=settings.batch_size)
        _require(folder, found.places, 4 if settings.infinite else 2)
        return found

    found_real, found_fake = features(real, chosen[0]), features(fake, chosen[1])
    return _compared((real, found_real), (fake, found_fake), extractor, settings)


def _compared(
    real: tuple[VideoFolder, ClipFeatures],
    fake: tuple[VideoFolder, ClipFeatures],
    extractor: FeatureExtractor,
    settings: FVDSettings,
) -> FVDResult:
    """The distances, and what has to be said about them."""
    real_facts, fake_facts = _facts(*real), _facts(*fake)
    real_rows, fake_rows = (part.features.astype(np.float64) for _, part in (real, fake))
    distance = frechet_distance(_statistics(real_rows), _statistics(fake_rows))
    interval = Estimate(distance, distance, distance)
    if real_facts.digest != fake_facts.digest:  # the same clips on both sides have nothing to vary
        interval = estimates.frechet_interval(real_rows, fake_rows, seed=settings.seed)
    protocol = _protocol(real_facts, fake_facts, extractor, settings)
    result = FVDResult(
        protocol=protocol,
        protocol_id=protocol_id(protocol),
        frechet=Estimate(distance, interval.low, interval.high),
        kernel=kernel_distance(real_rows, fake_rows),
        floor=estimates.real_floor(real_rows, seed=settings.seed),
        infinite=None,
        real=real_facts,
        fake=fake_facts,
    )
    if settings.infinite:
        result.infinite = estimates.frechet_infinite(real_rows, fake_rows, seed=settings.seed)
    result.notes += _notes(result, extractor.dimension, real[1].sources, fake[1].sources)
    names = [[(place.name, place.start) for place in part.places] for _, part in (real, fake)]
    if names[0] == names[1] and real_facts.digest != fake_facts.digest:
        result.notes.append(_pair_note(paired_kernel_distance(real_rows, fake_rows)))
    return result


def _pair_note(pairs: KernelDistance) -> str:
    return (
        "both folders hold clips of the same names: if the fake ones were made from the real ones, the sets are not "
        "independent, and KVD is too low; without each clip's own partner it is "
        f"{pairs.value:.4f} ± {pairs.error:.4f}"
    )


def _statistics(rows: np.ndarray) -> FeatureStatistics:
    statistics = FeatureStatistics(rows.shape[1])
    statistics.update(rows)
    return statistics


def _chosen(folder: VideoFolder, settings: FVDSettings) -> list[ClipPlace]:
    """All clips, or a random part in their order; folders with the same names get the same part."""
    places = folder.places
    _require(folder, places, 4 if settings.infinite else 2)
    if settings.max_clips is None or len(places) <= settings.max_clips:
        return places
    order = np.random.default_rng(settings.seed).permutation(len(places))
    return [places[index] for index in sorted(order[: settings.max_clips])]


def _require(folder: VideoFolder, places: Sequence[ClipPlace], fewest: int) -> None:
    if len(places) < fewest:
        raise UserError(
            f"{len(places)} usable clips among {len(folder.names)} videos ({len(folder.skipped)} skipped), "
            f"{fewest} are needed",
            where=folder.root,
            remedy="give more videos, shorter clips (--frames, --stride) or more of each video (--clips-per-video)",
        )


def _facts(folder: VideoFolder, part: ClipFeatures) -> SetFacts:
    rates = [round(place.fps, 3) for place in part.places]
    sizes, counts = np.unique([f"{place.size[1]} x {place.size[0]}" for place in part.places], return_counts=True)
    return SetFacts(
        folder=str(folder.root),
        videos=len(folder.names),
        clips=len(part.places),
        ignored=folder.ignored,
        skipped=list(folder.skipped),
        fps=sorted({min(rates), max(rates)}),
        sizes=[str(size) for size in sizes[np.argsort(-counts, kind="stable")][:5]],
        digest="sha256:" + hashlib.sha256("\n".join(sorted(part.sources)).encode()).hexdigest(),
    )


def _protocol(real: SetFacts, fake: SetFacts, extractor: FeatureExtractor, settings: FVDSettings) -> dict[str, Any]:
    protocol: dict[str, Any] = {
        "score": "FVD: squared Frechet distance between the features of two sets of clips",
        "clips": settings.clips.to_json(),
        "counts": {"real": real.clips, "fake": fake.clips},
        "fps": {"real": real.fps, "fake": fake.fps},
        "features": extractor.protocol,
        "covariance": "unbiased, float64",
        "real": real.digest,
        "choice": "all clips" if settings.max_clips is None else f"at most {settings.max_clips}, seed {settings.seed}",
        "interval": f"95 % bootstrap over clips of both sets, {estimates.DRAWS} draws, centred, seed {settings.seed}",
        "kernel": "unbiased squared MMD over all pairs, (x.y / D + 1)^3; error by jackknife",
        "floor": f"random halves of the real clips, mean of {estimates.SPLITS} splits, seed {settings.seed}",
    }
    if settings.infinite:
        shares = f"{estimates.POINTS} shares of both sets from {estimates.SMALLEST_SHARE:g} to 1"
        protocol["infinite"] = f"line over 1 / share, {shares}, seed {settings.seed}"
    return protocol


def _notes(result: FVDResult, dimension: int, real_sources: list[str], fake_sources: list[str]) -> list[str]:
    real, fake, notes = result.real, result.fake, []
    if real.digest == fake.digest:
        same = Path(real.folder).resolve() == Path(fake.folder).resolve()
        what = "REAL and FAKE are the same folder" if same else "both folders hold the same clips"
        notes.append(f"{what}: FVD is 0, and KVD below 0, since it expects different clips")
    elif shared := len(set(real_sources) & set(fake_sources)):
        notes.append(f"{shared} clips are in both folders")
    for name, facts in (("real", real), ("fake", fake)):
        if facts.skipped:
            notes.append(f"{len(facts.skipped)} of {facts.videos} {name} videos were skipped (listed in the JSON)")
        if facts.ignored:
            notes.append(f"{facts.ignored} files of the {name} folder are no videos")
        if len(facts.sizes) > 1:
            notes.append(f"the {name} clips are of different sizes: {', '.join(facts.sizes)}")
        if len(facts.fps) > 1:
            notes.append(f"the {name} clips run at {facts.fps[0]:g} to {facts.fps[1]:g} frames per second")
    if real.clips != fake.clips:
        notes.append(
            f"{real.clips} real and {fake.clips} fake clips: compare this score only with those of the same counts, "
            f"or use --clips {min(real.clips, fake.clips)}"
        )
    if real.fps != fake.fps:
        notes.append("real and fake clips differ in frames per second; frames are taken by number, not by time")
    if real.sizes[0] != fake.sizes[0]:
        notes.append(f"real clips are {real.sizes[0]}, fake ones {fake.sizes[0]} pixels: the resizing tells them apart")
    fewest = min(real.clips, fake.clips)
    if fewest <= dimension:
        notes.append(
            f"{fewest} clips for {dimension} feature dimensions: the covariance is singular and FVD far too large; "
            "look at the floor, and at KVD, which has no such bias"
        )
    if result.infinite is not None and fewest < 2 * dimension:
        notes.append(f"FVD-infinity cannot be trusted with fewer than {2 * dimension} clips of each set")
    return notes
