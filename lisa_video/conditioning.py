"""From a batch of clips to what the objective sees: latents, the reference condition, and dropped conditions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lisa_video.config.schema import ConditioningConfig
from lisa_video.data.batch import ClipBatch
from lisa_video.models.backbone import Codec, Condition
from lisa_video.randomness import normal, uniform


class EncodedBatch(NamedTuple):
    """A batch in the frozen network's terms.

    Attributes:
        latents: (B, F, C, h, w) scaled latents x0.
        condition: the reference image's condition, some of it dropped.
        pose_maps: (B, F, 3, H, W) in [0, 1], some blanked.
        positions: B sample positions, the keys of all random numbers.
    """

    latents: Tensor
    condition: Condition
    pose_maps: Tensor
    positions: tuple[int, ...]


@torch.no_grad()
def encode_batch(codec: Codec, batch: ClipBatch, settings: ConditioningConfig, seed: int) -> EncodedBatch:
    """Encode what is not encoded yet and drop conditions, as functions of (seed, sample position) only.

    The reference is always encoded here: its latents are of the picture plus noise of the sample's own.
    """
    positions = tuple(batch.positions.tolist())
    reference = batch.reference
    condition = codec.encode_reference(
        reference,
        normal(reference.shape[1:], seed, positions, "reference noise", reference.device),
        batch.fps,
        noise_aug_strength=settings.noise_aug_strength,
        motion_bucket_id=settings.motion_bucket_id,
        embedding=batch.embedding,
    )
    u_image = uniform(seed, positions, "image dropout", reference.device)
    u_pose = uniform(seed, positions, "pose dropout", reference.device)
    return EncodedBatch(
        latents=codec.encode_video(batch.frames) if batch.latents is None else batch.latents,
        condition=drop_image(condition, u_image, settings.image_dropout),
        pose_maps=drop_pose(batch.pose_maps, u_pose, settings.pose_dropout),
        positions=positions,
    )


def drop_image(condition: Condition, u: Float[Tensor, " B"], p: float) -> Condition:
    """Zero the embedding where u < 2p and the image latents where p <= u < 3p (InstructPix2Pix, Brooks et al. 2023)."""
    embedding = condition.image_embedding * (u >= 2 * p).view(-1, 1, 1)
    latents = condition.image_latents * ((u < p) | (u >= 3 * p)).view(-1, 1, 1, 1)
    return condition._replace(image_embedding=embedding, image_latents=latents)


def drop_pose(pose_maps: Float[Tensor, "B F 3 H W"], u: Float[Tensor, " B"], p: float) -> Float[Tensor, "B F 3 H W"]:
    """Blank the pose maps of whole clips where u < p. A blank map is what "no pose" means to the branch."""
    return pose_maps * (u >= p).view(-1, 1, 1, 1, 1)
