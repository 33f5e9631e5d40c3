"""Features of all clips of a folder, computed while the next clips are decoded; kept in a folder, a file a clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from eval.distances.features import FeatureExtractor
from eval.protocol import protocol_id
from eval.videos import ClipPlace, ClipProtocol, VideoClip, VideoFolder, ahead
from lisa_video.data.manifest import file_digest
from lisa_video.errors import UserError


@dataclass(frozen=True)
class ClipFeatures:
    """Features of the clips of one folder.

    Attributes:
        places: of the clips that could be decoded.
        sources: for each, what it is whatever the file is called: digest of the video, and first frame.
        features: a row for each.
    """

    places: list[ClipPlace]
    sources: list[str]
    features: Float[np.ndarray, "N D"]


class FeatureStore:
    """Features on disk by content: digest of the video, first frame, and everything that changes them.

    Args:
        folder: of all stores; None keeps nothing.
        extractor: whose features.
        protocol: which frames.
    """

    def __init__(self, folder: Path | None, extractor: FeatureExtractor, protocol: ClipProtocol) -> None:
        key = {"features": extractor.protocol, "frames": protocol.num_frames, "stride": protocol.stride}
        self._folder = folder and folder / protocol_id(key)
        self._shape = (extractor.dimension,)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def load(self, source: str) -> Float[np.ndarray, " D"] | None:
        """Features that were saved before; None if there are none, or only a damaged file."""
        if self._folder is None or not (path := self._folder / f"{source}.npy").is_file():
            return None
        try:
            row: np.ndarray = np.load(path)
        except (ValueError, EOFError):
            return None
        return row if row.shape == self._shape else None

    def save(self, source: str, row: Float[np.ndarray, " D"]) -> None:
        """Keep the features of a clip; the file appears whole or not at all."""
        if self._folder is not None:
            draft = self._folder / f"{source}.tmp"
            with open(draft, "wb") as file:
                np.save(file, row)
            draft.replace(self._folder / f"{source}.npy")


def clip_features(
    folder: VideoFolder,
    extractor: FeatureExtractor,
    *,
    places: list[ClipPlace] | None = None,
    cache: Path | None = None,
    batch_size: int = 4,
) -> ClipFeatures:
    """Features of clips, in their order; clips that cannot be decoded are left out (see `folder.skipped`).

    In memory are the features (4 bytes a number) and the few clips that are being worked on.

    Args:
        folder: of the videos.
        extractor: of the features.
        places: some of `folder.places`; None: all.
        cache: folder where features are kept, so that a killed evaluation goes on; None: nowhere.
        batch_size: clips that go through the network at once.

    Raises:
        UserError: a clip has features that are not finite, or its length does not suit the network.
    """
    chosen = folder.places if places is None else places
    store = FeatureStore(cache, extractor, folder.protocol)
    paths = list(dict.fromkeys(place.path for place in chosen))
    digests = dict(zip(paths, ahead(file_digest, paths), strict=True))
    sources = {place: f"{digests[place.path].removeprefix('sha256:')}-{place.start}" for place in chosen}
    rows = {place: store.load(source) for place, source in sources.items()}
    missing = [place for place, row in rows.items() if row is None]
    with tqdm(total=len(rows), initial=len(rows) - len(missing), desc=f"{folder.root.name}", unit="clip") as bar:
        for batch in _batches(folder.clips(missing), batch_size):
            found = extractor.features(np.stack([clip.frames for clip in batch])).astype(np.float32)
            for clip, row in zip(batch, found, strict=True):
                if not np.isfinite(row).all():
                    raise UserError(
                        f"the features of the clip at frame {clip.place.start} are not finite",
                        where=clip.place.path,
                        remedy="look at this video; if it is sound, the network's weights are damaged",
                    )
                rows[clip.place] = row
                store.save(sources[clip.place], row)
            bar.update(len(batch))
    known = [place for place, row in rows.items() if row is not None]
    features = np.array([rows[place] for place in known], np.float32).reshape(len(known), extractor.dimension)
    return ClipFeatures(known, [sources[place] for place in known], features)


def _batches(clips: Iterable[VideoClip], size: int) -> Iterator[list[VideoClip]]:
    """Clips of one frame size together, in their order."""
    batch: list[VideoClip] = []
    for clip in clips:
        if batch and (len(batch) == size or clip.frames.shape != batch[0].frames.shape):
            yield batch
            batch = []
        batch.append(clip)
    if batch:
        yield batch
