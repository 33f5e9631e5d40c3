"""The denoising loss on held-out clips at fixed noise levels: a curve that falls while the training loss looks flat.

The training loss is an average over clips and noise levels of which every step draws others, and its spread hides what
is learnt. Here clips, noise and noise levels are the same at every step, in every arm and for every training seed, so
that two values differ by the weights alone. Nothing is dropped from the conditions.

A branch may lower the loss without a look at the pose, as any further training of the network would. So the loss is
also measured with the poses of another held-out clip: by how much it is higher is what the pose is worth to the branch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lisa_video import distributed
from lisa_video.conditioning import EncodedBatch, encode_batch
from lisa_video.config.schema import RunConfig
from lisa_video.data.batch import SampleKey, collate
from lisa_video.data.clips import PoseClipDataset
from lisa_video.data.manifest import Manifest
from lisa_video.errors import UserError
from lisa_video.models.backbone import Codec, Condition
from lisa_video.models.build import build_sigmas
from lisa_video.models.controlled import ControlledDenoiser
from lisa_video.randomness import normal

_SEED = 0  # of the noise: not the run's, so that runs of several seeds are compared at the same noise


@torch.no_grad()
def denoising_errors(
    model: ControlledDenoiser,
    x0: Float[Tensor, "B F C h w"],
    noise: Float[Tensor, "B F C h w"],
    sigma: float,
    condition: Condition,
    pose_maps: Float[Tensor, "B F 3 H W"] | None,
) -> Float64[Tensor, " B"]:
    """Mean (m - y)^2 of each clip at one noise level, in the frozen network's prediction space.

    Args:
        model: on the device of the others.
        x0: latents.
        noise: standard normal.
        sigma: noise level of all clips.
        condition: of the frozen network.
        pose_maps: of the branch; None for the frozen network alone.
    """
    process = model.backbone.process
    s = torch.full((len(x0),), sigma, device=x0.device)
    prediction = model(process.add_noise(x0, noise, s), s, condition, pose_maps).controlled
    errors: Tensor = (prediction - process.target(x0, noise, s)).double().square().mean(dim=(1, 2, 3, 4))
    return errors


def misleading(index: int, count: int) -> int:
    """Whose poses mislead a held-out clip: those half the manifest away, since neighbours may be of one video."""
    return (index + (count + 1) // 2) % count


@dataclass(frozen=True)
class LevelLoss:
    """Mean losses over the held-out clips at one noise level, in the frozen network's prediction space.

    Attributes:
        quantile: of the noise level in the training distribution, in (0, 1).
        sigma: the noise level.
        controlled: mean (m - y)^2, with the branch.
        frozen: mean (m0 - y)^2, without it; the same for all weights of a branch.
        misled: mean (m - y)^2, with the branch and the poses of another clip.
    """

    quantile: float
    sigma: float
    controlled: float
    frozen: float
    misled: float

    @property
    def ratio(self) -> float:
        """What is left of the frozen network's error; below 1 the branch helps."""
        return self.controlled / self.frozen

    @property
    def pose_gap(self) -> float:
        """What the right poses are worth, over the frozen network's error; 0: the branch does not look at the pose."""
        return (self.misled - self.controlled) / self.frozen


class _OwnClip(NamedTuple):
    clip_id: str
    batch: EncodedBatch
    other_poses: Tensor
    counts: bool


@final
class HeldOutLoss:
    """Measures a model on the first held-out clips of a run's manifest, sharded over ranks.

    Every rank makes the same number of passes (some count for nothing), so it works with sharded parameters too.

    Args:
        config: data, conditioning and noise distribution of the run.
        codec: of the backbone; only used here, not later.
        num_clips: held-out clips; fewer if the manifest has fewer.
        num_levels: noise levels: the middles of as many equally likely parts of the training distribution.

    Raises:
        UserError: the manifest has no held-out clips that can be read.
    """

    def __init__(self, config: RunConfig, codec: Codec, *, num_clips: int, num_levels: int) -> None:
        self.quantiles = [(level + 0.5) / num_levels for level in range(num_levels)]
        self.sigmas: list[float] = build_sigmas(config.noise).icdf(torch.tensor(self.quantiles)).tolist()
        self._clips = list(_own_clips(config, codec, num_clips))
        self._frozen: list[float] | None = None

    def __call__(self, model: ControlledDenoiser) -> list[LevelLoss]:
        """Losses at each level, rising in sigma; every rank must call it.

        Args:
            model: with the weights to measure; the caller swaps averaged weights in.
        """
        if self._frozen is None:
            self._frozen = self._means(model, lambda clip: None)
        controlled = self._means(model, lambda clip: clip.batch.pose_maps)
        misled = self._means(model, lambda clip: clip.other_poses)
        values = zip(self.quantiles, self.sigmas, controlled, self._frozen, misled, strict=True)
        return [LevelLoss(*level) for level in values]

    def _means(self, model: ControlledDenoiser, poses: Callable[[_OwnClip], Tensor | None]) -> list[float]:
        sums = torch.zeros(len(self.sigmas), dtype=torch.float64)
        for clip in self._clips:
            x0 = clip.batch.latents
            noise = normal(x0.shape[1:], _SEED, [clip.clip_id], "held-out noise", x0.device)
            for level, sigma in enumerate(self.sigmas):
                error = denoising_errors(model, x0, noise, sigma, clip.batch.condition, poses(clip))
                sums[level] += clip.counts * error.item()
        total = sum(clip.counts for clip in self._clips)
        gathered = distributed.gather((sums.tolist(), total))
        clips = sum(count for _, count in gathered)
        return [sum(parts[level] for parts, _ in gathered) / clips for level in range(len(self.sigmas))]


def _own_clips(config: RunConfig, codec: Codec, num_clips: int) -> list[_OwnClip]:
    """This rank's clips, encoded, with another clip's poses; the same number on every rank."""
    data = config.data
    manifest = Manifest(data.manifest, "val")
    if len(manifest) == 0:
        raise UserError("no held-out clips", where=data.manifest, remedy="set diagnostics.held_out_every=0")
    dataset = PoseClipDataset(
        manifest, num_frames=data.num_frames, frame_stride=data.frame_stride, size=data.size, random_start=False
    )
    told = config.conditioning.model_copy(update={"image_dropout": 0.0, "pose_dropout": 0.0})
    chosen, world = min(num_clips, len(manifest)), distributed.world_size()
    clips = []
    for index in range(distributed.rank(), -(-chosen // world) * world, world):
        number = index if index < chosen else 0  # a rank without a clip computes the first again
        both = (number, misleading(number, len(manifest)))
        batch, other = (collate([dataset[SampleKey(n, n)]]).to(distributed.local_device()) for n in both)
        encoded = encode_batch(codec, batch, told, _SEED)
        clips.append(_OwnClip(batch.clip_ids[0], encoded, other.pose_maps, index < chosen))
    return clips
