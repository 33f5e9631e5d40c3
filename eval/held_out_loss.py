"""Denoising loss on held-out clips by noise level: what training lowers, where training has not looked.

Clips, noise levels and noise are the same for every arm and checkpoint, so that differences between arms are paired.
No condition is dropped. The levels are quantiles of the log-normal distribution in common use for SVD, whatever the
run trained on, so that runs with other distributions stay comparable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from eval.generate import GenerationJob, group_size, held_out_clips, load_pipeline
from eval.json_files import write_json
from eval.protocol import UnderProtocol, clips_digest
from eval.sample_protocol import data_protocol
from lisa_video.data.batch import Clip, collate
from lisa_video.diffusion.sigma import LogNormalSigma
from lisa_video.held_out_loss import denoising_errors
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.randomness import normal

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the noise level: about 0.26, 0.87, 2.0, 4.7 and 15.6."""


@dataclass(frozen=True)
class HeldOutLoss(UnderProtocol):
    """Mean square errors in the frozen network's prediction space.

    Attributes:
        protocol: everything that the numbers depend on besides the weights.
        sigmas: Q noise levels.
        clip_ids: N clips.
        losses: N rows of Q.
    """

    sigmas: tuple[float, ...]
    clip_ids: tuple[str, ...]
    losses: tuple[tuple[float, ...], ...]

    @property
    def array(self) -> Float[np.ndarray, "N Q"]:
        """The losses."""
        return np.array(self.losses, np.float64)

    @property
    def mean(self) -> float:
        """Over clips and noise levels."""
        return float(self.array.mean())

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> HeldOutLoss:
        """What `write_json` wrote."""
        losses = tuple(tuple(row) for row in values["losses"])
        return cls(values["protocol"], tuple(values["sigmas"]), tuple(values["clip_ids"]), losses)


def held_out_loss(job: GenerationJob) -> HeldOutLoss:
    """The loss of a job's weights, or of the frozen network alone (source "uncontrolled"); kept beside the samples.

    Raises:
        UserError: no such run, no weights yet, or weights that do not fit the backbone.
    """
    if job.source not in ("controlled", "uncontrolled"):
        raise ValueError(f"{job.source} clips come from no denoising network")
    path = job.folder / f"held-out-loss-{job.num_clips}.json"
    facts = _facts(job)
    if path.is_file():
        known = HeldOutLoss.from_json(json.loads(path.read_text(encoding="utf-8")))
        if facts.items() <= known.protocol.items():
            return known
    pipeline = load_pipeline(job)
    sigmas = LogNormalSigma().icdf(torch.tensor(QUANTILES))
    ids: list[str] = []
    rows: list[tuple[float, ...]] = []
    batches = _batches(held_out_clips(job.config, job.num_clips), group_size(job))
    with tqdm(total=job.num_clips, desc=f"loss {job.folder.name}", unit="clip") as bar:
        for clips in batches:
            ids += [clip.clip_id for clip in clips]
            rows += [tuple(row) for row in _losses(pipeline, clips, sigmas, job).tolist()]
            bar.update(len(clips))
    protocol = {**facts, "clips": len(ids), "clips_digest": clips_digest(ids)}
    result = HeldOutLoss(protocol, tuple(sigmas.tolist()), tuple(ids), tuple(rows))
    write_json(path, asdict(result))
    return result


@torch.no_grad()
def _losses(
    pipeline: PoseVideoPipeline, clips: Sequence[Clip], sigmas: Float[Tensor, " Q"], job: GenerationJob
) -> Float[Tensor, "B Q"]:
    """Loss of each clip at each noise level."""
    contract, device = pipeline.contract, next(pipeline.denoiser.parameters()).device
    batch = collate(clips).to(device)
    keys, x0 = batch.clip_ids, pipeline.codec.encode_video(batch.frames)
    condition = pipeline.codec.encode_reference(
        batch.reference,
        normal(batch.reference.shape[1:], job.seed, keys, "held-out reference", device),
        batch.fps,
        noise_aug_strength=contract["noise_aug_strength"],
        motion_bucket_id=contract["motion_bucket_id"],
    )
    pose_maps = batch.pose_maps if job.source == "controlled" else None
    columns = []
    for place, sigma in enumerate(sigmas.tolist()):
        noise = normal(x0.shape[1:], job.seed, keys, f"held-out noise {place}", device)
        columns.append(denoising_errors(pipeline.denoiser, x0, noise, sigma, condition, pose_maps))
    return torch.stack(columns, dim=1).cpu()


def _batches(clips: Iterator[Clip], size: int) -> Iterator[list[Clip]]:
    while batch := list(islice(clips, size)):
        yield batch


def _facts(job: GenerationJob) -> dict[str, Any]:
    """What is known before anything is computed."""
    return {
        "score": "denoising loss: mean square error in the network's prediction space, weight 1",
        "levels": f"quantiles {', '.join(map(str, QUANTILES))} of ln sigma ~ N(0.7, 1.6 squared)",
        "noise": f"one draw a clip and level, seed {job.seed}",
        "condition": "first true frame, nothing dropped",
        "precision": "float32",
        **data_protocol(job),
    }
