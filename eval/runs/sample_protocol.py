"""What generated clips depend on besides the arm: the part of a score's protocol that the scorer cannot see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.runs.generate import GenerationJob
from lisa_video.data.manifest import file_digest


def data_protocol(job: GenerationJob) -> dict[str, Any]:
    """Clips, their condition, and the frozen network."""
    config = job.config
    return {
        "backbone": {
            "path": Path(config.backbone.path).name,
            **config.backbone.model_dump(mode="json", exclude={"path"}),
        },
        "noise_aug_strength": config.conditioning.noise_aug_strength,
        "motion_bucket_id": config.conditioning.motion_bucket_id,
        "frame_stride": config.data.frame_stride,
        "manifest_digest": file_digest(config.data.manifest),
        "reference": "first true frame of the clip",
    }


def sample_protocol(job: GenerationJob) -> dict[str, Any]:
    """The same with the sampler; equal for arms, floor and ceilings, so that they may stand in one table."""
    return {
        "sampling": job.config.sampling.model_dump(mode="json", exclude_none=True),
        "sampling_precision": "float32",
        "sampling_seed": job.seed,
        **data_protocol(job),
    }
