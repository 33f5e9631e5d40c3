"""Fixed held-out clips, sampled during training: pictures, and pose accuracy as the early sign of control."""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
from einops import rearrange
from torchvision.utils import save_image

from lisa_video import distributed
from lisa_video.config.schema import RunConfig
from lisa_video.data.batch import ClipBatch, SampleKey, collate
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.loader import shard
from lisa_video.data.manifest import Manifest
from lisa_video.models.backbone import BackboneParts, SideBranch
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.pose.accuracy import PCKCounts, count_correct, total
from lisa_video.pose.detectors.scoring import named_detector


@final
class Preview:
    """Samples the same held-out clips every time, sharded over ranks; ranks without a clip just take part.

    Args:
        config: of the run.
        parts: backbone and codec.
        branch: the branch in training; the caller puts averaged weights into it.
    """

    def __init__(self, config: RunConfig, parts: BackboneParts, branch: SideBranch) -> None:
        sampling = config.sampling.model_copy(update={"num_steps": config.preview.num_steps})
        self._config = config.model_copy(update={"sampling": sampling})
        self._pipeline = PoseVideoPipeline.untrained(self._config, parts, branch)
        self._device = distributed.local_device()
        detector = config.preview.detector
        self._detector = named_detector(detector, str(self._device)) if detector else None
        self._batches, self._num_own = self._clips()

    def _clips(self) -> tuple[list[ClipBatch], int]:
        """This rank's clips, and how many count: at stage 3 ranks gather weights together, so all sample as often."""
        data = self._config.data
        manifest = Manifest(data.manifest, "val")
        dataset = PoseClipDataset(
            manifest, num_frames=data.num_frames, frame_stride=data.frame_stride, size=data.size, random_start=False
        )
        count, ranks = min(self._config.preview.num_clips, len(manifest)), distributed.world_size()
        chosen = shard(range(count), distributed.rank(), ranks)
        stand_ins = [0] * (-(-count // ranks) - len(chosen)) if self._config.training.zero_stage == 3 else []
        return [collate([dataset[SampleKey(index, index)]]) for index in chosen + stand_ins], len(chosen)

    def __call__(self, folder: Path, step: int) -> dict[str, float]:
        """Sample, save a picture a clip, and return `pck_T` over all ranks (empty without a detector)."""
        folder.mkdir(parents=True, exist_ok=True)
        counts: list[PCKCounts] = []
        for number, batch in enumerate(self._batches):
            video = self._pipeline(
                batch.reference, batch.pose_maps, batch.fps, seed=self._config.seed, keys=batch.clip_ids
            )
            if number >= self._num_own:
                continue
            _save_picture(folder / f"step-{step:06d}-{batch.clip_ids[0]}.png", batch, video)
            if self._detector is not None:
                counts.append(count_correct(self._detector.detect(video[0].numpy()), batch.keypoints[0]))
        if self._detector is None:
            return {}
        gathered = [counts for part in distributed.gather([count.to_json() for count in counts]) for counts in part]
        summed = total(PCKCounts.from_json(values) for values in gathered)
        return {f"pck_{threshold:g}": summed.accuracy(threshold) for threshold in summed.thresholds}


def _save_picture(path: Path, batch: ClipBatch, video: torch.Tensor) -> None:
    """Rows: truth, driving pose, sample; columns: frames."""
    rows = [(batch.frames[0] + 1) / 2, batch.pose_maps[0], rearrange(video[0], "f h w c -> f c h w").float() / 255]
    save_image(torch.cat(rows), path, nrow=len(video[0]), padding=1)
