"""Features of the clips of a job, kept a file a clip, so that a killed evaluation goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from eval.distances.clip_features import FeatureStore
from eval.distances.features import FeatureExtractor
from eval.runs.generate import GenerationJob
from eval.runs.job_clips import JobClips
from eval.videos import ClipProtocol, ahead

_Item = TypeVar("_Item")
_BATCH = 8  # clips that go through the network at once


def kept_features(job: GenerationJob, extractor: FeatureExtractor) -> dict[str, Float[np.ndarray, " D"]]:
    """A row for each clip of a job that could be used, by its name; computed where they are not known yet.

    Args:
        job: whose clips; they must have been sampled.
        extractor: of the features.

    Raises:
        UserError: the network does not take clips of this length.
    """
    clips, data = JobClips(job), job.config.data
    extractor.check_length(data.num_frames)
    store = FeatureStore(clips.folder / "features", extractor, ClipProtocol(data.num_frames, data.frame_stride))
    rows = {clips.clip_id(place): store.load(clips.clip_id(place)) for place in range(len(clips))}
    missing = [place for place in range(len(clips)) if rows[clips.clip_id(place)] is None]
    title = f"features of {clips.folder.name}"
    with tqdm(total=len(rows), initial=len(rows) - len(missing), desc=title, unit="clip", disable=not missing) as bar:
        decoded = zip(missing, ahead(clips.frames, missing, _BATCH), strict=True)
        for batch in _batches(decoded):
            known = [(clips.clip_id(place), frames) for place, frames in batch if frames is not None]
            if known:
                found = extractor.features(np.stack([frames for _, frames in known])).astype(np.float32)
                for (clip_id, _), row in zip(known, found, strict=True):
                    rows[clip_id] = row
                    store.save(clip_id, row)
            bar.update(len(batch))
    return {clip_id: row for clip_id, row in rows.items() if row is not None}


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    source = iter(items)
    while batch := list(islice(source, _BATCH)):
        yield batch
