"""Denoising loss on held-out clips by noise level: what training lowers, where training has not looked.

Clips, noise levels and noise are the same for every arm and checkpoint, so that differences between arms are paired.
No condition is dropped. The levels are quantiles of the log-normal distribution in common use for SVD, whatever the
run trained on, so that runs with other distributions stay comparable.

The loss is also measured with the poses of another clip: by how much it is higher tells what the right ones are
worth to the branch (`pose_gap`, as training logs it).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from eval.bootstrap import Estimate, ratio_estimate
from eval.json_files import write_json
from eval.protocol import UnderProtocol, clips_digest
from eval.runs.generate import GenerationJob, group_size, held_out, held_out_clips, load_pipeline
from eval.runs.sample_protocol import data_protocol
from lisa_video.data.batch import Clip, SampleKey, collate
from lisa_video.diffusion.sigma import LogNormalSigma
from lisa_video.held_out_loss import denoising_errors, misleading
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.randomness import normal

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the noise level: about 0.26, 0.87, 2.0, 4.7 and 15.6."""


Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class HeldOutLoss(UnderProtocol):
    """Mean square errors in the frozen network's prediction space.

    Attributes:
        protocol: everything that the numbers depend on besides the weights.
        sigmas: Q noise levels.
        clip_ids: N clips.
        losses: N rows of Q.
        misled: the same with the poses of another clip; of the frozen network alone: equal to `losses`.
        frozen: the same of the frozen network alone.
    """

    sigmas: tuple[float, ...]
    clip_ids: tuple[str, ...]
    losses: Rows
    misled: Rows
    frozen: Rows

    @property
    def array(self) -> Float[np.ndarray, "N Q"]:
        """The losses."""
        return np.array(self.losses, np.float64)

    @property
    def mean(self) -> float:
        """Over clips and noise levels."""
        return float(self.array.mean())

    @property
    def gaps(self) -> Float[np.ndarray, " N"]:
        """How much higher the loss of each clip is with the poses of another one, over the noise levels."""
        gaps: np.ndarray = (np.array(self.misled) - self.array).mean(axis=1)
        return gaps

    @property
    def frozen_means(self) -> Float[np.ndarray, " N"]:
        """The frozen network's loss of each clip, over the noise levels: the unit of the pose gap."""
        means: np.ndarray = np.array(self.frozen).mean(axis=1)
        return means

    @property
    def pose_gap(self) -> Estimate:
        """The mean of `gaps` over that of `frozen_means`; 0: the branch does not look at the pose."""
        return ratio_estimate(self.gaps, self.frozen_means, seed=0)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> HeldOutLoss:
        """What `write_json` wrote."""
        parts = (tuple(tuple(row) for row in values[name]) for name in ("losses", "misled", "frozen"))
        return cls(values["protocol"], tuple(values["sigmas"]), tuple(values["clip_ids"]), *parts)


def pose_gap_difference(a: HeldOutLoss, b: HeldOutLoss) -> Estimate:
    """The pose gap of b less that of a, over the same clips; a draw takes the same clips of both."""
    return ratio_estimate(b.gaps - a.gaps, a.frozen_means, seed=0)


def held_out_loss(job: GenerationJob) -> HeldOutLoss:
    """The loss of a job's weights, or of the frozen network alone (source "uncontrolled"); kept beside the samples.

    Raises:
        UserError: no such run, no weights yet, or weights that do not fit the backbone.
    """
    if job.source not in ("controlled", "uncontrolled"):
        raise ValueError(f"{job.source} clips come from no denoising network")
    # Nothing is sampled here: runs that are sampled in several ways are measured once.
    job = replace(job, overrides=tuple(o for o in job.overrides if not o.startswith("sampling.")))
    path = job.folder / f"held-out-loss-{job.num_clips}.json"
    facts = _facts(job)
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if facts.items() <= known["protocol"].items():
            return HeldOutLoss.from_json(known)
    frozen = None  # the same for all weights of a run, so measured once
    if job.source == "controlled":
        frozen = held_out_loss(replace(job, source="uncontrolled", step=None)).losses
    pipeline = load_pipeline(job)
    sigmas = LogNormalSigma().icdf(torch.tensor(QUANTILES))
    ids: list[str] = []
    found: list[Float[Tensor, "B P Q"]] = []
    batches = _batches(_with_other_poses(job), group_size(job))
    with tqdm(total=job.num_clips, desc=f"loss {job.folder.name}", unit="clip") as bar:
        for pairs in batches:
            ids += [clip.clip_id for clip, _ in pairs]
            found.append(_losses(pipeline, pairs, sigmas, job))
            bar.update(len(pairs))
    protocol = {**facts, "clips": len(ids), "clips_digest": clips_digest(ids)}
    losses, *misled = (tuple(map(tuple, part)) for part in torch.cat(found).transpose(0, 1).tolist())
    of_others = misled[0] if misled else losses
    result = HeldOutLoss(protocol, tuple(sigmas.tolist()), tuple(ids), losses, of_others, frozen or losses)
    write_json(path, asdict(result))
    return result


def _with_other_poses(job: GenerationJob) -> Iterator[tuple[Clip, Clip]]:
    """The job's clips, each with one whose poses mislead."""
    dataset = held_out(job.config)
    for clip in held_out_clips(job.config, job.num_clips):
        far = misleading(clip.position, len(dataset))
        yield clip, dataset[SampleKey(far, far)]


@torch.no_grad()
def _losses(
    pipeline: PoseVideoPipeline,
    pairs: Sequence[tuple[Clip, Clip]],
    sigmas: Float[Tensor, " Q"],
    job: GenerationJob,
) -> Float[Tensor, "B P Q"]:
    """Loss of each clip at each noise level, shown its own poses and those of another; of the frozen network: once."""
    contract, device = pipeline.contract, next(pipeline.denoiser.parameters()).device
    batch, other = (collate(clips).to(device) for clips in zip(*pairs, strict=True))
    keys, x0 = batch.clip_ids, pipeline.codec.encode_video(batch.frames)
    condition = pipeline.codec.encode_reference(
        batch.reference,
        normal(batch.reference.shape[1:], job.seed, keys, "held-out reference", device),
        batch.fps,
        noise_aug_strength=contract["noise_aug_strength"],
        motion_bucket_id=contract["motion_bucket_id"],
    )
    shown = (batch.pose_maps, other.pose_maps) if job.source == "controlled" else (None,)
    columns = []
    for place, sigma in enumerate(sigmas.tolist()):
        noise = normal(x0.shape[1:], job.seed, keys, f"held-out noise {place}", device)
        errors = [denoising_errors(pipeline.denoiser, x0, noise, sigma, condition, poses) for poses in shown]
        columns.append(torch.stack(errors, dim=1))
    return torch.stack(columns, dim=2).cpu()


def _batches(pairs: Iterator[tuple[Clip, Clip]], size: int) -> Iterator[list[tuple[Clip, Clip]]]:
    while batch := list(islice(pairs, size)):
        yield batch


def _facts(job: GenerationJob) -> dict[str, Any]:
    """What is known before anything is computed."""
    return {
        "score": "denoising loss: mean square error in the network's prediction space, weight 1",
        "levels": f"quantiles {', '.join(map(str, QUANTILES))} of ln sigma ~ N(0.7, 1.6 squared)",
        "noise": f"one draw a clip and level, seed {job.seed}",
        "condition": "first true frame, nothing dropped",
        "pose_gap": "with the poses of the clip half the manifest away, over the frozen network's loss",
        "precision": "float32",
        **data_protocol(job),
    }
