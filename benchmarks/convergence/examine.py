"""What an arm can do at a checkpoint: poses found again in its samples, and its loss on held-out clips."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.convergence.race import Arm
from lisa_video.config.schema import RunConfig
from lisa_video.held_out_loss import denoising_errors
from lisa_video.models.backbone import BackboneParts
from lisa_video.models.build import build_branch, build_sigmas
from lisa_video.models.controlled import ControlledDenoiser
from lisa_video.pipeline import PoseVideoPipeline
from lisa_video.pose.detector import PoseDetector
from lisa_video.pretraining.clips_in_memory import Clips
from lisa_video.randomness import normal

LEVELS = 5
_SEED = 0  # of sampling and of held-out noise: the same for all arms and training seeds


class Findings(NamedTuple):
    """Of N held-out clips.

    Attributes:
        xy: (N, F, K, 2) joints found in the samples, pixels.
        score: (N, F, K).
        errors: (N, LEVELS) squared error of each held-out clip, at the middles of equally likely ranges of the noise
            level.
        misled: (N, LEVELS) the same with the poses of the next clip.
        videos: (N, F, H, W, 3) uint8, the samples.
    """

    xy: np.ndarray
    score: np.ndarray
    errors: np.ndarray
    misled: np.ndarray
    videos: np.ndarray


class Examiner:
    """Samples and measures an arm's moving average on the same clips with the same noise.

    Args:
        config: of the experiment's base: sampling, and the noise levels at which all arms are measured.
        parts: frozen network and codec.
        clips: held-out clips.
        detector: finds one person a frame.
    """

    def __init__(self, config: RunConfig, parts: BackboneParts, clips: Clips, detector: PoseDetector) -> None:
        self.config, self.parts, self.clips, self.detector = config, parts, clips, detector

    def __call__(self, arm: Arm | None) -> Findings:
        """Examine an arm; None is the frozen network alone."""
        with nullcontext() if arm is None else arm.averaged():
            return self._examine(arm)

    def _examine(self, arm: Arm | None) -> Findings:
        clips, device = self.clips, self.clips.latents.device
        branch = build_branch(self.config, self.parts).to(device) if arm is None else arm.model.branch
        poses = None if arm is None else clips.pose_maps.float() / 255
        pipeline = PoseVideoPipeline.untrained(self.config, self.parts, branch)
        frames = clips.latents.shape[1]
        videos = pipeline(clips.pictures, poses, clips.fps, seed=_SEED, keys=clips.ids, num_frames=frames).numpy()
        people = self.detector.find(videos.reshape(-1, *videos.shape[2:]))
        xy = np.stack([person.xy[0] for person in people]).reshape(*videos.shape[:2], -1, 2)
        score = np.stack([person.score[0] for person in people]).reshape(*videos.shape[:2], -1)
        errors = self._errors(pipeline.denoiser, poses)
        misled = errors if poses is None else self._errors(pipeline.denoiser, poses.roll(-1, dims=0))
        return Findings(xy, score, errors, misled, videos)

    @torch.no_grad()
    def _errors(self, model: ControlledDenoiser, poses: Tensor | None) -> np.ndarray:
        clips, settings = self.clips, self.config.conditioning
        x0 = clips.latents
        noise = normal(x0.shape[1:], _SEED, clips.ids, "held-out noise", x0.device)
        condition = self.parts.codec.encode_reference(
            clips.pictures,
            normal(clips.pictures.shape[1:], _SEED, clips.ids, "reference noise", x0.device),
            clips.fps,
            noise_aug_strength=settings.noise_aug_strength,
            motion_bucket_id=settings.motion_bucket_id,
            embedding=clips.embedding,
        )
        quantiles = (torch.arange(LEVELS) + 0.5) / LEVELS
        errors = [
            denoising_errors(model, x0, noise, sigma, condition, poses)
            for sigma in build_sigmas(self.config.noise).icdf(quantiles).tolist()
        ]
        by_clip: np.ndarray = torch.stack(errors, dim=1).float().cpu().numpy()
        return by_clip
